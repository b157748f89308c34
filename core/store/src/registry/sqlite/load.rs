//! What a database gives back to its next owner.

use std::sync::Arc;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};

use crate::registry::{KeptAgent, KeptLine, KeptSession, KeptUser, Micros, RegistryKept, Secret};

/// Reads everything, drops what expired, and raises the epoch.
pub(super) fn take_over(conn: &mut Connection, now: Micros) -> rusqlite::Result<RegistryKept> {
    let transaction = conn.transaction()?;
    transaction.execute("UPDATE meta SET value = value + 1 WHERE name = 'epoch'", [])?;
    transaction.execute("DELETE FROM session WHERE expires_at <= ?1", [now])?;
    transaction.execute("DELETE FROM used_token WHERE expires_at <= ?1", [now])?;
    transaction.commit()?;
    let meta =
        |name: &str| conn.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get::<_, i64>(0));
    let kept = RegistryKept {
        epoch: meta("epoch")?.cast_unsigned(),
        agents: all(
            conn,
            "SELECT key, id, registration, registered_at, coalesce(at, registered_at), key_hash, data FROM agent \
             LEFT JOIN seen USING (key) LEFT JOIN metrics USING (key) ORDER BY key",
            |row| {
                Ok(KeptAgent {
                    key: row.get::<_, i64>(0)?.cast_unsigned(),
                    agent_id: Arc::from(text(row, 1)?),
                    registration: text(row, 2)?,
                    registered_at: row.get(3)?,
                    last_seen: row.get(4)?,
                    key_hash: text_opt(row, 5)?.map(Arc::from),
                    metrics: text_opt(row, 6)?,
                })
            },
        )?,
        last_key: meta("last_key")?.cast_unsigned(),
        last_run: meta("last_run")?,
        tokens: all(conn, "SELECT id, expires_at FROM used_token", |row| Ok((Arc::from(text(row, 0)?), row.get(1)?)))?,
        sessions: all(conn, "SELECT id, data, expires_at FROM session", |row| {
            Ok(KeptSession { id: text(row, 0)?, data: text(row, 1)?, expires_at: row.get(2)? })
        })?,
        users: all(conn, "SELECT name, role, password_hash FROM account ORDER BY name", |row| {
            Ok(KeptUser { name: text(row, 0)?, role: text(row, 1)?, password_hash: text(row, 2)? })
        })?,
        settings: all(conn, "SELECT name, value FROM setting ORDER BY name", |row| Ok((text(row, 0)?, text(row, 1)?)))?,
        secrets: all(conn, "SELECT name, value FROM secret ORDER BY name", |row| {
            Ok(Secret { name: text(row, 0)?, value: row.get(1)? })
        })?,
        logs: all(conn, "SELECT at, data FROM log ORDER BY id", line)?,
        alerts: all(conn, "SELECT at, data FROM alert ORDER BY id", line)?,
    };
    Ok(kept)
}

/// A text, as well as it can be read: whoever takes it judges it, and one that is damaged must not keep all others away.
fn text(row: &Row<'_>, column: usize) -> rusqlite::Result<String> {
    Ok(text_opt(row, column)?.unwrap_or_default())
}

fn text_opt(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<String>> {
    Ok(match row.get_ref(column)? {
        ValueRef::Null => None,
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        ValueRef::Integer(number) => Some(number.to_string()),
        ValueRef::Real(number) => Some(number.to_string()),
    })
}

fn line(row: &Row<'_>) -> rusqlite::Result<KeptLine> {
    Ok(KeptLine { at: row.get(0)?, data: text(row, 1)? })
}

fn all<T>(conn: &Connection, sql: &str, read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>) -> rusqlite::Result<Vec<T>> {
    conn.prepare(sql)?.query_map([], read)?.collect()
}
