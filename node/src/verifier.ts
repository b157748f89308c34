import { ArgumentError } from "./errors.js";

/** Who a token belongs to. */
export type Identity = string | { principal: string };

/** Looks bearer tokens up. Nothing, null or an empty principal refuses the token. */
export interface BearerVerifier {
  verify(token: string): Identity | null | undefined | Promise<Identity | null | undefined>;
}

let tokensOf: (verifier: StaticBearerVerifier) => [string, string][];

/** A fixed table of token to principal. The runtime checks it on its own threads, in constant time per token. */
export class StaticBearerVerifier implements BearerVerifier {
  readonly #tokens: ReadonlyMap<string, string>;

  static {
    tokensOf = (verifier) => [...verifier.#tokens];
  }

  constructor(tokens: ReadonlyMap<string, string> | Readonly<Record<string, string>>) {
    this.#tokens = new Map(tokens instanceof Map ? tokens : Object.entries(tokens));
    for (const [token, principal] of this.#tokens) {
      if (!token || typeof principal !== "string" || !principal) {
        throw new ArgumentError("bearer must map tokens to principals, both text that is not empty");
      }
    }
  }

  verify(token: string): string | null {
    return this.#tokens.get(token) ?? null;
  }
}

/** The table of an untouched `StaticBearerVerifier`, for the core; a subclass is asked instead. */
export function staticTokens(verifier: BearerVerifier): [string, string][] | undefined {
  const untouched = verifier instanceof StaticBearerVerifier && verifier.constructor === StaticBearerVerifier;
  return untouched ? tokensOf(verifier) : undefined;
}
