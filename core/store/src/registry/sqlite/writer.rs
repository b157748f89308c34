//! The writer's thread: it drains the queue whole and commits once per drain.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

use super::RegistrySqliteOptions;
use super::apply::apply;
use super::schema::no_room;
use crate::registry::{Completion, NotKept, Promise, RegistryOp};
use crate::sqlite::lock::Possession;

/// Operations that wait at most. A disk that falls further behind refuses.
const MOST_WAITING: usize = 100_000;
/// Commits between two looks at the free pages and the quota.
const COMMITS_PER_TIDYING: u64 = 64;
/// Pages given back to the system in one go.
const TIDIED_PAGES: u64 = 256;

/// Operations that belong together.
#[derive(Debug)]
struct Submitted {
    ops: Vec<RegistryOp>,
    promise: Promise,
}

#[derive(Debug, Default)]
struct Queue {
    submitted: VecDeque<Submitted>,
    waiting: usize,
    closed: bool,
}

/// The queue, shared by the store's callers and its writer.
#[derive(Debug, Default)]
pub(super) struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    pub(super) commits: AtomicU64,
    pub(super) operations: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) failing: AtomicBool,
    pub(super) used_bytes: AtomicU64,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn waiting(&self) -> usize {
        self.lock().waiting
    }

    pub(super) fn submit(&self, ops: Vec<RegistryOp>) -> Completion {
        if ops.is_empty() {
            return Completion::ready(Ok(()));
        }
        let mut queue = self.lock();
        if queue.closed {
            return Completion::ready(Err(NotKept("the store is closed".into())));
        }
        if queue.waiting >= MOST_WAITING {
            let why = "the disk is too slow for what is to be kept; try again later";
            return Completion::ready(Err(NotKept(why.into())));
        }
        let (promise, completion) = Completion::pending();
        queue.waiting += ops.len();
        let idle = queue.submitted.is_empty();
        queue.submitted.push_back(Submitted { ops, promise });
        drop(queue);
        if idle {
            self.wake.notify_one();
        }
        completion
    }

    /// Nothing may follow.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_all();
    }

    /// Everything that waits; `None` once the store is closed and nothing does.
    fn take(&self) -> Option<VecDeque<Submitted>> {
        let mut queue = self.lock();
        while queue.submitted.is_empty() {
            if queue.closed {
                return None;
            }
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.waiting = 0;
        Some(std::mem::take(&mut queue.submitted))
    }
}

/// However the writer ends, nobody waits for it any more.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        let left = {
            let mut queue = self.0.lock();
            queue.closed = true;
            queue.waiting = 0;
            std::mem::take(&mut queue.submitted)
        };
        drop(left);
    }
}

/// What the writer's thread owns.
pub(super) struct Writer {
    pub(super) path: PathBuf,
    pub(super) options: RegistrySqliteOptions,
    pub(super) conn: Connection,
    pub(super) shared: Arc<Shared>,
    pub(super) possession: Possession,
    /// Whether the quota was already warned of.
    pub(super) warned: bool,
}

impl Writer {
    /// Runs until the store is closed; the store is let go of when this returns.
    pub(super) fn run(mut self) {
        let ending = Ending(Arc::clone(&self.shared));
        self.tidy();
        while let Some(submitted) = self.shared.take() {
            let whole: Vec<&[RegistryOp]> = submitted.iter().map(|one| one.ops.as_slice()).collect();
            match self.commit(&whole) {
                Ok(()) => {
                    for one in submitted {
                        one.promise.settle(Ok(()));
                    }
                }
                // One of them may be at fault, or there is room for some: each for itself.
                Err(_) if submitted.len() > 1 => {
                    for one in submitted {
                        let outcome = self.commit(&[&one.ops]);
                        let outcome = self.told(outcome);
                        one.promise.settle(outcome);
                    }
                }
                Err(error) => {
                    let outcome = self.told(Err(error));
                    for one in submitted {
                        one.promise.settle(outcome.clone());
                    }
                }
            }
            if self.shared.commits.load(Ordering::Relaxed).is_multiple_of(COMMITS_PER_TIDYING) {
                self.tidy();
            }
        }
        self.let_go();
        drop(ending);
    }

    fn told(&self, outcome: rusqlite::Result<()>) -> Result<(), NotKept> {
        outcome.map_err(|error| {
            let why = no_room(&self.path, &error, self.options.quota_bytes);
            if !self.shared.failing.swap(true, Ordering::Relaxed) {
                tracing::error!("{why}; changes are refused until it can be written again");
            }
            NotKept(why.into())
        })
    }

    fn commit(&mut self, submitted: &[&[RegistryOp]]) -> rusqlite::Result<()> {
        let outcome = self.write(submitted);
        let shared = &self.shared;
        match &outcome {
            Ok(()) => {
                let count: usize = submitted.iter().map(|ops| ops.len()).sum();
                shared.commits.fetch_add(1, Ordering::Relaxed);
                shared.operations.fetch_add(count as u64, Ordering::Relaxed);
                if shared.failing.swap(false, Ordering::Relaxed) {
                    tracing::info!(database = %self.path.display(), "the store keeps again what it is given");
                }
            }
            Err(_) => {
                shared.failures.fetch_add(1, Ordering::Relaxed);
            }
        }
        outcome
    }

    fn write(&mut self, submitted: &[&[RegistryOp]]) -> rusqlite::Result<()> {
        let transaction = self.conn.transaction()?;
        for op in submitted.iter().flat_map(|ops| ops.iter()) {
            apply(&transaction, op)?;
        }
        transaction.commit()
    }

    fn pragma(&self, name: &str) -> rusqlite::Result<u64> {
        let value: i64 = self.conn.prepare_cached(&format!("PRAGMA {name}"))?.query_row([], |row| row.get(0))?;
        Ok(value.max(0).cast_unsigned())
    }

    /// Measures what is used, warns of the quota, and gives unused pages back.
    fn tidy(&mut self) {
        let used = self.pragma("page_count").and_then(|pages| {
            let free = self.pragma("freelist_count")?;
            Ok((pages.saturating_sub(free) * self.pragma("page_size")?, free, pages))
        });
        let Ok((used, free, pages)) = used else { return };
        self.shared.used_bytes.store(used, Ordering::Relaxed);
        if let Some(quota) = self.options.quota_bytes {
            let beyond = used.saturating_mul(10) >= quota.saturating_mul(8);
            if beyond && !self.warned {
                let database = self.path.display();
                tracing::warn!(used, quota, %database, "the quota is nearly used; raise it, or unregister agents");
            }
            self.warned = beyond;
        }
        if free > TIDIED_PAGES && free * 4 > pages {
            self.shrink(TIDIED_PAGES);
        }
    }

    /// Gives back up to so many pages. Failing that harms nothing.
    fn shrink(&self, most: u64) {
        let shrunk = self.conn.prepare(&format!("PRAGMA incremental_vacuum({most})")).and_then(|mut statement| {
            // Every step gives back one page.
            let mut rows = statement.query([])?;
            while rows.next()?.is_some() {}
            Ok(())
        });
        if let Err(error) = shrunk {
            tracing::debug!("unused pages stay in the database: {error}");
        }
    }

    fn let_go(self) {
        let Writer { path, conn, possession, .. } = self;
        // Whoever still reads the file keeps its log; the next owner takes it up.
        let _ = conn.busy_timeout(std::time::Duration::from_millis(500));
        if let Err(error) = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
            tracing::debug!("the log is left beside the database: {error}");
        }
        if let Err((_, error)) = conn.close() {
            tracing::error!("{}", crate::sqlite::schema::reason(&path, &error));
        }
        drop(possession);
    }
}
