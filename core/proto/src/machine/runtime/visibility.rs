//! What a session may see and cancel of the jobs of others, and what its copies leave out (R-7.4, R-7.6, D-22, D-30).

use std::sync::Arc;

use super::{CancelPolicy, JobKey, RuntimeMachine, SessionKey};
use crate::error::{Error, ErrorCode};
use crate::machine::frame::Receiver;
use crate::machine::job::Job;
use crate::machine::kept::StoreOp;
use crate::machine::policy::{Decision, JobFacts, Policy};

impl Job {
    /// What a policy is told.
    pub(super) fn facts(&self) -> JobFacts<'_> {
        JobFacts {
            job_id: &self.start.job_id,
            principal: &self.start.principal,
            session_id: &self.start.session_id,
            agent: &self.start.agent,
            version: self.start.version.as_deref(),
            created_at: self.created_at,
        }
    }
}

impl RuntimeMachine {
    /// Replaces the policy, and ends what the new one does not allow.
    pub fn set_policy(&mut self, policy: Box<dyn Policy>) {
        self.policy = policy;
        self.index.open_to_others(&self.jobs);
        self.policy_changed();
    }

    /// The policy's answers may have changed: subscriptions it no longer allows end at once, without a word.
    /// What was numbered for a subscriber before this call still arrives, since its numbers have no gaps.
    pub fn policy_changed(&mut self) {
        let mut withdrawn = Vec::new();
        for (key, session) in &self.sessions {
            let lost = session.subscriptions.iter().copied().filter(|job| {
                let job = self.jobs.get(job);
                job.is_none_or(|job| self.observes(*key, &session.principal, job) != Decision::Allowed)
            });
            withdrawn.extend(lost.map(|job| (*key, job)));
        }
        // In an order that does not depend on hashing, since the store is told.
        withdrawn.sort();
        for (session, job) in withdrawn {
            self.unfollow(session, job);
        }
    }

    /// Ends a subscription, if there is one.
    pub(super) fn unfollow(&mut self, key: SessionKey, job_key: JobKey) {
        let mut job_id = None;
        if let Some(job) = self.jobs.get_mut(&job_key) {
            job.subscribers.retain(|subscriber| subscriber.session != key);
            job_id = Some(Arc::clone(&job.start.job_id));
        }
        if let Some(session) = self.sessions.get_mut(&key)
            && session.subscriptions.remove(&job_key)
            && let Some(job_id) = job_id
        {
            let session = Arc::clone(session.id());
            self.keep_durable(|| StoreOp::Unfollow { session, job_id });
        }
    }

    fn observes(&self, key: SessionKey, principal: &str, job: &Job) -> Decision {
        if job.session == Some(key) { Decision::Allowed } else { self.policy.may_observe(principal, &job.facts()) }
    }

    /// A job this session may observe. One that is hidden from it looks like one that does not exist.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` when it may only know that the job exists, `JOB_NOT_FOUND` otherwise.
    pub(super) fn visible_job(&self, key: SessionKey, job_id: &str) -> Result<JobKey, Error> {
        let found = self.jobs_by_id.get(job_id).and_then(|job_key| {
            let (session, job) = (self.sessions.get(&key)?, self.jobs.get(job_key)?);
            Some((*job_key, self.observes(key, &session.principal, job)))
        });
        match found {
            Some((job_key, Decision::Allowed)) => Ok(job_key),
            Some((_, Decision::Known)) => {
                let message = format!("job \"{job_id}\" is not yours to see; ask whoever runs this runtime");
                Err(Error::new(ErrorCode::PermissionDenied, message))
            }
            Some((_, Decision::Hidden)) | None => {
                Err(Error::new(ErrorCode::JobNotFound, format!("no job \"{job_id}\" that you may see")))
            }
        }
    }

    /// Whether this session may cancel the job: the submitting session always, its principal once that
    /// session has ended or where the settings say so (D-22), anybody else where the policy says so.
    pub(super) fn may_cancel(&self, key: SessionKey, job: &Job) -> bool {
        let Some(session) = self.sessions.get(&key) else { return false };
        let passed_on = job.session.is_none() || self.config.cancel_policy == CancelPolicy::Principal;
        job.session == Some(key)
            || (passed_on && session.principal == job.start.principal)
            || self.policy.may_cancel(&session.principal, &job.facts())
    }

    /// As whose copy this session gets the job's records.
    pub(super) fn receiver(&self, key: SessionKey, job: &Job) -> Receiver {
        if job.session == Some(key) {
            return Receiver::Submitter;
        }
        let same = self.sessions.get(&key).is_some_and(|session| session.principal == job.start.principal);
        if same { Receiver::Principal } else { Receiver::Onlooker }
    }
}
