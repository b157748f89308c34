import assert from "node:assert/strict";
import { test } from "node:test";

import { CancelledError, ClosedError, InternalError, PermissionDeniedError, type JobEvent } from "arcp";

import { aborted, client, collect, only, runtime, session } from "./support.js";

const echo = async (input: unknown, ctx: import("arcp").JobContext): Promise<unknown> => {
  await ctx.log("info", "echo started");
  return { echoed: input };
};

test("a job runs over memory", () =>
  session({ echo }, async (here) => {
    const handle = await here.submit<{ echoed: unknown }>({ agent: "echo", input: { hi: 1 } });
    const event = only(await collect(handle));
    assert.equal(event.kind, "log");
    assert.deepEqual(event.body, { level: "info", message: "echo started" });
    assert.equal((await handle.done).final_status, "success");
    assert.deepEqual(await handle.result(), { echoed: { hi: 1 } });
  }));

test("a job runs over a WebSocket", async () => {
  const there = runtime({ echo });
  const listener = await there.listen({ port: 0 });
  assert.match(listener.url, /^ws:\/\/127\.0\.0\.1:\d+\/arcp$/);
  const here = client();
  const welcome = await here.connect(listener.url);
  assert.equal(here.sessionId, welcome.session_id);
  assert.ok(here.hasFeature("progress"));
  assert.deepEqual(await (await here.submit({ agent: "echo", input: "é😀" })).result(), { echoed: "é😀" });
  await here.close();
  await there.close();
});

test("a plain function and no result are an agent and a result", () =>
  session({ plain: () => undefined }, async (here) => {
    assert.equal(await (await here.submit({ agent: "plain" })).result(), null);
  }));

test("integers beyond 2^53 keep every digit", () =>
  session({ echo }, async (here) => {
    const input = [2n ** 63n - 1n, -(2n ** 53n) - 1n, 2 ** 53 - 1, 1e300, "9007199254740993"];
    const handle = await here.submit({ agent: "echo", input });
    assert.deepEqual(await handle.result(), { echoed: input });
  }));

test("events come in order, one by one and in batches", () =>
  session(
    {
      count: async (n: number, ctx) => {
        for (let i = 0; i < n; i++) await ctx.progress(i, { total: n });
      },
    },
    async (here) => {
      const current = (event: JobEvent): number => (event.body as { current: number }).current;
      const expected = Array.from({ length: 3000 }, (_, i) => i);
      const one = await here.submit({ agent: "count", input: 3000 });
      // Beside these may stand a word of the runtime that the reader lags.
      const progress = (event: JobEvent): boolean => event.kind === "progress";
      assert.deepEqual((await collect(one.events())).filter(progress).map(current), expected);

      const many = await here.submit({ agent: "count", input: 3000 });
      const seen: number[] = [];
      for await (const batch of many.eventBatches({ maxItems: 100 })) {
        assert.ok(batch.length > 0 && batch.length <= 100);
        seen.push(...batch.filter(progress).map(current));
      }
      assert.deepEqual(seen, expected);
    },
  ));

test("an iterator left early and one with kinds lose nothing of the rest", () =>
  session(
    {
      mixed: async (_input, ctx) => {
        for (let i = 0; i < 10; i++) await (i % 2 ? ctx.thought(`${i}`) : ctx.log("info", `${i}`));
      },
    },
    async (here) => {
      const handle = await here.submit({ agent: "mixed" });
      for await (const event of handle) {
        assert.equal(event.kind, "log");
        break;
      }
      const thoughts = await collect(handle.events({ kinds: ["thought"] }));
      assert.deepEqual(thoughts.map((event) => event.body), ["1", "3", "5", "7", "9"].map((text) => ({ text })));
    },
  ));

test("an always ready iterator lets the loop run", () =>
  session(
    {
      count: async (n: number, ctx) => {
        for (let i = 0; i < n; i++) await ctx.progress(i);
      },
    },
    async (here) => {
      const handle = await here.submit({ agent: "count", input: 4000 });
      await handle.done;
      let turns = 0;
      const counting = setInterval(() => turns++, 0);
      await collect(handle);
      clearInterval(counting);
      assert.ok(turns > 0);
    },
  ));

test("cancelling reaches the agent, its clean-up is seen, the handle says so", () =>
  session(
    {
      sleeper: async (_input, ctx) => {
        await ctx.status("running");
        await aborted(ctx.signal);
        assert.ok(ctx.signal.reason instanceof CancelledError);
        assert.equal(ctx.signal.reason.message, "enough");
        await ctx.log("info", "cleaned up");
        ctx.signal.throwIfAborted();
      },
    },
    async (here) => {
      const handle = await here.submit({ agent: "sleeper" });
      const events = handle.events();
      assert.equal((await events.next()).value?.kind, "status");
      handle.cancel("enough");
      assert.deepEqual((await events.next()).value?.body, { level: "info", message: "cleaned up" });
      assert.equal((await events.next()).done, true);
      await assert.rejects(handle.done, CancelledError);
    },
  ));

test("the signal given to submit cancels an accepted job", () =>
  session(
    {
      sleeper: async (_input, ctx) => {
        ctx.status("running");
        await aborted(ctx.signal);
        throw ctx.signal.reason;
      },
    },
    async (here) => {
      const controller = new AbortController();
      const handle = await here.submit({ agent: "sleeper", signal: controller.signal });
      await handle.events().next();
      controller.abort();
      await assert.rejects(handle.result(), CancelledError);
      await assert.rejects(here.submit({ agent: "sleeper", signal: controller.signal }), { name: "AbortError" });
    },
  ));

test("what an agent throws is the job's error", () =>
  session(
    {
      fails: () => {
        throw new TypeError("boom");
      },
      refuses: async () => {
        throw new PermissionDeniedError("policy says no", { details: { why: "policy" } });
      },
      cyclic: () => {
        const cycle: { self?: unknown } = {};
        cycle.self = cycle;
        return cycle;
      },
    },
    async (here) => {
      const failed = await here.submit({ agent: "fails" });
      await assert.rejects(failed.done, (error) => {
        assert.ok(error instanceof InternalError);
        assert.match(error.message, /boom/);
        assert.equal(error.retryable, true);
        assert.match(error.stack ?? "", /JobHandle|jobs\.test|job\.js/);
        return true;
      });
      await assert.rejects((await here.submit({ agent: "refuses" })).done, {
        name: "PermissionDeniedError",
        code: "PERMISSION_DENIED",
        message: "policy says no",
        details: { why: "policy" },
      });
      await assert.rejects((await here.submit({ agent: "cyclic" })).done, /result cannot be written as JSON/);
    },
  ));

test("a subscription sees history and can be left", () =>
  session(
    {
      steps: async (_input, ctx) => {
        await ctx.status("one");
        await aborted(ctx.signal);
        throw ctx.signal.reason;
      },
    },
    async (here, there) => {
      const handle = await here.submit({ agent: "steps" });
      await handle.events().next();
      const listener = await there.listen({ port: 0 });
      const watcher = client();
      await watcher.connect(listener.url);
      const followed = await watcher.subscribe(handle.jobId, { history: true });
      assert.equal(followed.status, "running");
      assert.equal(followed.agent, "steps");
      const events = followed.events();
      assert.deepEqual((await events.next()).value?.body, { phase: "one" });
      const waiting = events.next();
      followed.unsubscribe();
      assert.equal((await waiting).done, true);
      await assert.rejects(followed.done, ClosedError);
      handle.cancel();
      await assert.rejects(handle.done, CancelledError);
      await watcher.close();
    },
  ));

test("open handles end when the client closes", () =>
  session({ sleeper: (_input, ctx) => aborted(ctx.signal) }, async (here) => {
    const handle = await here.submit({ agent: "sleeper" });
    const waiting = handle.events().next();
    await here.close();
    assert.equal((await waiting).done, true);
    await assert.rejects(handle.done, ClosedError);
    await assert.rejects(here.submit({ agent: "sleeper" }), ClosedError);
  }));
