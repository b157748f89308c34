import { once } from "node:events";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";

/** A TCP relay whose connections can be cut, and which can refuse new ones. */
export class Proxy {
  /** Whether new connections are relayed. */
  open = true;
  readonly #target: number;
  readonly #sockets = new Set<Socket>();
  readonly #server = createServer((near) => this.#relay(near));

  private constructor(target: number) {
    this.#target = target;
  }

  /** Relays to a port of this machine. */
  static async to(target: number): Promise<Proxy> {
    const proxy = new Proxy(target);
    proxy.#server.listen(0, "127.0.0.1");
    await once(proxy.#server, "listening");
    return proxy;
  }

  get url(): string {
    return `ws://127.0.0.1:${(this.#server.address() as AddressInfo).port}/arcp`;
  }

  /** Ends every connection without a word. */
  cut(): void {
    for (const socket of this.#sockets) {
      // A reset beside a shutdown under way is refused by libuv (EINVAL) and leaves a handle that Node waits for at exit.
      if (socket.writableEnded) socket.destroy();
      else socket.resetAndDestroy();
    }
  }

  async close(): Promise<void> {
    this.open = false;
    this.cut();
    this.#server.close();
    await once(this.#server, "close");
  }

  #relay(near: Socket): void {
    if (!this.open) {
      near.resetAndDestroy();
      return;
    }
    const far = connect(this.#target, "127.0.0.1");
    for (const [socket, other] of [[near, far] as const, [far, near] as const]) {
      this.#sockets.add(socket);
      socket.on("error", () => {});
      socket.on("close", () => {
        this.#sockets.delete(socket);
        other.destroy();
      });
      socket.pipe(other);
    }
  }
}
