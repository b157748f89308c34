//! Agents from and for other registries: the state file of the published server (`registry_state.json`, REG-201).
//!
//! The file is an object with a member `agents`: agents by their id, as AgentInfo has them, with `registered_at` and
//! `last_seen` in the server's local time. Its `info_hashes` describe what the published server had embedded, and are
//! of no use elsewhere.

use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};

use super::Service;
use crate::directory::{ListFilter, Refusal, TimeForm};
use crate::model::{Invalid, Registration};
use crate::problem::Problem;

/// What came of an import.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImportReport {
    /// Agents that are registered now.
    pub imported: Vec<String>,
    /// Agents that are not, and why.
    pub skipped: Vec<Skipped>,
}

/// An agent that was not imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Its id, as the file has it.
    pub agent_id: String,
    /// One sentence.
    pub why: String,
}

impl Service {
    /// Registers the agents of a state file, in the order they registered there. The import counts as a heartbeat: each
    /// has a whole time-out to be heard of. An agent whose id is known already, or that this registry would not take, is
    /// skipped. Durable when it returns.
    ///
    /// # Errors
    /// When it is no state file, or the store refuses; what is imported by then stays.
    pub async fn import_state(&self, state: &Value) -> Result<ImportReport, Refusal> {
        let no_file = || {
            let words = "a state file is an object whose member `agents` holds agents by their id; name another file";
            Refusal::Invalid(vec![Invalid::new("agents", "dict_type", words)])
        };
        let Some(Value::Object(agents)) = state.get("agents") else {
            return Err(no_file());
        };
        let now = self.now();
        let mut report = ImportReport::default();
        let mut arriving: Vec<(Timestamp, Registration)> = Vec::with_capacity(agents.len());
        for (id, agent) in agents {
            match self.readable(id, agent) {
                Ok(registration) => {
                    let at = local(agent.get("registered_at"), &self.config().zone).unwrap_or(now.wall);
                    arriving.push((at.min(now.wall), registration));
                }
                Err(why) => report.skipped.push(Skipped { agent_id: id.clone(), why }),
            }
        }
        // Stable: whoever registered at one time stays in the order of the file.
        arriving.sort_by_key(|(registered_at, _)| *registered_at);
        for (registered_at, registration) in arriving {
            let agent_id = registration.agent_id.clone();
            let now = self.now();
            let reserved = self.write(now).agents.begin_import(&registration, registered_at, now);
            let outcome = match reserved {
                Ok(reservation) => self.admit(reservation, registration, Vec::new(), now).await.map(drop),
                Err(refusal) => Err(refusal),
            };
            match outcome {
                Ok(()) => report.imported.push(agent_id),
                Err(refused @ Refusal::NotKept(_)) => return Err(refused),
                Err(Refusal::Duplicate(_)) => {
                    report.skipped.push(Skipped { agent_id, why: "an agent of this id is registered here".to_owned() });
                }
                Err(refused) => report.skipped.push(Skipped { agent_id, why: refused.to_string() }),
            }
        }
        Ok(report)
    }

    fn readable(&self, id: &str, agent: &Value) -> Result<Registration, String> {
        let faults = |faults: Vec<Invalid>| Problem::validation(faults).detail;
        let registration = Registration::check(agent).map_err(faults)?;
        if registration.agent_id != id {
            return Err(format!("its agent_id is {:?}", registration.agent_id));
        }
        self.check_type(&registration.agent_type).map_err(|refusal| match refusal {
            Refusal::Invalid(found) => faults(found),
            other => other.to_string(),
        })?;
        Ok(registration)
    }

    /// All agents as a state file, which [`Service::import_state`] and the published server read.
    pub fn export_state(&self) -> Value {
        let mut agents = Map::new();
        for agent in self.list(&ListFilter::default()) {
            let mut json = Vec::new();
            agent.write_json(&mut json, TimeForm::Http, false, true);
            let Ok(Value::Object(mut members)) = serde_json::from_slice::<Value>(&json) else { continue };
            for computed in ["status", "similarity", "metrics"] {
                members.remove(computed);
            }
            agents.insert(Arc::clone(agent.agent_id()).to_string(), Value::Object(members));
        }
        json!({ "agents": agents, "info_hashes": {} })
    }
}

/// A time as the published server writes it: with an offset, or local to it.
fn local(value: Option<&Value>, zone: &TimeZone) -> Option<Timestamp> {
    let text = value?.as_str()?;
    if let Ok(at) = text.parse::<Timestamp>() {
        return Some(at);
    }
    zone.to_timestamp(text.parse::<DateTime>().ok()?).ok()
}
