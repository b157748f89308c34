//! What an agent says of its work (REG-074), and how it is counted (REG-194).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::check::{Fields, Invalid, Loc, MOST_DEPTH, is_shallow, shown};

/// Members of an agent's own making at most, together with those kept from before.
pub const MOST_CUSTOM: usize = 50;
/// How long a name or a text among them may be, in characters.
const LONGEST_CUSTOM: usize = 1000;

/// AgentMetrics (REG-074) as a client reads it; `last_active` is the text sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentMetrics {
    /// Whose they are.
    pub agent_id: String,
    /// 0 to 1.
    pub success_rate: f64,
    /// Seconds.
    pub avg_response_time: f64,
    /// Requests answered.
    pub total_requests: i64,
    /// When it was last heard of, ISO 8601.
    pub last_active: Option<String>,
    /// 0 to 10 as set; 0 to 1 as computed (REG-194).
    pub reputation_score: f64,
    /// Requests worked on.
    pub requests_processed: i64,
    /// Seconds.
    pub average_response_time: f64,
    /// 0 to 1.
    pub error_rate: f64,
    /// Members of the agent's own making.
    #[serde(flatten)]
    pub custom: Map<String, Value>,
}

/// The body of `POST /agents/{id}/metrics` (REG-176): what is named changes, the rest stays.
///
/// `last_active` is taken whatever it is, as the time of arrival counts. Unknown members are kept as the agent's own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MetricsUpdate {
    /// Whose they are, if the body says so; must be the agent of the path.
    pub agent_id: Option<String>,
    /// 0 to 1.
    pub success_rate: Option<f64>,
    /// 0 to 3600 seconds.
    pub avg_response_time: Option<f64>,
    /// 0 or more.
    pub total_requests: Option<i64>,
    /// 0 to 10.
    pub reputation_score: Option<f64>,
    /// 0 or more.
    pub requests_processed: Option<i64>,
    /// 0 to 3600 seconds.
    pub average_response_time: Option<f64>,
    /// 0 to 1.
    pub error_rate: Option<f64>,
    /// At most 50 in all; `null` removes one.
    pub custom: Map<String, Value>,
}

const KNOWN: [&str; 9] = [
    "agent_id",
    "success_rate",
    "avg_response_time",
    "total_requests",
    "last_active",
    "reputation_score",
    "requests_processed",
    "average_response_time",
    "error_rate",
];

impl MetricsUpdate {
    /// Checks a body.
    ///
    /// # Errors
    /// Every fault found.
    pub fn check(value: &Value) -> Result<MetricsUpdate, Vec<Invalid>> {
        let mut fields = Fields::of(value)?;
        let update = MetricsUpdate {
            agent_id: fields.text_opt("agent_id", super::check::Text::identifier(3, 100)),
            success_rate: fields.float_opt("success_rate", 0.0, 1.0),
            avg_response_time: fields.float_opt("avg_response_time", 0.0, 3600.0),
            total_requests: fields.int_opt("total_requests", 0, i64::MAX),
            reputation_score: fields.float_opt("reputation_score", 0.0, 10.0),
            requests_processed: fields.int_opt("requests_processed", 0, i64::MAX),
            average_response_time: fields.float_opt("average_response_time", 0.0, 3600.0),
            error_rate: fields.float_opt("error_rate", 0.0, 1.0),
            custom: check_custom(&mut fields),
        };
        fields.done(update)
    }
}

fn check_custom(fields: &mut Fields<'_>) -> Map<String, Value> {
    let object = fields.object();
    let mut custom = Map::new();
    for (name, value) in object.iter().filter(|(name, _)| !KNOWN.contains(&name.as_str())) {
        let long = |text: &str| text.chars().count() > LONGEST_CUSTOM;
        let why = if name.chars().count() > 100 {
            "has a name of more than 100 characters; shorten it"
        } else if value.as_str().is_some_and(long) {
            "may have at most 1000 characters; shorten it"
        } else if value.is_array() || value.is_object() {
            let size = serde_json::to_string(value).map_or(usize::MAX, |text| text.len());
            if size <= 4096 && is_shallow(value, MOST_DEPTH) {
                custom.insert(name.clone(), value.clone());
                continue;
            }
            "may have at most 4096 bytes of JSON, nested at most 16 deep; send less"
        } else {
            custom.insert(name.clone(), value.clone());
            continue;
        };
        fields.fault(Invalid {
            loc: vec![Loc::Key(shown(name).into())],
            kind: "value_error".into(),
            message: format!("{} {why}", shown(name)),
            input: None,
        });
    }
    if custom.len() > MOST_CUSTOM {
        fields.fault(Invalid::whole(
            "value_error",
            format!("at most {MOST_CUSTOM} members of your own are kept, and there are {}; send fewer", custom.len()),
        ));
        custom.clear();
    }
    custom
}
