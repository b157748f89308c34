import { ArgumentError, InternalError, attempt } from "./errors.js";
import type { NativeInvocation } from "./native.js";

/** What is handed to the core at once. */
const PIECE = 4 * 1024 * 1024;

/** A part of a result: text, or bytes, which travel as base64. */
export type ResultPart = string | Uint8Array;

/** How a result is streamed. */
export interface ResultOptions {
  /** Names the result; by default a fresh name. */
  resultId?: string;
  /** Where the result is cut, in bytes; 256 KiB. */
  chunkBytes?: number;
}

/** How a streamed result ends. */
export interface ResultEnd {
  /** A sentence of at most 64 KiB that goes with the result. */
  summary?: string;
}

/** What a writer needs of its job. */
interface Place {
  native: NativeInvocation;
  signal: AbortSignal;
  /** Resolves when the client has caught up. */
  drained(): Promise<void>;
  /** After a write that need not wait. */
  turn(): void | Promise<void>;
}

/**
 * The result of a job in parts; `JobContext.streamResult` makes it. What the agent returns after a part was written is not
 * sent. After a write or a close that failed the job fails too, also where the agent handles the error. A
 * client without the feature `result_chunk` gets the whole in one piece, up to 1 MiB.
 *
 * With `await using`, a scope that is left before `close` was called makes the job fail: parts are no result.
 */
export class ResultWriter implements AsyncDisposable {
  /** Names the result; its chunks and the job's end carry it. */
  readonly resultId: string;
  readonly #place: Place;
  #pending: Promise<void> | undefined;
  #ending: Promise<void> | undefined;
  #failure: { error: unknown } | undefined;

  /** For this package only. */
  constructor(place: Place, options: ResultOptions) {
    this.#place = place;
    this.resultId = attempt(() => place.native.openResult(options.resultId, options.chunkBytes));
  }

  /**
   * Writes a part, cut into chunks where it is long. Await what it returns, for the rest and for a client that lags
   * behind; until then the bytes must not change.
   *
   * @throws InternalError with `details.cap` when the result grows over the runtime's cap, InvalidRequestError once it is
   * closed, ArgumentError while another write is under way, the signal's reason when the job is to give way.
   */
  write(part: ResultPart): void | Promise<void> {
    try {
      if (this.#pending) throw new ArgumentError("another write to this result is under way; await it first");
      const text = typeof part === "string";
      const bytes = text ? Buffer.from(part) : owned(part);
      const at = this.#put(bytes, 0, text);
      if (at === undefined) return this.#place.turn();
      this.#pending = this.#rest(bytes, at, text);
      return this.#pending;
    } catch (error) {
      throw this.#failed(error);
    }
  }

  /** Sends the newest chunk too, which else is kept back until more is written or the result ends. */
  flush(): void {
    attempt(() => this.#place.native.flushResult());
  }

  /**
   * Ends the result, after a write that is under way. Idempotent.
   *
   * @throws what a write before threw; InvalidRequestError for a summary that is too long.
   */
  close(end: ResultEnd = {}): Promise<void> {
    if (this.#ending === undefined) {
      this.#ending = this.#close(end);
      // Whoever does not await it hears of it at the job's end.
      this.#ending.catch(() => {});
    }
    return this.#ending;
  }

  /** The same as `close`. */
  finalize(end: ResultEnd = {}): Promise<void> {
    return this.close(end);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#idle();
    if (!this.#ending) this._fail(new InternalError("the result was left unfinished: close it before its scope ends"));
  }

  /** For this package only: the result is not whole. */
  _fail(error: unknown): void {
    this.#failure ??= { error };
  }

  /** For this package only: waits for what is under way, and throws what failed. */
  async _settled(): Promise<void> {
    await this.#idle();
    if (this.#failure) throw this.#failure.error;
  }

  async #idle(): Promise<void> {
    await this.#pending?.catch(() => {});
    await this.#ending?.catch(() => {});
  }

  async #close(end: ResultEnd): Promise<void> {
    await this.#pending?.catch(() => {});
    if (this.#failure) throw this.#failure.error;
    try {
      attempt(() => this.#place.native.finishResult(end.summary));
    } catch (error) {
      throw this.#failed(error);
    }
  }

  #failed(error: unknown): unknown {
    this._fail(error);
    return error;
  }

  /** Writes from `at` on: `undefined` when all is written, or where to go on after a wait. */
  #put(bytes: Uint8Array, at: number, text: boolean): number | undefined {
    while (at < bytes.length) {
      const piece = bytes.subarray(at, cut(bytes, at, text));
      const { taken, mustWait } = attempt(() => this.#place.native.writeResult(piece, text));
      at += taken;
      if (mustWait) return at;
    }
    return undefined;
  }

  #rest(bytes: Uint8Array, start: number, text: boolean): Promise<void> {
    const writing = (async () => {
      try {
        for (let at: number | undefined = start; at !== undefined; at = this.#put(bytes, at, text)) {
          await this.#place.drained();
          if (at < bytes.length) this.#place.signal.throwIfAborted();
        }
      } catch (error) {
        throw this.#failed(error);
      } finally {
        this.#pending = undefined;
      }
    })();
    // Whoever does not await it hears of it at the close, or at the job's end.
    writing.catch(() => {});
    return writing;
  }
}

/** The end of a piece; text is cut between code points. */
function cut(bytes: Uint8Array, at: number, text: boolean): number {
  let end = Math.min(at + PIECE, bytes.length);
  while (text && end < bytes.length && ((bytes[end] as number) & 0xc0) === 0x80) end--;
  return end;
}

/** Bytes that no other thread writes to. */
function owned(part: Uint8Array): Uint8Array {
  if (!(part instanceof Uint8Array)) throw new ArgumentError(`a part must be text or a Uint8Array, not ${typeof part}`);
  return part.buffer instanceof ArrayBuffer ? part : Uint8Array.from(part);
}
