//! What runs: transports, [`Client`] and [`Runtime`] of the Agent Runtime Control Protocol, over the machines of
//! `arcp-proto`.

mod agent;
mod client;
mod clock;
mod connection;
mod context;
mod error;
mod events;
mod job;
pub mod provision;
mod runtime;
mod server;
pub mod transport;
mod verifier;

/// What a runtime keeps, and where.
pub use arcp_store as store;

pub use agent::{Agent, AgentFuture};
pub use client::Client;
pub use context::JobContext;
pub use error::{Error, TransportError};
pub use events::{Ended, EventQueue};
pub use job::{JobHandle, Subscription};
pub use runtime::Runtime;
pub use server::{ListenOptions, Listener};
pub use verifier::{
    ChainVerifier, JwksOptions, JwtKey, JwtOptions, JwtVerifier, StaticBearerVerifier, Verifier, VerifierError,
    VerifyFuture,
};
