//! The client machine: one session, its requests and its handles, over as many connections as it takes.

mod config;
mod received;
mod recent;
mod requests;
mod result;
mod resume;
mod stash;
mod taken;
mod views;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustc_hash::FxHashMap;

pub use config::{Backoff, ClientConfig, CloseStyle};
pub use result::ResultParts;

use self::recent::Recent;
use self::resume::Link;
use self::stash::Stash;
use self::taken::Taken;
use self::views::Route;
use super::heartbeat::{Beat, Heartbeat};
use super::timers::Timers;
use crate::error::Error;
use crate::feature::FeatureSet;
use crate::id::{Entropy, IdGenerator};
use crate::message::{Accepted, JobResult, JobStatus, Jobs, Ping, Subscribed, Welcome, kind};
use crate::time::Now;

/// One request that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// One view of a job: a submit's or a subscription's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HandleKey(pub u64);

/// One event of a job as it was received; the body stays raw.
#[derive(Clone, Debug)]
pub struct JobEvent {
    /// Its number in its session.
    pub event_seq: u64,
    /// Its place among all this client received, for [`ClientMachine::processed`]: the number, until a session was lost
    /// and numbers began anew.
    pub position: u64,
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

    /// What it weighs in a bounded queue, in bytes.
    pub fn cost(&self) -> usize {
        self.kind.len() + self.ts.len() + self.body.len() + 192
    }
}

/// Why a connection, or a session, ended without the application asking for it.
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
    /// The runtime sent a message over the size limit, which nobody can read.
    Oversize,
    /// The runtime said goodbye.
    Bye(String),
    /// A new connection was refused.
    Refused(Error),
    /// No new connection could be made, or none that helped.
    GaveUp {
        /// How many were tried.
        attempts: u32,
        /// What ended the last.
        why: String,
    },
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Loss::Disconnected(why) => write!(f, "the connection was lost: {why}"),
            Loss::Gap { expected, got } => {
                write!(f, "events were lost on the way: expected number {expected}, got {got}")
            }
            Loss::HeartbeatLost => f.write_str("the runtime was silent for two heartbeat intervals"),
            Loss::Oversize => f.write_str("the runtime sent a message over the size limit"),
            Loss::Bye(reason) if reason.is_empty() => f.write_str("the runtime ended the session"),
            Loss::Bye(reason) => write!(f, "the runtime ended the session: {reason}"),
            Loss::Refused(error) => write!(f, "the runtime refused the new connection: {error}"),
            Loss::GaveUp { attempts, why } => {
                write!(f, "the connection was lost and could not be made anew in {attempts} attempts: {why}")
            }
        }
    }
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
    /// One page of jobs.
    Jobs(Ticket, Box<Jobs>),
    /// The session was lost before this submit was answered, and it has no idempotency key: nobody can tell whether the
    /// runtime took it.
    Unknown(Ticket),
    /// An event of a job.
    Event(HandleKey, JobEvent),
    /// So many events of the job came before the handle existed and found no room.
    Missed(HandleKey, u64),
    /// The bytes of a streamed result; its end follows.
    Assembled(HandleKey, Bytes),
    /// The job ended; nothing follows on this handle.
    Ended(HandleKey, Result<Box<JobResult>, Error>),
    /// An error that belongs to no request.
    SessionError(Error),
    /// The connection is gone and will be made anew: the host drops its transport. [`ClientEvent::Connect`] follows.
    Cut(Loss),
    /// The host opens a transport and answers with [`ClientMachine::connected`] or [`ClientMachine::connect_failed`].
    Connect {
        /// From 1.
        attempt: u32,
    },
    /// The session goes on over a new connection.
    Resumed(Arc<Welcome>),
    /// The session could not be taken up again and another took its place; what could be carried over goes on in it.
    StartedOver(Arc<Welcome>),
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
    /// The connection was lost and is made anew.
    Cut,
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
    Reconnect,
    GiveUp,
}

/// A request with all it takes to send it again, byte for byte in the same session (D-17).
#[derive(Debug)]
struct Pending {
    id: String,
    kind: &'static str,
    job_id: Option<Arc<str>>,
    trace_id: Option<String>,
    extensions: Option<String>,
    payload: Bytes,
    deadline: Duration,
    what: Request,
    /// Whether it left at least once.
    sent: bool,
    /// Whether it left before the connection of now.
    again: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Request {
    Submit {
        /// With an idempotency key it can be repeated in any session.
        keyed: bool,
        /// Nobody waits for it any more.
        abandoned: bool,
    },
    Subscribe(HandleKey),
    /// The machine's own: handles of a lost session follow their job in the new one.
    Reattach(Arc<str>),
    Cancel,
    ListJobs,
}

/// No more requests wait for a connection, and no more bytes of them.
const MAX_UNSENT: usize = 1024;
const MAX_UNSENT_BYTES: usize = 16 << 20;

/// Bytes of streamed results that are put together at a time, over all handles.
const MAX_ASSEMBLED: usize = 256 << 20;

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
    /// What must be added to a number to get its position: the numbers of the sessions before.
    base: u64,
    /// Kept from the first subscription on.
    recent: Option<Recent>,
    taken: Taken,
    acked: u64,
    next_key: u64,
    pending: BTreeMap<Ticket, Pending>,
    pending_by_id: HashMap<String, Ticket>,
    unsent: usize,
    unsent_bytes: usize,
    /// Submits that were sent again and are not answered: events of unknown jobs may be theirs.
    repeated_submits: usize,
    stash: Stash,
    /// Jobs to stop following once there is a connection.
    to_unsubscribe: BTreeSet<String>,
    routes: HashMap<Arc<str>, Route>,
    jobs: FxHashMap<HandleKey, Arc<str>>,
    /// Bytes of streamed results held by all handles.
    assembled: usize,
    link: Link,
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
            base: 0,
            recent: None,
            taken: Taken::default(),
            acked: 0,
            next_key: 0,
            pending: BTreeMap::new(),
            pending_by_id: HashMap::new(),
            unsent: 0,
            unsent_bytes: 0,
            repeated_submits: 0,
            stash: Stash::default(),
            to_unsubscribe: BTreeSet::new(),
            routes: HashMap::new(),
            jobs: FxHashMap::default(),
            assembled: 0,
            link: Link::default(),
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
                Timer::Handshake => self.not_welcomed(now, None),
                Timer::Heartbeat => self.check_heartbeat(now),
                Timer::Requests => self.expire_requests(now),
                Timer::Ack if self.taken.through() > self.acked => self.ack(now, self.taken.through()),
                Timer::Ack => {}
                Timer::Close => self.closed(),
                Timer::Reconnect => self.ask_for_connection(),
                Timer::GiveUp => self.give_up(),
            }
        }
        self.release_stash(now);
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
            Some(Beat::Lost) => self.lose(now, Loss::HeartbeatLost),
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
                None => {}
                Some((_, Request::Reattach(job_id))) => self.cannot_reattach(&job_id, "the runtime did not answer"),
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
