//! What the agent registry remembers: the trait its stores answer to, and the stores behind it.

mod completion;
mod memory;
mod sqlite;

use std::sync::Arc;

use crate::StoreError;

pub use completion::{Completion, NotKept, Promise};
pub use memory::MemoryRegistryStore;
pub use sqlite::{RegistrySqliteOptions, SqliteRegistryStore};

/// Microseconds since 1970, of the wall clock.
pub type Micros = i64;

/// Keeps agents, and what the registry's server needs to go on where it stopped.
///
/// A store has one owner at a time. Opening it raises its epoch; with a backend that several processes share, what an
/// earlier owner still submits is refused.
pub trait RegistryStore: Send + Sync + 'static {
    /// Whether it outlives the process.
    fn is_durable(&self) -> bool;

    /// Takes possession, and gives back what an earlier process kept. Called once, before anything else.
    ///
    /// # Errors
    /// When it belongs to another process, is newer than this program, or cannot be read.
    fn open(&self) -> Result<RegistryKept, StoreError>;

    /// Carries out operations that belong together: all of them or none. They happen in the order in which they are
    /// submitted. Does not block; the completion tells when they are kept, or why they are not, and then they never
    /// will be.
    fn submit(&self, ops: Vec<RegistryOp>) -> Completion;

    /// What it did so far, and how full it is.
    fn stats(&self) -> RegistryStoreStats;

    /// Waits until everything submitted is kept, and lets go of the store. Blocks; what follows is refused.
    fn close(&self);
}

/// What a store did since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegistryStoreStats {
    /// Transactions committed.
    pub commits: u64,
    /// Operations in them.
    pub operations: u64,
    /// Transactions that failed.
    pub failures: u64,
    /// Operations that wait to be kept.
    pub waiting: usize,
    /// Whether the last transaction failed: what is submitted is being refused.
    pub failing: bool,
    /// Bytes used, as far as known.
    pub used_bytes: u64,
    /// Bytes it may use.
    pub quota_bytes: Option<u64>,
}

/// One thing to be kept.
#[derive(Clone, Debug, PartialEq)]
pub enum RegistryOp {
    /// An agent registered. Whatever else had its id goes, and whoever else had its key has none any more.
    PutAgent(KeptAgent),
    /// The agent of this key goes, with its metrics.
    RemoveAgent {
        /// [`KeptAgent::key`].
        key: u64,
    },
    /// Metrics of an agent, as JSON; nothing happens when the agent is gone.
    PutMetrics {
        /// [`KeptAgent::key`].
        key: u64,
        /// JSON.
        metrics: String,
    },
    /// When agents were last heard of, and what time it was then; those that are gone are passed over.
    LastSeen {
        /// [`KeptAgent::key`] and the time.
        seen: Vec<(u64, Micros)>,
        /// The time of the registry, from which their age counts after a restart.
        now: Micros,
    },
    /// A temporary token was used.
    UseToken {
        /// What tells it from others.
        token_id: Arc<str>,
        /// Until when to remember it.
        expires_at: Micros,
    },
    /// Used tokens that expired before this time are forgotten.
    ForgetTokens {
        /// The time.
        before: Micros,
    },
    /// A session of an administrator.
    PutSession(KeptSession),
    /// It is over.
    RemoveSession {
        /// Its id.
        id: String,
    },
    /// An account.
    PutUser(KeptUser),
    /// It is gone.
    RemoveUser {
        /// Its name.
        name: String,
    },
    /// A setting, as JSON.
    PutSetting {
        /// Its name.
        name: String,
        /// JSON.
        value: String,
    },
    /// A secret the server made for itself.
    PutSecret {
        /// Its name.
        name: String,
        /// The secret.
        value: Vec<u8>,
    },
    /// A line for a journal.
    Append {
        /// Which.
        journal: Journal,
        /// The line.
        line: KeptLine,
        /// Lines of it kept at most; the oldest go.
        most: usize,
    },
    /// Everything in a journal is forgotten.
    Clear {
        /// Which.
        journal: Journal,
    },
}

/// What grows at one end and is cut at the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Journal {
    /// What the dashboard shows as logs.
    Logs,
    /// What it shows as alerts.
    Alerts,
}

/// An agent as kept.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptAgent {
    /// Counts registrations; of two agents, who registered later has the greater one. None is used twice.
    pub key: u64,
    /// The agent's id.
    pub agent_id: Arc<str>,
    /// What it registered with, as JSON.
    pub registration: String,
    /// When.
    pub registered_at: Micros,
    /// When it was last heard of.
    pub last_seen: Micros,
    /// SHA-256 of the key it registered with, as text.
    pub key_hash: Option<Arc<str>>,
    /// Its metrics, as JSON.
    pub metrics: Option<String>,
}

/// An administrator's session as kept; without its token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptSession {
    /// What names it: no token, a hash at most.
    pub id: String,
    /// JSON.
    pub data: String,
    /// When it is over; it is not given back after that.
    pub expires_at: Micros,
}

/// An account as kept.
#[derive(Clone, PartialEq, Eq)]
pub struct KeptUser {
    /// The name to log in with.
    pub name: String,
    /// `admin` or `user`.
    pub role: String,
    /// An argon2 hash in its text form.
    pub password_hash: String,
}

impl std::fmt::Debug for KeptUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeptUser").field("name", &self.name).field("role", &self.role).finish_non_exhaustive()
    }
}

/// A line of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptLine {
    /// When.
    pub at: Micros,
    /// JSON.
    pub data: String,
}

/// What a store gives back when it is opened.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RegistryKept {
    /// Rises with every owner.
    pub epoch: u64,
    /// Agents by rising key.
    pub agents: Vec<KeptAgent>,
    /// The greatest key ever used.
    pub last_key: u64,
    /// The latest time the registry is known to have run.
    pub last_run: Micros,
    /// Used temporary tokens, and until when to remember them.
    pub tokens: Vec<(Arc<str>, Micros)>,
    /// Sessions.
    pub sessions: Vec<KeptSession>,
    /// Accounts.
    pub users: Vec<KeptUser>,
    /// Settings by name, as JSON.
    pub settings: Vec<(String, String)>,
    /// Secrets by name.
    pub secrets: Vec<Secret>,
    /// Oldest first.
    pub logs: Vec<KeptLine>,
    /// Oldest first.
    pub alerts: Vec<KeptLine>,
}

/// A secret as kept; its value is in no message.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    /// Its name.
    pub name: String,
    /// The secret.
    pub value: Vec<u8>,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secret").field("name", &self.name).finish_non_exhaustive()
    }
}
