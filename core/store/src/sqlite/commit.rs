//! One batch becomes one transaction.

use rusqlite::{Connection, params};

use super::batch::{Batch, Index, JobState, StagedJob, StagedSession};
use super::payload::{Payloads, Place};
use super::segment::{encode_one, status_code};
use crate::PerJobCap;
use arcp_proto::machine::frame::WireProfile;
use arcp_proto::machine::kept::{AskedBy, KeptCredential, KeptFollow, KeptJob, KeptKey, KeptSession};
use arcp_proto::trace::TraceContext;

/// What else the index must know once the transaction is committed.
pub(super) type Settled = Vec<(i64, JobState)>;

/// Writes everything staged, and commits. Nothing staged is consumed, so that a failed commit can be repeated.
pub(super) fn commit(
    conn: &mut Connection,
    payloads: &Payloads,
    batch: &mut Batch,
    index: &Index,
    cap: PerJobCap,
) -> rusqlite::Result<Settled> {
    let transaction = conn.transaction()?;
    // What goes makes room for what comes, also under a quota and for an id that returns.
    for key in &batch.forgotten_sessions {
        transaction.prepare_cached("DELETE FROM number WHERE session = ?1")?.execute([key])?;
        transaction.prepare_cached("DELETE FROM subscription WHERE session = ?1")?.execute([key])?;
        transaction.prepare_cached("DELETE FROM session WHERE key = ?1")?.execute([key])?;
    }
    for key in &batch.forgotten_jobs {
        transaction.prepare_cached("DELETE FROM segment WHERE job = ?1")?.execute([key])?;
        transaction.prepare_cached("DELETE FROM subscription WHERE job = ?1")?.execute([key])?;
        transaction.prepare_cached("DELETE FROM job_state WHERE job = ?1")?.execute([key])?;
        transaction.prepare_cached("DELETE FROM job WHERE key = ?1")?.execute([key])?;
    }
    for (key, staged) in &batch.sessions {
        write_session(&transaction, *key, staged)?;
    }
    let mut settled = Vec::with_capacity(batch.jobs.len());
    for (key, staged) in &mut batch.jobs {
        let state = index.states.get(key).cloned().unwrap_or_default();
        settled.push((*key, write_job(&transaction, payloads, *key, staged, state, cap)?));
    }
    for (session, job) in &batch.settled_histories {
        let sql = "UPDATE subscription SET owed_after = NULL WHERE session = ?1 AND job = ?2";
        transaction.prepare_cached(sql)?.execute([session, job])?;
    }
    for ((session, job), follow) in &batch.subscriptions {
        match follow {
            Some(follow) => write_follow(&transaction, payloads, *session, *job, follow)?,
            None => {
                let sql = "DELETE FROM subscription WHERE session = ?1 AND job = ?2";
                transaction.prepare_cached(sql)?.execute([session, job])?;
            }
        }
    }
    for ((principal, name), kept) in &batch.keys {
        match kept {
            Some(kept) => write_key(&transaction, payloads, kept)?,
            None => {
                let sql = "DELETE FROM idempotency_key WHERE principal = ?1 AND key = ?2";
                transaction.prepare_cached(sql)?.execute(params![principal, name])?;
            }
        }
    }
    for (id, kept) in &batch.credentials {
        match kept {
            Some(kept) => write_credential(&transaction, payloads, kept)?,
            None => {
                transaction.prepare_cached("DELETE FROM credential WHERE id = ?1")?.execute([id])?;
            }
        }
    }
    transaction.commit()?;
    Ok(settled)
}

fn write_follow(
    conn: &Connection,
    payloads: &Payloads,
    session: i64,
    job: i64,
    follow: &KeptFollow,
) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO subscription (session, job, request_id, asked_by, answer, owed_after) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let asked_by = match follow.asked_by {
        AskedBy::Subscribe => 0,
        AskedBy::Submit => 1,
    };
    let owed_after = follow.owed_after.map(u64::cast_signed);
    let place = Place::Answer { session: &follow.session, job_id: &follow.job_id };
    let answer = payloads.text(place, &follow.answer)?;
    conn.prepare_cached(sql)?.execute(params![session, job, follow.request_id, asked_by, answer, owed_after])?;
    Ok(())
}

fn write_session(conn: &Connection, key: i64, staged: &StagedSession) -> rusqlite::Result<()> {
    if let Some(session) = &staged.saved {
        save_session(conn, key, session)?;
    }
    let freed = staged.freed.unwrap_or(0);
    for runs in staged.numbers.iter().filter(|runs| runs.last() > freed) {
        let sql = "INSERT INTO number (session, first, last, runs) VALUES (?1, ?2, ?3, ?4)";
        let (first, last) = (runs.first().cast_signed(), runs.last().cast_signed());
        conn.prepare_cached(sql)?.execute(params![key, first, last, runs.encode()])?;
    }
    if freed > 0 {
        let freed = freed.cast_signed();
        let sql = "UPDATE session SET freed = max(freed, ?2) WHERE key = ?1";
        conn.prepare_cached(sql)?.execute([key, freed])?;
        conn.prepare_cached("DELETE FROM number WHERE session = ?1 AND last <= ?2")?.execute([key, freed])?;
    }
    Ok(())
}

fn save_session(conn: &Connection, key: i64, session: &KeptSession) -> rusqlite::Result<()> {
    let sql = "INSERT INTO session (key, id, principal, seed, profile, features, token, resumed_hello, resumed_token, \
               detached_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT (key) DO UPDATE SET \
               principal = ?3, seed = ?4, profile = ?5, features = ?6, token = ?7, resumed_hello = ?8, \
               resumed_token = ?9, detached_at = ?10";
    let resumed = session.resumed_by.as_ref();
    conn.prepare_cached(sql)?.execute(params![
        key,
        session.id,
        session.principal,
        session.seed,
        profile_code(session.profile),
        serde_json::Value::from(session.features.clone()).to_string(),
        session.token,
        resumed.map(|by| &by.hello_id),
        resumed.map(|by| by.token),
        session.detached_at.map(|at| at.0),
    ])?;
    Ok(())
}

fn write_job(
    conn: &Connection,
    payloads: &Payloads,
    key: i64,
    staged: &mut StagedJob,
    mut state: JobState,
    cap: PerJobCap,
) -> rusqlite::Result<JobState> {
    if let Some(id) = &staged.fresh {
        conn.prepare_cached("INSERT INTO job (key, id) VALUES (?1, ?2)")?.execute(params![key, id])?;
    }
    if let Some(job) = &staged.saved {
        save_job(conn, payloads, key, job)?;
    }
    for segment in &mut staged.segments {
        segment.seal();
        let (first, last) = (segment.first_job_seq, segment.last_job_seq);
        let data = payloads.bytes(Place::Records { job_id: &segment.job_id, first, last }, segment.data())?;
        let sql = "INSERT INTO segment (job, first, last, highest_source, records, cost, data) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        conn.prepare_cached(sql)?.execute(params![
            key,
            first.cast_signed(),
            last.cast_signed(),
            segment.highest_source_seq.cast_signed(),
            segment.count.cast_signed(),
            segment.cost.cast_signed(),
            data,
        ])?;
        state.job_seq = segment.last_job_seq;
        state.source_seq = segment.last_source_seq;
        state.records += segment.count;
        state.cost += segment.cost;
    }
    state.chunked |= staged.chunked;
    if let Some(status) = staged.ended {
        state.ended = true;
        state.status = status;
    }
    drop_oldest(conn, key, &mut state, cap)?;
    let sql = "INSERT OR REPLACE INTO job_state VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    conn.prepare_cached(sql)?.execute(params![
        key,
        status_code(state.status),
        state.budget.as_ref().map(|budget| budget.get()),
        state.job_seq.cast_signed(),
        state.source_seq.cast_signed(),
        state.chunked,
        state.ended,
        state.records.cast_signed(),
        state.cost.cast_signed(),
    ])?;
    Ok(state)
}

/// Keeps the job below its cap: the oldest segments go, the newest stays whatever its size.
fn drop_oldest(conn: &Connection, key: i64, state: &mut JobState, cap: PerJobCap) -> rusqlite::Result<()> {
    while state.records > cap.records as u64 || state.cost > cap.bytes as u64 {
        let sql = "SELECT id, records, cost FROM segment WHERE job = ?1 ORDER BY first LIMIT 2";
        let mut statement = conn.prepare_cached(sql)?;
        let mut rows = statement.query([key])?;
        let Some(oldest) = rows.next()? else { return Ok(()) };
        let (id, records, cost): (i64, i64, i64) = (oldest.get(0)?, oldest.get(1)?, oldest.get(2)?);
        if rows.next()?.is_none() {
            return Ok(());
        }
        conn.prepare_cached("DELETE FROM segment WHERE id = ?1")?.execute([id])?;
        state.records = state.records.saturating_sub(records.cast_unsigned());
        state.cost = state.cost.saturating_sub(cost.cast_unsigned());
    }
    Ok(())
}

fn save_job(conn: &Connection, payloads: &Payloads, key: i64, job: &KeptJob) -> rusqlite::Result<()> {
    let (job_id, session, principal) = (&*job.job_id, &*job.session, &*job.principal);
    let sql = "INSERT INTO job VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, \
               ?17, ?18) ON CONFLICT (key) DO UPDATE SET session = ?3, request_id = ?4, principal = ?5, agent = ?6, \
               version = ?7, trace_id = ?8, input = ?9, lease = ?10, expires_at = ?11, max_runtime_sec = ?12, \
               parent_job_id = ?13, delegate_id = ?14, created_at = ?15, idempotency_key = ?16, traceparent = ?17, \
               tracestate = ?18";
    conn.prepare_cached(sql)?.execute(params![
        key,
        job.job_id,
        job.session,
        job.request_id,
        job.principal,
        job.agent,
        job.version,
        job.trace_id,
        payloads.text(Place::Input { job_id, session, principal }, job.input.get())?,
        payloads.text(Place::Lease { job_id, session, principal }, job.lease.get())?,
        job.expires_at,
        job.max_runtime_sec.map(u64::cast_signed),
        job.parent_job_id,
        job.delegate_id,
        job.created_at.0,
        job.key,
        job.trace_context.as_ref().map(TraceContext::traceparent),
        job.trace_context.as_ref().and_then(TraceContext::tracestate),
    ])?;
    Ok(())
}

fn write_key(conn: &Connection, payloads: &Payloads, kept: &KeptKey) -> rusqlite::Result<()> {
    let (principal, key, job_id) = (&*kept.principal, &*kept.key, &*kept.job_id);
    let terminal = kept.terminal.as_ref().map(|terminal| encode_one(terminal));
    let place = Place::Terminal { principal, key, job_id };
    let terminal = terminal.as_ref().map(|blob| payloads.bytes(place, blob)).transpose()?;
    let sql = "INSERT OR REPLACE INTO idempotency_key VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    conn.prepare_cached(sql)?.execute(params![
        kept.principal,
        kept.key,
        payloads.bytes(Place::Fingerprint { principal, key, job_id }, &kept.fingerprint)?,
        kept.job_id,
        kept.trace_id,
        payloads.text(Place::Accepted { principal, key, job_id }, kept.accepted.get())?,
        kept.expires_at.0,
        terminal,
    ])?;
    Ok(())
}

fn write_credential(conn: &Connection, payloads: &Payloads, kept: &KeptCredential) -> rusqlite::Result<()> {
    let place = Place::Handle { credential: &kept.id, job_id: &kept.job_id };
    let handle = payloads.text(place, kept.handle.get())?;
    let sql = "INSERT OR REPLACE INTO credential VALUES (?1, ?2, ?3, ?4)";
    conn.prepare_cached(sql)?.execute(params![kept.id, kept.job_id, handle, kept.issued_at.0])?;
    Ok(())
}

/// On disk: it never changes its meaning.
fn profile_code(profile: WireProfile) -> u8 {
    match profile {
        WireProfile::Draft => 0,
        WireProfile::Py11 => 1,
    }
}
