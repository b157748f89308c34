//! Errors as every language sees them.

use arcp::{Error, ErrorCode, ProtocolError, RawJson};
use serde::{Deserialize, Serialize};

/// What sort of failure it is: the peer's, or one on this side of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum ErrorKind {
    /// A protocol error with one of the fifteen codes, or a foreign code.
    Protocol = 1,
    /// Closed on this side, or ended with its session.
    Closed = 2,
    /// A bounded wait ran out.
    Timeout = 3,
    /// No connection, or it was lost.
    Transport = 4,
    /// An argument was refused before anything was sent.
    Argument = 5,
    /// The process was forked after the core was started (D-13).
    Forked = 6,
    /// A registry refused, or could not be reached. `code` is the slug of its problem document or empty, and `details` says
    /// whose error it is and of what kind.
    Registry = 7,
}

/// An error that crosses into another language whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorInfo {
    /// What sort it is.
    pub kind: ErrorKind,
    /// The protocol's code; empty for a local failure.
    pub code: String,
    /// A sentence for people.
    pub message: String,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// JSON text of an object, or `None`.
    pub details: Option<String>,
}

impl ErrorInfo {
    /// A failure on this side of the wire.
    pub fn local(kind: ErrorKind, message: impl Into<String>) -> Self {
        ErrorInfo { kind, code: String::new(), message: message.into(), retryable: false, details: None }
    }

    /// An argument that was refused.
    pub fn argument(message: impl Into<String>) -> Self {
        ErrorInfo::local(ErrorKind::Argument, message)
    }

    /// The error an agent or verifier of the host reports. An unknown code keeps its text.
    pub fn into_protocol(self) -> ProtocolError {
        let code = if self.code.is_empty() { ErrorCode::InternalError } else { ErrorCode::parse(&self.code) };
        let retryable = code.pinned_retryable().unwrap_or(self.retryable);
        let message = if self.message.is_empty() { code.as_str().to_owned() } else { self.message };
        let details = self
            .details
            .and_then(|text| RawJson::parse(&text).ok())
            .filter(|details| details.get().trim_start().starts_with('{'));
        ProtocolError { code, message, retryable, details }
    }
}

/// Reads what a host wrote as JSON; an error names the member.
pub(crate) fn read<'a, T: Deserialize<'a>>(what: &str, text: &'a str) -> Result<T, ErrorInfo> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let fault = match serde_path_to_error::deserialize(&mut deserializer) {
        Ok(value) => match deserializer.end() {
            Ok(()) => return Ok(value),
            Err(error) => error.to_string(),
        },
        Err(error) if error.path().to_string() == "." => error.into_inner().to_string(),
        Err(error) => error.to_string(),
    };
    Err(ErrorInfo::argument(format!("{what}: {fault}")))
}

impl From<ProtocolError> for ErrorInfo {
    fn from(error: ProtocolError) -> Self {
        ErrorInfo {
            kind: ErrorKind::Protocol,
            code: error.code.as_str().to_owned(),
            message: error.message,
            retryable: error.retryable,
            details: error.details.map(|details| details.get().to_owned()),
        }
    }
}

impl From<Error> for ErrorInfo {
    fn from(error: Error) -> Self {
        match error {
            Error::Protocol(error) => error.into(),
            Error::Closed(message) => ErrorInfo::local(ErrorKind::Closed, message),
            Error::Timeout(message) => ErrorInfo::local(ErrorKind::Timeout, message),
            Error::Transport(message) => ErrorInfo::local(ErrorKind::Transport, message),
        }
    }
}

impl From<arcp::TransportError> for ErrorInfo {
    fn from(error: arcp::TransportError) -> Self {
        Error::from(error).into()
    }
}

impl From<arcp::StoreError> for ErrorInfo {
    fn from(error: arcp::StoreError) -> Self {
        ErrorInfo::argument(error.0)
    }
}

impl std::fmt::Display for ErrorInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.code.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.code, self.message) }
    }
}

impl std::error::Error for ErrorInfo {}
