// Programs that process.test.ts runs to their end.

import { isMainThread, Worker } from "node:worker_threads";
import { fileURLToPath } from "node:url";

import { pairMemoryTransports, setLogger } from "arcp";

import { client, runtime } from "./support.js";

const [program = "", url = ""] = isMainThread ? process.argv.slice(2) : ["in-worker"];

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
