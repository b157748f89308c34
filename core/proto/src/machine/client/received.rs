//! What arrives from the runtime.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::stash::Stashed;
use super::{ClientEvent, ClientMachine, JobEvent, Loss, Pending, Request, State, Ticket, Timer};
use crate::envelope::Head;
use crate::error::{Error, ErrorCode};
use crate::event::{EventPayload, ResultChunk};
use crate::feature::{self, Feature, FeatureSet};
use crate::json::{pick, unsigned};
use crate::machine::heartbeat::Heartbeat;
use crate::message::{Accepted, JobError, JobResult, JobStatus, Pong, RuntimeMessage, Subscribed, kind};
use crate::time::Now;

/// Seconds; a runtime that asks for more is watched as if it had asked for a day.
const LONGEST_HEARTBEAT: u64 = 86_400;

impl ClientMachine {
    /// Takes one received message. A malformed one never ends the session.
    pub fn handle_frame(&mut self, now: Now, frame: &Bytes) {
        if matches!(self.state, State::Idle | State::Cut | State::Closed) {
            return;
        }
        if let Some(heartbeat) = &mut self.heartbeat {
            heartbeat.received(now.mono);
        }
        self.handle_message_frame(now, frame);
        self.release_stash(now);
    }

    fn handle_message_frame(&mut self, now: Now, frame: &Bytes) {
        let head = match Head::parse(frame, &self.config.limits) {
            Ok(head) => head,
            Err(refusal) => {
                let counted = refusal.kind.as_deref().is_some_and(kind::is_numbered);
                if let Some(seq) = refusal.event_seq.filter(|_| counted) {
                    let id = refusal.id.as_deref().unwrap_or_default();
                    if !self.advance(now, seq, id, refusal.job_id.as_deref(), false) {
                        return;
                    }
                    self.processed(now, self.base + seq);
                }
                return self.blame(refusal.kind.as_deref(), refusal.job_id.as_deref(), refusal.error);
            }
        };
        if self.state == State::Handshaking {
            return match RuntimeMessage::parse(&head) {
                Ok(message) => self.handle_answer_to_hello(now, &head, message),
                Err(error) => self.not_welcomed(now, Some(error)),
            };
        }
        // A published Python runtime repeats an answer to an idempotency key as it was, the session of then included.
        if let (Some(named), Some(own)) = (&head.session_id, &self.session_id)
            && **named != **own
            && !self.link.is_py11
        {
            return;
        }
        let job_id = head.job_id.as_deref();
        // A message that is refused for its payload has its number all the same (D-29).
        if kind::is_numbered(&head.kind) {
            let ends = head.kind != kind::JOB_EVENT;
            match head.event_seq {
                Some(seq) if !self.advance(now, seq, &head.id, job_id, ends) => return,
                Some(_) => {}
                None => {
                    let error = Error::invalid(format!("{} without event_seq", head.kind));
                    return self.blame(Some(&head.kind), job_id, error);
                }
            }
        }
        match RuntimeMessage::parse(&head) {
            Ok(RuntimeMessage::Event) => self.handle_event(now, frame, &head),
            Ok(message) => self.handle_message(now, &head, message),
            Err(error) => {
                self.count_unread(now, &head);
                self.blame(Some(&head.kind), job_id, error);
            }
        }
    }

    /// Counts one number. `false` when the message is to be dropped: a repeat, or behind a gap.
    fn advance(&mut self, now: Now, seq: u64, id: &str, job_id: Option<&str>, ends: bool) -> bool {
        if let Some(recent) = &mut self.recent {
            if recent.repeats_numbers {
                // An end comes under one id to every submit of its key, and a handle that is open has not had it.
                let awaited = ends && job_id.is_some_and(|job_id| self.routes.contains_key(job_id));
                let new = recent.is_new(id) || awaited;
                self.last_seq = self.last_seq.max(seq);
                return new;
            }
            if seq <= self.last_seq {
                let follows = |job_id: &str| self.routes.get(job_id).is_some_and(|route| !route.own);
                let again = !self.link.resumed && job_id.is_some_and(follows) && recent.was_another(seq, id);
                if again {
                    recent.go_by_ids();
                    recent.is_new(id);
                }
                return again;
            }
            if seq == self.last_seq + 1 {
                recent.note(seq, id);
            }
        }
        if seq <= self.last_seq {
            return false;
        }
        let expected = self.last_seq + 1;
        if seq > expected {
            self.lose(now, Loss::Gap { expected, got: seq });
            return false;
        }
        self.last_seq = seq;
        true
    }

    /// A terminal, or what cannot be read, waits for no reader.
    fn count_unread(&mut self, now: Now, head: &Head<'_>) {
        if let Some(seq) = head.event_seq {
            self.processed(now, self.base + seq);
        }
    }

    /// Once every submit that was sent again is answered, nobody will ask for the jobs nobody knows.
    pub(super) fn release_stash(&mut self, now: Now) {
        if !self.stash.is_empty() && !self.is_holding() {
            for position in self.stash.clear() {
                self.processed(now, position);
            }
        }
    }

    fn is_holding(&self) -> bool {
        self.repeated_submits > 0 || self.link.took_up
    }

    /// Whether the first handle of this job, or the one of its submit, may be yet to come.
    fn is_awaited(&self, job_id: &str) -> bool {
        match self.routes.get(job_id) {
            None => self.is_holding(),
            Some(route) => self.repeated_submits > 0 && !route.own,
        }
    }

    /// A terminal that cannot be read ends the handles it names with the error; anything else is passed over and
    /// reported, and the rest goes on.
    fn blame(&mut self, kind: Option<&str>, job_id: Option<&str>, error: Error) {
        match job_id.filter(|job_id| kind != Some(kind::JOB_EVENT) && self.routes.contains_key(*job_id)) {
            Some(job_id) => self.end_handles(job_id, Err(error)),
            None => self.events.push_back(ClientEvent::SessionError(error)),
        }
    }

    fn handle_answer_to_hello(&mut self, now: Now, head: &Head<'_>, message: RuntimeMessage) {
        match message {
            RuntimeMessage::Welcome(welcome) => {
                if !self.link.welcomed
                    && let Some((wanted, _)) = self.link.point.as_ref().filter(|(id, _)| *id != welcome.session_id)
                {
                    let message = format!("asked to resume {wanted}, the runtime began {}", welcome.session_id);
                    return self.not_welcomed(now, Some(Error::invalid(message)));
                }
                self.timers.clear(Timer::Handshake);
                self.state = State::Open;
                self.session_id = Some(welcome.session_id.as_str().into());
                let negotiated = feature::intersect(&self.config.features, &welcome.capabilities.features);
                self.features = FeatureSet::new(&negotiated);
                if let Some(seconds) = welcome.heartbeat_interval_sec.filter(|_| self.features.has(Feature::Heartbeat))
                {
                    let watch = Heartbeat::new(Duration::from_secs(seconds.min(LONGEST_HEARTBEAT)), now.mono);
                    self.timers.set(Timer::Heartbeat, watch.first_check());
                    self.heartbeat = Some(watch);
                }
                // Others name their messages otherwise or leave the time out.
                self.link.is_py11 = head.has_bare_ulid() && welcome.accepted_at.is_some();
                let welcome = Arc::new(welcome);
                self.welcome = Some(Arc::clone(&welcome));
                self.take_up(now, &welcome);
            }
            RuntimeMessage::Error(refusal) => self.not_welcomed(now, Some(refusal.error)),
            // A runtime that stops says so; another may take its place.
            RuntimeMessage::Bye(bye) if self.link.heals => self.lose(now, Loss::Bye(bye.reason)),
            _ => {
                let error = Error::invalid(format!("expected session.welcome, the runtime sent {}", head.kind));
                self.not_welcomed(now, Some(error));
            }
        }
    }

    fn handle_message(&mut self, now: Now, head: &Head<'_>, message: RuntimeMessage) {
        self.count_unread(now, head);
        match message {
            RuntimeMessage::Result(result) => self.end_job(head, as_outcome(result)),
            RuntimeMessage::JobError(JobError { error, .. }) => self.handle_job_error(head, error),
            RuntimeMessage::Accepted(accepted) => self.handle_accepted(now, accepted),
            RuntimeMessage::Subscribed(subscribed) => self.handle_subscribed(subscribed),
            RuntimeMessage::Cancelled(cancelled) => {
                let fits = |what: &Request| *what == Request::Cancel;
                if let Some((ticket, _)) = self.answered(cancelled.request_id.as_deref(), None, fits) {
                    self.events.push_back(ClientEvent::Cancelled(ticket, cancelled.current_status));
                }
            }
            RuntimeMessage::Error(refusal) => self.handle_session_error(refusal.request_id.as_deref(), refusal.error),
            RuntimeMessage::Ping(ping) => {
                let pong = Pong { ping_nonce: ping.nonce, received_at: Some(now.wall) };
                let id = self.ids.message_id(now.wall);
                self.send(now, kind::SESSION_PONG, &id, None, None, &pong);
            }
            RuntimeMessage::Closed(_) if self.state == State::Closing => self.closed(),
            // Nobody asked for it: the runtime wants no more of this session.
            RuntimeMessage::Closed(closed) => {
                self.end(ClientEvent::Lost(Loss::Bye(closed.reason.unwrap_or_default())));
            }
            RuntimeMessage::Bye(_) if self.state == State::Closing => self.closed(),
            RuntimeMessage::Bye(bye) => self.lose(now, Loss::Bye(bye.reason)),
            RuntimeMessage::Jobs(jobs) => {
                let named = Some(jobs.request_id.as_str()).filter(|id| !id.is_empty());
                if let Some((ticket, _)) = self.answered(named, None, |what| *what == Request::ListJobs) {
                    self.events.push_back(ClientEvent::Jobs(ticket, Box::new(jobs)));
                }
            }
            RuntimeMessage::Pong(pong) => {
                let ticket = self.pending_by_id.get(&pong.ping_nonce).copied();
                if let Some((ticket, Request::Cancel)) = ticket.and_then(|ticket| self.settle(ticket)) {
                    self.events.push_back(ClientEvent::Cancelled(ticket, None));
                }
            }
            RuntimeMessage::Event | RuntimeMessage::Welcome(_) | RuntimeMessage::Ignored => {}
        }
    }

    fn handle_event(&mut self, now: Now, frame: &Bytes, head: &Head<'_>) {
        let (Some(seq), Some(job_id)) = (head.event_seq, head.job_id.as_deref()) else { return };
        match self.read_event(frame, head, seq) {
            Ok((event, chunk)) => {
                let source = head.extensions.and_then(source_of);
                let delivered = self.deliver(job_id, &event, source, chunk.as_ref(), None);
                let mut kept = false;
                if self.is_awaited(job_id) {
                    kept = self.stash.keep(job_id, Stashed::Event(event, source, chunk), frame.len());
                    if !kept {
                        let message = format!("too many events wait for {job_id}; number {seq} was dropped");
                        self.events.push_back(ClientEvent::SessionError(Error::invalid(message)));
                    }
                }
                // What waits for nobody in particular must not hold the runtime back.
                if delivered || kept && !self.link.took_up {
                    return;
                }
            }
            Err(error) => self.events.push_back(ClientEvent::SessionError(error)),
        }
        // Nobody will take it.
        self.processed(now, self.base + seq);
    }

    fn read_event(&self, frame: &Bytes, head: &Head<'_>, seq: u64) -> Result<(JobEvent, Option<ResultChunk>), Error> {
        let payload = EventPayload::parse(head.payload.get())?;
        let chunk = match &*payload.kind {
            "result_chunk" => Some(ResultChunk::read(payload.body)?),
            _ => None,
        };
        let event = JobEvent {
            event_seq: seq,
            position: self.base + seq,
            kind: part(frame, payload.kind),
            ts: part(frame, payload.ts),
            body: frame.slice_ref(payload.body.get().as_bytes()),
        };
        Ok((event, chunk))
    }

    fn end_job(&mut self, head: &Head<'_>, outcome: Result<Box<JobResult>, Error>) {
        match head.job_id.as_deref() {
            Some(job_id) => {
                // A second submit under one idempotency key may be answered with this job yet.
                if self.is_awaited(job_id) || self.repeated_submits > 0 {
                    self.stash.keep(job_id, Stashed::End(outcome.clone()), head.payload.get().len());
                }
                self.end_handles(job_id, outcome);
            }
            None => self.blame(None, None, Error::invalid(format!("{} without job_id", head.kind))),
        }
    }

    /// Published TypeScript runtimes refuse a submit with a `job.error` for a job nobody knows.
    fn handle_job_error(&mut self, head: &Head<'_>, error: Error) {
        let known = head.job_id.as_deref().is_some_and(|job_id| self.routes.contains_key(job_id));
        // While jobs without an answer may be replayed, it is rather the end of one.
        if (known || self.is_holding()) && error.code != ErrorCode::DuplicateKey {
            return self.end_job(head, Err(error));
        }
        match self.answered(None, head.trace_id.as_deref(), is_submit) {
            Some((_, Request::Submit { abandoned: true, .. })) => {}
            Some((ticket, _)) => self.events.push_back(ClientEvent::Refused(ticket, error)),
            None => self.events.push_back(ClientEvent::SessionError(error)),
        }
    }

    fn handle_accepted(&mut self, now: Now, accepted: Accepted) {
        if accepted.request_id.is_none() && accepted.parent_job_id.is_some() && accepted.delegate_id.is_some() {
            // An agent's delegation is told, it answers no submit.
            return;
        }
        let trace_id = accepted.trace_id.as_deref();
        let Some((ticket, what)) = self.answered(accepted.request_id.as_deref(), trace_id, is_submit) else {
            return;
        };
        if matches!(what, Request::Submit { abandoned: true, .. }) {
            self.cancel(now, &accepted.job_id, "the submit was abandoned");
            return;
        }
        let job_id = accepted.job_id.clone();
        let handle = self.open_handle(&job_id, true, 0);
        self.events.push_back(ClientEvent::Accepted(ticket, handle, Box::new(accepted)));
        self.deliver_stashed(now, &job_id, handle);
    }

    fn handle_subscribed(&mut self, subscribed: Subscribed) {
        let follows = |pending: &Pending| matches!(pending.what, Request::Subscribe(_) | Request::Reattach(_));
        let of_job = |pending: &Pending| match &pending.what {
            Request::Subscribe(handle) => self.jobs.get(handle).is_some_and(|job_id| **job_id == *subscribed.job_id),
            Request::Reattach(job_id) => **job_id == *subscribed.job_id,
            _ => false,
        };
        let named = subscribed.request_id.as_deref().and_then(|id| self.pending_by_id.get(id)).copied();
        // The handle may have ended already, where history comes before the answer.
        let named = named.filter(|ticket| self.pending.get(ticket).is_some_and(follows));
        let first = || {
            // An answer that names another request, such as one repeated after a restart, settles none of these.
            let unnamed = subscribed.request_id.is_none();
            self.pending.iter().find(|(_, pending)| unnamed && of_job(pending)).map(|(ticket, _)| *ticket)
        };
        let Some((ticket, what)) = named.or_else(first).and_then(|ticket| self.settle(ticket)) else { return };
        // Where history comes before the answer, an end that was kept is here already.
        let ended = subscribed.current_status.is_terminal() && (!subscribed.replayed || self.link.is_py11);
        let (job_id, status) = (subscribed.job_id.clone(), subscribed.current_status);
        match what {
            Request::Subscribe(handle) => {
                // What came before is not wanted, also not by a later subscription in place of this one.
                if let Some(view) = self.view(&job_id, handle)
                    && !subscribed.replayed
                    && view.source_seq == 0
                {
                    view.source_seq = subscribed.subscribed_from;
                }
                self.events.push_back(ClientEvent::Subscribed(ticket, handle, Box::new(subscribed)));
                if ended {
                    // Nothing follows: without history the terminal is not sent again.
                    self.end_handles(&job_id, Err(ended_before(&job_id, status, self.link.is_py11)));
                }
            }
            Request::Reattach(_) if ended => {
                self.cannot_reattach(&job_id, &format!("it ended as {} and is not kept any more", status.as_str()));
            }
            _ => {}
        }
    }

    /// An error fails only the request it names; without a name, the oldest.
    fn handle_session_error(&mut self, request_id: Option<&str>, error: Error) {
        let ticket = match request_id {
            Some(id) => self.pending_by_id.get(id).copied(),
            None => self.pending.keys().next().copied(),
        };
        match ticket {
            Some(ticket) => self.refuse(ticket, error),
            None => self.events.push_back(ClientEvent::SessionError(error)),
        }
    }

    /// The request an answer belongs to: by request id, else by trace, else the oldest of its kind (D-42). An abandoned
    /// submit keeps its place in the order.
    fn answered(
        &mut self,
        request_id: Option<&str>,
        trace_id: Option<&str>,
        fits: fn(&Request) -> bool,
    ) -> Option<(Ticket, Request)> {
        if let Some(id) = request_id {
            let ticket = *self.pending_by_id.get(id)?;
            return self.settle(ticket);
        }
        let of_kind = || self.pending.iter().filter(|(_, pending)| fits(&pending.what));
        let ticket = of_kind()
            .find(|(_, pending)| trace_id.is_some() && pending.trace_id.as_deref() == trace_id)
            .or_else(|| of_kind().next())
            .map(|(ticket, _)| *ticket)?;
        self.settle(ticket)
    }
}

fn is_submit(what: &Request) -> bool {
    matches!(what, Request::Submit { .. })
}

/// The number in the space of the session that submitted the job, on copies for other sessions.
fn source_of(extensions: &RawValue) -> Option<u64> {
    let [source] = pick(extensions.get(), &["x-vendor.arcp.source_event_seq"]).ok()?;
    source.and_then(unsigned)
}

fn ended_before(job_id: &str, status: JobStatus, is_py11: bool) -> Error {
    let rest = if is_py11 {
        "its runtime kept no more of it, or was not asked for history"
    } else {
        "subscribe with history to see how"
    };
    let message = format!("job {job_id} had ended as {}; {rest}", status.as_str());
    Error::new(ErrorCode::JobNotFound, message)
}

/// A slice of the frame where the text stands in it, a copy where it was escaped.
fn part(frame: &Bytes, text: Cow<'_, str>) -> Bytes {
    match text {
        Cow::Borrowed(text) => frame.slice_ref(text.as_bytes()),
        Cow::Owned(text) => Bytes::copy_from_slice(text.as_bytes()),
    }
}

/// A published runtime ends cancelled and timed out jobs with a `job.result` (D-52, D-53).
fn as_outcome(result: JobResult) -> Result<Box<JobResult>, Error> {
    let code = match result.final_status {
        JobStatus::Cancelled => ErrorCode::Cancelled,
        JobStatus::TimedOut => ErrorCode::Timeout,
        _ => return Ok(Box::new(result)),
    };
    let message = result.summary.unwrap_or_else(|| format!("the job ended as {}", result.final_status.as_str()));
    Err(Error::new(code, message))
}
