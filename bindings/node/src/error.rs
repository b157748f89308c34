//! Errors on their way into JavaScript and back.

use arcp_bridge::ErrorInfo;

/// Throws an error whole; JavaScript makes an `ARCPError` of it.
pub(crate) fn thrown<T>(outcome: Result<T, ErrorInfo>) -> napi::Result<T> {
    outcome.map_err(|error| napi::Error::from_reason(to_json(&error)))
}

pub(crate) fn to_json(error: &ErrorInfo) -> String {
    // An ErrorInfo is plain text and flags, which always serialise.
    serde_json::to_string(error).unwrap_or_default()
}

/// Reads what JavaScript reports about a failed agent or verifier.
pub(crate) fn from_json(text: &str) -> ErrorInfo {
    serde_json::from_str(text).unwrap_or_else(|error| ErrorInfo::argument(format!("the agent's error: {error}")))
}
