// JSON whose integers keep every digit: beyond 2^53 they are `BigInt`.
import { randomBytes } from "node:crypto";
/** Stands before an integer's digits while it is written as text; no peer can know it. */
const MARK = `${randomBytes(12).toString("hex")}:`;
/** As many digits in a row as the smallest integer beyond 2^53 has. */
const WIDE = /[0-9]{16}/;
const TOKEN = /"(?:[^"\\]|\\.)*"|-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/g;
const INTEGER = /^-?[0-9]{16,}$/;
const MARKED = new RegExp(`"${MARK}(-?[0-9]+)"`, "g");
/** Reads JSON text. `wide` says whether it may hold integers beyond 2^53. */
export function parse(text, wide = WIDE.test(text)) {
    if (!wide)
        return JSON.parse(text);
    const marked = text.replace(TOKEN, (token) => INTEGER.test(token) && !Number.isSafeInteger(Number(token)) ? `"${MARK}${token}"` : token);
    return JSON.parse(marked, (_, value) => typeof value === "string" && value.startsWith(MARK) ? BigInt(value.slice(MARK.length)) : value);
}
/** Writes JSON text; `undefined` reads as null. @throws TypeError for what JSON cannot say. */
export function stringify(value) {
    try {
        return JSON.stringify(value) ?? "null";
    }
    catch {
        // Perhaps for a BigInt. Looking out for them in every value would cost all the others.
        const marked = JSON.stringify(value, (_, member) => typeof member === "bigint" ? `${MARK}${member}` : member);
        return marked.replace(MARKED, "$1");
    }
}
