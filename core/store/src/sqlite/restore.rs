//! What an earlier process kept, read back.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use arcp_proto::json::RawJson;
use arcp_proto::machine::frame::{Record, WireProfile};
use arcp_proto::machine::kept::{
    AskedBy, Kept, KeptCredential, KeptFollow, KeptJob, KeptKey, KeptSession, RestoredJob, RestoredSession, ResumedBy,
};
use arcp_proto::message::JobStatus;
use arcp_proto::time::Timestamp;
use arcp_proto::trace::TraceContext;
use rusqlite::{Connection, Row};
use serde_json::value::RawValue;

use super::batch::{Index, JobState};
use super::codec::Damage;
use super::payload::{Payloads, Place};
use super::runs::{Run, decode as decode_runs};
use super::schema::reason;
use super::segment::{Choice, decode, decode_one};
use crate::StoreError;

/// Why something kept cannot be read.
#[derive(Debug)]
pub(super) enum Problem {
    Sql(rusqlite::Error),
    /// What is damaged, and how.
    Damaged(String),
}

impl Problem {
    pub(super) fn damage(what: impl fmt::Display, damage: impl fmt::Display) -> Problem {
        Problem::Damaged(format!("{what}: {damage}"))
    }

    /// The whole sentence.
    pub(super) fn at(&self, path: &Path) -> String {
        match self {
            Problem::Sql(error) => reason(path, error),
            Problem::Damaged(what) => {
                let shown = path.display();
                format!("the database {shown} is damaged ({what}); restore a backup, or name another file")
            }
        }
    }

    pub(super) fn into_error(self, path: &Path) -> StoreError {
        StoreError(self.at(path))
    }
}

impl From<rusqlite::Error> for Problem {
    fn from(error: rusqlite::Error) -> Self {
        match error {
            rusqlite::Error::SqliteFailure(..) => Problem::Sql(error),
            // A column that does not hold what this program writes there.
            other => Problem::Damaged(other.to_string()),
        }
    }
}

/// Raises the epoch, forgets what belongs to no saved job, and reads everything.
pub(super) fn take_over(conn: &mut Connection, payloads: &Payloads) -> Result<(Kept, Index), Problem> {
    let transaction = conn.transaction()?;
    let epoch: i64 =
        transaction.query_row("UPDATE meta SET value = value + 1 WHERE name = 'epoch' RETURNING value", [], |row| {
            row.get(0)
        })?;
    transaction.execute_batch(
        "DELETE FROM segment WHERE job IN (SELECT key FROM job WHERE created_at IS NULL);
         DELETE FROM job_state WHERE job IN (SELECT key FROM job WHERE created_at IS NULL);
         DELETE FROM job WHERE created_at IS NULL;",
    )?;
    transaction.commit()?;
    let epoch = epoch.max(0).cast_unsigned();
    let mut index = Index::new(epoch).ok_or_else(|| Problem::Damaged(format!("its epoch {epoch} is out of range")))?;
    let mut kept = Kept { epoch, ..Kept::default() };

    let mut jobs = jobs(conn, payloads)?;
    let ids: HashMap<i64, Arc<str>> = jobs.iter().map(|job| (job.key, Arc::clone(&job.kept.job_id))).collect();
    let sessions = sessions(conn)?;
    let mut numbers = Vec::with_capacity(sessions.len());
    for session in &sessions {
        numbers.push(session_runs(conn, session)?);
    }
    let mut records = Records::default();
    for runs in &numbers {
        records.want(runs, &ids);
    }
    for job in jobs.iter().filter(|job| job.state.ended) {
        records.want_one(job.key, job.state.job_seq);
    }
    records.fetch(conn, payloads, &ids)?;

    let names = sessions.iter().map(|session| (session.key, Arc::clone(&session.kept.id))).collect();
    let mut follows = follows(conn, payloads, &names, &ids)?;
    for (session, runs) in sessions.into_iter().zip(numbers) {
        let (freed, log) = records.log(session.freed, &runs);
        index.sessions.insert(Arc::clone(&session.kept.id), session.key);
        kept.sessions.push(RestoredSession {
            follows: follows.remove(&session.key).unwrap_or_default(),
            session: session.kept,
            freed,
            log: log.into_iter().map(|(_, record)| record).collect(),
        });
    }
    for job in jobs.drain(..) {
        let terminal = if job.state.ended { records.get(job.key, job.state.job_seq) } else { None };
        index.jobs.insert(Arc::clone(&job.kept.job_id), job.key);
        index.states.insert(job.key, job.state.clone());
        kept.jobs.push(RestoredJob {
            job: job.kept,
            status: job.state.status,
            budget: job.state.budget,
            job_seq: job.state.job_seq,
            source_seq: job.state.source_seq,
            chunked: job.state.chunked,
            terminal,
        });
    }
    kept.keys = keys(conn, payloads)?;
    kept.credentials = credentials(conn, payloads)?;
    Ok((kept, index))
}

/// A row of the table of sessions.
#[derive(Debug)]
pub(super) struct SessionRow {
    pub(super) key: i64,
    pub(super) kept: KeptSession,
    pub(super) freed: u64,
}

pub(super) fn sessions(conn: &Connection) -> Result<Vec<SessionRow>, Problem> {
    let mut statement = conn.prepare(
        "SELECT key, id, principal, seed, profile, features, token, resumed_hello, resumed_token, detached_at, freed \
         FROM session ORDER BY key",
    )?;
    let mut rows = statement.query([])?;
    let mut sessions = Vec::new();
    while let Some(row) = rows.next()? {
        let id = shared(row, 1)?;
        let features: String = row.get(5)?;
        let features = serde_json::from_str(&features)
            .map_err(|error| Problem::damage(format!("the features of session {id}"), error))?;
        let profile = match row.get::<_, i64>(4)? {
            0 => WireProfile::Draft,
            1 => WireProfile::Py11,
            other => return Err(Problem::Damaged(format!("session {id} has the unknown profile {other}"))),
        };
        let hello_id: Option<String> = row.get(7)?;
        let resumed_by = match hello_id {
            Some(hello_id) => Some(ResumedBy { hello_id, token: row.get(8)? }),
            None => None,
        };
        let kept = KeptSession {
            principal: shared(row, 2)?,
            seed: row.get(3)?,
            profile,
            features,
            token: row.get(6)?,
            resumed_by,
            detached_at: row.get::<_, Option<i64>>(9)?.map(Timestamp),
            id,
        };
        sessions.push(SessionRow { key: row.get(0)?, kept, freed: unsigned(row, 10)? });
    }
    Ok(sessions)
}

/// The numbers of a session that are not freed, in order.
pub(super) fn session_runs(conn: &Connection, session: &SessionRow) -> Result<Vec<Run>, Problem> {
    let mut statement =
        conn.prepare_cached("SELECT first, last, runs FROM number WHERE session = ?1 AND last > ?2 ORDER BY last")?;
    let mut rows = statement.query([session.key, session.freed.cast_signed()])?;
    let mut runs = Vec::new();
    while let Some(row) = rows.next()? {
        let (first, last) = (unsigned(row, 0)?, unsigned(row, 1)?);
        let blob = row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?;
        decode_runs(blob, last.saturating_sub(first).saturating_add(1), &mut runs)
            .map_err(|damage| Problem::damage(format!("the numbers of session {}", session.kept.id), damage))?;
    }
    // A row that straddles what was freed is kept whole.
    runs.retain_mut(|run| {
        let skipped = (session.freed + 1).saturating_sub(run.event_seq).min(run.count);
        run.event_seq = run.event_seq.wrapping_add(skipped);
        run.job_seq = run.job_seq.wrapping_add(skipped);
        run.count -= skipped;
        run.count > 0
    });
    Ok(runs)
}

/// A row of the table of jobs, with its state.
#[derive(Debug)]
pub(super) struct JobRow {
    pub(super) key: i64,
    pub(super) kept: KeptJob,
    pub(super) state: JobState,
}

/// The saved jobs, oldest first.
pub(super) fn jobs(conn: &Connection, payloads: &Payloads) -> Result<Vec<JobRow>, Problem> {
    let mut statement = conn.prepare(
        "SELECT j.key, j.id, j.session, j.request_id, j.principal, j.agent, j.version, j.trace_id, j.input, j.lease, \
         j.expires_at, j.max_runtime_sec, j.parent_job_id, j.delegate_id, j.created_at, j.idempotency_key, s.status, \
         s.budget, s.job_seq, s.source_seq, s.chunked, s.ended, s.records, s.cost, \
         j.traceparent, j.tracestate \
         FROM job j LEFT JOIN job_state s ON s.job = j.key WHERE j.created_at IS NOT NULL \
         ORDER BY j.created_at, j.id",
    )?;
    let mut rows = statement.query([])?;
    let mut jobs = Vec::new();
    while let Some(row) = rows.next()? {
        let job_id = shared(row, 1)?;
        let status = row.get::<_, i64>(16)?;
        let budget: Option<String> = row.get(17)?;
        let state = JobState {
            status: status_of(status)
                .ok_or_else(|| Problem::Damaged(format!("job {job_id} has the unknown state {status}")))?,
            budget: budget.map(|text| json(&text, || format!("the budget of {job_id}"))).transpose()?,
            job_seq: unsigned(row, 18)?,
            source_seq: unsigned(row, 19)?,
            chunked: row.get(20)?,
            ended: row.get(21)?,
            records: unsigned(row, 22)?,
            cost: unsigned(row, 23)?,
        };
        let (session, principal) = (shared(row, 2)?, shared(row, 4)?);
        let input = Place::Input { job_id: &job_id, session: &session, principal: &principal };
        let lease = Place::Lease { job_id: &job_id, session: &session, principal: &principal };
        let kept = KeptJob {
            input: json(&payloads.open_text(input, row, 8)?, || input)?,
            lease: json(&payloads.open_text(lease, row, 9)?, || lease)?,
            session,
            request_id: row.get(3)?,
            principal,
            agent: row.get(5)?,
            version: row.get(6)?,
            trace_id: shared(row, 7)?,
            expires_at: row.get(10)?,
            max_runtime_sec: row.get::<_, Option<i64>>(11)?.map(i64::cast_unsigned),
            parent_job_id: row.get::<_, Option<String>>(12)?.map(Arc::from),
            delegate_id: row.get(13)?,
            created_at: Timestamp(row.get(14)?),
            key: row.get(15)?,
            trace_context: trace_context(row)?,
            job_id,
        };
        jobs.push(JobRow { key: row.get(0)?, kept, state });
    }
    Ok(jobs)
}

fn trace_context(row: &Row<'_>) -> rusqlite::Result<Option<TraceContext>> {
    let (traceparent, tracestate): (Option<String>, Option<String>) = (row.get(24)?, row.get(25)?);
    Ok(traceparent.and_then(|traceparent| TraceContext::parse(&traceparent, tracestate.as_deref())))
}

/// By session key, what it follows.
pub(super) fn follows(
    conn: &Connection,
    payloads: &Payloads,
    sessions: &HashMap<i64, Arc<str>>,
    jobs: &HashMap<i64, Arc<str>>,
) -> Result<HashMap<i64, Vec<KeptFollow>>, Problem> {
    let mut statement = conn.prepare(
        "SELECT session, job, request_id, asked_by, answer, owed_after FROM subscription ORDER BY session, job",
    )?;
    let mut rows = statement.query([])?;
    let mut follows: HashMap<i64, Vec<KeptFollow>> = HashMap::new();
    while let Some(row) = rows.next()? {
        let key = row.get(0)?;
        let (Some(session), Some(job_id)) = (sessions.get(&key), jobs.get(&row.get(1)?)) else { continue };
        let asked_by = match row.get::<_, i64>(3)? {
            0 => AskedBy::Subscribe,
            1 => AskedBy::Submit,
            other => return Err(Problem::Damaged(format!("session {session} follows {job_id} by a request {other}"))),
        };
        follows.entry(key).or_default().push(KeptFollow {
            session: Arc::clone(session),
            job_id: Arc::clone(job_id),
            request_id: row.get(2)?,
            asked_by,
            answer: payloads.open_text(Place::Answer { session, job_id }, row, 4)?,
            owed_after: row.get::<_, Option<i64>>(5)?.map(i64::cast_unsigned),
        });
    }
    Ok(follows)
}

pub(super) fn keys(conn: &Connection, payloads: &Payloads) -> Result<Vec<KeptKey>, Problem> {
    let mut statement = conn.prepare(
        "SELECT principal, key, fingerprint, job_id, trace_id, accepted, expires_at, terminal FROM idempotency_key",
    )?;
    let mut rows = statement.query([])?;
    let mut keys = Vec::new();
    while let Some(row) = rows.next()? {
        let (principal, key, job_id) = (shared(row, 0)?, row.get::<_, String>(1)?, shared(row, 3)?);
        let place = Place::Fingerprint { principal: &principal, key: &key, job_id: &job_id };
        let fingerprint = payloads.open_bytes(place, row.get(2)?).map_err(|damage| place.damage(damage))?;
        let fingerprint = fingerprint.try_into().map_err(|_| place.damage("it has another length"))?;
        let accepted = Place::Accepted { principal: &principal, key: &key, job_id: &job_id };
        let accepted = json(&payloads.open_text(accepted, row, 5)?, || accepted)?;
        let terminal = match row.get::<_, Option<Vec<u8>>>(7)? {
            None => None,
            Some(blob) => {
                let place = Place::Terminal { principal: &principal, key: &key, job_id: &job_id };
                let blob = payloads.open_bytes(place, blob);
                let told = blob.and_then(|blob| decode_one(blob, &job_id));
                Some(told.map_err(|damage| place.damage(damage))?)
            }
        };
        keys.push(KeptKey {
            principal,
            key,
            fingerprint,
            trace_id: shared(row, 4)?,
            accepted,
            expires_at: Timestamp(row.get(6)?),
            terminal,
            job_id,
        });
    }
    Ok(keys)
}

pub(super) fn credentials(conn: &Connection, payloads: &Payloads) -> Result<Vec<KeptCredential>, Problem> {
    let mut statement = conn.prepare("SELECT id, job_id, handle, issued_at FROM credential")?;
    let mut rows = statement.query([])?;
    let mut credentials = Vec::new();
    while let Some(row) = rows.next()? {
        let (id, job_id): (String, Arc<str>) = (row.get(0)?, shared(row, 1)?);
        let place = Place::Handle { credential: &id, job_id: &job_id };
        let handle = json(&payloads.open_text(place, row, 2)?, || place)?;
        credentials.push(KeptCredential { handle, job_id, issued_at: Timestamp(row.get(3)?), id });
    }
    Ok(credentials)
}

/// Records asked for by job and place, each read once and shared by everyone who numbers it.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// By job key: first and last place of what is wanted.
    wanted: HashMap<i64, Vec<(u64, u64)>>,
    found: HashMap<(i64, u64), Arc<Record>>,
}

impl Records {
    /// Asks for everything these runs name, of jobs that still exist.
    pub(super) fn want(&mut self, runs: &[Run], ids: &HashMap<i64, Arc<str>>) {
        for run in runs.iter().filter(|run| ids.contains_key(&run.job)) {
            let last = run.job_seq.saturating_add(run.count - 1);
            let ranges = self.wanted.entry(run.job).or_default();
            match ranges.last_mut() {
                Some(range) if range.1.checked_add(1) == Some(run.job_seq) => range.1 = last,
                _ => ranges.push((run.job_seq, last)),
            }
        }
    }

    fn want_one(&mut self, job: i64, job_seq: u64) {
        self.wanted.entry(job).or_default().push((job_seq, job_seq));
    }

    /// Reads what was asked for, and no segment besides.
    pub(super) fn fetch(
        &mut self,
        conn: &Connection,
        payloads: &Payloads,
        ids: &HashMap<i64, Arc<str>>,
    ) -> Result<(), Problem> {
        for (job, ranges) in std::mem::take(&mut self.wanted) {
            let Some(job_id) = ids.get(&job) else { continue };
            let ranges = merged(ranges);
            let (Some(first), Some(last)) = (ranges.first(), ranges.last()) else { continue };
            let mut segments = conn.prepare_cached(
                "SELECT id, first, last FROM segment WHERE job = ?1 AND first <= ?2 AND last >= ?3 ORDER BY first",
            )?;
            let mut rows = segments.query([job, last.1.cast_signed(), first.0.cast_signed()])?;
            while let Some(row) = rows.next()? {
                let (first, last) = (unsigned(row, 1)?, unsigned(row, 2)?);
                let wanted: u64 = ranges
                    .iter()
                    .filter(|range| range.0 <= last && range.1 >= first)
                    .map(|range| range.1.min(last) - range.0.max(first) + 1)
                    .sum();
                if wanted == 0 {
                    continue;
                }
                let data = conn
                    .prepare_cached("SELECT data FROM segment WHERE id = ?1")?
                    .query_row([row.get::<_, i64>(0)?], |row| row.get::<_, Vec<u8>>(0))?;
                // A few records must not hold the memory of all.
                let share = wanted.saturating_mul(2) > last - first;
                let wanted = |job_seq: u64, _| within(&ranges, job_seq);
                let place = Place::Records { job_id, first, last };
                let blob = payloads.open_bytes(place, data);
                let records = blob.and_then(|blob| decode(blob, job_id, Choice { wanted, share }));
                let records = records.map_err(|damage| place.damage(damage))?;
                self.found.extend(records.into_iter().map(|record| ((job, record.job_seq), record)));
            }
        }
        Ok(())
    }

    fn get(&self, job: i64, job_seq: u64) -> Option<Arc<Record>> {
        self.found.get(&(job, job_seq)).cloned()
    }

    /// A session's log: what its last numbers name, back to the last one that is gone; and what counts as freed then.
    pub(super) fn log(&self, freed: u64, runs: &[Run]) -> (u64, Vec<(u64, Arc<Record>)>) {
        let mut log = Vec::new();
        let mut expected = runs.last().map_or(freed, |run| run.event_seq.wrapping_add(run.count - 1)).max(freed);
        'runs: for run in runs.iter().rev() {
            for at in (0..run.count).rev() {
                let record = self.get(run.job, run.job_seq.wrapping_add(at));
                let (Some(record), true) = (record, run.event_seq.wrapping_add(at) == expected) else { break 'runs };
                log.push((expected, record));
                expected -= 1;
            }
        }
        log.reverse();
        (expected, log)
    }
}

fn merged(mut ranges: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    ranges.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.0 <= last.1.saturating_add(1) => last.1 = last.1.max(range.1),
            _ => merged.push(range),
        }
    }
    merged
}

fn within(ranges: &[(u64, u64)], place: u64) -> bool {
    let next = ranges.partition_point(|range| range.0 <= place);
    next.checked_sub(1).and_then(|at| ranges.get(at)).is_some_and(|range| place <= range.1)
}

fn status_of(code: i64) -> Option<JobStatus> {
    Some(match code {
        0 => JobStatus::Pending,
        1 => JobStatus::Running,
        2 => JobStatus::Success,
        3 => JobStatus::Error,
        4 => JobStatus::Cancelled,
        5 => JobStatus::TimedOut,
        _ => return None,
    })
}

fn json<W: fmt::Display>(text: &str, what: impl FnOnce() -> W) -> Result<RawJson, Problem> {
    match serde_json::from_str::<&RawValue>(text) {
        Ok(raw) => Ok(RawJson::from_raw(raw)),
        Err(_) => Err(Problem::damage(what(), "it is not JSON")),
    }
}

fn shared(row: &Row<'_>, column: usize) -> rusqlite::Result<Arc<str>> {
    row.get::<_, String>(column).map(Arc::from)
}

pub(super) fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(i64::cast_unsigned)
}

impl From<Damage> for Problem {
    fn from(damage: Damage) -> Self {
        Problem::Damaged(damage.0)
    }
}
