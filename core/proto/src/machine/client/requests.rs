//! What the application asks for, from hello to goodbye.

use std::sync::Arc;

use serde::Serialize;

use super::{
    ACK_BACKLOG, ACK_INTERVAL, ClientEvent, ClientMachine, CloseStyle, HandleKey, Loss, Pending, Request, State,
    Ticket, Timer,
};
use crate::envelope::{Header, write_frame};
use crate::error::Error;
use crate::feature::Feature;
use crate::machine::timers::Timers;
use crate::message::{Ack, Auth, Bye, Cancel, ClientCapabilities, Close, Hello, Submit, Subscribe, Unsubscribe, kind};
use crate::time::Now;
use crate::trace::TraceContext;

impl ClientMachine {
    /// A transport was opened: the hello leaves.
    pub fn connected(&mut self, now: Now, token: &str) {
        self.state = State::Handshaking;
        self.timers.set(Timer::Handshake, now.mono + self.config.handshake_timeout);
        let hello = Hello {
            client: Some(self.config.client.clone()),
            auth: Auth { scheme: "bearer".into(), token: token.to_owned() },
            capabilities: ClientCapabilities { encodings: vec!["json".into()], features: self.config.features.clone() },
            resume: None,
            empty_agents_list: false,
        };
        let id = self.ids.message_id(now.wall);
        self.send(now, kind::SESSION_HELLO, &id, None, None, &hello);
    }

    /// The transport is gone.
    pub fn disconnected(&mut self, why: &str) {
        match self.state {
            State::Closing => self.closed(),
            State::Handshaking | State::Open => self.lose(Loss::Disconnected(why.to_owned())),
            State::Idle | State::Closed => {}
        }
    }

    pub(super) fn lose(&mut self, loss: Loss) {
        self.state = State::Closed;
        self.timers = Timers::new();
        self.events.push_back(ClientEvent::Lost(loss));
    }

    pub(super) fn not_welcomed(&mut self, why: Option<Error>) {
        self.state = State::Closed;
        self.timers = Timers::new();
        self.events.push_back(ClientEvent::NotWelcomed(why));
    }

    pub(super) fn closed(&mut self) {
        self.state = State::Closed;
        self.timers = Timers::new();
        self.events.push_back(ClientEvent::Closed);
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
            State::Idle | State::Handshaking => self.closed(),
            State::Closing | State::Closed => {}
        }
    }

    /// Asks for a job. `trace_id` is 32 hex digits or a whole `traceparent`.
    pub fn submit(&mut self, now: Now, submit: &Submit, trace_id: Option<&str>) -> Ticket {
        let (ticket, id) = self.ask(now, Request::Submit, trace_id.map(str::to_owned));
        self.send(now, kind::JOB_SUBMIT, &id, None, trace_id, submit);
        ticket
    }

    /// Asks for a job in the trace of `context`, which rides along.
    pub fn submit_traced(&mut self, now: Now, submit: &Submit, context: &TraceContext) -> Ticket {
        let (trace_id, extensions) = (context.trace_id(), context.to_extensions());
        let (ticket, id) = self.ask(now, Request::Submit, Some(trace_id.clone()));
        self.send_extended(now, kind::JOB_SUBMIT, &id, None, Some(&trace_id), Some(extensions.get()), submit);
        ticket
    }

    /// Nobody waits for this submit any more, and nobody will know the job's id: if it is accepted, it is cancelled.
    pub fn abandon_submit(&mut self, ticket: Ticket) {
        if let Some(pending) = self.pending.get_mut(&ticket).filter(|pending| pending.what == Request::Submit) {
            pending.what = Request::AbandonedSubmit;
        }
    }

    /// Asks to follow a job; its handle exists from now on, since a published peer sends history first.
    pub fn subscribe(&mut self, now: Now, subscribe: &Subscribe) -> Result<Ticket, Error> {
        if !self.features.has(Feature::Subscribe) {
            return Err(Error::invalid("this session cannot subscribe: the feature was not negotiated"));
        }
        let handle = self.open_handle(&subscribe.job_id);
        let (ticket, id) = self.ask(now, Request::Subscribe(handle), None);
        self.send(now, kind::JOB_SUBSCRIBE, &id, Some(&subscribe.job_id), None, subscribe);
        Ok(ticket)
    }

    /// Stops following a job.
    pub fn unsubscribe(&mut self, now: Now, job_id: &str) {
        if self.features.has(Feature::Subscribe) {
            let id = self.ids.message_id(now.wall);
            let payload = Unsubscribe { job_id: job_id.to_owned() };
            self.send(now, kind::JOB_UNSUBSCRIBE, &id, Some(job_id), None, &payload);
        }
    }

    /// Asks to cancel a job. Published runtimes never answer, so nobody has to wait (D-51).
    pub fn cancel(&mut self, now: Now, job_id: &str, reason: &str) -> Ticket {
        let (ticket, id) = self.ask(now, Request::Cancel, None);
        let cancel = Cancel { reason: Some(reason.to_owned()), job_id: job_id.to_owned(), code: None };
        self.send(now, kind::JOB_CANCEL, &id, Some(job_id), None, &cancel);
        ticket
    }

    /// Acknowledges by hand; silent when not negotiated.
    pub fn ack(&mut self, now: Now, last_processed_seq: u64) {
        if self.state == State::Open && self.features.has(Feature::Ack) {
            self.acked = self.acked.max(last_processed_seq);
            let id = self.ids.message_id(now.wall);
            self.send(now, kind::SESSION_ACK, &id, None, None, &Ack { last_processed_seq });
        }
    }

    /// This event was handed to the application, or nobody waits for it.
    pub fn processed(&mut self, now: Now, event_seq: u64) {
        if event_seq > self.last_seq {
            return;
        }
        self.taken.take(event_seq);
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

    /// Nobody looks at this handle any more.
    pub fn forget(&mut self, handle: HandleKey) {
        if let Some(job_id) = self.jobs.remove(&handle)
            && let Some(handles) = self.routes.get_mut(&job_id)
        {
            handles.retain(|other| *other != handle);
            if handles.is_empty() {
                self.routes.remove(&job_id);
            }
        }
    }

    pub(super) fn ask(&mut self, now: Now, what: Request, trace_id: Option<String>) -> (Ticket, String) {
        let ticket = Ticket(self.fresh_key());
        let id = self.ids.message_id(now.wall);
        let deadline = now.mono + self.config.request_timeout;
        if self.pending.is_empty() {
            self.timers.set(Timer::Requests, deadline);
        }
        self.pending.insert(ticket, Pending { id: id.clone(), trace_id, deadline, what });
        self.pending_by_id.insert(id.clone(), ticket);
        (ticket, id)
    }

    pub(super) fn open_handle(&mut self, job_id: &str) -> HandleKey {
        let handle = HandleKey(self.fresh_key());
        let job_id: Arc<str> = job_id.into();
        self.jobs.insert(handle, Arc::clone(&job_id));
        self.routes.entry(job_id).or_default().push(handle);
        handle
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
        self.send_extended(now, kind, id, job_id, trace_id, None, payload);
    }

    #[allow(clippy::too_many_arguments, reason = "the members of one envelope")]
    fn send_extended(
        &mut self,
        now: Now,
        kind: &str,
        id: &str,
        job_id: Option<&str>,
        trace_id: Option<&str>,
        extensions: Option<&str>,
        payload: &impl Serialize,
    ) {
        // Serialising our own structs of strings and numbers does not fail.
        let payload = serde_json::to_vec(payload).unwrap_or_else(|_| b"{}".to_vec());
        let mut frame = Vec::with_capacity(payload.len() + 192);
        let session_id = self.session_id.as_deref();
        let header = Header { kind, id, session_id, job_id, trace_id, extensions, ..Header::default() };
        write_frame(&mut frame, &header, &payload);
        if self.out.is_empty() {
            self.events.push_back(ClientEvent::Writable);
        }
        self.out.push_back(frame.into());
        if let Some(heartbeat) = &mut self.heartbeat {
            heartbeat.sent(now.mono);
        }
    }
}
