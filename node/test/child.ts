// Programs that process.test.ts runs to their end.

import { once } from "node:events";
import { setTimeout } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { isMainThread, Worker } from "node:worker_threads";

import { pairMemoryTransports, setLogger } from "arcp";

import { TOKEN, client, runtime } from "./support.js";

const [program = "", url = "", db = ""] = isMainThread ? process.argv.slice(2) : ["in-worker"];

async function answer(text: string): Promise<void> {
  const there = runtime({ answer: () => text });
  const [near, far] = pairMemoryTransports();
  void there.accept(far);
  const here = client();
  await here.connect(near);
  console.log(await (await here.submit({ agent: "answer" })).result());
}

const programs: Record<string, () => Promise<void>> = {
  async imported() {
    console.log("imported");
  },
  async idle() {
    await client().connect(url);
    console.log("connected");
  },
  async pending() {
    const here = client();
    await here.connect(url);
    const handle = await here.submit({ agent: "soon" });
    void handle.done.then((done) => console.log(done.result));
  },
  async unsubscribed() {
    const here = client();
    await here.connect(url);
    const { jobId } = await client().connect(url).then(() => here.submit({ agent: "never" }));
    const other = client();
    await other.connect(url);
    const followed = await other.subscribe(jobId);
    followed.unsubscribe();
    await here.close();
    console.log("left");
  },
  // Neither side is closed.
  memory: () => answer("done"),
  /** A runtime over a database, at the port of `url`; it ends by being killed. */
  async serve() {
    const there = runtime({}, { db, synchronous: "normal" });
    there.registerAgent(
      "counts",
      async (upTo: number, ctx) => {
        for (let i = 0; i < upTo; i++) {
          await ctx.progress(i, { total: upTo });
          await setTimeout(5);
        }
        return upTo;
      },
      { restartable: true },
    );
    there.registerAgentVersion("waits", "1.0", async (_input, ctx) => {
      await ctx.status("waiting");
      await new Promise(() => {});
    });
    const { port } = await there.listen({ port: Number(url) });
    console.log(port);
  },
  /** An idle client that reconnects for ever, with a token that is asked for each time. */
  async reconnecting() {
    let asked = 0;
    const here = client({
      reconnect: { initialSec: 0.01, maxSec: 0.05, giveUpAfterSec: 0 },
      token: async () => {
        asked++;
        return TOKEN;
      },
    });
    await here.connect(url);
    console.log("connected");
    // The parent cuts the connection, then says so.
    await once(process.stdin, "data");
    process.stdin.destroy();
    await setTimeout(300);
    console.log(asked > 1 ? "reconnecting" : "not asked");
  },
  /** The same with an open handle. */
  async healing() {
    const here = client({ reconnect: { initialSec: 0.01, maxSec: 0.05, giveUpAfterSec: 0 } });
    await here.connect(url);
    const handle = await here.submit<string>({ agent: "soon" });
    console.log("submitted");
    void handle.result().then((result) => console.log(result));
  },
  async exit() {
    const here = client();
    await here.connect(url);
    await here.submit({ agent: "never" });
    await runtime({}).listen({ port: 0 });
    console.log("leaving");
    process.exit(7);
  },
  async worker() {
    const worker = new Worker(fileURLToPath(import.meta.url));
    await new Promise((resolve) => worker.on("exit", resolve));
    await answer("from the main thread");
  },
  "in-worker": () => answer("from the worker"),
  async logs() {
    const there = runtime({});
    const { url: served } = await there.listen({ port: 0 });
    const logged = new Promise<void>((resolve) => {
      const print = (line: string): void => {
        console.log(line);
        resolve();
      };
      setLogger({ debug: print, info: print, warn: print, error: print }, "debug");
    });
    await client()
      .connect(`${served}/elsewhere`)
      .catch(() => {});
    await logged;
    await there.close();
  },
};

await programs[program]?.();
