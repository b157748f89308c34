//! One operation becomes statements.

use rusqlite::{Connection, params};

use crate::registry::{Journal, KeptAgent, RegistryOp};

/// Carries it out inside the open transaction.
pub(super) fn apply(conn: &Connection, op: &RegistryOp) -> rusqlite::Result<()> {
    match op {
        RegistryOp::PutAgent(agent) => put_agent(conn, agent),
        RegistryOp::RemoveAgent { key } => remove_agent(conn, key.cast_signed()),
        RegistryOp::PutMetrics { key, metrics } => {
            let sql = "INSERT OR REPLACE INTO metrics SELECT ?1, ?2 WHERE EXISTS (SELECT 1 FROM agent WHERE key = ?1)";
            run(conn, sql, params![key.cast_signed(), metrics])
        }
        RegistryOp::LastSeen { seen, now } => {
            for (key, at) in seen {
                run(conn, "UPDATE seen SET at = ?2 WHERE key = ?1", [key.cast_signed(), *at])?;
            }
            ran(conn, *now)
        }
        RegistryOp::UseToken { token_id, expires_at } => {
            run(conn, "INSERT OR REPLACE INTO used_token VALUES (?1, ?2)", params![token_id, expires_at])
        }
        RegistryOp::ForgetTokens { before } => run(conn, "DELETE FROM used_token WHERE expires_at <= ?1", [before]),
        RegistryOp::PutSession(session) => {
            let sql = "INSERT OR REPLACE INTO session VALUES (?1, ?2, ?3)";
            run(conn, sql, params![session.id, session.data, session.expires_at])
        }
        RegistryOp::RemoveSession { id } => run(conn, "DELETE FROM session WHERE id = ?1", [id]),
        RegistryOp::PutUser(user) => {
            let sql = "INSERT OR REPLACE INTO account VALUES (?1, ?2, ?3)";
            run(conn, sql, params![user.name, user.role, user.password_hash])
        }
        RegistryOp::RemoveUser { name } => run(conn, "DELETE FROM account WHERE name = ?1", [name]),
        RegistryOp::PutSetting { name, value } => {
            run(conn, "INSERT OR REPLACE INTO setting VALUES (?1, ?2)", params![name, value])
        }
        RegistryOp::PutSecret { name, value } => {
            run(conn, "INSERT OR REPLACE INTO secret VALUES (?1, ?2)", params![name, value])
        }
        RegistryOp::Append { journal, line, most } => {
            let (append, cut) = match journal {
                Journal::Logs => (
                    "INSERT INTO log (at, data) VALUES (?1, ?2)",
                    "DELETE FROM log WHERE id <= last_insert_rowid() - ?1",
                ),
                Journal::Alerts => (
                    "INSERT INTO alert (at, data) VALUES (?1, ?2)",
                    "DELETE FROM alert WHERE id <= last_insert_rowid() - ?1",
                ),
            };
            run(conn, append, params![line.at, line.data])?;
            run(conn, cut, [i64::try_from(*most).unwrap_or(i64::MAX)])
        }
        RegistryOp::Clear { journal: Journal::Logs } => run(conn, "DELETE FROM log", []),
        RegistryOp::Clear { journal: Journal::Alerts } => run(conn, "DELETE FROM alert", []),
    }
}

fn put_agent(conn: &Connection, agent: &KeptAgent) -> rusqlite::Result<()> {
    let former = "SELECT key FROM agent WHERE id = ?1";
    let former: Option<i64> = {
        let mut statement = conn.prepare_cached(former)?;
        let mut rows = statement.query([&agent.agent_id])?;
        rows.next()?.map(|row| row.get(0)).transpose()?
    };
    if let Some(key) = former {
        remove_agent(conn, key)?;
    }
    if let Some(hash) = &agent.key_hash {
        run(conn, "UPDATE agent SET key_hash = NULL WHERE key_hash = ?1", [hash])?;
    }
    let key = agent.key.cast_signed();
    let sql = "INSERT INTO agent (key, id, registration, registered_at, key_hash) VALUES (?1, ?2, ?3, ?4, ?5)";
    let (id, hash) = (&agent.agent_id, agent.key_hash.as_ref());
    run(conn, sql, params![key, id, agent.registration, agent.registered_at, hash])?;
    run(conn, "INSERT INTO seen VALUES (?1, ?2)", [key, agent.last_seen])?;
    if let Some(metrics) = &agent.metrics {
        run(conn, "INSERT INTO metrics VALUES (?1, ?2)", params![key, metrics])?;
    }
    raise(conn, "last_key", key)?;
    ran(conn, agent.last_seen)
}

fn remove_agent(conn: &Connection, key: i64) -> rusqlite::Result<()> {
    run(conn, "DELETE FROM metrics WHERE key = ?1", [key])?;
    run(conn, "DELETE FROM seen WHERE key = ?1", [key])?;
    run(conn, "DELETE FROM agent WHERE key = ?1", [key])
}

/// The newest word counts, not the latest time: a clock that was set back must not stay in the future, from where all agents
/// seem long dead at the next start.
fn ran(conn: &Connection, at: i64) -> rusqlite::Result<()> {
    run(conn, "UPDATE meta SET value = ?1 WHERE name = 'last_run'", [at])
}

fn raise(conn: &Connection, name: &str, value: i64) -> rusqlite::Result<()> {
    run(conn, "UPDATE meta SET value = ?2 WHERE name = ?1 AND value < ?2", params![name, value])
}

fn run(conn: &Connection, sql: &str, params: impl rusqlite::Params) -> rusqlite::Result<()> {
    conn.prepare_cached(sql)?.execute(params).map(drop)
}
