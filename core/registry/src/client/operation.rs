//! What a client can be asked to do: the methods of the contract with their defaults (REG-030 to REG-059).

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::error::{Area, RegistryError};
use super::options::Secret;

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The error of serde would show what stands there instead.
        let must = |_| serde::de::Error::custom("a secret must be text");
        String::deserialize(deserializer).map(Secret::from).map_err(must)
    }
}

/// One method of the contract and its arguments.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[allow(missing_docs, reason = "each is the contract's method of that name, with its arguments")]
pub enum Operation {
    LoginAdmin {
        username: String,
        password: Secret,
    },
    RequestTempToken {
        agent_id: String,
        agent_type: String,
        agent_key: Secret,
    },
    ValidateToken {
        #[serde(default)]
        token: Option<Secret>,
    },
    RefreshAuthentication {},
    RegisterAgent(NewAgent),
    GetAgent {
        agent_id: String,
        #[serde(default = "yes")]
        include_metrics: bool,
    },
    ListAgents(ListFilter),
    UpdateHeartbeat {
        agent_id: String,
    },
    UpdateMetrics {
        agent_id: String,
        metrics_data: Map<String, Value>,
    },
    GetMetrics {
        agent_id: String,
    },
    UnregisterAgent {
        agent_id: String,
        #[serde(default)]
        agent_key: Option<Secret>,
    },
    SearchAgents(Search),
    DiscoverAgents(Discovery),
    GetPublicAgent {
        agent_id: String,
    },
    RequestAgentConnection(ConnectionRequest),
    GetSystemInfo {},
    GetPublicStats {},
    GetAllowedAgentTypes {},
    HealthCheck {},
    GetSystemMetrics {},
    GetSystemStats {},
    GetResourceUtilization {},
    GetMetricsSnapshot {},
    /// Beats for ever; see [`super::RegistryClient::keep_alive`].
    KeepAlive {
        agent_id: String,
        #[serde(default = "half_a_minute")]
        interval: f64,
    },
    /// Any request.
    Request(PlainRequest),
}

/// An agent to register (REG-070). What is absent of `version`, `owner`, `public_key`, `communication_mode` and `metadata`
/// gets a sensible value (D-9).
#[derive(Clone, Debug, Deserialize)]
pub struct NewAgent {
    /// The key to register it with; it takes the place of any token held.
    #[serde(default)]
    pub agent_key: Option<Secret>,
    /// Everything else, as the contract names it.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

/// Which agents a list holds (REG-171).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListFilter {
    /// Agents of this type.
    pub agent_type: Option<String>,
    /// `alive` or `dead`.
    pub status: Option<String>,
    /// Agents with any of these.
    pub capabilities: Option<Vec<String>>,
    /// With their metrics.
    pub include_metrics: bool,
}

/// What is searched for (REG-075).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Search {
    /// What the agents should be able to do, in words.
    pub query: String,
    /// The most results; 3.
    #[serde(default = "three")]
    pub top_k: i64,
    /// Results below it are left out; 0.5.
    #[serde(default = "half")]
    pub min_similarity: f64,
    /// Agents with all of these.
    #[serde(default)]
    pub capabilities: Option<Vec<String>>,
    /// Ordered by reputation too, and with metrics.
    #[serde(default)]
    pub weighted: bool,
    /// Agents of this type.
    #[serde(default)]
    pub agent_type: Option<String>,
    /// Without a token; true.
    #[serde(default = "yes")]
    pub public_api: bool,
}

/// Which page of the living agents (REG-183).
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Discovery {
    /// Agents of this type.
    pub agent_type: Option<String>,
    /// Agents with all of these.
    pub capabilities: Option<Vec<String>>,
    /// At most this many; 50.
    pub limit: i64,
    /// Without the first ones; 0.
    pub offset: i64,
}

impl Default for Discovery {
    fn default() -> Self {
        Discovery { agent_type: None, capabilities: None, limit: 50, offset: 0 }
    }
}

/// Who asks an agent for a connection (REG-077).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectionRequest {
    /// The agent.
    pub agent_id: String,
    /// Who asks.
    pub user_id: String,
    /// Where the agent finds them.
    pub user_endpoint: String,
    /// `Anonymous User`.
    #[serde(default = "anonymous")]
    pub display_name: String,
    /// Anything.
    #[serde(default)]
    pub additional_info: Option<Map<String, Value>>,
}

/// Any request, as [`super::RegistryClient::perform`] sends it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlainRequest {
    /// `GET`, ...
    pub method: String,
    /// The path.
    pub endpoint: String,
    /// The body.
    #[serde(default)]
    pub json: Option<Value>,
    /// The query: a list is a repeated name, `null` is left out.
    #[serde(default)]
    pub params: Option<Map<String, Value>>,
    /// Further headers.
    #[serde(default)]
    pub headers: Option<Map<String, Value>>,
    /// With a token if one is held; true.
    #[serde(default = "yes")]
    pub auth_required: bool,
    /// Never with a token; false.
    #[serde(default)]
    pub public_api: bool,
}

fn yes() -> bool {
    true
}

fn three() -> i64 {
    3
}

fn half() -> f64 {
    0.5
}

fn half_a_minute() -> f64 {
    30.0
}

fn anonymous() -> String {
    "Anonymous User".into()
}

impl Operation {
    /// Reads an operation by its name, with the JSON text of an object of arguments.
    ///
    /// # Errors
    /// Names the operation and what is wrong.
    pub fn parse(name: &str, arguments: &str) -> Result<Operation, RegistryError> {
        let arguments: &serde_json::value::RawValue = serde_json::from_str(arguments)
            .map_err(|error| RegistryError::invalid(format!("{name}: the arguments are not JSON: {error}")))?;
        let text = format!("{{{}:{}}}", Value::from(name), arguments.get());
        serde_json::from_str(&text).map_err(|error| {
            // The position counts in a text nobody has seen.
            let told = error.to_string();
            let told = told.rsplit_once(" at line ").map_or(told.as_str(), |(told, _)| told);
            RegistryError::invalid(format!("{name}: {told}")).within(Area::General, "")
        })
    }

    /// Whose errors it has, and how they begin (table A.4).
    pub(crate) fn face(&self) -> (Area, String) {
        let (area, prefix) = match self {
            Operation::LoginAdmin { .. } => (Area::Authentication, "Admin login failed: "),
            Operation::RequestTempToken { .. } => (Area::Authentication, "Temporary token request failed: "),
            Operation::ValidateToken { .. } => (Area::Authentication, "Token validation failed: "),
            Operation::RefreshAuthentication {} => (Area::Authentication, "Token refresh failed: "),
            Operation::RegisterAgent(_) => (Area::Registration, "Agent registration failed: "),
            Operation::ListAgents(_) => (Area::General, "Failed to list agents: "),
            Operation::SearchAgents(_) => (Area::Search, "Agent search failed: "),
            Operation::DiscoverAgents(_) => (Area::General, "Agent discovery failed: "),
            Operation::RequestAgentConnection(_) => (Area::General, "Connection request failed: "),
            Operation::GetSystemInfo {} => (Area::General, "Failed to get system info: "),
            Operation::GetPublicStats {} => (Area::General, "Failed to get public stats: "),
            Operation::GetAllowedAgentTypes {} => (Area::General, "Failed to get allowed agent types: "),
            Operation::HealthCheck {} => (Area::General, "Health check failed: "),
            Operation::GetSystemMetrics {} => (Area::General, "Failed to get system metrics: "),
            Operation::GetSystemStats {} => (Area::General, "Failed to get system stats: "),
            Operation::GetResourceUtilization {} => (Area::General, "Failed to get resource utilization: "),
            Operation::GetMetricsSnapshot {} => (Area::General, "Failed to get metrics snapshot: "),
            Operation::Request(_) => (Area::General, ""),
            Operation::GetAgent { agent_id, .. } => return general("get agent", agent_id),
            Operation::UpdateHeartbeat { agent_id } | Operation::KeepAlive { agent_id, .. } => {
                return general("update heartbeat for", agent_id);
            }
            Operation::UpdateMetrics { agent_id, .. } => return general("update metrics for", agent_id),
            Operation::GetMetrics { agent_id } => return general("get metrics for", agent_id),
            Operation::UnregisterAgent { agent_id, .. } => return general("unregister agent", agent_id),
            Operation::GetPublicAgent { agent_id } => return general("get public agent", agent_id),
        };
        (area, prefix.to_owned())
    }
}

fn general(what: &str, agent_id: &str) -> (Area, String) {
    (Area::General, format!("Failed to {what} {agent_id}: "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_read_by_name_with_the_contract_s_defaults() {
        let Operation::SearchAgents(search) = Operation::parse("search_agents", r#"{"query":"words"}"#).unwrap() else {
            panic!("another operation");
        };
        assert_eq!((search.top_k, search.min_similarity, search.public_api), (3, 0.5, true));
        assert!(matches!(Operation::parse("health_check", "{}").unwrap(), Operation::HealthCheck {}));
        let told = |name, arguments| Operation::parse(name, arguments).unwrap_err().to_string();
        assert!(told("get_agent", "{}").contains("agent_id"));
        assert!(told("get_agent", r#"{"agent_id":"a","x":1}"#).contains("unknown field `x`"));
        assert!(told("get_agent", "{").contains("not JSON"));
        assert!(told("fly", "{}").contains("unknown variant `fly`"));
    }
}
