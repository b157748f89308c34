//! The registry's server: HTTP, WebSockets, tokens, limits.

pub mod config;
