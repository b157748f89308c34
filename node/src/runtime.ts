import { JobContext } from "./context.js";
import { ArgumentError, CancelledError, ClosedError, UnauthenticatedError, attempt, toInfo, toJson, ARCPError } from "./errors.js";
import {
  native,
  type NativeInvocation,
  type NativeListener,
  type NativeRuntime,
  type NativeVerifyRequest,
} from "./native.js";
import { Port, hold, release, type Host, type JobStart } from "./port.js";
import type { Transport } from "./transport.js";
import { JwtVerifier, StaticBearerVerifier, ofCore, type BearerVerifier } from "./verifier.js";

/** How a runtime introduces itself. */
export interface RuntimeInfo {
  name: string;
  version: string;
}

/** Runs one job. What it returns, or its promise gives, is the result; what it throws is the job's error. */
export type Agent<Input = any> = (input: Input, ctx: JobContext) => unknown;

export interface RuntimeOptions {
  runtime: RuntimeInfo;
  /** Who is let in: a table of token to principal, what looks tokens up, or what checks signed ones. */
  bearer: BearerVerifier | JwtVerifier | ReadonlyMap<string, string> | Readonly<Record<string, string>>;
  /** What is offered; by default all this package supports. */
  features?: readonly string[];
  /** 30; 0 turns heartbeats off. */
  heartbeatIntervalSeconds?: number;
  /** 600. */
  resumeWindowSeconds?: number;
  /** How long a cancelled agent may clean up; 30 000. */
  cancelGraceMs?: number;
  /** 24 hours. */
  idempotencyTtlMs?: number;
  /** Path of a SQLite file that sessions, jobs and events are kept in; by default, and as `memory`, they are not. */
  db?: string;
  /** What `db` survives: `normal` the end of the process, `full` a power loss too; `normal`. */
  synchronous?: "normal" | "full";
  /**
   * Path of a file with the key that encrypts what `db` keeps: 32 bytes as they are, in hexadecimal or in Base64, readable
   * by this user alone (`arcp db key` makes one). A database is made with a key or without one, and opens so alone.
   */
  dbKeyFile?: string;
  caps?: {
    /** Jobs that run at once; 100. */
    maxConcurrentJobs?: number;
    /** Jobs that wait to run; 1000. */
    maxWaitingJobs?: number;
    /** Bytes of a streamed result; 256 MiB. */
    maxResultBytes?: number;
    /** Bytes of one chunk of it; 1 MiB. */
    maxResultChunkBytes?: number;
    /** Bytes of a result that is sent whole; 1 MiB. */
    maxInlineResultBytes?: number;
  };
}

/** How an agent is hosted. */
export interface AgentOptions {
  /**
   * Whether a job that died with an earlier process over the same `db` is run again, under the same id with what is left
   * of its budget and time; by default it ends with an `InternalError`. Register agents before the first connection.
   */
  restartable?: boolean;
}

export interface ListenOptions {
  /** 127.0.0.1. */
  host?: string;
  /** 7777; 0 takes a free one. */
  port?: number;
  /** /arcp. */
  path?: string;
  /** Names a `Host` header may carry. */
  allowedHosts?: readonly string[];
  /** PEM texts; with them it serves `wss://`. */
  tls?: { cert: string; key: string };
  /** Largest message in bytes; 16 MiB. */
  maxMessageBytes?: number;
}

/** A listening socket. It keeps Node alive until it is closed. */
export interface Listener {
  /** What clients connect to. */
  readonly url: string;
  readonly host: string;
  readonly port: number;
  /** Stops listening; accepted connections go on. */
  close(): Promise<void>;
}

/** An agent and its versions. */
export interface AgentEntry {
  name: string;
  versions: string[];
  default?: string;
}

interface Running {
  ctx: JobContext;
  /** Lets Node end, once. */
  done(): void;
}

/** Hosts agents and serves sessions. */
export class ARCPRuntime {
  readonly #native: NativeRuntime;
  readonly #port: Port;
  readonly #agents = new Map<string, Agent>();
  readonly #running = new Map<number, Running>();
  readonly #listeners = new Set<Listener>();
  readonly #verifier: BearerVerifier | JwtVerifier;
  #closing: Promise<void> | undefined;

  /** @throws ArgumentError naming the option that is wrong. */
  constructor(options: RuntimeOptions) {
    const settings = {
      name: options.runtime.name,
      version: options.runtime.version,
      features: options.features,
      heartbeat_interval_sec: options.heartbeatIntervalSeconds,
      resume_window_sec: options.resumeWindowSeconds,
      cancel_grace_sec: seconds(options.cancelGraceMs),
      idempotency_ttl_sec: seconds(options.idempotencyTtlMs),
      max_concurrent_jobs: options.caps?.maxConcurrentJobs,
      max_waiting_jobs: options.caps?.maxWaitingJobs,
      result_cap: options.caps?.maxResultBytes,
      result_chunk_cap: options.caps?.maxResultChunkBytes,
      inline_result_cap: options.caps?.maxInlineResultBytes,
      db: options.db,
      synchronous: options.synchronous,
      db_key_file: options.dbKeyFile,
    };
    const { bearer } = options;
    if (typeof bearer !== "object" || bearer === null) {
      throw new ArgumentError("bearer must be a verifier, or a table of token to principal");
    }
    this.#verifier = isVerifier(bearer) ? bearer : new StaticBearerVerifier(bearer);
    this.#port = new Port(this.#host());
    this.#native = attempt(
      () => new native.NativeRuntime(this.#port.native, toJson(settings, "options"), ofCore(this.#verifier)),
    );
  }

  /** Adds an agent, or replaces the one of this name. */
  registerAgent(name: string, agent: Agent, options: AgentOptions = {}): void {
    this.#register(name, undefined, agent, options);
  }

  /** Adds one version of an agent. The first version of a name is what the bare name means. */
  registerAgentVersion(name: string, version: string, agent: Agent, options: AgentOptions = {}): void {
    this.#register(name, version, agent, options);
  }

  /** @throws AgentNotAvailableError, AgentVersionNotAvailableError. */
  setDefaultAgentVersion(name: string, version: string): void {
    attempt(() => this.#native.setDefaultAgentVersion(name, version));
  }

  agentInventory(): AgentEntry[] {
    return JSON.parse(this.#native.agentInventory()) as AgentEntry[];
  }

  /** Serves one session over a transport, which is used up; resolves when it has ended. Does not keep Node alive. */
  async accept(transport: Transport): Promise<void> {
    await this.#port.call((call) => this.#native.accept(this.#port.native, call, transport._native), { holds: false });
  }

  /**
   * Serves WebSocket connections. The socket never enters JavaScript.
   *
   * @throws TransportClosedError when the port is in use.
   */
  async listen(options: ListenOptions = {}): Promise<Listener> {
    if (this.#closing) throw new ClosedError("this runtime is closed; make a new one");
    const port = this.#port;
    const settings = {
      host: options.host,
      port: options.port,
      path: options.path,
      allowed_hosts: options.allowedHosts,
      cert_pem: options.tls?.cert,
      key_pem: options.tls?.key,
      max_message_bytes: options.maxMessageBytes,
    };
    const { value, object } = await port.call<{ url: string; host: string; port: number }, NativeListener>((call) =>
      native.listen(port.native, call, toJson(settings, "options")),
    );
    if (this.#closing) {
      object.close();
      throw new ClosedError("this runtime was closed meanwhile");
    }
    const served = port.call((call) => this.#native.serve(port.native, call, object));
    const listener: Listener = {
      ...value,
      close: async () => {
        this.#listeners.delete(listener);
        object.close();
        await served;
      },
    };
    this.#listeners.add(listener);
    return listener;
  }

  /** Stops listening, cancels every job, gives them up to `graceMs` (1000), and ends every session. Idempotent. */
  close(options: { reason?: string; graceMs?: number } = {}): Promise<void> {
    this.#closing ??= this.#close(options.reason ?? "the runtime is closing", options.graceMs ?? 1000);
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #close(reason: string, graceMs: number): Promise<void> {
    await Promise.all([...this.#listeners].map((listener) => listener.close()));
    await this.#port.call((call) => this.#native.shutdown(this.#port.native, call, reason, graceMs));
    for (const id of [...this.#running.keys()]) this.#abandon(id);
    this.#port.close(reason);
  }

  #register(name: string, version: string | undefined, agent: Agent, options: AgentOptions): void {
    if (typeof agent !== "function") throw new ArgumentError(`the agent "${name}" must be a function`);
    attempt(() => this.#native.registerAgent(this.#port.native, name, version, options.restartable ?? false));
    this.#agents.set(version === undefined ? name : `${name}@${version}`, agent);
  }

  /** What the core asks of this runtime. */
  #host(): Partial<Host> {
    return {
      invoke: (id, invocation, start, input) => void this.#invoke(id, invocation, start, input),
      cancel: (id, cause, reason) => this.#running.get(id)?.ctx._giveWay(cause, reason),
      abandoned: (id) => this.#abandon(id),
      verify: (token, request) => void this.#verify(token, request),
    };
  }

  async #invoke(id: number, invocation: NativeInvocation, start: JobStart, input: unknown): Promise<void> {
    const ctx = new JobContext(this.#port, invocation, start);
    hold();
    const done = (): void => {
      if (this.#running.delete(id)) release();
    };
    this.#running.set(id, { ctx, done });
    try {
      const agent = this.#agents.get(ctx.agentRef);
      if (agent === undefined) throw new Error(`the agent "${ctx.agentRef}" has gone`);
      const result = toJson(await agent(input, ctx), "the result");
      await ctx._settled();
      attempt(() => invocation.complete(result));
    } catch (error) {
      if (gaveWay(error, ctx.signal)) invocation.cancelled();
      else invocation.fail(toInfo(error));
    } finally {
      done();
    }
  }

  /** The job has its terminal: whatever its agent still does is its own affair. */
  #abandon(id: number): void {
    const running = this.#running.get(id);
    running?.done();
    running?.ctx._giveWay("abandoned", "the job has ended");
  }

  async #verify(token: string, request: NativeVerifyRequest): Promise<void> {
    try {
      if (this.#verifier instanceof JwtVerifier) throw new Error("the core verifies signed tokens");
      const identity = await this.#verifier.verify(token);
      const principal = typeof identity === "string" ? identity : identity?.principal;
      if (principal) request.accept(principal);
      else request.refuse(toInfo(new UnauthenticatedError("unknown token")));
    } catch (error) {
      // What a verifier throws may quote the token; only what it words for the peer goes out.
      request.refuse(toInfo(error instanceof ARCPError ? error : new Error("the token could not be verified")));
    }
  }
}

function isVerifier(bearer: RuntimeOptions["bearer"]): bearer is BearerVerifier | JwtVerifier {
  return bearer instanceof JwtVerifier || ("verify" in bearer && typeof bearer.verify === "function");
}

/** Whether an agent ended because it was told to, by itself or through what it passed the signal to. */
function gaveWay(error: unknown, signal: AbortSignal): boolean {
  if (!signal.aborted) return false;
  // A child's cancellation is the parent's own, handed down.
  if (error === signal.reason || error instanceof CancelledError) return true;
  return error instanceof Error && error.name === "AbortError";
}

function seconds(milliseconds: number | undefined): number | undefined {
  return milliseconds === undefined ? undefined : milliseconds / 1000;
}
