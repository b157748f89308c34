//! What a runtime does with the messages of an open session.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::auditing::Audited;
use super::credentials::{Draft, SubmitRequest};
use super::storage::Gated;
use super::{ConnKey, JobKey, RuntimeEvent, RuntimeMachine, SessionKey, Timer, details};
use crate::agent_ref::AgentRef;
use crate::envelope::{Head, Header, write_frame};
use crate::error::{Error, ErrorCode};
use crate::feature::Feature;
use crate::id::IdGenerator;
use crate::json::{self, Limits, RawJson};
use crate::lease::{self, Lease};
use crate::machine::audit::SessionEnd;
use crate::machine::frame::{Frame, Receiver, Record, WireProfile};
use crate::machine::job::Ending;
use crate::machine::job::{Family, Held, Job, JobStart, LeaseEnd, Subscriber};
use crate::machine::kept::{KeptKey, StoreOp};
use crate::machine::session::Session;
use crate::message::{
    Accepted, Cancel, Cancelled, ClientMessage, Closed, LeaseConstraints, Pong, RuntimeMessage, SessionError, Submit,
    Subscribe, Subscribed, kind,
};
use crate::time::{Now, Timestamp};
use crate::trace::TraceContext;

/// Idempotency keys per principal.
#[derive(Debug, Default)]
pub(super) struct Idempotency {
    by_key: HashMap<(Arc<str>, String), Used>,
    by_number: HashMap<u64, (Arc<str>, String)>,
}

/// An idempotency key with its principal, and the parameters it is used with.
pub(super) type Claim = ((Arc<str>, String), [u8; 32]);

/// What a key was used for. Kept apart from the job, which may be forgotten before the key is.
#[derive(Debug)]
struct Used {
    fingerprint: [u8; 32],
    job_id: Arc<str>,
    /// The answer to the submit, without `request_id`.
    accepted: Accepted,
    trace_id: Arc<str>,
    expires_at: Timestamp,
    terminal: Option<Arc<Record>>,
}

impl Used {
    fn kept(&self, claim: &(Arc<str>, String)) -> KeptKey {
        KeptKey {
            principal: Arc::clone(&claim.0),
            key: claim.1.clone(),
            fingerprint: self.fingerprint,
            job_id: Arc::clone(&self.job_id),
            trace_id: Arc::clone(&self.trace_id),
            accepted: RawJson::from_serialize(&self.accepted).unwrap_or_else(|_| RawJson::empty_object()),
            expires_at: self.expires_at,
            terminal: self.terminal.clone(),
        }
    }
}

impl Idempotency {
    fn insert(&mut self, number: u64, claim: (Arc<str>, String), used: Used) {
        self.by_number.insert(number, claim.clone());
        self.by_key.insert(claim, used);
    }

    fn forget(&mut self, number: u64) -> Option<(Arc<str>, String)> {
        let claim = self.by_number.remove(&number)?;
        self.by_key.remove(&claim);
        Some(claim)
    }
}

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
}

impl RuntimeMachine {
    pub(super) fn handle_message(
        &mut self,
        now: Now,
        conn: ConnKey,
        key: SessionKey,
        head: &Head<'_>,
        message: ClientMessage,
    ) {
        let id = &*head.id;
        match message {
            ClientMessage::Ping(ping) => {
                let pong = Pong { ping_nonce: ping.nonce, received_at: Some(now.wall) };
                self.answer(now, conn, kind::SESSION_PONG, None, None, &pong);
            }
            ClientMessage::Pong(_) | ClientMessage::Ignored => {}
            ClientMessage::Ack(ack) => self.handle_ack(key, ack.last_processed_seq),
            ClientMessage::Close(close) => self.handle_close(now, conn, id, close.reason),
            ClientMessage::Bye(bye) => self.handle_close(now, conn, id, Some(bye.reason)),
            ClientMessage::Hello(_) => {
                let error = Error::invalid("this session is open already; session.hello comes once");
                self.answer_error(now, conn, error, Some(id.to_owned()));
            }
            ClientMessage::Unsubscribe(unsubscribe) => self.unsubscribe(key, &unsubscribe.job_id),
            ClientMessage::ListJobs(asked) => self.list_jobs(now, conn, key, id, asked),
            ClientMessage::Submit(_) | ClientMessage::Cancel(_) | ClientMessage::Subscribe(_) => {
                let Some(session) = self.sessions.get_mut(&key) else { return };
                // The same message again has no second effect; over another connection it is asked again
                // because its answer may have been lost (D-17).
                if session.is_repeat(id) {
                    if let Some(frame) = session.answer_again(id, conn) {
                        self.gate(now, Gated::Answer(key, conn, frame));
                    } else {
                        self.ask_again(key, id, conn);
                    }
                    return;
                }
                let audited = match &message {
                    ClientMessage::Submit(submit) => Audited::Submit { agent: submit.agent.clone() },
                    ClientMessage::Cancel(cancel) => Audited::Cancel { job_id: cancel.job_id.clone() },
                    ClientMessage::Subscribe(subscribe) => Audited::Subscribe { job_id: subscribe.job_id.clone() },
                    _ => return,
                };
                let done = match message {
                    ClientMessage::Submit(submit) => self.submit(now, conn, key, head, submit),
                    ClientMessage::Cancel(cancel) => self.cancel(now, conn, key, id, cancel),
                    ClientMessage::Subscribe(subscribe) => self.subscribe(now, conn, key, id, subscribe),
                    _ => Ok(()),
                };
                self.audit_request(now, key, &audited, &done);
                if let Err(error) = done {
                    let refusal = SessionError { error, request_id: Some(id.to_owned()) };
                    self.answer_request(now, conn, key, id, kind::SESSION_ERROR, None, &refusal);
                }
            }
        }
    }

    fn handle_ack(&mut self, key: SessionKey, last_processed_seq: u64) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        if session.features.has(Feature::Ack) {
            let freed = session.log.freed;
            session.ack(last_processed_seq);
            let (id, through) = (Arc::clone(session.id()), session.log.freed);
            if through > freed {
                self.keep_durable(|| StoreOp::Free { session: id, through });
            }
            self.events.push_back(RuntimeEvent::Drained(key));
            self.lag_fell(key);
        }
    }

    /// Answers a request that made something: once that is stored, and again if it is asked over another connection
    /// (D-17).
    #[allow(clippy::too_many_arguments, reason = "one message, each part from elsewhere")]
    pub(super) fn answer_request(
        &mut self,
        now: Now,
        conn: ConnKey,
        key: SessionKey,
        request_id: &str,
        kind: &'static str,
        job: Option<(Arc<str>, Arc<str>)>,
        payload: &impl Serialize,
    ) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let frame = answer_frame(&mut self.ids, now, session, kind, job, payload);
        session.remember_answer(request_id, conn, frame.clone());
        self.gate(now, Gated::Answer(key, conn, frame));
    }

    fn handle_close(&mut self, now: Now, conn: ConnKey, id: &str, reason: Option<String>) {
        let closed = Closed { reason: reason.filter(|text| !text.is_empty()), request_id: Some(id.to_owned()) };
        if let Some(key) = self.session_of(conn).map(|(key, _)| key) {
            self.audit_session_end(now, key, SessionEnd::Closed);
        }
        self.gate(now, Gated::Closed(conn, closed));
    }

    pub(super) fn say_closed(&mut self, now: Now, conn: ConnKey, closed: &Closed) {
        self.answer(now, conn, kind::SESSION_CLOSED, None, None, closed);
        self.close_conn(now, conn);
    }

    // ---- submit ------------------------------------------------------------------------------------------------

    fn submit(
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
        let claim = match &submit.idempotency_key {
            Some(name) => {
                let claim = (Arc::clone(&principal), name.clone());
                let fingerprint = fingerprint(&submit)?;
                if let Some(used) = self.idempotency.by_key.get(&claim) {
                    return self.repeat_accepted(now, conn, key, &id, &claim, used.fingerprint == fingerprint);
                }
                if self.idempotency.by_key.len() >= self.config.max_idempotency_keys {
                    let cap = self.config.max_idempotency_keys;
                    let error = Error::internal(format!("{cap} idempotency keys are kept already; submit again later"));
                    return Err(error.with_details(details("cap", "idempotency_keys")));
                }
                Some((claim, fingerprint))
            }
            None => None,
        };
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
        if let Some((claim, fingerprint)) = claim {
            let ttl = self.config.idempotency_ttl.max(self.config.retention);
            let used = Used {
                fingerprint,
                job_id: Arc::clone(&job_id),
                accepted: accepted.clone(),
                trace_id: Arc::clone(&trace_id),
                expires_at: now.wall.after(ttl),
                terminal: None,
            };
            self.keep_durable(|| StoreOp::SaveKey(Box::new(used.kept(&claim))));
            let number = self.fresh_key();
            self.idempotency.insert(number, claim, used);
            self.timers.set(Timer::Idempotency(number), now.mono + ttl);
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
            job_id: self.ids.job_id(now.wall).into(),
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

    fn answer_accepted(
        &mut self,
        now: Now,
        conn: ConnKey,
        key: SessionKey,
        request_id: &str,
        job: (Arc<str>, Arc<str>),
        accepted: Accepted,
    ) {
        let profile = self.sessions.get(&key).map(|session| session.name.profile).unwrap_or_default();
        let accepted = in_profile(profile, accepted, Some(request_id));
        self.answer_request(now, conn, key, request_id, kind::JOB_ACCEPTED, Some(job), &accepted);
    }

    /// Same key, same parameters: the same answer, and the terminal again if the job has ended.
    fn repeat_accepted(
        &mut self,
        now: Now,
        conn: ConnKey,
        key: SessionKey,
        request_id: &str,
        claim: &(Arc<str>, String),
        same: bool,
    ) -> Result<(), Error> {
        let Some(used) = self.idempotency.by_key.get(claim) else { return Ok(()) };
        if !same {
            let message = format!("idempotency_key {} was used with other parameters", claim.1);
            let details = details("existing_job_id", &used.job_id);
            return Err(Error::new(ErrorCode::DuplicateKey, message).with_details(details));
        }
        let (job_id, trace_id) = (Arc::clone(&used.job_id), Arc::clone(&used.trace_id));
        let (accepted, kept) = (used.accepted.clone(), used.terminal.clone());
        self.audit_accepted(now, key, &job_id, accepted.agent.as_deref().unwrap_or_default(), true);
        self.answer_accepted(now, conn, key, request_id, (Arc::clone(&job_id), trace_id), accepted);
        let awaits_store = self.storage.holds_terminal(key, &job_id);
        let known = self.jobs_by_id.get(&job_id).copied().and_then(|key| self.jobs.get_mut(&key).map(|job| (key, job)));
        let Some((job_key, job)) = known else {
            if let Some(terminal) = kept {
                self.send_copy(now, key, &terminal, Receiver::Principal);
            }
            return Ok(());
        };
        let foreign = job.session != Some(key);
        if awaits_store || job.subscribers.iter().any(|subscriber| subscriber.session == key) {
            // The terminal is on its way already, behind the events.
        } else if let Some(terminal) = job.terminal.clone() {
            let receiver = if foreign { Receiver::Principal } else { Receiver::Submitter };
            self.send_copy(now, key, &terminal, receiver);
        } else if foreign {
            job.subscribers.push(Subscriber { session: key, held: None });
            self.follow(key, job_key, &job_id);
        }
        Ok(())
    }

    /// This session follows the job from now on.
    fn follow(&mut self, key: SessionKey, job: JobKey, job_id: &Arc<str>) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        session.subscriptions.insert(job);
        let session = Arc::clone(session.id());
        self.keep_durable(|| StoreOp::Subscription { session, job_id: Arc::clone(job_id), follows: true });
    }

    /// The job is about to be forgotten: a repeat under its key still gets its end.
    pub(super) fn keep_terminal(&mut self, job: &Job) {
        if let Some(claim) = &job.claim
            && let Some(used) = self.idempotency.by_key.get_mut(claim)
        {
            used.terminal = job.terminal.clone();
            if self.config.durable {
                self.storage.keep(StoreOp::SaveKey(Box::new(used.kept(claim))));
            }
        }
    }

    /// Takes back an idempotency key after a restart.
    pub(super) fn restore_key(&mut self, now: Now, kept: KeptKey) -> Result<(), Error> {
        let number = self.fresh_key();
        let left = kept.expires_at.0.saturating_sub(now.wall.0).max(0).unsigned_abs();
        self.timers.set(Timer::Idempotency(number), now.mono + Duration::from_millis(left));
        let used = Used {
            fingerprint: kept.fingerprint,
            job_id: kept.job_id,
            accepted: read_accepted(&kept.accepted, &self.config.limits)?,
            trace_id: kept.trace_id,
            expires_at: kept.expires_at,
            terminal: kept.terminal,
        };
        self.idempotency.insert(number, (kept.principal, kept.key), used);
        Ok(())
    }

    /// A key lives at least as long as its job is kept.
    pub(super) fn expire_idempotency(&mut self, now: Now, number: u64) {
        let used = self.idempotency.by_number.get(&number).and_then(|claim| self.idempotency.by_key.get(claim));
        if used.is_some_and(|used| self.jobs_by_id.contains_key(&used.job_id)) {
            self.timers.set(Timer::Idempotency(number), now.mono + self.config.retention);
        } else if let Some((principal, key)) = self.idempotency.forget(number) {
            self.keep_durable(|| StoreOp::ForgetKey { principal, key });
        }
    }

    // ---- cancel ------------------------------------------------------------------------------------------------

    fn cancel(&mut self, now: Now, conn: ConnKey, key: SessionKey, id: &str, cancel: Cancel) -> Result<(), Error> {
        let job_key = self.visible_job(key, &cancel.job_id)?;
        let Some(job) = self.jobs.get(&job_key) else { return Ok(()) };
        if !self.may_cancel(key, job) {
            let message = "only the session that submitted a job may cancel it";
            return Err(Error::new(ErrorCode::PermissionDenied, message));
        }
        let status = job.status;
        let answer = Cancelled {
            job_id: cancel.job_id,
            reason: cancel.reason.clone().filter(|_| !status.is_terminal()),
            current_status: status.is_terminal().then_some(status),
            request_id: Some(id.to_owned()),
        };
        let job = (Arc::clone(&job.start.job_id), Arc::clone(&job.start.trace_id));
        self.answer_request(now, conn, key, id, kind::JOB_CANCELLED, Some(job), &answer);
        let reason = cancel.reason.unwrap_or_else(|| "no reason given".to_owned());
        self.end_job(now, job_key, Ending::Cancelled { reason });
        Ok(())
    }

    // ---- subscribe ---------------------------------------------------------------------------------------------

    fn subscribe(
        &mut self,
        now: Now,
        conn: ConnKey,
        key: SessionKey,
        id: &str,
        subscribe: Subscribe,
    ) -> Result<(), Error> {
        if !self.sessions.get(&key).is_some_and(|session| session.features.has(Feature::Subscribe)) {
            return Err(Error::invalid("subscribe was not negotiated; the welcome lists what was"));
        }
        let job_key = self.visible_job(key, &subscribe.job_id)?;
        let ticket = self.fresh_key();
        let awaits_store = self.storage.holds_copies(key, &subscribe.job_id);
        let Some(job) = self.jobs.get_mut(&job_key) else { return Ok(()) };
        let ended = job.status.is_terminal();
        // Each event reaches a session once: its own running job's are on their way already, and a second
        // subscription is the first one.
        let follows = job.subscribers.iter().any(|subscriber| subscriber.session == key);
        let own_live = job.session == Some(key) && (!ended || awaits_store);
        let fresh = !follows && !own_live;
        let after = subscribe.from_event_seq.unwrap_or(0);
        let replay = subscribe.history && fresh && job.job_seq > 0 && (after == 0 || job.source_seq > after);
        let answer = Subscribed {
            job_id: subscribe.job_id,
            current_status: job.status,
            agent: job.start.agent_ref(),
            lease: job.accepted.lease.clone(),
            lease_constraints: job.start.lease_constraints.clone(),
            budget: job.budget_json(),
            credentials: None,
            parent_job_id: job.start.parent_job_id.as_deref().map(str::to_owned),
            trace_id: Some(job.start.trace_id.to_string()),
            subscribed_from: job.source_seq,
            replayed: replay,
            request_id: Some(id.to_owned()),
        };
        let (job_id, trace_id) = (Arc::clone(&job.start.job_id), Arc::clone(&job.start.trace_id));
        if fresh && (replay || !ended) {
            let held = replay.then(|| Held { ticket, records: VecDeque::new() });
            job.subscribers.push(Subscriber { session: key, held });
            self.follow(key, job_key, &job_id);
        }
        self.answer_request(now, conn, key, id, kind::JOB_SUBSCRIBED, Some((Arc::clone(&job_id), trace_id)), &answer);
        if replay {
            self.history.insert(ticket, (job_key, key));
            self.events.push_back(RuntimeEvent::ReadHistory { ticket, job_id, after_source_seq: after });
        }
        Ok(())
    }

    /// Kept records, in order, for the subscription this ticket names; what happened meanwhile follows them.
    pub fn handle_history(&mut self, now: Now, ticket: u64, records: &[Arc<Record>]) {
        let Some((job_key, session)) = self.history.remove(&ticket) else { return };
        let Some(job) = self.jobs.get_mut(&job_key) else { return };
        let Some(subscriber) = job
            .subscribers
            .iter_mut()
            .find(|subscriber| subscriber.held.as_ref().is_some_and(|held| held.ticket == ticket))
        else {
            return;
        };
        let held = subscriber.held.take().map(|held| held.records).unwrap_or_default();
        let ended = job.status.is_terminal();
        if ended {
            job.subscribers.retain(|subscriber| subscriber.session != session);
            if let Some(session) = self.sessions.get_mut(&session) {
                session.subscriptions.remove(&job_key);
            }
        }
        if let Some(conn) = self.sessions.get(&session).and_then(|session| session.conn)
            && let Some(entry) = self.conns.get_mut(&conn)
        {
            entry.replaying = true;
        }
        let receiver = self.jobs.get(&job_key).map(|job| self.receiver(session, job)).unwrap_or_default();
        let known: HashSet<u64> = records.iter().map(|record| record.job_seq).collect();
        let late = held.iter().filter(|record| !known.contains(&record.job_seq));
        for record in records.iter().chain(late) {
            self.send_copy(now, session, record, receiver);
        }
    }

    /// Unknown jobs are ignored, and there is no answer.
    fn unsubscribe(&mut self, key: SessionKey, job_id: &str) {
        let Some(job_key) = self.jobs_by_id.get(job_id).copied() else { return };
        self.unfollow(key, job_key);
    }
}

/// A message that answers a request, under a new message id.
fn answer_frame(
    ids: &mut IdGenerator,
    now: Now,
    session: &Session,
    kind: &'static str,
    job: Option<(Arc<str>, Arc<str>)>,
    payload: &impl Serialize,
) -> Frame {
    // Serialising our own structs of strings and numbers does not fail.
    let payload = Bytes::from(serde_json::to_vec(payload).unwrap_or_else(|_| b"{}".to_vec()));
    let (job_id, trace_id) = job.unzip();
    let session_id = Some(Arc::clone(session.id()));
    Frame::Message { session_id, kind, id: ids.message_id(now.wall), job_id, trace_id, payload }
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

/// Reads a kept `job.accepted` payload as it would be read from the wire.
fn read_accepted(payload: &RawJson, limits: &Limits) -> Result<Accepted, Error> {
    let mut frame = Vec::new();
    let header = Header { kind: kind::JOB_ACCEPTED, id: "kept", ..Header::default() };
    write_frame(&mut frame, &header, payload.get().as_bytes());
    let head = Head::parse(&frame, limits).map_err(|refusal| refusal.error)?;
    match RuntimeMessage::parse(&head)? {
        RuntimeMessage::Accepted(accepted) => Ok(accepted),
        _ => Err(Error::internal("a kept job.accepted is something else")),
    }
}

fn in_profile(profile: WireProfile, mut accepted: Accepted, request_id: Option<&str>) -> Accepted {
    accepted.request_id = request_id.map(str::to_owned);
    if profile == WireProfile::Py11 {
        accepted.budget = accepted.budget.as_ref().and_then(text_budget);
    }
    accepted
}

/// What "same parameters" compares.
fn fingerprint(submit: &Submit) -> Result<[u8; 32], Error> {
    let constraints = submit.lease_constraints.as_ref().and_then(|constraints| constraints.expires_at.as_deref());
    let parts = serde_json::json!([submit.agent, constraints, submit.max_runtime_sec]);
    let mut text = json::canonical(&parts.to_string())?;
    text.extend(json::canonical(submit.input.get())?);
    text.extend(json::canonical(submit.lease_request.get())?);
    Ok(Sha256::digest(&text).into())
}

/// `{"USD":5}` as `{"USD":"USD:5"}`, which is what the published Python client reads (D-43).
pub(super) fn text_budget(budget: &RawJson) -> Option<RawJson> {
    let numbers: std::collections::BTreeMap<&str, &serde_json::value::RawValue> =
        serde_json::from_str(budget.get()).ok()?;
    let texts: std::collections::BTreeMap<&str, String> =
        numbers.into_iter().map(|(unit, amount)| (unit, format!("{unit}:{}", amount.get()))).collect();
    RawJson::from_serialize(&texts).ok()
}
