//! An agent as a client reads it (REG-073).

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::metrics::AgentMetrics;
use super::requirements::AgentRequirements;

/// Whether an agent was heard of in time (REG-190).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AgentStatus {
    /// Its last heartbeat is recent.
    #[default]
    Alive,
    /// It missed its heartbeats; any of them revives it.
    Dead,
}

impl AgentStatus {
    /// The word of the protocol.
    pub fn as_str(self) -> &'static str {
        match self {
            AgentStatus::Alive => "alive",
            AgentStatus::Dead => "dead",
        }
    }
}

impl fmt::Display for AgentStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// AgentInfo (REG-073), read leniently: of any well-formed agent type, with whatever is missing at its default, and
/// what is not known in `extra`. Times are the texts sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fields of Registration, by the same names")]
pub struct AgentInfo {
    pub agent_id: String,
    pub name: String,
    pub agent_type: String,
    pub endpoint: String,
    #[serde(deserialize_with = "or_default")]
    pub capabilities: Vec<String>,
    pub context_brief: String,
    pub version: String,
    pub owner: String,
    pub public_key: String,
    #[serde(deserialize_with = "or_default")]
    pub metadata: Map<String, Value>,
    pub communication_mode: String,
    #[serde(deserialize_with = "or_default")]
    pub features: Vec<String>,
    pub max_tokens: Option<i64>,
    pub language_support: Option<Vec<String>>,
    pub rate_limit: Option<i64>,
    pub requirements: Option<AgentRequirements>,
    #[serde(deserialize_with = "or_default")]
    pub policy_tags: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ai_context: Option<String>,
    pub status: AgentStatus,
    pub last_seen: Option<String>,
    pub registered_at: Option<String>,
    pub similarity: Option<f64>,
    pub metrics: Option<AgentMetrics>,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}
