//! How the registry works.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::directory::Moment;

/// Types an agent may have unless said otherwise (D-38).
pub const DEFAULT_TYPES: [&str; 5] = ["security", "monitoring", "automation", "networking", "testing"];

/// How a [`Service`](super::Service) works.
#[derive(Clone, Debug)]
pub struct ServiceConfig {
    /// Types an agent may register with, compared without case; [`DEFAULT_TYPES`].
    pub allowed_types: Vec<String>,
    /// An agent not heard of for this long is dead; 60 seconds.
    pub heartbeat_timeout: Duration,
    /// How often agents that were silent for too long are looked for; 60 seconds.
    pub cleanup_interval: Duration,
    /// Agents at most; a million.
    pub max_agents: usize,
    /// The zone times are told in; UTC.
    pub zone: TimeZone,
    /// Changes that wait for a slow watcher at most; 1024. One that falls behind further misses the oldest and is told so.
    pub change_backlog: usize,
}

impl Default for ServiceConfig {
    fn default() -> Self {
        ServiceConfig {
            allowed_types: DEFAULT_TYPES.iter().map(|name| (*name).to_owned()).collect(),
            heartbeat_timeout: Duration::from_secs(60),
            cleanup_interval: Duration::from_secs(60),
            max_agents: 1_000_000,
            zone: TimeZone::UTC,
            change_backlog: 1024,
        }
    }
}

/// Tells the time.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn now(&self) -> Moment;
}

/// The system's clocks.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        SystemClock { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Moment {
        Moment { mono: self.start.elapsed(), wall: Timestamp::now() }
    }
}
