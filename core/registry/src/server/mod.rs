//! The registry's server: HTTP, WebSockets, tokens, limits.

pub mod auth;
pub mod config;
pub mod dashboard;
mod http;
pub mod metrics;
pub mod outbound;
pub mod socket;
