//! What a runtime notes about itself beside its work: audit entries, totals, commit times, and whether it takes work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arcp_proto::Error;
use arcp_proto::machine::audit::AuditEntry;
use arcp_proto::machine::session::Identity;
use arcp_proto::machine::stats::{RuntimeStats, Totals};
use arcp_proto::message::JobStatus;
use arcp_proto::time::Timestamp;
use parking_lot::{Mutex, RwLock};

use crate::audit::AuditSink;
use crate::metrics::{CommitHistogram, CommitTimes};

#[derive(Default)]
pub(crate) struct Notes {
    audit: RwLock<Option<Arc<dyn AuditSink>>>,
    totals: Mutex<Totals>,
    commits: CommitTimes,
    /// Why the store keeps nothing, while it does not.
    store_fault: Mutex<Option<String>>,
    stopping: AtomicBool,
}

impl Notes {
    pub(crate) fn set_audit(&self, sink: Arc<dyn AuditSink>) {
        *self.audit.write() = Some(sink);
    }

    /// Counts and hands on one entry. To be called without the machine's lock.
    pub(crate) fn audit(&self, entry: &AuditEntry) {
        self.totals.lock().count_audited(entry);
        let sink = self.audit.read().clone();
        if let Some(sink) = sink {
            sink.record(entry);
        }
    }

    /// What the verifier said about a token.
    pub(crate) fn verified(&self, at: Timestamp, verdict: &Result<Identity, Error>) {
        self.audit(&match verdict {
            Ok(identity) => AuditEntry::authenticated(at, &identity.principal),
            Err(error) => AuditEntry::authentication_refused(at, &error.code),
        });
    }

    pub(crate) fn job_ended(&self, status: JobStatus) {
        self.totals.lock().count_ended(status);
    }

    /// Must come before the store can answer.
    pub(crate) fn applied(&self, ticket: u64, mono: Duration) {
        self.commits.applied(ticket, mono);
    }

    pub(crate) fn stored(&self, ticket: u64, mono: Duration, outcome: &Result<(), String>) {
        if outcome.is_ok() {
            self.commits.stored(ticket, mono);
        }
        *self.store_fault.lock() = outcome.clone().err();
    }

    pub(crate) fn stopping(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    pub(crate) fn ready(&self) -> Result<(), String> {
        if self.stopping.load(Ordering::Acquire) {
            return Err("the runtime is stopping".into());
        }
        self.store_fault.lock().as_ref().map_or(Ok(()), |fault| Err(format!("events cannot be stored: {fault}")))
    }

    pub(crate) fn commits(&self) -> CommitHistogram {
        self.commits.histogram()
    }

    /// Adds what was noted here.
    pub(crate) fn fill(&self, stats: RuntimeStats) -> RuntimeStats {
        let commits = self.commits();
        let mut totals = self.totals.lock().clone();
        totals.events_emitted = stats.totals.events_emitted;
        totals.idempotency_repeats = stats.totals.idempotency_repeats;
        RuntimeStats { totals, store_commits: commits.count(), store_commit_seconds: commits.seconds(), ..stats }
    }
}
