//! What runs: transports, [`Client`] and [`Runtime`] of the Agent Runtime Control Protocol, over the machines of
//! `arcp-proto`.

mod accept;
mod agent;
mod asked_policy;
mod audit;
mod client;
mod clock;
mod connection;
mod context;
mod delegation;
mod error;
mod events;
mod host;
mod hosted;
mod job;
mod link;
pub mod metrics;
mod mirror;
mod monitor;
mod notes;
pub mod provision;
mod result_writer;
mod runtime;
mod server;
mod session;
mod span;
mod store_link;
mod submitting;
mod token;
pub mod transport;
mod verifier;

/// What a runtime keeps, and where.
pub use arcp_store as store;

pub use agent::{Agent, AgentFuture};
pub use asked_policy::{AskedPolicy, DecideFuture};
pub use audit::{AuditFile, AuditLog, AuditSink, MAX_WAITING as MAX_WAITING_AUDIT_ENTRIES};
pub use client::Client;
pub use context::{JobContext, SessionView};
pub use delegation::{ChildHandle, Delegate};
pub use error::{Error, TransportError};
pub use events::{Ended, EventQueue};
pub use hosted::{HostedAgent, HostedJob};
pub use job::{JobHandle, Subscription};
pub use mirror::{Mirror, Mirrored};
pub use monitor::{Monitor, Observed};
pub use result_writer::{ResultData, ResultWriter, Written};
pub use runtime::Runtime;
pub use server::{ListenOptions, Listener};
pub use session::ConnectionState;
pub use submitting::{PendingSubmit, ResultWait, SubmitCall, SubmitTrace, Told};
pub use token::{Token, TokenSource};
pub use verifier::{
    ChainVerifier, JwksOptions, JwtKey, JwtOptions, JwtVerifier, StaticBearerVerifier, Verifier, VerifierError,
    VerifyFuture,
};
