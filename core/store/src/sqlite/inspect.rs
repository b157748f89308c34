//! A look into a database from outside, also while a runtime owns it.

use std::collections::HashMap;
use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arcp_proto::machine::frame::{Frame, Receiver, Record, SessionName};
use arcp_proto::machine::kept::KeptSession;
use arcp_proto::time::Timestamp;
use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::SqliteOptions;
use super::lock::{Possession, make_file, missing, resolve};
use super::payload::{Payloads, Place};
use super::restore::{self, Problem, Records, SessionRow, unsigned};
use super::runs::decode as decode_runs;
use super::schema::{open_foreign, open_owned, reason};
use super::segment::{all, decode};
use crate::StoreError;

/// Reads a database and never changes it.
pub struct Inspector {
    path: PathBuf,
    conn: Connection,
    payloads: Payloads,
}

/// One session, at a glance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionSummary {
    /// `sess_…`.
    pub id: Arc<str>,
    /// Whose.
    pub principal: Arc<str>,
    /// When its connection was lost; `None` while it has one, or had one when its process died.
    pub detached_at: Option<Timestamp>,
    /// The last number it gave; 0 for none.
    pub last_event_seq: u64,
    /// The last number that can no longer be replayed; 0 for none.
    pub freed: u64,
    /// How many numbers can be replayed: those after `freed`.
    pub kept: u64,
    /// Ids of the jobs it submitted that are still known, oldest first.
    pub jobs: Vec<Arc<str>>,
}

/// One numbered record of a session.
#[derive(Clone, Debug)]
pub struct ReplayedRecord {
    /// The session.
    pub session: Arc<SessionName>,
    /// Its number in the session.
    pub event_seq: u64,
    /// The record.
    pub record: Arc<Record>,
    /// Who the session is to the job.
    pub receiver: Receiver,
}

impl ReplayedRecord {
    /// The frame, byte for byte as the session's peer got it or would have (D-18).
    pub fn frame(&self) -> Frame {
        Frame::Event {
            session: Arc::clone(&self.session),
            event_seq: self.event_seq,
            record: Arc::clone(&self.record),
            receiver: self.receiver,
        }
    }
}

/// What a replay was about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// The session as it is kept.
    pub session: KeptSession,
    /// The last number that is gone; 0 for none.
    pub freed: u64,
    /// The last number the session gave; 0 for none.
    pub last_event_seq: u64,
}

/// What [`Inspector::check`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Sessions read.
    pub sessions: u64,
    /// Jobs read.
    pub jobs: u64,
    /// Records read.
    pub records: u64,
    /// Numbers of sessions read.
    pub numbers: u64,
    /// One sentence each; empty when the database is sound.
    pub problems: Vec<String>,
}

/// Problems beyond this many are not listed.
const MOST_PROBLEMS: usize = 100;

impl Inspector {
    /// Opens a database that exists and is not encrypted.
    ///
    /// # Errors
    /// When there is none at this path, or it is not one this program reads.
    pub fn open(path: impl AsRef<Path>) -> Result<Inspector, StoreError> {
        Inspector::open_with(path, &SqliteOptions::default())
    }

    /// Opens a database that exists, as one that was made with these options: of them the sealer counts.
    ///
    /// # Errors
    /// As [`Inspector::open`], and when the sealer is not that of the database.
    pub fn open_with(path: impl AsRef<Path>, options: &SqliteOptions) -> Result<Inspector, StoreError> {
        let path = resolve(path.as_ref(), false)?;
        let payloads = options.payloads();
        let conn = open_foreign(&path, &payloads)?;
        Ok(Inspector { path, conn, payloads })
    }

    /// All sessions, oldest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn sessions(&self) -> Result<Vec<SessionSummary>, StoreError> {
        self.reading(|conn| {
            let jobs = restore::jobs(conn, &self.payloads)?;
            let ids = ids(&jobs);
            let mut summaries = Vec::new();
            for session in restore::sessions(conn)? {
                let (freed, log, last_event_seq) = log(conn, &self.payloads, &session, &ids)?;
                let submitted = jobs.iter().filter(|job| job.kept.session == session.kept.id);
                summaries.push(SessionSummary {
                    jobs: submitted.map(|job| Arc::clone(&job.kept.job_id)).collect(),
                    id: session.kept.id,
                    principal: session.kept.principal,
                    detached_at: session.kept.detached_at,
                    last_event_seq,
                    freed,
                    kept: log.len() as u64,
                });
            }
            Ok(summaries)
        })
    }

    /// Hands out what a session numbered after `after_seq`, in order, until `each` breaks. Numbers up to
    /// [`Replay::freed`] are gone and left out.
    ///
    /// # Errors
    /// When there is no such session, or the database cannot be read.
    pub fn replay(
        &self,
        session_id: &str,
        after_seq: u64,
        each: &mut dyn FnMut(ReplayedRecord) -> ControlFlow<()>,
    ) -> Result<Replay, StoreError> {
        let told = self.reading(|conn| {
            let sessions = restore::sessions(conn)?;
            let Some(session) = sessions.into_iter().find(|session| &*session.kept.id == session_id) else {
                return Ok(None);
            };
            let jobs = restore::jobs(conn, &self.payloads)?;
            let (freed, log, last_event_seq) = log(conn, &self.payloads, &session, &ids(&jobs))?;
            let own = (&*session.kept.id, &*session.kept.principal);
            let receivers: HashMap<&str, Receiver> = jobs
                .iter()
                .map(|job| &job.kept)
                .map(|job| (&*job.job_id, Receiver::of(own, (&job.session, &job.principal))))
                .collect();
            let name = &session.kept;
            let name = Arc::new(SessionName::new(Arc::clone(&name.id), name.seed, name.profile));
            for (event_seq, record) in log.into_iter().filter(|(event_seq, _)| *event_seq > after_seq) {
                let receiver = receivers.get(&*record.job_id).copied().unwrap_or(Receiver::Onlooker);
                if each(ReplayedRecord { session: Arc::clone(&name), event_seq, record, receiver }).is_break() {
                    break;
                }
            }
            Ok(Some(Replay { session: session.kept, freed, last_event_seq }))
        })?;
        told.ok_or_else(|| {
            StoreError(format!(
                "the database {} knows no session {session_id:?}; list its sessions to find the right id",
                self.path.display()
            ))
        })
    }

    /// Looks at every page and reads everything there is.
    ///
    /// # Errors
    /// When the database cannot be read at all; what is merely wrong with it is in the report.
    pub fn check(&self) -> Result<CheckReport, StoreError> {
        self.reading(|conn| {
            let mut report = CheckReport::default();
            let mut pages = conn.prepare("PRAGMA integrity_check(100)")?;
            let mut rows = pages.query([])?;
            while let Some(row) = rows.next()? {
                let line: String = row.get(0)?;
                if line != "ok" {
                    report.note(line);
                }
            }
            check_tables(conn, &self.payloads, &mut report);
            if let Err(problem) = check_blobs(conn, &self.payloads, &mut report) {
                report.note(show(&problem));
            }
            Ok(report)
        })
    }

    /// Copies the database as it is at this moment, while its owner goes on. What is sealed stays sealed.
    ///
    /// # Errors
    /// When `to` exists or cannot be written; what was begun is removed.
    pub fn backup(&self, to: impl AsRef<Path>) -> Result<(), StoreError> {
        let to = to.as_ref();
        let shown = to.display();
        if to.exists() {
            return Err(StoreError(format!("{shown} exists; name a file that does not, or remove it")));
        }
        make_file(to).map_err(|error| StoreError(format!("the copy {shown} cannot be made ({error})")))?;
        let copied = copy(&self.conn, to);
        if copied.is_err() {
            let _ = std::fs::remove_file(to);
        }
        copied.map_err(|error| StoreError(format!("the copy to {shown} failed: {}", reason(to, &error))))
    }

    /// Reads as of one moment, whatever the owner commits meanwhile.
    fn reading<T>(&self, read: impl FnOnce(&Connection) -> Result<T, Problem>) -> Result<T, StoreError> {
        let snapshot = self.conn.unchecked_transaction().map_err(|error| StoreError(reason(&self.path, &error)))?;
        read(&snapshot).map_err(|problem| problem.into_error(&self.path))
    }
}

impl fmt::Debug for Inspector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inspector").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Rewrites a database without its unused space. It must belong to nobody. Of the options the sealer counts.
///
/// # Errors
/// When it is missing, belongs to a process, has another sealer, or there is no room for the rewriting.
pub fn vacuum(path: impl AsRef<Path>, options: &SqliteOptions) -> Result<(), StoreError> {
    let path = resolve(path.as_ref(), false)?;
    if !path.exists() {
        return Err(missing(&path));
    }
    let _possession = Possession::take(&path)?;
    let conn = open_owned(&path, options)?;
    let rewritten = conn.execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE);");
    rewritten.map_err(|error| StoreError(reason(&path, &error)))
}

fn copy(from: &Connection, to: &Path) -> rusqlite::Result<()> {
    let mut copy = Connection::open(to)?;
    let backup = Backup::new(from, &mut copy)?;
    // In one step, so that a busy owner cannot make it start again and again.
    match backup.step(-1)? {
        StepResult::Done => Ok(()),
        _ => Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY), None)),
    }
}

fn ids(jobs: &[restore::JobRow]) -> HashMap<i64, Arc<str>> {
    jobs.iter().map(|job| (job.key, Arc::clone(&job.kept.job_id))).collect()
}

type NumberedLog = Vec<(u64, Arc<Record>)>;

/// What is freed, the log, and the last number of a session.
fn log(
    conn: &Connection,
    payloads: &Payloads,
    session: &SessionRow,
    ids: &HashMap<i64, Arc<str>>,
) -> Result<(u64, NumberedLog, u64), Problem> {
    let runs = restore::session_runs(conn, session)?;
    let mut records = Records::default();
    records.want(&runs, ids);
    records.fetch(conn, payloads, ids)?;
    let (freed, log) = records.log(session.freed, &runs);
    let last = freed + log.len() as u64;
    Ok((freed, log, last))
}

impl CheckReport {
    fn note(&mut self, problem: String) {
        if self.problems.len() < MOST_PROBLEMS {
            self.problems.push(problem);
        }
    }
}

fn show(problem: &Problem) -> String {
    match problem {
        Problem::Sql(error) => error.to_string(),
        Problem::Damaged(what) => what.clone(),
    }
}

fn check_tables(conn: &Connection, payloads: &Payloads, report: &mut CheckReport) {
    let mut names = HashMap::new();
    match restore::sessions(conn) {
        Ok(sessions) => {
            report.sessions = sessions.len() as u64;
            names.extend(sessions.into_iter().map(|session| (session.key, session.kept.id)));
        }
        Err(problem) => report.note(show(&problem)),
    }
    let mut ids = HashMap::new();
    match restore::jobs(conn, payloads) {
        Ok(jobs) => {
            report.jobs = jobs.len() as u64;
            ids = self::ids(&jobs);
        }
        Err(problem) => report.note(show(&problem)),
    }
    if let Err(problem) = restore::follows(conn, payloads, &names, &ids) {
        report.note(show(&problem));
    }
    if let Err(problem) = restore::keys(conn, payloads) {
        report.note(show(&problem));
    }
    if let Err(problem) = restore::credentials(conn, payloads) {
        report.note(show(&problem));
    }
}

fn check_blobs(conn: &Connection, payloads: &Payloads, report: &mut CheckReport) -> Result<(), Problem> {
    let mut segments = conn.prepare(
        "SELECT s.id, s.records, s.data, s.first, s.last, ifnull(j.id, '') FROM segment s LEFT JOIN job j ON j.key = s.job \
         ORDER BY s.id",
    )?;
    let mut rows = segments.query([])?;
    while let Some(row) = rows.next()? {
        let (id, count): (i64, u64) = (row.get(0)?, unsigned(row, 1)?);
        let (first, last, job_id) = (unsigned(row, 3)?, unsigned(row, 4)?, row.get::<_, Arc<str>>(5)?);
        let blob = payloads.open_bytes(Place::Records { job_id: &job_id, first, last }, row.get(2)?);
        match blob.and_then(|blob| decode(blob, &job_id, all())) {
            Err(damage) => report.note(format!("segment {id}: {damage}")),
            Ok(records) => {
                report.records += records.len() as u64;
                let ends = (records.first().map(|one| one.job_seq), records.last().map(|one| one.job_seq));
                if records.len() as u64 != count || ends != (Some(first), Some(last)) {
                    report.note(format!("segment {id}: it does not hold what its row says"));
                }
            }
        }
    }
    let mut numbers = conn.prepare("SELECT id, first, last, runs FROM number ORDER BY id")?;
    let mut rows = numbers.query([])?;
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        let most = unsigned(row, 2)?.saturating_sub(unsigned(row, 1)?).saturating_add(1);
        let mut runs = Vec::new();
        match decode_runs(row.get_ref(3)?.as_blob().map_err(rusqlite::Error::from)?, most, &mut runs) {
            Err(damage) => report.note(format!("numbers {id}: {damage}")),
            Ok(()) => report.numbers += runs.iter().map(|run| run.count).sum::<u64>(),
        }
    }
    Ok(())
}
