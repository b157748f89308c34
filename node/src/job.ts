import { Readable } from "node:stream";

import type { ARCPClient } from "./client.js";
import { ClosedError, attempt } from "./errors.js";
import type { EventBodies, JobEvent } from "./events.js";
import { parse } from "./json.js";
import type { NativeJob } from "./native.js";
import { abortable, port, turn } from "./port.js";

/** Events taken from the core at once. */
const BATCH = 256;

/** What an agent may do: capability to patterns. */
export type Lease = Record<string, string[]>;

/** When a lease ends. */
export interface LeaseConstraints {
  /** RFC 3339, UTC. */
  expires_at?: string;
}

/** The payload of `job.result`. Members keep the wire's names. */
export interface JobResultPayload<Result = unknown> {
  final_status: "success";
  result?: Result;
  result_id?: string;
  result_size?: number;
  summary?: string;
  completed_at?: string;
}

/** The payload of `job.accepted`. */
export interface JobAcceptedPayload {
  job_id: string;
  agent?: string;
  lease: Lease;
  lease_constraints?: LeaseConstraints;
  budget?: Record<string, number>;
  credentials?: Record<string, unknown>[];
  accepted_at?: string;
  trace_id?: string;
  parent_job_id?: string;
  delegate_id?: string;
}

/** The payload of `job.subscribed`. */
export interface JobSubscribedPayload {
  job_id: string;
  current_status: string;
  agent: string;
  lease: Lease;
  lease_constraints?: LeaseConstraints;
  budget?: Record<string, number>;
  credentials?: Record<string, unknown>[];
  trace_id?: string;
  subscribed_from: number;
  replayed: boolean;
}

/** Which events to iterate. */
export interface EventsOptions {
  /** Only these kinds; the others are passed over. */
  kinds?: readonly string[];
  /** Ends the iteration with the signal's reason. The job goes on. */
  signal?: AbortSignal;
}

/** How to take events in lists. */
export interface EventBatchesOptions {
  /** Largest list; 256. */
  maxItems?: number;
  signal?: AbortSignal;
}

/** A job's events and end. Iterators of one job share its events: each event goes to one of them. */
abstract class JobView<Result> implements AsyncIterable<JobEvent> {
  readonly jobId: string;
  /** The end. Rejects with the job's own error, or with a local one when the session ends first. */
  readonly done: Promise<JobResultPayload<Result>>;
  readonly #native: NativeJob;
  readonly #stream = port.number();
  readonly #left = new AbortController();
  #batch: JobEvent[] = [];
  #taken = 0;
  /** Events taken without the loop having had its turn. */
  #reading = 0;
  #streak = 0;
  #filling: Promise<boolean> | undefined;
  #wake: (() => void) | undefined;

  protected constructor(jobId: string, inner: NativeJob) {
    this.jobId = jobId;
    this.#native = inner;
    this.done = this.#ended();
    // Whoever does not look at `done` is not to be struck down by it.
    this.done.catch(() => {});
  }

  /** The result's value. Rejects as `done` does. */
  async result(): Promise<Result> {
    return (await this.done).result as Result;
  }

  /**
   * Waits for the end: the whole of a streamed result, or the JSON text of an inline one, as bytes.
   *
   * @throws as `done`, which also rejects for a streamed result with a chunk missing, or longer than the client's
   * `maxResultBytes`; InvalidRequestError when its chunks were left to `resultStream`.
   */
  async resultBytes(options: { signal?: AbortSignal } = {}): Promise<Buffer> {
    const waiting = port.call<undefined, Buffer>((call) => this.#native.resultBytes(port.native, call), {
      signal: this.#left.signal,
    });
    return (await abortable(waiting, options.signal)).object;
  }

  /**
   * The same bytes as they come, for a result of any length. It takes the job's events, so call it before anything else
   * takes them, and read other events no more. Destroyed with an error for what `resultBytes` throws.
   */
  resultStream(options: { signal?: AbortSignal } = {}): Readable {
    // Now rather than at the first read: from here on the core holds no chunks.
    attempt(() => this.#native.takeChunks());
    return Readable.from(this.#parts(options), { objectMode: false });
  }

  /** Every event, in order, until the job has ended. What was taken counts as processed. */
  events(options: EventsOptions = {}): AsyncIterableIterator<JobEvent> {
    const { kinds, signal } = options;
    const wanted = kinds && new Set(kinds);
    const take = (): JobEvent | undefined => {
      for (;;) {
        const event = this.#take();
        if (event === undefined || wanted === undefined || wanted.has(event.kind)) return event;
      }
    };
    let entered = false;
    let over = false;
    const begin = (): void => {
      if (!entered) this.#reading++;
      entered = true;
    };
    const end = (): void => {
      if (entered && !over) this.#leaveReading();
      over = true;
    };
    const later = async (): Promise<IteratorResult<JobEvent, undefined>> => {
      try {
        while (await abortable(this.#fill(BATCH), signal)) {
          const value = take();
          if (value !== undefined) return { value, done: false };
        }
      } catch (error) {
        end();
        throw error;
      }
      end();
      return { value: undefined, done: true };
    };
    // Written out: an async generator costs three times as much per event.
    return {
      next() {
        if (over) return Promise.resolve({ value: undefined, done: true });
        begin();
        const value = take();
        return value === undefined ? later() : Promise.resolve({ value, done: false });
      },
      return() {
        end();
        return Promise.resolve({ value: undefined, done: true });
      },
      [Symbol.asyncIterator]() {
        return this;
      },
    };
  }

  /** The same events, as many at a time as are there. */
  async *eventBatches(options: EventBatchesOptions = {}): AsyncGenerator<JobEvent[], void, undefined> {
    const maxItems = options.maxItems ?? BATCH;
    this.#reading++;
    try {
      for (;;) {
        const batch = this.#batch.slice(this.#taken, this.#taken + maxItems);
        this.#taken += batch.length;
        this.#streak += batch.length;
        if (batch.length > 0) yield batch;
        else if (!(await abortable(this.#fill(maxItems), options.signal))) return;
      }
    } finally {
      this.#leaveReading();
    }
  }

  [Symbol.asyncIterator](): AsyncIterableIterator<JobEvent> {
    return this.events();
  }

  async *#parts(options: { signal?: AbortSignal }): AsyncGenerator<Buffer, void, undefined> {
    let streamed = false;
    for await (const { body } of this.events({ ...options, kinds: ["result_chunk"] })) {
      const { data, encoding } = body as EventBodies["result_chunk"];
      streamed = true;
      if (data !== "") yield Buffer.from(data, encoding);
    }
    await port.call((call) => this.#native.finishChunks(port.native, call), { signal: this.#left.signal });
    if (!streamed) yield await this.resultBytes(options);
  }

  /** Ends this view on this side only. */
  protected leave(reason: string): void {
    this.#left.abort(new ClosedError(reason));
    this.#wake?.();
  }

  /** While nobody reads, the job waits for no reader and only the newest events are kept. */
  #leaveReading(): void {
    if (--this.#reading === 0) this.#native.stopReading();
  }

  #take(): JobEvent | undefined {
    const event = this.#batch[this.#taken];
    if (event !== undefined) {
      this.#taken++;
      this.#streak++;
    }
    return event;
  }

  /** Waits for the next events; false after the last. However many wait, the core is asked once. */
  #fill(max: number): Promise<boolean> {
    if (this.#taken < this.#batch.length) return Promise.resolve(true);
    this.#filling ??= this.#ask(max).finally(() => (this.#filling = undefined));
    return this.#filling;
  }

  async #ask(max: number): Promise<boolean> {
    // Events that are always ready would let nothing else run.
    if (this.#streak >= BATCH) {
      this.#streak = 0;
      await turn();
    }
    while (!this.#left.signal.aborted) {
      const next = attempt(() => this.#native.nextBatch(port.native, this.#stream, max));
      if (next?.text === "") return false;
      if (next !== null) {
        this.#batch = parse(next.text, next.wide) as JobEvent[];
        this.#taken = 0;
        return true;
      }
      this.#streak = 0;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        port.onReady(this.#stream, resolve);
      });
    }
    return false;
  }

  async #ended(): Promise<JobResultPayload<Result>> {
    // `this` keeps the job open in the core until its end has come.
    const { value } = await port.call<JobResultPayload<Result>>((call) => this.#native.result(port.native, call), {
      signal: this.#left.signal,
    });
    return value;
  }
}

/** A job of a session that was taken up. Until it has ended it keeps Node alive. */
export class ResumedJob<Result = unknown> extends JobView<Result> {
  readonly #client: ARCPClient;

  /** For this package only. */
  constructor(client: ARCPClient, inner: NativeJob, jobId: string) {
    super(jobId, inner);
    this.#client = client;
  }

  /** Asks to cancel the job; `done` tells what came of it. */
  cancel(reason?: string): void {
    this.#client.cancelJob(this.jobId, reason === undefined ? {} : { reason });
  }
}

/** A job this client submitted. Until it has ended it keeps Node alive. */
export class JobHandle<Result = unknown> extends ResumedJob<Result> {
  /** The answer to the submit. May hold credentials, which are secret. */
  readonly accepted: JobAcceptedPayload;

  /** For this package only. */
  constructor(client: ARCPClient, inner: NativeJob, accepted: JobAcceptedPayload) {
    super(client, inner, accepted.job_id);
    this.accepted = accepted;
  }

  /** Resolved `name@version`, or the bare name of an unversioned agent. */
  get agent(): string | undefined {
    return this.accepted.agent;
  }

  /** The effective lease. */
  get lease(): Lease {
    return this.accepted.lease;
  }

  get leaseConstraints(): LeaseConstraints | undefined {
    return this.accepted.lease_constraints;
  }

  /** Currency to amount, as granted. */
  get budget(): Record<string, number> | undefined {
    return this.accepted.budget;
  }

  get traceId(): string | undefined {
    return this.accepted.trace_id;
  }
}

/** A job this client follows. Until it has ended or `unsubscribe` was called it keeps Node alive. */
export class JobSubscription<Result = unknown> extends JobView<Result> {
  readonly #unsubscribe: () => void;
  /** The answer to the subscribe. May hold credentials, which are secret. */
  readonly subscribed: JobSubscribedPayload;

  /** For this package only. */
  constructor(inner: NativeJob, subscribed: JobSubscribedPayload, unsubscribe: () => void) {
    super(subscribed.job_id, inner);
    this.subscribed = subscribed;
    this.#unsubscribe = unsubscribe;
  }

  /** Resolved agent reference. */
  get agent(): string {
    return this.subscribed.agent;
  }

  /** The job's state when the subscription began. */
  get status(): string {
    return this.subscribed.current_status;
  }

  /** Whether events from before the subscription come first. */
  get replayed(): boolean {
    return this.subscribed.replayed;
  }

  /** Stops following: iterators end, `done` rejects with `ClosedError`. The job goes on. */
  unsubscribe(): void {
    this.#unsubscribe();
    this.leave("this subscription was ended with unsubscribe");
  }
}
