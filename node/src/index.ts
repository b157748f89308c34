export {
  ARCPClient,
  type ClientInfo,
  type ClientOptions,
  type SessionWelcomePayload,
  type SubmitOptions,
  type SubscribeOptions,
  type Token,
} from "./client.js";
export { JobContext, type Emitted } from "./context.js";
export {
  AgentNotAvailableError,
  AgentVersionNotAvailableError,
  ARCPError,
  ArgumentError,
  BudgetExhaustedError,
  CancelledError,
  ClosedError,
  DuplicateKeyError,
  errorFromPayload,
  HeartbeatLostError,
  InternalError,
  InvalidRequestError,
  JobNotFoundError,
  LeaseExpiredError,
  LeaseSubsetViolationError,
  LocalError,
  PermissionDeniedError,
  ResumeWindowExpiredError,
  TimeoutError,
  TransportClosedError,
  UnauthenticatedError,
  WaitTimeoutError,
  type ErrorOptions,
  type ErrorPayload,
} from "./errors.js";
export { type EventBodies, type EventKind, type JobEvent, type ToolError } from "./events.js";
export {
  assertLeaseSubset,
  Envelope,
  IMPL_VERSION,
  intersectFeatures,
  isLeaseSubset,
  parseAgentRef,
  parseBudgetAmount,
  PROTOCOL_VERSION,
  validateLeaseOp,
  type AgentRef,
  type SubsetOptions,
} from "./functions.js";
export {
  JobHandle,
  JobSubscription,
  type EventBatchesOptions,
  type EventsOptions,
  type JobAcceptedPayload,
  type JobResultPayload,
  type JobSubscribedPayload,
  type Lease,
  type LeaseConstraints,
} from "./job.js";
export { setLogger, type Logger, type LogLevel } from "./log.js";
export {
  ARCPRuntime,
  type Agent,
  type AgentEntry,
  type ListenOptions,
  type Listener,
  type RuntimeInfo,
  type RuntimeOptions,
} from "./runtime.js";
export {
  MemoryTransport,
  pairMemoryTransports,
  Transport,
  WebSocketTransport,
  type ConnectOptions,
} from "./transport.js";
export { StaticBearerVerifier, type BearerVerifier, type Identity } from "./verifier.js";
