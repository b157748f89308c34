import { ArgumentError } from "./errors.js";
let tokensOf;
/** A fixed table of token to principal. The runtime checks it on its own threads, in constant time per token. */
export class StaticBearerVerifier {
    #tokens;
    static {
        tokensOf = (verifier) => [...verifier.#tokens];
    }
    constructor(tokens) {
        this.#tokens = new Map(tokens instanceof Map ? tokens : Object.entries(tokens));
        for (const [token, principal] of this.#tokens) {
            if (!token || typeof principal !== "string" || !principal) {
                throw new ArgumentError("bearer must map tokens to principals, both text that is not empty");
            }
        }
    }
    verify(token) {
        return this.#tokens.get(token) ?? null;
    }
}
/** The table of an untouched `StaticBearerVerifier`, for the core; a subclass is asked instead. */
export function staticTokens(verifier) {
    const untouched = verifier instanceof StaticBearerVerifier && verifier.constructor === StaticBearerVerifier;
    return untouched ? tokensOf(verifier) : undefined;
}
