//! What arrives from the runtime.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{ClientEvent, ClientMachine, JobEvent, Loss, Request, State, Ticket, Timer};
use crate::envelope::Head;
use crate::error::{Error, ErrorCode};
use crate::event::{EventPayload, ResultChunk};
use crate::feature::{self, Feature, FeatureSet};
use crate::machine::heartbeat::Heartbeat;
use crate::message::{Accepted, JobError, JobResult, JobStatus, Pong, RuntimeMessage, Subscribed, kind};
use crate::time::Now;

/// Seconds; a runtime that asks for more is watched as if it had asked for a day.
const LONGEST_HEARTBEAT: u64 = 86_400;

impl ClientMachine {
    /// Takes one received message. A malformed one never ends the session.
    pub fn handle_frame(&mut self, now: Now, frame: &Bytes) {
        if matches!(self.state, State::Idle | State::Closed) {
            return;
        }
        if let Some(heartbeat) = &mut self.heartbeat {
            heartbeat.received(now.mono);
        }
        let head = match Head::parse(frame, &self.config.limits) {
            Ok(head) => head,
            Err(refusal) => {
                let counted = refusal.kind.as_deref().is_some_and(kind::is_numbered);
                if let Some(seq) = refusal.event_seq.filter(|_| counted) {
                    if !self.advance(seq) {
                        return;
                    }
                    self.processed(now, seq);
                }
                return self.blame(refusal.kind.as_deref(), refusal.job_id.as_deref(), refusal.error);
            }
        };
        if let (Some(named), Some(own)) = (&head.session_id, &self.session_id)
            && **named != **own
        {
            return;
        }
        let job_id = head.job_id.as_deref();
        // A message that is refused for its payload has its number all the same (D-29).
        if kind::is_numbered(&head.kind) {
            match head.event_seq {
                Some(seq) if !self.advance(seq) => return,
                Some(_) => {}
                None => {
                    let error = Error::invalid(format!("{} without event_seq", head.kind));
                    return self.blame(Some(&head.kind), job_id, error);
                }
            }
        }
        match RuntimeMessage::parse(&head) {
            Ok(message) if self.state == State::Handshaking => self.handle_answer_to_hello(now, &head, message),
            Ok(RuntimeMessage::Event) => self.handle_event(now, frame, &head),
            Ok(message) => self.handle_message(now, &head, message),
            Err(error) if self.state == State::Handshaking => {
                self.not_welcomed(Some(error));
            }
            Err(error) => {
                if kind::is_numbered(&head.kind) {
                    self.processed(now, self.last_seq);
                }
                self.blame(Some(&head.kind), job_id, error);
            }
        }
    }

    /// Counts one number. `false` when the message is to be dropped: a repeat, or behind a gap.
    fn advance(&mut self, seq: u64) -> bool {
        if seq <= self.last_seq {
            return false;
        }
        let expected = self.last_seq + 1;
        if seq > expected {
            self.lose(Loss::Gap { expected, got: seq });
            return false;
        }
        self.last_seq = seq;
        true
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
                let welcome = Arc::new(welcome);
                self.welcome = Some(Arc::clone(&welcome));
                self.events.push_back(ClientEvent::Welcomed(welcome));
            }
            RuntimeMessage::Error(refusal) => {
                self.not_welcomed(Some(refusal.error));
            }
            _ => {
                let error = Error::invalid(format!("expected session.welcome, the runtime sent {}", head.kind));
                self.not_welcomed(Some(error));
            }
        }
    }

    fn handle_message(&mut self, now: Now, head: &Head<'_>, message: RuntimeMessage) {
        if kind::is_numbered(&head.kind) {
            // A terminal waits for no reader.
            self.processed(now, self.last_seq);
        }
        match message {
            RuntimeMessage::Result(result) => self.end_job(head, as_outcome(result)),
            RuntimeMessage::JobError(JobError { error, .. }) => self.handle_job_error(head, error),
            RuntimeMessage::Accepted(accepted) => self.handle_accepted(now, accepted),
            RuntimeMessage::Subscribed(subscribed) => self.handle_subscribed(subscribed),
            RuntimeMessage::Cancelled(cancelled) => {
                if let Some((ticket, _)) = self.answered(cancelled.request_id.as_deref(), None, &Request::Cancel) {
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
            RuntimeMessage::Closed(closed) => self.lose(Loss::Bye(closed.reason.unwrap_or_default())),
            RuntimeMessage::Bye(_) if self.state == State::Closing => self.closed(),
            RuntimeMessage::Bye(bye) => self.lose(Loss::Bye(bye.reason)),
            RuntimeMessage::Event
            | RuntimeMessage::Pong(_)
            | RuntimeMessage::Jobs(_)
            | RuntimeMessage::Welcome(_)
            | RuntimeMessage::Ignored => {}
        }
    }

    fn handle_event(&mut self, now: Now, frame: &Bytes, head: &Head<'_>) {
        let event = self.read_event(frame, head);
        let handles = head.job_id.as_deref().and_then(|job_id| self.routes.get(job_id));
        match (event, handles) {
            (Ok(event), Some(handles)) => {
                for handle in handles {
                    self.events.push_back(ClientEvent::Event(*handle, event.clone()));
                }
                return;
            }
            (Ok(_), None) => {}
            (Err(error), _) => self.events.push_back(ClientEvent::SessionError(error)),
        }
        // Nobody will take it.
        self.processed(now, self.last_seq);
    }

    fn read_event(&self, frame: &Bytes, head: &Head<'_>) -> Result<JobEvent, Error> {
        let payload = EventPayload::parse(head.payload.get())?;
        if payload.kind == "result_chunk" {
            ResultChunk::read(payload.body)?;
        }
        Ok(JobEvent {
            event_seq: self.last_seq,
            kind: part(frame, payload.kind),
            ts: part(frame, payload.ts),
            body: frame.slice_ref(payload.body.get().as_bytes()),
        })
    }

    fn end_job(&mut self, head: &Head<'_>, outcome: Result<Box<JobResult>, Error>) {
        match head.job_id.as_deref() {
            Some(job_id) => self.end_handles(job_id, outcome),
            None => self.blame(None, None, Error::invalid(format!("{} without job_id", head.kind))),
        }
    }

    /// Published TypeScript runtimes refuse a submit with a `job.error` for a job nobody knows.
    fn handle_job_error(&mut self, head: &Head<'_>, error: Error) {
        let known = head.job_id.as_deref().is_some_and(|job_id| self.routes.contains_key(job_id));
        if known && error.code != ErrorCode::DuplicateKey {
            return self.end_job(head, Err(error));
        }
        match self.answered(None, head.trace_id.as_deref(), &Request::Submit) {
            Some((ticket, _)) => self.events.push_back(ClientEvent::Refused(ticket, error)),
            None => self.events.push_back(ClientEvent::SessionError(error)),
        }
    }

    fn end_handles(&mut self, job_id: &str, outcome: Result<Box<JobResult>, Error>) {
        for handle in self.routes.remove(job_id).unwrap_or_default() {
            self.jobs.remove(&handle);
            self.events.push_back(ClientEvent::Ended(handle, outcome.clone()));
        }
    }

    fn handle_accepted(&mut self, now: Now, accepted: Accepted) {
        if accepted.request_id.is_none() && accepted.parent_job_id.is_some() && accepted.delegate_id.is_some() {
            // An agent's delegation is told, it answers no submit.
            return;
        }
        let trace_id = accepted.trace_id.as_deref();
        let Some((ticket, what)) = self.answered(accepted.request_id.as_deref(), trace_id, &Request::Submit) else {
            return;
        };
        if what == Request::AbandonedSubmit {
            self.cancel(now, &accepted.job_id, "the submit was abandoned");
            return;
        }
        let handle = self.open_handle(&accepted.job_id);
        self.events.push_back(ClientEvent::Accepted(ticket, handle, Box::new(accepted)));
    }

    fn handle_subscribed(&mut self, subscribed: Subscribed) {
        let subscribes = |ticket: &Ticket| match self.pending.get(ticket).map(|pending| &pending.what) {
            Some(Request::Subscribe(handle)) => Some(*handle),
            _ => None,
        };
        let of_job = |ticket: &Ticket| {
            let job_id = subscribes(ticket).and_then(|handle| self.jobs.get(&handle));
            job_id.is_some_and(|job_id| **job_id == *subscribed.job_id)
        };
        let named = subscribed.request_id.as_deref().and_then(|id| self.pending_by_id.get(id)).copied();
        // The handle may have ended already, where history comes before the answer.
        let named = named.filter(|ticket| subscribes(ticket).is_some());
        let wanted = named.or_else(|| self.pending.keys().copied().find(of_job));
        if let Some((ticket, Request::Subscribe(handle))) = wanted.and_then(|ticket| self.settle(ticket)) {
            let ended = subscribed.current_status.is_terminal() && !subscribed.replayed;
            let job_id = subscribed.job_id.clone();
            let status = subscribed.current_status;
            self.events.push_back(ClientEvent::Subscribed(ticket, handle, Box::new(subscribed)));
            if ended {
                // Nothing follows: without history the terminal is not sent again.
                self.end_handles(&job_id, Err(ended_before(&job_id, status)));
            }
        }
    }

    /// An error fails only the request it names; without a name, the oldest.
    fn handle_session_error(&mut self, request_id: Option<&str>, error: Error) {
        let ticket = match request_id {
            Some(id) => self.pending_by_id.get(id).copied(),
            None => self.pending.keys().next().copied(),
        };
        match ticket.and_then(|ticket| self.settle(ticket)) {
            Some((ticket, what)) => {
                if let Request::Subscribe(handle) = what {
                    self.forget(handle);
                }
                self.events.push_back(ClientEvent::Refused(ticket, error));
            }
            None => self.events.push_back(ClientEvent::SessionError(error)),
        }
    }

    /// The request an answer belongs to: by request id, else by trace, else the oldest of its kind (D-42).
    fn answered(
        &mut self,
        request_id: Option<&str>,
        trace_id: Option<&str>,
        what: &Request,
    ) -> Option<(Ticket, Request)> {
        if let Some(id) = request_id {
            let ticket = *self.pending_by_id.get(id)?;
            return self.settle(ticket);
        }
        // An abandoned submit keeps its place in the order.
        let fits =
            |pending: &Request| pending == what || (*what == Request::Submit && *pending == Request::AbandonedSubmit);
        let of_kind = || self.pending.iter().filter(|(_, pending)| fits(&pending.what));
        let ticket = of_kind()
            .find(|(_, pending)| trace_id.is_some() && pending.trace_id.as_deref() == trace_id)
            .or_else(|| of_kind().next())
            .map(|(ticket, _)| *ticket)?;
        self.settle(ticket)
    }

    pub(super) fn settle(&mut self, ticket: Ticket) -> Option<(Ticket, Request)> {
        let pending = self.pending.remove(&ticket)?;
        self.pending_by_id.remove(&pending.id);
        Some((ticket, pending.what))
    }
}

fn ended_before(job_id: &str, status: JobStatus) -> Error {
    let message = format!("job {job_id} had ended as {}; subscribe with history to see how", status.as_str());
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
