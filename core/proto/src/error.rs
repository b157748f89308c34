//! The error taxonomy (runtime-protocol section 12): fifteen codes, one shape.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::json::RawJson;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $retryable:literal;)*) => {
        /// An error code as it stands on the wire.
        ///
        /// A code this version does not know keeps its text in [`ErrorCode::Other`].
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $($(#[$doc])* $variant,)*
            /// A code outside the fifteen, for example an agent's own.
            Other(Box<str>),
        }

        impl ErrorCode {
            /// The fifteen codes of the protocol, in the order of the taxonomy.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$variant,)*];

            /// The text on the wire.
            pub fn as_str(&self) -> &str {
                match self {
                    $(ErrorCode::$variant => $text,)*
                    ErrorCode::Other(text) => text,
                }
            }

            /// The code with this text; `INTERNAL` is read as `INTERNAL_ERROR`.
            pub fn parse(text: &str) -> ErrorCode {
                match text {
                    $($text => ErrorCode::$variant,)*
                    "INTERNAL" => ErrorCode::InternalError,
                    other => ErrorCode::Other(other.into()),
                }
            }

            /// The `retryable` flag this code is sent with.
            pub fn default_retryable(&self) -> bool {
                match self {
                    $(ErrorCode::$variant => $retryable,)*
                    ErrorCode::Other(_) => false,
                }
            }
        }
    };
}

codes! {
    /// The lease, or the visibility policy, does not cover the operation.
    PermissionDenied = "PERMISSION_DENIED", false;
    /// A delegation asked for more than the parent lease holds.
    LeaseSubsetViolation = "LEASE_SUBSET_VIOLATION", false;
    /// No such job, or not one this principal may know of.
    JobNotFound = "JOB_NOT_FOUND", false;
    /// An idempotency key was used before with other parameters.
    DuplicateKey = "DUPLICATE_KEY", false;
    /// No agent of that name.
    AgentNotAvailable = "AGENT_NOT_AVAILABLE", false;
    /// The agent exists, but not in that version.
    AgentVersionNotAvailable = "AGENT_VERSION_NOT_AVAILABLE", false;
    /// The job was cancelled.
    Cancelled = "CANCELLED", false;
    /// The job ran longer than `max_runtime_sec`.
    Timeout = "TIMEOUT", true;
    /// The session can no longer be resumed.
    ResumeWindowExpired = "RESUME_WINDOW_EXPIRED", false;
    /// The peer was silent for two heartbeat intervals.
    HeartbeatLost = "HEARTBEAT_LOST", false;
    /// The lease ended.
    LeaseExpired = "LEASE_EXPIRED", false;
    /// A budget counter is used up.
    BudgetExhausted = "BUDGET_EXHAUSTED", false;
    /// The message breaks a rule of the protocol.
    InvalidRequest = "INVALID_REQUEST", false;
    /// The bearer token is missing, wrong or no longer valid.
    Unauthenticated = "UNAUTHENTICATED", false;
    /// The runtime or the agent failed.
    InternalError = "INTERNAL_ERROR", true;
}

impl ErrorCode {
    /// The flag the draft pins for this code, if it pins one.
    pub fn pinned_retryable(&self) -> Option<bool> {
        match self {
            ErrorCode::LeaseExpired | ErrorCode::BudgetExhausted => Some(false),
            ErrorCode::InternalError => Some(true),
            _ => None,
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A protocol error: what `session.error`, `job.error` and a refused `tool_result` carry.
#[derive(Clone, Debug, PartialEq, Serialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Error {
    /// Which of the fifteen, or the text of a foreign one.
    pub code: ErrorCode,
    /// A sentence for people; never empty, never a secret.
    pub message: String,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// Machine-readable particulars, a JSON object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<RawJson>,
}

impl Error {
    /// An error with the code's usual `retryable` flag and no details.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let retryable = code.default_retryable();
        Error { code, message: message.into(), retryable, details: None }
    }

    /// The same error with `details`, which must be a JSON object.
    #[must_use]
    pub fn with_details(mut self, details: RawJson) -> Self {
        self.details = Some(details);
        self
    }

    /// `INVALID_REQUEST` with this message.
    pub fn invalid(message: impl Into<String>) -> Self {
        Error::new(ErrorCode::InvalidRequest, message)
    }

    /// `INTERNAL_ERROR` with this message.
    pub fn internal(message: impl Into<String>) -> Self {
        Error::new(ErrorCode::InternalError, message)
    }
}
