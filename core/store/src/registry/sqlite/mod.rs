//! A registry's store in one SQLite file, for one process at a time.
//!
//! `<database>`, its write-ahead log (`-wal`, `-shm`) and `<database>.lock`, which names the process it belongs to; all
//! of them readable by their owner only. `PRAGMA application_id` is "ARCR", `PRAGMA user_version` the version of the
//! schema.
//!
//! | table | a row is |
//! |---|---|
//! | `meta` | a number by name: `epoch` rises with every owner, `last_key` with every registration, `last_run` with time |
//! | `agent` | an agent: what it registered with as JSON, when, the hash of its key |
//! | `seen`, `metrics` | when the agent of this key was last heard of; its metrics as JSON |
//! | `used_token` | a temporary token that has registered its agent, until it expires |
//! | `session`, `account` | an administrator's session (hashes only); an account (argon2 hash) |
//! | `setting`, `secret` | a setting as JSON; a secret the server made for itself |
//! | `log`, `alert` | a line of what the dashboard shows |
//!
//! What is submitted while the writer is busy becomes one transaction. Should it fail, each submission is tried for
//! itself, and is told when it is not kept: nothing waits for a full disk to be emptied.

mod apply;
mod load;
mod schema;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use self::schema::no_room;
use self::writer::{Shared, Writer};
use super::{Completion, RegistryKept, RegistryOp, RegistryStore, RegistryStoreStats};
use crate::sqlite::lock::{Possession, resolve};
use crate::{StoreError, Synchronous};

/// How a [`SqliteRegistryStore`] works.
#[derive(Clone, Copy, Debug, Default)]
pub struct RegistrySqliteOptions {
    /// When a commit counts as kept; [`Synchronous::Normal`] by default, which survives the death of the process.
    pub synchronous: Synchronous,
    /// How large the file may become, in bytes and without its log; no bound by default. At the bound changes are
    /// refused until something is removed, as with a full disk.
    pub quota_bytes: Option<u64>,
}

/// Keeps everything in a SQLite file. One thread writes; it ends with [`RegistryStore::close`] or when the store is
/// dropped.
#[derive(Debug)]
pub struct SqliteRegistryStore {
    path: PathBuf,
    options: RegistrySqliteOptions,
    shared: Arc<Shared>,
    running: Mutex<Running>,
    /// The process that made it: a fork of it has no thread, and must not wait for it.
    pid: u32,
}

#[derive(Debug, Default)]
enum Running {
    #[default]
    New,
    Open(JoinHandle<()>),
    Closed,
}

impl SqliteRegistryStore {
    /// A store in this file. Nothing is touched before it is opened, which makes the file and its folder if they are
    /// missing.
    pub fn new(path: impl Into<PathBuf>, options: RegistrySqliteOptions) -> SqliteRegistryStore {
        SqliteRegistryStore {
            path: path.into(),
            options,
            shared: Arc::default(),
            running: Mutex::default(),
            pid: std::process::id(),
        }
    }

    /// The file, as it was named.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn start(&self) -> Result<(RegistryKept, JoinHandle<()>), StoreError> {
        let path = resolve(&self.path, true)?;
        let possession = Possession::take(&path)?;
        let mut conn = schema::open_owned(&path, &self.options)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let now = i64::try_from(now.as_micros()).unwrap_or(i64::MAX);
        let kept = load::take_over(&mut conn, now)
            .map_err(|error| StoreError(no_room(&path, &error, self.options.quota_bytes)))?;
        let shared = Arc::clone(&self.shared);
        let writer = Writer { path, options: self.options, conn, shared, possession, warned: false };
        // What the thread has to report goes where this thread's reports go.
        let log = tracing::dispatcher::get_default(Clone::clone);
        let run = move || tracing::dispatcher::with_default(&log, || writer.run());
        let thread = thread::Builder::new()
            .name("arcp-registry-store".to_owned())
            .spawn(run)
            .map_err(|error| StoreError(format!("the thread of the store cannot start: {error}")))?;
        Ok((kept, thread))
    }

    fn finish(&self) {
        if self.pid != std::process::id() {
            return;
        }
        let running =
            std::mem::replace(&mut *self.running.lock().unwrap_or_else(PoisonError::into_inner), Running::Closed);
        self.shared.close();
        if let Running::Open(thread) = running
            && thread.thread().id() != thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!(database = %self.path.display(), "the writer of the store ended badly");
        }
    }
}

impl RegistryStore for SqliteRegistryStore {
    fn is_durable(&self) -> bool {
        true
    }

    fn open(&self) -> Result<RegistryKept, StoreError> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(*running, Running::New) {
            return Err(StoreError(format!(
                "the store of {} was opened before; make a new one for each registry",
                self.path.display()
            )));
        }
        let (kept, thread) = self.start()?;
        *running = Running::Open(thread);
        Ok(kept)
    }

    fn submit(&self, ops: Vec<RegistryOp>) -> Completion {
        self.shared.submit(ops)
    }

    fn stats(&self) -> RegistryStoreStats {
        let shared = &self.shared;
        RegistryStoreStats {
            commits: shared.commits.load(Ordering::Relaxed),
            operations: shared.operations.load(Ordering::Relaxed),
            failures: shared.failures.load(Ordering::Relaxed),
            waiting: shared.waiting(),
            failing: shared.failing.load(Ordering::Relaxed),
            used_bytes: shared.used_bytes.load(Ordering::Relaxed),
            quota_bytes: self.options.quota_bytes,
        }
    }

    fn close(&self) {
        self.finish();
    }
}

impl Drop for SqliteRegistryStore {
    fn drop(&mut self) {
        self.finish();
    }
}
