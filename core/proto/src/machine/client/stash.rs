//! Events of jobs nobody knows yet: after a resume they may come before the answer that names their job (D-17, D-24).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use super::JobEvent;
use crate::error::Error;
use crate::event::ResultChunk;
use crate::message::JobResult;

/// No more events are held back, whatever their size.
const MAX_EVENTS: usize = 10_000;
/// Bytes; no more are held back, whatever their number.
const MAX_BYTES: usize = 64 << 20;

/// One thing that came for a job nobody knows yet.
#[derive(Debug)]
pub(super) enum Stashed {
    Event(JobEvent, Option<u64>, Option<ResultChunk>),
    End(Result<Box<JobResult>, Error>),
}

/// What came for one job.
#[derive(Debug, Default)]
pub(super) struct Share {
    pub(super) kept: Vec<Stashed>,
    bytes: usize,
    /// How many events found no room.
    pub(super) missed: u64,
}

#[derive(Debug, Default)]
pub(super) struct Stash {
    jobs: BTreeMap<Arc<str>, Share>,
    events: usize,
    bytes: usize,
}

impl Stash {
    /// Keeps one, if there is room. An end is kept even so, as long as the jobs themselves are within bounds.
    pub(super) fn keep(&mut self, job_id: &str, what: Stashed, bytes: usize) -> bool {
        let room = self.events < MAX_EVENTS && self.bytes + bytes <= MAX_BYTES;
        let jobs = self.jobs.len();
        let share = match self.jobs.entry(job_id.into()) {
            Entry::Vacant(_) if jobs >= MAX_EVENTS => return false,
            entry => entry.or_default(),
        };
        if !room {
            let Stashed::End(_) = what else {
                share.missed += 1;
                return false;
            };
            share.kept.push(Stashed::End(Err(Error::invalid(
                "the job ended before anybody asked for it, and too much waited to keep how; subscribe with history",
            ))));
            return true;
        }
        share.kept.push(what);
        share.bytes += bytes;
        self.events += 1;
        self.bytes += bytes;
        true
    }

    /// What was kept for this job.
    pub(super) fn take(&mut self, job_id: &str) -> Option<Share> {
        let share = self.jobs.remove(job_id)?;
        self.events = self.events.saturating_sub(share.kept.len());
        self.bytes = self.bytes.saturating_sub(share.bytes);
        Some(share)
    }

    /// The jobs something waits for.
    pub(super) fn jobs(&self) -> impl Iterator<Item = &Arc<str>> {
        self.jobs.keys()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Nobody will ask any more; the places of the events that were kept.
    pub(super) fn clear(&mut self) -> Vec<u64> {
        let jobs = std::mem::take(self).jobs;
        let kept = jobs.into_values().flat_map(|share| share.kept);
        kept.filter_map(|what| match what {
            Stashed::Event(event, ..) => Some(event.position),
            Stashed::End(_) => None,
        })
        .collect()
    }
}
