import { ChildJob, type DelegateOptions } from "./child.js";
import { CancelledError, ClosedError, LeaseExpiredError, TimeoutError, attempt, toJson } from "./errors.js";
import type { EventBodies } from "./events.js";
import type { JobAcceptedPayload, Lease, LeaseConstraints } from "./job.js";
import type { NativeInvocation } from "./native.js";
import { turn, type JobStart, type Port } from "./port.js";
import { ResultWriter, type ResultEnd, type ResultOptions, type ResultPart } from "./result.js";

/** Events an agent may emit before the loop gets a turn (D-23). */
const BURST = 256;

/** What emitters return: a promise only when the agent should wait, so a loop that awaits it costs nothing else. */
export type Emitted = void | Promise<void>;

/** One job, as its agent sees it. Emitters throw what the runtime refuses: InvalidRequestError, PermissionDeniedError. */
export class JobContext {
  readonly jobId: string;
  readonly sessionId: string;
  /** Who submitted the job. */
  readonly principal: string;
  /** The agent's name. */
  readonly agent: string;
  readonly agentVersion: string | undefined;
  /** `name@version`, or the bare name of an unversioned agent. */
  readonly agentRef: string;
  readonly lease: Lease;
  readonly leaseConstraints: LeaseConstraints | undefined;
  readonly traceId: string;
  /** Aborts when the job is to give way, with a CancelledError, TimeoutError or LeaseExpiredError as its reason. */
  readonly signal: AbortSignal;
  readonly #native: NativeInvocation;
  readonly #port: Port;
  readonly #abort = new AbortController();
  #burst = 0;
  #result: ResultWriter | undefined;

  /** For this package only. */
  constructor(port: Port, inner: NativeInvocation, start: JobStart) {
    this.#port = port;
    this.#native = inner;
    this.jobId = start.job_id;
    this.sessionId = start.session_id;
    this.principal = start.principal;
    this.agent = start.agent;
    this.agentVersion = start.version ?? undefined;
    this.agentRef = start.version === null ? start.agent : `${start.agent}@${start.version}`;
    this.lease = start.lease;
    this.leaseConstraints = start.expires_at === null ? undefined : { expires_at: start.expires_at };
    this.traceId = start.trace_id;
    this.signal = this.#abort.signal;
  }

  /** What is left of the budget, currency to amount; `undefined` without one. */
  get budget(): Record<string, number> | undefined {
    const text = this.#native.budget();
    return text === null ? undefined : (JSON.parse(text) as Record<string, number>);
  }

  /** `level` is one of trace, debug, info, warn, error, critical. */
  log(level: string, message: string, attributes?: Record<string, unknown>): Emitted {
    return this.emitEvent("log", { level, message, attributes });
  }

  thought(text: string): Emitted {
    return this.emitEvent("thought", { text });
  }

  status(phase: string, message?: string): Emitted {
    return this.emitEvent("status", { phase, message });
  }

  /** A metric named `cost.*` whose unit is a currency of the budget is charged to it. */
  metric(body: EventBodies["metric"]): Emitted {
    return this.emitEvent("metric", body);
  }

  /** @throws PermissionDeniedError when the lease does not cover `tool.call` of this tool; the client sees the refusal. */
  toolCall(body: EventBodies["tool_call"]): Emitted {
    return this.emitEvent("tool_call", body);
  }

  toolResult(body: EventBodies["tool_result"]): Emitted {
    return this.emitEvent("tool_result", body);
  }

  progress(current: number, options: { total?: number; units?: string; message?: string } = {}): Emitted {
    return this.emitEvent("progress", { current, ...options });
  }

  artifactRef(body: EventBodies["artifact_ref"]): Emitted {
    return this.emitEvent("artifact_ref", body);
  }

  resultChunk(body: EventBodies["result_chunk"]): Emitted {
    return this.emitEvent("result_chunk", body);
  }

  /** Emits any event: a kind of the protocol, or `x-vendor.<vendor>.<name>` with any body. */
  emitEvent(kind: string, body: unknown): Emitted {
    const text = toJson(body, `${kind}.body`);
    const lags = attempt(() => this.#native.emit(kind, text));
    if (lags) {
      this.#burst = 0;
      return this.#drained();
    }
    return this.#turn();
  }

  /**
   * Opens the result of the job, to be written in parts; once per job.
   *
   * @throws InvalidRequestError when it was opened before, or an option is out of bounds.
   */
  streamResult(options: ResultOptions = {}): ResultWriter {
    this.#result = new ResultWriter(
      { native: this.#native, signal: this.signal, drained: () => this.#drained(), turn: () => this.#turn() },
      options,
    );
    return this.#result;
  }

  /** Streams all of `source`, a `Readable` for one, as the result of the job, at the pace of its reader. */
  async writeResult(
    source: ResultPart | Iterable<ResultPart> | AsyncIterable<ResultPart>,
    options: ResultOptions & ResultEnd = {},
  ): Promise<void> {
    const writer = this.streamResult(options);
    try {
      const parts = typeof source === "string" || source instanceof Uint8Array ? [source] : source;
      for await (const part of parts) await writer.write(part);
    } catch (error) {
      writer._fail(error);
      throw error;
    }
    await writer.close(options);
  }

  /**
   * Hands work to another agent of this runtime, as a job of its own under a part of this job's lease.
   *
   * @throws PermissionDeniedError without `agent.delegate` for the agent, LeaseSubsetViolationError for a lease that asks for
   * more than this job's, AgentNotAvailableError, BudgetExhaustedError, LeaseExpiredError, InvalidRequestError.
   */
  async delegate<Result = unknown>(options: DelegateOptions): Promise<ChildJob<Result>> {
    const request = {
      agent: options.agent,
      input: options.input ?? null,
      lease_request: options.lease,
      expires_at: options.leaseConstraints?.expires_at,
      delegate_id: options.delegateId,
      detached: options.detached,
    };
    const text = toJson(request, "delegate");
    const { value } = await this.#port.call<JobAcceptedPayload>((call) =>
      this.#native.delegate(this.#port.native, call, text),
    );
    return new ChildJob<Result>(this.#port, this.#native, value);
  }

  /**
   * Checks one operation against the lease.
   *
   * @throws PermissionDeniedError, LeaseExpiredError (which also ends the job), BudgetExhaustedError.
   */
  authorize(namespace: string, target: string): void {
    attempt(() => this.#native.authorize(namespace, target));
  }

  /** For this package only: waits for the result that is being written, and throws what broke it. */
  async _settled(): Promise<void> {
    await this.#result?._settled();
  }

  /** For this package only. */
  _giveWay(cause: string, reason: string): void {
    this.#abort.abort(giveWayError(cause, reason));
  }

  #turn(): Emitted {
    if (++this.#burst < BURST) return undefined;
    // Otherwise a loop of emits would never hear of a cancellation.
    this.#burst = 0;
    return turn();
  }

  async #drained(): Promise<void> {
    await this.#port.call((call) => this.#native.drained(this.#port.native, call), { holds: false });
  }
}

function giveWayError(cause: string, reason: string): Error {
  switch (cause) {
    case "cancelled":
      return new CancelledError(reason || "the job was cancelled");
    case "timed_out":
      return new TimeoutError("the job ran longer than it may");
    case "lease_expired":
      return new LeaseExpiredError("the job's lease has ended");
    default:
      return new ClosedError(reason);
  }
}
