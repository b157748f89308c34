import assert from "node:assert/strict";
import { test } from "node:test";

import { ARCPClient, ARCPRuntime, pairMemoryTransports } from "arcp";

test("a job goes on when its reader leaves", async () => {
  const runtime = new ARCPRuntime({ runtime: { name: "r", version: "1" }, bearer: { tok: "me" } });
  runtime.registerAgent("chatty", async (_input, ctx) => {
    for (let i = 0; i < 120_000; i++) await ctx.log("info", "a line");
    return "through";
  });
  const [ours, theirs] = pairMemoryTransports();
  void runtime.accept(theirs);
  const client = new ARCPClient({ client: { name: "c", version: "1" }, token: "tok" });
  await client.connect(ours);
  const handle = await client.submit({ agent: "chatty" });
  for await (const event of handle) {
    assert.equal(event.kind, "log");
    break;
  }
  assert.equal(await handle.result(), "through");
  await client.close();
  await runtime.close();
});

test("whatever an agent throws ends its job and nothing else", async () => {
  const runtime = new ARCPRuntime({ runtime: { name: "r", version: "1" }, bearer: { tok: "me" } });
  runtime.registerAgent("odd", () => {
    throw Object.create(null);
  });
  const [ours, theirs] = pairMemoryTransports();
  void runtime.accept(theirs);
  const client = new ARCPClient({ client: { name: "c", version: "1" }, token: "tok" });
  await client.connect(ours);
  const handle = await client.submit({ agent: "odd" });
  await assert.rejects(handle.done, /cannot be shown/);
  await client.close();
  await runtime.close();
});
