//! ARCP for Rust: find AI agents and run them.
//!
//! A [`Runtime`] hosts agents; a [`Client`] opens a session, submits jobs and follows their events.

pub use arcp_engine::provision::{
    IssueFuture, LiteLlmOptions, LiteLlmProvisioner, Provisioner, RevokeFuture,
    is_for_endpoint as is_credential_for_endpoint, upstream_error,
};
pub use arcp_engine::store::{
    self, AesGcmSealer, MemoryStore, SealError, Sealer, SqliteOptions, SqliteStore, Store, StoreError, Synchronous,
};
pub use arcp_engine::transport;
pub use arcp_engine::transport::{
    AllowCleartext, ConnectOptions, MemoryTransport, Reopen, Reopening, StdioTransport, Transport, WebSocketTransport,
    pair_memory_transports,
};
pub use arcp_engine::{
    Agent, AgentFuture, AskedPolicy, AuditFile, AuditLog, AuditSink, ChainVerifier, ChildHandle, Client,
    ConnectionState, DecideFuture, Delegate, Error, EventQueue, HostedAgent, HostedJob, JobContext, JobHandle,
    JwksOptions, JwtKey, JwtOptions, JwtVerifier, ListenOptions, Listener, Mirror, Mirrored, Monitor, Observed,
    PendingSubmit, ResultData, ResultWait, ResultWriter, Runtime, SessionView, StaticBearerVerifier, SubmitCall,
    SubmitTrace, Subscription, Token, TokenSource, TransportError, Verifier, VerifierError, VerifyFuture, Written,
};
pub use arcp_proto::agent_ref::AgentRef;
pub use arcp_proto::budget::{Budget, parse_amount as parse_budget_amount};
pub use arcp_proto::decimal::Decimal;
pub use arcp_proto::envelope::Envelope;
pub use arcp_proto::error::{Error as ProtocolError, ErrorCode};
pub use arcp_proto::feature::{self, intersect as intersect_features};
pub use arcp_proto::json::{self, RawJson};
pub use arcp_proto::lease::{self, Lease, authorize as validate_lease_op, is_subset as is_lease_subset};
pub use arcp_proto::machine::audit::AuditEntry;
pub use arcp_proto::machine::client::{Backoff, ClientConfig, CloseStyle, JobEvent};
pub use arcp_proto::machine::job::{Ending, JobStart, Outcome};
pub use arcp_proto::machine::policy::{
    Decision, JobFacts, ObservedJob, Observing, Policy, PolicyQuestion, SamePrincipal,
};
pub use arcp_proto::machine::provision::{IssueRequest, Issued, Revocation};
pub use arcp_proto::machine::result_stream::{ResultCaps, ResultOptions};
pub use arcp_proto::machine::runtime::{CancelPolicy, ProfileChoice, RuntimeConfig};
pub use arcp_proto::machine::session::Identity;
pub use arcp_proto::machine::stats::RuntimeStats;
pub use arcp_proto::message::{
    self, JobStatus, LeaseConstraints, PeerInfo as ClientInfo, PeerInfo as RuntimeInfo, Submit, Subscribe,
    error_from_payload,
};
pub use arcp_proto::time::Timestamp;
pub use arcp_proto::trace::TraceContext;
pub use arcp_proto::{PROTOCOL_VERSION, event};

/// The version of this implementation.
pub const IMPL_VERSION: &str = env!("CARGO_PKG_VERSION");

/// The other half: a client of an agent registry, and the models it speaks of.
pub mod registry {
    pub use arcp_registry::client::*;
    pub use arcp_registry::model;
    pub use arcp_registry::server;
}
