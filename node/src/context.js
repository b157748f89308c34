import { CancelledError, ClosedError, LeaseExpiredError, TimeoutError, attempt, toJson } from "./errors.js";
import { turn } from "./port.js";
/** Events an agent may emit before the loop gets a turn (D-23). */
const BURST = 256;
/** One job, as its agent sees it. Emitters throw what the runtime refuses: InvalidRequestError, PermissionDeniedError. */
export class JobContext {
    jobId;
    sessionId;
    /** Who submitted the job. */
    principal;
    /** The agent's name. */
    agent;
    agentVersion;
    /** `name@version`, or the bare name of an unversioned agent. */
    agentRef;
    lease;
    leaseConstraints;
    traceId;
    /** Aborts when the job is to give way, with a CancelledError, TimeoutError or LeaseExpiredError as its reason. */
    signal;
    #native;
    #port;
    #abort = new AbortController();
    #burst = 0;
    /** For this package only. */
    constructor(port, inner, start) {
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
    get budget() {
        const text = this.#native.budget();
        return text === null ? undefined : JSON.parse(text);
    }
    /** `level` is one of trace, debug, info, warn, error, critical. */
    log(level, message, attributes) {
        return this.emitEvent("log", { level, message, attributes });
    }
    thought(text) {
        return this.emitEvent("thought", { text });
    }
    status(phase, message) {
        return this.emitEvent("status", { phase, message });
    }
    /** A metric named `cost.*` whose unit is a currency of the budget is charged to it. */
    metric(body) {
        return this.emitEvent("metric", body);
    }
    /** @throws PermissionDeniedError when the lease does not cover `tool.call` of this tool; the client sees the refusal. */
    toolCall(body) {
        return this.emitEvent("tool_call", body);
    }
    toolResult(body) {
        return this.emitEvent("tool_result", body);
    }
    progress(current, options = {}) {
        return this.emitEvent("progress", { current, ...options });
    }
    artifactRef(body) {
        return this.emitEvent("artifact_ref", body);
    }
    resultChunk(body) {
        return this.emitEvent("result_chunk", body);
    }
    /** Emits any event: a kind of the protocol, or `x-vendor.<vendor>.<name>` with any body. */
    emitEvent(kind, body) {
        const text = toJson(body, `${kind}.body`);
        const lags = attempt(() => this.#native.emit(kind, text));
        if (lags) {
            this.#burst = 0;
            return this.#drained();
        }
        if (++this.#burst < BURST)
            return undefined;
        // Otherwise a loop of emits would never hear of a cancellation.
        this.#burst = 0;
        return turn();
    }
    /**
     * Checks one operation against the lease.
     *
     * @throws PermissionDeniedError, LeaseExpiredError (which also ends the job), BudgetExhaustedError.
     */
    authorize(namespace, target) {
        attempt(() => this.#native.authorize(namespace, target));
    }
    /** For this package only. */
    _giveWay(cause, reason) {
        this.#abort.abort(giveWayError(cause, reason));
    }
    async #drained() {
        await this.#port.call((call) => this.#native.drained(this.#port.native, call), { holds: false });
    }
}
function giveWayError(cause, reason) {
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
