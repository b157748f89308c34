//! What a call of the client can fail with.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

/// Whose error it is: the class a method raises (table A.4 of the contract).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Area {
    /// Logging in, and tokens.
    Authentication,
    /// Registering an agent.
    Registration,
    /// Searching.
    Search,
    /// Everything else.
    #[default]
    General,
}

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// 401: no token, or one that does not count, and no credentials to get another with.
    Authentication,
    /// 403.
    Forbidden,
    /// 404.
    NotFound,
    /// 429, and waiting did not help.
    RateLimit,
    /// 5xx.
    Server,
    /// Another 4xx, or a redirect.
    Request,
    /// No connection, or it was lost.
    Connection,
    /// No answer within the time-out.
    Timeout,
    /// An argument was refused before anything was sent.
    Invalid,
    /// The registry's answer cannot be read.
    Answer,
}

/// Why a call failed. Holds no secret.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{prefix}{message}")]
pub struct RegistryError {
    /// Whose error it is.
    pub area: Area,
    /// What went wrong.
    pub kind: FailureKind,
    /// The start of the text, such as `Agent search failed: ` (table A.4); empty for a plain request.
    pub prefix: String,
    /// The rest of it (REG-021).
    pub message: String,
    /// The HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// The slug of the problem document, such as `agent-not-found`; else empty.
    pub code: String,
    /// How long to wait, by a 429 or 503.
    pub retry_after: Option<Duration>,
    /// The problem document or other JSON object the registry answered with.
    pub problem: Option<Box<Value>>,
    /// What was refused, entry by entry: `loc`, `type`, `msg` and, short, `input`.
    pub errors: Option<Box<Value>>,
}

impl RegistryError {
    /// A failure without an answer.
    pub(crate) fn new(kind: FailureKind, message: impl fmt::Display) -> Self {
        RegistryError {
            area: Area::General,
            kind,
            prefix: String::new(),
            message: message.to_string(),
            status: None,
            code: String::new(),
            retry_after: None,
            problem: None,
            errors: None,
        }
    }

    /// An argument that was refused.
    pub(crate) fn invalid(message: impl fmt::Display) -> Self {
        RegistryError::new(FailureKind::Invalid, message)
    }

    /// Says whose it is, unless that is said.
    pub(crate) fn within(mut self, area: Area, prefix: impl Into<String>) -> Self {
        if self.prefix.is_empty() {
            self.area = area;
            self.prefix = prefix.into();
        }
        self
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self.kind,
            FailureKind::RateLimit | FailureKind::Server | FailureKind::Connection | FailureKind::Timeout
        )
    }

    /// Whether what is missing is a right, not the thing asked for.
    pub fn is_refusal(&self) -> bool {
        matches!(self.kind, FailureKind::Authentication | FailureKind::Forbidden)
    }

    /// Everything but the text, as a JSON object for hosts.
    pub fn details(&self) -> Value {
        serde_json::json!({
            "area": self.area,
            "kind": self.kind,
            "status": self.status,
            "cause": self.message,
            "retry_after": self.retry_after.map(|wait| wait.as_secs_f64()),
            "problem": self.problem,
            "errors": self.errors,
        })
    }
}
