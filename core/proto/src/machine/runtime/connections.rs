//! Connections: the handshake, what arrives before and after it, and what leaves.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use super::{
    ConnKey, JobKey, ProfileChoice, RuntimeEvent, RuntimeMachine, SessionKey, Timer, Token, Unstored, details,
};
use crate::envelope::Head;
use crate::error::{Error, ErrorCode};
use crate::feature::{Feature, FeatureSet};
use crate::id::IdGenerator;
use crate::machine::frame::{Frame, SessionName, WireProfile};
use crate::machine::heartbeat::{Beat, Heartbeat};
use crate::machine::job::Ending;
use crate::machine::kept::StoreOp;
use crate::machine::session::Session;
use crate::message::{Bye, ClientMessage, Hello, Ping, RuntimeCapabilities, SessionError, Welcome, kind};
use crate::time::Now;

#[derive(Debug)]
pub(super) enum ConnState {
    AwaitHello,
    Verifying(Box<PendingHello>),
    Open(SessionKey),
    Closing,
}

#[derive(Debug)]
pub(super) struct PendingHello {
    id: String,
    hello: Hello,
    /// As one published client writes ids (D-1).
    bare_ulid: bool,
}

#[derive(Debug)]
pub(super) struct Conn {
    pub(super) state: ConnState,
    heartbeat: Option<Heartbeat>,
    pub(super) out: VecDeque<Frame>,
    pub(super) out_bytes: usize,
    /// Whether the host was told that frames wait.
    announced: bool,
    /// Whether a replay was put into the queue, which the store bounds, and has not left yet.
    pub(super) replaying: bool,
    /// Whether emitters wait for this connection.
    pub(super) choked: bool,
    refused_in_row: u32,
}

/// Ten refused frames in a row close the transport.
const REFUSED_IN_ROW: u32 = 10;

impl RuntimeMachine {
    /// A transport was opened.
    pub fn connected(&mut self, now: Now) -> ConnKey {
        let conn = ConnKey(self.fresh_key());
        self.timers.set(Timer::Handshake(conn), now.mono + self.config.handshake_timeout);
        self.conns.insert(
            conn,
            Conn {
                state: ConnState::AwaitHello,
                heartbeat: None,
                out: VecDeque::new(),
                out_bytes: 0,
                announced: false,
                replaying: false,
                choked: false,
                refused_in_row: 0,
            },
        );
        conn
    }

    /// A transport is gone. Jobs go on, and their events keep their numbers.
    pub fn disconnected(&mut self, now: Now, conn: ConnKey) {
        self.timers.clear(Timer::Handshake(conn));
        self.timers.clear(Timer::Heartbeat(conn));
        let Some(gone) = self.conns.remove(&conn) else { return };
        if let ConnState::Open(key) = gone.state {
            self.detach(now, key, conn);
        }
    }

    fn detach(&mut self, now: Now, key: SessionKey, conn: ConnKey) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        if session.conn != Some(conn) {
            return;
        }
        session.conn = None;
        if let Some(count) = self.session_counts.get_mut(&session.principal) {
            *count -= 1;
            if *count == 0 {
                let principal = Arc::clone(&session.principal);
                self.session_counts.remove(&principal);
            }
        }
        self.timers.set(Timer::SessionWindow(key), now.mono + self.config.resume_window);
        self.events.push_back(RuntimeEvent::Drained(key));
    }

    /// Takes one received message.
    pub fn handle_frame(&mut self, now: Now, conn: ConnKey, frame: &[u8]) {
        let Some(entry) = self.conns.get_mut(&conn) else { return };
        if let Some(heartbeat) = &mut entry.heartbeat {
            heartbeat.received(now.mono);
        }
        let head = match Head::parse(frame, &self.config.limits) {
            Ok(head) => head,
            Err(refusal) => return self.refuse(now, conn, refusal.error, refusal.id),
        };
        let message = ClientMessage::parse(&head);
        match entry.state {
            ConnState::Closing => {}
            ConnState::Verifying(_) => {
                let error = Error::invalid("nothing may follow session.hello before the welcome");
                self.refuse(now, conn, error, Some(head.id.into_owned()));
            }
            ConnState::AwaitHello => match message {
                Ok(ClientMessage::Hello(hello)) => {
                    let bare_ulid = head.has_bare_ulid();
                    self.handle_hello(conn, PendingHello { id: head.id.into_owned(), hello, bare_ulid });
                }
                Ok(_) => {
                    let error = Error::invalid(format!("the first message must be session.hello, got {}", head.kind));
                    self.refuse(now, conn, error, Some(head.id.into_owned()));
                }
                Err(error) => self.refuse(now, conn, error, Some(head.id.into_owned())),
            },
            ConnState::Open(key) => {
                let refusal = match (&head.session_id, self.sessions.get(&key)) {
                    (Some(named), Some(session)) if *named != **session.id() => Some(Error::invalid(format!(
                        "session_id \"{named}\" is not this session; send its own or none"
                    ))),
                    _ => None,
                };
                match refusal.map_or(message, Err) {
                    Ok(message) => {
                        entry.refused_in_row = 0;
                        self.handle_message(now, conn, key, &head, message);
                    }
                    Err(error) => self.refuse(now, conn, error, Some(head.id.into_owned())),
                }
            }
        }
    }

    /// A message over the size cap was met: it is refused and the transport closes.
    pub fn handle_oversize(&mut self, now: Now, conn: ConnKey) {
        let limit = self.config.limits.max_bytes;
        self.answer_error(now, conn, Error::invalid(format!("a message may have at most {limit} bytes")), None);
        self.close_conn(now, conn);
    }

    /// Refuses a message; before the welcome, or after ten in a row, the transport closes.
    fn refuse(&mut self, now: Now, conn: ConnKey, error: Error, request_id: Option<String>) {
        self.answer_error(now, conn, error, request_id);
        let Some(entry) = self.conns.get_mut(&conn) else { return };
        entry.refused_in_row += 1;
        if !matches!(entry.state, ConnState::Open(_)) || entry.refused_in_row > REFUSED_IN_ROW {
            self.close_conn(now, conn);
        }
    }

    fn handle_hello(&mut self, conn: ConnKey, pending: PendingHello) {
        let token = Token(pending.hello.auth.token.clone());
        if let Some(entry) = self.conns.get_mut(&conn) {
            entry.state = ConnState::Verifying(Box::new(pending));
            self.events.push_back(RuntimeEvent::Verify { conn, token });
        }
    }

    /// The verifier's answer: the principal, or the error to send (R-6.1.9 leaves the code to the verifier's host).
    pub fn handle_verified(&mut self, now: Now, conn: ConnKey, verdict: Result<String, Error>) {
        let Some(entry) = self.conns.get_mut(&conn) else { return };
        if !matches!(entry.state, ConnState::Verifying(_)) {
            // Too late: the connection was closed meanwhile.
            return;
        }
        let ConnState::Verifying(pending) = std::mem::replace(&mut entry.state, ConnState::AwaitHello) else { return };
        match verdict.and_then(|principal| self.admit(&pending.hello, principal)) {
            Ok(principal) => self.welcome(now, conn, *pending, principal),
            Err(error) => {
                self.answer_error(now, conn, error, Some(pending.id));
                self.close_conn(now, conn);
            }
        }
    }

    fn admit(&self, hello: &Hello, principal: String) -> Result<Arc<str>, Error> {
        if self.shutting_down {
            return Err(Error::internal("the runtime is shutting down; connect again later"));
        }
        if hello.resume.is_some() {
            return Err(Error::new(ErrorCode::ResumeWindowExpired, "this session cannot be resumed"));
        }
        let principal: Arc<str> = principal.into();
        let cap = self.config.max_sessions_per_principal;
        if self.session_counts.get(&principal).is_some_and(|count| *count >= cap) {
            let message = format!("this principal has {cap} connected sessions; close one first");
            return Err(Error::internal(message).with_details(details("cap", "sessions_per_principal")));
        }
        Ok(principal)
    }

    fn welcome(&mut self, now: Now, conn: ConnKey, pending: PendingHello, principal: Arc<str>) {
        let PendingHello { hello, bare_ulid, .. } = pending;
        let mut offered = self.config.features.clone();
        if self.config.heartbeat_interval.is_none() {
            offered.retain(|name| name != Feature::Heartbeat.as_str());
        }
        let features = FeatureSet::negotiate(&hello.capabilities.features, &offered);
        let seed = message_id_seed(&mut self.ids);
        let name = SessionName {
            id: self.ids.session_id(now.wall).into(),
            seed,
            profile: self.profile_for(bare_ulid, &hello),
        };
        let key = SessionKey(self.fresh_key());
        let session = Session::new(name, Arc::clone(&principal), features, conn);
        let heartbeat = self.config.heartbeat_interval.filter(|_| session.features.has(Feature::Heartbeat));
        let welcome = Welcome {
            session_id: session.id().to_string(),
            runtime: self.config.info.clone(),
            resume_token: self.ids.resume_token(),
            resume_window_sec: self.config.resume_window.as_secs().max(1),
            heartbeat_interval_sec: heartbeat.map(|interval| interval.as_secs().max(1)),
            capabilities: RuntimeCapabilities {
                encodings: vec!["json".into()],
                features: session.features.names().to_vec(),
                agents: self.agents.inventory(),
            },
            accepted_at: Some(now.wall),
        };
        self.sessions.insert(key, session);
        *self.session_counts.entry(principal).or_default() += 1;
        self.timers.clear(Timer::Handshake(conn));
        if let Some(entry) = self.conns.get_mut(&conn) {
            entry.state = ConnState::Open(key);
            entry.refused_in_row = 0;
            if let Some(interval) = heartbeat {
                let watch = Heartbeat::new(interval, now.mono);
                self.timers.set(Timer::Heartbeat(conn), watch.first_check());
                entry.heartbeat = Some(watch);
            }
        }
        self.answer(now, conn, kind::SESSION_WELCOME, None, None, &welcome);
    }

    fn profile_for(&self, bare_ulid: bool, hello: &Hello) -> WireProfile {
        match self.config.profile {
            ProfileChoice::Draft => WireProfile::Draft,
            ProfileChoice::Py11 => WireProfile::Py11,
            ProfileChoice::Auto if bare_ulid && hello.empty_agents_list => WireProfile::Py11,
            ProfileChoice::Auto => WireProfile::Draft,
        }
    }

    /// Ends every session with `session.bye` and cancels every job.
    pub fn shutdown(&mut self, now: Now, reason: &str) {
        self.shutting_down = true;
        let mut live: Vec<JobKey> =
            self.jobs.iter().filter(|(_, job)| !job.status.is_terminal()).map(|(key, _)| *key).collect();
        // Children before the jobs that delegated to them.
        live.sort_by_key(|key| (std::cmp::Reverse(self.depth(*key)), *key));
        for job in live {
            self.end_job(now, job, Ending::Cancelled { reason: reason.to_owned() });
        }
    }

    /// Says goodbye on every connection; to be called once the cancelled jobs have ended or the grace is over.
    pub fn close_connections(&mut self, now: Now, reason: &str) {
        let mut open: Vec<ConnKey> = self.conns.keys().copied().collect();
        open.sort();
        for conn in open {
            if self.session_of(conn).is_some() {
                let bye = Bye { reason: reason.to_owned(), code: None };
                self.answer(now, conn, kind::SESSION_BYE, None, None, &bye);
            }
            self.close_conn(now, conn);
        }
    }

    /// Lets what is queued leave, then asks the host to close. The session is free of the connection at once.
    pub(super) fn close_conn(&mut self, now: Now, conn: ConnKey) {
        let Some(entry) = self.conns.get_mut(&conn) else { return };
        if matches!(entry.state, ConnState::Closing) {
            return;
        }
        let previous = std::mem::replace(&mut entry.state, ConnState::Closing);
        entry.heartbeat = None;
        self.timers.clear(Timer::Handshake(conn));
        self.timers.clear(Timer::Heartbeat(conn));
        if let ConnState::Open(key) = previous {
            self.detach(now, key, conn);
        }
        self.events.push_back(RuntimeEvent::Close(conn));
    }

    pub(super) fn answer(
        &mut self,
        now: Now,
        conn: ConnKey,
        kind: &'static str,
        job_id: Option<Arc<str>>,
        trace_id: Option<Arc<str>>,
        payload: &impl Serialize,
    ) {
        // Serialising our own structs of strings and numbers does not fail.
        let payload = Bytes::from(serde_json::to_vec(payload).unwrap_or_else(|_| b"{}".to_vec()));
        let id = self.ids.message_id(now.wall);
        let session_id = self.session_of(conn).map(|(_, session)| Arc::clone(session.id()));
        self.push(now, conn, Frame::Message { session_id, kind, id, job_id, trace_id, payload });
    }

    pub(super) fn answer_error(&mut self, now: Now, conn: ConnKey, error: Error, request_id: Option<String>) {
        self.answer(now, conn, kind::SESSION_ERROR, None, None, &SessionError { error, request_id });
    }

    pub(super) fn push(&mut self, now: Now, conn: ConnKey, frame: Frame) {
        let Some(entry) = self.conns.get_mut(&conn) else { return };
        if matches!(entry.state, ConnState::Closing) {
            return;
        }
        entry.out_bytes += frame.cost();
        entry.out.push_back(frame);
        if !entry.announced {
            entry.announced = true;
            self.events.push_back(RuntimeEvent::Writable(conn));
        }
        let cap = self.config.buffer_cap;
        if !entry.replaying && (entry.out.len() > cap.events || entry.out_bytes > cap.bytes) {
            self.drop_hopeless_consumer(now, conn);
        }
    }

    /// A peer that never reads loses its connection, not its jobs.
    fn drop_hopeless_consumer(&mut self, now: Now, conn: ConnKey) {
        if let Some(entry) = self.conns.get_mut(&conn) {
            entry.out.clear();
            entry.out_bytes = 0;
        }
        let error = Error::internal("too much waits for this connection; read faster, then connect again");
        self.answer_error(now, conn, error.with_details(details("cap", "buffered_events")), None);
        self.close_conn(now, conn);
    }

    /// Moves up to `max` frames into `out`; what the host has taken counts as sent.
    pub fn poll_transmit(&mut self, now: Now, conn: ConnKey, max: usize, out: &mut Vec<Frame>) {
        let Some(entry) = self.conns.get_mut(&conn) else { return };
        let taken = entry.out.len().min(max);
        for frame in entry.out.drain(..taken) {
            entry.out_bytes = entry.out_bytes.saturating_sub(frame.cost());
            out.push(frame);
        }
        if taken > 0
            && let Some(heartbeat) = &mut entry.heartbeat
        {
            heartbeat.sent(now.mono);
        }
        if entry.out.is_empty() {
            entry.announced = false;
            entry.replaying = false;
        }
        let room = entry.out.len() <= self.config.outgoing_high_water / 2
            && entry.out_bytes <= self.config.buffer_cap.bytes / 8;
        if entry.choked && room {
            entry.choked = false;
            if let ConnState::Open(key) = entry.state {
                self.events.push_back(RuntimeEvent::Drained(key));
            }
        }
    }

    /// The next thing to do.
    pub fn poll_event(&mut self) -> Option<RuntimeEvent> {
        self.events.pop_front()
    }

    /// The next thing to keep, and its number.
    pub fn poll_store(&mut self) -> Option<(u64, StoreOp)> {
        self.store.pop_front()
    }

    /// The store's answer: every record up to this ticket is kept, or none is for now and why (D-18).
    pub fn handle_stored(&mut self, now: Now, ticket: u64, outcome: Result<(), String>) {
        if let Err(fault) = outcome {
            self.store_fault = Some(fault);
            return;
        }
        self.store_fault = None;
        self.stored = self.stored.max(ticket);
        while self.unstored.front().is_some_and(|(waiting, _)| *waiting <= ticket) {
            match self.unstored.pop_front() {
                Some((_, Unstored::Copy(key, frame))) => {
                    if let Some(conn) = self.sessions.get(&key).and_then(|session| session.conn) {
                        self.push(now, conn, frame);
                    }
                }
                Some((_, Unstored::Closed(conn, closed))) => self.say_closed(now, conn, &closed),
                None => break,
            }
        }
        if self.unstored.len() <= self.config.outgoing_high_water / 2 {
            let freed = std::mem::take(&mut self.held_by_store);
            self.events.extend(freed.into_iter().map(RuntimeEvent::Drained));
        }
    }

    pub(super) fn check_heartbeat(&mut self, now: Now, conn: ConnKey) {
        let Some(heartbeat) = self.conns.get(&conn).and_then(|entry| entry.heartbeat.as_ref()) else { return };
        match heartbeat.check(now.mono) {
            Beat::Wait(at) => self.timers.set(Timer::Heartbeat(conn), at),
            Beat::Ping(next) => {
                let nonce = self.ids.ulid(now.wall).to_string();
                self.answer(now, conn, kind::SESSION_PING, None, None, &Ping { nonce, sent_at: Some(now.wall) });
                self.timers.set(Timer::Heartbeat(conn), next);
            }
            Beat::Lost => {
                let error = Error::new(ErrorCode::HeartbeatLost, "no message for two heartbeat intervals");
                self.answer_error(now, conn, error, None);
                self.close_conn(now, conn);
            }
        }
    }
}

/// The random part of a fresh ULID, with room for every number above it.
fn message_id_seed(ids: &mut IdGenerator) -> [u8; 10] {
    let mut seed = ids.random();
    seed[0] &= 0x7f;
    seed
}
