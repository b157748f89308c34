//! Problem documents: how every error of the HTTP interface is told (REG-100 to REG-102).

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;
use serde::{Deserialize, Serialize};

use crate::model::Invalid;

/// What `type` begins with.
pub const BASE: &str = "https://arcp.0x001.tech/docs/problems/";
/// The media type of a problem document.
pub const MEDIA_TYPE: &str = "application/problem+json";

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident => $slug:literal, $title:literal, $status:literal;)*) => {
        /// The kinds of problems (REG-100).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "each is its title")]
        pub enum Kind { $($name),* }

        impl Kind {
            /// All of them.
            pub const ALL: &'static [Kind] = &[$(Kind::$name),*];

            /// The last part of `type`.
            pub fn slug(self) -> &'static str {
                match self { $(Kind::$name => $slug),* }
            }

            /// The title.
            pub fn title(self) -> &'static str {
                match self { $(Kind::$name => $title),* }
            }

            /// The HTTP status.
            pub fn status(self) -> u16 {
                match self { $(Kind::$name => $status),* }
            }
        }
    };
}

kinds! {
    AgentNotFound => "agent-not-found", "Agent Not Found", 404;
    DuplicateAgent => "duplicate-agent", "Duplicate Agent", 409;
    AgentRegistrationFailed => "agent-registration-failed", "Agent Registration Failed", 400;
    AgentNotAvailable => "agent-not-available", "Agent Not Available", 404;
    AuthenticationFailed => "authentication-failed", "Authentication Failed", 401;
    TokenInvalid => "token-invalid", "Invalid or Expired Token", 401;
    SessionInvalid => "session-invalid", "Session Validation Failed", 401;
    SessionExpired => "session-expired", "Session Expired", 401;
    InsufficientPermissions => "insufficient-permissions", "Insufficient Permissions", 403;
    PinRequired => "pin-required", "PIN Required", 400;
    PinAlreadySet => "pin-already-set", "PIN Already Set", 400;
    PinNotSet => "pin-not-set", "PIN Not Set", 400;
    PinInvalidLength => "pin-invalid-length", "Invalid PIN Length", 400;
    PinIncorrect => "pin-incorrect", "Incorrect PIN", 401;
    ConfigurationError => "configuration-error", "Service Configuration Error", 500;
    VectorSearchUnavailable => "vector-search-unavailable", "Vector Search Unavailable", 500;
    OperationTimeout => "operation-timeout", "Operation Timeout", 504;
    ConnectionTimeout => "connection-timeout", "Connection Timeout", 504;
    EndpointUnreachable => "endpoint-unreachable", "Endpoint Unreachable", 502;
    ValidationFailed => "validation-failed", "Request Validation Failed", 422;
    InvalidInput => "invalid-input", "Invalid Input Data", 400;
    RequiredHeaderMissing => "required-header-missing", "Required Header Missing", 400;
    InvalidUrl => "invalid-url", "Invalid URL Format", 400;
    RateLimitExceeded => "rate-limit-exceeded", "Rate Limit Exceeded", 429;
    RequestTooLarge => "request-too-large", "Request Too Large", 413;
    HeadersTooLarge => "headers-too-large", "Request Headers Too Large", 413;
    InternalError => "internal-error", "Internal Server Error", 500;
    RequestError => "request-error", "Request Processing Error", 400;
    Forbidden => "forbidden", "Forbidden", 403;
    NotFound => "not-found", "Resource Not Found", 404;
}

/// A problem document. Reads what other servers send too; [`Problem::slug`] tells its kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    /// [`BASE`] and the slug.
    #[serde(rename = "type", default)]
    pub uri: String,
    /// The kind in words.
    #[serde(default)]
    pub title: Cow<'static, str>,
    /// The HTTP status.
    #[serde(default)]
    pub status: u16,
    /// What is wrong, and what to do about it.
    #[serde(default)]
    pub detail: String,
    /// The path of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// When, in UTC with microseconds.
    #[serde(default)]
    pub timestamp: String,
    /// The faults of an input, one by one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Invalid>,
    /// More members; all of them are text, but for what other servers send.
    #[serde(flatten)]
    pub extra: BTreeMap<String, serde_json::Value>,
}

impl Problem {
    /// A problem of this kind.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Problem {
        Problem {
            uri: format!("{BASE}{}", kind.slug()),
            title: Cow::Borrowed(kind.title()),
            status: kind.status(),
            detail: detail.into(),
            instance: None,
            timestamp: stamp(Timestamp::now()),
            errors: Vec::new(),
            extra: BTreeMap::new(),
        }
    }

    /// An input with faults: `detail` tells the first of them, `errors` and (as text, for older readers)
    /// `validation_errors` all.
    pub fn validation(errors: Vec<Invalid>) -> Problem {
        const TOLD: usize = 3;
        let mut detail = String::from("Input validation failed: ");
        let mut all = String::new();
        for (at, error) in errors.iter().enumerate() {
            let place = error.place();
            let told = if place.is_empty() { error.message.clone() } else { format!("{place}: {}", error.message) };
            if at < TOLD {
                detail.push_str(if at > 0 { "; " } else { "" });
                detail.push_str(&told);
            }
            all.push_str(if at > 0 { "; " } else { "" });
            all.push_str(&told);
        }
        if errors.len() > TOLD {
            detail.push_str(&format!("; and {} more", errors.len() - TOLD));
        }
        let mut problem = Problem::new(Kind::ValidationFailed, detail).with("validation_errors", all);
        problem.errors = errors;
        problem
    }

    /// The same with one more member.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Problem {
        self.extra.insert(name.to_owned(), serde_json::Value::String(value.into()));
        self
    }

    /// The same with the path of its request.
    #[must_use]
    pub fn at(mut self, path: impl Into<String>) -> Problem {
        self.instance = Some(path.into());
        self
    }

    /// The last part of `type`, such as `agent-not-found`.
    pub fn slug(&self) -> &str {
        self.uri.rsplit('/').next().unwrap_or_default()
    }

    /// The document as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// A time as problems tell it: UTC, microseconds, `Z`.
pub fn stamp(at: Timestamp) -> String {
    const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(6));
    PRINTER.timestamp_to_string(&at)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules: REG-100
    #[test]
    fn a_problem_has_the_members_of_the_contract() {
        let problem = Problem::new(Kind::AgentNotFound, "Agent <b> not found").with("agent_id", "<b>").at("/agents/x");
        let json: serde_json::Value = serde_json::from_slice(&problem.to_json()).unwrap();
        assert_eq!(json["type"], "https://arcp.0x001.tech/docs/problems/agent-not-found");
        assert_eq!(json["title"], "Agent Not Found");
        assert_eq!(json["status"], 404);
        assert_eq!(json["detail"], "Agent <b> not found");
        assert_eq!(json["instance"], "/agents/x");
        assert_eq!(json["agent_id"], "<b>");
        let stamp = json["timestamp"].as_str().unwrap();
        assert_eq!((stamp.len(), stamp.ends_with('Z')), ("2026-11-20T15:33:49.163071Z".len(), true), "{stamp}");
        assert_eq!(serde_json::from_value::<Problem>(json).unwrap(), problem);
    }

    /// Rules: REG-101
    #[test]
    fn the_faults_of_an_input_can_be_read() {
        let faults = crate::model::Registration::check(&serde_json::json!({"name": "x"})).unwrap_err();
        let problem = Problem::validation(faults.into_iter().map(|fault| fault.below("body")).collect());
        assert!(problem.detail.contains("body.agent_id: agent_id is missing"), "{}", problem.detail);
        let json: serde_json::Value = serde_json::from_slice(&problem.to_json()).unwrap();
        assert_eq!(json["errors"][1]["loc"], serde_json::json!(["body", "name"]));
        assert_eq!(json["errors"][1]["type"], "value_error");
        assert_eq!(json["errors"][1]["input"], "text of 1 characters");
        assert!(json["validation_errors"].as_str().unwrap().contains("public_key is missing"));
    }

    #[test]
    fn what_another_server_sends_can_be_read() {
        let problem: Problem = serde_json::from_str(r#"{"detail":"no","retry_after":3}"#).unwrap();
        assert_eq!((problem.detail.as_str(), problem.slug()), ("no", ""));
        assert_eq!(problem.extra["retry_after"], 3);
    }
}
