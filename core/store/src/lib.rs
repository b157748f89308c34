//! What ARCP remembers: the traits a store answers to, and the stores behind them.

mod memory;

use std::sync::Arc;

use arcp_proto::machine::frame::Record;
use arcp_proto::machine::runtime::StoreOp;

pub use memory::{MemoryStore, PerJobCap};

/// Keeps the records of jobs.
///
/// Operations arrive in the order they were decided, from under the runtime's lock: `apply` must not block. A store
/// that commits later says so through the runtime's `handle_stored`.
pub trait Store: Send + Sync + 'static {
    /// Carries out one operation.
    fn apply(&self, op: StoreOp);

    /// Kept records of a job whose `source_seq` is greater than `after_source_seq`, in order; 0 means all.
    fn history(&self, job_id: &str, after_source_seq: u64) -> Vec<Arc<Record>>;
}
