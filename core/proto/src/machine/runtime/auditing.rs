//! What the machine tells the audit log; the host verifies tokens and notes that itself.

use std::sync::Arc;

use super::{JobKey, RuntimeEvent, RuntimeMachine, SessionKey};
use crate::error::Error;
use crate::lease::target::{Kind, normalize_target};
use crate::machine::audit::{Actor, AuditEntry, SessionEnd};
use crate::machine::session::Session;
use crate::time::Now;

/// A request whose outcome is noted.
pub(super) enum Audited {
    Submit { agent: String },
    Subscribe { job_id: String },
    Cancel { job_id: String },
}

impl Session {
    fn actor(&self) -> Actor<'_> {
        Actor { principal: &self.principal, session_id: self.id() }
    }
}

impl RuntimeMachine {
    /// Notes accepted submits too, which are many.
    pub fn set_audited(&mut self, audited: bool) {
        self.audited = audited;
    }

    pub(super) fn audit(&mut self, entry: AuditEntry) {
        self.events.push_back(RuntimeEvent::Audit(entry));
    }

    /// What became of a request.
    pub(super) fn audit_request(&mut self, now: Now, key: SessionKey, what: &Audited, done: &Result<(), Error>) {
        let Some(session) = self.sessions.get(&key) else { return };
        let (at, actor) = (now.wall, session.actor());
        let owner = |job_id: &str| {
            let job = self.jobs_by_id.get(job_id).and_then(|key| self.jobs.get(key))?;
            Some(Arc::clone(&job.start.principal))
        };
        let entry = match (what, done) {
            (Audited::Submit { agent }, Err(error)) => AuditEntry::submit_refused(at, actor, agent, &error.code),
            // Noted where the job is made.
            (Audited::Submit { .. }, Ok(())) => return,
            (Audited::Subscribe { job_id }, Ok(())) => {
                AuditEntry::subscribed(at, actor, job_id, &owner(job_id).unwrap_or_default())
            }
            (Audited::Subscribe { job_id }, Err(error)) => {
                AuditEntry::subscribe_refused(at, actor, job_id, owner(job_id).as_deref(), &error.code)
            }
            (Audited::Cancel { job_id }, Ok(())) => {
                AuditEntry::cancelled(at, actor, job_id, &owner(job_id).unwrap_or_default())
            }
            (Audited::Cancel { job_id }, Err(error)) => {
                AuditEntry::cancel_refused(at, actor, job_id, owner(job_id).as_deref(), &error.code)
            }
        };
        self.audit(entry);
    }

    /// A job was accepted; `repeated` when its key led to an earlier one.
    pub(super) fn audit_accepted(&mut self, now: Now, key: SessionKey, job_id: &str, agent: &str, repeated: bool) {
        self.totals.idempotency_repeats += u64::from(repeated);
        if let Some(session) = self.sessions.get(&key).filter(|_| self.audited) {
            let entry = AuditEntry::submitted(now.wall, session.actor(), job_id, agent, repeated);
            self.audit(entry);
        }
    }

    /// Jobs of others were shown.
    pub(super) fn audit_listing(&mut self, now: Now, key: SessionKey, jobs: usize) {
        if let Some(session) = self.sessions.get(&key).filter(|_| jobs > 0) {
            let entry = AuditEntry::listed_across(now.wall, session.actor(), jobs);
            self.audit(entry);
        }
    }

    /// A lease did not cover an operation.
    pub(super) fn audit_operation(&mut self, now: Now, job: JobKey, namespace: &str, target: &str, error: &Error) {
        let Some(job) = self.jobs.get(&job) else { return };
        let actor = Actor { principal: &job.start.principal, session_id: &job.start.session_id };
        let normalised = Kind::of(namespace).and_then(|kind| normalize_target(kind, target).ok());
        let (job_id, target) = (&job.start.job_id, (namespace, normalised.as_deref().unwrap_or(target)));
        let entry = AuditEntry::operation_refused(now.wall, actor, job_id, target, &error.code);
        self.audit(entry);
    }

    /// The lease of a living job is over.
    pub(super) fn audit_expiry(&mut self, now: Now, job: JobKey) {
        let Some(job) = self.jobs.get(&job) else { return };
        let actor = Actor { principal: &job.start.principal, session_id: &job.start.session_id };
        let entry = AuditEntry::lease_expired(now.wall, actor, &job.start.job_id);
        self.audit(entry);
    }

    pub(super) fn audit_session_end(&mut self, now: Now, key: SessionKey, why: SessionEnd) {
        if let Some(session) = self.sessions.get(&key) {
            let entry = AuditEntry::session_ended(now.wall, session.actor(), why);
            self.audit(entry);
        }
    }
}
