//! A store in one SQLite file, for one process at a time (D-8, D-18, D-27).
//!
//! # The file
//!
//! `<database>`, its write-ahead log (`-wal`, `-shm`) and `<database>.lock`, which names the process it belongs to;
//! all of them readable by their owner only. `PRAGMA application_id` is "ARCP", `PRAGMA user_version` the version of
//! the schema. Secrets are not in it: tokens come as hashes, credentials without their value.
//!
//! An event is not a row. Operations are gathered until the writer comes back from its last commit, and one transaction
//! then writes per job one *segment* (its records of that batch as one blob) and per session one row of *numbers* (runs
//! that say "from `event_seq` 17 on, these are 40 records of job 3 from `job_seq` 5 on"). A record is thus stored once,
//! however many sessions number it.
//!
//! | table | a row is |
//! |---|---|
//! | `meta` | a number by name; `epoch` rises with every owner, `sealed` is there when payloads are, with its `proof` |
//! | `session` | a session; `freed` is the last number its peer no longer needs |
//! | `number` | numbers `first` to `last` of a session, `runs` as laid out in `runs.rs` |
//! | `job` | what never changes of a job; without `created_at` it was never saved, and goes at the next opening |
//! | `job_state` | what changes: state, counters, last places, whether a result chunk was sent, what is kept of it |
//! | `segment` | records `first` to `last` of a job, `data` as laid out in `segment.rs` |
//! | `subscription` | a session follows a job: the answer that said so, and the history it has yet to be given |
//! | `idempotency_key` | a key, the answer it made, and the job's end once the job is forgotten |
//! | `credential` | a credential to be revoked |
//!
//! Keys of sessions and jobs are the owner's epoch and a counter. None is used twice: a number of a job that is
//! forgotten names nothing. Integers that the protocol counts without sign are stored as their 64 bits. Every blob
//! starts with a CRC-32 of the rest and a byte for its form.
//!
//! With a [`Sealer`], what users and agents said is sealed on its way in, each for its own place (`payload.rs`): the
//! records of segments, inputs and leases of jobs, kept answers, ends and fingerprints, handles of credentials. What a
//! row is found and ordered by is not: ids, principals, names of agents, idempotency keys, numbers, times, budgets. The proof is
//! what tells a wrong key when the file is opened.

mod batch;
mod codec;
mod commit;
mod inspect;
pub(crate) mod lock;
mod payload;
mod queue;
mod reader;
mod restore;
mod runs;
pub(crate) mod schema;
mod segment;
mod writer;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, ThreadId};
use std::time::Duration;

use arcp_proto::machine::frame::Record;
use arcp_proto::machine::kept::{Kept, StoreOp};

use self::payload::Payloads;
use self::queue::{Item, Shared};
use crate::{PerJobCap, Sealer, Store, StoreError, StoreSink};

pub use inspect::{CheckReport, Inspector, Replay, ReplayedRecord, SessionSummary, vacuum};

/// When a commit counts as kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Synchronous {
    /// When the system has it: safe when the process dies, however it dies; a power loss may take the last moments.
    #[default]
    Normal,
    /// When the disk has it: safe at a power loss too, at the price of one disk flush per commit.
    Full,
}

impl Synchronous {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Synchronous::Normal => "NORMAL",
            Synchronous::Full => "FULL",
        }
    }
}

/// How a [`SqliteStore`] works.
#[derive(Clone)]
pub struct SqliteOptions {
    /// When a commit counts as kept; [`Synchronous::Normal`] by default.
    pub synchronous: Synchronous,
    /// How large the file may become, in bytes and without its log; no bound by default. A warning is logged at 80 %
    /// (D-27). At the bound nothing is kept until something is forgotten, as with a full disk.
    pub quota_bytes: Option<u64>,
    /// How much of one job is kept.
    pub per_job: PerJobCap,
    /// How long a store that cannot write goes on trying once it is to be closed; 10 seconds by default. What it could
    /// not keep until then is lost, and the log says so.
    pub closing_patience: Duration,
    /// Encrypts the payloads in the file, such as an [`AesGcmSealer`](crate::AesGcmSealer); none by default. A
    /// file is made with a key or without one, and opens so alone.
    pub sealer: Option<Arc<dyn Sealer>>,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        SqliteOptions {
            synchronous: Synchronous::Normal,
            quota_bytes: None,
            per_job: PerJobCap::default(),
            closing_patience: Duration::from_secs(10),
            sealer: None,
        }
    }
}

impl fmt::Debug for SqliteOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteOptions")
            .field("synchronous", &self.synchronous)
            .field("quota_bytes", &self.quota_bytes)
            .field("per_job", &self.per_job)
            .field("closing_patience", &self.closing_patience)
            .field("sealed", &self.sealer.is_some())
            .finish()
    }
}

impl SqliteOptions {
    fn payloads(&self) -> Payloads {
        Payloads::new(self.sealer.clone())
    }
}

/// What a store has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SqliteStats {
    /// Transactions committed.
    pub commits: u64,
    /// Operations in them.
    pub operations: u64,
    /// Time they took in all.
    pub commit_time: Duration,
    /// Commits that failed, every attempt counted.
    pub failures: u64,
    /// Whether 80 % of the quota is used.
    pub quota_warning: bool,
}

#[derive(Debug, Default)]
struct Counters {
    commits: AtomicU64,
    operations: AtomicU64,
    commit_micros: AtomicU64,
    failures: AtomicU64,
    quota_warning: AtomicBool,
}

/// Keeps everything in a SQLite file.
///
/// One thread writes and one reads; both end with [`Store::close`] or when the store is dropped.
#[derive(Debug)]
pub struct SqliteStore {
    path: PathBuf,
    options: SqliteOptions,
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    running: Mutex<Running>,
    /// The process that made it: a fork of it has none of the threads, and must not wait for them.
    pid: u32,
}

#[derive(Debug, Default)]
enum Running {
    #[default]
    New,
    Open(Threads),
    Closed,
}

#[derive(Debug)]
struct Threads {
    writer: JoinHandle<()>,
    reader: ThreadId,
    /// Disconnects when the writer's thread has let go of everything.
    ended: Receiver<()>,
}

/// How much longer than [`SqliteOptions::closing_patience`] closing waits in all. What is slower hangs in the disk or
/// in the sink.
const CLOSING_LIMIT: Duration = Duration::from_secs(10);

impl SqliteStore {
    /// A store in this file. Nothing is touched before [`Store::open`], which makes the file and its folder if they are
    /// missing.
    pub fn new(path: impl Into<PathBuf>, options: SqliteOptions) -> SqliteStore {
        SqliteStore {
            path: path.into(),
            options,
            shared: Arc::default(),
            counters: Arc::default(),
            running: Mutex::default(),
            pid: std::process::id(),
        }
    }

    /// The file, as it was named.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it has done since it was opened.
    pub fn stats(&self) -> SqliteStats {
        let counters = &self.counters;
        SqliteStats {
            commits: counters.commits.load(Ordering::Relaxed),
            operations: counters.operations.load(Ordering::Relaxed),
            commit_time: Duration::from_micros(counters.commit_micros.load(Ordering::Relaxed)),
            failures: counters.failures.load(Ordering::Relaxed),
            quota_warning: counters.quota_warning.load(Ordering::Relaxed),
        }
    }

    fn start(&self, sink: &Arc<dyn StoreSink>) -> Result<(Kept, Threads), StoreError> {
        let path = lock::resolve(&self.path, true)?;
        let possession = lock::Possession::take(&path)?;
        let mut conn = schema::open_owned(&path, &self.options)?;
        let payloads = self.options.payloads();
        let (kept, index) = restore::take_over(&mut conn, &payloads).map_err(|problem| problem.into_error(&path))?;
        let second = schema::open_reader(&path).map_err(|error| StoreError(schema::reason(&path, &error)))?;
        let no_thread = |error: std::io::Error| StoreError(format!("a thread of the store cannot start: {error}"));

        let (questions, asked) = mpsc::channel();
        let reader = reader::Reader {
            path: path.clone(),
            conn: second,
            payloads: payloads.clone(),
            questions: asked,
            sink: Arc::clone(sink),
        };
        // What the threads have to report goes where this thread's reports go.
        let log = tracing::dispatcher::get_default(Clone::clone);
        let reads = {
            let log = log.clone();
            move || tracing::dispatcher::with_default(&log, || reader.run())
        };
        let reader = thread::Builder::new().name("arcp-store-read".to_owned()).spawn(reads).map_err(no_thread)?;
        let reader_id = reader.thread().id();
        let (alive, ended) = mpsc::channel();
        let writer = writer::Writer {
            path,
            options: self.options.clone(),
            conn,
            payloads,
            index,
            shared: Arc::clone(&self.shared),
            sink: Arc::clone(sink),
            counters: Arc::clone(&self.counters),
            questions,
            reader,
            possession,
            warned: false,
        };
        let run = move || {
            tracing::dispatcher::with_default(&log, || writer.run());
            drop(alive);
        };
        let writer = thread::Builder::new().name("arcp-store".to_owned()).spawn(run).map_err(no_thread)?;
        Ok((kept, Threads { writer, reader: reader_id, ended }))
    }

    fn finish(&self) {
        if self.pid != std::process::id() {
            return;
        }
        let running =
            std::mem::replace(&mut *self.running.lock().unwrap_or_else(PoisonError::into_inner), Running::Closed);
        self.shared.close();
        let Running::Open(threads) = running else { return };
        let here = thread::current().id();
        if here == threads.writer.thread().id() || here == threads.reader {
            // The sink let go of the store's last owner: the threads end by themselves.
            return;
        }
        match threads.ended.recv_timeout(self.options.closing_patience.saturating_add(CLOSING_LIMIT)) {
            Err(RecvTimeoutError::Timeout) => {
                tracing::error!(database = %self.path.display(), "the store did not close in time and is left behind");
            }
            _ => {
                if threads.writer.join().is_err() {
                    tracing::error!(database = %self.path.display(), "the writer of the store ended badly");
                }
            }
        }
    }
}

impl Store for SqliteStore {
    fn is_durable(&self) -> bool {
        true
    }

    fn open(&self, sink: Arc<dyn StoreSink>) -> Result<Kept, StoreError> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(*running, Running::New) {
            return Err(StoreError(format!(
                "the store of {} was opened before; make a new one for each runtime",
                self.path.display()
            )));
        }
        let (kept, threads) = self.start(&sink)?;
        *running = Running::Open(threads);
        Ok(kept)
    }

    fn apply(&self, ticket: u64, op: StoreOp) {
        self.shared.push(std::iter::once(Item::Apply(ticket, op)));
    }

    /// One transaction takes all of them.
    fn apply_all(&self, ops: &mut dyn Iterator<Item = (u64, StoreOp)>) {
        self.shared.push(ops.map(|(ticket, op)| Item::Apply(ticket, op)));
    }

    /// Always `None`: the answer comes through the sink.
    fn history(&self, request: u64, job_id: &Arc<str>, after_source_seq: u64) -> Option<Vec<Arc<Record>>> {
        self.shared.push(std::iter::once(Item::History { request, job_id: Arc::clone(job_id), after_source_seq }));
        None
    }

    /// Waits at most [`SqliteOptions::closing_patience`] and 10 seconds.
    fn close(&self) {
        self.finish();
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.finish();
    }
}
