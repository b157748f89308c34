//! Delegation (runtime-protocol section 10): children of jobs, bounded by the leases and counters above them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::storage::Gated;
use super::submission::{Order, accepted_frame};
use super::{ConnKey, JobKey, RuntimeEvent, RuntimeMachine, SessionKey, details};
use crate::budget::{Charge, charged_currency};
use crate::decimal::Decimal;
use crate::error::{Error, ErrorCode};
use crate::event::{self, EventBody};
use crate::json::{Fields, ObjectWriter, RawJson};
use crate::lease::{self, COST_BUDGET, Child, Lease, Parent};
use crate::machine::job::{Ending, Family, Job, JobStart, LeaseEnd, Outcome};
use crate::message::{Accepted, JobStatus, LeaseConstraints, read_error};
use crate::time::{Now, Timestamp};

/// What the grant of a delegation is checked against, apart from the agent's name.
const AGENT_DELEGATE: &str = "agent.delegate";

/// A job an agent asks for.
#[derive(Clone, Debug)]
pub struct Delegation {
    /// `name` or `name@version`; `agent.delegate` must cover the name.
    pub agent: String,
    /// Handed to the child unchanged.
    pub input: RawJson,
    /// What the child may do; never more than the delegating job.
    pub lease_request: RawJson,
    /// Without an end the child's lease ends with the delegating job's.
    pub lease_constraints: Option<LeaseConstraints>,
    /// Joins delegation, child and result; made up when absent. No two living children of a job share one.
    pub delegate_id: Option<String>,
    /// Whether the child outlives the delegating job.
    pub detached: bool,
}

/// A delegation that was granted.
#[derive(Clone, Debug)]
pub struct Delegated {
    /// The child.
    pub job: JobKey,
    /// As it was asked for, or as it was made up.
    pub delegate_id: String,
    /// What the parent's session was told.
    pub accepted: Accepted,
}

impl RuntimeMachine {
    /// Delegates: the `delegate` event, then the child, or the refusal as a `tool_result`.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`, `LEASE_EXPIRED`, `BUDGET_EXHAUSTED` of the delegating job; `AGENT_NOT_AVAILABLE`,
    /// `AGENT_VERSION_NOT_AVAILABLE`; `LEASE_SUBSET_VIOLATION`; `INVALID_REQUEST` for a bad request and for a job that is
    /// ending; `INTERNAL_ERROR` when a cap is reached, with its name in `details`.
    pub fn delegate(&mut self, now: Now, parent: JobKey, delegation: &Delegation) -> Result<Delegated, Error> {
        let delegate_id = match &delegation.delegate_id {
            Some(delegate_id) => delegate_id.clone(),
            None => format!("d_{}", self.ids.ulid(now.wall)),
        };
        let child = self.ids.job_id(now.wall);
        let constraints = delegation.lease_constraints.as_ref().map(RawJson::from_serialize).transpose()?;
        let body = event::delegate(
            &delegate_id,
            &delegation.agent,
            &delegation.input,
            &delegation.lease_request,
            constraints.as_ref(),
            // So that who sees the event can follow the child from its beginning.
            Some(&child),
        )?;
        if !self.takes_event(parent, &body)? {
            return Err(has_ended());
        }
        self.announce_and_grant(now, parent, delegation, delegate_id, Some(child), &body)
    }

    /// The same for an agent that writes the event itself.
    pub(super) fn emit_delegate(&mut self, now: Now, parent: JobKey, body: &RawJson) -> Result<(), Error> {
        let (delegate_id, agent, input, lease_request, lease_constraints) =
            match EventBody::read("delegate", body.as_raw()) {
                EventBody::Delegate {
                    delegate_id: Some(id), agent, input, lease_request, lease_constraints, ..
                } => (id, agent, input, lease_request, lease_constraints),
                // Tells of a job its agent has submitted by other means.
                EventBody::Delegate { child_job_id: Some(_), .. } => {
                    self.append_event(now, parent, "delegate", None, body);
                    return Ok(());
                }
                _ => return Err(Error::invalid("delegate needs delegate_id and agent")),
            };
        let expires_at = match lease_constraints {
            Some(constraints) => Fields::read("lease_constraints", constraints)?.opt_str("expires_at", "")?,
            None => None,
        };
        let delegation = Delegation {
            agent: agent.into_owned(),
            input: input.map_or_else(RawJson::null, RawJson::from_raw),
            lease_request: lease_request.map_or_else(RawJson::empty_object, RawJson::from_raw),
            lease_constraints: Some(LeaseConstraints { expires_at: expires_at.map(Into::into) }),
            delegate_id: None,
            detached: false,
        };
        self.announce_and_grant(now, parent, &delegation, delegate_id.into_owned(), None, body).map(drop)
    }

    /// Makes a child give way, as its parent's agent may; nothing happens when it has ended.
    pub fn cancel_child(&mut self, now: Now, child: JobKey, reason: &str) {
        self.end_job(now, child, Ending::Cancelled { reason: reason.to_owned() });
    }

    fn announce_and_grant(
        &mut self,
        now: Now,
        parent: JobKey,
        delegation: &Delegation,
        delegate_id: String,
        child: Option<String>,
        body: &RawJson,
    ) -> Result<Delegated, Error> {
        if self.has_living_child(parent, &delegate_id) {
            let message = "delegate_id names a child that is still running; use a fresh one";
            return Err(Error::invalid(message));
        }
        self.append_event(now, parent, "delegate", None, body);
        self.grant(now, parent, delegation, &delegate_id, child).or_else(|error| {
            let refusal = event::tool_result(&delegate_id, Err(&error))?;
            self.append_event(now, parent, "tool_result", None, &refusal);
            Err(error)
        })
    }

    fn has_living_child(&self, parent: JobKey, delegate_id: &str) -> bool {
        let children = self.jobs.get(&parent).into_iter().flat_map(|job| &job.family.children);
        children.filter_map(|child| self.jobs.get(child)).any(|child| child.delegate_id() == Some(delegate_id))
    }

    fn grant(
        &mut self,
        now: Now,
        parent: JobKey,
        delegation: &Delegation,
        delegate_id: &str,
        child: Option<String>,
    ) -> Result<Delegated, Error> {
        // The name alone, and before anything tells which agents there are.
        let name = delegation.agent.split_once('@').map_or(&*delegation.agent, |(name, _)| name);
        self.authorize(now, parent, AGENT_DELEGATE, name)?;
        let entry = self.may_be_parent(parent)?;
        let order = Order {
            session: entry.session,
            session_id: Arc::clone(&entry.start.session_id),
            principal: Arc::clone(&entry.start.principal),
            trace_id: Arc::clone(&entry.start.trace_id),
            trace_context: entry.start.trace_context.clone(),
            agent: &delegation.agent,
            input: &delegation.input,
            lease_request: &delegation.lease_request,
            lease_constraints: delegation.lease_constraints.as_ref(),
            max_runtime_sec: None,
            parent: Some(parent),
            delegate_id: Some(delegate_id),
            job_id: child,
        };
        if self.delegated >= self.config.max_delegated_jobs {
            let cap = self.config.max_delegated_jobs;
            let message = format!("{cap} delegated jobs are running in this runtime; delegate again later");
            return Err(capped("delegated_jobs", message));
        }
        let mut job = self.make_job(now, order)?;
        job.family.delegated = true;
        job.family.detached = delegation.detached;
        let accepted = job.accepted.clone();
        let key = JobKey(self.fresh_key());
        self.keep_job(key, job, "");
        for session in self.audience(parent) {
            self.announce(now, session, key);
        }
        self.start_job(now, key);
        Ok(Delegated { job: key, delegate_id: delegate_id.to_owned(), accepted })
    }

    /// The sessions that see a job's events.
    fn audience(&self, job: JobKey) -> Vec<SessionKey> {
        let Some(job) = self.jobs.get(&job) else { return Vec::new() };
        job.session.into_iter().chain(job.subscribers.iter().map(|subscriber| subscriber.session)).collect()
    }

    /// Tells a session of a child, behind the events it already has to come and ahead of the child's own.
    fn announce(&mut self, now: Now, key: SessionKey, child: JobKey) {
        let (Some(session), Some(child)) = (self.sessions.get(&key), self.jobs.get(&child)) else { return };
        // Without a connection it waits for the next one.
        let conn = session.conn.unwrap_or(ConnKey(0));
        let frame = accepted_frame(&mut self.ids, now, session, None, child);
        self.gate(now, Gated::Answer(key, conn, frame));
    }

    // ---- what bounds a child -----------------------------------------------------------------------------------

    /// The job a client names as the parent of its own submit: one of the same session. Any other looks like
    /// one that does not exist.
    pub(super) fn own_parent(&self, now: Now, session: SessionKey, job_id: &str) -> Result<JobKey, Error> {
        let key = self.jobs_by_id.get(job_id).copied();
        let own = |key: &JobKey| self.jobs.get(key).is_some_and(|job| job.session == Some(session));
        let key = key.filter(own).ok_or_else(|| {
            let message = format!("parent_job_id: this session has no job {}", lease::quoted(job_id));
            Error::new(ErrorCode::JobNotFound, message)
        })?;
        let parent = self.may_be_parent(key)?;
        if parent.lease_end.is_some_and(|end| end.is_over(now)) {
            return Err(Error::new(ErrorCode::LeaseExpired, "parent_job_id: the lease of that job has ended"));
        }
        Ok(key)
    }

    /// Whether this job may have one more child.
    fn may_be_parent(&self, key: JobKey) -> Result<&Job, Error> {
        let job = self.jobs.get(&key).filter(|job| !job.status.is_terminal() && !job.is_closing());
        let job = job.ok_or_else(has_ended)?;
        if job.status != JobStatus::Running {
            return Err(Error::invalid("the delegating job is not running yet; submit the child once it is"));
        }
        if self.depth(key) >= self.config.max_delegation_depth {
            let cap = self.config.max_delegation_depth;
            let message = format!("{cap} delegations led to this job already; it cannot delegate further");
            return Err(capped("delegation_depth", message));
        }
        if job.family.children.len() >= self.config.max_live_children {
            let cap = self.config.max_live_children;
            let message = format!("{cap} children of this job have not ended; delegate again when one has");
            return Err(capped("live_children", message));
        }
        Ok(job)
    }

    /// How many delegations led to this job.
    pub(super) fn depth(&self, key: JobKey) -> usize {
        self.jobs.get(&key).map_or(0, |job| job.family.ancestors.len())
    }

    /// This job behind its ancestors, root first.
    pub(super) fn line_of(&self, key: JobKey) -> Vec<JobKey> {
        let mut line = self.jobs.get(&key).map(|job| job.family.ancestors.clone()).unwrap_or_default();
        line.push(key);
        line
    }

    /// The ancestors of a job that is restored after its parent.
    pub(super) fn ancestors_of(&self, start: &JobStart) -> Vec<JobKey> {
        let parent = start.parent_job_id.as_ref().and_then(|parent| self.jobs_by_id.get(parent));
        parent.map(|parent| self.line_of(*parent)).unwrap_or_default()
    }

    /// The lease and end a child gets of this parent, at this moment.
    pub(super) fn inherit(
        &self,
        now: Now,
        parent: JobKey,
        asked: &Lease,
        expires_at: Option<Timestamp>,
    ) -> Result<(Lease, Option<LeaseEnd>), Error> {
        let Some(entry) = self.jobs.get(&parent) else { return Err(has_ended()) };
        let remaining = remaining(entry);
        let above = Parent {
            lease: &entry.start.lease,
            expires_at: entry.lease_end.map(|end| end.wall),
            remaining: Some(&remaining),
        };
        let (lease, _) = lease::effective_child(Child { lease: asked, expires_at }, above)?;
        self.check_money_above(entry, asked)?;
        let own = expires_at.map(|expires_at| LeaseEnd::new(expires_at, now));
        let end = match (own, entry.lease_end) {
            (Some(own), Some(held)) => Some(own.within(held)),
            (own, held) => own.or(held),
        };
        Ok((lease, end))
    }

    /// A parent without a budget, or with more than its own ancestors have left, has no more to give than they have.
    fn check_money_above(&self, parent: &Job, asked: &Lease) -> Result<(), Error> {
        let Some(amounts) = asked.patterns(COST_BUDGET) else { return Ok(()) };
        let amounts = amounts.into_iter().map(str::to_owned).collect();
        let asked = Lease::new([(COST_BUDGET.to_owned(), amounts)])?;
        for ancestor in parent.family.ancestors.iter().filter_map(|ancestor| self.jobs.get(ancestor)) {
            let remaining = remaining(ancestor);
            let above = Parent { lease: &ancestor.start.lease, expires_at: None, remaining: Some(&remaining) };
            lease::is_subset(Child { lease: &asked, expires_at: None }, above)?;
        }
        Ok(())
    }

    /// Books a cost with the job and all its ancestors, root first, or with none of them. What was booked, in
    /// that order.
    pub(super) fn charge(
        &mut self,
        job: JobKey,
        name: &str,
        unit: Option<&str>,
        value: &str,
    ) -> Result<Vec<(JobKey, Charge)>, Error> {
        let mut booked = Vec::new();
        if charged_currency(name, unit).is_none() {
            return Ok(Vec::new());
        }
        for key in self.line_of(job) {
            let Some(budget) = self.jobs.get(&key).and_then(|job| job.budget.as_ref()) else { continue };
            let mut budget = budget.clone();
            if let Some(charge) = budget.charge_metric(name, unit, value)? {
                booked.push((key, charge, budget));
            }
        }
        let book = |(key, charge, budget)| {
            if let Some(job) = self.jobs.get_mut(&key) {
                job.budget = Some(budget);
            }
            (key, charge)
        };
        Ok(booked.into_iter().map(book).collect())
    }

    // ---- births and deaths -------------------------------------------------------------------------------------

    pub(super) fn join_family(&mut self, key: JobKey, family: &Family) {
        self.delegated += usize::from(family.delegated);
        for ancestor in &family.ancestors {
            if let Some(ancestor) = self.jobs.get_mut(ancestor) {
                ancestor.family.heirs += 1;
            }
        }
        if let Some(parent) = family.ancestors.last().and_then(|parent| self.jobs.get_mut(parent)) {
            parent.family.children.insert(key);
        }
    }

    /// A job has its terminal: its parent's agent is told how it ended, and a parent that waited for its last
    /// child ends too.
    pub(super) fn leave_family(&mut self, now: Now, key: JobKey) {
        let Some(job) = self.jobs.get(&key) else { return };
        let Some(parent) = job.family.ancestors.last().copied() else { return };
        let told = job.family.delegate_id.clone().filter(|_| job.family.delegated);
        let told = told.map(|delegate_id| (delegate_id, Arc::clone(&job.start.job_id), outcome_of(job)));
        for ancestor in self.line_of(parent) {
            if let Some(ancestor) = self.jobs.get_mut(&ancestor) {
                ancestor.family.heirs -= 1;
            }
        }
        if let Some(parent) = self.jobs.get_mut(&parent) {
            parent.family.children.remove(&key);
        }
        if let Some((delegate_id, job_id, outcome)) = told {
            let live = self.jobs.get(&parent).is_some_and(|parent| !parent.status.is_terminal());
            if live && let Ok(body) = self.child_result(&delegate_id, &job_id, &outcome) {
                self.append_event(now, parent, "tool_result", None, &body);
            }
            self.events.push_back(RuntimeEvent::ChildEnded { parent, child: key, delegate_id, outcome });
        }
        self.end_if_alone(now, parent);
    }

    /// The `tool_result` that shows a child's end; a result too large to be sent whole is left out.
    fn child_result(
        &self,
        delegate_id: &str,
        job_id: &str,
        outcome: &Result<RawJson, Error>,
    ) -> Result<RawJson, Error> {
        let result = match outcome {
            Ok(result) => result,
            Err(error) => return event::tool_result(delegate_id, Err(error)),
        };
        let mut shown = ObjectWriter::new();
        shown.text("child_job_id", job_id);
        if result.get().len() <= self.inline_cap() && result.get().len() + delegate_id.len() + 256 <= self.body_cap() {
            shown.json("result", result.get());
        }
        event::tool_result(delegate_id, Ok(Some(&shown.finish()?)))
    }

    /// The children that end with this job.
    fn attached(&self, key: JobKey) -> Vec<JobKey> {
        let children = self.jobs.get(&key).into_iter().flat_map(|job| &job.family.children).copied();
        children.filter(|child| self.jobs.get(child).is_some_and(|child| !child.family.detached)).collect()
    }

    /// Makes the children give way before the job does.
    pub(super) fn cancel_children(&mut self, now: Now, key: JobKey) {
        for child in self.attached(key) {
            let expired = self.jobs.get(&child).and_then(|child| child.lease_end).is_some_and(|end| end.is_over(now));
            let ending = match expired {
                true => Ending::LeaseExpired,
                false => Ending::Cancelled { reason: "the delegating job is ending".to_owned() },
            };
            self.end_job(now, child, ending);
        }
    }

    /// Ends a job whose agent has ended and whose children have too.
    pub(super) fn end_if_alone(&mut self, now: Now, key: JobKey) {
        if !self.attached(key).is_empty() {
            return;
        }
        if let Some(outcome) = self.jobs.get_mut(&key).and_then(|job| job.family.held.take()) {
            self.terminate(now, key, outcome);
        }
    }

    /// The grace is over: the job ends as it was told to, its children before it.
    pub(super) fn abandon(&mut self, now: Now, key: JobKey) {
        for child in self.attached(key) {
            self.abandon(now, child);
        }
        self.finish(now, key, Outcome::Cancelled);
    }

    /// The ended job to forget first: one whose counter bounds nobody any more.
    pub(super) fn oldest_without_heirs(&self) -> Option<JobKey> {
        self.ended.iter().copied().find(|key| self.jobs.get(key).is_none_or(|job| job.family.heirs == 0))
    }
}

fn remaining(job: &Job) -> BTreeMap<String, Decimal> {
    let counters = job.budget.iter().flat_map(|budget| budget.remaining());
    counters.map(|(currency, left)| (currency.to_owned(), *left)).collect()
}

/// A terminal as the delegating agent hears of it: the result, for a streamed one what names it, or the error.
fn outcome_of(job: &Job) -> Result<RawJson, Error> {
    if let (JobStatus::Success, Some(result)) = (job.status, &job.family.result) {
        return Ok(result.clone());
    }
    let lost = || Error::internal("the child's end cannot be read");
    let text = job.terminal.as_ref().and_then(|record| std::str::from_utf8(&record.payload).ok()).ok_or_else(lost)?;
    let payload = RawJson::parse(text)?;
    let fields = Fields::read("payload", payload.as_raw())?;
    match job.status {
        JobStatus::Success => match fields.raw("result") {
            Some(result) => Ok(RawJson::from_raw(result)),
            None => {
                let mut named = ObjectWriter::new();
                for name in ["result_id", "result_size", "summary"] {
                    if let Some(value) = fields.raw(name) {
                        named.json(name, value.get());
                    }
                }
                named.finish()
            }
        },
        _ => Err(read_error(&fields).unwrap_or_else(|_| lost())),
    }
}

fn has_ended() -> Error {
    Error::invalid("the delegating job has ended or is ending; it takes no more children")
}

fn capped(cap: &str, message: String) -> Error {
    Error::internal(message).with_details(details("cap", cap))
}
