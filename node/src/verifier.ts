import { ArgumentError, toJson } from "./errors.js";

/** Who a token belongs to. */
export type Identity = string | { principal: string };

/** Looks bearer tokens up. Nothing, null or an empty principal refuses the token. */
export interface BearerVerifier {
  verify(token: string): Identity | null | undefined | Promise<Identity | null | undefined>;
}

/** Which signed tokens are taken. Exactly one of `secret`, `publicKeyPem` and `jwksUrl` is given. */
export interface JwtVerifierOptions {
  /** Shared with the issuer, at least 32 bytes. */
  secret?: string;
  /** PEM text. */
  publicKeyPem?: string;
  /** Where the issuer publishes its keys: `https`, or `http` on this machine. */
  jwksUrl?: string;
  /** PEM text of certificates to trust for `jwksUrl` besides the platform's. */
  caPem?: string;
  /** The token must name one of them; without any it must name none. */
  audience?: string | readonly string[];
  /** The token must come from it; by default any. */
  issuer?: string;
  /** How much clocks may differ, in seconds up to 3600; 30. */
  leewaySec?: number;
  /** The claim that holds the principal; `sub`. */
  principalClaim?: string;
  /** Names such as `RS256`; by default all the keys allow. */
  algorithms?: readonly string[];
}

let jwtOf: (verifier: JwtVerifier) => string;

/** Takes signed tokens (JWT). The runtime checks them on its own threads; options are checked when it is made. */
export class JwtVerifier {
  readonly #options: string;

  static {
    jwtOf = (verifier) => verifier.#options;
  }

  constructor(options: JwtVerifierOptions) {
    this.#options = toJson(
      {
        secret: options.secret,
        public_key_pem: options.publicKeyPem,
        jwks_url: options.jwksUrl,
        ca_pem: options.caPem,
        audience: options.audience,
        issuer: options.issuer,
        leeway_sec: options.leewaySec,
        principal_claim: options.principalClaim,
        algorithms: options.algorithms,
      },
      "options",
    );
  }
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

/** What the core verifies by itself: the table of an untouched `StaticBearerVerifier`, while a subclass is asked, and the
 * options of a `JwtVerifier`. */
export function ofCore(verifier: BearerVerifier | JwtVerifier): [string, string][] | string | undefined {
  if (verifier instanceof JwtVerifier) return jwtOf(verifier);
  const untouched = verifier instanceof StaticBearerVerifier && verifier.constructor === StaticBearerVerifier;
  return untouched ? tokensOf(verifier) : undefined;
}
