// The protocol's pure functions. The core answers; here are only names and shapes.
import { attempt, errorFromPayload, toJson } from "./errors.js";
import { parse } from "./json.js";
import { native } from "./native.js";
export const PROTOCOL_VERSION = native.protocolVersion();
export const IMPL_VERSION = native.implVersion();
/** @throws InvalidRequestError outside the grammar. */
export function parseAgentRef(text) {
    const { name, version } = call("parse_agent_ref", { text });
    return { name, version: version ?? undefined };
}
/** `"USD:5.00"` in parts; the amount stays text, so that no digit is lost. @throws InvalidRequestError. */
export function parseBudgetAmount(text) {
    return call("parse_budget_amount", { text });
}
/** @throws PermissionDeniedError, LeaseExpiredError, BudgetExhaustedError, InvalidRequestError. */
export function validateLeaseOp(lease, namespace, target, options = {}) {
    const { expiresAt, now, budget } = options;
    call("validate_lease_op", { lease, namespace, target, expires_at: expiresAt, now, budget });
}
/** Whether `child` allows nothing that `parent` does not. */
export function isLeaseSubset(child, parent, options = {}) {
    return subset(child, parent, options).subset;
}
/** @throws LeaseSubsetViolationError naming what `child` has beyond `parent`, InvalidRequestError for no lease. */
export function assertLeaseSubset(child, parent, options = {}) {
    const answer = subset(child, parent, options);
    if (!answer.subset)
        throw errorFromPayload({ code: answer.code, message: answer.message });
}
function subset(child, parent, options) {
    return call("is_lease_subset", {
        child,
        parent,
        child_expires_at: options.childExpiresAt,
        parent_expires_at: options.parentExpiresAt,
        parent_remaining: options.parentRemaining,
    });
}
/** What both sides support, in the client's order. */
export function intersectFeatures(client, runtime) {
    return call("intersect_features", { client, runtime }).features;
}
/** One message of the protocol. */
export class Envelope {
    #text;
    #members;
    constructor(text) {
        this.#text = text;
        this.#members = parse(text);
    }
    /**
     * Reads a message; with `receiver` also its payload, as that side would.
     *
     * @throws InvalidRequestError naming the member that is wrong.
     */
    static parse(text, receiver) {
        return new Envelope(call("envelope", { text, receiver }).text);
    }
    get id() {
        return this.#members["id"];
    }
    get type() {
        return this.#members["type"];
    }
    get payload() {
        return this.#members["payload"];
    }
    get sessionId() {
        return this.#members["session_id"];
    }
    get jobId() {
        return this.#members["job_id"];
    }
    get eventSeq() {
        return this.#members["event_seq"];
    }
    /** Every member, for `JSON.stringify`. */
    toJSON() {
        return this.#members;
    }
    /** The message as it is sent. */
    toString() {
        return this.#text;
    }
}
function call(name, args) {
    return parse(attempt(() => native.callFunction(name, toJson(args, name))));
}
