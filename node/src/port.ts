import { attempt, fromInfo, type ErrorInfo } from "./errors.js";
import { parse } from "./json.js";
import {
  native,
  type NativeInvocation,
  type NativePort,
  type NativeTokenRequest,
  type NativeVerifyRequest,
} from "./native.js";

/** Items handled in one turn of the loop. */
const BATCH = 256;

/** What a job was started with. */
export interface JobStart {
  job_id: string;
  session_id: string;
  principal: string;
  agent: string;
  version: string | null;
  trace_id: string;
  lease: Record<string, string[]>;
  expires_at: string | null;
}

type Item =
  | { type: "completed"; call: number; value?: unknown; error?: ErrorInfo; object?: number }
  | { type: "ready"; stream: number }
  | { type: "invoke"; invocation: number; start: JobStart; input: unknown; object: number }
  | { type: "cancel"; invocation: number; cause: string; reason: string }
  | { type: "abandoned"; invocation: number }
  | { type: "verify"; token: string; object: number }
  | { type: "token"; object: number }
  | { type: "log"; level: number; target: string; message: string };

/** What a runtime, or a client, is asked through its port. */
export interface Host {
  invoke(id: number, invocation: NativeInvocation, start: JobStart, input: unknown): void;
  cancel(id: number, cause: string, reason: string): void;
  abandoned(id: number): void;
  verify(token: string, request: NativeVerifyRequest): void;
  token(request: NativeTokenRequest): void;
}

export interface Completion<Value, Handle> {
  value: Value;
  object: Handle;
}

interface Call {
  resolve(completion: Completion<unknown, unknown>): void;
  reject(error: Failed | Aborted): void;
  holds: boolean;
}

class Failed {
  constructor(readonly info: ErrorInfo) {}
}

class Aborted {
  constructor(readonly reason: unknown) {}
}

// The wake-up itself never keeps Node alive; this timer does, while something is held (D-34).
const anchor = setInterval(() => {}, 0x7fff_ffff);
anchor.unref();
let held = 0;

export function hold(): void {
  if (held++ === 0) anchor.ref();
}

export function release(): void {
  if (--held === 0) anchor.unref();
}

/** One queue of the core, drained on this thread's loop. */
export class Port {
  readonly native: NativePort;
  readonly #host: Partial<Host> | undefined;
  readonly #calls = new Map<number, Call>();
  readonly #streams = new Map<number, () => void>();
  readonly #forget: () => void;
  #next = 1;
  /** Why nothing more can be called. */
  #closed: ErrorInfo | undefined;
  #log: ((level: number, target: string, message: string) => void) | undefined;

  constructor(host?: Partial<Host>) {
    this.#host = host;
    // The core holds the wake-up for as long as it may ask; a closed port is not to be held with it.
    let woken: Port | undefined = this;
    this.#forget = () => (woken = undefined);
    this.native = new native.NativePort(() => {
      if (woken) woken.#drain();
    });
  }

  /** A number for a call or a stream. */
  number(): number {
    return this.#next++;
  }

  /**
   * Starts a call and waits for it. Node stays alive meanwhile unless `holds` is false. An abort drops the work and
   * rejects with the signal's reason.
   */
  async call<Value = undefined, Handle = undefined>(
    start: (call: number) => void,
    { signal, holds = true }: { signal?: AbortSignal | undefined; holds?: boolean } = {},
  ): Promise<Completion<Value, Handle>> {
    signal?.throwIfAborted();
    if (this.#closed) throw fromInfo(this.#closed);
    const number = this.number();
    attempt(() => start(number));
    let abort: (() => void) | undefined;
    try {
      return await new Promise<Completion<Value, Handle>>((resolve, reject) => {
        if (holds) hold();
        this.#calls.set(number, { resolve: resolve as Call["resolve"], reject, holds });
        abort = () => {
          this.native.cancelCall(number);
          this.#take(number)?.reject(new Aborted(signal?.reason));
        };
        signal?.addEventListener("abort", abort, { once: true });
      });
    } catch (error) {
      // Made here, not where the item arrived, so that the stack names who awaits.
      if (error instanceof Aborted) throw error.reason;
      throw error instanceof Failed ? fromInfo(error.info) : error;
    } finally {
      if (abort) signal?.removeEventListener("abort", abort);
    }
  }

  /** Calls `ready` once when the stream is ready. */
  onReady(stream: number, ready: () => void): void {
    this.#streams.set(stream, ready);
  }

  /** Sends the core's logs here. */
  logFrom(level: number, log: (level: number, target: string, message: string) => void): void {
    this.#log = log;
    attempt(() => this.native.logFrom(level));
  }

  /** Takes nothing more; what is open fails. */
  close(reason: string): void {
    this.native.close();
    this.#forget();
    this.#closed = { kind: "closed", code: "", message: reason, retryable: false, details: null };
    for (const number of [...this.#calls.keys()]) this.#take(number)?.reject(new Failed(this.#closed));
  }

  #take(number: number): Call | undefined {
    const call = this.#calls.get(number);
    if (call !== undefined) {
      this.#calls.delete(number);
      if (call.holds) release();
    }
    return call;
  }

  #drain(): void {
    const { text, wide, objects, more } = this.native.drain(BATCH);
    // No wake-up comes before the queue was empty.
    if (more) setImmediate(() => this.#drain());
    for (const item of parse(text, wide) as Item[]) this.#dispatch(item, objects);
  }

  #dispatch(item: Item, objects: unknown[]): void {
    switch (item.type) {
      case "completed": {
        const call = this.#take(item.call);
        if (item.error) call?.reject(new Failed(item.error));
        else call?.resolve({ value: item.value, object: item.object === undefined ? undefined : objects[item.object] });
        break;
      }
      case "ready": {
        const ready = this.#streams.get(item.stream);
        this.#streams.delete(item.stream);
        ready?.();
        break;
      }
      case "invoke":
        this.#host?.invoke?.(item.invocation, objects[item.object] as NativeInvocation, item.start, item.input);
        break;
      case "cancel":
        this.#host?.cancel?.(item.invocation, item.cause, item.reason);
        break;
      case "abandoned":
        this.#host?.abandoned?.(item.invocation);
        break;
      case "verify":
        this.#host?.verify?.(item.token, objects[item.object] as NativeVerifyRequest);
        break;
      case "token":
        this.#host?.token?.(objects[item.object] as NativeTokenRequest);
        break;
      case "log":
        this.#log?.(item.level, item.target, item.message);
        break;
    }
  }
}

/** The port of everything that is not a runtime's. */
export const port = new Port();

/** Lets the loop run everything else that is ready. */
export function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** Waits for `promise`, or throws the signal's reason when it aborts first. */
export async function abortable<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  signal.throwIfAborted();
  let abort: (() => void) | undefined;
  const aborted = new Promise<never>((_, reject) => {
    abort = () => reject(signal.reason);
    signal.addEventListener("abort", abort, { once: true });
  });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    if (abort) signal.removeEventListener("abort", abort);
  }
}

