//! A runtime's job: its gap-free history, state, lease and budget. It outlives connections and sessions.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::frame::Record;
use super::kept::KeptJob;
use super::result_stream::ResultStream;
use super::runtime::{JobKey, SessionKey, details};
use crate::budget::Budget;
use crate::error::{Error, ErrorCode};
use crate::json::RawJson;
use crate::lease::{self, Lease, MODEL_USE};
use crate::message::{Accepted, JobStatus, LeaseConstraints};
use crate::time::{Now, Timestamp};
use crate::trace::TraceContext;

/// Why a running job is being ended by somebody else than its agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The client, or the runtime itself, cancelled it.
    Cancelled {
        /// The reason given.
        reason: String,
    },
    /// It ran longer than `max_runtime_sec`.
    TimedOut,
    /// Its lease ended.
    LeaseExpired,
}

/// How an agent ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It returned this value.
    Success(RawJson),
    /// It raised.
    Failed(Error),
    /// It gave way to a cancellation.
    Cancelled,
}

/// What an agent is told when it is started.
#[derive(Clone, Debug)]
pub struct JobStart {
    /// The job.
    pub job_id: Arc<str>,
    /// The submitting session.
    pub session_id: Arc<str>,
    /// Who submitted it.
    pub principal: Arc<str>,
    /// Agent name.
    pub agent: String,
    /// Resolved version, if the agent has one.
    pub version: Option<String>,
    /// The job's trace, 32 hex digits.
    pub trace_id: Arc<str>,
    /// What the submit said about the span that caused it.
    pub trace_context: Option<TraceContext>,
    /// What it may do; never changes.
    pub lease: Arc<Lease>,
    /// When the lease ends.
    pub lease_constraints: Option<LeaseConstraints>,
    /// Handed over unchanged.
    pub input: RawJson,
    /// The effective limit.
    pub max_runtime_sec: Option<u64>,
    /// The delegating job.
    pub parent_job_id: Option<Arc<str>>,
}

impl JobStart {
    /// `name@version`, or the bare name of an unversioned agent.
    pub fn agent_ref(&self) -> String {
        match &self.version {
            Some(version) => format!("{}@{version}", self.agent),
            None => self.agent.clone(),
        }
    }
}

/// One receiver besides the submitting session.
#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) session: SessionKey,
    /// While history is on its way, what happened meanwhile waits here.
    pub(super) held: Option<Held>,
}

/// The seam between history and live events.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) ticket: u64,
    pub(super) records: VecDeque<Arc<Record>>,
}

/// One job of a runtime.
#[derive(Debug)]
pub struct Job {
    pub(super) start: Arc<JobStart>,
    pub(super) session: Option<SessionKey>,
    pub(super) status: JobStatus,
    pub(super) created_at: Timestamp,
    /// The answer to the submit, without `request_id`, for idempotent repeats.
    pub(super) accepted: Accepted,
    pub(super) lease_end: Option<LeaseEnd>,
    pub(super) budget: Option<Budget>,
    pub(super) max_runtime: Option<Duration>,
    /// Whether its agent was told to begin.
    pub(super) started: bool,
    pub(super) job_seq: u64,
    pub(super) source_seq: u64,
    /// Whether a part of its result was emitted (D-26).
    pub(super) chunked: bool,
    pub(super) subscribers: Vec<Subscriber>,
    pub(super) ending: Option<Ending>,
    pub(super) terminal: Option<Arc<Record>>,
    /// The principal and idempotency key it was submitted under.
    pub(super) claim: Option<(Arc<str>, String)>,
    /// Its place among delegating and delegated jobs.
    pub(super) family: Family,
    /// The result on its way out.
    pub(super) stream: Option<Box<ResultStream>>,
}

/// Who delegated a job, and whom it delegated to.
#[derive(Debug, Default)]
pub(super) struct Family {
    /// Root first, the delegating job last; empty for a job nobody delegated. None of them is forgotten before this job
    /// has ended, so that its costs find every counter.
    pub(super) ancestors: Vec<JobKey>,
    /// What the delegating job calls it.
    pub(super) delegate_id: Option<String>,
    /// Whether an agent asked for it: it then takes no slot (D-25), and its end is told to that agent.
    pub(super) delegated: bool,
    /// Whether it outlives the delegating job.
    pub(super) detached: bool,
    /// Its children that have not ended.
    pub(super) children: BTreeSet<JobKey>,
    /// How many descendants have not ended, however deep.
    pub(super) heirs: usize,
    /// How its agent ended, while its children are still ending.
    pub(super) held: Option<Outcome>,
    /// What a delegated job returned, which its parent's agent gets however the client does.
    pub(super) result: Option<RawJson>,
}

/// The end of a lease on both clocks: the earlier wins.
#[derive(Clone, Copy, Debug)]
pub(super) struct LeaseEnd {
    pub(super) wall: Timestamp,
    pub(super) mono: Duration,
}

impl LeaseEnd {
    pub(super) fn new(wall: Timestamp, now: Now) -> Self {
        let left = Duration::from_millis(wall.0.saturating_sub(now.wall.0).max(0).unsigned_abs());
        LeaseEnd { wall, mono: now.mono.saturating_add(left) }
    }

    /// On each clock the earlier of the two.
    pub(super) fn within(self, parent: LeaseEnd) -> Self {
        LeaseEnd { wall: self.wall.min(parent.wall), mono: self.mono.min(parent.mono) }
    }

    pub(super) fn is_over(self, now: Now) -> bool {
        self.wall <= self.wall_seen_from(now)
    }

    fn wall_seen_from(self, now: Now) -> Timestamp {
        if now.mono >= self.mono { now.wall.max(self.wall) } else { now.wall }
    }
}

impl Job {
    /// Whether this session follows it.
    pub(super) fn is_followed_by(&self, session: SessionKey) -> bool {
        self.subscribers.iter().any(|subscriber| subscriber.session == session)
    }

    /// A job that waits to be started.
    ///
    /// # Errors
    /// When lease or counters cannot be written as JSON, which ours always can.
    pub(super) fn new(
        start: JobStart,
        session: Option<SessionKey>,
        created_at: Timestamp,
        lease_end: Option<LeaseEnd>,
        budget: Option<Budget>,
        family: Family,
    ) -> Result<Self, Error> {
        let accepted = Accepted {
            job_id: start.job_id.to_string(),
            agent: Some(start.agent_ref()),
            lease: RawJson::parse(&start.lease.to_json())?,
            lease_constraints: start.lease_constraints.clone(),
            budget: budget.as_ref().map(|budget| RawJson::parse(&budget.to_json())).transpose()?,
            credentials: None,
            accepted_at: Some(created_at),
            trace_id: Some(start.trace_id.to_string()),
            parent_job_id: start.parent_job_id.as_deref().map(str::to_owned),
            delegate_id: family.delegate_id.clone(),
            request_id: None,
            max_runtime_sec: start.max_runtime_sec,
        };
        Ok(Job {
            max_runtime: start.max_runtime_sec.map(Duration::from_secs),
            start: Arc::new(start),
            session,
            status: JobStatus::Pending,
            created_at,
            accepted,
            lease_end,
            budget,
            started: false,
            job_seq: 0,
            source_seq: 0,
            chunked: false,
            subscribers: Vec::new(),
            ending: None,
            terminal: None,
            claim: None,
            family,
            stream: None,
        })
    }

    /// As the store keeps it; `request_id` names the submit that made it.
    pub(super) fn kept(&self, request_id: &str) -> KeptJob {
        let start = &self.start;
        KeptJob {
            job_id: Arc::clone(&start.job_id),
            session: Arc::clone(&start.session_id),
            request_id: request_id.to_owned(),
            principal: Arc::clone(&start.principal),
            agent: start.agent.clone(),
            version: start.version.clone(),
            trace_id: Arc::clone(&start.trace_id),
            input: start.input.clone(),
            lease: self.accepted.lease.clone(),
            expires_at: start.lease_constraints.as_ref().and_then(|constraints| constraints.expires_at.clone()),
            max_runtime_sec: start.max_runtime_sec,
            parent_job_id: start.parent_job_id.clone(),
            delegate_id: self.family.delegate_id.clone(),
            created_at: self.created_at,
            key: self.claim.as_ref().map(|(_, key)| key.clone()),
            trace_context: start.trace_context.clone(),
        }
    }

    /// Its state.
    pub fn status(&self) -> JobStatus {
        self.status
    }

    /// What the agent was told.
    pub fn start(&self) -> &Arc<JobStart> {
        &self.start
    }

    /// When it was accepted.
    pub fn created_at(&self) -> Timestamp {
        self.created_at
    }

    /// Current counters as a JSON object, if the lease has a budget.
    pub(super) fn budget_json(&self) -> Option<RawJson> {
        self.budget.as_ref().and_then(|budget| RawJson::parse(&budget.to_json()).ok())
    }

    /// What the delegating job calls it, for a child.
    pub fn delegate_id(&self) -> Option<&str> {
        self.family.delegate_id.as_deref()
    }

    /// Whether it is ending, or its agent has ended, though its terminal is still to come.
    pub(super) fn is_closing(&self) -> bool {
        self.ending.is_some() || self.family.held.is_some()
    }

    /// Checks one operation: expiry, then coverage, then budget, also that of its ancestors.
    pub(super) fn authorize<'a>(
        &'a self,
        now: Now,
        ancestors: impl Iterator<Item = &'a Budget>,
        namespace: &str,
        target: &str,
    ) -> Result<(), Error> {
        let wall = self.lease_end.map_or(now.wall, |end| end.wall_seen_from(now));
        let expires_at = self.lease_end.map(|end| end.wall);
        let budgets = self.budget.iter().chain(ancestors);
        lease::authorize(&self.start.lease, expires_at, budgets, wall, namespace, target)
    }

    /// What holds for models when the lease does not name `model.use` and that forbids nothing: the budget still does
    /// . `None` when the lease names it.
    pub(super) fn authorize_unnamed_model<'a>(
        &'a self,
        ancestors: impl Iterator<Item = &'a Budget>,
        target: &str,
    ) -> Option<Result<(), Error>> {
        if self.start.lease.patterns(MODEL_USE).is_some() {
            return None;
        }
        let every_model = Lease::new([(MODEL_USE.to_owned(), vec!["**".to_owned()])]).ok()?;
        let budgets = self.budget.iter().chain(ancestors);
        Some(lease::authorize(&every_model, None, budgets, self.created_at, MODEL_USE, target))
    }

    /// The terminal that tells how the job ended: an ending that was announced wins over what the agent did.
    pub(super) fn conclude(&self, outcome: Outcome) -> Result<RawJson, (JobStatus, Error)> {
        match (&self.ending, outcome) {
            (Some(Ending::Cancelled { reason }), _) => {
                let error = Error::new(ErrorCode::Cancelled, format!("cancelled: {reason}"));
                Err((JobStatus::Cancelled, error.with_details(details("reason", reason))))
            }
            (Some(Ending::TimedOut), _) => {
                let limit = self.max_runtime.unwrap_or_default().as_secs();
                let message = format!("the job ran longer than max_runtime_sec ({limit} s)");
                Err((JobStatus::TimedOut, Error::new(ErrorCode::Timeout, message)))
            }
            (Some(Ending::LeaseExpired), _) => {
                let message = "the lease ended while the job was running";
                Err((JobStatus::Error, Error::new(ErrorCode::LeaseExpired, message)))
            }
            (None, Outcome::Success(result)) => Ok(result),
            (None, Outcome::Failed(error)) => Err((final_status(&error.code), error)),
            (None, Outcome::Cancelled) => {
                let error = Error::new(ErrorCode::Cancelled, "the agent cancelled itself");
                Err((JobStatus::Cancelled, error))
            }
        }
    }
}

fn final_status(code: &ErrorCode) -> JobStatus {
    match code {
        ErrorCode::Cancelled => JobStatus::Cancelled,
        ErrorCode::Timeout => JobStatus::TimedOut,
        _ => JobStatus::Error,
    }
}
