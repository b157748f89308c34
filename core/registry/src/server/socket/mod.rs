//! The three WebSockets (contract section C): what each does is decided by a machine without a socket or a clock, and
//! driven by one loop. A list goes out as one shared frame, however many sockets take it; a socket that has not taken the
//! last list gets only the newest, and one that takes nothing is dropped.

mod agents;
mod dashboard;
mod frame;
mod gate;
mod handshake;
mod message;
mod pace;
mod places;
mod public;
mod wire;

pub use frame::SharedFrame;
pub use gate::{Gate, Identity, Role};

use std::time::Duration;

use super::config::SocketSettings;

/// The limits of all three kinds (REG-504).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `/public/ws`.
    pub public: SocketSettings,
    /// `/agents/ws`.
    pub agents: SocketSettings,
    /// `/dashboard/ws`.
    pub dashboard: SocketSettings,
}

impl Default for Limits {
    fn default() -> Self {
        let limits = |interval, max_connections| SocketSettings {
            interval: Duration::from_secs(interval),
            timeout: Duration::from_secs(30),
            ping_interval: Duration::from_secs(30),
            max_connections,
        };
        Limits { public: limits(30, 100), agents: limits(5, 100), dashboard: limits(5, 5) }
    }
}
