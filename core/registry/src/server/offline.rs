//! A registry's database without its server: accounts, agent keys, what goes out and what comes in.

use std::path::Path;

use arcp_store::registry::{
    KeptAgent, KeptUser, RegistryKept, RegistryOp, RegistrySqliteOptions, RegistryStore, SqliteRegistryStore,
};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};

use super::auth::{KEYS_SETTING, KeptKey, kept_keys, key_hash};
use crate::directory::time::{from_micros, micros};
use crate::model::Registration;
use crate::problem::stamp;

/// What an export says it is.
pub const EXPORT_FORMAT: &str = "arcp-registry-export/1";

/// An open database that no server uses.
#[derive(Debug)]
pub struct Offline {
    store: SqliteRegistryStore,
    kept: RegistryKept,
}

/// What an import did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Ids of agents taken.
    pub taken: Vec<String>,
    /// Ids of agents left out, and why.
    pub left_out: Vec<(String, String)>,
}

impl Offline {
    /// Opens it, and makes it if it is not there.
    ///
    /// # Errors
    /// When a server uses it, or it cannot be read.
    pub fn open(path: &Path) -> Result<Offline, String> {
        let store = SqliteRegistryStore::new(path, RegistrySqliteOptions::default());
        let kept = store.open().map_err(|error| error.to_string())?;
        Ok(Offline { store, kept })
    }

    fn write(&self, ops: Vec<RegistryOp>) -> Result<(), String> {
        self.store.submit(ops).wait().map_err(|error| error.to_string())
    }

    /// Names of administrators, in order.
    pub fn users(&self) -> Vec<String> {
        let mut names: Vec<String> = self.kept.users.iter().map(|user| user.name.clone()).collect();
        names.sort();
        names
    }

    /// Keeps an administrator with the hash of their password.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub fn put_user(&mut self, name: &str, password_hash: String) -> Result<(), String> {
        let user = KeptUser { name: name.to_owned(), role: "admin".into(), password_hash };
        self.write(vec![RegistryOp::PutUser(user.clone())])?;
        self.kept.users.retain(|known| known.name != name);
        self.kept.users.push(user);
        Ok(())
    }

    /// Forgets an administrator and their sessions; false when there is none of this name.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub fn remove_user(&mut self, name: &str) -> Result<bool, String> {
        if !self.kept.users.iter().any(|user| user.name == name) {
            return Ok(false);
        }
        let mut ops = vec![RegistryOp::RemoveUser { name: name.to_owned() }];
        ops.extend(self.sessions_of(name));
        self.write(ops)?;
        self.kept.users.retain(|user| user.name != name);
        Ok(true)
    }

    /// Ends a user's sessions: after a new password, whoever knew the old one is out.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub fn end_sessions(&mut self, name: &str) -> Result<(), String> {
        let ops: Vec<RegistryOp> = self.sessions_of(name).collect();
        if ops.is_empty() { Ok(()) } else { self.write(ops) }
    }

    fn sessions_of(&self, name: &str) -> impl Iterator<Item = RegistryOp> {
        let of_user =
            |data: &str| serde_json::from_str::<super::auth::Session>(data).is_ok_and(|session| session.user == name);
        self.kept
            .sessions
            .iter()
            .filter(|session| of_user(&session.data))
            .map(|session| RegistryOp::RemoveSession { id: session.id.clone() })
            .collect::<Vec<_>>()
            .into_iter()
    }

    /// Agent keys, without the keys.
    pub fn keys(&self) -> Vec<KeptKey> {
        kept_keys(&self.kept.settings)
    }

    fn keep_keys(&mut self, keys: &[KeptKey]) -> Result<(), String> {
        let value = serde_json::to_string(keys).map_err(|error| error.to_string())?;
        self.write(vec![RegistryOp::PutSetting { name: KEYS_SETTING.into(), value: value.clone() }])?;
        self.kept.settings.retain(|(name, _)| name != KEYS_SETTING);
        self.kept.settings.push((KEYS_SETTING.into(), value));
        Ok(())
    }

    /// Takes an agent key from now on; false when it is taken already.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub fn add_key(&mut self, key: &str, note: &str) -> Result<bool, String> {
        let mut keys = self.keys();
        let hash = key_hash(key);
        if keys.iter().any(|known| known.hash == hash) {
            return Ok(false);
        }
        keys.push(KeptKey { hash, note: note.to_owned(), made: Timestamp::now().as_second() });
        self.keep_keys(&keys)?;
        Ok(true)
    }

    /// Takes a key no longer; it is named by the beginning of its hash.
    ///
    /// # Errors
    /// When none, or more than one, begins so, or it cannot be kept.
    pub fn remove_key(&mut self, beginning: &str) -> Result<KeptKey, String> {
        let mut keys = self.keys();
        let matching: Vec<usize> =
            keys.iter().enumerate().filter(|(_, key)| key.hash.starts_with(beginning)).map(|(at, _)| at).collect();
        match matching.as_slice() {
            [at] => {
                let key = keys.remove(*at);
                self.keep_keys(&keys)?;
                Ok(key)
            }
            [] => Err(format!("there is no agent key {beginning}; `arcp registry key list` shows them")),
            _ => Err(format!("more than one agent key begins with {beginning}; give more of it")),
        }
    }

    /// Agents with their times and metrics, as one JSON document; no secrets.
    pub fn export(&self) -> Value {
        let agents: Vec<Value> = self
            .kept
            .agents
            .iter()
            .map(|agent| {
                json!({
                    "registration": serde_json::from_str::<Value>(&agent.registration).unwrap_or(Value::Null),
                    "registered_at": stamp(from_micros(agent.registered_at)),
                    "last_seen": stamp(from_micros(agent.last_seen)),
                    "key_hash": agent.key_hash.as_deref(),
                    "metrics": agent.metrics.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok()),
                })
            })
            .collect();
        json!({"format": EXPORT_FORMAT, "exported_at": stamp(Timestamp::now()), "agents": agents})
    }

    /// Takes agents from an export, or from the published server's `registry_state.json`, whose times are in `zone`. They
    /// count as heard of at this moment, so they have the heartbeat timeout to go on. An agent that is here already stays.
    ///
    /// # Errors
    /// When the document is neither, or nothing can be kept; then nothing was taken.
    pub fn import(&mut self, document: &Value, zone: &TimeZone) -> Result<Imported, String> {
        let mut imported = Imported::default();
        let (now, mut key) = (micros(Timestamp::now()), self.kept.last_key);
        let mut ops = Vec::new();
        let mut fresh = Vec::new();
        for (name, entry) in entries(document)? {
            match self.agent(&entry, zone) {
                Ok((agent, id)) if self.kept.agents.iter().chain(&fresh).any(|known| *known.agent_id == *id) => {
                    drop(agent);
                    imported.left_out.push((id, "it is here already".into()));
                }
                Ok((mut agent, id)) => {
                    key += 1;
                    (agent.key, agent.last_seen) = (key, now);
                    ops.push(RegistryOp::PutAgent(agent.clone()));
                    fresh.push(agent);
                    imported.taken.push(id);
                }
                Err(why) => imported.left_out.push((name, why)),
            }
        }
        if !ops.is_empty() {
            ops.push(RegistryOp::LastSeen { seen: Vec::new(), now });
            self.write(ops)?;
        }
        self.kept.last_key = key;
        self.kept.agents.extend(fresh);
        Ok(imported)
    }

    fn agent(&self, entry: &Entry, zone: &TimeZone) -> Result<(KeptAgent, String), String> {
        let registration = Registration::check(&entry.registration).map_err(|faults| {
            faults.first().map_or_else(|| "it is not valid".to_owned(), |fault| fault.message.clone())
        })?;
        let registered_at =
            entry.registered_at.as_deref().and_then(|text| time(text, zone)).unwrap_or_else(Timestamp::now);
        let agent = KeptAgent {
            key: 0,
            agent_id: registration.agent_id.as_str().into(),
            registration: serde_json::to_string(&registration).map_err(|error| error.to_string())?,
            registered_at: micros(registered_at),
            last_seen: 0,
            key_hash: entry.key_hash.as_deref().map(Into::into),
            metrics: entry.metrics.as_ref().map(Value::to_string),
        };
        Ok((agent, registration.agent_id))
    }

    /// Lets go of it.
    pub fn close(self) {
        self.store.close();
    }
}

/// The day of a time in seconds since 1970, in UTC.
pub fn day(seconds: i64) -> String {
    stamp(Timestamp::from_second(seconds).unwrap_or_default()).chars().take(10).collect()
}

/// An agent of a document.
#[derive(Debug, Default)]
struct Entry {
    registration: Value,
    registered_at: Option<String>,
    key_hash: Option<String>,
    metrics: Option<Value>,
}

fn entries(document: &Value) -> Result<Vec<(String, Entry)>, String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    match (document.get("format"), document.get("agents")) {
        (Some(format), Some(Value::Array(agents))) if format == EXPORT_FORMAT => Ok(agents
            .iter()
            .enumerate()
            .map(|(at, agent)| {
                let registration = agent["registration"].clone();
                let name = registration["agent_id"].as_str().map_or_else(|| format!("agent {at}"), str::to_owned);
                let entry = Entry {
                    registration,
                    registered_at: text(&agent["registered_at"]),
                    key_hash: text(&agent["key_hash"]),
                    metrics: Some(agent["metrics"].clone()).filter(|metrics| !metrics.is_null()),
                };
                (name, entry)
            })
            .collect()),
        (Some(format), _) => {
            Err(format!("its format {format} is not known; {EXPORT_FORMAT} and the published server's are"))
        }
        (None, Some(Value::Object(agents))) => Ok(agents
            .iter()
            .map(|(id, agent)| {
                // What is no part of a registration there is ignored here.
                let registration = agent.as_object().cloned().unwrap_or_else(Map::new);
                let entry = Entry {
                    registered_at: text(&agent["registered_at"]),
                    registration: Value::Object(registration),
                    ..Entry::default()
                };
                (id.clone(), entry)
            })
            .collect()),
        _ => Err("it is neither an export of this program nor the published server's registry_state.json".into()),
    }
}

/// A time with an offset, or one without in the zone.
fn time(text: &str, zone: &TimeZone) -> Option<Timestamp> {
    text.parse::<Timestamp>().ok().or_else(|| zone.to_timestamp(text.parse::<DateTime>().ok()?).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> Value {
        json!({
            "agents": {
                "pub-1": {
                    "agent_id": "pub-1", "name": "Published one", "agent_type": "testing",
                    "endpoint": "https://a.example.com", "capabilities": ["echo"], "context_brief": "Kept by another server",
                    "version": "1.0.0", "owner": "Somebody", "public_key": "my-agent-public-key-that-is-long-enough-32-chars",
                    "metadata": {"framework": "fastapi"}, "communication_mode": "remote", "features": ["http"],
                    "max_tokens": null, "language_support": ["en"], "rate_limit": 100, "requirements": null,
                    "policy_tags": [], "last_seen": "2026-11-28T04:14:18.565493", "registered_at": "2026-11-28T04:14:18.565493",
                },
                "bad": {"agent_id": "bad"},
            },
            "info_hashes": {},
        })
    }

    /// Rules: REG-201
    #[test]
    fn the_published_state_comes_in_and_an_export_goes_round() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = Offline::open(&folder.path().join("a.db")).unwrap();
        let imported = first.import(&state(), &TimeZone::get("Europe/Berlin").unwrap()).unwrap();
        assert_eq!(imported.taken, ["pub-1"]);
        assert_eq!(imported.left_out[0].0, "bad");
        let again = first.import(&state(), &TimeZone::UTC).unwrap();
        assert_eq!((again.taken.len(), again.left_out.len()), (0, 2));
        first.close();
        let first = Offline::open(&folder.path().join("a.db")).unwrap();
        let export = first.export();
        assert_eq!(export["agents"][0]["registered_at"], "2026-11-28T03:14:18.565493Z");
        let mut second = Offline::open(&folder.path().join("b.db")).unwrap();
        assert_eq!(second.import(&export, &TimeZone::UTC).unwrap().taken, ["pub-1"]);
        assert!(second.import(&json!({"x": 1}), &TimeZone::UTC).is_err());
    }

    /// Rules: REG-152
    #[test]
    fn users_and_keys_are_kept_as_hashes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let mut db = Offline::open(&path).unwrap();
        db.put_user("ann", "$argon2id$x".into()).unwrap();
        assert!(db.add_key("a-key-of-an-agent", "ci").unwrap() && !db.add_key("a-key-of-an-agent", "").unwrap());
        db.close();
        let mut db = Offline::open(&path).unwrap();
        assert_eq!((db.users(), db.keys().len()), (vec!["ann".to_owned()], 1));
        let hash = db.keys()[0].hash.clone();
        assert!(db.remove_key("zz").is_err());
        assert_eq!(db.remove_key(&hash[..8]).unwrap().note, "ci");
        assert!(db.remove_user("ann").unwrap() && !db.remove_user("ann").unwrap());
        db.close();
        let files: Vec<u8> = std::fs::read_dir(folder.path())
            .unwrap()
            .flat_map(|file| std::fs::read(file.unwrap().path()).unwrap())
            .collect();
        let secret = b"a-key-of-an-agent";
        assert!(!files.windows(secret.len()).any(|part| part == secret));
    }
}
