//! Taking credentials back: tried again with growing pauses, then kept for operators (R-9.8.2.5, D-21).

use std::sync::Arc;
use std::time::Duration;

use super::super::{RuntimeEvent, RuntimeMachine, Timer};
use crate::error::Error;
use crate::json::RawJson;
use crate::machine::audit::AuditEntry;
use crate::machine::kept::{KeptCredential, StoreOp};
use crate::machine::provision::Revocation;
use crate::time::Now;

/// How often a revocation is tried.
const ATTEMPTS: u32 = 8;

/// The pause after the first failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// No pause is longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A value that may still work though its job is over.
#[derive(Debug)]
pub(super) struct Revoking {
    /// What its timer is called.
    number: u64,
    job_id: Arc<str>,
    /// Whose job; empty when that is not known any more.
    principal: Arc<str>,
    what: Revocation,
    attempts: u32,
    /// Why it was given up.
    failure: Option<String>,
}

/// A credential whose revocation was given up: somebody must see to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unrevoked {
    /// What the store calls it.
    pub id: String,
    /// The job it was issued for; empty when that is not known any more.
    pub job_id: Arc<str>,
    /// What the last attempt said.
    pub error: String,
}

impl RuntimeMachine {
    /// Asks for a revocation. The store knows of it already.
    pub(in super::super) fn revoke(&mut self, id: String, job_id: Arc<str>, what: Revocation) {
        if self.credentials.revoking.contains_key(&id) {
            return;
        }
        let number = self.fresh_key();
        self.credentials.numbers.insert(number, id.clone());
        let job = self.jobs_by_id.get(&job_id).and_then(|key| self.jobs.get(key));
        let principal = job.map(|job| Arc::clone(&job.start.principal)).unwrap_or_default();
        let entry = Revoking { number, job_id, principal, what, attempts: 0, failure: None };
        self.credentials.revoking.insert(id.clone(), entry);
        if self.config.provisions {
            self.ask_to_revoke(&id);
        } else {
            self.give_up(&id, "this runtime has no provisioner; start it with the one that issued this credential");
        }
    }

    fn ask_to_revoke(&mut self, id: &str) {
        if let Some(entry) = self.credentials.revoking.get(id) {
            self.events.push_back(RuntimeEvent::Revoke { id: id.to_owned(), what: entry.what.clone() });
        }
    }

    fn give_up(&mut self, id: &str, error: &str) {
        let Some(entry) = self.credentials.revoking.get_mut(id) else { return };
        entry.failure = Some(error.to_owned());
        let job_id = Arc::clone(&entry.job_id);
        self.events.push_back(RuntimeEvent::RevocationFailed(Unrevoked {
            id: id.to_owned(),
            job_id,
            error: error.to_owned(),
        }));
    }

    /// The pause after a failed attempt is over.
    pub(in super::super) fn revoke_again(&mut self, number: u64) {
        if let Some(id) = self.credentials.numbers.get(&number).cloned() {
            self.ask_to_revoke(&id);
        }
    }

    /// Whether a value was revoked. It is forgotten then, or tried again later: 8 times in all, after 0.1 s doubling up
    /// to 30 s, before it is left to operators.
    pub fn handle_revoked(&mut self, now: Now, id: &str, outcome: Result<(), Error>) {
        let Some(entry) = self.credentials.revoking.get_mut(id) else { return };
        let Err(error) = outcome else {
            let number = entry.number;
            let noted = AuditEntry::credential_revoked(now.wall, &entry.principal, &entry.job_id, id);
            self.timers.clear(Timer::Revoke(number));
            self.credentials.numbers.remove(&number);
            self.credentials.revoking.remove(id);
            self.storage.keep(StoreOp::ForgetCredential(id.to_owned()));
            self.audit(noted);
            return;
        };
        entry.attempts += 1;
        let attempt = entry.attempts;
        let noted = AuditEntry::revocation_failed(now.wall, &entry.principal, &entry.job_id, id, attempt);
        if entry.attempts >= ATTEMPTS {
            self.give_up(id, &error.message);
        } else {
            let pause = FIRST_PAUSE.saturating_mul(1 << (entry.attempts - 1)).min(LONGEST_PAUSE);
            self.timers.set(Timer::Revoke(entry.number), now.mono + pause);
        }
        self.audit(noted);
    }

    /// Credentials whose revocation was given up (R-9.8.2.5).
    pub fn unrevoked(&self) -> Vec<Unrevoked> {
        let given_up = |(id, entry): (&String, &Revoking)| {
            let (id, job_id) = (id.clone(), Arc::clone(&entry.job_id));
            entry.failure.clone().map(|error| Unrevoked { id, job_id, error })
        };
        self.credentials.revoking.iter().filter_map(given_up).collect()
    }

    /// Credentials that may still work though nobody should use them: given up, or being tried.
    pub fn outstanding_revocations(&self) -> usize {
        self.credentials.revoking.len()
    }

    /// Tries a revocation that was given up from the start; whether there is one of this id.
    pub fn retry_revocation(&mut self, id: &str) -> bool {
        let Some(entry) = self.credentials.revoking.get_mut(id).filter(|entry| entry.failure.is_some()) else {
            return false;
        };
        entry.failure = None;
        entry.attempts = 0;
        self.ask_to_revoke(id);
        true
    }

    /// What somebody else wrote down as issued and not revoked: by job and handle. What serves a job now, or is being
    /// revoked already, is left alone.
    pub fn revoke_outstanding(&mut self, now: Now, outstanding: Vec<(Arc<str>, RawJson)>) {
        for (job_id, handle) in outstanding {
            let what = Revocation::Handle(handle.clone());
            if self.serves(&handle) || self.credentials.revoking.values().any(|entry| entry.what == what) {
                continue;
            }
            let id = self.keep_credential(now, &job_id, handle);
            self.revoke(id, job_id, what);
        }
    }

    /// Nothing an earlier process issued may go on working (R-9.8.2.6).
    pub(in super::super) fn revoke_orphans(&mut self) {
        for KeptCredential { id, job_id, handle, .. } in std::mem::take(&mut self.credentials.orphans) {
            let what = if handle.is_null() { Revocation::Intent(id.clone()) } else { Revocation::Handle(handle) };
            self.revoke(id, job_id, what);
        }
    }
}
