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
mod link;
mod runtime;
mod server;
mod token;
pub mod transport;
mod verifier;

pub use agent::{Agent, AgentFuture};
pub use client::{Client, ConnectionState};
pub use context::JobContext;
pub use error::{Error, TransportError};
pub use events::{Ended, EventQueue};
pub use job::{JobHandle, Subscription};
pub use runtime::Runtime;
pub use server::{ListenOptions, Listener};
pub use token::{Token, TokenSource};
pub use verifier::{StaticBearerVerifier, Verifier, VerifyFuture};
