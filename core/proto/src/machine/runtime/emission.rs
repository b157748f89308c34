//! What agents do: events, operations and ends, from decision to numbered copies.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;

use super::storage::Gated;
use super::{JobKey, RuntimeEvent, RuntimeMachine, SessionKey, Timer};
use crate::budget::REMAINING_METRIC;
use crate::error::{Error, ErrorCode};
use crate::event::{self, EventBody, EventKind};
use crate::feature::Feature;
use crate::json::{RawJson, check_body};
use crate::lease::MODEL_USE;
use crate::machine::frame::{Receiver, Record, RecordKind};
use crate::machine::job::{Ending, Outcome};
use crate::machine::kept::StoreOp;
use crate::machine::session::Copied;
use crate::message::{JobError, JobStatus};
use crate::time::Now;

/// What an envelope around a body takes at most.
pub(super) const ENVELOPE_ROOM: usize = 4096;

impl RuntimeMachine {
    /// Whether the emitters of this job should wait for [`RuntimeEvent::Drained`] (D-20).
    pub fn must_wait(&mut self, job: JobKey) -> bool {
        let Some((key, session)) = self.session_of_job(job) else { return false };
        let (conn, lag) = (session.conn, session.event_seq - session.acked);
        let acks = session.features.has(Feature::Ack);
        if self.storage.is_full(&self.config) {
            // A slow store holds its writers back, whoever reads.
            self.storage.hold(key);
            return true;
        }
        let Some(conn) = conn else { return false };
        let lags = acks && lag > (self.config.buffer_cap.events / 2) as u64;
        let Some(entry) = self.conns.get_mut(&conn) else { return false };
        let full = entry.out_bytes >= self.config.buffer_cap.bytes / 4;
        let choked = lags || full || entry.out.len() >= self.config.outgoing_high_water;
        entry.choked |= choked;
        choked
    }

    /// An agent's event. The body must have passed [`event::check_emitted`].
    ///
    /// # Errors
    /// What a refused `tool_call` says (`PERMISSION_DENIED`, `LEASE_EXPIRED`, `BUDGET_EXHAUSTED`), and
    /// `INTERNAL_ERROR` while the store cannot keep events.
    pub fn emit(&mut self, now: Now, job: JobKey, kind: &EventKind, body: &RawJson) -> Result<(), Error> {
        if !self.takes_event(job, body)? {
            // What an abandoned agent still says is dropped.
            return Ok(());
        }
        match kind {
            EventKind::ToolCall => self.emit_tool_call(now, job, body),
            EventKind::Metric => {
                self.emit_metric(now, job, body);
                Ok(())
            }
            EventKind::Progress => {
                self.append_event(now, job, kind.as_str(), Some(Feature::Progress), body);
                Ok(())
            }
            EventKind::ResultChunk => self.emit_result_chunk(now, job, body),
            EventKind::Delegate => self.emit_delegate(now, job, body),
            // It would put a secret into the log, and name a value nobody could revoke (R-9.8.2.10).
            EventKind::Status if is_rotation(body) => Err(Error::invalid(
                "the phase credential_rotated is the runtime's own; rotate the credential instead of telling of it",
            )),
            _ => {
                self.append_event(now, job, kind.as_str(), None, body);
                Ok(())
            }
        }
    }

    /// Whether this body may be an event of the job: `false` once its agent has ended.
    pub(super) fn takes_event(&self, job: JobKey, body: &RawJson) -> Result<bool, Error> {
        self.check_store()?;
        if !self.jobs.get(&job).is_some_and(|job| !job.status.is_terminal() && job.family.held.is_none()) {
            return Ok(false);
        }
        let limit = self.body_cap();
        if body.get().len() > limit {
            let message = format!("an event body may have at most {limit} bytes, got {}", body.get().len());
            return Err(Error::invalid(message));
        }
        check_body(body.get())?;
        Ok(true)
    }

    /// The runtime itself checks `tool.call` where the agent announces it, and shows a refusal as the
    /// call's result.
    fn emit_tool_call(&mut self, now: Now, job: JobKey, body: &RawJson) -> Result<(), Error> {
        let EventBody::ToolCall { tool, call_id, .. } = EventBody::read("tool_call", body.as_raw()) else {
            return Err(Error::invalid("tool_call needs tool and call_id"));
        };
        self.append_event(now, job, "tool_call", None, body);
        let Err(error) = self.authorize(now, job, "tool.call", &tool) else { return Ok(()) };
        let result = event::tool_result(&call_id, Err(&error))?;
        self.append_event(now, job, "tool_result", None, &result);
        Err(error)
    }

    /// Charges a cost before the event is queued (D-19), and tells what is left after it.
    fn emit_metric(&mut self, now: Now, job: JobKey, body: &RawJson) {
        let EventBody::Metric { name, value, unit, .. } = EventBody::read("metric", body.as_raw()) else { return };
        if name == REMAINING_METRIC {
            // Only the runtime tells what is left.
            return;
        }
        let charged = self.charge(job, &name, unit.as_deref(), value);
        for (key, _) in charged.iter().flatten() {
            self.keep_state(*key);
        }
        match charged {
            Ok(charges) => {
                self.append_event(now, job, "metric", None, body);
                // The job's own first, then those of whoever delegated to it.
                for (charged, charge) in charges.into_iter().rev().filter(|(_, charge)| charge.report) {
                    let live = self.jobs.get(&charged).is_some_and(|job| !job.status.is_terminal());
                    if live
                        && let Ok(left) =
                            event::metric(REMAINING_METRIC, &charge.remaining.to_string(), unit.as_deref(), None)
                    {
                        self.append_event(now, charged, "metric", Some(Feature::CostBudget), &left);
                    }
                }
            }
            // A cost that cannot be booked is neither booked nor shown as if it were (R-9.6.8, D-30).
            Err(error) => {
                if let Ok(warning) = event::log("warn", &format!("metric {name} ignored: {}", error.message), None) {
                    self.append_event(now, job, "log", None, &warning);
                }
            }
        }
    }

    /// Checks one operation of a job against its lease. Past the end of the lease the job is ended too.
    ///
    /// # Errors
    /// `LEASE_EXPIRED`, `PERMISSION_DENIED`, `BUDGET_EXHAUSTED`, `INVALID_REQUEST` for an unknown namespace.
    pub fn authorize(&mut self, now: Now, job: JobKey, namespace: &str, target: &str) -> Result<(), Error> {
        let Some(entry) = self.jobs.get(&job) else {
            return Err(Error::new(ErrorCode::PermissionDenied, "the job has ended, and its lease with it"));
        };
        let ancestors = entry.family.ancestors.iter().rev();
        let budgets = ancestors.filter_map(|ancestor| self.jobs.get(ancestor)?.budget.as_ref());
        let mut verdict = entry.authorize(now, budgets.clone(), namespace, target);
        let denied = verdict.as_ref().is_err_and(|error| error.code == ErrorCode::PermissionDenied);
        if denied && namespace == MODEL_USE && !self.config.forbid_unnamed_models {
            verdict = entry.authorize_unnamed_model(budgets, target).unwrap_or(verdict);
        }
        if let Err(error) = &verdict {
            self.audit_operation(now, job, namespace, target, error);
        }
        if let Err(error) = &verdict
            && error.code == ErrorCode::LeaseExpired
        {
            self.end_job(now, job, Ending::LeaseExpired);
        }
        verdict
    }

    /// The agent ended. The first call counts; later ones change nothing. Living children end first: the
    /// terminal waits for them, at most the cancel grace.
    pub fn finish(&mut self, now: Now, job: JobKey, outcome: Outcome) {
        let Some(entry) = self.jobs.get_mut(&job) else { return };
        if entry.status.is_terminal() || entry.family.held.is_some() {
            return;
        }
        if entry.family.children.is_empty() {
            return self.terminate(now, job, outcome);
        }
        entry.family.held = Some(outcome);
        self.cancel_children(now, job);
        self.end_if_alone(now, job);
    }

    /// Tells how the job ended; nothing of it is left to wait for.
    pub(super) fn terminate(&mut self, now: Now, job: JobKey, outcome: Outcome) {
        let Some(entry) = self.jobs.get_mut(&job) else { return };
        let conclusion = entry.conclude(outcome);
        if entry.family.delegated && !entry.stream.as_ref().is_some_and(|stream| stream.has_begun()) {
            entry.family.result = conclusion.as_ref().ok().cloned();
        }
        match self.settle_result(now, job, conclusion) {
            Ok(payload) => self.conclude(now, job, JobStatus::Success, RecordKind::Result, &payload),
            Err((status, error)) => {
                let payload = JobError { final_status: status, error, completed_at: Some(now.wall) };
                self.conclude(now, job, status, RecordKind::Error(status), &payload);
            }
        }
    }

    fn conclude(&mut self, now: Now, key: JobKey, status: JobStatus, kind: RecordKind, payload: &impl Serialize) {
        // Serialising our own structs of strings and numbers does not fail.
        let payload = Bytes::from(serde_json::to_vec(payload).unwrap_or_else(|_| b"{}".to_vec()));
        let record = self.append(now, key, kind, None, payload);
        let Some(job) = self.jobs.get_mut(&key) else { return };
        let was_running = job.status == JobStatus::Running;
        job.status = status;
        job.terminal = record;
        self.index.ended(job);
        let (session, delegated, job_id) = (job.session, job.family.delegated, Arc::clone(&job.start.job_id));
        // A subscriber whose history is still on its way gets the terminal behind it.
        let (replaying, live): (Vec<_>, Vec<_>) =
            std::mem::take(&mut job.subscribers).into_iter().partition(|subscriber| subscriber.held.is_some());
        job.subscribers = replaying;
        for subscriber in live {
            if let Some(session) = self.sessions.get_mut(&subscriber.session) {
                session.subscriptions.remove(&key);
            }
        }
        if let Some(session) = session.and_then(|key| self.sessions.get_mut(&key)) {
            session.running.remove(&key);
        }
        for timer in [Timer::MaxRuntime(key), Timer::LeaseEnd(key), Timer::Grace(key)] {
            self.timers.clear(timer);
        }
        self.timers.set(Timer::Retention(key), now.mono + self.retention());
        self.ended.push_back(key);
        self.events.push_back(RuntimeEvent::Ended(key));
        self.end_credentials(&job_id);
        match (delegated, was_running) {
            (true, _) => self.delegated -= 1,
            (false, true) => self.running -= 1,
            (false, false) => self.waiting.retain(|waiting| *waiting != key),
        }
        self.leave_family(now, key);
        while self.ended.len() > self.config.max_ended_jobs
            && let Some(oldest) = self.oldest_without_heirs()
        {
            self.forget_job(now, oldest);
        }
        self.start_waiting(now);
    }

    fn start_waiting(&mut self, now: Now) {
        while self.running < self.config.max_concurrent_jobs
            && let Some(job) = self.waiting.pop_front()
        {
            self.start_job(now, job);
        }
    }

    /// The time limit runs from here, not from acceptance.
    pub(super) fn start_job(&mut self, now: Now, key: JobKey) {
        let Some(job) = self.jobs.get_mut(&key) else { return };
        job.status = JobStatus::Running;
        if !job.family.delegated {
            self.running += 1;
        }
        if let Some(limit) = job.max_runtime {
            self.timers.set(Timer::MaxRuntime(key), now.mono + limit);
        }
        self.keep_state(key);
        self.gate(now, Gated::Start(key));
    }

    /// The job is stored: its agent may begin, unless it ended meanwhile.
    pub(super) fn start_agent(&mut self, key: JobKey) {
        if let Some(job) = self.jobs.get_mut(&key).filter(|job| job.status == JobStatus::Running) {
            job.started = true;
            let start = Arc::clone(&job.start);
            self.events.push_back(RuntimeEvent::Start { job: key, start });
        }
    }

    /// Keeps a job's state and counters.
    pub(super) fn keep_state(&mut self, key: JobKey) {
        let Some(job) = self.jobs.get(&key).filter(|_| self.config.durable) else { return };
        let (job_id, status, budget) = (Arc::clone(&job.start.job_id), job.status, job.budget_json());
        self.storage.keep(StoreOp::UpdateJob { job_id, status, budget });
    }

    /// How long an ended job is kept: at least as long as somebody may come back for it.
    pub(super) fn retention(&self) -> Duration {
        self.config.retention.max(self.config.resume_window)
    }

    /// Makes a job give way; one that never started ends at once.
    pub(super) fn end_job(&mut self, now: Now, key: JobKey, ending: Ending) {
        let Some(job) = self.jobs.get_mut(&key) else { return };
        if job.status.is_terminal() || job.is_closing() {
            return;
        }
        job.ending = Some(ending.clone());
        let started = job.started;
        if ending == Ending::LeaseExpired {
            self.audit_expiry(now, key);
        }
        if !started {
            return self.finish(now, key, Outcome::Cancelled);
        }
        self.cancel_children(now, key);
        self.timers.set(Timer::Grace(key), now.mono + self.config.cancel_grace);
        self.events.push_back(RuntimeEvent::Cancel { job: key, ending });
    }

    pub(super) fn append_event(&mut self, now: Now, job: JobKey, kind: &str, feature: Option<Feature>, body: &RawJson) {
        let mut payload = Vec::with_capacity(body.get().len() + kind.len() + 64);
        event::write_event_payload(&mut payload, kind, now.wall, body.get().as_bytes());
        self.append(now, job, RecordKind::Event, feature, payload.into());
    }

    /// Numbers a record in its job and in every session that sees it, in one step with handing it to the store
    ///
    pub(super) fn append(
        &mut self,
        now: Now,
        key: JobKey,
        kind: RecordKind,
        feature: Option<Feature>,
        payload: Bytes,
    ) -> Option<Arc<Record>> {
        let job = self.jobs.get_mut(&key)?;
        job.job_seq += 1;
        let mut submitter = job.session.and_then(|key| self.sessions.get_mut(&key).map(|session| (key, session)));
        let event_seq = match &mut submitter {
            Some((_, session)) if session.sees(feature) => Some(session.next_seq()),
            _ => None,
        };
        match event_seq {
            Some(event_seq) => job.source_seq = event_seq,
            // The session is gone; its numbers go on, so that a place in the history can still be named.
            None if submitter.is_none() => job.source_seq += 1,
            None => {}
        }
        let record = Arc::new(Record {
            job_id: Arc::clone(&job.start.job_id),
            trace_id: Arc::clone(&job.start.trace_id),
            kind,
            job_seq: job.job_seq,
            source_seq: job.source_seq,
            at: now.wall,
            feature,
            payload,
        });
        self.totals.events_emitted += 1;
        self.storage.keep(StoreOp::Append(Arc::clone(&record)));
        let submitter = submitter.map(|(key, _)| key);
        let mut others = Vec::new();
        for subscriber in &mut job.subscribers {
            match &mut subscriber.held {
                Some(held) => held.records.push_back(Arc::clone(&record)),
                None => others.push(subscriber.session),
            }
        }
        if let (Some(key), Some(event_seq)) = (submitter, event_seq) {
            self.hand_out(now, key, event_seq, Copied { record: Arc::clone(&record), receiver: Receiver::Submitter });
        }
        for session in others {
            let receiver = self.jobs.get(&key).map(|job| self.receiver(session, job)).unwrap_or_default();
            self.send_copy(now, session, &record, receiver);
        }
        self.watch_lag(now, key, kind);
        Some(record)
    }

    /// Sends a numbered copy, once it is stored.
    fn hand_out(&mut self, now: Now, key: SessionKey, event_seq: u64, copied: Copied) {
        self.keep_number(key, event_seq, &copied.record);
        self.gate(now, Gated::Copy(key, copied));
    }

    fn keep_number(&mut self, key: SessionKey, event_seq: u64, record: &Arc<Record>) {
        if self.config.durable
            && let Some(session) = self.sessions.get(&key)
        {
            let (session, record) = (Arc::clone(session.id()), Arc::clone(record));
            self.storage.keep(StoreOp::Number { session, event_seq, record });
        }
    }

    /// Gives a kept record one more session's next number, if that session sees it.
    pub(super) fn number_copy(&mut self, key: SessionKey, record: &Arc<Record>, receiver: Receiver) -> Option<Copied> {
        let session = self.sessions.get_mut(&key).filter(|session| session.sees(record.feature))?;
        let event_seq = session.next_seq();
        self.keep_number(key, event_seq, record);
        Some(Copied { record: Arc::clone(record), receiver })
    }

    /// Sends a kept record to one more session, under that session's next number.
    pub(super) fn send_copy(&mut self, now: Now, key: SessionKey, record: &Arc<Record>, receiver: Receiver) {
        if let Some(copied) = self.number_copy(key, record, receiver) {
            self.gate(now, Gated::Copy(key, copied));
        }
    }
}

fn is_rotation(body: &RawJson) -> bool {
    match EventBody::read("status", body.as_raw()) {
        EventBody::Status { phase, .. } => phase == "credential_rotated",
        _ => false,
    }
}
