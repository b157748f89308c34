//! Children of a job, as its agent sees them (runtime-protocol section 10).

use std::sync::Arc;

use arcp_proto::Error;
use arcp_proto::json::RawJson;
use arcp_proto::machine::runtime::{Delegated, Delegation, JobKey};
use arcp_proto::message::{Accepted, LeaseConstraints};
use tokio::sync::watch;

use crate::context::JobContext;
use crate::host::Shared;

/// How a child ended, once it has.
pub(crate) type ChildOutcome = Option<Result<RawJson, Error>>;

/// A child to be delegated. [`Delegate::new`] asks for one without authority of its own.
#[derive(Clone, Debug)]
pub struct Delegate {
    /// `name` or `name@version`; the job's lease must grant `agent.delegate` for the name.
    pub agent: String,
    /// Handed to the child unchanged.
    pub input: RawJson,
    /// Namespaces to patterns, at most what the job itself may do; an empty object by default.
    pub lease_request: RawJson,
    /// When the child's lease ends; by default, and at the latest, with the job's own.
    pub lease_constraints: Option<LeaseConstraints>,
    /// Joins the events of this delegation; by default `d_` and a fresh ULID.
    pub delegate_id: Option<String>,
    /// Whether the child outlives the job; by default it is cancelled when the job ends.
    pub detached: bool,
}

impl Delegate {
    /// A child that may do nothing but what the job's `model.use` allows.
    pub fn new(agent: impl Into<String>, input: RawJson) -> Self {
        Delegate {
            agent: agent.into(),
            input,
            lease_request: RawJson::empty_object(),
            lease_constraints: None,
            delegate_id: None,
            detached: false,
        }
    }
}

impl From<Delegate> for Delegation {
    fn from(delegate: Delegate) -> Self {
        let Delegate { agent, input, lease_request, lease_constraints, delegate_id, detached } = delegate;
        Delegation { agent, input, lease_request, lease_constraints, delegate_id, detached }
    }
}

/// A delegated child. Cheap to clone; dropping it leaves the child running.
#[derive(Clone)]
pub struct ChildHandle {
    shared: Arc<Shared>,
    job: JobKey,
    delegate_id: Arc<str>,
    accepted: Arc<Accepted>,
    outcome: watch::Receiver<ChildOutcome>,
}

impl ChildHandle {
    /// The child's job.
    pub fn job_id(&self) -> &str {
        &self.accepted.job_id
    }

    /// As it was asked for, or as it was made up.
    pub fn delegate_id(&self) -> &str {
        &self.delegate_id
    }

    /// What the session was told: effective lease, its end, first counters.
    pub fn accepted(&self) -> &Accepted {
        &self.accepted
    }

    /// Waits for the child's end. Of a streamed result it is the object that names it.
    ///
    /// # Errors
    /// The child's own error; `CANCELLED` when it was cancelled; `INTERNAL_ERROR` when the runtime is gone.
    pub async fn result(&self) -> Result<RawJson, Error> {
        let mut outcome = self.outcome.clone();
        let ended = outcome.wait_for(Option::is_some).await;
        let outcome = ended.ok().and_then(|outcome| outcome.clone());
        outcome.unwrap_or_else(|| Err(Error::internal("the runtime ended before the child did")))
    }

    /// Whether [`ChildHandle::result`] returns at once.
    pub fn has_ended(&self) -> bool {
        self.outcome.borrow().is_some()
    }

    /// Makes the child give way; nothing happens when it has ended.
    pub fn cancel(&self, reason: &str) {
        self.shared.act(|machine, now| machine.cancel_child(now, self.job, reason));
    }
}

impl JobContext {
    /// Delegates a part of the job to another agent, and waits while the submitting client lags behind (D-20). The child
    /// has started when this returns; it takes no slot of the runtime's (D-25).
    ///
    /// # Errors
    /// `PERMISSION_DENIED`, `LEASE_EXPIRED` (which also ends the job), `BUDGET_EXHAUSTED`; `AGENT_NOT_AVAILABLE`,
    /// `AGENT_VERSION_NOT_AVAILABLE`; `LEASE_SUBSET_VIOLATION` for a lease wider than the job's; `INVALID_REQUEST` for a
    /// bad request, a `delegate_id` in use, and a job that is ending; `INTERNAL_ERROR` at a cap. The submitter
    /// sees each but a bad request as a `tool_result`.
    pub async fn delegate(&self, delegate: Delegate) -> Result<ChildHandle, Error> {
        let (child, wait) = self.delegate_now(delegate)?;
        if wait {
            self.drained().await;
        }
        Ok(child)
    }

    /// The same at once: whether the caller should await [`JobContext::drained`] before the next event.
    ///
    /// # Errors
    /// As [`JobContext::delegate`].
    pub fn delegate_now(&self, delegate: Delegate) -> Result<(ChildHandle, bool), Error> {
        let (shared, parent) = (self.shared(), self.job());
        let delegation = Delegation::from(delegate);
        let (sender, outcome) = watch::channel(None);
        shared.act(|machine, now| {
            let Delegated { job, delegate_id, accepted } = machine.delegate(now, parent, &delegation)?;
            // Under the lock, so that no end is missed.
            shared.watch_child(job, sender);
            let accepted = Arc::new(accepted);
            let child =
                ChildHandle { shared: Arc::clone(shared), job, delegate_id: delegate_id.into(), accepted, outcome };
            Ok((child, machine.must_wait(parent)))
        })
    }
}
