//! The three WebSockets over real connections (contract section C).

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "tests")]

mod agents;
mod crowd;
mod dashboard;
mod public;
mod settings;
mod support;
