import { attempt } from "./errors.js";
import type { JobAcceptedPayload, Lease, LeaseConstraints } from "./job.js";
import type { NativeInvocation } from "./native.js";
import type { Port } from "./port.js";

/** What to delegate. */
export interface DelegateOptions {
  /** `name` or `name@version`; the lease must grant `agent.delegate` for it. */
  agent: string;
  /** Anything JSON can say; null when absent. */
  input?: unknown;
  /** What the child may do, at most what its parent may; nothing when absent. */
  lease?: Lease;
  leaseConstraints?: LeaseConstraints;
  /** Names the delegation in the parent's events; by default a fresh name. */
  delegateId?: string;
  /** Whether the child goes on when its parent ends; false. */
  detached?: boolean;
}

/** A job that an agent has delegated; `JobContext.delegate` makes it. */
export class ChildJob<Result = unknown> {
  /** The answer to the delegation, without the child's credentials. */
  readonly accepted: JobAcceptedPayload;
  readonly #port: Port;
  readonly #native: NativeInvocation;
  #result: Promise<Result> | undefined;

  /** For this package only. */
  constructor(port: Port, parent: NativeInvocation, accepted: JobAcceptedPayload) {
    this.#port = port;
    this.#native = parent;
    this.accepted = accepted;
  }

  get jobId(): string {
    return this.accepted.job_id;
  }

  get delegateId(): string | undefined {
    return this.accepted.delegate_id;
  }

  /** Resolved `name@version`, or the bare name of an unversioned agent. */
  get agent(): string | undefined {
    return this.accepted.agent;
  }

  /** The effective lease. */
  get lease(): Lease {
    return this.accepted.lease;
  }

  /** Waits for the end: the child's result, or its error. */
  result(): Promise<Result> {
    this.#result ??= this.#port
      .call<Result>((call) => this.#native.childResult(this.#port.native, call, this.jobId))
      .then(({ value }) => value);
    return this.#result;
  }

  /** Asks the child to give way; `result` tells what came of it. */
  cancel(reason = ""): void {
    attempt(() => this.#native.cancelChild(this.jobId, reason));
  }
}
