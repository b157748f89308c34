import assert from "node:assert/strict";
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { fileURLToPath } from "node:url";

import {
  InternalError,
  InvalidRequestError,
  ResumeWindowExpiredError,
  TransportClosedError,
  UnauthenticatedError,
  type ARCPClient,
  type JobEvent,
  type SessionResume,
} from "arcp";

import { Proxy } from "./proxy.js";
import { TOKEN, aborted, client, collect, runtime } from "./support.js";

const CHILD = fileURLToPath(new URL("child.js", import.meta.url));
const FAST = { initialSec: 0.01, maxSec: 0.1, giveUpAfterSec: 20 };

const current = (event: JobEvent): number => (event.body as { current: number }).current;

/** A process with a runtime over `db`, and the port it listens at. */
async function serve(db: string, port = 0): Promise<{ process: ChildProcess; port: number }> {
  const child = spawn(process.execPath, [CHILD, "serve", String(port), db], { stdio: ["ignore", "pipe", "inherit"] });
  const [line] = (await once(child.stdout, "data")) as [Buffer];
  return { process: child, port: Number(line.toString()) };
}

async function kill(child: ChildProcess): Promise<void> {
  const gone = once(child, "exit");
  child.kill("SIGKILL");
  await gone;
}

async function database(t: TestContext): Promise<string> {
  const home = await mkdtemp(join(tmpdir(), "arcp-"));
  t.after(() => rm(home, { recursive: true, force: true }));
  return join(home, "runtime.db");
}

function point(of: ARCPClient): SessionResume {
  return {
    sessionId: of.sessionId as string,
    resumeToken: of.resumeToken as string,
    lastEventSeq: of.lastEventSeqObserved,
  };
}

test("a handle and its iterator go on through cut connections, and the token is asked for anew", async () => {
  const there = runtime({
    counts: async (upTo: number, ctx) => {
      for (let i = 0; i < upTo; i++) await ctx.progress(i);
      await aborted(AbortSignal.any([ctx.signal, AbortSignal.timeout(200)]));
      for (let i = upTo; i < 2 * upTo; i++) await ctx.progress(i);
      return "counted";
    },
  });
  const { port } = await there.listen({ port: 0 });
  const proxy = await Proxy.to(port);
  let asked = 0;
  const token = async (): Promise<string> => {
    asked++;
    return TOKEN;
  };
  const here = client({ token, reconnect: FAST });
  const { resume_token: before } = await here.connect(proxy.url);
  const handle = await here.submit({ agent: "counts", input: 500 });
  const seen: number[] = [];
  for await (const event of handle.events({ kinds: ["progress"] })) {
    seen.push(current(event));
    if (seen.length === 100 || seen.length === 400) proxy.cut();
  }
  assert.deepEqual(seen, Array.from({ length: 1000 }, (_, i) => i));
  assert.equal(await handle.result(), "counted");
  assert.ok(asked >= 2, `asked ${asked} times`);
  assert.notEqual(here.resumeToken, before);
  await here.close();
  await proxy.close();
  await there.close();
});

test("without reconnect a cut connection fails what is open", async () => {
  const there = runtime({ waits: (_input, ctx) => aborted(ctx.signal) });
  const { port } = await there.listen({ port: 0 });
  const proxy = await Proxy.to(port);
  const here = client({ reconnect: false });
  await here.connect(proxy.url);
  const handle = await here.submit({ agent: "waits" });
  proxy.cut();
  await assert.rejects(handle.done, TransportClosedError);
  await here.close();
  await proxy.close();
  await there.close();
});

test("a token function's own error reaches who connects", async () => {
  const there = runtime({});
  const { url } = await there.listen({ port: 0 });
  const down = new RangeError("the token service is down");
  const refusing = client({
    token: () => {
      throw down;
    },
  });
  await assert.rejects(refusing.connect(url), (error) => error === down);
  await assert.rejects(client({ token: () => 17 as unknown as string }).connect(url), { code: "BAD_ARGUMENT" });
  await assert.rejects(client({ token: async () => "tok-mallory" }).connect(url), UnauthenticatedError);
  await there.close();
});

test("a restartable job is run again by the runtime that comes after a killed one, and its handle goes on", async (t) => {
  const db = await database(t);
  const first = await serve(db);
  const here = client({ reconnect: FAST });
  await here.connect(`ws://127.0.0.1:${first.port}/arcp`);
  const counts = await here.submit<number>({ agent: "counts", input: 40 });
  const waits = await here.submit({ agent: "waits" });
  const seen: number[] = [];
  let second: ChildProcess | undefined;
  for await (const event of counts.events({ kinds: ["progress"] })) {
    seen.push(current(event));
    if (seen.length === 5) {
      await kill(first.process);
      second = (await serve(db, first.port)).process;
    }
  }
  // Counted to where it was killed, then from the start again.
  assert.deepEqual(seen.slice(-40), Array.from({ length: 40 }, (_, i) => i));
  assert.ok(seen.length >= 45);
  assert.equal(await counts.result(), 40);
  await assert.rejects(waits.done, (error) => error instanceof InternalError && error.retryable);
  const { jobs } = await here.listJobs({ filter: { agent: "counts" } });
  assert.deepEqual(
    jobs.map((job) => [job.job_id, job.status]),
    [[counts.jobId, "success"]],
  );
  await here.close();
  await kill(second as ChildProcess);
});

test("another client takes up a session, with its jobs", async () => {
  const there = runtime({
    counts: async (_input, ctx) => {
      for (let i = 0; i < 20; i++) await ctx.progress(i);
      await aborted(AbortSignal.any([ctx.signal, AbortSignal.timeout(500)]));
      return "counted";
    },
  });
  const { port } = await there.listen({ port: 0 });
  const proxy = await Proxy.to(port);
  const before = client({ reconnect: false });
  await before.connect(proxy.url);
  const { jobId } = await before.submit({ agent: "counts" });
  const took: SessionResume = { ...point(before), lastEventSeq: 0 };
  assert.throws(() => before.job(jobId), InvalidRequestError);
  proxy.cut();

  const here = client();
  const welcome = await here.connect(proxy.url, { resume: took });
  assert.equal(welcome.session_id, took.sessionId);
  assert.notEqual(welcome.resume_token, took.resumeToken);
  const handle = here.job<string>(jobId);
  assert.equal(handle.jobId, jobId);
  assert.deepEqual(here.jobs(), [jobId]);
  assert.deepEqual((await collect(handle)).map(current), Array.from({ length: 20 }, (_, i) => i));
  assert.equal(await handle.result(), "counted");

  const late = client();
  const unknown = late.resume(proxy.url, { ...took, sessionId: "sess_unknown" });
  await assert.rejects(unknown, ResumeWindowExpiredError);
  await late.close();
  await before.close();
  await here.close();
  await proxy.close();
  await there.close();
});

test("jobs are listed page by page, and filtered", async () => {
  const there = runtime({ echo: (input) => input, waits: (_input, ctx) => aborted(ctx.signal) });
  const { url } = await there.listen({ port: 0 });
  const here = client();
  await here.connect(url);
  const ids: string[] = [];
  for (let i = 0; i < 5; i++) {
    const handle = await here.submit({ agent: "echo" });
    await handle.done;
    ids.push(handle.jobId);
  }
  const waiting = await here.submit({ agent: "waits" });
  const page = await here.listJobs({ filter: { status: ["success"] }, limit: 2 });
  assert.equal(page.jobs.length, 2);
  assert.notEqual(page.nextCursor, undefined);
  const last = await here.listJobs({ filter: { status: ["running"], agent: "waits" } });
  assert.deepEqual([last.jobs.map((job) => job.job_id), last.nextCursor], [[waiting.jobId], undefined]);
  const all: string[] = [];
  for await (const job of here.allJobs({ filter: { agent: "echo" }, limit: 2 })) all.push(job.job_id);
  assert.deepEqual(all, ids);
  await assert.rejects(here.listJobs({ cursor: "nonsense" }), InvalidRequestError);
  await assert.rejects(here.listJobs({ status: ["running"] } as object), { code: "BAD_ARGUMENT" });
  await here.close();
  await there.close();
});

test("reconnecting keeps Node alive for an open handle, and only for that", async () => {
  const there = runtime({
    soon: (_input, ctx) =>
      Promise.race([new Promise((resolve) => setTimeout(resolve, 600, "done")), aborted(ctx.signal)]),
  });
  const { port } = await there.listen({ port: 0 });
  for (const [program, last] of [
    ["reconnecting", "reconnecting"],
    ["healing", "done"],
  ] as const) {
    const proxy = await Proxy.to(port);
    const child = spawn(process.execPath, [CHILD, program, proxy.url], { timeout: 10_000 });
    child.stderr.pipe(process.stderr);
    let out = "";
    child.stdout.on("data", (data) => (out += data));
    await once(child.stdout, "data");
    proxy.open = false;
    proxy.cut();
    child.stdin.write("cut\n");
    // The runtime is back only for the client that waits for something.
    if (program === "healing") setTimeout(() => (proxy.open = true), 300);
    const [code] = (await once(child, "close")) as [number | null];
    assert.equal(code, 0, program);
    assert.equal(out.trim().split("\n").at(-1), last);
    await proxy.close();
  }
  await there.close();
});
