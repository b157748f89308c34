//! The writer's thread: it drains the queue whole, commits once per drain, and tells how far it came.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::batch::{Batch, HistoryRequest, Index};
use super::commit::commit;
use super::lock::Possession;
use super::payload::Payloads;
use super::queue::{Item, Shared};
use super::schema::{no_room, reason};
use super::{Counters, SqliteOptions};
use crate::StoreSink;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Commits between two looks at the free pages.
const COMMITS_PER_TIDYING: u64 = 64;
/// Pages given back to the system in one go.
const TIDIED_PAGES: u64 = 256;

/// What the writer's thread owns.
pub(super) struct Writer {
    pub(super) path: PathBuf,
    pub(super) options: SqliteOptions,
    pub(super) conn: Connection,
    pub(super) payloads: Payloads,
    pub(super) index: Index,
    pub(super) shared: Arc<Shared>,
    pub(super) sink: Arc<dyn StoreSink>,
    pub(super) counters: Arc<Counters>,
    pub(super) questions: Sender<HistoryRequest>,
    pub(super) reader: JoinHandle<()>,
    pub(super) possession: Possession,
    /// Whether the quota was already warned of.
    pub(super) warned: bool,
}

impl Writer {
    /// Runs until the store is closed; the store is let go of when this returns.
    pub(super) fn run(mut self) {
        let mut batch = Batch::default();
        let mut committed = 0;
        let mut pause = None;
        let mut deadline = None;
        loop {
            let (items, closing) = self.shared.take(pause, deadline.is_some());
            if closing && deadline.is_none() {
                deadline = Some(Instant::now() + self.options.closing_patience);
            }
            for item in items {
                match item {
                    Item::Apply(ticket, op) => batch.stage(&mut self.index, self.options.per_job, ticket, op),
                    Item::History { request, job_id, after_source_seq } => {
                        batch.ask(&mut self.index, request, job_id, after_source_seq);
                    }
                }
            }
            if batch.operations == 0 {
                self.answer(&mut batch);
                if closing {
                    break;
                }
                continue;
            }
            match self.commit(&mut batch) {
                Ok(()) => {
                    if pause.take().is_some() {
                        tracing::info!(database = %self.path.display(), "the store keeps again what it is given");
                    }
                    committed = batch.ticket;
                    self.sink.stored(committed, Ok(()));
                    self.answer(&mut batch);
                    batch = Batch::default();
                    self.tidy();
                }
                Err(error) => {
                    let why = no_room(&self.path, &error, self.options.quota_bytes);
                    if pause.is_none() {
                        tracing::error!(operations = batch.operations, "{why}; it is tried again");
                    }
                    self.sink.stored(committed, Err(why));
                    if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                        tracing::error!(operations = batch.operations, "the store is closed without its last changes");
                        break;
                    }
                    pause = Some(pause.map_or(FIRST_PAUSE, |pause: Duration| (pause * 2).min(LONGEST_PAUSE)));
                }
            }
        }
        self.let_go();
    }

    fn commit(&mut self, batch: &mut Batch) -> rusqlite::Result<()> {
        let started = Instant::now();
        let settled = commit(&mut self.conn, &self.payloads, batch, &self.index, self.options.per_job);
        let counters = &self.counters;
        let Ok(settled) = settled else {
            counters.failures.fetch_add(1, Ordering::Relaxed);
            return settled.map(drop);
        };
        self.index.states.extend(settled);
        counters.commits.fetch_add(1, Ordering::Relaxed);
        counters.operations.fetch_add(batch.operations, Ordering::Relaxed);
        let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        counters.commit_micros.fetch_add(micros, Ordering::Relaxed);
        Ok(())
    }

    /// Hands the questions of a batch on, now that everything before them is committed.
    fn answer(&self, batch: &mut Batch) {
        for question in batch.history.drain(..) {
            // The reader ends after this thread has let go of the sender only.
            let _ = self.questions.send(question);
        }
    }

    fn pragma(&self, name: &str) -> rusqlite::Result<u64> {
        let value: i64 = self.conn.prepare_cached(&format!("PRAGMA {name}"))?.query_row([], |row| row.get(0))?;
        Ok(value.max(0).cast_unsigned())
    }

    /// Warns of the quota, and gives unused pages back.
    fn tidy(&mut self) {
        if let Some(quota) = self.options.quota_bytes
            && let Ok(used) = self.used_bytes()
        {
            let beyond = used.saturating_mul(10) >= quota.saturating_mul(8);
            if beyond && !self.warned {
                let database = self.path.display();
                tracing::warn!(used, quota, %database, "the quota is nearly used; raise it, or shorten the retention");
            }
            self.warned = beyond;
            self.counters.quota_warning.store(beyond, Ordering::Relaxed);
        }
        if self.counters.commits.load(Ordering::Relaxed).is_multiple_of(COMMITS_PER_TIDYING) {
            self.shrink(TIDIED_PAGES);
        }
    }

    fn used_bytes(&self) -> rusqlite::Result<u64> {
        let pages = self.pragma("page_count")?.saturating_sub(self.pragma("freelist_count")?);
        Ok(pages * self.pragma("page_size")?)
    }

    /// Gives back up to so many pages when a quarter of the file is unused. Failing that harms nothing.
    fn shrink(&self, most: u64) {
        let shrunk = self.pragma("freelist_count").and_then(|free| {
            if free > TIDIED_PAGES && free * 4 > self.pragma("page_count")? {
                // Every step gives back one page.
                let mut statement = self.conn.prepare(&format!("PRAGMA incremental_vacuum({most})"))?;
                let mut rows = statement.query([])?;
                while rows.next()?.is_some() {}
            }
            Ok(())
        });
        if let Err(error) = shrunk {
            tracing::debug!("unused pages stay in the database: {error}");
        }
    }

    fn let_go(self) {
        self.shrink(16 * TIDIED_PAGES);
        let Writer { path, conn, questions, reader, possession, .. } = self;
        drop(questions);
        if reader.join().is_err() {
            tracing::error!("the reader of the store ended badly");
        }
        // Whoever still reads the file keeps its log; the next owner takes it up.
        let _ = conn.busy_timeout(Duration::from_millis(500));
        if let Err(error) = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
            tracing::debug!("the log is left beside the database: {error}");
        }
        if let Err((_, error)) = conn.close() {
            tracing::error!("{}", reason(&path, &error));
        }
        drop(possession);
    }
}
