//! A store that lives as long as its process.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use arcp_proto::machine::frame::Record;
use arcp_proto::machine::kept::{Kept, StoreOp};
use rustc_hash::FxHashMap;

use crate::{Store, StoreError, StoreSink};

/// How much of one job is kept; beyond it the oldest records go.
#[derive(Clone, Copy, Debug)]
pub struct PerJobCap {
    /// Records, 100 000 by default.
    pub records: usize,
    /// Bytes, 64 MiB by default.
    pub bytes: usize,
}

impl Default for PerJobCap {
    fn default() -> Self {
        PerJobCap { records: 100_000, bytes: 64 << 20 }
    }
}

/// Records in memory, bounded per job.
#[derive(Debug, Default)]
pub struct MemoryStore {
    cap: PerJobCap,
    jobs: Mutex<FxHashMap<Arc<str>, JobRecords>>,
}

#[derive(Debug, Default)]
struct JobRecords {
    records: VecDeque<Arc<Record>>,
    bytes: usize,
}

impl MemoryStore {
    /// A store with this bound.
    pub fn new(cap: PerJobCap) -> Self {
        MemoryStore { cap, jobs: Mutex::default() }
    }
}

impl Store for MemoryStore {
    fn is_durable(&self) -> bool {
        false
    }

    fn open(&self, _sink: Arc<dyn StoreSink>) -> Result<Kept, StoreError> {
        Ok(Kept::default())
    }

    fn apply(&self, _ticket: u64, op: StoreOp) {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        match op {
            StoreOp::Append(record) => {
                let kept = match jobs.get_mut(&record.job_id) {
                    Some(kept) => kept,
                    None => jobs.entry(Arc::clone(&record.job_id)).or_default(),
                };
                kept.bytes += record.cost();
                kept.records.push_back(record);
                while kept.records.len() > self.cap.records || kept.bytes > self.cap.bytes {
                    let Some(oldest) = kept.records.pop_front() else { break };
                    kept.bytes -= oldest.cost();
                }
            }
            StoreOp::ForgetJob(job_id) => {
                jobs.remove(&job_id);
            }
            // The machine itself holds everything else while the process lives.
            _ => {}
        }
    }

    fn history(&self, _request: u64, job_id: &Arc<str>, after_source_seq: u64) -> Option<Vec<Arc<Record>>> {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let records = jobs.get(job_id).map(|kept| kept.records.iter());
        let after = |record: &&Arc<Record>| after_source_seq == 0 || record.source_seq > after_source_seq;
        Some(records.into_iter().flatten().filter(after).cloned().collect())
    }

    fn close(&self) {}
}

#[cfg(test)]
mod tests {
    use arcp_proto::machine::frame::RecordKind;
    use arcp_proto::time::Timestamp;

    use super::*;

    fn record(seq: u64) -> Arc<Record> {
        Arc::new(Record {
            job_id: "job_1".into(),
            trace_id: "".into(),
            kind: RecordKind::Event,
            job_seq: seq,
            source_seq: seq * 2,
            at: Timestamp(0),
            feature: None,
            payload: bytes::Bytes::from_static(b"{}"),
        })
    }

    #[test]
    fn history_starts_behind_the_given_number_and_keeps_the_newest() {
        let store = MemoryStore::new(PerJobCap { records: 3, bytes: usize::MAX });
        for seq in 1..=5 {
            store.apply(seq, StoreOp::Append(record(seq)));
        }
        let kept = |after| {
            store
                .history(0, &"job_1".into(), after)
                .unwrap_or_default()
                .iter()
                .map(|record| record.job_seq)
                .collect::<Vec<_>>()
        };
        assert_eq!(kept(0), [3, 4, 5]);
        assert_eq!(kept(8), [5]);
        store.apply(6, StoreOp::ForgetJob("job_1".into()));
        assert_eq!(kept(0), [] as [u64; 0]);
    }
}
