//! What the Agent Runtime Control Protocol v1.1 says and decides, without sockets, threads, clocks or randomness.
//!
//! Rules are cited as `R-…` (the protocol's contract) and `D-…` (the project's decisions).

pub mod agent_ref;
pub mod budget;
pub mod decimal;
pub mod envelope;
pub mod error;
pub mod event;
pub mod feature;
pub mod id;
pub mod json;
pub mod lease;
pub mod machine;
pub mod message;
pub mod time;
pub mod trace;

pub use error::{Error, ErrorCode};

/// The version this implementation speaks, as `arcp --version` and every envelope show it.
pub const PROTOCOL_VERSION: &str = "1.1";
