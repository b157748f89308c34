//! A store that ends with the process.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Completion, RegistryKept, RegistryOp, RegistryStore, RegistryStoreStats};
use crate::StoreError;

/// Keeps nothing: what there is, the registry has in memory.
#[derive(Debug, Default)]
pub struct MemoryRegistryStore {
    operations: AtomicU64,
}

impl MemoryRegistryStore {
    /// A new one.
    pub fn new() -> MemoryRegistryStore {
        MemoryRegistryStore::default()
    }
}

impl RegistryStore for MemoryRegistryStore {
    fn is_durable(&self) -> bool {
        false
    }

    fn open(&self) -> Result<RegistryKept, StoreError> {
        Ok(RegistryKept { epoch: 1, ..RegistryKept::default() })
    }

    fn submit(&self, ops: Vec<RegistryOp>) -> Completion {
        self.operations.fetch_add(ops.len() as u64, Ordering::Relaxed);
        Completion::ready(Ok(()))
    }

    fn stats(&self) -> RegistryStoreStats {
        let operations = self.operations.load(Ordering::Relaxed);
        RegistryStoreStats { operations, ..RegistryStoreStats::default() }
    }

    fn close(&self) {}
}
