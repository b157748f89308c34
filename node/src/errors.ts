import { parse, stringify } from "./json.js";
import { native } from "./native.js";

/** What an error says besides its message. */
export interface ErrorOptions {
  /** Whether the same request may succeed later; by default what is usual for the code, false for foreign ones. */
  retryable?: boolean;
  details?: Record<string, unknown> | undefined;
  cause?: unknown;
}

/** The payload of an error on the wire. */
export interface ErrorPayload {
  code: string;
  message: string;
  retryable: boolean;
  details?: Record<string, unknown>;
}

/** Every error of this package. `code` is one of the protocol's fifteen, a foreign one, or that of a `LocalError`. */
export class ARCPError extends Error {
  readonly code: string;
  readonly retryable: boolean;
  readonly details: Record<string, unknown> | undefined;

  constructor(code: string, message: string, options: ErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = new.target.name;
    this.code = code;
    this.retryable = options.retryable ?? usuallyRetryable(code);
    this.details = options.details;
  }

  toPayload(): ErrorPayload {
    const { code, message, retryable, details } = this;
    return { code, message, retryable, ...(details && { details }) };
  }
}

/** The operation is outside the lease, or the principal may not do it. */
export class PermissionDeniedError extends ARCPError {
  constructor(message: string, options?: ErrorOptions) {
    super("PERMISSION_DENIED", message, options);
  }
}

/** A delegated lease asks for more than its parent's. */
export class LeaseSubsetViolationError extends ARCPError {
  constructor(message: string, options?: ErrorOptions) {
    super("LEASE_SUBSET_VIOLATION", message, options);
  }
}

/** There is no such job, or none this principal may see. */
export class JobNotFoundError extends ARCPError {
  constructor(message: string, options?: ErrorOptions) {
    super("JOB_NOT_FOUND", message, options);
  }
}

/** An idempotency key was used before with another request. */
export class DuplicateKeyError extends ARCPError {
  constructor(message: string, options?: ErrorOptions) {
    super("DUPLICATE_KEY", message, options);
  }
}

/** The runtime has no agent of this name. */
export class AgentNotAvailableError extends ARCPError {
  constructor(message: string, options?: ErrorOptions) {
    super("AGENT_NOT_AVAILABLE", message, options);
  }
}

/** The runtime has the agent, but not this version. */
export class AgentVersionNotAvailableError extends ARCPError {
  constructor(message: string, options?: ErrorOptions) {
    super("AGENT_VERSION_NOT_AVAILABLE", message, options);
  }
}

/** The job was cancelled. */
export class CancelledError extends ARCPError {
  constructor(message: string, options?: ErrorOptions) {
    super("CANCELLED", message, options);
  }
}

/** The job ran longer than it may. A wait of this side that ran out is a `WaitTimeoutError`. */
export class TimeoutError extends ARCPError {
  constructor(message: string, options?: ErrorOptions) {
    super("TIMEOUT", message, options);
  }
}

/** The session or the events asked for are kept no more. */
export class ResumeWindowExpiredError extends ARCPError {
  constructor(message: string, options?: ErrorOptions) {
    super("RESUME_WINDOW_EXPIRED", message, options);
  }
}

/** The peer was silent for two heartbeat intervals. */
export class HeartbeatLostError extends ARCPError {
  constructor(message: string, options?: ErrorOptions) {
    super("HEARTBEAT_LOST", message, options);
  }
}

/** The lease has ended. */
export class LeaseExpiredError extends ARCPError {
  constructor(message: string, options?: ErrorOptions) {
    super("LEASE_EXPIRED", message, options);
  }
}

/** The budget is used up. */
export class BudgetExhaustedError extends ARCPError {
  constructor(message: string, options?: ErrorOptions) {
    super("BUDGET_EXHAUSTED", message, options);
  }
}

/** The request breaks a rule of the protocol. */
export class InvalidRequestError extends ARCPError {
  constructor(message: string, options?: ErrorOptions) {
    super("INVALID_REQUEST", message, options);
  }
}

/** The token is unknown. */
export class UnauthenticatedError extends ARCPError {
  constructor(message: string, options?: ErrorOptions) {
    super("UNAUTHENTICATED", message, options);
  }
}

/** The agent or the runtime failed. */
export class InternalError extends ARCPError {
  constructor(message: string, options?: ErrorOptions) {
    super("INTERNAL_ERROR", message, options);
  }
}

/** A failure on this side of the wire. Its code is one that no peer sends. */
export class LocalError extends ARCPError {}

/** Closed on this side, or ended with its session. */
export class ClosedError extends LocalError {
  constructor(message: string, options?: ErrorOptions) {
    super("CLOSED", message, options);
  }
}

/** No connection, or it was lost. */
export class TransportClosedError extends LocalError {
  constructor(message: string, options?: ErrorOptions) {
    super("TRANSPORT", message, options);
  }
}

/** A bounded wait of this side ran out. */
export class WaitTimeoutError extends LocalError {
  constructor(message: string, options?: ErrorOptions) {
    super("TIMEOUT_LOCAL", message, options);
  }
}

/** An argument was refused before anything was sent. */
export class ArgumentError extends LocalError {
  constructor(message: string, options?: ErrorOptions) {
    super("BAD_ARGUMENT", message, options);
  }
}

/**
 * A registry refused, or could not be reached. `code` is the slug of its problem document, such as `agent-not-found`, or
 * `REGISTRY`; `details` has `area`, `kind`, `status`, `cause`, `retry_after`, `problem` and `errors`.
 */
export class RegistryError extends ARCPError {
  constructor(code: string, message: string, options?: ErrorOptions) {
    super(code || "REGISTRY", message, options);
  }

  /** The HTTP status, if there was an answer. */
  get status(): number | undefined {
    const status = this.details?.["status"];
    return typeof status === "number" ? status : undefined;
  }

  /** What went wrong: `authentication`, `not_found`, `connection`, `invalid`, ... */
  get kind(): string {
    return String(this.details?.["kind"] ?? "");
  }
}

const BY_CODE: ReadonlyMap<string, new (message: string, options?: ErrorOptions) => ARCPError> = new Map([
  ["PERMISSION_DENIED", PermissionDeniedError],
  ["LEASE_SUBSET_VIOLATION", LeaseSubsetViolationError],
  ["JOB_NOT_FOUND", JobNotFoundError],
  ["DUPLICATE_KEY", DuplicateKeyError],
  ["AGENT_NOT_AVAILABLE", AgentNotAvailableError],
  ["AGENT_VERSION_NOT_AVAILABLE", AgentVersionNotAvailableError],
  ["CANCELLED", CancelledError],
  ["TIMEOUT", TimeoutError],
  ["RESUME_WINDOW_EXPIRED", ResumeWindowExpiredError],
  ["HEARTBEAT_LOST", HeartbeatLostError],
  ["LEASE_EXPIRED", LeaseExpiredError],
  ["BUDGET_EXHAUSTED", BudgetExhaustedError],
  ["INVALID_REQUEST", InvalidRequestError],
  ["UNAUTHENTICATED", UnauthenticatedError],
  ["INTERNAL_ERROR", InternalError],
]);

/** Makes the error a payload describes; its members may be missing or of published peers' spelling. */
export function errorFromPayload(payload: unknown): ARCPError {
  const question = toJson({ payload: payload ?? null }, "payload");
  const read = attempt(() => native.callFunction("error_from_payload", question));
  const { code, message, retryable, details } = parse(read) as ErrorPayload & { details: ErrorOptions["details"] | null };
  return protocolError(code, message, { retryable, details: details ?? undefined });
}

/** The bridge's `ErrorInfo`. `details` is JSON text. */
export interface ErrorInfo {
  kind: "protocol" | "closed" | "timeout" | "transport" | "argument" | "forked" | "registry";
  code: string;
  message: string;
  retryable: boolean;
  details: string | null;
}

export function fromInfo(info: ErrorInfo): ARCPError {
  switch (info.kind) {
    case "protocol": {
      const details = info.details === null ? undefined : (parse(info.details) as Record<string, unknown>);
      return protocolError(info.code, info.message, { retryable: info.retryable, details });
    }
    case "registry": {
      const details = info.details === null ? {} : (parse(info.details) as Record<string, unknown>);
      return new RegistryError(info.code, info.message, { retryable: info.retryable, details });
    }
    case "timeout":
      return new WaitTimeoutError(info.message);
    case "transport":
      return new TransportClosedError(info.message);
    case "argument":
      return new ArgumentError(info.message);
    default:
      return new ClosedError(info.message);
  }
}

/** What an agent threw, in words: anything can be thrown, also what cannot be written. */
function describe(error: unknown): string {
  try {
    return error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  } catch {
    return "a value that cannot be shown was thrown";
  }
}

/** Details as JSON; those that cannot be written are left out, and the error still goes. */
function written(details: unknown): string | null {
  try {
    return details === undefined ? null : toJson(details, "details");
  } catch {
    return null;
  }
}

/** What an agent or verifier threw, as the bridge reads it. */
export function toInfo(error: unknown): string {
  const info: ErrorInfo = {
    kind: "protocol",
    code: "INTERNAL_ERROR",
    message: describe(error),
    retryable: false,
    details: null,
  };
  // A local failure inside an agent is the agent's own affair: its code means nothing to the peer.
  if (error instanceof ARCPError && !(error instanceof LocalError)) {
    info.code = error.code;
    info.message = String(error.message);
    info.retryable = error.retryable;
    info.details = written(error.details);
  }
  return JSON.stringify(info);
}

/** Calls into the addon; what it throws becomes an `ARCPError` whose stack begins at the caller. */
export function attempt<T>(call: () => T): T {
  try {
    return call();
  } catch (error) {
    throw fromThrown(error);
  }
}

export function fromThrown(error: unknown): unknown {
  if (!(error instanceof Error) || !error.message.startsWith('{"kind":')) return error;
  return fromInfo(JSON.parse(error.message) as ErrorInfo);
}

/** JSON text of `value`; `undefined` reads as null. */
export function toJson(value: unknown, name: string): string {
  try {
    return stringify(value);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new ArgumentError(`${name} cannot be written as JSON: ${why}`, { cause });
  }
}

function protocolError(code: string, message: string, options: ErrorOptions): ARCPError {
  const known = BY_CODE.get(code);
  return known ? new known(message, options) : new ARCPError(code, message, options);
}

const usual = new Map<string, boolean>();

/** The core's default for this code: what it reads when the flag is missing. */
function usuallyRetryable(code: string): boolean {
  if (!BY_CODE.has(code)) return false;
  let retryable = usual.get(code);
  if (retryable === undefined) {
    const read = native.callFunction("error_from_payload", JSON.stringify({ payload: { code, message: "-" } }));
    retryable = (JSON.parse(read) as ErrorPayload).retryable;
    usual.set(code, retryable);
  }
  return retryable;
}
