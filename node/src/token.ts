import { ArgumentError, toInfo } from "./errors.js";
import type { NativeTokenRequest } from "./native.js";
import { Port } from "./port.js";

/** A bearer token, or what gives one; it is asked anew at each connection, also when a lost one is healed. */
export type Token = string | (() => string | Promise<string>);

/** Answers the core when it asks for a token. It never keeps Node alive: what the function itself waits for does. */
export class TokenPort {
  readonly port: Port;
  readonly #give: () => string | Promise<string>;
  /** What the function threw when it was asked last. */
  failure: { error: unknown } | undefined;

  constructor(give: () => string | Promise<string>) {
    this.#give = give;
    this.port = new Port({ token: (request) => void this.#answer(request) });
  }

  async #answer(request: NativeTokenRequest): Promise<void> {
    this.failure = undefined;
    try {
      const token: unknown = await this.#give();
      if (typeof token !== "string") throw new ArgumentError(`the token function gave ${typeof token}; it must give text`);
      request.give(token);
    } catch (error) {
      this.failure = { error };
      request.refuse(toInfo(error));
    }
  }
}
