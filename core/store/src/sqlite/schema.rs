//! The tables, and how a connection to them is opened.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction};

use super::SqliteOptions;
use super::lock::{make_file, missing};
use super::payload::Payloads;
use crate::StoreError;

/// Marks the file as ours (`PRAGMA application_id`): "ARCP".
const APPLICATION_ID: i64 = 0x4152_4350;

/// Step `n` leads from version `n` to version `n + 1`. A released step never changes.
const MIGRATIONS: [fn(&Transaction<'_>) -> rusqlite::Result<()>; 2] = [tables_of_version_1, columns_of_version_2];

/// The version this program writes (`PRAGMA user_version`).
pub(super) const VERSION: i64 = MIGRATIONS.len() as i64;

/// From here on, `meta` can say that payloads are sealed.
pub(super) const VERSION_THAT_SEALS: i64 = 2;

/// Readers of other processes hold the file for moments only.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const PAGE_BYTES: u64 = 8192;
/// Beyond this much, the log is copied into the database at the next commit.
const CHECKPOINT_BYTES: u64 = 16 << 20;
/// What a burst leaves behind as log file at most.
const LOG_LIMIT_BYTES: u64 = 64 << 20;

fn tables_of_version_1(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch(
        "CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
         INSERT INTO meta VALUES ('epoch', 0);

         CREATE TABLE session (
             key INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, principal TEXT NOT NULL, seed BLOB NOT NULL,
             profile INTEGER NOT NULL, features TEXT NOT NULL, token BLOB NOT NULL,
             resumed_hello TEXT, resumed_token BLOB, detached_at INTEGER, freed INTEGER NOT NULL DEFAULT 0);
         CREATE TABLE number (
             id INTEGER PRIMARY KEY, session INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
             runs BLOB NOT NULL);
         CREATE INDEX number_by_session ON number (session, last);

         CREATE TABLE job (
             key INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, session TEXT, request_id TEXT, principal TEXT,
             agent TEXT, version TEXT, trace_id TEXT, input TEXT, lease TEXT, expires_at TEXT,
             max_runtime_sec INTEGER, parent_job_id TEXT, delegate_id TEXT, created_at INTEGER, idempotency_key TEXT);
         CREATE TABLE job_state (
             job INTEGER PRIMARY KEY, status INTEGER NOT NULL, budget TEXT, job_seq INTEGER NOT NULL,
             source_seq INTEGER NOT NULL, chunked INTEGER NOT NULL, ended INTEGER NOT NULL,
             records INTEGER NOT NULL, cost INTEGER NOT NULL);
         CREATE TABLE segment (
             id INTEGER PRIMARY KEY, job INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
             highest_source INTEGER NOT NULL, records INTEGER NOT NULL, cost INTEGER NOT NULL, data BLOB NOT NULL);
         CREATE INDEX segment_by_job ON segment (job, first);

         CREATE TABLE subscription (
             session INTEGER NOT NULL, job INTEGER NOT NULL, PRIMARY KEY (session, job)) WITHOUT ROWID;
         CREATE INDEX subscription_by_job ON subscription (job);

         CREATE TABLE idempotency_key (
             principal TEXT NOT NULL, key TEXT NOT NULL, fingerprint BLOB NOT NULL, job_id TEXT NOT NULL,
             trace_id TEXT NOT NULL, accepted TEXT NOT NULL, expires_at INTEGER NOT NULL, terminal BLOB,
             PRIMARY KEY (principal, key)) WITHOUT ROWID;
         CREATE TABLE credential (
             id TEXT PRIMARY KEY, job_id TEXT NOT NULL, handle TEXT NOT NULL, issued_at INTEGER NOT NULL)
             WITHOUT ROWID;",
    )
}

/// A session that follows a job comes back with the answer that said so and the history it is owed, a job with the span
/// that caused it. A database may be sealed.
fn columns_of_version_2(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch(
        "ALTER TABLE subscription ADD COLUMN request_id TEXT NOT NULL DEFAULT '';
         ALTER TABLE subscription ADD COLUMN asked_by INTEGER NOT NULL DEFAULT 0;
         ALTER TABLE subscription ADD COLUMN answer TEXT NOT NULL DEFAULT '';
         ALTER TABLE subscription ADD COLUMN owed_after INTEGER;
         ALTER TABLE job ADD COLUMN traceparent TEXT;
         ALTER TABLE job ADD COLUMN tracestate TEXT;
         ALTER TABLE meta ADD COLUMN proof BLOB;",
    )
}

/// One sentence about why SQLite failed.
pub(crate) fn reason(path: &Path, error: &rusqlite::Error) -> String {
    let shown = path.display();
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => format!("there is no space left for the database {shown}; free some"),
        Some(ErrorCode::ReadOnly) => format!("the database {shown} is read-only; make it and its folder writable"),
        Some(ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
            format!("the database {shown} cannot be opened ({error}); check that this user may read and write it")
        }
        Some(ErrorCode::NotADatabase) => {
            format!("{shown} is not a database of this program; name another file, or remove it")
        }
        Some(ErrorCode::DatabaseCorrupt) => {
            format!("the database {shown} is damaged ({error}); restore a backup, or name another file")
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            format!("the database {shown} is held by another program; close what else reads it")
        }
        Some(ErrorCode::SystemIoFailure) => {
            format!("the database {shown} cannot be read or written ({error}); check its disk")
        }
        _ => format!("the database {shown} failed ({error})"),
    }
}

/// As [`reason`], for one who has a quota.
pub(super) fn no_room(path: &Path, error: &rusqlite::Error, quota_bytes: Option<u64>) -> String {
    match (error.sqlite_error_code(), quota_bytes) {
        (Some(ErrorCode::DiskFull), Some(quota)) => format!(
            "there is no space left for the database {}, whose quota is {quota} bytes; free space, raise the quota, or \
             shorten the retention",
            path.display()
        ),
        _ => reason(path, error),
    }
}

/// Opens the file for its owner, and brings it to this version.
pub(super) fn open_owned(path: &Path, options: &SqliteOptions) -> Result<Connection, StoreError> {
    make_file(path).map_err(|error| {
        StoreError(format!("the database {} cannot be made ({error}); check its folder", path.display()))
    })?;
    let fail = |error: rusqlite::Error| StoreError(reason(path, &error));
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut conn = Connection::open_with_flags(path, flags).map_err(fail)?;
    conn.busy_timeout(BUSY_TIMEOUT).map_err(fail)?;
    let found = version(&conn, path)?;
    let payloads = options.payloads();
    if found > 0 {
        payloads.fit(&conn, path, found)?;
    }
    if conn.is_readonly("main").map_err(fail)? {
        return Err(StoreError(format!(
            "the database {} is read-only for this user; make it writable, or name another file",
            path.display()
        )));
    }
    if found == 0 {
        // Only an empty file takes these.
        conn.execute_batch(&format!("PRAGMA page_size = {PAGE_BYTES}; PRAGMA auto_vacuum = INCREMENTAL;"))
            .map_err(fail)?;
    }
    let mode: String = conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(fail)?;
    if mode != "wal" {
        return Err(StoreError(format!(
            "the database {} cannot keep a write-ahead log on its disk; name a file on a local disk",
            path.display()
        )));
    }
    configure(&conn, options).map_err(fail)?;
    migrate(&mut conn, found, &payloads).map_err(|error| StoreError(no_room(path, &error, options.quota_bytes)))?;
    Ok(conn)
}

fn configure(conn: &Connection, options: &SqliteOptions) -> rusqlite::Result<()> {
    let page_bytes: i64 = conn.query_row("PRAGMA page_size", [], |row| row.get(0))?;
    let page_bytes = page_bytes.max(512).cast_unsigned();
    let synchronous = options.synchronous.word();
    conn.execute_batch(&format!(
        "PRAGMA synchronous = {synchronous}; PRAGMA wal_autocheckpoint = {}; PRAGMA journal_size_limit = {};
         PRAGMA foreign_keys = OFF; PRAGMA temp_store = MEMORY;",
        CHECKPOINT_BYTES / page_bytes,
        LOG_LIMIT_BYTES,
    ))?;
    if let Some(quota) = options.quota_bytes {
        let pages = (quota / page_bytes).clamp(1, u64::from(u32::MAX) - 2);
        conn.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?;
    }
    conn.set_prepared_statement_cache_capacity(64);
    Ok(())
}

fn migrate(conn: &mut Connection, found: i64, payloads: &Payloads) -> rusqlite::Result<()> {
    let steps = MIGRATIONS.get(usize::try_from(found).unwrap_or(usize::MAX)..).unwrap_or_default();
    if steps.is_empty() {
        return Ok(());
    }
    let transaction = conn.transaction()?;
    for step in steps {
        step(&transaction)?;
    }
    if found == 0 {
        payloads.mark(&transaction)?;
    }
    transaction
        .execute_batch(&format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION};"))?;
    transaction.commit()
}

/// The schema version, once it is clear that the file is ours and not newer than this program; 0 for an empty file.
fn version(conn: &Connection, path: &Path) -> Result<i64, StoreError> {
    let fail = |error: rusqlite::Error| StoreError(reason(path, &error));
    let number = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(fail);
    let objects = number("SELECT count(*) FROM sqlite_schema")?;
    let application = number("PRAGMA application_id")?;
    let found = number("PRAGMA user_version")?;
    if objects == 0 && found == 0 {
        return Ok(0);
    }
    if application != APPLICATION_ID || found < 1 {
        return Err(StoreError(format!(
            "{} is a database of another program; name another file as the database",
            path.display()
        )));
    }
    if found > VERSION {
        return Err(StoreError(format!(
            "the database {} has schema version {found}, and this program reads versions up to {VERSION}; \
             use a newer program, or name another database file",
            path.display()
        )));
    }
    Ok(found)
}

/// Opens a second connection of the owner, for reading beside its writer.
pub(super) fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    Ok(conn)
}

/// Opens the file to look at it, whoever owns it. Neither makes nor changes it.
pub(super) fn open_foreign(path: &Path, payloads: &Payloads) -> Result<Connection, StoreError> {
    if !path.exists() {
        return Err(missing(path));
    }
    let conn = open_reader(path).map_err(|error| StoreError(reason(path, &error)))?;
    let touched = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()));
    let conn = match touched {
        // In a folder that cannot be written, a cleanly closed database can still be read as the lone file it is.
        Err(error)
            if matches!(error.sqlite_error_code(), Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly))
                && !has_log(path) =>
        {
            open_immutable(path).map_err(|error| StoreError(reason(path, &error)))?
        }
        _ => conn,
    };
    match version(&conn, path)? {
        VERSION => payloads.fit(&conn, path, VERSION).map(|()| conn),
        0 => Err(StoreError(format!("the database {} is empty; start a runtime with it first", path.display()))),
        found => Err(StoreError(format!(
            "the database {} has schema version {found}, and this program reads version {VERSION}; start a runtime \
             with it once to bring it up to date",
            path.display()
        ))),
    }
}

fn has_log(path: &Path) -> bool {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    Path::new(&log).exists()
}

fn open_immutable(path: &Path) -> rusqlite::Result<Connection> {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => uri.push(char::from(*byte)),
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri.push_str("?immutable=1");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(uri, flags)
}
