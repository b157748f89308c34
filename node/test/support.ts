import assert from "node:assert/strict";

import {
  ARCPClient,
  ARCPRuntime,
  pairMemoryTransports,
  type Agent,
  type ClientOptions,
  type JobEvent,
  type RuntimeOptions,
} from "arcp";

export const TOKEN = "tok-alice";

export function client(options: Partial<ClientOptions> = {}): ARCPClient {
  return new ARCPClient({ client: { name: "test", version: "1" }, token: TOKEN, ...options });
}

export function runtime(agents: Record<string, Agent>, options: Partial<RuntimeOptions> = {}): ARCPRuntime {
  const made = new ARCPRuntime({ runtime: { name: "test", version: "1" }, bearer: { [TOKEN]: "alice" }, ...options });
  for (const [name, agent] of Object.entries(agents)) made.registerAgent(name, agent);
  return made;
}

/** A client and a runtime joined in memory; both are closed after `use`. */
export async function session(
  agents: Record<string, Agent>,
  use: (client: ARCPClient, runtime: ARCPRuntime) => Promise<void>,
): Promise<void> {
  const here = client();
  const there = runtime(agents);
  const [near, far] = pairMemoryTransports();
  const served = there.accept(far);
  try {
    await here.connect(near);
    await use(here, there);
  } finally {
    await here.close();
    await there.close();
    await served;
  }
}

export async function collect(events: AsyncIterable<JobEvent>): Promise<JobEvent[]> {
  const all: JobEvent[] = [];
  for await (const event of events) all.push(event);
  return all;
}

/** Resolves when the signal aborts. */
export function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}

/** The one item of a list. */
export function only<T>(list: readonly T[]): T {
  assert.equal(list.length, 1);
  return list[0] as T;
}
