import { native, type NativeTransport } from "./native.js";
import { attempt, toJson } from "./errors.js";
import { port } from "./port.js";

/** A connection that a client or a runtime takes over. Its bytes never enter JavaScript. */
export abstract class Transport {
  /** For this package only. */
  readonly _native: NativeTransport;

  protected constructor(inner: NativeTransport) {
    this._native = inner;
  }

  /** Whether it is closed, or a client or runtime has taken it. */
  get used(): boolean {
    return this._native.isUsed();
  }

  /** Ends the connection without a word, also while a client or runtime uses it. */
  close(): void {
    this._native.close();
  }
}

/** How to connect. */
export interface ConnectOptions {
  /** Sent with the upgrade request. */
  headers?: Record<string, string>;
  tls?: {
    /** PEM text of certificates to trust besides the platform's. */
    ca?: string;
  };
  /** Largest message in bytes; 16 MiB. */
  maxMessageBytes?: number;
  /** Milliseconds for connecting and the upgrade; 10 000. */
  timeoutMs?: number;
  signal?: AbortSignal;
}

export class WebSocketTransport extends Transport {
  /**
   * Connects to `ws://` or `wss://`.
   *
   * @throws TransportClosedError when there is no connection, WaitTimeoutError after `timeoutMs`, ArgumentError for an
   * option that is wrong.
   */
  static async connect(url: string, options: ConnectOptions = {}): Promise<WebSocketTransport> {
    const settings = {
      headers: Object.entries(options.headers ?? {}),
      ca_pem: options.tls?.ca,
      max_message_bytes: options.maxMessageBytes,
      timeout_sec: options.timeoutMs === undefined ? undefined : options.timeoutMs / 1000,
    };
    const { object } = await port.call<undefined, NativeTransport>(
      (call) => native.connectWebsocket(port.native, call, url, toJson(settings, "options")),
      { signal: options.signal },
    );
    return new WebSocketTransport(object);
  }
}

export class MemoryTransport extends Transport {
  /** For this package only; `pairMemoryTransports` makes them. */
  static _of(inner: NativeTransport): MemoryTransport {
    return new MemoryTransport(inner);
  }
}

/** Two connected ends in this process. */
export function pairMemoryTransports(): [MemoryTransport, MemoryTransport] {
  const [left, right] = attempt(() => native.memoryPair());
  return [MemoryTransport._of(left), MemoryTransport._of(right)];
}
