//! A store that does what it is told: at once, or only when the case says so (D-18).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use arcp_proto::machine::frame::Record;
use arcp_proto::machine::kept::{Kept, StoreOp};

use crate::Result;
use crate::disk::Disk;

#[derive(Default)]
pub(crate) struct Store {
    jobs: BTreeMap<Arc<str>, Vec<Arc<Record>>>,
    /// Tickets not answered yet, in order, and whether each is a record's.
    pub(crate) waiting: VecDeque<(u64, bool)>,
    forgotten: BTreeSet<Arc<str>>,
    last_ticket: u64,
    /// What was decided and not answered: lost when the process dies.
    unwritten: VecDeque<(u64, StoreOp)>,
    disk: Disk,
    /// How many records of a job its history still holds, the newest; all of them when `None`.
    history_cap: Option<u64>,
}

impl Store {
    pub(crate) fn with_history_cap(history_cap: Option<u64>) -> Self {
        Store { history_cap, ..Store::default() }
    }

    /// Keeps or forgets, and checks that the machine never asks for anything odd.
    pub(crate) fn take(&mut self, ticket: u64, op: StoreOp) -> Result<()> {
        if ticket != self.last_ticket + 1 {
            return Err(format!("ticket {ticket} follows {}", self.last_ticket));
        }
        self.last_ticket = ticket;
        self.waiting.push_back((ticket, matches!(op, StoreOp::Append(_))));
        match &op {
            StoreOp::Append(record) => {
                let kept = self.jobs.entry(Arc::clone(&record.job_id)).or_default();
                if record.job_seq != kept.len() as u64 + 1 {
                    return Err(format!("job_seq {} is kept after {} records", record.job_seq, kept.len()));
                }
                if kept.last().is_some_and(|last| last.kind.is_terminal()) {
                    return Err(format!("job_seq {} is kept after the terminal", record.job_seq));
                }
                kept.push(Arc::clone(record));
            }
            StoreOp::ForgetJob(job_id) => {
                self.jobs.remove(job_id);
                if !self.forgotten.insert(Arc::clone(job_id)) {
                    return Err(format!("{job_id} is forgotten twice"));
                }
            }
            _ => {}
        }
        self.unwritten.push_back((ticket, op));
        Ok(())
    }

    /// Everything up to this ticket is kept.
    pub(crate) fn write(&mut self, upto: u64) {
        self.waiting.retain(|(ticket, _)| *ticket > upto);
        while self.unwritten.front().is_some_and(|(ticket, _)| *ticket <= upto) {
            if let Some((_, op)) = self.unwritten.pop_front() {
                self.disk.write(op);
            }
        }
    }

    /// The process dies; the next one opens what was written.
    pub(crate) fn reopen(&mut self) -> Kept {
        let kept = self.disk.open();
        self.waiting.clear();
        self.unwritten.clear();
        self.last_ticket = 0;
        self.jobs = self.disk.records();
        kept
    }

    /// Credentials that are written and not forgotten, by id, with their handles.
    pub(crate) fn credentials(&self) -> Vec<(String, String)> {
        self.disk.credentials()
    }

    /// Everything that was decided or written, as text.
    pub(crate) fn shown(&self) -> String {
        format!("{:?}{:?}{}", self.jobs, self.unwritten, self.disk.shown())
    }

    pub(crate) fn last_waiting(&self) -> Option<u64> {
        self.waiting.back().map(|(ticket, _)| *ticket)
    }

    /// The last ticket before the record after the first `records`.
    pub(crate) fn through(&self, records: usize) -> Option<u64> {
        let mut met = 0;
        let mut through = None;
        for (ticket, is_record) in &self.waiting {
            met += usize::from(*is_record);
            if met > records {
                break;
            }
            through = Some(*ticket);
        }
        through.filter(|_| met >= records)
    }

    /// How many records the job has that has most of them.
    pub(crate) fn longest_history(&self) -> usize {
        self.jobs.values().map(Vec::len).max().unwrap_or(0)
    }

    /// A store reads through its own queue: what was handed to it before the question is in the answer.
    pub(crate) fn history(&self, job_id: &str, after_source_seq: u64) -> Vec<Arc<Record>> {
        let kept = self.jobs.get(job_id).map(Vec::as_slice).unwrap_or_default();
        let cap = self.history_cap.and_then(|cap| usize::try_from(cap).ok()).unwrap_or(usize::MAX);
        let kept = &kept[kept.len().saturating_sub(cap)..];
        kept.iter().filter(|record| after_source_seq == 0 || record.source_seq > after_source_seq).cloned().collect()
    }

    /// The highest `x-n` a job's kept events carry.
    pub(crate) fn last_n(&self, job_id: &str) -> u64 {
        let kept = self.jobs.get(job_id).map(Vec::as_slice).unwrap_or_default();
        let number = |record: &Arc<Record>| {
            let payload: serde_json::Value = serde_json::from_slice(&record.payload).ok()?;
            payload["body"]["x-n"].as_u64()
        };
        kept.iter().filter_map(number).max().unwrap_or(0)
    }

    pub(crate) fn kept(&self, job_id: &str) -> usize {
        self.jobs.get(job_id).map_or(0, Vec::len)
    }

    pub(crate) fn has_forgotten(&self, job_id: &str) -> bool {
        self.forgotten.contains(job_id)
    }
}
