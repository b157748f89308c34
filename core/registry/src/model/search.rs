//! A question to the registry, and its answers (REG-075, REG-076).

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::check::{Fields, Invalid, Text};
use super::metrics::AgentMetrics;

/// What a search takes when the request does not say (REG-505).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SearchDefaults {
    /// Answers at most; 10.
    pub top_k: usize,
    /// The least similarity; 0.5.
    pub min_similarity: f64,
}

impl Default for SearchDefaults {
    fn default() -> Self {
        SearchDefaults { top_k: 10, min_similarity: 0.5 }
    }
}

/// SearchRequest (REG-075).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SearchRequest {
    /// 2 to 1000 characters.
    pub query: String,
    /// 1 to 100.
    pub top_k: usize,
    /// 0 to 1.
    pub min_similarity: f64,
    /// Agents must have all of these; 1 to 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Vec<String>>,
    /// Whether reputation counts (REG-198).
    #[serde(default)]
    pub weighted: bool,
    /// Agents must be of this type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_type: Option<String>,
}

impl SearchRequest {
    /// Checks a body with the usual defaults.
    ///
    /// # Errors
    /// Every fault found.
    pub fn check(value: &Value) -> Result<SearchRequest, Vec<Invalid>> {
        SearchRequest::check_with(value, SearchDefaults::default())
    }

    /// Checks a body, or an object made of the query string of `GET /agents/search`.
    ///
    /// # Errors
    /// Every fault found.
    pub fn check_with(value: &Value, defaults: SearchDefaults) -> Result<SearchRequest, Vec<Invalid>> {
        let mut fields = Fields::of(value)?;
        let request = SearchRequest {
            query: fields.text("query", Text::of(2, 1000)),
            top_k: fields
                .int_opt("top_k", 1, 100)
                .map_or(defaults.top_k, |k| usize::try_from(k).unwrap_or(defaults.top_k)),
            min_similarity: fields.float_opt("min_similarity", 0.0, 1.0).unwrap_or(defaults.min_similarity),
            capabilities: fields.present("capabilities").map(|_| fields.capabilities("capabilities", 20)),
            weighted: fields.bool_opt("weighted").unwrap_or(false),
            agent_type: fields.text_opt("agent_type", Text::identifier(2, 50)),
        };
        fields.done(request)
    }
}

/// SearchResponse (REG-076): one answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SearchResponse {
    /// The agent's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its endpoint.
    pub url: String,
    /// What it can do.
    pub capabilities: Vec<String>,
    /// Its version.
    pub version: String,
    /// Whose it is.
    pub owner: String,
    /// 0 to 1, rounded to 4 digits.
    pub similarity: Option<f64>,
    /// Only when the search was weighted.
    pub metrics: Option<AgentMetrics>,
}
