//! The one language-neutral surface every binding translates.
//!
//! Shapes are plain: numbers, text, JSON text, and a few objects that are shared by reference. A host owns a [`Core`]
//! (the threads), and one [`Port`] per event loop. Calls that take time are given a number of the host's choosing and
//! complete as an [`Item`] of that port; agents to run, tokens to verify and logs arrive through the same port. The port
//! wakes its host once per empty-to-ready edge; the host drains a batch.

mod client;
mod core;
mod delegation;
mod error;
mod event_log;
mod functions;
mod host_request;
mod invocation;
mod job;
mod log;
mod options;
mod policy;
mod port;
mod provision;
mod registry;
mod registry_server;
mod registry_transport;
mod runtime;
mod transport;
mod verifier;

pub use crate::client::{Client, TokenChoice, TokenRequest};
pub use crate::core::Core;
pub use crate::error::{ErrorInfo, ErrorKind};
pub use crate::event_log::read_event_log;
pub use crate::functions::call_function;
pub use crate::host_request::{About, HostRequest};
pub use crate::invocation::{Invocation, VerifyRequest};
pub use crate::job::{JobView, NextBatch};
pub use crate::log::{LogLevel, LogRecord};
pub use crate::options::{
    AgentOptions, ClientOptions, ConnectOptions, JwtOptions, ListenOptions, ReconnectOptions, ReconnectWaits,
    RuntimeOptions,
};
pub use crate::port::{Item, Port, Value, Wake};
pub use crate::registry::{Registry, RegistrySocket, registry_check};
pub use crate::registry_server::RegistryServer;
pub use crate::runtime::{Runtime, VerifierChoice};
pub use crate::transport::{Frames, ListenerHandle, TransportHandle};
pub use crate::verifier::TokenVerifier;

pub use arcp::{Ending, IMPL_VERSION, Identity, JobEvent, PROTOCOL_VERSION, ResultData, Written};
