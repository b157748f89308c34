//! What the application asks for, from hello to goodbye.

use std::sync::Arc;

use serde::Serialize;

use super::resume::not_negotiated;
use super::{
    ACK_BACKLOG, ACK_INTERVAL, ClientEvent, ClientMachine, CloseStyle, Loss, MAX_UNSENT, MAX_UNSENT_BYTES, Pending,
    Recent, Request, State, Ticket, Timer,
};
use crate::envelope::{Header, write_frame};
use crate::error::Error;
use crate::feature::Feature;
use crate::message::{
    Ack, Auth, Bye, Cancel, ClientCapabilities, Close, Hello, ListJobs, Ping, Submit, Subscribe, Unsubscribe, kind,
};
use crate::time::Now;
use crate::trace::TraceContext;

/// The members of a request's envelope that the caller knows.
#[derive(Default)]
pub(super) struct Asked<'a> {
    kind: &'static str,
    job_id: Option<&'a str>,
    trace_id: Option<&'a str>,
    extensions: Option<&'a str>,
}

impl<'a> Asked<'a> {
    pub(super) fn of_job(kind: &'static str, job_id: &'a str) -> Self {
        Asked { kind, job_id: Some(job_id), ..Asked::default() }
    }
}

impl ClientMachine {
    /// A transport was opened: the hello leaves. After a loss it names the session to take up again.
    pub fn connected(&mut self, now: Now, token: &str) {
        if !matches!(self.state, State::Idle | State::Cut) {
            return;
        }
        self.state = State::Handshaking;
        self.timers.clear(Timer::Reconnect);
        self.timers.set(Timer::Handshake, now.mono + self.config.handshake_timeout);
        let resume = self.resume_block(now);
        let id = match &resume {
            Some(_) => self.link.hello_id.take().unwrap_or_else(|| self.ids.message_id(now.wall)),
            None => self.ids.message_id(now.wall),
        };
        self.link.hello_id = resume.is_some().then(|| id.clone());
        let hello = Hello {
            client: Some(self.config.client.clone()),
            auth: Auth { scheme: "bearer".into(), token: token.to_owned() },
            capabilities: ClientCapabilities { encodings: vec!["json".into()], features: self.config.features.clone() },
            resume,
            empty_agents_list: false,
        };
        self.send(now, kind::SESSION_HELLO, &id, None, None, &hello);
    }

    /// The transport is gone.
    pub fn disconnected(&mut self, now: Now, why: &str) {
        match self.state {
            State::Closing => self.closed(),
            State::Handshaking | State::Open => self.lose(now, Loss::Disconnected(why.to_owned())),
            State::Idle | State::Cut | State::Closed => {}
        }
    }

    /// The runtime sent a message over the size limit; the host reads no further.
    pub fn oversize(&mut self, now: Now) {
        match self.state {
            State::Closing => self.closed(),
            State::Handshaking | State::Open => self.lose(now, Loss::Oversize),
            State::Idle | State::Cut | State::Closed => {}
        }
    }

    pub(super) fn closed(&mut self) {
        self.end(ClientEvent::Closed);
    }

    /// Ends the session; [`ClientEvent::Closed`] follows within the close time, whatever the peer does.
    pub fn close(&mut self, now: Now, reason: &str) {
        match self.state {
            State::Open => {
                self.state = State::Closing;
                let id = self.ids.message_id(now.wall);
                match self.config.close_style {
                    CloseStyle::Bye => {
                        let bye = Bye { reason: reason.to_owned(), code: None };
                        self.send(now, kind::SESSION_BYE, &id, None, None, &bye);
                    }
                    CloseStyle::Close => {
                        let close = Close { reason: Some(reason.to_owned()) };
                        self.send(now, kind::SESSION_CLOSE, &id, None, None, &close);
                    }
                }
                self.timers.set(Timer::Close, now.mono + self.config.close_timeout);
            }
            State::Idle | State::Handshaking | State::Cut => self.closed(),
            State::Closing | State::Closed => {}
        }
    }

    /// Whether another request can be taken: while there is no session, 1024 requests or 16 MiB of them wait for one.
    pub fn has_room(&self) -> bool {
        self.unsent < MAX_UNSENT && self.unsent_bytes < MAX_UNSENT_BYTES
    }

    /// Asks for a job. `trace_id` is 32 hex digits or a whole `traceparent`.
    pub fn submit(&mut self, now: Now, submit: &Submit, trace_id: Option<&str>) -> Ticket {
        let what = Request::Submit { keyed: submit.idempotency_key.is_some(), abandoned: false };
        self.ask(now, what, Asked { kind: kind::JOB_SUBMIT, trace_id, ..Asked::default() }, submit)
    }

    /// Asks for a job in the trace of `context`, which rides along.
    pub fn submit_traced(&mut self, now: Now, submit: &Submit, context: &TraceContext) -> Ticket {
        let (trace_id, extensions) = (context.trace_id(), context.to_extensions());
        let what = Request::Submit { keyed: submit.idempotency_key.is_some(), abandoned: false };
        let (trace_id, extensions) = (Some(trace_id.as_str()), Some(extensions.get()));
        self.ask(now, what, Asked { kind: kind::JOB_SUBMIT, trace_id, extensions, ..Asked::default() }, submit)
    }

    /// Nobody waits for this submit any more, and nobody will know the job's id: if it is accepted, it is cancelled.
    pub fn abandon_submit(&mut self, ticket: Ticket) {
        let Some(pending) = self.pending.get_mut(&ticket) else { return };
        if let Request::Submit { abandoned, .. } = &mut pending.what {
            *abandoned = true;
            if !pending.sent {
                self.settle(ticket);
            }
        }
    }

    /// Asks to follow a job; its handle exists from now on, since a published peer sends history first.
    pub fn subscribe(&mut self, now: Now, subscribe: &Subscribe) -> Result<Ticket, Error> {
        if !self.features.has(Feature::Subscribe) {
            return Err(not_negotiated(Feature::Subscribe));
        }
        let from = subscribe.from_event_seq.filter(|_| subscribe.history).unwrap_or_default();
        let handle = self.open_handle(&subscribe.job_id, false, from);
        self.to_unsubscribe.remove(&subscribe.job_id);
        self.recent.get_or_insert_with(Recent::new);
        let what = Request::Subscribe(handle);
        Ok(self.ask(now, what, Asked::of_job(kind::JOB_SUBSCRIBE, &subscribe.job_id), subscribe))
    }

    /// Stops following a job.
    pub fn unsubscribe(&mut self, now: Now, job_id: &str) {
        if let Some(route) = self.routes.get_mut(job_id).filter(|route| !route.own) {
            route.views.iter_mut().for_each(|view| view.left = true);
        }
        if !self.features.has(Feature::Subscribe) {
            return;
        }
        if self.state == State::Open {
            let id = self.ids.message_id(now.wall);
            let payload = Unsubscribe { job_id: job_id.to_owned() };
            self.send(now, kind::JOB_UNSUBSCRIBE, &id, Some(job_id), None, &payload);
        } else if self.to_unsubscribe.len() < MAX_UNSENT {
            self.to_unsubscribe.insert(job_id.to_owned());
        }
    }

    /// Asks to cancel a job. Published runtimes never answer, so nobody has to wait (D-51).
    pub fn cancel(&mut self, now: Now, job_id: &str, reason: &str) -> Ticket {
        let cancel = Cancel { reason: Some(reason.to_owned()), job_id: job_id.to_owned(), code: None };
        self.ask(now, Request::Cancel, Asked::of_job(kind::JOB_CANCEL, job_id), &cancel)
    }

    /// Asks for one page of jobs. `INVALID_REQUEST` when that was not negotiated.
    pub fn list_jobs(&mut self, now: Now, list: &ListJobs) -> Result<Ticket, Error> {
        if !self.features.has(Feature::ListJobs) {
            return Err(not_negotiated(Feature::ListJobs));
        }
        Ok(self.ask(now, Request::ListJobs, Asked { kind: kind::SESSION_LIST_JOBS, ..Asked::default() }, list))
    }

    /// Acknowledges by hand; silent when not negotiated.
    pub fn ack(&mut self, now: Now, last_processed_seq: u64) {
        if !self.features.has(Feature::Ack) {
            return;
        }
        self.acked = self.acked.max(last_processed_seq);
        if self.state == State::Open {
            let id = self.ids.message_id(now.wall);
            self.send(now, kind::SESSION_ACK, &id, None, None, &Ack { last_processed_seq });
        }
    }

    /// The event at this position was handed to the application, or nobody waits for it.
    pub fn processed(&mut self, now: Now, position: u64) {
        // What came in an earlier session is of no use to this one's runtime.
        let Some(event_seq) = position.checked_sub(self.base).filter(|seq| (1..=self.last_seq).contains(seq)) else {
            return;
        };
        self.taken.take(event_seq);
        if self.state != State::Open {
            return;
        }
        let behind = self.taken.through().saturating_sub(self.acked);
        if behind > 0 && self.config.auto_ack && self.features.has(Feature::Ack) {
            if behind >= ACK_BACKLOG {
                self.ack(now, self.taken.through());
            } else {
                // Set once: a steady flow must not put it off for ever.
                self.timers.set_if_none(Timer::Ack, now.mono + ACK_INTERVAL);
            }
        }
    }

    /// The host does not read for now, because the application lags: silence is no sign of a lost runtime.
    pub fn reading_paused(&mut self, now: Now) {
        if let Some(heartbeat) = &mut self.heartbeat {
            heartbeat.received(now.mono);
        }
    }

    /// Takes a request, and sends it if there is a session to send it in.
    pub(super) fn ask(&mut self, now: Now, what: Request, asked: Asked<'_>, payload: &impl Serialize) -> Ticket {
        let ticket = Ticket(self.fresh_key());
        let id = self.ids.message_id(now.wall);
        let deadline = now.mono + self.config.request_timeout;
        if self.pending.is_empty() {
            self.timers.set(Timer::Requests, deadline);
        }
        let pending = Pending {
            id: id.clone(),
            kind: asked.kind,
            job_id: asked.job_id.map(Arc::from),
            trace_id: asked.trace_id.map(str::to_owned),
            extensions: asked.extensions.map(str::to_owned),
            payload: json(payload).into(),
            deadline,
            what,
            sent: false,
            again: false,
        };
        self.unsent += 1;
        self.unsent_bytes += pending.payload.len();
        self.pending.insert(ticket, pending);
        self.pending_by_id.insert(id, ticket);
        if self.state == State::Open {
            self.transmit(now, ticket);
        }
        ticket
    }

    /// Sends a request, the first time or again: the same bytes as long as the session is the same.
    pub(super) fn transmit(&mut self, now: Now, ticket: Ticket) {
        let Some(pending) = self.pending.get_mut(&ticket) else { return };
        if !std::mem::replace(&mut pending.sent, true) {
            self.unsent -= 1;
            self.unsent_bytes -= pending.payload.len();
        }
        let header = Header {
            kind: pending.kind,
            id: &pending.id,
            session_id: self.session_id.as_deref(),
            job_id: pending.job_id.as_deref(),
            trace_id: pending.trace_id.as_deref(),
            extensions: pending.extensions.as_deref(),
            ..Header::default()
        };
        let mut frame = Vec::with_capacity(pending.payload.len() + 192);
        write_frame(&mut frame, &header, &pending.payload);
        // It never answers a cancel (D-51); the pong says that the cancel was taken, since a refusal would come before.
        let asks_by_ping = self.link.is_py11 && pending.what == Request::Cancel;
        let nonce = asks_by_ping.then(|| pending.id.clone());
        self.push_frame(now, frame);
        if let Some(nonce) = nonce {
            let id = self.ids.message_id(now.wall);
            self.send(now, kind::SESSION_PING, &id, None, None, &Ping { nonce, sent_at: Some(now.wall) });
        }
    }

    /// Takes a request off the list, answered or not.
    pub(super) fn settle(&mut self, ticket: Ticket) -> Option<(Ticket, Request)> {
        let pending = self.pending.remove(&ticket)?;
        self.pending_by_id.remove(&pending.id);
        if !pending.sent {
            self.unsent -= 1;
            self.unsent_bytes -= pending.payload.len();
        }
        if pending.again && matches!(pending.what, Request::Submit { .. }) {
            self.repeated_submits -= 1;
        }
        Some((ticket, pending.what))
    }

    /// Refuses a request on this side, or passes the runtime's refusal on.
    pub(super) fn refuse(&mut self, ticket: Ticket, error: Error) {
        match self.settle(ticket) {
            None | Some((_, Request::Submit { abandoned: true, .. })) => {}
            Some((_, Request::Reattach(job_id))) => self.cannot_reattach(&job_id, &error.message),
            Some((ticket, what)) => {
                if let Request::Subscribe(handle) = what {
                    self.forget(handle);
                }
                self.events.push_back(ClientEvent::Refused(ticket, error));
            }
        }
    }

    pub(super) fn fresh_key(&mut self) -> u64 {
        self.next_key += 1;
        self.next_key
    }

    pub(super) fn send(
        &mut self,
        now: Now,
        kind: &str,
        id: &str,
        job_id: Option<&str>,
        trace_id: Option<&str>,
        payload: &impl Serialize,
    ) {
        let payload = json(payload);
        let mut frame = Vec::with_capacity(payload.len() + 192);
        let session_id = self.session_id.as_deref();
        write_frame(&mut frame, &Header { kind, id, session_id, job_id, trace_id, ..Header::default() }, &payload);
        self.push_frame(now, frame);
    }

    fn push_frame(&mut self, now: Now, frame: Vec<u8>) {
        if self.out.is_empty() {
            self.events.push_back(ClientEvent::Writable);
        }
        self.out.push_back(frame.into());
        if let Some(heartbeat) = &mut self.heartbeat {
            heartbeat.sent(now.mono);
        }
    }
}

/// Serialising our own structs of strings and numbers does not fail.
pub(super) fn json(payload: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(payload).unwrap_or_else(|_| b"{}".to_vec())
}
