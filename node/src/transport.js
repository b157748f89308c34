import { native } from "./native.js";
import { attempt, toJson } from "./errors.js";
import { port } from "./port.js";
/** A connection that a client or a runtime takes over. Its bytes never enter JavaScript. */
export class Transport {
    /** For this package only. */
    _native;
    constructor(inner) {
        this._native = inner;
    }
    /** Whether it is closed, or a client or runtime has taken it. */
    get used() {
        return this._native.isUsed();
    }
    /** Ends the connection without a word, also while a client or runtime uses it. */
    close() {
        this._native.close();
    }
}
export class WebSocketTransport extends Transport {
    /**
     * Connects to `ws://` or `wss://`.
     *
     * @throws TransportClosedError when there is no connection, WaitTimeoutError after `timeoutMs`, ArgumentError for an
     * option that is wrong.
     */
    static async connect(url, options = {}) {
        const settings = {
            headers: Object.entries(options.headers ?? {}),
            ca_pem: options.tls?.ca,
            max_message_bytes: options.maxMessageBytes,
            timeout_sec: options.timeoutMs === undefined ? undefined : options.timeoutMs / 1000,
        };
        const { object } = await port.call((call) => native.connectWebsocket(port.native, call, url, toJson(settings, "options")), { signal: options.signal });
        return new WebSocketTransport(object);
    }
}
export class MemoryTransport extends Transport {
    /** For this package only; `pairMemoryTransports` makes them. */
    static _of(inner) {
        return new MemoryTransport(inner);
    }
}
/** Two connected ends in this process. */
export function pairMemoryTransports() {
    const [left, right] = attempt(() => native.memoryPair());
    return [MemoryTransport._of(left), MemoryTransport._of(right)];
}
