import { attempt, fromInfo } from "./errors.js";
import { parse } from "./json.js";
import { native } from "./native.js";
/** Items handled in one turn of the loop. */
const BATCH = 256;
class Failed {
    info;
    constructor(info) {
        this.info = info;
    }
}
class Aborted {
    reason;
    constructor(reason) {
        this.reason = reason;
    }
}
// The wake-up itself never keeps Node alive; this timer does, while something is held (D-34).
const anchor = setInterval(() => { }, 0x7fff_ffff);
anchor.unref();
let held = 0;
export function hold() {
    if (held++ === 0)
        anchor.ref();
}
export function release() {
    if (--held === 0)
        anchor.unref();
}
/** One queue of the core, drained on this thread's loop. */
export class Port {
    native;
    #host;
    #calls = new Map();
    #streams = new Map();
    #next = 1;
    /** Why nothing more can be called. */
    #closed;
    #log;
    constructor(host) {
        this.#host = host;
        this.native = new native.NativePort(() => this.#drain());
    }
    /** A number for a call or a stream. */
    number() {
        return this.#next++;
    }
    /**
     * Starts a call and waits for it. Node stays alive meanwhile unless `holds` is false. An abort drops the work and
     * rejects with the signal's reason.
     */
    async call(start, { signal, holds = true } = {}) {
        signal?.throwIfAborted();
        if (this.#closed)
            throw fromInfo(this.#closed);
        const number = this.number();
        attempt(() => start(number));
        let abort;
        try {
            return await new Promise((resolve, reject) => {
                if (holds)
                    hold();
                this.#calls.set(number, { resolve: resolve, reject, holds });
                abort = () => {
                    this.native.cancelCall(number);
                    this.#take(number)?.reject(new Aborted(signal?.reason));
                };
                signal?.addEventListener("abort", abort, { once: true });
            });
        }
        catch (error) {
            // Made here, not where the item arrived, so that the stack names who awaits.
            if (error instanceof Aborted)
                throw error.reason;
            throw error instanceof Failed ? fromInfo(error.info) : error;
        }
        finally {
            if (abort)
                signal?.removeEventListener("abort", abort);
        }
    }
    /** Calls `ready` once when the stream is ready. */
    onReady(stream, ready) {
        this.#streams.set(stream, ready);
    }
    /** Sends the core's logs here. */
    logFrom(level, log) {
        this.#log = log;
        attempt(() => this.native.logFrom(level));
    }
    /** Takes nothing more; what is open fails. */
    close(reason) {
        this.native.close();
        this.#closed = { kind: "closed", code: "", message: reason, retryable: false, details: null };
        for (const number of [...this.#calls.keys()])
            this.#take(number)?.reject(new Failed(this.#closed));
    }
    #take(number) {
        const call = this.#calls.get(number);
        if (call !== undefined) {
            this.#calls.delete(number);
            if (call.holds)
                release();
        }
        return call;
    }
    #drain() {
        const { text, wide, objects, more } = this.native.drain(BATCH);
        // No wake-up comes before the queue was empty.
        if (more)
            setImmediate(() => this.#drain());
        for (const item of parse(text, wide))
            this.#dispatch(item, objects);
    }
    #dispatch(item, objects) {
        switch (item.type) {
            case "completed": {
                const call = this.#take(item.call);
                if (item.error)
                    call?.reject(new Failed(item.error));
                else
                    call?.resolve({ value: item.value, object: item.object === undefined ? undefined : objects[item.object] });
                break;
            }
            case "ready": {
                const ready = this.#streams.get(item.stream);
                this.#streams.delete(item.stream);
                ready?.();
                break;
            }
            case "invoke":
                this.#host?.invoke(item.invocation, objects[item.object], item.start, item.input);
                break;
            case "cancel":
                this.#host?.cancel(item.invocation, item.cause, item.reason);
                break;
            case "abandoned":
                this.#host?.abandoned(item.invocation);
                break;
            case "verify":
                this.#host?.verify(item.token, objects[item.object]);
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
export function turn() {
    return new Promise((resolve) => setImmediate(resolve));
}
/** Waits for `promise`, or throws the signal's reason when it aborts first. */
export async function abortable(promise, signal) {
    if (signal === undefined)
        return promise;
    signal.throwIfAborted();
    let abort;
    const aborted = new Promise((_, reject) => {
        abort = () => reject(signal.reason);
        signal.addEventListener("abort", abort, { once: true });
    });
    try {
        return await Promise.race([promise, aborted]);
    }
    finally {
        if (abort)
            signal.removeEventListener("abort", abort);
    }
}
