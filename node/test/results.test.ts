import assert from "node:assert/strict";
import { Readable } from "node:stream";
import { test } from "node:test";

import {
  ArgumentError,
  CancelledError,
  InternalError,
  InvalidRequestError,
  LeaseSubsetViolationError,
  PermissionDeniedError,
  type Agent,
  type ChildJob,
  type JobContext,
} from "arcp";

import { aborted, client, collect, only, runtime, session } from "./support.js";

const MIB = 1024 * 1024;

/** Bytes that no shift or repetition of a chunk leaves alike. */
function pattern(length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let at = 0; at + 4 <= length; at += 4) bytes.writeUInt32LE(at, at);
  return bytes;
}

const write =
  (...parts: (string | Uint8Array)[]): Agent =>
  async (_input, ctx) => {
    const out = ctx.streamResult();
    for (const part of parts) await out.write(part);
    await out.close({ summary: "all of it" });
  };

test("a streamed result arrives as its bytes, text or not", () =>
  session({ text: write("é", "😀".repeat(200_000)), bytes: write(pattern(3 * MIB), new Uint8Array([0xff])) }, async (here) => {
    const text = await here.submit({ agent: "text" });
    assert.equal((await text.resultBytes()).toString(), "é" + "😀".repeat(200_000));
    const done = await text.done;
    assert.equal(done.summary, "all of it");
    assert.equal(done.result, undefined);
    assert.equal(done.result_size, 800_002);

    const bytes = await (await here.submit({ agent: "bytes" })).resultBytes();
    assert.ok(bytes instanceof Uint8Array);
    assert.ok(bytes.equals(Buffer.concat([pattern(3 * MIB), Buffer.from([0xff])])));
  }));

test("an inline result is bytes too, and a stream", () =>
  session({ inline: () => ({ n: 1 }) }, async (here) => {
    assert.equal((await (await here.submit({ agent: "inline" })).resultBytes()).toString(), '{"n":1}');
    const stream = (await here.submit({ agent: "inline" })).resultStream();
    assert.equal(Buffer.concat(await stream.toArray()).toString(), '{"n":1}');
  }));

test("a result longer than the client holds is read as a stream", async () => {
  const there = runtime({ long: write(pattern(6 * MIB)) });
  const { url } = await there.listen({ port: 0 });
  const here = client({ maxResultBytes: MIB });
  await here.connect(url);
  await assert.rejects((await here.submit({ agent: "long" })).resultBytes(), /max_result_bytes|result/);
  const stream = (await here.submit({ agent: "long" })).resultStream();
  const parts: Buffer[] = [];
  for await (const part of stream) parts.push(part as Buffer);
  assert.ok(parts.length > 1);
  assert.ok(Buffer.concat(parts).equals(pattern(6 * MIB)));
  await here.close();
  await there.close();
});

test("a stream ends in the job's error, and part of a result is no result", () =>
  session(
    {
      half: async (_input, ctx) => {
        await ctx.streamResult().write("half");
        throw new PermissionDeniedError("no more");
      },
    },
    async (here) => {
      const half = await here.submit({ agent: "half" });
      await assert.rejects(half.resultStream().toArray(), PermissionDeniedError);
      await assert.rejects(half.resultBytes(), PermissionDeniedError);
    },
  ));

test("a readable is written as the result", () =>
  session(
    {
      source: (_input, ctx) => ctx.writeResult(Readable.from([Buffer.from("a"), "b", Buffer.from("c")]), { resultId: "mine" }),
    },
    async (here) => {
      const handle = await here.submit({ agent: "source" });
      assert.equal((await handle.resultBytes()).toString(), "abc");
      assert.equal((await handle.done).result_id, "mine");
    },
  ));

test("a flushed part is there before the next", () =>
  session(
    {
      live: async (_input, ctx) => {
        const out = ctx.streamResult();
        await out.write("first");
        out.flush();
        await aborted(ctx.signal);
        throw ctx.signal.reason;
      },
    },
    async (here) => {
      const handle = await here.submit({ agent: "live" });
      const events = handle.events();
      const { value } = await events.next();
      assert.equal((value?.body as { data: string }).data, "first");
      handle.cancel();
      await assert.rejects(handle.done, CancelledError);
    },
  ));

test("a writer that failed lets no job succeed", () =>
  session(
    {
      swallowed: async (_input, ctx) => {
        const out = ctx.streamResult();
        await out.write("some");
        try {
          await out.write(17 as unknown as string);
        } catch (error) {
          assert.ok(error instanceof ArgumentError);
        }
        await assert.rejects(out.close(), ArgumentError);
        return "fine";
      },
      source: async (_input, ctx) => {
        const broken = async function* (): AsyncGenerator<string> {
          yield "some";
          throw new Error("the disk is gone");
        };
        await ctx.writeResult(broken()).catch(() => {});
        return "fine";
      },
      scope: async (_input, ctx) => {
        const out = ctx.streamResult();
        await out.write("some");
        await out[Symbol.asyncDispose]();
        return "fine";
      },
      unawaited: async (_input, ctx) => {
        void ctx.streamResult().close({ summary: "s".repeat(70_000) });
        return "fine";
      },
    },
    async (here) => {
      const end = async (agent: string): Promise<unknown> => (await here.submit({ agent })).done;
      await assert.rejects(end("swallowed"), InternalError);
      await assert.rejects(end("source"), /the disk is gone/);
      await assert.rejects(end("scope"), /left unfinished/);
      await assert.rejects(end("unawaited"), InvalidRequestError);
    },
  ));

test("a write that nobody awaits is whole, and a closed scope succeeds", async () => {
  const there = runtime({
    hurried: (_input, ctx: JobContext) => void ctx.streamResult({ chunkBytes: 64 * 1024 }).write(pattern(24 * MIB)),
    scoped: async (_input, ctx: JobContext) => {
      const out = ctx.streamResult();
      void out.write(pattern(24 * MIB));
      void out.close();
      await out[Symbol.asyncDispose]();
    },
  });
  const { url } = await there.listen({ port: 0 });
  const here = client();
  await here.connect(url);
  for (const agent of ["hurried", "scoped"]) {
    assert.ok((await (await here.submit({ agent })).resultBytes()).equals(pattern(24 * MIB)), agent);
  }
  await here.close();
  await there.close();
});

test("a result over the cap ends the job, whatever its agent does", async () => {
  const endless: Agent = async (_input, ctx) => {
    const out = ctx.streamResult();
    try {
      for (;;) await out.write(Buffer.alloc(MIB));
    } catch (error) {
      assert.ok(error instanceof InternalError && error.details?.["cap"] !== undefined);
      return "fine";
    }
  };
  const there = runtime({ endless }, { caps: { maxResultBytes: 2 * MIB } });
  const { url } = await there.listen({ port: 0 });
  const here = client();
  await here.connect(url);
  const handle = await here.submit({ agent: "endless" });
  await assert.rejects(handle.done, (error) => error instanceof InternalError && error.details?.["cap"] !== undefined);
  await here.close();
  await there.close();
});

test("an agent delegates, awaits its child and cancels another", () =>
  session(
    {
      parent: async (_input, ctx) => {
        const one: ChildJob<{ got: number }> = await ctx.delegate({ agent: "child", input: 1, delegateId: "one" });
        assert.equal(one.delegateId, "one");
        assert.equal(one.agent, "child");
        const first = await one.result();
        assert.equal(await one.result(), first);
        const two = await ctx.delegate({ agent: "waits", lease: { "fs.read": ["/a/b"] } });
        assert.deepEqual(two.lease, { "fs.read": ["/a/b"] });
        two.cancel("not needed");
        await assert.rejects(two.result(), CancelledError);
        await assert.rejects(ctx.delegate({ agent: "elsewhere" }), PermissionDeniedError);
        await assert.rejects(ctx.delegate({ agent: "child", lease: { "fs.read": ["/**"] } }), LeaseSubsetViolationError);
        return { child: one.jobId, first };
      },
      child: (input: number) => ({ got: input }),
      waits: async (_input, ctx) => {
        await aborted(ctx.signal);
        throw ctx.signal.reason;
      },
    },
    async (here) => {
      const lease = { "agent.delegate": ["child", "waits"], "fs.read": ["/a/**"] };
      const handle = await here.submit<{ child: string; first: unknown }>({ agent: "parent", lease });
      const delegated = await collect(handle.events({ kinds: ["delegate"] }));
      const { child, first } = await handle.result();
      assert.deepEqual(first, { got: 1 });
      assert.ok(delegated.some((event) => (event.body as { delegate_id: string }).delegate_id === "one"));
      const listed = await here.listJobs({ filter: { agent: "child" } });
      const entry = only(listed.jobs);
      assert.equal(entry.job_id, child);
      assert.equal(entry.parent_job_id, handle.jobId);
    },
  ));

test("a parent that awaits a child gives way with it", () =>
  session(
    {
      parent: async (_input, ctx) => (await ctx.delegate({ agent: "waits" })).result(),
      waits: async (_input, ctx) => {
        await ctx.status("waiting");
        await aborted(ctx.signal);
        throw ctx.signal.reason;
      },
    },
    async (here) => {
      const handle = await here.submit({ agent: "parent", lease: { "agent.delegate": ["waits"] } });
      assert.equal((await handle.events().next()).value?.kind, "delegate");
      handle.cancel();
      await assert.rejects(handle.done, CancelledError);
    },
  ));
