//! The registry's server: HTTP, WebSockets, tokens, limits.

pub mod auth;
pub mod config;
pub mod dashboard;
pub mod metrics;
pub mod socket;
