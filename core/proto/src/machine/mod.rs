//! The session machines of both sides: whole lives decided without a socket, a thread, a clock or randomness.
//!
//! On the runtime side three machines work together, because no session can decide alone: the [`job`] (its gap-free
//! history, state, lease and budget), the [`session`] (numbers what its receiver sees) and the [`runtime`] (agents,
//! idempotency, caps, routing), which owns the other two. On the client side there is one, [`client`].
//!
//! A host feeds `handle_…`, `connected`, `disconnected` and the user's intents, then drains `poll_transmit`,
//! `poll_event` and `poll_store`, and asks `poll_timeout` when to come back.

pub mod audit;
pub mod client;
pub mod frame;
mod heartbeat;
pub mod job;
pub mod kept;
pub mod policy;
pub mod provision;
pub mod result_stream;
pub mod runtime;
pub mod session;
pub mod stats;
mod timers;

pub use client::ClientMachine;
pub use runtime::RuntimeMachine;
