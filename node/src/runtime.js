import { JobContext } from "./context.js";
import { ArgumentError, ClosedError, UnauthenticatedError, attempt, toInfo, toJson, ARCPError } from "./errors.js";
import { native, } from "./native.js";
import { Port, hold, release } from "./port.js";
import { StaticBearerVerifier, staticTokens } from "./verifier.js";
/** Hosts agents and serves sessions. */
export class ARCPRuntime {
    #native;
    #port;
    #agents = new Map();
    #running = new Map();
    #listeners = new Set();
    #verifier;
    #closing;
    /** @throws ArgumentError naming the option that is wrong. */
    constructor(options) {
        const settings = {
            name: options.runtime.name,
            version: options.runtime.version,
            features: options.features,
            heartbeat_interval_sec: options.heartbeatIntervalSeconds,
            resume_window_sec: options.resumeWindowSeconds,
            cancel_grace_sec: seconds(options.cancelGraceMs),
            idempotency_ttl_sec: seconds(options.idempotencyTtlMs),
            max_concurrent_jobs: options.caps?.maxConcurrentJobs,
        };
        const { bearer } = options;
        if (typeof bearer !== "object" || bearer === null) {
            throw new ArgumentError("bearer must be a verifier, or a table of token to principal");
        }
        this.#verifier = isVerifier(bearer) ? bearer : new StaticBearerVerifier(bearer);
        this.#port = new Port(this.#host());
        this.#native = attempt(() => new native.NativeRuntime(this.#port.native, toJson(settings, "options"), staticTokens(this.#verifier)));
    }
    /** Adds an agent, or replaces the one of this name. */
    registerAgent(name, agent) {
        this.#register(name, undefined, agent);
    }
    /** Adds one version of an agent. The first version of a name is what the bare name means. */
    registerAgentVersion(name, version, agent) {
        this.#register(name, version, agent);
    }
    /** @throws AgentNotAvailableError, AgentVersionNotAvailableError. */
    setDefaultAgentVersion(name, version) {
        attempt(() => this.#native.setDefaultAgentVersion(name, version));
    }
    agentInventory() {
        return JSON.parse(this.#native.agentInventory());
    }
    /** Serves one session over a transport, which is used up; resolves when it has ended. Does not keep Node alive. */
    async accept(transport) {
        await this.#port.call((call) => this.#native.accept(this.#port.native, call, transport._native), { holds: false });
    }
    /**
     * Serves WebSocket connections. The socket never enters JavaScript.
     *
     * @throws TransportClosedError when the port is in use.
     */
    async listen(options = {}) {
        if (this.#closing)
            throw new ClosedError("this runtime is closed; make a new one");
        const port = this.#port;
        const settings = {
            host: options.host,
            port: options.port,
            path: options.path,
            allowed_hosts: options.allowedHosts,
            cert_pem: options.tls?.cert,
            key_pem: options.tls?.key,
            max_message_bytes: options.maxMessageBytes,
        };
        const { value, object } = await port.call((call) => native.listen(port.native, call, toJson(settings, "options")));
        if (this.#closing) {
            object.close();
            throw new ClosedError("this runtime was closed meanwhile");
        }
        const served = port.call((call) => this.#native.serve(port.native, call, object));
        const listener = {
            ...value,
            close: async () => {
                this.#listeners.delete(listener);
                object.close();
                await served;
            },
        };
        this.#listeners.add(listener);
        return listener;
    }
    /** Stops listening, cancels every job, gives them up to `graceMs` (1000), and ends every session. Idempotent. */
    close(options = {}) {
        this.#closing ??= this.#close(options.reason ?? "the runtime is closing", options.graceMs ?? 1000);
        return this.#closing;
    }
    async [Symbol.asyncDispose]() {
        await this.close();
    }
    async #close(reason, graceMs) {
        await Promise.all([...this.#listeners].map((listener) => listener.close()));
        await this.#port.call((call) => this.#native.shutdown(this.#port.native, call, reason, graceMs));
        for (const id of [...this.#running.keys()])
            this.#abandon(id);
        this.#port.close(reason);
    }
    #register(name, version, agent) {
        if (typeof agent !== "function")
            throw new ArgumentError(`the agent "${name}" must be a function`);
        attempt(() => this.#native.registerAgent(this.#port.native, name, version));
        this.#agents.set(version === undefined ? name : `${name}@${version}`, agent);
    }
    /** What the core asks of this runtime. */
    #host() {
        return {
            invoke: (id, invocation, start, input) => void this.#invoke(id, invocation, start, input),
            cancel: (id, cause, reason) => this.#running.get(id)?.ctx._giveWay(cause, reason),
            abandoned: (id) => this.#abandon(id),
            verify: (token, request) => void this.#verify(token, request),
        };
    }
    async #invoke(id, invocation, start, input) {
        const ctx = new JobContext(this.#port, invocation, start);
        hold();
        const done = () => {
            if (this.#running.delete(id))
                release();
        };
        this.#running.set(id, { ctx, done });
        try {
            const agent = this.#agents.get(ctx.agentRef);
            if (agent === undefined)
                throw new Error(`the agent "${ctx.agentRef}" has gone`);
            const result = toJson(await agent(input, ctx), "the result");
            attempt(() => invocation.complete(result));
        }
        catch (error) {
            if (gaveWay(error, ctx.signal))
                invocation.cancelled();
            else
                invocation.fail(toInfo(error));
        }
        finally {
            done();
        }
    }
    /** The job has its terminal: whatever its agent still does is its own affair. */
    #abandon(id) {
        const running = this.#running.get(id);
        running?.done();
        running?.ctx._giveWay("abandoned", "the job has ended");
    }
    async #verify(token, request) {
        try {
            const identity = await this.#verifier.verify(token);
            const principal = typeof identity === "string" ? identity : identity?.principal;
            if (principal)
                request.accept(principal);
            else
                request.refuse(toInfo(new UnauthenticatedError("unknown token")));
        }
        catch (error) {
            // What a verifier throws may quote the token; only what it words for the peer goes out.
            request.refuse(toInfo(error instanceof ARCPError ? error : new Error("the token could not be verified")));
        }
    }
}
function isVerifier(bearer) {
    return "verify" in bearer && typeof bearer.verify === "function";
}
/** Whether an agent ended because it was told to, by itself or through what it passed the signal to. */
function gaveWay(error, signal) {
    return signal.aborted && (error === signal.reason || (error instanceof Error && error.name === "AbortError"));
}
function seconds(milliseconds) {
    return milliseconds === undefined ? undefined : milliseconds / 1000;
}
