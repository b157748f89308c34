//! The runtime: agents, connections and time, around the runtime machine.

use std::sync::{Arc, Once, OnceLock};
use std::time::Duration;

use arcp_proto::Error;
use arcp_proto::json::RawJson;
use arcp_proto::machine::RuntimeMachine;
use arcp_proto::machine::policy::Policy;
use arcp_proto::machine::runtime::{RuntimeConfig, Unrevoked};
use arcp_proto::machine::stats::RuntimeStats;
use arcp_proto::message::{AgentEntry, SecretText};
use arcp_store::{MemoryStore, Store, StoreError, StoreSink};
use bytes::BytesMut;
use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::accept::{ConnGuard, ServerEnd};
use crate::agent::Agent;
use crate::asked_policy::AskedPolicy;
use crate::audit::AuditSink;
use crate::clock::{Clock, OsEntropy};
use crate::connection::{Signal, drive};
use crate::host::{REVOCATIONS, Registered, Runs, Shared};
use crate::hosted::HostedAgent;
use crate::metrics::CommitHistogram;
use crate::mirror::Mirror;
use crate::monitor::Observed;
use crate::notes::Notes;
use crate::provision::Provisioner;
use crate::server::Listener;
use crate::span::{self, say};
use crate::store_link::StoreLink;
use crate::transport::Transport;
use crate::verifier::Verifier;

/// Hosts agents and serves sessions. Cheap to clone; all clones are one runtime.
///
/// Needs a tokio runtime around `accept`, `serve` and whatever starts a job.
#[derive(Clone)]
pub struct Runtime {
    shared: Arc<Shared>,
}

/// How long a shutdown waits for connections to end.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// How long a shutdown waits for the store.
const LAST_WRITES: Duration = Duration::from_secs(10);

impl Runtime {
    /// A runtime that keeps its records in memory.
    pub fn new(config: RuntimeConfig, verifier: impl Verifier) -> Self {
        let machine = RuntimeMachine::new(config, Box::new(OsEntropy::new()));
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
        let mut machine = RuntimeMachine::new(config, Box::new(OsEntropy::new()));
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
            policy: OnceLock::new(),
            mirror: OnceLock::new(),
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
        self.register_running(name, version, Runs::Here(agent), restartable)
    }

    /// As [`Runtime::register`], for an agent that runs in a host.
    ///
    /// # Errors
    /// As [`Runtime::register_agent`].
    pub fn register_hosted(
        &self,
        name: &str,
        version: Option<&str>,
        agent: Arc<dyn HostedAgent>,
        restartable: bool,
    ) -> Result<(), Error> {
        self.register_running(name, version, Runs::Hosted(agent), restartable)
    }

    fn register_running(&self, name: &str, version: Option<&str>, agent: Runs, restartable: bool) -> Result<(), Error> {
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
        if !machine.config().durable && !machine.config().revocations_kept {
            say(|| {
                tracing::warn!("credentials are not offered: the store does not outlive the process; use a durable one")
            });
        }
        Ok(())
    }

    /// The provisioner writes down elsewhere, in a log that outlives the process, what has to be revoked: credentials are
    /// then offered without a durable store too. To be called before [`Runtime::set_provisioner`].
    pub fn set_revocations_kept(&self) {
        self.shared.machine.lock().set_revocations_kept();
    }

    /// Revokes what such a log says an earlier process issued and did not revoke, by job and handle (R-9.8.2.6).
    pub fn revoke_outstanding(&self, outstanding: Vec<(Arc<str>, RawJson)>) {
        self.shared.act(|machine, now| machine.revoke_outstanding(now, outstanding));
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

    /// Has this policy asked from now on who may watch which job; it is never asked about a cancel. To be called once,
    /// inside a tokio runtime, before the first connection.
    ///
    /// # Errors
    /// `INVALID_REQUEST` when there is one already.
    pub fn set_asked_policy(&self, policy: Arc<dyn AskedPolicy>) -> Result<(), Error> {
        let first = self.shared.policy.set(policy);
        first.map_err(|_| Error::invalid("this runtime has a policy that is asked already; set one only"))?;
        self.shared.tokio.get_or_init(Handle::current);
        self.shared.act(|machine, _| machine.set_asked_policy());
        Ok(())
    }

    /// Hands a copy of every numbered message from now on to this mirror, in order. To be called once, before the first
    /// connection.
    ///
    /// # Errors
    /// `INVALID_REQUEST` when there is one already.
    pub fn set_mirror(&self, mirror: Arc<dyn Mirror>) -> Result<(), Error> {
        let first = self.shared.mirror.set(mirror);
        first.map_err(|_| Error::invalid("this runtime has a mirror already; set one only"))?;
        self.shared.machine.lock().set_mirrored();
        Ok(())
    }

    /// The policy's answers may have changed: subscriptions it no longer allows end, at once or with its answer.
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
