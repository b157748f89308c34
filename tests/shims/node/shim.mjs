// The Node shim: one JSON command per line in, one JSON answer per line out (see ../README.md).

import { createInterface } from "node:readline";

import { ARCPClient, ARCPError, ARCPRuntime, IMPL_VERSION, RegistryClient } from "../../../node/dist/index.js";
import { parse, stringify } from "../../../node/dist/json.js";
import { AGENTS } from "./agents.mjs";
import { FUNCTIONS } from "./functions.mjs";

const CAPABILITIES = [
  ...["client", "runtime", "subscribe", "submit.lease", "agent_versions", "heal", "resume", "listing", "result_chunk"],
  "registry",
  ...Object.keys(AGENTS).map((name) => `agent.${name}`),
  ...Object.keys(FUNCTIONS).map((name) => `call.${name}`),
];

class Refusal extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/** Handles by the names given out for them. */
class Handles {
  #letter;
  #what;
  #all = new Map();

  constructor(letter, what) {
    this.#letter = letter;
    this.#what = what;
  }

  keep(handle) {
    const name = `${this.#letter}${this.#all.size + 1}`;
    this.#all.set(name, handle);
    return name;
  }

  get(name) {
    const handle = this.#all.get(name);
    if (handle === undefined) throw new Refusal("BAD_ARGUMENT", `no ${this.#what} "${name}"`);
    return handle;
  }
}

const sessions = new Handles("s", "session");
const jobs = new Handles("j", "job");
const runtimes = new Handles("r", "runtime");

const COMMANDS = {
  hello: () => ({ language: "node", capabilities: CAPABILITIES }),

  async connect({ url, token, features, timeout_ms, reconnect, resume }) {
    const client = new ARCPClient({
      client: { name: "arcp-shim", version: IMPL_VERSION },
      token,
      ...(features && { features }),
      ...(timeout_ms && { handshakeTimeoutMs: timeout_ms }),
      ...(reconnect === false && { reconnect }),
    });
    const { session_id, resume_token } = resume
      ? await client.resume(url, {
          sessionId: resume.session_id,
          resumeToken: resume.resume_token,
          lastEventSeq: resume.last_event_seq ?? 0,
        })
      : await client.connect(url);
    return { session: sessions.keep(client), session_id, features: client.negotiatedFeatures, resume_token };
  },

  attach({ session, job_id }) {
    const handle = sessions.get(session).job(job_id);
    return { job: jobs.keep({ handle, events: handle.events() }) };
  },

  async list_jobs({ session, status, agent, limit, cursor }) {
    const filter = { ...(status && { status }), ...(agent && { agent }) };
    const page = await sessions.get(session).listJobs({
      ...(Object.keys(filter).length > 0 && { filter }),
      ...(limit != null && { limit }),
      ...(cursor != null && { cursor }),
    });
    return { jobs: page.jobs, next_cursor: page.nextCursor ?? null };
  },

  async submit(command) {
    const handle = await sessions.get(command.session).submit({
      agent: command.agent,
      input: command.input,
      lease: command.lease_request ?? undefined,
      leaseConstraints: command.lease_constraints ?? undefined,
      idempotencyKey: command.idempotency_key ?? undefined,
      maxRuntimeSec: command.max_runtime_sec ?? undefined,
    });
    const { jobId, agent, lease, budget } = handle;
    return { job: jobs.keep({ handle, events: handle.events() }), job_id: jobId, agent, lease, budget };
  },

  async events({ job, max }) {
    const { events } = jobs.get(job);
    const taken = [];
    for (;;) {
      if (taken.length === (max ?? Infinity)) return { events: taken, ended: false };
      const { value, done } = await events.next();
      if (done) return { events: taken, ended: true };
      taken.push({ kind: value.kind, body: value.body });
    }
  },

  async result({ job }) {
    const { handle } = jobs.get(job);
    const { final_status, result, result_id, summary } = await handle.done;
    const value = result_id === undefined ? result : parse((await handle.resultBytes()).toString());
    return { status: final_status, result: value, summary };
  },

  cancel({ session, job_id, reason }) {
    sessions.get(session).cancelJob(job_id, reason ? { reason } : {});
    return {};
  },

  async subscribe({ session, job_id, history, from_event_seq }) {
    const handle = await sessions.get(session).subscribe(job_id, {
      history: history ?? false,
      ...(from_event_seq != null && { fromEventSeq: from_event_seq }),
    });
    const { status, agent, replayed } = handle;
    return { job: jobs.keep({ handle, events: handle.events() }), status, agent, replayed };
  },

  unsubscribe({ job }) {
    jobs.get(job).handle.unsubscribe();
    return {};
  },

  async close({ session }) {
    await sessions.get(session).close();
    return {};
  },

  async serve({ agents, tokens }) {
    const runtime = new ARCPRuntime({ runtime: { name: "arcp-shim", version: IMPL_VERSION }, bearer: tokens });
    for (const registration of agents) {
      const [name, version] = registration.split("@");
      const agent = AGENTS[name];
      if (agent === undefined) throw new Refusal("BAD_ARGUMENT", `no corpus agent "${name}"`);
      if (version === undefined) runtime.registerAgent(name, agent);
      else runtime.registerAgentVersion(name, version, agent);
    }
    const { url } = await runtime.listen({ port: 0 });
    return { runtime: runtimes.keep(runtime), url };
  },

  async stop({ runtime }) {
    await runtimes.get(runtime).close();
    return {};
  },

  health: ({ url }) => new RegistryClient(url).health(),

  register: ({ url, agent, agent_key }) => new RegistryClient(url).register(agent, { agentKey: agent_key }),

  async discover({ url, agent_type, capabilities, limit }) {
    const agents = await new RegistryClient(url).discover({
      ...(agent_type != null && { agentType: agent_type }),
      ...(capabilities != null && { capabilities }),
      ...(limit != null && { limit }),
    });
    return { agents };
  },

  call({ function: name, args }) {
    const call = FUNCTIONS[name];
    if (call === undefined) throw new Refusal("UNSUPPORTED", `no function "${name}"`);
    return call(args);
  },
};

function answer(id, outcome) {
  process.stdout.write(`${stringify({ id, ...outcome })}\n`);
}

async function carryOut(command) {
  const run = Object.hasOwn(COMMANDS, command.do) ? COMMANDS[command.do] : undefined;
  if (run === undefined) throw new Refusal("UNSUPPORTED", `no command "${command.do}"`);
  return run(command);
}

function refusal(error) {
  if (error instanceof ARCPError) return error.toPayload();
  return { code: error.code ?? "BAD_ARGUMENT", message: String(error.message), retryable: false };
}

for await (const line of createInterface({ input: process.stdin })) {
  const command = parse(line);
  if (command.do === "exit") {
    answer(command.id, { ok: {} });
    break;
  }
  // Commands overlap: one that waits holds up no other.
  carryOut(command).then(
    (ok) => answer(command.id, { ok }),
    (error) => answer(command.id, { error: refusal(error) }),
  );
}
process.exit(0);
