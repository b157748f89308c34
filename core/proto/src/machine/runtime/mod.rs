//! The runtime machine: owns connections, sessions and jobs, and routes between them.

mod agents;
mod auditing;
mod config;
mod connections;
mod credentials;
mod cursor;
mod delegation;
mod emission;
mod flow;
mod idempotency;
mod judging;
mod listing;
mod requests;
mod results;
mod resume;
mod storage;
mod submission;
mod subscription;
mod visibility;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;

pub use config::{BufferCap, CancelPolicy, ProfileChoice, RuntimeConfig};
pub use credentials::Unrevoked;
pub use delegation::{Delegated, Delegation};
pub use results::OpenedResult;

use self::agents::Agents;
use self::connections::{Conn, ConnState};
use self::credentials::Credentials;
use self::cursor::CursorKey;
pub(super) use self::flow::Rate;
use self::idempotency::Idempotency;
use self::judging::{Judge, Judging};
use self::listing::Index;
use self::storage::Storage;
use super::audit::{AuditEntry, SessionEnd};
use super::frame::Frame;
use super::job::{Ending, Job, JobStart};
use super::kept::StoreOp;
use super::policy::PolicyQuestion;
use super::provision::{IssueRequest, Revocation};
use super::session::Session;
use super::stats::{RuntimeStats, Totals};
use super::timers::Timers;
use crate::error::Error;
use crate::feature::Feature;
use crate::id::{Entropy, IdGenerator};
use crate::json::RawJson;
use crate::message::AgentEntry;
use crate::time::Now;

/// One connection of a runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnKey(pub u64);

/// One session of a runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey(pub u64);

/// One job of a runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobKey(pub u64);

/// A bearer token: its `Debug` hides it.
pub struct Token(pub String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

/// What the machine asks its host to do.
#[derive(Debug)]
pub enum RuntimeEvent {
    /// Ask the verifier about this token and answer with `handle_verified`.
    Verify {
        /// Whose.
        conn: ConnKey,
        /// The secret.
        token: Token,
    },
    /// Frames wait in `poll_transmit`.
    Writable(ConnKey),
    /// Close the transport once `poll_transmit` is empty.
    Close(ConnKey),
    /// Start the agent.
    Start {
        /// The job.
        job: JobKey,
        /// What to tell the agent.
        start: Arc<JobStart>,
    },
    /// Ask the policy and answer with `handle_verdicts`.
    Judge {
        /// To be returned.
        ticket: u64,
        /// What is to be decided.
        question: Box<PolicyQuestion>,
    },
    /// Make the agent give way; it may still emit, and answers with `finish`.
    Cancel {
        /// The job.
        job: JobKey,
        /// Why.
        ending: Ending,
    },
    /// The job has its terminal; an agent still running is to be dropped.
    Ended(JobKey),
    /// A job an agent delegated has ended: tell that agent.
    ChildEnded {
        /// The delegating job; it may have ended before a detached child.
        parent: JobKey,
        /// The job that ended.
        child: JobKey,
        /// What the delegating job calls it.
        delegate_id: String,
        /// Its result, or why there is none.
        outcome: Result<RawJson, Error>,
    },
    /// Emitters of this session's jobs may go on.
    Drained(SessionKey),
    /// Ask the provisioner for credentials, once, and answer with `handle_provisioned`.
    Provision {
        /// The job they are for.
        job: JobKey,
        /// What is wanted.
        request: Box<IssueRequest>,
    },
    /// Ask the provisioner to take a value back, and answer with `handle_revoked`.
    Revoke {
        /// To be returned.
        id: String,
        /// What to revoke.
        what: Revocation,
    },
    /// A value could not be taken back and may still work: operators must know (R-9.8.2.5).
    RevocationFailed(Unrevoked),
    /// For the audit log, and to be counted.
    Audit(AuditEntry),
    /// For the copy that is kept elsewhere: a numbered message that was stored.
    Mirror {
        /// Whose.
        session_id: Arc<str>,
        /// Its number.
        event_seq: u64,
        /// The message.
        frame: Box<Frame>,
    },
    /// For that copy: this session's messages up to the number are acknowledged.
    MirrorRelease {
        /// Whose.
        session_id: Arc<str>,
        /// The number.
        through: u64,
    },
    /// For that copy: this session is forgotten.
    MirrorDrop(Arc<str>),
    /// Read kept records and answer with `handle_history`.
    ReadHistory {
        /// To be returned.
        ticket: u64,
        /// The job.
        job_id: Arc<str>,
        /// Only records whose `source_seq` is greater; 0 means all.
        after_source_seq: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Timer {
    Handshake(ConnKey),
    Heartbeat(ConnKey),
    Idle(ConnKey),
    SessionWindow(SessionKey),
    MaxRuntime(JobKey),
    LeaseEnd(JobKey),
    Grace(JobKey),
    Retention(JobKey),
    Idempotency(u64),
    Provision(JobKey),
    Revoke(u64),
}

/// See the module documentation.
pub struct RuntimeMachine {
    config: RuntimeConfig,
    ids: IdGenerator,
    agents: Agents,
    conns: FxHashMap<ConnKey, Conn>,
    sessions: FxHashMap<SessionKey, Session>,
    sessions_by_id: HashMap<Arc<str>, SessionKey>,
    /// Sessions without a connection, the longest lost first (D-21).
    detached: BTreeSet<(Duration, SessionKey)>,
    session_counts: HashMap<Arc<str>, usize>,
    jobs: FxHashMap<JobKey, Job>,
    jobs_by_id: HashMap<Arc<str>, JobKey>,
    index: Index,
    cursor_key: CursorKey,
    judge: Judge,
    judging: Judging,
    waiting: VecDeque<JobKey>,
    running: usize,
    /// Delegated jobs that have not ended; they take no slot (D-25).
    delegated: usize,
    ended: VecDeque<JobKey>,
    idempotency: Idempotency,
    timers: Timers<Timer>,
    events: VecDeque<RuntimeEvent>,
    storage: Storage,
    credentials: Credentials,
    /// Jobs that were alive when the process before this one ended.
    orphans: Vec<JobKey>,
    /// History tickets to the job and subscriber they serve.
    history: BTreeMap<u64, (JobKey, SessionKey)>,
    next_key: u64,
    shutting_down: bool,
    /// Whether somebody reads what is noted.
    audited: bool,
    /// Whether a copy of numbered messages is wanted.
    mirrored: bool,
    totals: Totals,
}

impl RuntimeMachine {
    /// A runtime without agents or connections.
    pub fn new(config: RuntimeConfig, mut entropy: Box<dyn Entropy>) -> Self {
        let cursor_key = config.cursor_key.unwrap_or_else(|| {
            let mut random = [0; 32];
            entropy.fill(&mut random);
            random
        });
        RuntimeMachine {
            config,
            ids: IdGenerator::new(entropy),
            agents: Agents::default(),
            conns: FxHashMap::default(),
            sessions: FxHashMap::default(),
            sessions_by_id: HashMap::new(),
            detached: BTreeSet::new(),
            session_counts: HashMap::new(),
            jobs: FxHashMap::default(),
            jobs_by_id: HashMap::new(),
            index: Index::default(),
            cursor_key: CursorKey::new(cursor_key),
            judge: Judge::default(),
            judging: Judging::default(),
            waiting: VecDeque::new(),
            running: 0,
            delegated: 0,
            ended: VecDeque::new(),
            idempotency: Idempotency::default(),
            timers: Timers::new(),
            events: VecDeque::new(),
            storage: Storage::default(),
            credentials: Credentials::default(),
            orphans: Vec::new(),
            history: BTreeMap::new(),
            next_key: 0,
            shutting_down: false,
            audited: false,
            mirrored: false,
            totals: Totals::default(),
        }
    }

    /// There is somebody now who issues and revokes credentials. To be called before the first connection and before
    /// [`RuntimeMachine::recover`].
    pub fn set_provisions(&mut self) {
        self.config.provisions = true;
        for feature in [Feature::ModelUse, Feature::ProvisionedCredentials] {
            if !self.config.features.iter().any(|name| name == feature.as_str()) {
                self.config.features.push(feature.as_str().to_owned());
            }
        }
    }

    /// What is issued is also written down by whoever issues it, in a log that outlives the process: credentials are then
    /// offered without a durable store too.
    pub fn set_revocations_kept(&mut self) {
        self.config.revocations_kept = true;
    }

    /// Hands on a copy of every numbered message from now on.
    pub fn set_mirrored(&mut self) {
        self.mirrored = true;
    }

    /// The settings.
    pub fn config(&self) -> &RuntimeConfig {
        &self.config
    }

    /// Adds an agent; the first version registered becomes the default.
    ///
    /// # Errors
    /// `INVALID_REQUEST` when name or version is outside the grammar.
    pub fn register_agent(&mut self, name: &str, version: Option<&str>) -> Result<(), Error> {
        self.agents.register(name, version)
    }

    /// Sets the version a bare name means.
    ///
    /// # Errors
    /// `AGENT_NOT_AVAILABLE`, `AGENT_VERSION_NOT_AVAILABLE`.
    pub fn set_default_agent_version(&mut self, name: &str, version: &str) -> Result<(), Error> {
        self.agents.set_default(name, version)
    }

    /// Agents as the welcome shows them.
    pub fn agent_inventory(&self) -> Vec<AgentEntry> {
        self.agents.inventory()
    }

    /// The session of a connection, once it is welcomed.
    pub fn session_of(&self, conn: ConnKey) -> Option<(SessionKey, &Session)> {
        match self.conns.get(&conn)?.state {
            ConnState::Open(key) => self.sessions.get(&key).map(|session| (key, session)),
            _ => None,
        }
    }

    /// The submitting session of a job, while it is kept.
    pub fn session_of_job(&self, job: JobKey) -> Option<(SessionKey, &Session)> {
        let key = self.jobs.get(&job)?.session?;
        self.sessions.get(&key).map(|session| (key, session))
    }

    /// A job, while it is kept.
    pub fn job(&self, job: JobKey) -> Option<&Job> {
        self.jobs.get(&job)
    }

    /// Highest number issued and highest number acknowledged in a job's submitting session.
    pub fn session_progress(&self, job: JobKey) -> Option<(u64, u64)> {
        self.session_of_job(job).map(|(_, session)| (session.event_seq, session.acked))
    }

    /// Current counters of a job's budget as a JSON object.
    pub fn budget_json(&self, job: JobKey) -> Option<RawJson> {
        self.jobs.get(&job)?.budget_json()
    }

    /// How the runtime fares, as far as the machine knows.
    pub fn stats(&self) -> RuntimeStats {
        let queued = self.conns.values().map(|conn| (conn.out.len(), conn.out_bytes));
        let (frames, bytes) = queued.fold((0, 0), |(frames, bytes), (more, weight)| (frames + more, bytes + weight));
        RuntimeStats {
            sessions_connected: self.session_counts.values().sum::<usize>() as u64,
            sessions_detached: self.detached.len() as u64,
            jobs_pending: self.waiting.len() as u64,
            jobs_running: (self.live_jobs() - self.waiting.len()) as u64,
            subscriptions: self.sessions.values().map(|session| session.subscriptions.len() as u64).sum(),
            frames_queued: frames as u64,
            bytes_queued: bytes as u64,
            unstored_ops: if self.config.durable { self.storage.unstored() } else { 0 },
            totals: self.totals.clone(),
            ..RuntimeStats::default()
        }
    }

    /// Jobs that have not ended.
    pub fn live_jobs(&self) -> usize {
        self.running + self.delegated + self.waiting.len()
    }

    fn fresh_key(&mut self) -> u64 {
        self.next_key += 1;
        self.next_key
    }

    /// When [`RuntimeMachine::handle_timeout`] has something to do, on the monotonic clock.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.timers.next()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some(timer) = self.timers.pop_due(now.mono) {
            match timer {
                Timer::Handshake(conn) => {
                    let seconds = self.config.handshake_timeout.as_secs();
                    let message = format!("no session.hello within {seconds} s");
                    self.answer_error(now, conn, Error::invalid(message), None);
                    self.close_conn(now, conn);
                }
                Timer::Heartbeat(conn) => self.check_heartbeat(now, conn),
                Timer::Idle(conn) => self.check_idleness(now, conn),
                Timer::SessionWindow(key) => {
                    self.audit_session_end(now, key, SessionEnd::WindowOver);
                    self.expire_session(key);
                }
                Timer::MaxRuntime(job) => self.end_job(now, job, Ending::TimedOut),
                Timer::LeaseEnd(job) => self.end_job(now, job, Ending::LeaseExpired),
                Timer::Grace(job) => self.abandon(now, job),
                Timer::Retention(job) => self.forget_job(now, job),
                Timer::Idempotency(number) => self.expire_idempotency(now, number),
                Timer::Provision(job) => self.abandon_provisioning(now, job),
                Timer::Revoke(number) => self.revoke_again(number),
            }
        }
    }

    fn forget_job(&mut self, now: Now, key: JobKey) {
        if self.jobs.get(&key).is_some_and(|job| job.family.heirs > 0) {
            // Its counter still bounds a detached descendant.
            return self.timers.set(Timer::Retention(key), now.mono + self.retention());
        }
        self.timers.clear(Timer::Retention(key));
        self.ended.retain(|ended| *ended != key);
        if let Some(job) = self.jobs.remove(&key) {
            self.keep_terminal(&job);
            // Whoever still waits for its history gets the end at least.
            for subscriber in &job.subscribers {
                if let Some(session) = self.sessions.get_mut(&subscriber.session) {
                    session.subscriptions.remove(&key);
                }
                // Of one the policy has yet to speak of nobody knows whether it may have it.
                if let Some(terminal) = job.terminal.as_ref().filter(|_| !self.judging.is_open(subscriber.session, key))
                {
                    let receiver = self.receiver(subscriber.session, &job);
                    self.send_copy(now, subscriber.session, terminal, receiver);
                }
            }
            self.jobs_by_id.remove(&job.start.job_id);
            self.index.forget(&job);
            self.storage.keep(StoreOp::ForgetJob(Arc::clone(&job.start.job_id)));
        }
    }
}

/// `{"name": "value"}`, as the details of an error.
pub(in crate::machine) fn details(name: &str, value: &str) -> RawJson {
    RawJson::from_serialize(&BTreeMap::from([(name, value)])).unwrap_or_else(|_| RawJson::empty_object())
}
