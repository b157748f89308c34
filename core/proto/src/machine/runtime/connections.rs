//! Connections: the handshake, what arrives before and after it, and what leaves.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;

use super::{ConnKey, JobKey, RuntimeEvent, RuntimeMachine, SessionKey, Timer, Token, details};
use crate::envelope::Head;
use crate::error::{Error, ErrorCode};
use crate::machine::frame::Frame;
use crate::machine::heartbeat::{Beat, Heartbeat};
use crate::machine::job::Ending;
use crate::message::{Bye, ClientMessage, Hello, Ping, SessionError, kind};
use crate::time::Now;

#[derive(Debug)]
pub(super) enum ConnState {
    AwaitHello,
    Verifying(Box<PendingHello>),
    /// The welcome waits for the store.
    Welcoming(SessionKey),
    Open(SessionKey),
    Closing,
}

#[derive(Debug)]
pub(super) struct PendingHello {
    pub(super) id: String,
    pub(super) hello: Hello,
    /// As one published client writes ids (D-1).
    pub(super) bare_ulid: bool,
}

#[derive(Debug)]
pub(super) struct Conn {
    pub(super) state: ConnState,
    pub(super) heartbeat: Option<Heartbeat>,
    pub(super) out: VecDeque<Frame>,
    pub(super) out_bytes: usize,
    /// Whether the host was told that frames wait.
    announced: bool,
    /// Whether a replay was put into the queue, which the store bounds, and has not left yet.
    pub(super) replaying: bool,
    /// Histories whose records wait for the store: their replay is not over while nothing is queued.
    pub(super) histories: usize,
    /// Whether emitters wait for this connection.
    pub(super) choked: bool,
    /// Whether secrets may be sent over it (R-9.8.2.11).
    pub(super) secure: bool,
    /// When it last said something other than a heartbeat.
    pub(super) active_at: Duration,
    /// Whether its session had jobs or subscriptions when that was last looked at.
    pub(super) was_busy: bool,
    pub(super) refused_in_row: u32,
}

impl Conn {
    /// The session begins; nothing refused so far counts any more.
    pub(super) fn open(&mut self, session: SessionKey, heartbeat: Option<Heartbeat>) {
        self.state = ConnState::Open(session);
        self.heartbeat = heartbeat;
        self.refused_in_row = 0;
    }

    /// What waits is not sent: the session's log has it, save the acceptances, which are returned.
    pub(super) fn drop_waiting(&mut self) -> Vec<Frame> {
        self.out_bytes = 0;
        self.out.drain(..).filter(Frame::is_opening).collect()
    }
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
                histories: 0,
                choked: false,
                secure: false,
                active_at: now.mono,
                was_busy: false,
                refused_in_row: 0,
            },
        );
        conn
    }

    /// A transport is gone. Jobs go on, and their events keep their numbers.
    pub fn disconnected(&mut self, now: Now, conn: ConnKey) {
        self.timers.clear(Timer::Handshake(conn));
        self.timers.clear(Timer::Heartbeat(conn));
        self.timers.clear(Timer::Idle(conn));
        let Some(mut gone) = self.conns.remove(&conn) else { return };
        self.credentials.disconnected(conn);
        match gone.state {
            ConnState::Open(key) => self.detach(now, key, conn, gone.drop_waiting()),
            ConnState::Welcoming(key) => self.abandon_welcome(key),
            ConnState::AwaitHello | ConnState::Verifying(_) | ConnState::Closing => {}
        }
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
            ConnState::Verifying(_) | ConnState::Welcoming(_) => {
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
                if let Err(error) = self.admit_message(now, key) {
                    return self.answer_error(now, conn, error, Some(head.id.into_owned()));
                }
                match refusal.map_or(message, Err) {
                    Ok(message) => {
                        self.took(now, conn, &message);
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
        self.timers.clear(Timer::Idle(conn));
        match previous {
            ConnState::Open(key) => self.detach(now, key, conn, Vec::new()),
            ConnState::Welcoming(key) => self.abandon_welcome(key),
            ConnState::AwaitHello | ConnState::Verifying(_) | ConnState::Closing => {}
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
        let untold = self.conns.get_mut(&conn).map(Conn::drop_waiting).unwrap_or_default();
        if let Some(session) = self.session_of(conn).map(|(key, _)| key).and_then(|key| self.sessions.get_mut(&key)) {
            session.untold.extend(untold);
        }
        let error = Error::internal("too much waits for this connection; read faster, then connect again");
        self.answer_error(now, conn, error.with_details(details("cap", "buffered_events")), None);
        self.close_conn(now, conn);
    }

    /// Moves up to `max` frames into `out`; what the host has taken counts as sent.
    pub fn poll_transmit(&mut self, now: Now, conn: ConnKey, max: usize, out: &mut Vec<Frame>) {
        let Some(entry) = self.conns.get_mut(&conn) else { return };
        let taken = entry.out.len().min(max);
        let session = match entry.state {
            ConnState::Open(key) => self.sessions.get(&key),
            _ => None,
        };
        for frame in entry.out.drain(..taken) {
            entry.out_bytes = entry.out_bytes.saturating_sub(frame.cost());
            out.push(self.credentials.fill(conn, session, frame));
        }
        if taken > 0
            && let Some(heartbeat) = &mut entry.heartbeat
        {
            heartbeat.sent(now.mono);
        }
        if entry.out.is_empty() {
            entry.announced = false;
            entry.replaying = entry.histories > 0;
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
