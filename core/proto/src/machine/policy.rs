//! Who may watch and cancel which job: the hook a host widens or narrows the defaults with (R-7.6.12, D-22).

use std::sync::Arc;

use crate::message::JobStatus;
use crate::time::Timestamp;

/// What a policy is told about a job. None of it changes during the job's life, so a decision holds until the policy
/// itself changes.
#[derive(Clone, Copy, Debug)]
pub struct JobFacts<'a> {
    /// The job.
    pub job_id: &'a str,
    /// Who submitted it.
    pub principal: &'a str,
    /// The submitting session.
    pub session_id: &'a str,
    /// Agent name.
    pub agent: &'a str,
    /// Resolved version, if the agent has one.
    pub version: Option<&'a str>,
    /// When it was accepted.
    pub created_at: Timestamp,
}

/// What a principal may know of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may list and subscribe.
    Allowed,
    /// It may know that the job exists, no more: `PERMISSION_DENIED`.
    Known,
    /// To it the job does not exist: `JOB_NOT_FOUND`.
    Hidden,
}

/// What a principal wants to do with a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observing {
    /// See it in a listing.
    List,
    /// Follow it, or go on following it.
    Subscribe,
}

/// A job as a policy that answers later is told of it: [`JobFacts`] that outlive the lock, and how it fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedJob {
    /// The job.
    pub job_id: Arc<str>,
    /// Who submitted it.
    pub principal: Arc<str>,
    /// The submitting session.
    pub session_id: Arc<str>,
    /// Agent name.
    pub agent: String,
    /// Resolved version, if the agent has one.
    pub version: Option<String>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// The delegating job.
    pub parent_job_id: Option<Arc<str>>,
    /// How it fares at this moment.
    pub status: JobStatus,
}

/// What a policy that answers later is asked: one [`Decision`] for each of the jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyQuestion {
    /// Who wants to.
    pub principal: Arc<str>,
    /// What for.
    pub observing: Observing,
    /// At most 64.
    pub jobs: Vec<ObservedJob>,
}

/// Decides visibility and cancel authority. It is asked under the machine's lock, so it must answer at once; when its
/// answers change, the host says so with `policy_changed`, which ends what is no longer allowed.
pub trait Policy: Send {
    /// What `principal` may know of the job. The submitting session itself is never asked about.
    fn may_observe(&self, principal: &str, job: &JobFacts<'_>) -> Decision;

    /// Whether `principal` may cancel the job although [`CancelPolicy`](super::runtime::CancelPolicy) does not let it.
    /// Asked only about jobs it may observe; by default nobody may.
    fn may_cancel(&self, _principal: &str, _job: &JobFacts<'_>) -> bool {
        false
    }

    /// Whether `principal` can observe no job but its own, whatever the job: its listings then cost their page alone,
    /// else they pass over the jobs of others. By default this is not promised for anybody.
    fn sees_own_only(&self, _principal: &str) -> bool {
        false
    }
}

/// The default: a principal observes its own jobs, and to everybody else they do not exist.
#[derive(Clone, Copy, Debug, Default)]
pub struct SamePrincipal;

impl Policy for SamePrincipal {
    fn may_observe(&self, principal: &str, job: &JobFacts<'_>) -> Decision {
        if principal == job.principal { Decision::Allowed } else { Decision::Hidden }
    }

    fn sees_own_only(&self, _principal: &str) -> bool {
        true
    }
}
