//! The three WebSockets over real connections (contract section C).

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a failed step is a failed test; figures are shown"
)]

mod agents;
mod crowd;
mod dashboard;
mod public;
mod settings;
mod support;
