// The protocol's pure functions. The core answers; here are only names and shapes.

import { attempt, errorFromPayload, toJson } from "./errors.js";
import type { Lease } from "./job.js";
import { parse } from "./json.js";
import { native } from "./native.js";

export const PROTOCOL_VERSION: string = native.protocolVersion();
export const IMPL_VERSION: string = native.implVersion();

/** The parts of `name@version`. */
export interface AgentRef {
  name: string;
  version: string | undefined;
}

/** @throws InvalidRequestError outside the grammar. */
export function parseAgentRef(text: string): AgentRef {
  const { name, version } = call<{ name: string; version: string | null }>("parse_agent_ref", { text });
  return { name, version: version ?? undefined };
}

/** `"USD:5.00"` in parts; the amount stays text, so that no digit is lost. @throws InvalidRequestError. */
export function parseBudgetAmount(text: string): { currency: string; amount: string } {
  return call("parse_budget_amount", { text });
}

/** @throws PermissionDeniedError, LeaseExpiredError, BudgetExhaustedError, InvalidRequestError. */
export function validateLeaseOp(
  lease: Lease,
  namespace: string,
  target: string,
  options: { expiresAt?: string; now?: string; budget?: Record<string, string> } = {},
): void {
  const { expiresAt, now, budget } = options;
  call("validate_lease_op", { lease, namespace, target, expires_at: expiresAt, now, budget });
}

/** What bounds two leases besides their patterns: RFC 3339 times, and what is left of the parent's budget as text. */
export interface SubsetOptions {
  childExpiresAt?: string;
  parentExpiresAt?: string;
  parentRemaining?: Record<string, string>;
}

/** Whether `child` allows nothing that `parent` does not. */
export function isLeaseSubset(child: Lease, parent: Lease, options: SubsetOptions = {}): boolean {
  return subset(child, parent, options).subset;
}

/** @throws LeaseSubsetViolationError naming what `child` has beyond `parent`, InvalidRequestError for no lease. */
export function assertLeaseSubset(child: Lease, parent: Lease, options: SubsetOptions = {}): void {
  const answer = subset(child, parent, options);
  if (!answer.subset) throw errorFromPayload({ code: answer.code, message: answer.message });
}

function subset(
  child: Lease,
  parent: Lease,
  options: SubsetOptions,
): { subset: true } | { subset: false; code: string; message: string } {
  return call("is_lease_subset", {
    child,
    parent,
    child_expires_at: options.childExpiresAt,
    parent_expires_at: options.parentExpiresAt,
    parent_remaining: options.parentRemaining,
  });
}

/** What both sides support, in the client's order. */
export function intersectFeatures(client: readonly string[], runtime: readonly string[]): string[] {
  return call<{ features: string[] }>("intersect_features", { client, runtime }).features;
}

/** One message of the protocol. */
export class Envelope {
  readonly #text: string;
  readonly #members: Record<string, unknown>;

  private constructor(text: string) {
    this.#text = text;
    this.#members = parse(text) as Record<string, unknown>;
  }

  /**
   * Reads a message; with `receiver` also its payload, as that side would.
   *
   * @throws InvalidRequestError naming the member that is wrong.
   */
  static parse(text: string, receiver?: "client" | "runtime"): Envelope {
    return new Envelope(call<{ text: string }>("envelope", { text, receiver }).text);
  }

  get id(): string {
    return this.#members["id"] as string;
  }

  get type(): string {
    return this.#members["type"] as string;
  }

  get payload(): Record<string, unknown> {
    return this.#members["payload"] as Record<string, unknown>;
  }

  get sessionId(): string | undefined {
    return this.#members["session_id"] as string | undefined;
  }

  get jobId(): string | undefined {
    return this.#members["job_id"] as string | undefined;
  }

  get eventSeq(): number | undefined {
    return this.#members["event_seq"] as number | undefined;
  }

  /** Every member, for `JSON.stringify`. */
  toJSON(): Record<string, unknown> {
    return this.#members;
  }

  /** The message as it is sent. */
  toString(): string {
    return this.#text;
  }
}

function call<Answer = unknown>(name: string, args: unknown): Answer {
  return parse(attempt(() => native.callFunction(name, toJson(args, name)))) as Answer;
}
