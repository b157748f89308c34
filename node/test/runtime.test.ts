import assert from "node:assert/strict";
import { test } from "node:test";

import {
  AgentNotAvailableError,
  ArgumentError,
  ClosedError,
  InvalidRequestError,
  pairMemoryTransports,
  PermissionDeniedError,
  StaticBearerVerifier,
  TransportClosedError,
  UnauthenticatedError,
  type EventBodies,
  type JobContext,
} from "arcp";

import { aborted, client, collect, runtime, session, TOKEN } from "./support.js";

test("an unknown agent is refused and the session goes on", () =>
  session({ known: () => 1 }, async (here) => {
    await assert.rejects(here.submit({ agent: "unknown" }), AgentNotAvailableError);
    assert.equal(await (await here.submit({ agent: "known" })).result(), 1);
  }));

test("a bad token is refused, whoever verifies", async () => {
  const verifiers = [
    { [TOKEN]: "alice" },
    new Map([[TOKEN, "alice"]]),
    new StaticBearerVerifier({ [TOKEN]: "alice" }),
    { verify: async (token: string) => (token === TOKEN ? { principal: "alice" } : null) },
    { verify: (token: string) => (token === TOKEN ? "alice" : undefined) },
  ];
  for (const bearer of verifiers) {
    const there = runtime({ who: (_input, ctx: JobContext) => ctx.principal }, { bearer });
    for (const token of ["tok-mallory", async () => TOKEN]) {
      const [near, far] = pairMemoryTransports();
      const served = there.accept(far);
      const here = client({ token });
      if (typeof token === "string") {
        await assert.rejects(here.connect(near), UnauthenticatedError);
      } else {
        await here.connect(near);
        assert.equal(await (await here.submit({ agent: "who" })).result(), "alice");
      }
      await here.close();
      await served;
    }
    await there.close();
  }
});

test("a verifier that fails says nothing of the token", async () => {
  const verify = (token: string): string => {
    throw new Error(`cannot look up ${token}`);
  };
  const there = runtime({}, { bearer: { verify } });
  const [near, far] = pairMemoryTransports();
  const served = there.accept(far);
  await assert.rejects(client().connect(near), (error: Error) => !error.message.includes(TOKEN));
  await there.close();
  await served;
});

test("two runtimes with an agent of the same name keep them apart", async () => {
  const ask = async (answer: string): Promise<unknown> => {
    let got: unknown;
    await session({ name: () => answer }, async (here) => {
      await session({ name: () => `not ${answer}` }, async (other) => {
        assert.equal(await (await other.submit({ agent: "name" })).result(), `not ${answer}`);
        got = await (await here.submit({ agent: "name" })).result();
      });
    });
    return got;
  };
  assert.deepEqual(await Promise.all([ask("one"), ask("two")]), ["one", "two"]);
});

test("versions of an agent", () =>
  session({}, async (here, there) => {
    there.registerAgentVersion("tool", "1.0", () => "old");
    there.registerAgentVersion("tool", "2.0", (_input, ctx) => ctx.agentRef);
    assert.equal(await (await here.submit({ agent: "tool" })).result(), "old");
    assert.equal(await (await here.submit({ agent: "tool@2.0" })).result(), "tool@2.0");
    there.setDefaultAgentVersion("tool", "2.0");
    assert.equal(await (await here.submit({ agent: "tool" })).result(), "tool@2.0");
    assert.deepEqual(there.agentInventory(), [{ name: "tool", versions: ["1.0", "2.0"], default: "2.0" }]);
  }));

test("the context knows its job and its lease", () =>
  session(
    {
      look: async (_input, ctx) => {
        ctx.authorize("fs.read", "/data/x");
        assert.throws(() => ctx.authorize("fs.read", "/etc/passwd"), PermissionDeniedError);
        assert.throws(() => ctx.log("loud", "no such level"), InvalidRequestError);
        assert.throws(() => ctx.emitEvent("strange", {}), InvalidRequestError);
        const { jobId, sessionId, agent, agentVersion, traceId, lease } = ctx;
        return { jobId, sessionId, agent, agentVersion: agentVersion ?? null, traceId, lease };
      },
    },
    async (here) => {
      const lease = { "fs.read": ["/data/**"] };
      const handle = await here.submit({ agent: "look", lease });
      const { jobId, traceId } = handle;
      assert.deepEqual(handle.lease, lease);
      assert.deepEqual(await handle.result(), {
        ...{ jobId, sessionId: here.sessionId, agent: "look", agentVersion: null, traceId, lease },
      });
    },
  ));

test("emitters return nothing, until the agent should wait", () =>
  session(
    {
      flood: async (n: number, ctx) => {
        let waits = 0;
        for (let i = 0; i < n; i++) {
          const emitted = ctx.progress(i);
          if (emitted !== undefined) {
            waits++;
            await emitted;
          }
        }
        return waits;
      },
    },
    async (here) => {
      const few = await here.submit<number>({ agent: "flood", input: 100 });
      assert.equal(await few.result(), 0);
      // More than a client that takes nothing may lag behind.
      const many = await here.submit<number>({ agent: "flood", input: 20_000 });
      const events = await collect(many);
      assert.equal(events.filter((event) => event.kind === "progress").length, 20_000);
      // Nothing else comes but the runtime's word that the reader lags.
      for (const { kind, body } of events) {
        if (kind !== "progress") assert.deepEqual([kind, (body as EventBodies["status"]).phase], ["status", "back_pressure"]);
      }
      assert.ok((await many.result()) > 0);
    },
  ));

test("an agent that never waits still hears of its cancellation", () =>
  session(
    {
      busy: async (_input, ctx) => {
        for (let i = 0; ; i++) {
          await ctx.progress(i);
          ctx.signal.throwIfAborted();
        }
      },
    },
    async (here) => {
      const handle = await here.submit({ agent: "busy" });
      const events = handle.events();
      await events.next();
      handle.cancel();
      while (!(await events.next()).done);
      await assert.rejects(handle.done, { code: "CANCELLED" });
    },
  ));

test("a runtime closes with jobs running, and refuses to listen then", async () => {
  const there = runtime({ sleeper: (_input, ctx: JobContext) => aborted(ctx.signal) });
  const { url } = await there.listen({ port: 0 });
  const here = client();
  await here.connect(url);
  const handle = await here.submit({ agent: "sleeper" });
  await there.close({ reason: "maintenance", graceMs: 100 });
  await assert.rejects(handle.done);
  await assert.rejects(there.listen({ port: 0 }), /closed/);
  await assert.rejects(client().connect(url), TransportClosedError);
  await here.close();
});

test("a runtime that closes while it begins to listen listens no more", async () => {
  const there = runtime({});
  const listening = assert.rejects(there.listen({ port: 0 }), ClosedError);
  await there.close();
  await listening;
  const [, far] = pairMemoryTransports();
  await assert.rejects(there.accept(far), ClosedError);
});

test("wrong arguments are named", async () => {
  assert.throws(() => client({ client: { name: "", version: "1" } }), ArgumentError);
  assert.throws(() => client({ handshakeTimeoutMs: -1 }), /handshake_timeout_sec/);
  assert.throws(() => runtime({}, { caps: { maxConcurrentJobs: 0 } }), /max_concurrent_jobs/);
  assert.throws(() => runtime({ "bad name": () => 1 }), InvalidRequestError);
  assert.throws(() => runtime({}, { bearer: { [TOKEN]: "" } }), ArgumentError);
  const there = runtime({});
  const { port } = await there.listen({ port: 0 });
  await assert.rejects(there.listen({ port }), (error) => error instanceof TransportClosedError);
  await assert.rejects(there.listen({ port: 0, path: "arcp" }), /path/);
  const [near, far] = pairMemoryTransports();
  near.close();
  await assert.rejects(client().connect(near), /in use/);
  far.close();
  await there.close();
});
