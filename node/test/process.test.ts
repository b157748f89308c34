import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import { aborted, runtime } from "./support.js";

const CHILD = fileURLToPath(new URL("child.js", import.meta.url));

/** Runs one of the programs of child.ts to its end. */
function run(program: string, ...args: string[]): Promise<{ code: number | null; out: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [CHILD, program, ...args], { timeout: 10_000 });
    let out = "";
    child.stdout.on("data", (data) => (out += data));
    child.stderr.on("data", (data) => (out += data));
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, out }));
  });
}

test("Node ends with an idle client, waits for a pending one, and stops with everything open", async () => {
  const there = runtime({
    soon: (_input, ctx) => Promise.race([new Promise((resolve) => setTimeout(resolve, 300, "done")), aborted(ctx.signal)]),
    never: (_input, ctx) => aborted(ctx.signal),
  });
  const { url } = await there.listen({ port: 0 });
  assert.deepEqual(await run("imported"), { code: 0, out: "imported\n" });
  assert.deepEqual(await run("idle", url), { code: 0, out: "connected\n" });
  assert.deepEqual(await run("pending", url), { code: 0, out: "done\n" });
  assert.deepEqual(await run("unsubscribed", url), { code: 0, out: "left\n" });
  assert.deepEqual(await run("memory"), { code: 0, out: "done\n" });
  assert.deepEqual(await run("exit", url), { code: 7, out: "leaving\n" });
  await there.close();
});

test("a worker thread has a port of its own and ends with it", async () => {
  assert.deepEqual(await run("worker"), { code: 0, out: "from the worker\nfrom the main thread\n" });
});

test("logs go where they are asked to", async () => {
  const { code, out } = await run("logs");
  assert.equal(code, 0);
  assert.match(out, /^arcp\S*: .*not upgraded/);
});
