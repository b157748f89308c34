//! What a client's text says, read once for all three sockets.

use std::time::Duration;

use serde_json::{Map, Value};

/// Time, twice: what intervals are measured by, and what is shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// Since the server's start; never goes back.
    pub(crate) mono: Duration,
    /// Unix seconds with microseconds, by the wall clock.
    pub(crate) unix: f64,
}

/// A text message.
#[derive(Debug)]
pub(super) enum Said {
    /// The bare word `ping`, in any case, with blanks around it (REG-314).
    Ping,
    /// The bare word `pong`.
    Pong,
    /// A JSON object.
    Object(Map<String, Value>),
    /// JSON of another shape.
    Other,
    /// No JSON.
    NotJson,
}

pub(super) fn read(text: &str) -> Said {
    let bare = text.trim();
    if bare.eq_ignore_ascii_case("ping") {
        return Said::Ping;
    }
    if bare.eq_ignore_ascii_case("pong") {
        return Said::Pong;
    }
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Said::Object(object),
        Ok(_) => Said::Other,
        Err(_) => Said::NotJson,
    }
}

/// `{"type":"pong","timestamp":...}` (REG-315).
pub(super) fn pong(now: Now) -> String {
    format!(r#"{{"type":"pong","timestamp":{}}}"#, now.unix)
}

/// `{"type":...,"message":...}`.
pub(super) fn typed(kind: &str, message: &str) -> String {
    format!(r#"{{"type":"{kind}","message":{}}}"#, Value::from(message))
}

/// The wall clock as messages show it: seconds since 1970 with microseconds.
pub(super) fn unix_now() -> f64 {
    jiff::Timestamp::now().as_microsecond() as f64 / 1e6
}
