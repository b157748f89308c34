//! What sockets read of the agents.

use std::collections::BTreeMap;

use crate::server::dashboard::{Embedding, Storage};

/// How many agents there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Alive agents.
    pub alive: usize,
    /// Silent ones that are still registered.
    pub dead: usize,
    /// Agents, alive and dead, by type.
    pub types: BTreeMap<String, usize>,
}

/// What agents say of their work, taken together (REG-343).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// The sum.
    pub total_requests: u64,
    /// The mean, in seconds.
    pub avg_response_time: f64,
    /// The mean, 0 to 1.
    pub error_rate: f64,
}

/// How times are written (REG-203).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// `2026-11-20 15:35:10.945067`, in messages of the public and the agent socket.
    Blank,
    /// `2026-11-20T15:35:10.945067`, in messages of the dashboard.
    Iso,
}

/// The agents, as sockets show them. Each call sees one moment; lists are in order of registration, with metrics and
/// without fields that are null.
pub trait Registry: Send + Sync + 'static {
    /// Another number after every registration, unregistration, change of status and removal.
    fn revision(&self) -> u64;
    /// How many there are.
    fn counts(&self) -> Counts;
    /// What they say of their work.
    fn work(&self) -> Work;
    /// Appends the JSON array of alive agents; gives their number.
    fn write_alive(&self, out: &mut Vec<u8>) -> usize;
    /// Appends the JSON array of all agents; gives their number.
    fn write_all(&self, times: Times, out: &mut Vec<u8>) -> usize;
    /// Appends the JSON array of some alive agents of a type; gives how many there are of it.
    fn write_page(&self, agent_type: Option<&str>, offset: u64, limit: u64, out: &mut Vec<u8>) -> u64;
    /// Appends the JSON array of all metrics, times as [`Times::Iso`].
    fn write_metrics(&self, out: &mut Vec<u8>);
    /// How the store is.
    fn storage(&self) -> Storage;
    /// How the embedder is.
    fn embedding(&self) -> Embedding;
}
