//! How a submit becomes a job.

use std::sync::Arc;
use std::time::Duration;

use super::credentials::{Draft, SubmitRequest};
use super::idempotency::claim_of;
use super::requests::answer_frame;
use super::{ConnKey, JobKey, RuntimeMachine, SessionKey, Timer, details};
use crate::agent_ref::AgentRef;
use crate::envelope::Head;
use crate::error::Error;
use crate::id::IdGenerator;
use crate::json::RawJson;
use crate::lease::{self, Lease};
use crate::machine::frame::{Frame, WireProfile};
use crate::machine::job::{Family, Job, JobStart, LeaseEnd};
use crate::machine::kept::StoreOp;
use crate::machine::session::Session;
use crate::message::{Accepted, LeaseConstraints, Submit, kind};
use crate::time::Now;
use crate::trace::TraceContext;

/// What a job is made of, whether a client submits it or an agent delegates it.
pub(super) struct Order<'a> {
    pub(super) session: Option<SessionKey>,
    pub(super) session_id: Arc<str>,
    pub(super) principal: Arc<str>,
    pub(super) trace_id: Arc<str>,
    pub(super) trace_context: Option<TraceContext>,
    pub(super) agent: &'a str,
    pub(super) input: &'a RawJson,
    pub(super) lease_request: &'a RawJson,
    pub(super) lease_constraints: Option<&'a LeaseConstraints>,
    pub(super) max_runtime_sec: Option<u64>,
    /// The delegating job, whose lease and counters bound this one.
    pub(super) parent: Option<JobKey>,
    pub(super) delegate_id: Option<&'a str>,
    /// What it is called, where somebody was told already.
    pub(super) job_id: Option<String>,
}

impl RuntimeMachine {
    pub(super) fn submit(
        &mut self,
        now: Now,
        conn: ConnKey,
        key: SessionKey,
        head: &Head<'_>,
        submit: Submit,
    ) -> Result<(), Error> {
        let trace_id = head.trace_id.as_ref().map(|trace_id| (**trace_id).into());
        let trace_context = head.trace_context();
        let request = SubmitRequest { conn, id: head.id.to_string(), trace_id, trace_context, submit };
        let Some(request) = self.hold_back(key, request)? else { return Ok(()) };
        let (behind, agent) = (self.is_holding(key), request.submit.agent.clone());
        let taken = self.take_submit(now, key, request, false);
        match taken {
            Err(error) if behind => {
                self.hold_refusal(key, (conn, &head.id), agent, error);
                Ok(())
            }
            taken => taken,
        }
    }

    /// Takes a submit whose turn it is; `in_front` of those that wait behind it, if it has to wait again.
    pub(super) fn take_submit(
        &mut self,
        now: Now,
        key: SessionKey,
        request: SubmitRequest,
        in_front: bool,
    ) -> Result<(), Error> {
        let SubmitRequest { conn, id, trace_id, trace_context, submit } = request;
        let Some(principal) = self.sessions.get(&key).map(|session| Arc::clone(&session.principal)) else {
            return Ok(());
        };
        // Before anything that depends on the time: a retry after the lease's end still gets the first answer.
        let claim = claim_of(&principal, &submit)?;
        if let Some(claim) = &claim {
            if self.is_used(claim) {
                return self.repeat_accepted(now, conn, key, &id, claim);
            }
            self.check_room_for_keys()?;
        }
        let job = self.check_submit(now, key, principal, (trace_id, trace_context), &submit)?;
        let draft = Draft { key: JobKey(self.fresh_key()), conn, id, job, claim };
        if self.wants_credentials(key) {
            self.provision(now, key, draft, in_front);
        } else {
            self.accept_job(now, key, draft);
        }
        Ok(())
    }

    /// The job is kept, its submit answered, and its agent started.
    pub(super) fn accept_job(&mut self, now: Now, key: SessionKey, draft: Draft) {
        let Draft { key: job_key, conn, id, mut job, claim } = draft;
        let (job_id, trace_id) = (Arc::clone(&job.start.job_id), Arc::clone(&job.start.trace_id));
        let accepted = job.accepted.clone();
        job.claim = claim.as_ref().map(|(claim, _)| claim.clone());
        self.keep_job(job_key, job, &id);
        if let Some(claim) = claim {
            self.use_key(now, claim, (&job_id, &trace_id), &accepted);
        }
        self.audit_accepted(now, key, &job_id, accepted.agent.as_deref().unwrap_or_default(), false);
        self.answer_accepted(now, conn, key, &id, (job_id, trace_id), accepted);
        self.enqueue(now, job_key);
    }

    /// Starts a job, or makes it wait for a slot.
    pub(super) fn enqueue(&mut self, now: Now, job: JobKey) {
        if self.running < self.config.max_concurrent_jobs {
            self.start_job(now, job);
        } else {
            self.waiting.push_back(job);
        }
    }

    /// Everything that can refuse a submit, before anything is kept of it.
    fn check_submit(
        &mut self,
        now: Now,
        key: SessionKey,
        principal: Arc<str>,
        trace: (Option<Arc<str>>, Option<TraceContext>),
        submit: &Submit,
    ) -> Result<Job, Error> {
        let parent = submit.parent_job_id.as_deref().map(|parent| self.own_parent(now, key, parent)).transpose()?;
        let above = parent.and_then(|parent| self.jobs.get(&parent)).map(|parent| Arc::clone(&parent.start));
        let (own_trace_id, own) = trace;
        let trace_id: Arc<str> = match (own_trace_id, &own, &above) {
            (Some(trace_id), ..) => trace_id,
            // A context without an envelope's id still names the trace.
            (None, Some(context), _) => context.trace_id().into(),
            (None, None, Some(parent)) => Arc::clone(&parent.trace_id),
            (None, None, None) => self.ids.trace_id().into(),
        };
        // A parent's context goes with its trace.
        let inherited = above.filter(|parent| parent.trace_id == trace_id);
        let trace_context = own.or_else(|| inherited.and_then(|parent| parent.trace_context.clone()));
        let order = Order {
            session: Some(key),
            session_id: self.sessions.get(&key).map(|session| Arc::clone(session.id())).unwrap_or_default(),
            principal,
            trace_id,
            trace_context,
            agent: &submit.agent,
            input: &submit.input,
            lease_request: &submit.lease_request,
            lease_constraints: submit.lease_constraints.as_ref(),
            max_runtime_sec: submit.max_runtime_sec,
            parent,
            delegate_id: submit.delegate_id.as_deref().filter(|_| parent.is_some()),
            job_id: None,
        };
        let job = self.make_job(now, order)?;
        let taken = self.running + self.waiting.len() + self.credentials.pending();
        if taken >= self.config.max_concurrent_jobs.saturating_add(self.config.max_waiting_jobs) {
            let cap = self.config.max_waiting_jobs;
            let error = Error::internal(format!("{cap} jobs are waiting already; submit again later"));
            return Err(error.with_details(details("cap", "waiting_jobs")));
        }
        Ok(job)
    }

    /// Checks what is asked for against agents and leases, and makes a job of it; nothing is kept of it yet.
    pub(super) fn make_job(&mut self, now: Now, order: Order<'_>) -> Result<Job, Error> {
        let (agent, version) = self.agents.resolve(&AgentRef::parse(order.agent)?)?;
        let lease = Lease::parse(order.lease_request.get())?;
        let constraints = order.lease_constraints.filter(|constraints| constraints.expires_at.is_some());
        let expires_at = match constraints.and_then(|constraints| constraints.expires_at.as_deref()) {
            Some(text) => Some(lease::future_expires_at(text, now.wall)?),
            None => None,
        };
        let inherited = order.parent.map(|parent| self.inherit(now, parent, &lease, expires_at)).transpose()?;
        let parent = order.parent.and_then(|parent| self.jobs.get(&parent));
        let constraints = constraints.or(parent.and_then(|parent| parent.start.lease_constraints.as_ref())).cloned();
        let (lease, lease_end) =
            inherited.unwrap_or_else(|| (lease, expires_at.map(|expires_at| LeaseEnd::new(expires_at, now))));
        let parent_job_id = parent.map(|parent| Arc::clone(&parent.start.job_id));
        let budget = lease.budget();
        if self.shutting_down {
            return Err(Error::internal("the runtime is shutting down; submit again later"));
        }
        let max_runtime =
            order.max_runtime_sec.map(|seconds| Duration::from_secs(seconds).min(self.config.max_runtime_cap));
        let family = Family {
            ancestors: order.parent.map(|parent| self.line_of(parent)).unwrap_or_default(),
            delegate_id: order.delegate_id.map(str::to_owned),
            ..Family::default()
        };
        let start = JobStart {
            job_id: order.job_id.unwrap_or_else(|| self.ids.job_id(now.wall)).into(),
            session_id: order.session_id,
            principal: order.principal,
            agent,
            version,
            trace_id: order.trace_id,
            trace_context: order.trace_context,
            lease: Arc::new(lease),
            lease_constraints: constraints,
            input: order.input.clone(),
            max_runtime_sec: max_runtime.map(|limit| limit.as_secs()),
            parent_job_id,
        };
        Job::new(start, order.session, now.wall, lease_end, budget, family)
    }

    /// Keeps an accepted job, also in the store; whoever called starts it, or lets it wait. `request_id` names the
    /// submit, and is empty for a delegated job.
    pub(super) fn keep_job(&mut self, key: JobKey, job: Job, request_id: &str) {
        if let Some(end) = job.lease_end {
            self.timers.set(Timer::LeaseEnd(key), end.mono.saturating_add(self.config.lease_grace));
        }
        self.keep_durable(|| StoreOp::SaveJob(Box::new(job.kept(request_id))));
        if let Some(session) = job.session.and_then(|session| self.sessions.get_mut(&session)) {
            session.running.insert(key);
        }
        self.join_family(key, &job.family);
        self.jobs_by_id.insert(Arc::clone(&job.start.job_id), key);
        self.index.insert(key, &job);
        self.jobs.insert(key, job);
    }

    pub(super) fn answer_accepted(
        &mut self,
        now: Now,
        conn: ConnKey,
        key: SessionKey,
        request_id: &str,
        job: (Arc<str>, Arc<str>),
        accepted: Accepted,
    ) {
        let accepted = self.accepted_for(key, accepted, request_id);
        self.answer_request(now, conn, key, request_id, kind::JOB_ACCEPTED, Some(job), &accepted);
    }

    /// The answer to this request, in the form this session's peer reads.
    pub(super) fn accepted_for(&self, key: SessionKey, accepted: Accepted, request_id: &str) -> Accepted {
        let profile = self.sessions.get(&key).map(|session| session.name.profile).unwrap_or_default();
        in_profile(profile, accepted, Some(request_id))
    }
}

/// The answer to a submit, as it can be repeated after a restart; without `request_id` the word of a delegation.
pub(super) fn accepted_frame(
    ids: &mut IdGenerator,
    now: Now,
    session: &Session,
    request_id: Option<&str>,
    job: &Job,
) -> Frame {
    let accepted = in_profile(session.name.profile, job.accepted.clone(), request_id);
    let names = (Arc::clone(&job.start.job_id), Arc::clone(&job.start.trace_id));
    answer_frame(ids, now, session, kind::JOB_ACCEPTED, Some(names), &accepted)
}

fn in_profile(profile: WireProfile, mut accepted: Accepted, request_id: Option<&str>) -> Accepted {
    accepted.request_id = request_id.map(str::to_owned);
    if profile == WireProfile::Py11 {
        accepted.budget = accepted.budget.as_ref().and_then(text_budget);
    }
    accepted
}

/// `{"USD":5}` as `{"USD":"USD:5"}`, which is what the published Python client reads (D-43).
pub(super) fn text_budget(budget: &RawJson) -> Option<RawJson> {
    let numbers: std::collections::BTreeMap<&str, &serde_json::value::RawValue> =
        serde_json::from_str(budget.get()).ok()?;
    let texts: std::collections::BTreeMap<&str, String> =
        numbers.into_iter().map(|(unit, amount)| (unit, format!("{unit}:{}", amount.get()))).collect();
    RawJson::from_serialize(&texts).ok()
}
