//! What an agent registers with (REG-070).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::check::{Fields, Invalid, MOST_DEPTH, Text, check_members, is_shallow, shown};
use super::requirements::AgentRequirements;

/// AgentRegistration (REG-070): the body of `POST /agents/register`.
///
/// Serialises without what is not set, as clients send it (REG-026). Whether `agent_type` is allowed is for the service
/// to say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Registration {
    /// 3 to 100 characters, an identifier.
    pub agent_id: String,
    /// 2 to 32 characters.
    pub name: String,
    /// 2 to 50 characters, an identifier; stored as sent, compared without case.
    pub agent_type: String,
    /// An `http` or `https` address of at most 2048 characters.
    pub endpoint: String,
    /// 1 to 50 of 2 to 100 characters.
    pub capabilities: Vec<String>,
    /// 10 to 1000 characters.
    pub context_brief: String,
    /// `N.N.N` or `N.N.N-suffix`.
    pub version: String,
    /// 2 to 50 characters.
    pub owner: String,
    /// 32 to 1024 characters.
    pub public_key: String,
    /// 1 to 50 members: text of at most 1000 characters, numbers, truth values, lists.
    pub metadata: Map<String, Value>,
    /// `remote`, `local` or `hybrid`.
    pub communication_mode: String,
    /// At most 100 of at most 100 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub features: Option<Vec<String>>,
    /// 1 to 1 000 000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<i64>,
    /// At most 20 of 2 to 5 characters, lower case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language_support: Option<Vec<String>>,
    /// 1 to 10 000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<i64>,
    /// What it needs to run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requirements: Option<AgentRequirements>,
    /// At most 20 of at most 50 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_tags: Option<Vec<String>>,
    /// At most 5000 characters (REG-601).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ai_context: Option<String>,
}

impl Registration {
    /// Checks a body. Unknown members are ignored.
    ///
    /// # Errors
    /// Every fault found.
    pub fn check(value: &Value) -> Result<Registration, Vec<Invalid>> {
        let mut fields = Fields::of(value)?;
        let registration = Registration {
            agent_id: fields.text("agent_id", Text::identifier(3, 100)),
            name: fields.text("name", Text::of(2, 32)),
            agent_type: fields.text("agent_type", Text::identifier(2, 50)),
            endpoint: fields.text("endpoint", Text::endpoint()),
            capabilities: check_capabilities(&mut fields),
            context_brief: fields.text("context_brief", Text::of(10, 1000)),
            version: fields.text(
                "version",
                Text::of(1, 64).form(is_version, "must be like 1.0.0 or 1.0.0-beta1, the suffix of letters and digits"),
            ),
            owner: fields.text("owner", Text::of(2, 50)),
            public_key: fields.text(
                "public_key",
                Text::of(32, 1024).form(is_public_key, "may hold letters, digits, + / = - _ and blanks only"),
            ),
            metadata: check_metadata(&mut fields),
            communication_mode: check_mode(&mut fields),
            features: fields.kept_texts("features", 100, 100),
            max_tokens: fields.int_opt("max_tokens", 1, 1_000_000),
            language_support: check_languages(&mut fields),
            rate_limit: fields.int_opt("rate_limit", 1, 10_000),
            requirements: check_requirements(&mut fields),
            policy_tags: fields.kept_texts("policy_tags", 20, 50),
            ai_context: fields.text_opt("ai_context", Text::of(0, 5000)).filter(|text| !text.is_empty()),
        };
        fields.done(registration)
    }
}

fn check_capabilities(fields: &mut Fields<'_>) -> Vec<String> {
    if fields.object().contains_key("capabilities") {
        if fields.present("capabilities").is_none() {
            let fault = "capabilities must be a list of 1 to 50 texts";
            fields.fault(Invalid::new("capabilities", "list_type", fault).input(&Value::Null));
            return Vec::new();
        }
        return fields.capabilities("capabilities", 50);
    }
    fields.fault(Invalid::missing("capabilities", "a list of 1 to 50 texts such as [\"text-analysis\"]"));
    Vec::new()
}

fn check_metadata(fields: &mut Fields<'_>) -> Map<String, Value> {
    let wanted = "an object of 1 to 50 members such as {\"framework\": \"fastapi\"}";
    match fields.object().get("metadata") {
        None => fields.fault(Invalid::missing("metadata", wanted)),
        Some(Value::Object(object)) if object.is_empty() => {
            fields.fault(Invalid::new("metadata", "value_error", format!("metadata cannot be empty; send {wanted}")));
        }
        Some(Value::Object(object)) => {
            let faults = check_members("metadata", object, 50, |value| match value {
                Value::String(text) if text.chars().count() > 1000 => {
                    Some("may have at most 1000 characters; shorten it")
                }
                Value::Array(list) if list.len() > 1000 || !is_shallow(value, MOST_DEPTH) => {
                    Some("may have at most 1000 entries, nested at most 16 deep; send less")
                }
                Value::String(_) | Value::Number(_) | Value::Bool(_) | Value::Array(_) => None,
                Value::Null | Value::Object(_) => {
                    Some("must be text, a number, true or false, or a list; null and objects are not kept")
                }
            });
            if faults.is_empty() {
                return object.clone();
            }
            for fault in faults {
                fields.fault(fault);
            }
        }
        Some(other) => {
            fields.fault(Invalid::new("metadata", "dict_type", format!("metadata must be {wanted}")).input(other));
        }
    }
    Map::new()
}

fn check_mode(fields: &mut Fields<'_>) -> String {
    let mode = fields.text("communication_mode", Text::of(1, 64)).to_lowercase();
    if !mode.is_empty() && !matches!(mode.as_str(), "remote" | "local" | "hybrid") {
        let fault = format!("communication_mode must be remote, local or hybrid, and is {:?}", shown(&mode));
        fields.fault(Invalid::new("communication_mode", "value_error", fault));
    }
    mode
}

fn check_languages(fields: &mut Fields<'_>) -> Option<Vec<String>> {
    let texts = fields.texts_opt("language_support", 20)?;
    let kept = texts.into_iter().map(str::trim).filter(|text| (2..=5).contains(&text.chars().count()));
    Some(kept.map(str::to_lowercase).collect::<Vec<_>>()).filter(|kept| !kept.is_empty())
}

fn check_requirements(fields: &mut Fields<'_>) -> Option<AgentRequirements> {
    let value = fields.present("requirements")?;
    match AgentRequirements::check_opt(value) {
        Ok(requirements) => requirements,
        Err(faults) => {
            fields.faults_below("requirements", faults);
            None
        }
    }
}

fn is_version(text: &str) -> bool {
    let (number, suffix) = match text.split_once('-') {
        Some((number, suffix)) => (number, Some(suffix)),
        None => (text, None),
    };
    let mut parts = number.split('.');
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    (0..3).all(|_| parts.next().is_some_and(digits))
        && parts.next().is_none()
        && suffix.is_none_or(|suffix| !suffix.is_empty() && suffix.bytes().all(|b| b.is_ascii_alphanumeric()))
}

fn is_public_key(text: &str) -> bool {
    text.chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=' | '-' | '_') || c.is_ascii_whitespace())
}
