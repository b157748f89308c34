import { ArgumentError, attempt, toJson } from "./errors.js";
import { JobHandle, JobSubscription, } from "./job.js";
import { native } from "./native.js";
import { abortable, port } from "./port.js";
import { WebSocketTransport } from "./transport.js";
/** A session with a runtime: connect once, submit and follow jobs, close. */
export class ARCPClient {
    #native;
    #token;
    #welcome;
    /** @throws ArgumentError naming the option that is wrong. */
    constructor(options) {
        const { authScheme = "bearer" } = options;
        if (authScheme !== "bearer")
            throw new ArgumentError(`authScheme "${String(authScheme)}" is not "bearer"`);
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
    static async open(url, options) {
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
    async connect(to, options = {}) {
        const { signal } = options;
        const token = typeof this.#token === "string" ? this.#token : await this.#token();
        const transport = typeof to === "string" ? await WebSocketTransport.connect(to, options) : to;
        const { value } = await port.call((call) => this.#native.connect(port.native, call, transport._native, token), { signal });
        this.#welcome = value;
        return value;
    }
    /** The answer to the handshake; `undefined` before it. */
    get welcomePayload() {
        return this.#welcome;
    }
    get sessionId() {
        return this.#welcome?.session_id;
    }
    /** What both sides support, in this client's order. */
    get negotiatedFeatures() {
        return this.#native.negotiatedFeatures();
    }
    hasFeature(name) {
        return this.negotiatedFeatures.includes(name);
    }
    /** The highest `event_seq` received. */
    get lastEventSeqObserved() {
        return this.#native.latestEventSeq();
    }
    /**
     * Submits a job and waits until it is accepted.
     *
     * @throws the runtime's refusal: AgentNotAvailableError, PermissionDeniedError, InvalidRequestError, ...
     */
    async submit(options) {
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
        const accepted = port.call((call) => this.#native.submit(port.native, call, toJson(request, "submit")));
        const handle = accepted.then(({ value, object }) => new JobHandle(this, object, value));
        if (signal)
            void this.#cancelOnAbort(handle, signal);
        return abortable(handle, signal);
    }
    /**
     * Follows a job of the same principal.
     *
     * @throws JobNotFoundError, PermissionDeniedError.
     */
    async subscribe(jobId, options = {}) {
        const request = { job_id: jobId, history: options.history, from_event_seq: options.fromEventSeq };
        const { value, object } = await port.call((call) => this.#native.subscribe(port.native, call, toJson(request, "subscribe")), { signal: options.signal });
        return new JobSubscription(object, value, () => this.#native.unsubscribe(jobId));
    }
    /** Asks to cancel a job and returns at once. */
    cancelJob(jobId, options = {}) {
        attempt(() => this.#native.cancelJob(jobId, options.reason ?? ""));
    }
    /** Acknowledges by hand what was processed; for clients with `autoAck: false`. */
    ack(lastProcessedSeq) {
        this.#native.ack(lastProcessedSeq);
    }
    /** Says good-bye and closes the connection, within bounded time. Open handles end with `ClosedError`. */
    async close(reason = "client closed") {
        await port.call((call) => this.#native.close(port.native, call, reason));
    }
    async [Symbol.asyncDispose]() {
        await this.close();
    }
    async #cancelOnAbort(submitted, signal) {
        let abort;
        try {
            const handle = await submitted;
            abort = () => handle.cancel(signal.reason instanceof Error ? signal.reason.message : String(signal.reason));
            if (signal.aborted)
                abort();
            else
                signal.addEventListener("abort", abort, { once: true });
            await handle.done;
        }
        catch {
            // Whoever awaits the handle is told.
        }
        finally {
            if (abort)
                signal.removeEventListener("abort", abort);
        }
    }
}
function seconds(milliseconds) {
    return milliseconds === undefined ? undefined : milliseconds / 1000;
}
