//! How a runtime fares, in numbers: what is there now, and what has happened since it began.

use super::audit::{AuditAction, AuditEntry, ResumeRefusal};
use crate::message::JobStatus;

/// One look at a runtime.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuntimeStats {
    /// Sessions with a connection.
    pub sessions_connected: u64,
    /// Sessions that wait to be resumed.
    pub sessions_detached: u64,
    /// Jobs that wait for a slot.
    pub jobs_pending: u64,
    /// Jobs whose agent runs.
    pub jobs_running: u64,
    /// Sessions that follow a job, once per job.
    pub subscriptions: u64,
    /// Frames that wait for their connections.
    pub frames_queued: u64,
    /// What those frames weigh, in bytes.
    pub bytes_queued: u64,
    /// Operations the store has not kept yet.
    pub unstored_ops: u64,
    /// Credentials that must be revoked some day.
    pub credentials_outstanding: u64,
    /// What has happened.
    pub totals: Totals,
    /// Waits for a commit that were timed; a part of all operations (filled by the engine).
    pub store_commits: u64,
    /// How long those waits were together (filled by the engine).
    pub store_commit_seconds: f64,
}

/// What has happened since the runtime began. The machine counts where it decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Events of agents that were numbered, terminals included.
    pub events_emitted: u64,
    /// Submits that met an earlier job under their key.
    pub idempotency_repeats: u64,
    /// Tokens that were refused or could not be verified.
    pub authentication_failures: u64,
    /// Sessions that were resumed.
    pub resumes_accepted: u64,
    /// Jobs that ended in `success`, `error`, `cancelled`, `timed_out`, in this order.
    ended: [u64; 4],
    /// By [`ResumeRefusal::index`].
    resumes_refused: [u64; 5],
}

/// The states a job ends in, in the order they are counted.
pub const FINAL: [JobStatus; 4] = [JobStatus::Success, JobStatus::Error, JobStatus::Cancelled, JobStatus::TimedOut];

impl Totals {
    /// Counts a job's end; a state that is none counts nothing.
    pub fn count_ended(&mut self, status: JobStatus) {
        if let Some(at) = FINAL.iter().position(|known| *known == status) {
            self.ended[at] += 1;
        }
    }

    /// Counts what an audit entry tells of: resumes and refused tokens.
    pub fn count_audited(&mut self, entry: &AuditEntry) {
        match (entry.action(), entry.is_allowed()) {
            (AuditAction::Authenticate, false) => self.authentication_failures += 1,
            (AuditAction::Resume, true) => self.resumes_accepted += 1,
            (AuditAction::Resume, false) => {
                let refused = ResumeRefusal::ALL.iter().position(|why| entry.reason() == Some(why.as_str()));
                if let Some(at) = refused {
                    self.resumes_refused[at] += 1;
                }
            }
            _ => {}
        }
    }

    /// Jobs that ended this way; 0 for a state that is no end.
    pub fn ended(&self, status: JobStatus) -> u64 {
        FINAL.iter().position(|known| *known == status).map_or(0, |at| self.ended[at])
    }

    /// Resumes that were refused for this reason.
    pub fn resumes_refused(&self, why: ResumeRefusal) -> u64 {
        self.resumes_refused[why.index()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;
    use crate::machine::audit::Actor;
    use crate::time::Timestamp;

    #[test]
    fn ends_and_audited_outcomes_are_counted_apart() {
        let (mut totals, at) = (Totals::default(), Timestamp(0));
        let me = Actor { principal: "me", session_id: "sess_1" };
        for status in [JobStatus::Success, JobStatus::TimedOut, JobStatus::Success, JobStatus::Running] {
            totals.count_ended(status);
        }
        for entry in [
            AuditEntry::resumed(at, me),
            AuditEntry::resume_refused(at, me, ResumeRefusal::NotCovered),
            AuditEntry::resume_refused(at, me, ResumeRefusal::NotCovered),
            AuditEntry::authenticated(at, "me"),
            AuditEntry::authentication_refused(at, &ErrorCode::Unauthenticated),
            AuditEntry::cancelled(at, me, "job_1", "me"),
        ] {
            totals.count_audited(&entry);
        }
        assert_eq!(FINAL.map(|status| totals.ended(status)), [2, 0, 0, 1]);
        assert_eq!(ResumeRefusal::ALL.map(|why| totals.resumes_refused(why)), [0, 0, 0, 2, 0]);
        assert_eq!(
            (totals.resumes_accepted, totals.authentication_failures, totals.ended(JobStatus::Pending)),
            (1, 1, 0)
        );
    }
}
