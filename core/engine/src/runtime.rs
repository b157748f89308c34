//! The runtime: agents, connections and time, around the runtime machine.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Once, OnceLock, Weak};
use std::time::Duration;

use arcp_proto::Error;
use arcp_proto::json::RawJson;
use arcp_proto::machine::RuntimeMachine;
use arcp_proto::machine::frame::{Frame, Record};
use arcp_proto::machine::job::{Job, JobStart, Outcome};
use arcp_proto::machine::policy::Policy;
use arcp_proto::machine::provision::{IssueRequest, Revocation};
use arcp_proto::machine::runtime::{ConnKey, JobKey, RuntimeConfig, RuntimeEvent, Unrevoked};
use arcp_proto::machine::stats::RuntimeStats;
use arcp_proto::message::{AgentEntry, SecretText};
use arcp_proto::time::Now;
use arcp_store::{MemoryStore, Store, StoreError, StoreSink};
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::{AbortHandle, spawn_blocking};
use tokio::time::{sleep_until, timeout};

use crate::agent::Agent;
use crate::audit::AuditSink;
use crate::clock::{Clock, OsEntropy};
use crate::connection::{Endpoint, Signal, drive};
use crate::context::{CancelSignal, JobContext};
use crate::delegation::ChildOutcome;
use crate::metrics::CommitHistogram;
use crate::monitor::Observed;
use crate::notes::Notes;
use crate::provision::Provisioner;
use crate::result_writer::write_value;
use crate::server::Listener;
use crate::span::{self, JobTrace, say};
use crate::transport::{Received, Transport};
use crate::verifier::Verifier;

/// Hosts agents and serves sessions. Cheap to clone; all clones are one runtime.
///
/// Needs a tokio runtime around `accept`, `serve` and whatever starts a job.
#[derive(Clone)]
pub struct Runtime {
    shared: Arc<Shared>,
}

/// What every task of a runtime shares: one machine behind one lock, held for a decision at a time.
pub(crate) struct Shared {
    machine: Mutex<RuntimeMachine>,
    clock: Clock,
    store: Box<dyn Store>,
    /// Whether what an earlier process left was settled.
    begun: Once,
    agents: RwLock<HashMap<String, Registered>>,
    verifier: Arc<dyn Verifier>,
    provisioner: OnceLock<Arc<dyn Provisioner>>,
    revocations: Semaphore,
    /// A revocation was answered.
    revoked: Notify,
    signals: Mutex<HashMap<ConnKey, Arc<Signal>>>,
    jobs: Mutex<HashMap<JobKey, RunningJob>>,
    /// Delegated children whose end is waited for.
    children: Mutex<HashMap<JobKey, watch::Sender<ChildOutcome>>>,
    drained: Notify,
    timer: Arc<Timer>,
    /// Where timers run, since an emitter may call from a thread that is none of tokio's.
    tokio: OnceLock<Handle>,
    ended: Notify,
    /// A connection is gone.
    closed: Notify,
    notes: Notes,
}

/// The deadline the timer task sleeps to, and what makes it look again. Apart from [`Shared`], so that sleeping keeps no
/// runtime alive.
#[derive(Default)]
struct Timer {
    deadline: Mutex<Option<Duration>>,
    rescheduled: Notify,
}

/// An agent, and whether it may be started again for a job that died with its process (D-26).
struct Registered {
    agent: Arc<dyn Agent>,
    restartable: bool,
}

struct RunningJob {
    cancel: Arc<CancelSignal>,
    task: Option<AbortHandle>,
}

/// A verifier that takes longer has failed.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(10);

/// A provisioner that takes longer has failed.
const REVOKE_TIMEOUT: Duration = Duration::from_secs(30);

/// Revocations that run at a time.
const REVOCATIONS: usize = 16;

/// How long a shutdown waits for connections to end.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// How long a shutdown waits for the store.
const LAST_WRITES: Duration = Duration::from_secs(10);

/// Frames of this many bytes are not copied once more to share a buffer with others.
const OWN_BUFFER: usize = 16 << 10;

/// Frames a connection takes from the machine under one lock.
const TRANSMIT_BATCH: usize = 256;

impl Runtime {
    /// A runtime that keeps its records in memory.
    pub fn new(config: RuntimeConfig, verifier: impl Verifier) -> Self {
        let machine = RuntimeMachine::new(config, Box::new(OsEntropy));
        Runtime::around(machine, Clock::new(), Arc::new(verifier), Box::new(MemoryStore::default()))
    }

    /// A runtime over a store of one's own, which is opened: with a durable one sessions, jobs, events and keys of an
    /// earlier process are back.
    ///
    /// # Errors
    /// When the store cannot be opened, or holds what this version cannot read.
    pub fn with_store(
        mut config: RuntimeConfig,
        verifier: Arc<dyn Verifier>,
        store: Box<dyn Store>,
    ) -> Result<Self, StoreError> {
        config.durable = store.is_durable();
        let link = Arc::new(StoreLink::default());
        let kept = store.open(Arc::clone(&link) as Arc<dyn StoreSink>)?;
        let clock = Clock::new();
        let mut machine = RuntimeMachine::new(config, Box::new(OsEntropy));
        machine.restore(clock.now(), kept).map_err(|error| StoreError(error.message))?;
        let runtime = Runtime::around(machine, clock, verifier, store);
        // Nothing was applied yet, so nothing can have been answered before.
        drop(link.shared.set(Arc::downgrade(&runtime.shared)));
        Ok(runtime)
    }

    fn around(machine: RuntimeMachine, clock: Clock, verifier: Arc<dyn Verifier>, store: Box<dyn Store>) -> Self {
        let shared = Shared {
            machine: Mutex::new(machine),
            clock,
            store,
            begun: Once::new(),
            agents: RwLock::default(),
            verifier,
            provisioner: OnceLock::new(),
            revocations: Semaphore::new(REVOCATIONS),
            revoked: Notify::new(),
            signals: Mutex::default(),
            jobs: Mutex::default(),
            children: Mutex::default(),
            drained: Notify::new(),
            timer: Arc::default(),
            tokio: OnceLock::new(),
            ended: Notify::new(),
            closed: Notify::new(),
            notes: Notes::default(),
        };
        Runtime { shared: Arc::new(shared) }
    }

    /// Adds an agent under a bare name.
    ///
    /// # Errors
    /// `INVALID_REQUEST` when the name is outside the grammar.
    pub fn register_agent(&self, name: &str, agent: impl Agent) -> Result<(), Error> {
        self.register(name, None, Arc::new(agent), false)
    }

    /// Adds one version of an agent; the first becomes the default.
    ///
    /// # Errors
    /// As [`Runtime::register_agent`].
    pub fn register_agent_version(&self, name: &str, version: &str, agent: impl Agent) -> Result<(), Error> {
        self.register(name, Some(version), Arc::new(agent), false)
    }

    /// Adds a shared agent, with or without a version. A `restartable` one is started again, under the same job id, for
    /// a job that died with an earlier process; it must bear being run twice (D-26).
    ///
    /// # Errors
    /// As [`Runtime::register_agent`].
    pub fn register(
        &self,
        name: &str,
        version: Option<&str>,
        agent: Arc<dyn Agent>,
        restartable: bool,
    ) -> Result<(), Error> {
        let reference = version.map_or_else(|| name.to_owned(), |version| format!("{name}@{version}"));
        self.shared.machine.lock().register_agent(name, version)?;
        self.shared.agents.write().insert(reference, Registered { agent, restartable });
        Ok(())
    }

    /// Sets the version a bare name means.
    ///
    /// # Errors
    /// `AGENT_NOT_AVAILABLE`, `AGENT_VERSION_NOT_AVAILABLE`.
    pub fn set_default_agent_version(&self, name: &str, version: &str) -> Result<(), Error> {
        self.shared.machine.lock().set_default_agent_version(name, version)
    }

    /// Has credentials made for jobs. To be called once, before the first connection. They are offered only over a store
    /// that outlives the process, since what is not revoked before it ends must be afterwards (R-9.8.2.6).
    ///
    /// # Errors
    /// `INVALID_REQUEST` when there is a provisioner already.
    pub fn set_provisioner(&self, provisioner: Arc<dyn Provisioner>) -> Result<(), Error> {
        let first = self.shared.provisioner.set(provisioner);
        first.map_err(|_| Error::invalid("this runtime has a provisioner already; set one only"))?;
        let mut machine = self.shared.machine.lock();
        machine.set_provisions();
        if !machine.config().durable {
            say(|| {
                tracing::warn!("credentials are not offered: the store does not outlive the process; use a durable one")
            });
        }
        Ok(())
    }

    /// Replaces the value of a running job's credential: its client is told, then the old value is revoked (R-9.8.2.7).
    /// The new one, by its handle, is revoked at once when it is not taken.
    ///
    /// # Errors
    /// `JOB_NOT_FOUND` when there is no such job or credential, `INVALID_REQUEST` for a value that was used before,
    /// `INTERNAL_ERROR` while the store cannot keep the handle.
    pub fn rotate_credential(&self, job_id: &str, id: &str, value: SecretText, handle: RawJson) -> Result<(), Error> {
        self.shared.act(|machine, now| machine.rotate(now, job_id, id, value, handle))
    }

    /// Credentials that could not be revoked and may still work (R-9.8.2.5).
    pub fn unrevoked_credentials(&self) -> Vec<Unrevoked> {
        self.shared.peek(RuntimeMachine::unrevoked)
    }

    /// Tries to revoke one of [`Runtime::unrevoked_credentials`] again; whether there is one of this id.
    pub fn retry_revocation(&self, id: &str) -> bool {
        self.shared.act(|machine, _| machine.retry_revocation(id))
    }

    /// Decides from now on who may watch and cancel which job, and ends the subscriptions it does not allow.
    /// By default a principal sees its own jobs and nobody else's. To be set before [`Runtime::begin`], so that what an
    /// earlier process left is judged by it too.
    pub fn set_policy(&self, policy: impl Policy + 'static) {
        self.shared.act(|machine, _| machine.set_policy(Box::new(policy)));
    }

    /// The policy's answers may have changed: subscriptions it no longer allows end at once.
    pub fn policy_changed(&self) {
        self.shared.act(|machine, _| machine.policy_changed());
    }

    /// Agents as the welcome shows them.
    pub fn agent_inventory(&self) -> Vec<AgentEntry> {
        self.shared.machine.lock().agent_inventory()
    }

    /// Hands every audit entry from now on to this sink. There is none by default.
    pub fn set_audit(&self, sink: Arc<dyn AuditSink>) {
        self.shared.notes.set_audit(sink);
        self.shared.machine.lock().set_audited(true);
    }

    /// The figures of this moment.
    pub fn stats(&self) -> RuntimeStats {
        self.shared.notes.fill(self.shared.peek(RuntimeMachine::stats))
    }

    /// Runs one whole session: returns after a close, a bye or a lost link, and never fails.
    pub async fn accept(&self, mut transport: impl Transport) {
        self.begin();
        let shared = &self.shared;
        let signal = Arc::new(Signal::default());
        let conn = shared.act(|machine, now| {
            let conn = machine.connected(now);
            if transport.is_private() {
                machine.mark_secure(conn);
            }
            shared.signals.lock().insert(conn, Arc::clone(&signal));
            conn
        });
        let guard = ConnGuard { shared, conn };
        let session = span::session();
        let seen = Some(&session).filter(|session| session.is_seen());
        let mut endpoint = ServerEnd { shared, conn, frames: Vec::new(), text: BytesMut::new(), unnamed: seen };
        if let Err(error) = session.around(drive(&mut transport, &mut endpoint, &signal)).await {
            say(|| tracing::debug!(%error, "a connection was lost"));
        }
        drop(guard);
    }

    /// Settles the jobs that died with an earlier process: restartable agents run again, the others' jobs end. The first
    /// connection does it too; agents must be registered before.
    pub fn begin(&self) {
        let shared = &self.shared;
        shared.tokio.get_or_init(Handle::current);
        shared.begun.call_once(|| {
            shared.act(|machine, now| {
                let agents = shared.agents.read();
                machine.recover(now, |start| {
                    agents.get(&start.agent_ref()).is_some_and(|registered| registered.restartable)
                });
            });
        });
    }

    /// Accepts from a listener until the listener is closed.
    pub async fn serve(&self, mut listener: Listener) {
        while let Some(transport) = listener.accept().await {
            let runtime = self.clone();
            tokio::spawn(async move { runtime.accept(transport).await });
        }
    }

    /// Cancels every job, gives them up to `grace`, says `session.bye` everywhere.
    pub async fn shutdown(&self, reason: &str, grace: Duration) {
        self.shared.notes.stopping();
        self.shared.act(|machine, now| machine.shutdown(now, reason));
        let all_ended = async {
            loop {
                let ended = self.shared.ended.notified();
                tokio::pin!(ended);
                ended.as_mut().enable();
                if self.shared.peek(|machine| machine.live_jobs()) == 0 {
                    return;
                }
                ended.await;
            }
        };
        if timeout(grace, all_ended).await.is_err() {
            say(|| tracing::warn!("agents were still running at the end of the grace time"));
        }
        self.shared.act(|machine, now| machine.close_connections(now, reason));
        // What was said last must leave before the caller ends the process; each connection bounds its own end.
        let all_closed = async {
            loop {
                let closed = self.shared.closed.notified();
                tokio::pin!(closed);
                closed.as_mut().enable();
                if self.shared.signals.lock().is_empty() {
                    return;
                }
                closed.await;
            }
        };
        if timeout(LAST_WORDS, all_closed).await.is_err() {
            say(|| tracing::warn!("a connection did not end in time"));
        }
        // What is not revoked by then is, when the store is opened again.
        let all_revoked = async {
            loop {
                let revoked = self.shared.revoked.notified();
                tokio::pin!(revoked);
                revoked.as_mut().enable();
                let unsettled =
                    |machine: &RuntimeMachine| machine.outstanding_revocations() > machine.unrevoked().len();
                if !self.shared.peek(unsettled) {
                    return;
                }
                revoked.await;
            }
        };
        if timeout(LAST_WORDS, all_revoked).await.is_err() {
            say(|| tracing::warn!("credentials were still to be revoked; the next start revokes them"));
        }
        let shared = Arc::clone(&self.shared);
        // It waits for the disk.
        if timeout(LAST_WRITES, spawn_blocking(move || shared.store.close())).await.is_err() {
            say(|| tracing::warn!("the store did not close in time"));
        }
    }
}

/// The way back from a store to its runtime, which it does not keep alive.
#[derive(Default)]
struct StoreLink {
    shared: OnceLock<Weak<Shared>>,
}

impl StoreLink {
    fn shared(&self) -> Option<Arc<Shared>> {
        self.shared.get().and_then(Weak::upgrade)
    }
}

impl StoreSink for StoreLink {
    fn stored(&self, ticket: u64, outcome: Result<(), String>) {
        if let Err(fault) = &outcome {
            say(|| tracing::error!(%fault, "events cannot be stored"));
        }
        if let Some(shared) = self.shared() {
            shared.notes.stored(ticket, shared.clock.now().mono, &outcome);
            shared.act(|machine, now| machine.handle_stored(now, ticket, outcome));
        }
    }

    fn history(&self, request: u64, records: Vec<Arc<Record>>) {
        if let Some(shared) = self.shared() {
            shared.act(|machine, now| machine.handle_history(now, request, &records));
        }
    }

    fn taken_over(&self) {
        say(|| tracing::error!("another process has taken over the store; this runtime stops"));
        if let Some(shared) = self.shared() {
            shared.notes.stopping();
            shared.act(|machine, now| {
                machine.shutdown(now, "another runtime has taken over");
                machine.close_connections(now, "another runtime has taken over");
            });
        }
    }
}

impl Observed for Runtime {
    fn stats(&self) -> RuntimeStats {
        Runtime::stats(self)
    }

    fn commits(&self) -> CommitHistogram {
        self.shared.notes.commits()
    }

    fn ready(&self) -> Result<(), String> {
        self.shared.notes.ready()
    }
}

/// Tells the machine that a connection is gone, also when the task is dropped.
struct ConnGuard<'a> {
    shared: &'a Arc<Shared>,
    conn: ConnKey,
}

impl Drop for ConnGuard<'_> {
    fn drop(&mut self) {
        self.shared.signals.lock().remove(&self.conn);
        self.shared.closed.notify_waiters();
        self.shared.act(|machine, now| machine.disconnected(now, self.conn));
    }
}

struct ServerEnd<'a> {
    shared: &'a Arc<Shared>,
    conn: ConnKey,
    frames: Vec<Frame>,
    text: BytesMut,
    /// The session's span, while it has no id.
    unnamed: Option<&'a span::Guarded>,
}

impl Endpoint for ServerEnd<'_> {
    fn receive(&mut self, received: &mut Vec<Received>) {
        let conn = self.conn;
        self.shared.act(|machine, now| {
            for message in received.drain(..) {
                match message {
                    Received::Frame(frame) => machine.handle_frame(now, conn, &frame),
                    Received::Oversize => machine.handle_oversize(now, conn),
                }
            }
        });
    }

    fn transmit(&mut self, frames: &mut Vec<Bytes>) {
        self.shared.act(|machine, now| machine.poll_transmit(now, self.conn, TRANSMIT_BATCH, &mut self.frames));
        if let Some(span) = self.unnamed
            && let Some(id) = self.shared.peek(|machine| machine.session_of(self.conn).map(|(_, s)| Arc::clone(s.id())))
        {
            span.record("arcp.session_id", &id);
            self.unnamed = None;
        }
        // Written outside the lock, into one buffer that every frame of the batch is cut from.
        for frame in self.frames.drain(..) {
            let mut text = Vec::with_capacity(frame.cost() + 320);
            frame.write(&mut text);
            if text.len() >= OWN_BUFFER {
                frames.push(text.into());
                continue;
            }
            self.text.extend_from_slice(&text);
            frames.push(self.text.split().freeze());
        }
    }
}

impl Shared {
    pub(crate) fn drained(&self) -> &Notify {
        &self.drained
    }

    /// Tells this channel how the child ends.
    pub(crate) fn watch_child(&self, child: JobKey, ended: watch::Sender<ChildOutcome>) {
        self.children.lock().insert(child, ended);
    }

    /// The present, on both clocks.
    pub(crate) fn now(&self) -> Now {
        self.clock.now()
    }

    /// Reads the machine.
    pub(crate) fn peek<R>(&self, look: impl FnOnce(&RuntimeMachine) -> R) -> R {
        look(&self.machine.lock())
    }

    /// Takes one decision under the lock, then carries out what follows from it outside.
    pub(crate) fn act<R>(self: &Arc<Self>, decide: impl FnOnce(&mut RuntimeMachine, Now) -> R) -> R {
        let now = self.clock.now();
        let mut todo = Vec::new();
        let mut machine = self.machine.lock();
        let result = decide(&mut machine, now);
        loop {
            // Before any history is read, so that it holds everything decided so far.
            self.store.apply_all(&mut std::iter::from_fn(|| {
                let (ticket, op) = machine.poll_store()?;
                if self.store.is_durable() {
                    self.notes.applied(ticket, now.mono);
                }
                Some((ticket, op))
            }));
            match machine.poll_event() {
                Some(RuntimeEvent::ReadHistory { ticket, job_id, after_source_seq }) => {
                    if let Some(records) = self.store.history(ticket, &job_id, after_source_seq) {
                        machine.handle_history(now, ticket, &records);
                    }
                }
                // Under the lock, so that a cancel never meets a job that another thread has yet to start.
                Some(RuntimeEvent::Start { job, start }) => {
                    let running = RunningJob { cancel: Arc::new(CancelSignal::new()), task: None };
                    self.jobs.lock().insert(job, running);
                    todo.push(RuntimeEvent::Start { job, start });
                }
                Some(RuntimeEvent::Cancel { job, ending }) => {
                    if let Some(running) = self.jobs.lock().get(&job) {
                        running.cancel.set(ending);
                    }
                }
                Some(event) => todo.push(event),
                None => break,
            }
        }
        if let Some(at) = machine.poll_timeout() {
            self.schedule(at);
        }
        drop(machine);
        for event in todo {
            self.carry_out(event);
        }
        result
    }

    fn carry_out(self: &Arc<Self>, event: RuntimeEvent) {
        match event {
            RuntimeEvent::Writable(conn) => {
                if let Some(signal) = self.signals.lock().get(&conn) {
                    signal.writable();
                }
            }
            RuntimeEvent::Close(conn) => {
                if let Some(signal) = self.signals.lock().get(&conn) {
                    signal.close();
                }
            }
            RuntimeEvent::Audit(entry) => self.notes.audit(&entry),
            RuntimeEvent::Drained(_) => self.drained.notify_waiters(),
            RuntimeEvent::Verify { conn, token } => self.verify(conn, &token.0),
            RuntimeEvent::Start { job, start } => self.start(job, start),
            RuntimeEvent::Provision { job, request } => self.provision(job, *request),
            RuntimeEvent::Revoke { id, what } => self.revoke(id, what),
            RuntimeEvent::RevocationFailed(Unrevoked { id, job_id, error }) => {
                say(|| tracing::error!(id, %job_id, error, "a credential could not be revoked and may still work"));
                self.revoked.notify_waiters();
            }
            RuntimeEvent::Ended(job) => {
                if let Some(status) = self.peek(|machine| machine.job(job).map(Job::status)) {
                    self.notes.job_ended(status);
                }
                if let Some(task) = self.jobs.lock().remove(&job).and_then(|running| running.task) {
                    task.abort();
                }
                self.ended.notify_waiters();
                // Emitters of an ended job have nothing to wait for.
                self.drained.notify_waiters();
            }
            RuntimeEvent::ChildEnded { child, outcome, .. } => {
                if let Some(ended) = self.children.lock().remove(&child) {
                    ended.send_replace(Some(outcome));
                }
            }
            // Done under the lock.
            RuntimeEvent::Cancel { .. } | RuntimeEvent::ReadHistory { .. } => {}
        }
    }

    /// The first connection brings it, and nothing is spawned before.
    fn tokio(&self) -> &Handle {
        self.tokio.get_or_init(Handle::current)
    }

    fn verify(self: &Arc<Self>, conn: ConnKey, token: &str) {
        // Whichever thread brought the token, a verifier may use timers and tasks.
        let _guard = self.tokio().enter();
        let mut verdict = self.verifier.verify(token);
        // A verifier that knows at once needs no task.
        if let Some(verdict) = (&mut verdict).now_or_never() {
            return self.verified(conn, verdict);
        }
        let shared = Arc::clone(self);
        self.tokio().spawn(async move {
            let verdict = timeout(VERIFY_TIMEOUT, verdict)
                .await
                .unwrap_or_else(|_| Err(Error::internal("the token could not be verified in time")));
            shared.verified(conn, verdict);
        });
    }

    fn provision(self: &Arc<Self>, job: JobKey, request: IssueRequest) {
        let Some(provisioner) = self.provisioner.get().map(Arc::clone) else {
            let error = Err(Error::internal("this runtime has no provisioner"));
            return self.act(|machine, now| machine.handle_provisioned(now, job, error));
        };
        // Longer than the submit waits: what is issued too late must be known to be revoked.
        let patience = self.peek(|machine| machine.config().provision_timeout) * 2;
        let shared = Arc::clone(self);
        self.tokio().spawn(async move {
            let issue = AssertUnwindSafe(async move { provisioner.issue(request).await }).catch_unwind();
            let answer = match timeout(patience, issue).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) => Err(Error::internal("the provisioner panicked")),
                Err(_) => Err(Error::internal("the provisioner gave no answer in time")),
            };
            if let Err(error) = &answer {
                say(|| tracing::warn!(error = error.message, "no credentials could be issued"));
            }
            shared.act(|machine, now| machine.handle_provisioned(now, job, answer));
        });
    }

    /// The handle by which a value made elsewhere can be revoked.
    pub(crate) fn handle_for(&self, value: &SecretText) -> Result<RawJson, Error> {
        let handle = self.provisioner.get().and_then(|provisioner| provisioner.handle_for(value));
        handle.ok_or_else(|| {
            Error::invalid("the provisioner cannot revoke a value it did not make; let the runtime's host rotate it")
        })
    }

    fn revoke(self: &Arc<Self>, id: String, what: Revocation) {
        let Some(provisioner) = self.provisioner.get().map(Arc::clone) else {
            let error = Err(Error::internal("this runtime has no provisioner"));
            return self.act(|machine, now| machine.handle_revoked(now, &id, error));
        };
        let shared = Arc::clone(self);
        self.tokio().spawn(async move {
            // Never closed, so that the permit is always had.
            let permit = shared.revocations.acquire().await;
            let revoke = AssertUnwindSafe(async move { provisioner.revoke(what).await }).catch_unwind();
            let outcome = match timeout(REVOKE_TIMEOUT, revoke).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(_)) => Err(Error::internal("the provisioner panicked")),
                Err(_) => Err(Error::internal("the provisioner gave no answer in time")),
            };
            drop(permit);
            shared.act(|machine, now| machine.handle_revoked(now, &id, outcome));
            shared.revoked.notify_waiters();
        });
    }

    fn verified(self: &Arc<Self>, conn: ConnKey, verdict: Result<String, Error>) {
        self.notes.verified(self.clock.now().wall, &verdict);
        self.act(|machine, now| machine.handle_verified(now, conn, verdict));
    }

    fn start(self: &Arc<Self>, job: JobKey, start: Arc<JobStart>) {
        let Some(cancel) = self.jobs.lock().get(&job).map(|running| Arc::clone(&running.cancel)) else { return };
        let agent = self.agents.read().get(&start.agent_ref()).map(|registered| Arc::clone(&registered.agent));
        let Some(agent) = agent else {
            let error = Error::internal(format!("agent {} was unregistered", start.agent_ref()));
            return self.act(|machine, now| machine.finish(now, job, Outcome::Failed(error)));
        };
        let trace = Arc::new(JobTrace::new(&start));
        let context = JobContext::new(Arc::clone(self), job, Arc::clone(&start), Arc::clone(&cancel), trace.clone());
        let shared = Arc::clone(self);
        let task = self.tokio().spawn(async move {
            let inner = context.clone();
            let run = AssertUnwindSafe(async move { agent.run(start.input.clone(), inner).await });
            let outcome = trace.span().around(run_to_end(run.catch_unwind(), &cancel)).await;
            let long = shared.act(|machine, now| match outcome {
                Outcome::Success(value) if machine.should_stream(job, value.get().len()) => Some(value),
                outcome => {
                    machine.finish(now, job, outcome);
                    None
                }
            });
            if let Some(value) = long {
                let outcome = write_value(&context, &value).await;
                shared.act(|machine, now| machine.finish(now, job, outcome));
            }
        });
        if let Some(running) = self.jobs.lock().get_mut(&job) {
            running.task = Some(task.abort_handle());
        }
    }

    /// Makes sure that the machine is asked again at this deadline, or before.
    fn schedule(self: &Arc<Self>, at: Duration) {
        let mut deadline = self.timer.deadline.lock();
        match *deadline {
            Some(armed) if armed <= at => {}
            Some(_) => {
                *deadline = Some(at);
                self.timer.rescheduled.notify_one();
            }
            None => {
                *deadline = Some(at);
                let time = keep_time(Arc::downgrade(self), Arc::clone(&self.timer), self.clock);
                self.tokio().spawn(time);
            }
        }
    }
}

/// Sleeps from deadline to deadline until there is none, or until the runtime is gone.
async fn keep_time(shared: Weak<Shared>, timer: Arc<Timer>, clock: Clock) {
    loop {
        let Some(at) = *timer.deadline.lock() else { return };
        tokio::select! {
            () = sleep_until(clock.instant(at).into()) => {}
            () = timer.rescheduled.notified() => continue,
        }
        let Some(shared) = shared.upgrade() else { return };
        // Already due for everybody else: what the machine sets now must not start a second task.
        *timer.deadline.lock() = Some(Duration::ZERO);
        shared.act(|machine, now| machine.handle_timeout(now));
        // Read and stored under the machine's lock, so that no deadline set meanwhile is overwritten.
        let more = shared.peek(|machine| {
            let next = machine.poll_timeout();
            *timer.deadline.lock() = next;
            next.is_some()
        });
        if !more {
            return;
        }
    }
}

/// Runs an agent to its outcome. A cancelled one that does not look out for it is dropped where it waits.
async fn run_to_end(
    run: impl Future<Output = Result<Outcome, Box<dyn std::any::Any + Send>>>,
    cancel: &CancelSignal,
) -> Outcome {
    tokio::pin!(run);
    let finished = tokio::select! {
        finished = &mut run => finished,
        _ = cancel.wait() => {
            if !cancel.is_observed() {
                return Outcome::Cancelled;
            }
            run.await
        }
    };
    finished.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Outcome::Failed(Error::internal(format!("the agent panicked: {}", text.unwrap_or("no message"))))
    })
}
