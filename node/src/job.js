import { ClosedError } from "./errors.js";
import { parse } from "./json.js";
import { abortable, port, turn } from "./port.js";
/** Events taken from the core at once. */
const BATCH = 256;
/** A job's events and end. Iterators of one job share its events: each event goes to one of them. */
class JobView {
    jobId;
    /** The end. Rejects with the job's own error, or with a local one when the session ends first. */
    done;
    #native;
    #stream = port.number();
    #left = new AbortController();
    #batch = [];
    #taken = 0;
    /** Events taken without the loop having had its turn. */
    #reading = 0;
    #streak = 0;
    #filling;
    #wake;
    constructor(jobId, inner) {
        this.jobId = jobId;
        this.#native = inner;
        this.done = this.#ended();
        // Whoever does not look at `done` is not to be struck down by it.
        this.done.catch(() => { });
    }
    /** The result's value. Rejects as `done` does. */
    async result() {
        return (await this.done).result;
    }
    /** Every event, in order, until the job has ended. What was taken counts as processed. */
    events(options = {}) {
        const { kinds, signal } = options;
        const wanted = kinds && new Set(kinds);
        const take = () => {
            for (;;) {
                const event = this.#take();
                if (event === undefined || wanted === undefined || wanted.has(event.kind))
                    return event;
            }
        };
        const later = async () => {
            try {
                while (await abortable(this.#fill(BATCH), signal)) {
                    const value = take();
                    if (value !== undefined)
                        return { value, done: false };
                }
            }
            catch (error) {
                end();
                throw error;
            }
            end();
            return { value: undefined, done: true };
        };
        let over = false;
        let entered = false;
        const end = () => {
            if (entered && !over)
                this.#leaveReading();
            over = true;
        };
        // Written out: an async generator costs three times as much per event.
        return {
            next() {
                if (over)
                    return Promise.resolve({ value: undefined, done: true });
                if (!entered) {
                    entered = true;
                    this.#reading++;
                }
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
    async *eventBatches(options = {}) {
        const maxItems = options.maxItems ?? BATCH;
        this.#reading++;
        try {
            for (;;) {
                const batch = this.#batch.slice(this.#taken, this.#taken + maxItems);
                this.#taken += batch.length;
                this.#streak += batch.length;
                if (batch.length > 0)
                    yield batch;
                else if (!(await abortable(this.#fill(maxItems), options.signal)))
                    return;
            }
        }
        finally {
            this.#leaveReading();
        }
    }
    [Symbol.asyncIterator]() {
        return this.events();
    }
    /** Ends this view on this side only. */
    leave(reason) {
        this.#left.abort(new ClosedError(reason));
        this.#wake?.();
    }
    /** While nobody reads, the job waits for no reader and only the newest events are kept. */
    #leaveReading() {
        if (--this.#reading === 0)
            this.#native.stopReading();
    }
    #take() {
        const event = this.#batch[this.#taken];
        if (event !== undefined) {
            this.#taken++;
            this.#streak++;
        }
        return event;
    }
    /** Waits for the next events; false after the last. However many wait, the core is asked once. */
    #fill(max) {
        if (this.#taken < this.#batch.length)
            return Promise.resolve(true);
        this.#filling ??= this.#ask(max).finally(() => (this.#filling = undefined));
        return this.#filling;
    }
    async #ask(max) {
        // Events that are always ready would let nothing else run.
        if (this.#streak >= BATCH) {
            this.#streak = 0;
            await turn();
        }
        while (!this.#left.signal.aborted) {
            const next = this.#native.nextBatch(port.native, this.#stream, max);
            if (next?.text === "")
                return false;
            if (next !== null) {
                this.#batch = parse(next.text, next.wide);
                this.#taken = 0;
                return true;
            }
            this.#streak = 0;
            await new Promise((resolve) => {
                this.#wake = resolve;
                port.onReady(this.#stream, resolve);
            });
        }
        return false;
    }
    async #ended() {
        // `this` keeps the job open in the core until its end has come.
        const { value } = await port.call((call) => this.#native.result(port.native, call), {
            signal: this.#left.signal,
        });
        return value;
    }
}
/** A job this client submitted. Until it has ended it keeps Node alive. */
export class JobHandle extends JobView {
    #client;
    /** The answer to the submit. May hold credentials, which are secret. */
    accepted;
    /** For this package only. */
    constructor(client, inner, accepted) {
        super(accepted.job_id, inner);
        this.#client = client;
        this.accepted = accepted;
    }
    /** Resolved `name@version`, or the bare name of an unversioned agent. */
    get agent() {
        return this.accepted.agent;
    }
    /** The effective lease. */
    get lease() {
        return this.accepted.lease;
    }
    get leaseConstraints() {
        return this.accepted.lease_constraints;
    }
    /** Currency to amount, as granted. */
    get budget() {
        return this.accepted.budget;
    }
    get traceId() {
        return this.accepted.trace_id;
    }
    /** Asks to cancel the job; `done` tells what came of it. */
    cancel(reason) {
        this.#client.cancelJob(this.jobId, reason === undefined ? {} : { reason });
    }
}
/** A job this client follows. Until it has ended or `unsubscribe` was called it keeps Node alive. */
export class JobSubscription extends JobView {
    #unsubscribe;
    /** The answer to the subscribe. May hold credentials, which are secret. */
    subscribed;
    /** For this package only. */
    constructor(inner, subscribed, unsubscribe) {
        super(subscribed.job_id, inner);
        this.subscribed = subscribed;
        this.#unsubscribe = unsubscribe;
    }
    /** Resolved agent reference. */
    get agent() {
        return this.subscribed.agent;
    }
    /** The job's state when the subscription began. */
    get status() {
        return this.subscribed.current_status;
    }
    /** Whether events from before the subscription come first. */
    get replayed() {
        return this.subscribed.replayed;
    }
    /** Stops following: iterators end, `done` rejects with `ClosedError`. The job goes on. */
    unsubscribe() {
        this.#unsubscribe();
        this.leave("this subscription was ended with unsubscribe");
    }
}
