//! What a client's callers and its task share, and how what the machine tells reaches them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::Context;
use std::time::Duration;

use arcp_proto::machine::ClientMachine;
use arcp_proto::machine::client::{ClientConfig, ClientEvent, HandleKey, Loss, Ticket};
use arcp_proto::message::{Accepted, JobStatus, Jobs, Subscribed, Welcome};
use arcp_proto::time::Now;
use arcp_proto::{Error as ProtocolError, ErrorCode};
use bytes::Bytes;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::{oneshot, watch};

use crate::clock::{Clock, OsEntropy};
use crate::connection::Signal;
use crate::error::Error;
use crate::events::{EventQueue, Load, Pushed, Wakeup};
use crate::span::say;

/// Held by every client and handle: when the last is dropped, nobody can use the session and it ends.
pub(crate) struct Owner {
    shared: Weak<Shared>,
}

impl Owner {
    pub(crate) fn of(shared: &Arc<Shared>) -> Self {
        Owner { shared: Arc::downgrade(shared) }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.finish(Error::Closed("the client was dropped".into()));
        }
    }
}

/// What the client's task and its callers share: one machine behind one lock, held for a decision at a time.
pub(crate) struct Shared {
    pub(crate) core: Mutex<Core>,
    clock: Clock,
    signal: Signal,
    /// What waits in lossless queues; the reader pauses while there is too much.
    waiting_events: AtomicUsize,
    waiting_bytes: AtomicUsize,
    room: AtomicWaker,
    pub(crate) state: watch::Sender<ConnectionState>,
    /// The connection of now is given up.
    pub(crate) cut: AtomicBool,
    /// Another is to be made.
    connect: AtomicBool,
}

pub(crate) struct Core {
    pub(crate) machine: ClientMachine,
    pub(crate) requests: FxHashMap<Ticket, Asker>,
    pub(crate) handles: FxHashMap<HandleKey, Arc<EventQueue>>,
}

/// How it stands with a client's session.
#[derive(Clone, Debug)]
pub enum ConnectionState {
    /// Not connected yet.
    Idle,
    /// The handshake is under way.
    Connecting,
    /// There is a connection; the last welcome, which holds the resume token.
    Open(Arc<Welcome>),
    /// The connection was lost and is made anew; requests wait.
    Reconnecting {
        /// What was wrong with the last connection.
        reason: String,
        /// The attempt under way, from 1; 0 before the first.
        attempt: u32,
    },
    /// The session is over.
    Closed(Error),
}

/// Who asked, and how the answer gets there.
pub(crate) enum Asker {
    Waits(oneshot::Sender<Answer>),
    /// Called without a lock.
    Told(Box<dyn FnOnce(Answer) + Send>),
}

impl Asker {
    /// The answer is on its way, or goes into `told` to be given without a lock; `false` when nobody waits any more.
    fn answer(self, answer: Answer, told: &mut Vec<Told>) -> bool {
        match self {
            // The caller may have stopped waiting.
            Asker::Waits(sender) => sender.send(answer).is_ok(),
            Asker::Told(then) => {
                told.push(Told { then, answer });
                true
            }
        }
    }
}

/// An answer to be given.
struct Told {
    then: Box<dyn FnOnce(Answer) + Send>,
    answer: Answer,
}

impl Told {
    fn tell(self) {
        (self.then)(self.answer);
    }
}

pub(crate) enum Answer {
    Accepted(HandleKey, Arc<EventQueue>, Box<Accepted>),
    Subscribed(HandleKey, Arc<EventQueue>, Box<Subscribed>),
    Cancelled(Option<JobStatus>),
    Jobs(Box<Jobs>),
    Failed(Error),
}

/// Events held for readers before the socket is left unread: above what a runtime lets be unacknowledged (D-20).
const MAX_WAITING: usize = 200_000;
/// Bytes held for readers before the socket is left unread.
const MAX_WAITING_BYTES: usize = 256 << 20;

impl Shared {
    /// What a client that is not connected shares.
    pub(crate) fn new(config: ClientConfig) -> Self {
        let core = Core {
            machine: ClientMachine::new(config, Box::new(OsEntropy::new())),
            requests: FxHashMap::default(),
            handles: FxHashMap::default(),
        };
        Shared {
            core: Mutex::new(core),
            clock: Clock::new(),
            signal: Signal::default(),
            waiting_events: AtomicUsize::new(0),
            waiting_bytes: AtomicUsize::new(0),
            room: AtomicWaker::new(),
            state: watch::Sender::new(ConnectionState::Idle),
            cut: AtomicBool::new(false),
            connect: AtomicBool::new(false),
        }
    }

    /// Nobody looks at this handle any more.
    pub(crate) fn forget(&self, key: HandleKey) {
        let mut core = self.core.lock();
        core.handles.remove(&key);
        core.machine.forget(key);
    }

    /// Whether requests can be made.
    pub(crate) fn open(&self) -> Result<(), Error> {
        match &*self.state.borrow() {
            ConnectionState::Open(_) | ConnectionState::Reconnecting { .. } => Ok(()),
            ConnectionState::Idle | ConnectionState::Connecting => {
                Err(Error::Closed("the client is not connected; call connect first".into()))
            }
            ConnectionState::Closed(error) => Err(error.clone()),
        }
    }

    pub(crate) fn why_closed(&self) -> Error {
        match &*self.state.borrow() {
            ConnectionState::Closed(error) => error.clone(),
            _ => Error::Closed("the request was dropped".into()),
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(*self.state.borrow(), ConnectionState::Closed(_))
    }

    pub(crate) fn signal(&self) -> &Signal {
        &self.signal
    }

    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    pub(crate) fn next_timeout(&self) -> Option<Duration> {
        self.core.lock().machine.poll_timeout()
    }

    pub(crate) fn transmit(&self, frames: &mut Vec<Bytes>) {
        self.core.lock().machine.poll_transmit(frames);
    }

    /// Whether the machine asked for a connection; asked once.
    pub(crate) fn take_connect(&self) -> bool {
        self.connect.swap(false, Ordering::AcqRel)
    }

    /// Whether readers lag so far that nothing more is read; registers for the change.
    pub(crate) fn is_full(&self, cx: &Context<'_>) -> bool {
        let full = || {
            self.waiting_events.load(Ordering::Relaxed) > MAX_WAITING
                || self.waiting_bytes.load(Ordering::Relaxed) > MAX_WAITING_BYTES
        };
        if !full() {
            return false;
        }
        self.room.register(cx.waker());
        let full = full();
        if full {
            self.act(ClientMachine::reading_paused);
        }
        full
    }

    /// A handle's application takes the chunks of its streamed result itself.
    pub(crate) fn leave_chunks(&self, key: HandleKey) {
        self.act(|machine, _| machine.leave_chunks(key));
    }

    pub(crate) fn act<R>(&self, decide: impl FnOnce(&mut ClientMachine, Now) -> R) -> R {
        self.act_on_core(|core, now| decide(&mut core.machine, now))
    }

    /// Takes one decision under the lock and carries out what follows from it.
    pub(crate) fn act_on_core<R>(&self, decide: impl FnOnce(&mut Core, Now) -> R) -> R {
        let now = self.clock.now();
        let mut core = self.core.lock();
        let before = core.machine.poll_timeout();
        let result = decide(&mut core, now);
        let mut writable = false;
        let mut readers = Vec::new();
        let mut unread = Vec::new();
        let mut told = Vec::new();
        let mut over = None;
        loop {
            while let Some(event) = core.machine.poll_event() {
                match event {
                    ClientEvent::Writable => writable = true,
                    ClientEvent::Event(key, event) => {
                        let (position, cost) = (event.position, event.cost());
                        // A published runtime sends history before it answers the subscribe.
                        match core.handles.entry(key).or_default().push(event, &mut readers) {
                            Pushed::Kept => {
                                self.waiting_events.fetch_add(1, Ordering::Relaxed);
                                self.waiting_bytes.fetch_add(cost, Ordering::Relaxed);
                            }
                            Pushed::Unread => unread.push(position),
                        }
                    }
                    ClientEvent::Ended(key, outcome) => {
                        // Kept until the view is dropped: the end may come before the answer to a subscribe.
                        core.handles.entry(key).or_default().end(outcome.map_err(Error::Protocol), &mut readers);
                    }
                    other => over = self.tell(&mut core, other, &mut told).or(over),
                }
            }
            if unread.is_empty() {
                break;
            }
            for position in unread.drain(..) {
                core.machine.processed(now, position);
            }
        }
        let rescheduled = core.machine.poll_timeout() != before;
        drop(core);
        // Whoever is told or woken may call back at once; who submitted hears of that before of the job's end.
        told.into_iter().for_each(Told::tell);
        readers.into_iter().for_each(Wakeup::wake);
        if writable {
            self.signal.writable();
        } else if rescheduled {
            self.signal.wake();
        }
        if let Some(why) = over {
            self.finish(why);
        }
        result
    }

    /// Everything but a handle's events; the reason when the session is over.
    fn tell(&self, core: &mut Core, event: ClientEvent, told: &mut Vec<Told>) -> Option<Error> {
        let mut answer = |ticket: Ticket, answer: Answer| {
            if let Some(asker) = core.requests.remove(&ticket) {
                asker.answer(answer, told);
            }
        };
        match event {
            ClientEvent::Welcomed(welcome) => self.enter(ConnectionState::Open(welcome)),
            ClientEvent::Resumed(welcome) => {
                say(|| tracing::info!(session = %welcome.session_id, "the session goes on over a new connection"));
                self.enter(ConnectionState::Open(welcome));
            }
            ClientEvent::StartedOver(welcome) => {
                say(|| tracing::warn!(session = %welcome.session_id, "the session was lost; another took its place"));
                self.enter(ConnectionState::Open(welcome));
            }
            ClientEvent::Cut(loss) => {
                let reason = loss.to_string();
                say(|| tracing::info!(%reason, "connecting again"));
                self.enter(ConnectionState::Reconnecting { reason, attempt: 0 });
                self.cut.store(true, Ordering::Release);
                self.signal.wake();
            }
            ClientEvent::Connect { attempt } => {
                self.state.send_if_modified(|state| match state {
                    ConnectionState::Reconnecting { attempt: shown, .. } => {
                        *shown = attempt;
                        true
                    }
                    _ => false,
                });
                self.connect.store(true, Ordering::Release);
                self.signal.wake();
            }
            ClientEvent::Unknown(ticket) => answer(
                ticket,
                Answer::Failed(Error::Transport(
                    "the session was lost before the runtime answered: it is not known whether the runtime took the job; submit with an idempotency_key to be able to repeat it"
                        .into(),
                )),
            ),
            ClientEvent::Jobs(ticket, jobs) => answer(ticket, Answer::Jobs(jobs)),
            ClientEvent::Missed(key, count) => core.handles.entry(key).or_default().missed(count),
            ClientEvent::Assembled(key, bytes) => core.handles.entry(key).or_default().assembled(bytes),
            ClientEvent::NotWelcomed(Some(error)) => return Some(Error::Protocol(error)),
            ClientEvent::NotWelcomed(None) => {
                return Some(Error::Timeout("the runtime sent no session.welcome".into()));
            }
            ClientEvent::Accepted(ticket, key, accepted) => {
                let queue = Arc::clone(core.handles.entry(key).or_default());
                self.hand_over(core, ticket, key, Answer::Accepted(key, queue, accepted), told);
            }
            ClientEvent::Subscribed(ticket, key, subscribed) => {
                let queue = Arc::clone(core.handles.entry(key).or_default());
                self.hand_over(core, ticket, key, Answer::Subscribed(key, queue, subscribed), told);
            }
            ClientEvent::Cancelled(ticket, status) => answer(ticket, Answer::Cancelled(status)),
            ClientEvent::Refused(ticket, error) => answer(ticket, Answer::Failed(Error::Protocol(error))),
            ClientEvent::TimedOut(ticket) => {
                answer(ticket, Answer::Failed(Error::Timeout("the runtime did not answer the request".into())));
            }
            ClientEvent::SessionError(error) => say(|| tracing::warn!(%error, "the runtime reported an error")),
            ClientEvent::Lost(loss) => return Some(describe(loss)),
            ClientEvent::Closed => return Some(Error::Closed("the client was closed".into())),
            ClientEvent::Writable | ClientEvent::Event(..) | ClientEvent::Ended(..) => {}
        }
        None
    }

    /// The first end counts.
    fn enter(&self, state: ConnectionState) {
        self.state.send_if_modified(|old| {
            let goes_on = !matches!(old, ConnectionState::Closed(_));
            if goes_on {
                *old = state;
            }
            goes_on
        });
    }

    /// Gives a new handle to whoever asked for it, or forgets it when nobody waits any more.
    fn hand_over(&self, core: &mut Core, ticket: Ticket, key: HandleKey, answer: Answer, told: &mut Vec<Told>) {
        let taken = core.requests.remove(&ticket).is_some_and(|asker| asker.answer(answer, told));
        if !taken {
            core.handles.remove(&key);
            core.machine.forget(key);
        }
    }

    /// The session is over: everything that waits ends in bounded time, and the first reason counts.
    pub(crate) fn finish(&self, why: Error) {
        self.state.send_if_modified(|state| {
            let fresh = !matches!(state, ConnectionState::Closed(_));
            if fresh {
                *state = ConnectionState::Closed(why.clone());
            }
            fresh
        });
        let (requests, handles) = {
            let mut core = self.core.lock();
            (std::mem::take(&mut core.requests), std::mem::take(&mut core.handles))
        };
        let mut told = Vec::new();
        for asker in requests.into_values() {
            asker.answer(Answer::Failed(why.clone()), &mut told);
        }
        told.into_iter().for_each(Told::tell);
        let mut readers = Vec::new();
        for queue in handles.into_values() {
            queue.end(Err(why.clone()), &mut readers);
        }
        readers.into_iter().for_each(Wakeup::wake);
        self.signal.close();
    }

    /// The events at these positions were taken; so much of them was waited for.
    pub(crate) fn took(&self, awaited: Load, positions: impl IntoIterator<Item = u64>) {
        let events = self.waiting_events.fetch_sub(awaited.events, Ordering::Relaxed);
        let bytes = self.waiting_bytes.fetch_sub(awaited.bytes, Ordering::Relaxed);
        if events > MAX_WAITING || bytes > MAX_WAITING_BYTES {
            self.room.wake();
        }
        self.act(|machine, now| positions.into_iter().for_each(|position| machine.processed(now, position)));
    }
}

fn describe(loss: Loss) -> Error {
    match loss {
        Loss::HeartbeatLost => Error::Protocol(ProtocolError::new(ErrorCode::HeartbeatLost, loss.to_string())),
        Loss::Refused(error) => Error::Protocol(error),
        Loss::Bye(_) => Error::Closed(loss.to_string()),
        _ => Error::Transport(loss.to_string()),
    }
}
