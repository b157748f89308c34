import { ArgumentError, attempt, toJson } from "./errors.js";
import {
  JobHandle,
  JobSubscription,
  type JobAcceptedPayload,
  type JobSubscribedPayload,
  type Lease,
  type LeaseConstraints,
} from "./job.js";
import { native, type NativeClient, type NativeJob } from "./native.js";
import { abortable, port } from "./port.js";
import { WebSocketTransport, type Transport } from "./transport.js";

/** How a client introduces itself. */
export interface ClientInfo {
  name: string;
  version: string;
}

/** A bearer token, or what makes one when it is needed. */
export type Token = string | (() => string | Promise<string>);

export interface ClientOptions {
  client: ClientInfo;
  token: Token;
  authScheme?: "bearer";
  /** What is asked for, in this order; by default all this package supports. */
  features?: readonly string[];
  /** Milliseconds to wait for the welcome; 5000. */
  handshakeTimeoutMs?: number;
  /** Milliseconds to wait for any other answer; 30 000. */
  requestTimeoutMs?: number;
  /** Whether events are acknowledged as they are taken; true. */
  autoAck?: boolean;
}

export interface SubmitOptions {
  /** `name` or `name@version`. */
  agent: string;
  /** Anything JSON can say; null when absent. */
  input?: unknown;
  /** What the agent may do; nothing when absent. */
  lease?: Lease;
  leaseConstraints?: LeaseConstraints;
  /** A second submit with this key gives the same job. */
  idempotencyKey?: string;
  maxRuntimeSec?: number;
  /** 32 hexadecimal digits. */
  traceId?: string;
  /** Cancels the job, also one that was accepted already. */
  signal?: AbortSignal;
}

export interface SubscribeOptions {
  /** Whether events from before come first; false. */
  history?: boolean;
  /** Only history after this number. */
  fromEventSeq?: number;
  signal?: AbortSignal;
}

/** The payload of `session.welcome`. Holds the resume token, a secret. */
export interface SessionWelcomePayload {
  session_id: string;
  runtime: { name: string; version: string };
  resume_token: string;
  resume_window_sec: number;
  heartbeat_interval_sec?: number;
  capabilities: { features?: string[]; agents?: unknown[]; [member: string]: unknown };
  accepted_at?: string;
}

/** A session with a runtime: connect once, submit and follow jobs, close. */
export class ARCPClient {
  readonly #native: NativeClient;
  readonly #token: Token;
  #welcome: SessionWelcomePayload | undefined;

  /** @throws ArgumentError naming the option that is wrong. */
  constructor(options: ClientOptions) {
    const { authScheme = "bearer" } = options;
    if (authScheme !== "bearer") throw new ArgumentError(`authScheme "${String(authScheme)}" is not "bearer"`);
    if (typeof options.token !== "string" && typeof options.token !== "function") {
      throw new ArgumentError("token must be text or a function that gives it");
    }
    const settings = {
      name: options.client.name,
      version: options.client.version,
      features: options.features,
      handshake_timeout_sec: seconds(options.handshakeTimeoutMs),
      request_timeout_sec: seconds(options.requestTimeoutMs),
      auto_ack: options.autoAck,
    };
    this.#token = options.token;
    this.#native = attempt(() => new native.NativeClient(toJson(settings, "options")));
  }

  /** Connects to a URL and shakes hands. */
  static async open(url: string, options: ClientOptions & { signal?: AbortSignal }): Promise<ARCPClient> {
    const client = new ARCPClient(options);
    await client.connect(url, options.signal ? { signal: options.signal } : {});
    return client;
  }

  /**
   * Shakes hands over a transport, which is used up, or over a new connection to a URL.
   *
   * @throws UnauthenticatedError for a token the runtime does not know, WaitTimeoutError without a welcome in time,
   * TransportClosedError when there is no connection.
   */
  async connect(to: Transport | string, options: { signal?: AbortSignal } = {}): Promise<SessionWelcomePayload> {
    const { signal } = options;
    const token = typeof this.#token === "string" ? this.#token : await this.#token();
    const transport = typeof to === "string" ? await WebSocketTransport.connect(to, options) : to;
    const { value } = await port.call<SessionWelcomePayload>(
      (call) => this.#native.connect(port.native, call, transport._native, token),
      { signal },
    );
    this.#welcome = value;
    return value;
  }

  /** The answer to the handshake; `undefined` before it. */
  get welcomePayload(): SessionWelcomePayload | undefined {
    return this.#welcome;
  }

  get sessionId(): string | undefined {
    return this.#welcome?.session_id;
  }

  /** What both sides support, in this client's order. */
  get negotiatedFeatures(): string[] {
    return this.#native.negotiatedFeatures();
  }

  hasFeature(name: string): boolean {
    return this.negotiatedFeatures.includes(name);
  }

  /** The highest `event_seq` received. */
  get lastEventSeqObserved(): number {
    return this.#native.latestEventSeq();
  }

  /**
   * Submits a job and waits until it is accepted.
   *
   * @throws the runtime's refusal: AgentNotAvailableError, PermissionDeniedError, InvalidRequestError, ...
   */
  async submit<Result = unknown>(options: SubmitOptions): Promise<JobHandle<Result>> {
    const { signal } = options;
    signal?.throwIfAborted();
    const request = {
      agent: options.agent,
      input: options.input ?? null,
      lease_request: options.lease,
      expires_at: options.leaseConstraints?.expires_at,
      idempotency_key: options.idempotencyKey,
      max_runtime_sec: options.maxRuntimeSec,
      trace_id: options.traceId,
    };
    const accepted = port.call<JobAcceptedPayload, NativeJob>((call) =>
      this.#native.submit(port.native, call, toJson(request, "submit")),
    );
    const handle = accepted.then(({ value, object }) => new JobHandle<Result>(this, object, value));
    if (signal) void this.#cancelOnAbort(handle, signal);
    return abortable(handle, signal);
  }

  /**
   * Follows a job of the same principal.
   *
   * @throws JobNotFoundError, PermissionDeniedError.
   */
  async subscribe<Result = unknown>(jobId: string, options: SubscribeOptions = {}): Promise<JobSubscription<Result>> {
    const request = { job_id: jobId, history: options.history, from_event_seq: options.fromEventSeq };
    const { value, object } = await port.call<JobSubscribedPayload, NativeJob>(
      (call) => this.#native.subscribe(port.native, call, toJson(request, "subscribe")),
      { signal: options.signal },
    );
    return new JobSubscription<Result>(object, value, () => this.#native.unsubscribe(jobId));
  }

  /** Asks to cancel a job and returns at once. */
  cancelJob(jobId: string, options: { reason?: string } = {}): void {
    attempt(() => this.#native.cancelJob(jobId, options.reason ?? ""));
  }

  /** Acknowledges by hand what was processed; for clients with `autoAck: false`. */
  ack(lastProcessedSeq: number): void {
    this.#native.ack(lastProcessedSeq);
  }

  /** Says good-bye and closes the connection, within bounded time. Open handles end with `ClosedError`. */
  async close(reason = "client closed"): Promise<void> {
    await port.call((call) => this.#native.close(port.native, call, reason));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #cancelOnAbort(submitted: Promise<JobHandle>, signal: AbortSignal): Promise<void> {
    let abort: (() => void) | undefined;
    try {
      const handle = await submitted;
      abort = () => handle.cancel(signal.reason instanceof Error ? signal.reason.message : String(signal.reason));
      if (signal.aborted) abort();
      else signal.addEventListener("abort", abort, { once: true });
      await handle.done;
    } catch {
      // Whoever awaits the handle is told.
    } finally {
      if (abort) signal.removeEventListener("abort", abort);
    }
  }
}

function seconds(milliseconds: number | undefined): number | undefined {
  return milliseconds === undefined ? undefined : milliseconds / 1000;
}
