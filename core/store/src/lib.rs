//! What ARCP remembers: the traits a store answers to, and the stores behind them.

mod memory;
pub mod registry;
pub mod seal;
pub mod sqlite;

use std::sync::Arc;

use arcp_proto::machine::frame::Record;
use arcp_proto::machine::kept::{Kept, StoreOp};

pub use memory::{MemoryStore, PerJobCap};
pub use registry::{MemoryRegistryStore, RegistrySqliteOptions, RegistryStore, SqliteRegistryStore};
pub use seal::{AesGcmSealer, SealError, Sealer};
pub use sqlite::{SqliteOptions, SqliteStore, Synchronous};

/// Why a store cannot be opened: one sentence with the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StoreError(pub String);

/// Keeps sessions, jobs, records, idempotency keys and outstanding credentials for one runtime.
///
/// A store has one owner at a time. Opening it raises its epoch; with a backend that several processes share, what an
/// earlier owner still writes is refused and that owner is told through [`StoreSink::taken_over`].
pub trait Store: Send + Sync + 'static {
    /// Whether it outlives the process. The runtime then sends nothing before [`StoreSink::stored`] names it (D-18).
    fn is_durable(&self) -> bool;

    /// Takes possession, and gives back what an earlier process kept. Called once, before anything else. Answers that
    /// come later go to `sink`.
    ///
    /// # Errors
    /// When it belongs to another process, is newer than this program, or cannot be read.
    fn open(&self, sink: Arc<dyn StoreSink>) -> Result<Kept, StoreError>;

    /// Carries out one operation. Operations arrive in the order they were decided, numbered from 1 without gaps, from
    /// under the runtime's lock: this must neither block nor call the sink.
    fn apply(&self, ticket: u64, op: StoreOp);

    /// Carries out several operations that belong together, such as a record and its numbers: a store that outlives the
    /// process keeps all of them or none. `ops` is drained; it must not use the store.
    fn apply_all(&self, ops: &mut dyn Iterator<Item = (u64, StoreOp)>) {
        for (ticket, op) in ops {
            self.apply(ticket, op);
        }
    }

    /// Kept records of a job whose `source_seq` is greater than `after_source_seq`, in order; 0 means all. Holds
    /// everything applied before. `None` when the answer comes through [`StoreSink::history`] with this number. Must
    /// neither block nor call the sink.
    fn history(&self, request: u64, job_id: &Arc<str>, after_source_seq: u64) -> Option<Vec<Arc<Record>>>;

    /// Waits until everything applied is kept, and lets go of the store. Blocks; nothing may follow.
    fn close(&self);
}

/// Where a store's answers go; called from the store's own threads.
pub trait StoreSink: Send + Sync + 'static {
    /// Every operation up to this ticket is kept; or none is for now, and why. A store that failed tries again by itself
    /// and tells when it succeeds.
    fn stored(&self, ticket: u64, outcome: Result<(), String>);

    /// The answer to [`Store::history`].
    fn history(&self, request: u64, records: Vec<Arc<Record>>);

    /// Another owner has taken the store: this one must stop.
    fn taken_over(&self);
}
