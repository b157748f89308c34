//! The tables of a registry's database, and how a connection to them is opened.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction};

use super::RegistrySqliteOptions;
use crate::StoreError;
use crate::sqlite::lock::make_file;
use crate::sqlite::schema::reason;

/// Marks the file as a registry's (`PRAGMA application_id`): "ARCR".
const APPLICATION_ID: i64 = 0x4152_4352;

/// Step `n` leads from version `n` to version `n + 1`. A released step never changes.
const MIGRATIONS: [fn(&Transaction<'_>) -> rusqlite::Result<()>; 1] = [tables_of_version_1];

/// The version this program writes (`PRAGMA user_version`).
pub(super) const VERSION: i64 = MIGRATIONS.len() as i64;

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
         INSERT INTO meta VALUES ('epoch', 0), ('last_key', 0), ('last_run', 0);

         CREATE TABLE agent (
             key INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, registration TEXT NOT NULL,
             registered_at INTEGER NOT NULL, key_hash TEXT);
         CREATE UNIQUE INDEX agent_by_key_hash ON agent (key_hash) WHERE key_hash IS NOT NULL;
         CREATE TABLE seen (key INTEGER PRIMARY KEY, at INTEGER NOT NULL);
         CREATE TABLE metrics (key INTEGER PRIMARY KEY, data TEXT NOT NULL);
         CREATE TABLE used_token (id TEXT PRIMARY KEY, expires_at INTEGER NOT NULL) WITHOUT ROWID;

         CREATE TABLE session (id TEXT PRIMARY KEY, data TEXT NOT NULL, expires_at INTEGER NOT NULL) WITHOUT ROWID;
         CREATE TABLE account (name TEXT PRIMARY KEY, role TEXT NOT NULL, password_hash TEXT NOT NULL) WITHOUT ROWID;
         CREATE TABLE setting (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
         CREATE TABLE secret (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
         CREATE TABLE log (id INTEGER PRIMARY KEY, at INTEGER NOT NULL, data TEXT NOT NULL);
         CREATE TABLE alert (id INTEGER PRIMARY KEY, at INTEGER NOT NULL, data TEXT NOT NULL);",
    )
}

/// One sentence about why SQLite failed, for one who may have a quota.
pub(super) fn no_room(path: &Path, error: &rusqlite::Error, quota_bytes: Option<u64>) -> String {
    match (error.sqlite_error_code(), quota_bytes) {
        (Some(ErrorCode::DiskFull), Some(quota)) => format!(
            "there is no space left for the database {}, whose quota is {quota} bytes; free space, raise the quota, or \
             unregister agents",
            path.display()
        ),
        _ => reason(path, error),
    }
}

/// Opens the file for its owner, and brings it to this version.
pub(super) fn open_owned(path: &Path, options: &RegistrySqliteOptions) -> Result<Connection, StoreError> {
    make_file(path).map_err(|error| {
        StoreError(format!("the database {} cannot be made ({error}); check its folder", path.display()))
    })?;
    let fail = |error: rusqlite::Error| StoreError(reason(path, &error));
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut conn = Connection::open_with_flags(path, flags).map_err(fail)?;
    conn.busy_timeout(BUSY_TIMEOUT).map_err(fail)?;
    let found = version(&conn, path)?;
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
    migrate(&mut conn, found).map_err(|error| StoreError(no_room(path, &error, options.quota_bytes)))?;
    Ok(conn)
}

fn configure(conn: &Connection, options: &RegistrySqliteOptions) -> rusqlite::Result<()> {
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

fn migrate(conn: &mut Connection, found: i64) -> rusqlite::Result<()> {
    let steps = MIGRATIONS.get(usize::try_from(found).unwrap_or(usize::MAX)..).unwrap_or_default();
    if steps.is_empty() {
        return Ok(());
    }
    let transaction = conn.transaction()?;
    for step in steps {
        step(&transaction)?;
    }
    transaction
        .execute_batch(&format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION};"))?;
    transaction.commit()
}

/// The schema version, once it is clear that the file is a registry's and not newer than this program; 0 for an empty
/// file.
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
            "{} is not a registry's database; name another file for the registry",
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
