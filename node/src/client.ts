import { ArgumentError, attempt, toJson } from "./errors.js";
import {
  JobHandle,
  JobSubscription,
  ResumedJob,
  type JobAcceptedPayload,
  type JobSubscribedPayload,
  type Lease,
  type LeaseConstraints,
} from "./job.js";
import { native, type NativeClient, type NativeJob } from "./native.js";
import { parse } from "./json.js";
import { abortable, port } from "./port.js";
import { TokenPort, type Token } from "./token.js";
import { WebSocketTransport, type Transport } from "./transport.js";

/** How a client introduces itself. */
export interface ClientInfo {
  name: string;
  version: string;
}

/** How a lost connection is healed. */
export interface ReconnectOptions {
  /** Seconds before the first attempt, at most; 0.1. Doubles with each attempt. */
  initialSec?: number;
  /** Seconds between attempts, at most; 5. */
  maxSec?: number;
  /** Seconds after which the session is given up; 900. 0 never gives up. */
  giveUpAfterSec?: number;
}

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
  /**
   * Whether, or how, a lost connection to a URL is healed; true. Handles and iterators go on. It does not keep Node alive
   * by itself: an open handle or call does.
   */
  reconnect?: boolean | ReconnectOptions;
  /** The longest streamed result that is put together in memory, in bytes; 64 MiB. */
  maxResultBytes?: number;
}

/** A session to take up, of this process or an earlier one. The token is a secret. */
export interface SessionResume {
  sessionId: string;
  /** The newest one: each welcome brings another. */
  resumeToken: string;
  /** The highest number that was received; what came after it is sent again. */
  lastEventSeq: number;
}

/** How to connect. */
export interface ConnectionOptions {
  /** Takes this session up; its jobs are then those of `job` and `jobs`. */
  resume?: SessionResume;
  signal?: AbortSignal;
}

/** Which jobs to list. Members keep the wire's names. */
export interface JobFilter {
  /** Any of these: pending, running, success, error, cancelled, timed_out. */
  status?: readonly string[];
  /** `name` for all its versions, or `name@version`. */
  agent?: string;
  /** RFC 3339, UTC. */
  created_after?: string;
  /** RFC 3339, UTC. */
  created_before?: string;
}

/** What to list. */
export interface ListJobsOptions {
  filter?: JobFilter;
  /** The most on one page, up to 1000; 100. */
  limit?: number;
  /** Where the page before ended. */
  cursor?: string | undefined;
  signal?: AbortSignal;
}

/** A job in a list. Members keep the wire's names. */
export interface JobListEntry {
  job_id: string;
  agent: string;
  status: string;
  lease: Lease;
  lease_constraints?: LeaseConstraints;
  budget?: Record<string, number>;
  parent_job_id: string | null;
  created_at: string;
  trace_id?: string;
  last_event_seq: number;
}

/** One page of jobs. */
export interface JobListPage {
  jobs: JobListEntry[];
  /** For the next page; `undefined` on the last. */
  nextCursor: string | undefined;
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
  readonly #token: string | TokenPort;
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
      reconnect: typeof options.reconnect === "object" ? waits(options.reconnect) : options.reconnect,
      max_result_bytes: options.maxResultBytes,
    };
    this.#native = attempt(() => new native.NativeClient(toJson(settings, "options")));
    this.#token = typeof options.token === "string" ? options.token : new TokenPort(options.token);
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
   * @throws UnauthenticatedError for a token the runtime does not know, what a token function threw, WaitTimeoutError
   * without a welcome in time, TransportClosedError when there is no connection, ResumeWindowExpiredError for a session
   * that is kept no more.
   */
  async connect(to: Transport | string, options: ConnectionOptions = {}): Promise<SessionWelcomePayload> {
    const { signal, resume } = options;
    const transport =
      typeof to === "string" ? await WebSocketTransport.connect(to, signal ? { signal } : {}) : to;
    const token = typeof this.#token === "string" ? this.#token : this.#token.port.native;
    if (typeof this.#token !== "string") this.#token.failure = undefined;
    const earlier = resume && toJson(point(resume), "resume");
    try {
      const { value } = await port.call<SessionWelcomePayload>(
        (call) => this.#native.connect(port.native, call, transport._native, token, earlier),
        { signal },
      );
      this.#welcome = value;
      return value;
    } catch (error) {
      // Whole, rather than as the core passes it on.
      if (typeof this.#token !== "string" && this.#token.failure) throw this.#token.failure.error;
      throw error;
    }
  }

  /** Takes up a session, as `connect` with `resume` does. */
  resume(
    to: Transport | string,
    resume: SessionResume,
    options: { signal?: AbortSignal } = {},
  ): Promise<SessionWelcomePayload> {
    return this.connect(to, { ...options, resume });
  }

  /** The newest answer to a handshake, also of one that healed the session; `undefined` before the first. */
  get welcomePayload(): SessionWelcomePayload | undefined {
    const text = this.#native.welcome();
    if (text !== null) this.#welcome = parse(text) as SessionWelcomePayload;
    return this.#welcome;
  }

  get sessionId(): string | undefined {
    return this.welcomePayload?.session_id;
  }

  /** What the session can be taken up with, a secret; it changes when the session is healed. */
  get resumeToken(): string | undefined {
    return this.welcomePayload?.resume_token;
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

  /**
   * One page of the jobs this principal may see, the oldest first.
   *
   * @throws InvalidRequestError for a bad cursor or limit, or when `list_jobs` was not negotiated.
   */
  async listJobs(options: ListJobsOptions = {}): Promise<JobListPage> {
    const { signal, ...request } = options;
    const { value } = await port.call<{ jobs: JobListEntry[]; next_cursor: string | null }>(
      (call) => this.#native.listJobs(port.native, call, toJson(request, "listJobs")),
      { signal },
    );
    return { jobs: value.jobs, nextCursor: value.next_cursor ?? undefined };
  }

  /** All those jobs, page by page as they are iterated. */
  async *allJobs(options: Omit<ListJobsOptions, "cursor"> = {}): AsyncGenerator<JobListEntry, void, undefined> {
    let cursor: string | undefined;
    do {
      const page = await this.listJobs({ ...options, cursor });
      yield* page.jobs;
      cursor = page.nextCursor;
    } while (cursor !== undefined);
  }

  /**
   * A handle for a job of a session that was taken up: what came since then, and what comes. A job that had ended by then
   * has no more to say here; subscribe to it with history instead.
   *
   * @throws InvalidRequestError when no session was taken up, ClosedError or TransportClosedError when there is none.
   */
  job<Result = unknown>(jobId: string): ResumedJob<Result> {
    return new ResumedJob<Result>(
      this,
      attempt(() => this.#native.job(jobId)),
      jobId,
    );
  }

  /** Ids of the jobs of this session that go on: those with handles, and after a resume those something came for. */
  jobs(): string[] {
    return this.#native.jobs();
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
    if (typeof this.#token !== "string") this.#token.port.close(reason);
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

/** As the bridge reads it. */
function waits({ initialSec, maxSec, giveUpAfterSec }: ReconnectOptions): Record<string, number | undefined> {
  return { initial_sec: initialSec, max_sec: maxSec, give_up_after_sec: giveUpAfterSec };
}

/** As the bridge reads it. */
function point({ sessionId, resumeToken, lastEventSeq }: SessionResume): Record<string, unknown> {
  return { session_id: sessionId, resume_token: resumeToken, last_event_seq: lastEventSeq };
}

function seconds(milliseconds: number | undefined): number | undefined {
  return milliseconds === undefined ? undefined : milliseconds / 1000;
}
