//! What a session may see and cancel of the jobs of others, and what its copies leave out (R-7.4, R-7.6, D-22, D-30).

use std::sync::Arc;

use super::{CancelPolicy, JobKey, RuntimeMachine, SessionKey};
use crate::error::{Error, ErrorCode};
use crate::machine::frame::Receiver;
use crate::machine::job::Job;
use crate::machine::kept::StoreOp;
use crate::machine::policy::{Decision, JobFacts};
use crate::machine::session::Session;

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

    /// A job this session may observe, given what a policy that is asked has said. One that is hidden from it looks like
    /// one that does not exist.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` when it may only know that the job exists, `JOB_NOT_FOUND` otherwise.
    pub(super) fn visible_job(
        &self,
        key: SessionKey,
        job_id: &str,
        verdict: Option<Decision>,
    ) -> Result<JobKey, Error> {
        let found = self.jobs_by_id.get(job_id).and_then(|job_key| {
            let (session, job) = (self.sessions.get(&key)?, self.jobs.get(job_key)?);
            let decision = self.observes(key, &session.principal, job).or(verdict);
            Some((*job_key, decision.unwrap_or_else(|| unasked(session, *job_key, job))))
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
            || self.judge.may_cancel(&session.principal, &job.facts())
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

/// What holds where a policy is asked, but not about this: a cancel only has to tell a job that the session knows of
/// already from one it does not.
fn unasked(session: &Session, key: JobKey, job: &Job) -> Decision {
    let knows = *session.principal == *job.start.principal || session.subscriptions.contains(&key);
    if knows { Decision::Allowed } else { Decision::Hidden }
}
