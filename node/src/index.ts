export { ChildJob, type DelegateOptions } from "./child.js";
export {
  ARCPClient,
  type ClientInfo,
  type ClientOptions,
  type ConnectionOptions,
  type JobFilter,
  type JobListEntry,
  type JobListPage,
  type ListJobsOptions,
  type ReconnectOptions,
  type SessionResume,
  type SessionWelcomePayload,
  type SubmitOptions,
  type SubscribeOptions,
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
  RegistryError,
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
  ResumedJob,
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
  RegistryClient,
  type AgentInfo,
  type AgentRegistration,
  type DiscoverOptions,
  type RegistryOptions,
} from "./registry.js";
export { ResultWriter, type ResultEnd, type ResultOptions, type ResultPart } from "./result.js";
export {
  ARCPRuntime,
  type Agent,
  type AgentEntry,
  type AgentOptions,
  type ListenOptions,
  type Listener,
  type RuntimeInfo,
  type RuntimeOptions,
} from "./runtime.js";
export { type Token } from "./token.js";
export {
  MemoryTransport,
  pairMemoryTransports,
  Transport,
  WebSocketTransport,
  type ConnectOptions,
} from "./transport.js";
export {
  JwtVerifier,
  StaticBearerVerifier,
  type BearerVerifier,
  type Identity,
  type JwtVerifierOptions,
} from "./verifier.js";
