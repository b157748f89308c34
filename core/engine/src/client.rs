//! The client: one session around the client machine.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Waker};
use std::time::Duration;

use arcp_proto::Error as ProtocolError;
use arcp_proto::machine::ClientMachine;
use arcp_proto::machine::client::{ClientConfig, ClientEvent, HandleKey, Loss, Ticket};
use arcp_proto::message::{Accepted, JobStatus, Submit, Subscribe, Subscribed, Welcome};
use arcp_proto::time::Now;
use arcp_proto::trace::TraceContext;
use bytes::Bytes;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use crate::clock::{Clock, OsEntropy};
use crate::connection::{Endpoint, Signal, drive};
use crate::error::Error;
use crate::events::{EventQueue, Pushed};
use crate::job::{JobHandle, Subscription, View};
use crate::span::say;
use crate::transport::{Received, Transport};

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
    /// Events that wait in lossless queues; the reader pauses while there are too many.
    buffered: AtomicUsize,
    resumed: AtomicWaker,
    state: watch::Sender<State>,
}

struct Core {
    machine: ClientMachine,
    requests: HashMap<Ticket, oneshot::Sender<Answer>>,
    handles: HashMap<HandleKey, Arc<EventQueue>>,
}

#[derive(Clone, Debug)]
enum State {
    Idle,
    Connecting,
    Open(Arc<Welcome>),
    Closed(Error),
}

enum Answer {
    Accepted(HandleKey, Arc<EventQueue>, Box<Accepted>),
    Subscribed(HandleKey, Arc<EventQueue>, Box<Subscribed>),
    Cancelled(Option<JobStatus>),
    Failed(Error),
}

/// Events held for readers before the socket is left unread: above what a runtime lets be unacknowledged (D-20).
const MAX_BUFFERED: usize = 200_000;

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
            buffered: AtomicUsize::new(0),
            resumed: AtomicWaker::new(),
            state: watch::Sender::new(State::Idle),
        };
        let shared = Arc::new(shared);
        let owner = Arc::new(Owner { shared: Arc::downgrade(&shared) });
        Client { shared, owner }
    }

    /// Shakes hands over this transport and begins to read. A client connects once.
    ///
    /// # Errors
    /// The runtime's own error when it refuses; `Timeout` when no welcome comes in time; `Transport` when the
    /// connection ends before it.
    pub async fn connect(&self, transport: impl Transport, token: &str) -> Result<Arc<Welcome>, Error> {
        let shared = &self.shared;
        let mut fresh = false;
        shared.state.send_if_modified(|state| {
            fresh = matches!(state, State::Idle);
            if fresh {
                *state = State::Connecting;
            }
            fresh
        });
        if !fresh {
            return Err(Error::Closed("this client was connected before; make a new one".into()));
        }
        shared.act(|machine, now| machine.connected(now, token));
        // Dropped with this call, the connection must not outlive it half open.
        let guard = AbandonGuard { shared };
        tokio::spawn(run(Arc::clone(shared), transport));
        let mut state = shared.state.subscribe();
        let outcome = loop {
            match &*state.borrow_and_update() {
                State::Open(welcome) => break Ok(Arc::clone(welcome)),
                State::Closed(error) => break Err(error.clone()),
                State::Idle | State::Connecting => {}
            }
            if state.changed().await.is_err() {
                break Err(Error::Closed("the client was dropped".into()));
            }
        };
        std::mem::forget(guard);
        outcome
    }

    /// The welcome, while the session is open.
    pub fn welcome(&self) -> Option<Arc<Welcome>> {
        match &*self.shared.state.borrow() {
            State::Open(welcome) => Some(Arc::clone(welcome)),
            _ => None,
        }
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
        self.shared.act(|machine, now| machine.cancel(now, job_id, reason));
        Ok(())
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
        if matches!(*self.shared.state.borrow(), State::Idle | State::Closed(_)) {
            self.shared.finish(Error::Closed("the client was closed".into()));
            return;
        }
        self.shared.act(|machine, now| machine.close(now, reason));
        let mut state = self.shared.state.subscribe();
        // The machine keeps its own close time; this only guards against a transport that hangs.
        let bound = self.shared.core.lock().machine.config().close_timeout + Duration::from_secs(1);
        let closed = state.wait_for(|state| matches!(state, State::Closed(_)));
        if timeout(bound, closed).await.is_err() {
            self.shared.finish(Error::Closed("the client was closed".into()));
        }
    }

    /// Completes when the session is over, with the reason.
    pub async fn closed(&self) -> Error {
        let mut state = self.shared.state.subscribe();
        match state.wait_for(|state| matches!(state, State::Closed(_))).await.as_deref() {
            Ok(State::Closed(error)) => error.clone(),
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
            State::Open(_) => Ok(()),
            State::Idle | State::Connecting => {
                Err(Error::Closed("the client is not connected; call connect first".into()))
            }
            State::Closed(error) => Err(error.clone()),
        }
    }

    fn why_closed(&self) -> Error {
        match &*self.state.borrow() {
            State::Closed(error) => error.clone(),
            _ => Error::Closed("the request was dropped".into()),
        }
    }

    fn act<R>(&self, decide: impl FnOnce(&mut ClientMachine, Now) -> R) -> R {
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
                        let seq = event.event_seq;
                        // A published runtime sends history before it answers the subscribe.
                        match core.handles.entry(key).or_default().push(event, &mut readers) {
                            Pushed::Kept => {
                                self.buffered.fetch_add(1, Ordering::Relaxed);
                            }
                            Pushed::Unread => unread.push(seq),
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
            for seq in unread.drain(..) {
                core.machine.processed(now, seq);
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
            ClientEvent::Welcomed(welcome) => {
                self.state.send_replace(State::Open(welcome));
            }
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
            ClientEvent::Lost(loss) => return Some(describe(&loss)),
            ClientEvent::Closed => return Some(Error::Closed("the client was closed".into())),
            ClientEvent::Writable | ClientEvent::Event(..) | ClientEvent::Ended(..) => {}
        }
        None
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
    fn finish(&self, why: Error) {
        self.state.send_if_modified(|state| {
            let fresh = !matches!(state, State::Closed(_));
            if fresh {
                *state = State::Closed(why.clone());
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

    /// These events were taken, of which so many were waited for.
    pub(crate) fn took(&self, awaited: usize, numbers: impl IntoIterator<Item = u64>) {
        let before = self.buffered.fetch_sub(awaited, Ordering::Relaxed);
        if before > MAX_BUFFERED {
            self.resumed.wake();
        }
        self.act(|machine, now| numbers.into_iter().for_each(|event_seq| machine.processed(now, event_seq)));
    }
}

fn describe(loss: &Loss) -> Error {
    match loss {
        Loss::Disconnected(why) => Error::Transport(format!("the connection was lost: {why}")),
        Loss::Gap { expected, got } => {
            Error::Transport(format!("events were lost on the way: expected number {expected}, got {got}"))
        }
        Loss::HeartbeatLost => Error::Protocol(ProtocolError::new(
            arcp_proto::ErrorCode::HeartbeatLost,
            "the runtime was silent for two heartbeat intervals",
        )),
        Loss::Bye(reason) if reason.is_empty() => Error::Closed("the runtime ended the session".into()),
        Loss::Bye(reason) => Error::Closed(format!("the runtime ended the session: {reason}")),
    }
}

async fn run(shared: Arc<Shared>, mut transport: impl Transport) {
    let mut endpoint = ClientEnd { shared: &shared, sleep: None };
    let why = match drive(&mut transport, &mut endpoint, &shared.signal).await {
        Ok(()) => "the runtime closed it".to_owned(),
        Err(error) => error.to_string(),
    };
    shared.act(|machine, _| machine.disconnected(&why));
    shared.finish(Error::Transport(format!("the connection was lost: {why}")));
}

struct ClientEnd<'a> {
    shared: &'a Arc<Shared>,
    sleep: Option<(Duration, Pin<Box<Sleep>>)>,
}

impl Endpoint for ClientEnd<'_> {
    fn receive(&mut self, received: &mut Vec<Received>) {
        self.shared.act(|machine, now| {
            for message in received.drain(..) {
                match message {
                    Received::Frame(frame) => machine.handle_frame(now, &frame),
                    Received::Oversize => machine.disconnected("the runtime sent a message over the size limit"),
                }
            }
        });
    }

    fn transmit(&mut self, frames: &mut Vec<Bytes>) {
        self.shared.core.lock().machine.poll_transmit(frames);
    }

    fn paused(&mut self, cx: &mut Context<'_>) -> bool {
        if self.shared.buffered.load(Ordering::Relaxed) <= MAX_BUFFERED {
            return false;
        }
        self.shared.resumed.register(cx.waker());
        let paused = self.shared.buffered.load(Ordering::Relaxed) > MAX_BUFFERED;
        if paused {
            self.shared.act(ClientMachine::reading_paused);
        }
        paused
    }

    fn tick(&mut self, cx: &mut Context<'_>) {
        loop {
            let Some(at) = self.shared.core.lock().machine.poll_timeout() else {
                self.sleep = None;
                return;
            };
            let clock = self.shared.clock;
            let armed = match &mut self.sleep {
                Some((armed, sleep)) => {
                    if *armed != at {
                        sleep.as_mut().reset(Instant::from_std(clock.instant(at)));
                        *armed = at;
                    }
                    sleep
                }
                None => &mut self.sleep.insert((at, Box::pin(sleep_until(clock.instant(at).into())))).1,
            };
            if armed.as_mut().poll(cx).is_pending() {
                return;
            }
            self.shared.act(ClientMachine::handle_timeout);
        }
    }
}
