//! The client: one session around the client machine.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Waker};
use std::time::Duration;

use arcp_proto::machine::ClientMachine;
use arcp_proto::machine::client::{ClientConfig, ClientEvent, HandleKey, Loss, Ticket};
use arcp_proto::message::{Accepted, JobStatus, Jobs, ListJobs, Resume, Submit, Subscribe, Subscribed, Welcome};
use arcp_proto::time::Now;
use arcp_proto::trace::TraceContext;
use arcp_proto::{Error as ProtocolError, ErrorCode};
use bytes::Bytes;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use crate::clock::{Clock, OsEntropy};
use crate::connection::Signal;
use crate::error::Error;
use crate::events::{EventQueue, Load, Pushed};
use crate::job::{JobHandle, Subscription, View};
use crate::link::run;
use crate::span::say;
use crate::token::TokenSource;
use crate::transport::Transport;

/// One session with a runtime. Cheap to clone; all clones are one session.
#[derive(Clone)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
    pub(crate) owner: Arc<Owner>,
}

/// Held by every client and handle: when the last is dropped, nobody can use the session and it ends.
pub(crate) struct Owner {
    shared: Weak<Shared>,
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
    core: Mutex<Core>,
    clock: Clock,
    signal: Signal,
    /// What waits in lossless queues; the reader pauses while there is too much.
    waiting_events: AtomicUsize,
    waiting_bytes: AtomicUsize,
    room: AtomicWaker,
    state: watch::Sender<ConnectionState>,
    /// The connection of now is given up.
    pub(crate) cut: AtomicBool,
    /// Another is to be made.
    connect: AtomicBool,
}

struct Core {
    machine: ClientMachine,
    requests: HashMap<Ticket, oneshot::Sender<Answer>>,
    handles: HashMap<HandleKey, Arc<EventQueue>>,
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

enum Answer {
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

impl Client {
    /// A client that is not connected.
    pub fn new(config: ClientConfig) -> Self {
        let core = Core {
            machine: ClientMachine::new(config, Box::new(OsEntropy)),
            requests: HashMap::new(),
            handles: HashMap::new(),
        };
        let shared = Shared {
            core: Mutex::new(core),
            clock: Clock::new(),
            signal: Signal::default(),
            waiting_events: AtomicUsize::new(0),
            waiting_bytes: AtomicUsize::new(0),
            room: AtomicWaker::new(),
            state: watch::Sender::new(ConnectionState::Idle),
            cut: AtomicBool::new(false),
            connect: AtomicBool::new(false),
        };
        let shared = Arc::new(shared);
        let owner = Arc::new(Owner { shared: Arc::downgrade(&shared) });
        Client { shared, owner }
    }

    /// Shakes hands over this transport and begins to read. A client connects once. If the transport knows how to reopen
    /// itself, a lost link is healed from the welcome on, and the token source is asked anew each time (D-7, D-24).
    ///
    /// # Errors
    /// The runtime's own error when it refuses; `Timeout` when no welcome comes in time; `Transport` when the
    /// connection ends before it; what the token source says.
    pub async fn connect(&self, transport: impl Transport, token: impl TokenSource) -> Result<Arc<Welcome>, Error> {
        self.begin(transport, token, None).await
    }

    /// Takes up a session of an earlier client, which then has that session's jobs, subscriptions and right to cancel
    /// (D-24). [`Client::job`] gives handles for its jobs; what comes for a job nobody asked for waits, up to 10 000
    /// events or 64 MiB in all.
    ///
    /// # Errors
    /// `RESUME_WINDOW_EXPIRED` when the session is not kept any more; else as [`Client::connect`].
    pub async fn connect_resuming(
        &self,
        transport: impl Transport,
        token: impl TokenSource,
        resume: Resume,
    ) -> Result<Arc<Welcome>, Error> {
        self.begin(transport, token, Some(resume)).await
    }

    async fn begin(
        &self,
        transport: impl Transport,
        token: impl TokenSource,
        resume: Option<Resume>,
    ) -> Result<Arc<Welcome>, Error> {
        let token = token.into_token();
        let shared = &self.shared;
        let mut fresh = false;
        shared.state.send_if_modified(|state| {
            fresh = matches!(state, ConnectionState::Idle);
            if fresh {
                *state = ConnectionState::Connecting;
            }
            fresh
        });
        if !fresh {
            return Err(Error::Closed("this client was connected before; make a new one".into()));
        }
        // Dropped with this call, the connection must not outlive it half open.
        let guard = AbandonGuard { shared };
        let first = token.get().await?;
        let reopener = transport.reopener();
        shared.act(|machine, now| {
            if reopener.is_none() {
                machine.never_reconnect();
            }
            if let Some(resume) = &resume {
                machine.resume(resume);
            }
            machine.connected(now, &first);
        });
        tokio::spawn(run(Arc::clone(shared), transport, reopener, token));
        let mut state = shared.state.subscribe();
        let outcome = loop {
            match &*state.borrow_and_update() {
                ConnectionState::Open(welcome) => break Ok(Arc::clone(welcome)),
                ConnectionState::Closed(error) => break Err(error.clone()),
                _ => {}
            }
            if state.changed().await.is_err() {
                break Err(Error::Closed("the client was dropped".into()));
            }
        };
        std::mem::forget(guard);
        outcome
    }

    /// The last welcome, while the session is not over.
    pub fn welcome(&self) -> Option<Arc<Welcome>> {
        match &*self.shared.state.borrow() {
            ConnectionState::Open(welcome) => return Some(Arc::clone(welcome)),
            ConnectionState::Reconnecting { .. } => {}
            _ => return None,
        }
        self.shared.core.lock().machine.welcome().cloned()
    }

    /// How it stands with the session, now and at every change. Watching does not keep the session open.
    pub fn connection_state(&self) -> watch::Receiver<ConnectionState> {
        self.shared.state.subscribe()
    }

    /// Whether a feature was negotiated.
    pub fn has_feature(&self, name: &str) -> bool {
        self.shared.core.lock().machine.has_feature(name)
    }

    /// What was negotiated, in this client's order; empty before the welcome.
    pub fn negotiated_features(&self) -> Vec<String> {
        self.shared.core.lock().machine.negotiated_features().to_vec()
    }

    /// The highest `event_seq` received.
    pub fn latest_event_seq(&self) -> u64 {
        self.shared.core.lock().machine.latest_event_seq()
    }

    /// Submits a job and waits until it is accepted. `trace_id` is 32 hex digits or a whole `traceparent`.
    ///
    /// # Errors
    /// The refusal; `Timeout` after the request time; `Closed` or `Transport` when the session ends first.
    pub async fn submit(&self, submit: &Submit, trace_id: Option<&str>) -> Result<JobHandle, Error> {
        // A retry under the same key finds the job again, so it is left to run.
        let abandon = submit.idempotency_key.is_none();
        self.submitted(self.ask(abandon, |machine, now| Ok(machine.submit(now, submit, trace_id))).await?)
    }

    /// Submits a job in the trace of `context`, which rides along for the agent.
    ///
    /// # Errors
    /// As [`Client::submit`].
    pub async fn submit_traced(&self, submit: &Submit, context: &TraceContext) -> Result<JobHandle, Error> {
        let abandon = submit.idempotency_key.is_none();
        self.submitted(self.ask(abandon, |machine, now| Ok(machine.submit_traced(now, submit, context))).await?)
    }

    fn submitted(&self, answer: Answer) -> Result<JobHandle, Error> {
        match answer {
            Answer::Accepted(key, queue, accepted) => {
                let job_id = accepted.job_id.clone();
                Ok(JobHandle::submitted(View::new(self, key, queue, job_id), *accepted))
            }
            other => Err(other.into_error()),
        }
    }

    /// Follows a job of the same principal, with the kept history first if asked.
    ///
    /// # Errors
    /// `JOB_NOT_FOUND`, `PERMISSION_DENIED`; `INVALID_REQUEST` when not negotiated; else as [`Client::submit`].
    pub async fn subscribe(&self, subscribe: &Subscribe) -> Result<Subscription, Error> {
        let answer = self.ask(false, |machine, now| machine.subscribe(now, subscribe)).await?;
        match answer {
            Answer::Subscribed(key, queue, subscribed) => {
                let job_id = subscribed.job_id.clone();
                Ok(Subscription::new(View::new(self, key, queue, job_id), *subscribed))
            }
            other => Err(other.into_error()),
        }
    }

    /// A handle for a job of a session this client took up with [`Client::connect_resuming`]: what came since then, and
    /// what comes. A job that had ended by then has no more to say here; subscribe to it with history instead.
    ///
    /// # Errors
    /// `INVALID_REQUEST` when this client did not take up a session, or had to begin another; `Closed` or `Transport` when
    /// there is no session.
    pub fn job(&self, job_id: &str) -> Result<JobHandle, Error> {
        self.shared.open()?;
        let made = self.shared.act_on_core(|core, now| {
            core.machine.took_up().then(|| {
                let key = core.machine.job(now, job_id);
                (key, Arc::clone(core.handles.entry(key).or_default()))
            })
        });
        let (key, queue) = made.ok_or_else(|| {
            ProtocolError::invalid(
                "this client took up no session of another; keep the handle of the submit, or subscribe",
            )
        })?;
        Ok(JobHandle::found(View::new(self, key, queue, job_id.to_owned())))
    }

    /// The jobs this session knows of: those with handles, and after [`Client::connect_resuming`] those something came for.
    pub fn jobs(&self) -> Vec<String> {
        self.shared.core.lock().machine.jobs()
    }

    /// One page of the jobs this principal may see; `next_cursor` of the answer asks for the next.
    ///
    /// # Errors
    /// `INVALID_REQUEST` for a bad cursor or limit, or when `list_jobs` was not negotiated; else as [`Client::submit`].
    pub async fn list_jobs(&self, list: &ListJobs) -> Result<Jobs, Error> {
        match self.ask(false, |machine, now| machine.list_jobs(now, list)).await? {
            Answer::Jobs(jobs) => Ok(*jobs),
            other => Err(other.into_error()),
        }
    }

    /// Stops following a job; silent when that was not negotiated.
    pub fn unsubscribe(&self, job_id: &str) {
        self.shared.act(|machine, now| machine.unsubscribe(now, job_id));
    }

    /// Asks to cancel a job and returns at once; the job's own end tells what came of it.
    ///
    /// # Errors
    /// `Closed` or `Transport` when there is no session.
    pub fn cancel_job(&self, job_id: &str, reason: &str) -> Result<(), Error> {
        self.shared.open()?;
        self.shared.act(|machine, now| {
            if !machine.has_room() {
                return Err(too_many());
            }
            machine.cancel(now, job_id, reason);
            Ok(())
        })
    }

    /// Asks to cancel a job and waits for the acknowledgement: the state of a job that had already ended, else `None`.
    ///
    /// # Errors
    /// The refusal; `Timeout` with a runtime that never acknowledges.
    pub async fn cancel_job_acknowledged(&self, job_id: &str, reason: &str) -> Result<Option<JobStatus>, Error> {
        match self.ask(false, |machine, now| Ok(machine.cancel(now, job_id, reason))).await? {
            Answer::Cancelled(status) => Ok(status),
            other => Err(other.into_error()),
        }
    }

    /// Acknowledges by hand; silent when that was not negotiated.
    pub fn ack(&self, last_processed_seq: u64) {
        self.shared.act(|machine, now| machine.ack(now, last_processed_seq));
    }

    /// Ends the session politely, within the close time whatever the peer does. Jobs go on. Idempotent.
    pub async fn close(&self, reason: &str) {
        if matches!(*self.shared.state.borrow(), ConnectionState::Idle | ConnectionState::Closed(_)) {
            self.shared.finish(Error::Closed("the client was closed".into()));
            return;
        }
        self.shared.act(|machine, now| machine.close(now, reason));
        let mut state = self.shared.state.subscribe();
        // The machine keeps its own close time; this only guards against a transport that hangs.
        let bound = self.shared.core.lock().machine.config().close_timeout + Duration::from_secs(1);
        let closed = state.wait_for(|state| matches!(state, ConnectionState::Closed(_)));
        if timeout(bound, closed).await.is_err() {
            self.shared.finish(Error::Closed("the client was closed".into()));
        }
    }

    /// Completes when the session is over, with the reason.
    pub async fn closed(&self) -> Error {
        let mut state = self.shared.state.subscribe();
        match state.wait_for(|state| matches!(state, ConnectionState::Closed(_))).await.as_deref() {
            Ok(ConnectionState::Closed(error)) => error.clone(),
            _ => Error::Closed("the client was dropped".into()),
        }
    }

    /// Sends a request and waits for its answer. With `abandon`, dropping the wait undoes a submit.
    async fn ask(
        &self,
        abandon: bool,
        request: impl FnOnce(&mut ClientMachine, Now) -> Result<Ticket, ProtocolError>,
    ) -> Result<Answer, Error> {
        self.shared.open()?;
        let (sender, answer) = oneshot::channel();
        let ticket = self.shared.act_on_core(|core, now| {
            // Again, under the lock: whoever ends the session answers what is registered by then.
            self.shared.open()?;
            if !core.machine.has_room() {
                return Err(too_many());
            }
            let ticket = request(&mut core.machine, now)?;
            core.requests.insert(ticket, sender);
            Ok::<_, Error>(ticket)
        })?;
        let mut waiting = Waiting { shared: &self.shared, ticket: abandon.then_some(ticket) };
        let answered = answer.await;
        waiting.ticket = None;
        match answered {
            Ok(Answer::Failed(error)) => Err(error),
            Ok(answer) => Ok(answer),
            Err(_) => Err(self.shared.why_closed()),
        }
    }
}

fn too_many() -> Error {
    Error::Transport("the connection is lost and too many requests wait for the next one; try again later".into())
}

impl Answer {
    /// An answer of another request's kind.
    fn into_error(self) -> Error {
        match self {
            Answer::Failed(error) => error,
            _ => Error::Transport("the runtime answered another request than was asked".into()),
        }
    }
}

/// Undoes a submit whose caller stops waiting for it.
struct Waiting<'a> {
    shared: &'a Arc<Shared>,
    ticket: Option<Ticket>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.shared.act(|machine, _| machine.abandon_submit(ticket));
        }
    }
}

/// Ends a half open session when its `connect` is dropped.
struct AbandonGuard<'a> {
    shared: &'a Arc<Shared>,
}

impl Drop for AbandonGuard<'_> {
    fn drop(&mut self) {
        self.shared.finish(Error::Closed("the connection attempt was abandoned".into()));
    }
}

impl Shared {
    /// Nobody looks at this handle any more.
    pub(crate) fn forget(&self, key: HandleKey) {
        let mut core = self.core.lock();
        core.handles.remove(&key);
        core.machine.forget(key);
    }

    fn open(&self) -> Result<(), Error> {
        match &*self.state.borrow() {
            ConnectionState::Open(_) | ConnectionState::Reconnecting { .. } => Ok(()),
            ConnectionState::Idle | ConnectionState::Connecting => {
                Err(Error::Closed("the client is not connected; call connect first".into()))
            }
            ConnectionState::Closed(error) => Err(error.clone()),
        }
    }

    fn why_closed(&self) -> Error {
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
    fn act_on_core<R>(&self, decide: impl FnOnce(&mut Core, Now) -> R) -> R {
        let now = self.clock.now();
        let mut core = self.core.lock();
        let before = core.machine.poll_timeout();
        let result = decide(&mut core, now);
        let mut writable = false;
        let mut readers = Vec::new();
        let mut unread = Vec::new();
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
                    other => over = self.tell(&mut core, other).or(over),
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
        // A reader may call back at once.
        readers.into_iter().for_each(Waker::wake);
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
    fn tell(&self, core: &mut Core, event: ClientEvent) -> Option<Error> {
        let mut answer = |ticket: Ticket, answer: Answer| {
            if let Some(sender) = core.requests.remove(&ticket) {
                // The caller may have stopped waiting.
                drop(sender.send(answer));
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
                self.hand_over(core, ticket, key, Answer::Accepted(key, queue, accepted));
            }
            ClientEvent::Subscribed(ticket, key, subscribed) => {
                let queue = Arc::clone(core.handles.entry(key).or_default());
                self.hand_over(core, ticket, key, Answer::Subscribed(key, queue, subscribed));
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
    fn hand_over(&self, core: &mut Core, ticket: Ticket, key: HandleKey, answer: Answer) {
        let taken = core.requests.remove(&ticket).is_some_and(|sender| sender.send(answer).is_ok());
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
        for sender in requests.into_values() {
            drop(sender.send(Answer::Failed(why.clone())));
        }
        let mut readers = Vec::new();
        for queue in handles.into_values() {
            queue.end(Err(why.clone()), &mut readers);
        }
        readers.into_iter().for_each(Waker::wake);
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
