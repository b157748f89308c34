// Events from an agent in one process into `for await` in another, over a WebSocket: node scripts/bench.mjs [events]

import { fork } from "node:child_process";
import { fileURLToPath } from "node:url";

import { ARCPClient, ARCPRuntime } from "../dist/index.js";

const TOKEN = "bench";

if (process.send) {
  const runtime = new ARCPRuntime({ runtime: { name: "bench", version: "1" }, bearer: { [TOKEN]: "bench" } });
  const message = "x".repeat(60);
  runtime.registerAgent("emit", async (n, ctx) => {
    for (let i = 0; i < n; i++) {
      const emitted = ctx.log("info", message);
      if (emitted) await emitted;
    }
  });
  process.send((await runtime.listen({ port: 0 })).url);
  process.on("disconnect", () => runtime.close());
} else {
  const total = Number(process.argv[2] ?? 500_000);
  const server = fork(fileURLToPath(import.meta.url));
  const url = await new Promise((resolve) => server.once("message", resolve));
  const client = await ARCPClient.open(url, { client: { name: "bench", version: "1" }, token: TOKEN });
  const measure = async (name, take) => {
    const handle = await client.submit({ agent: "emit", input: total });
    const begin = performance.now();
    const before = performance.eventLoopUtilization();
    const taken = await take(handle);
    await handle.done;
    if (taken !== total) throw new Error(`${taken} of ${total} events came`);
    // Below 100 % the agent was the slower side.
    const busy = Math.round(performance.eventLoopUtilization(before).utilization * 100);
    console.log(`${name}: ${Math.round(total / (performance.now() - begin))} k events/s, receiver ${busy} % busy`);
  };
  for (let round = 0; round < 3; round++) {
    await measure("for await, one by one", async (handle) => {
      let taken = 0;
      for await (const event of handle) if (event.body.level === "info") taken++;
      return taken;
    });
    await measure("for await, in batches", async (handle) => {
      let taken = 0;
      for await (const batch of handle.eventBatches()) taken += batch.length;
      return taken;
    });
  }
  await client.close();
  server.disconnect();
}
