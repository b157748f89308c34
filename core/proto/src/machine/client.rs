//! The client machine: one session, its requests and its handles.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;

use super::heartbeat::{Beat, Heartbeat};
use super::timers::Timers;
use crate::envelope::{Head, Header, write_frame};
use crate::error::{Error, ErrorCode};
use crate::event::{EventPayload, ResultChunk};
use crate::feature::{self, Feature, FeatureSet};
use crate::id::{Entropy, IdGenerator};
use crate::json::Limits;
use crate::message::{
    Accepted, Ack, Auth, Bye, Cancel, ClientCapabilities, Close, Hello, JobError, JobResult, JobStatus, PeerInfo, Ping,
    Pong, RuntimeMessage, Submit, Subscribe, Subscribed, Unsubscribe, Welcome, kind,
};
use crate::time::Now;

/// One request that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// One view of a job: a submit's or a subscription's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HandleKey(pub u64);

/// How a session is ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CloseStyle {
    /// `session.bye`, which every deployed runtime understands.
    #[default]
    Bye,
    /// The current draft's `session.close`.
    Close,
}

/// Settings of a client; the defaults are those of runtime-protocol section 4.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Shown in the hello.
    pub client: PeerInfo,
    /// What is asked for, in this order.
    pub features: Vec<String>,
    /// 5 s to wait for the welcome.
    pub handshake_timeout: Duration,
    /// 30 s to wait for an answer to a submit or subscribe.
    pub request_timeout: Duration,
    /// Whether what the application took is acknowledged by itself; at most every 250 ms.
    pub auto_ack: bool,
    /// What the end looks like on the wire.
    pub close_style: CloseStyle,
    /// 2 s to wait for the peer at the end.
    pub close_timeout: Duration,
    /// Bounds on received messages.
    pub limits: Limits,
}

impl ClientConfig {
    /// The defaults, under this name.
    pub fn new(client: PeerInfo) -> Self {
        ClientConfig {
            client,
            features: default_features(),
            handshake_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            auto_ack: true,
            close_style: CloseStyle::Bye,
            close_timeout: Duration::from_secs(2),
            limits: Limits::default(),
        }
    }
}

/// The defaults a runtime without a durable store can honour.
fn default_features() -> Vec<String> {
    feature::CLIENT_DEFAULT.into_iter().map(|feature| feature.as_str().to_owned()).collect()
}

/// One event of a job as it was received; the body stays raw.
#[derive(Clone, Debug)]
pub struct JobEvent {
    /// Its number in this session.
    pub event_seq: u64,
    /// `log`, `progress`, … or any kind the peer sends; UTF-8.
    pub kind: Bytes,
    /// When the agent made it; UTF-8.
    pub ts: Bytes,
    /// JSON text of the body.
    pub body: Bytes,
}

impl JobEvent {
    /// The kind as text.
    pub fn kind(&self) -> &str {
        std::str::from_utf8(&self.kind).unwrap_or_default()
    }

    /// The time as text.
    pub fn ts(&self) -> &str {
        std::str::from_utf8(&self.ts).unwrap_or_default()
    }

    /// The body's JSON text.
    pub fn body(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap_or_default()
    }
}

/// Why a session ended without the application asking for it.
#[derive(Clone, Debug, PartialEq)]
pub enum Loss {
    /// The transport ended.
    Disconnected(String),
    /// A number is missing.
    Gap {
        /// The number that should have come.
        expected: u64,
        /// The number that came.
        got: u64,
    },
    /// The runtime was silent for two intervals.
    HeartbeatLost,
    /// The runtime said goodbye.
    Bye(String),
}

/// What the machine tells its host.
#[derive(Debug)]
pub enum ClientEvent {
    /// Frames wait in `poll_transmit`.
    Writable,
    /// The handshake is done.
    Welcomed(Arc<Welcome>),
    /// The handshake failed with the runtime's own error, or with `None` when no answer came in time.
    NotWelcomed(Option<Error>),
    /// A submit was accepted.
    Accepted(Ticket, HandleKey, Box<Accepted>),
    /// A subscribe was answered.
    Subscribed(Ticket, HandleKey, Box<Subscribed>),
    /// A cancel was acknowledged, with the state of a job that had already ended.
    Cancelled(Ticket, Option<JobStatus>),
    /// A request was refused.
    Refused(Ticket, Error),
    /// No answer in time; the request may still have had its effect.
    TimedOut(Ticket),
    /// An event of a job.
    Event(HandleKey, JobEvent),
    /// The job ended; nothing follows on this handle.
    Ended(HandleKey, Result<Box<JobResult>, Error>),
    /// An error that belongs to no request.
    SessionError(Error),
    /// The session is gone.
    Lost(Loss),
    /// The close is complete: the transport may go.
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Handshaking,
    Open,
    Closing,
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Timer {
    Handshake,
    Heartbeat,
    Requests,
    Ack,
    Close,
}

#[derive(Debug)]
struct Pending {
    id: String,
    trace_id: Option<String>,
    deadline: Duration,
    what: Request,
}

#[derive(Debug, PartialEq, Eq)]
enum Request {
    Submit,
    Subscribe(HandleKey),
    Cancel,
}

/// At most one ack in this time, unless the window would stall.
const ACK_INTERVAL: Duration = Duration::from_millis(250);

/// So many unacknowledged events are acked at once: a quarter of what makes a runtime hold its emitters back (D-20).
const ACK_BACKLOG: u64 = 12_500;

/// See the module documentation.
pub struct ClientMachine {
    config: ClientConfig,
    ids: IdGenerator,
    state: State,
    session_id: Option<Arc<str>>,
    welcome: Option<Arc<Welcome>>,
    features: FeatureSet,
    heartbeat: Option<Heartbeat>,
    last_seq: u64,
    processed: u64,
    acked: u64,
    next_key: u64,
    pending: BTreeMap<Ticket, Pending>,
    pending_by_id: HashMap<String, Ticket>,
    routes: HashMap<Arc<str>, Vec<HandleKey>>,
    jobs: HashMap<HandleKey, Arc<str>>,
    timers: Timers<Timer>,
    events: VecDeque<ClientEvent>,
    out: VecDeque<Bytes>,
}

impl ClientMachine {
    /// A client that is not connected.
    pub fn new(config: ClientConfig, entropy: Box<dyn Entropy>) -> Self {
        ClientMachine {
            config,
            ids: IdGenerator::new(entropy),
            state: State::Idle,
            session_id: None,
            welcome: None,
            features: FeatureSet::default(),
            heartbeat: None,
            last_seq: 0,
            processed: 0,
            acked: 0,
            next_key: 0,
            pending: BTreeMap::new(),
            pending_by_id: HashMap::new(),
            routes: HashMap::new(),
            jobs: HashMap::new(),
            timers: Timers::new(),
            events: VecDeque::new(),
            out: VecDeque::new(),
        }
    }

    /// The settings.
    pub fn config(&self) -> &ClientConfig {
        &self.config
    }

    /// The welcome, once it came.
    pub fn welcome(&self) -> Option<&Arc<Welcome>> {
        self.welcome.as_ref()
    }

    /// Whether a feature was negotiated; both sides compute it themselves.
    pub fn has_feature(&self, name: &str) -> bool {
        self.features.has_name(name)
    }

    /// What was negotiated, in this client's order.
    pub fn negotiated_features(&self) -> &[String] {
        self.features.names()
    }

    /// The highest `event_seq` received.
    pub fn latest_event_seq(&self) -> u64 {
        self.last_seq
    }

    // ---- the connection ----------------------------------------------------------------------------------------

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

    fn lose(&mut self, loss: Loss) {
        self.state = State::Closed;
        self.timers = Timers::new();
        self.events.push_back(ClientEvent::Lost(loss));
    }

    fn not_welcomed(&mut self, why: Option<Error>) {
        self.state = State::Closed;
        self.timers = Timers::new();
        self.events.push_back(ClientEvent::NotWelcomed(why));
    }

    fn closed(&mut self) {
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

    // ---- requests ----------------------------------------------------------------------------------------------

    /// Asks for a job. `trace_id` is 32 hex digits or a whole `traceparent`.
    pub fn submit(&mut self, now: Now, submit: &Submit, trace_id: Option<&str>) -> Ticket {
        let (ticket, id) = self.ask(now, Request::Submit, trace_id.map(str::to_owned));
        self.send(now, kind::JOB_SUBMIT, &id, None, trace_id, submit);
        ticket
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

    /// Everything up to this number was handed to the application.
    pub fn processed(&mut self, now: Now, event_seq: u64) {
        self.processed = self.processed.max(event_seq.min(self.last_seq));
        if self.config.auto_ack && self.processed > self.acked && self.features.has(Feature::Ack) {
            if self.processed - self.acked >= ACK_BACKLOG {
                self.ack(now, self.processed);
            } else {
                // Set once: a steady flow must not put it off for ever.
                self.timers.set_if_none(Timer::Ack, now.mono + ACK_INTERVAL);
            }
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

    fn ask(&mut self, now: Now, what: Request, trace_id: Option<String>) -> (Ticket, String) {
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

    fn open_handle(&mut self, job_id: &str) -> HandleKey {
        let handle = HandleKey(self.fresh_key());
        let job_id: Arc<str> = job_id.into();
        self.jobs.insert(handle, Arc::clone(&job_id));
        self.routes.entry(job_id).or_default().push(handle);
        handle
    }

    fn fresh_key(&mut self) -> u64 {
        self.next_key += 1;
        self.next_key
    }

    fn send(
        &mut self,
        now: Now,
        kind: &str,
        id: &str,
        job_id: Option<&str>,
        trace_id: Option<&str>,
        payload: &impl Serialize,
    ) {
        // Serialising our own structs of strings and numbers does not fail.
        let payload = serde_json::to_vec(payload).unwrap_or_else(|_| b"{}".to_vec());
        let mut frame = Vec::with_capacity(payload.len() + 192);
        let session_id = self.session_id.as_deref();
        write_frame(&mut frame, &Header { kind, id, session_id, job_id, trace_id, event_seq: None }, &payload);
        if self.out.is_empty() {
            self.events.push_back(ClientEvent::Writable);
        }
        self.out.push_back(frame.into());
        if let Some(heartbeat) = &mut self.heartbeat {
            heartbeat.sent(now.mono);
        }
    }

    // ---- what arrives ------------------------------------------------------------------------------------------

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
                if counted && !refusal.event_seq.is_none_or(|seq| self.advance(seq)) {
                    return;
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
            Ok(message) => self.handle_message(now, frame, &head, message),
            Err(error) if self.state == State::Handshaking => {
                self.not_welcomed(Some(error));
            }
            Err(error) => self.blame(Some(&head.kind), job_id, error),
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
                    let watch = Heartbeat::new(Duration::from_secs(seconds), now.mono);
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

    fn handle_message(&mut self, now: Now, frame: &Bytes, head: &Head<'_>, message: RuntimeMessage) {
        match message {
            RuntimeMessage::Event => self.handle_event(frame, head),
            RuntimeMessage::Result(result) => self.end_job(head, as_outcome(result)),
            RuntimeMessage::JobError(JobError { error, .. }) => self.handle_job_error(head, error),
            RuntimeMessage::Accepted(accepted) => self.handle_accepted(accepted),
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
            RuntimeMessage::Pong(_)
            | RuntimeMessage::Jobs(_)
            | RuntimeMessage::Welcome(_)
            | RuntimeMessage::Ignored => {}
        }
    }

    fn handle_event(&mut self, frame: &Bytes, head: &Head<'_>) {
        let Some(job_id) = head.job_id.as_deref() else {
            return self.blame(None, None, Error::invalid("job.event without job_id"));
        };
        let payload = match EventPayload::parse(head.payload.get()) {
            Ok(payload) => payload,
            Err(error) => return self.blame(Some(kind::JOB_EVENT), Some(job_id), error),
        };
        if payload.kind == "result_chunk"
            && let Err(error) = ResultChunk::read(payload.body)
        {
            return self.blame(Some(kind::JOB_EVENT), Some(job_id), error);
        }
        let Some(handles) = self.routes.get(job_id) else { return };
        let event = JobEvent {
            event_seq: self.last_seq,
            kind: part(frame, &payload.kind),
            ts: part(frame, &payload.ts),
            body: frame.slice_ref(payload.body.get().as_bytes()),
        };
        for handle in handles {
            self.events.push_back(ClientEvent::Event(*handle, event.clone()));
        }
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

    fn handle_accepted(&mut self, accepted: Accepted) {
        let trace_id = accepted.trace_id.as_deref();
        let Some((ticket, _)) = self.answered(accepted.request_id.as_deref(), trace_id, &Request::Submit) else {
            return;
        };
        let handle = self.open_handle(&accepted.job_id);
        self.events.push_back(ClientEvent::Accepted(ticket, handle, Box::new(accepted)));
    }

    fn handle_subscribed(&mut self, subscribed: Subscribed) {
        let wanted =
            subscribed.request_id.as_deref().and_then(|id| self.pending_by_id.get(id)).copied().or_else(|| {
                let of_job = |what: &Request| match what {
                    Request::Subscribe(handle) => self.jobs.get(handle).is_some_and(|id| **id == *subscribed.job_id),
                    _ => false,
                };
                self.pending.iter().find(|(_, pending)| of_job(&pending.what)).map(|(ticket, _)| *ticket)
            });
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
        let of_kind = || self.pending.iter().filter(|(_, pending)| pending.what == *what);
        let ticket = of_kind()
            .find(|(_, pending)| trace_id.is_some() && pending.trace_id.as_deref() == trace_id)
            .or_else(|| of_kind().next())
            .map(|(ticket, _)| *ticket)?;
        self.settle(ticket)
    }

    fn settle(&mut self, ticket: Ticket) -> Option<(Ticket, Request)> {
        let pending = self.pending.remove(&ticket)?;
        self.pending_by_id.remove(&pending.id);
        Some((ticket, pending.what))
    }

    // ---- draining ----------------------------------------------------------------------------------------------

    /// Moves every waiting frame into `out`.
    pub fn poll_transmit(&mut self, out: &mut Vec<Bytes>) {
        out.extend(self.out.drain(..));
    }

    /// The next thing to tell.
    pub fn poll_event(&mut self) -> Option<ClientEvent> {
        self.events.pop_front()
    }

    /// When [`ClientMachine::handle_timeout`] has something to do, on the monotonic clock.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.timers.next()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some(timer) = self.timers.pop_due(now.mono) {
            match timer {
                Timer::Handshake => {
                    self.not_welcomed(None);
                }
                Timer::Heartbeat => self.check_heartbeat(now),
                Timer::Requests => self.expire_requests(now),
                Timer::Ack if self.processed > self.acked => self.ack(now, self.processed),
                Timer::Ack => {}
                Timer::Close => self.closed(),
            }
        }
    }

    fn check_heartbeat(&mut self, now: Now) {
        match self.heartbeat.as_ref().map(|heartbeat| heartbeat.check(now.mono)) {
            Some(Beat::Wait(at)) => self.timers.set(Timer::Heartbeat, at),
            Some(Beat::Ping(next)) => {
                let id = self.ids.message_id(now.wall);
                let nonce = self.ids.ulid(now.wall).to_string();
                self.send(now, kind::SESSION_PING, &id, None, None, &Ping { nonce, sent_at: Some(now.wall) });
                self.timers.set(Timer::Heartbeat, next);
            }
            Some(Beat::Lost) => self.lose(Loss::HeartbeatLost),
            None => {}
        }
    }

    fn expire_requests(&mut self, now: Now) {
        while let Some((ticket, pending)) = self.pending.first_key_value() {
            if pending.deadline > now.mono {
                return self.timers.set(Timer::Requests, pending.deadline);
            }
            let ticket = *ticket;
            match self.settle(ticket) {
                // Published runtimes never answer a cancel.
                Some((_, Request::Cancel)) | None => {}
                Some((_, what)) => {
                    if let Request::Subscribe(handle) = what {
                        self.forget(handle);
                    }
                    self.events.push_back(ClientEvent::TimedOut(ticket));
                }
            }
        }
    }
}

/// A slice of the frame where the text stands in it, a copy where it was escaped.
fn part(frame: &Bytes, text: &std::borrow::Cow<'_, str>) -> Bytes {
    match text {
        std::borrow::Cow::Borrowed(text) => frame.slice_ref(text.as_bytes()),
        std::borrow::Cow::Owned(text) => Bytes::copy_from_slice(text.as_bytes()),
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

fn ended_before(job_id: &str, status: JobStatus) -> Error {
    let message = format!("job {job_id} had ended as {}; subscribe with history to see how", status.as_str());
    Error::new(ErrorCode::JobNotFound, message)
}
