//! What must hold of every message a library emits, whatever the case is about.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::Result;
use crate::matcher::{is_id, is_time, is_trace_id};

/// Which side is being watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The messages come from a client.
    Client,
    /// The messages come from a runtime.
    Runtime,
}

/// Watches the messages of one connection in one direction.
#[derive(Debug)]
pub struct Witness {
    side: Side,
    ids: BTreeSet<String>,
    last_seq: u64,
}

impl Witness {
    /// Watches one side of a new connection.
    #[must_use]
    pub fn new(side: Side) -> Self {
        Self { side, ids: BTreeSet::new(), last_seq: 0 }
    }

    /// The numbers go on after this one: the session is resumed.
    pub fn resume_after(&mut self, last_event_seq: u64) {
        self.last_seq = last_event_seq;
    }

    /// Checks one message.
    ///
    /// # Errors
    /// Names the rule that is broken.
    pub fn check(&mut self, message: &Value) -> Result<()> {
        let kind = message["type"].as_str().unwrap_or_default();
        let broken = |rule: &str, what: &str| Err(format!("{rule}: {what} in {message}"));
        if message["arcp"] != "1.1" || kind.is_empty() || !message["payload"].is_object() {
            return broken("R-5.3", "arcp, type or payload is missing");
        }
        let id = message["id"].as_str().unwrap_or_default();
        if !is_id("msg_", id) {
            return broken("R-5.5", "the id is not msg_ and a ULID");
        }
        if !self.ids.insert(id.to_owned()) {
            return broken("R-5.5", "the id was used before");
        }
        // Before the welcome there is no session to name.
        let sessionless = kind == "session.hello" || kind == "session.error" && self.ids.len() == 1;
        if !sessionless && !message["session_id"].is_string() {
            return broken("R-5.9", "session_id is missing");
        }
        if self.side == Side::Runtime && kind == "session.welcome" {
            let id = message["session_id"].as_str().unwrap_or_default();
            if !is_id("sess_", id) {
                return broken("R-5.5", "session_id is not sess_ and a ULID");
            }
        }
        self.sequence(kind, message)?;
        times(message)?;
        if matches!(kind, "session.error" | "job.error") {
            let payload = &message["payload"];
            if !payload["retryable"].is_boolean() {
                return broken("R-12.2", "retryable is missing");
            }
            if payload["message"].as_str().is_none_or(str::is_empty) {
                return broken("R-12.1", "message is missing");
            }
        }
        if self.side == Side::Runtime && kind.starts_with("job.") {
            if !is_id("job_", message["job_id"].as_str().unwrap_or_default()) {
                return broken("R-5.5", "job_id is not job_ and a ULID");
            }
            if !is_trace_id(message["trace_id"].as_str().unwrap_or_default()) {
                return broken("R-11.3", "trace_id is missing or not 32 hex digits");
            }
        }
        Ok(())
    }

    fn sequence(&mut self, kind: &str, message: &Value) -> Result<()> {
        let numbered = self.side == Side::Runtime && matches!(kind, "job.event" | "job.result" | "job.error");
        if !numbered {
            return match message.get("event_seq") {
                None => Ok(()),
                Some(_) => Err(format!("R-6.4.8, R-6.5.13, R-6.6.15: {kind} has an event_seq: {message}")),
            };
        }
        let next = self.last_seq + 1;
        if message["event_seq"] != next {
            return Err(format!("R-8.3.1: expected event_seq {next} in {message}"));
        }
        self.last_seq = next;
        Ok(())
    }
}

/// Checks the times the sender itself made; `expires_at` is an echo of what the submitter wrote.
fn times(message: &Value) -> Result<()> {
    let made = ["accepted_at", "completed_at", "created_at", "sent_at", "received_at", "ts"];
    for name in made {
        if let Some(time) = message["payload"].get(name)
            && !time.as_str().is_some_and(is_time)
        {
            return Err(format!("R-5.13: {name} is not YYYY-MM-DDThh:mm:ss.sssZ in {message}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(id: &str, seq: u64) -> Value {
        json!({
            "arcp": "1.1", "id": id, "type": "job.event", "session_id": "sess_01JX3S00000000000000000001",
            "job_id": "job_01JX3J00000000000000000001", "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
            "event_seq": seq, "payload": {"kind": "log", "ts": "2026-05-13T19:30:03.000Z", "body": {}},
        })
    }

    #[test]
    fn a_good_stream_passes() {
        let mut witness = Witness::new(Side::Runtime);
        assert_eq!(witness.check(&event("msg_01JX3000000000000000000001", 1)), Ok(()));
        assert_eq!(witness.check(&event("msg_01JX3000000000000000000002", 2)), Ok(()));
    }

    #[test]
    fn every_fault_is_named() {
        let first = "msg_01JX3000000000000000000001";
        let faults: [(&str, &str, Value); 8] = [
            ("R-5.3", "/arcp", json!("1")),
            ("R-5.5", "/id", json!("x")),
            ("R-5.9", "/session_id", json!(null)),
            ("R-5.5", "/job_id", json!("job_1")),
            ("R-11.3", "/trace_id", json!(null)),
            ("R-8.3.1", "/event_seq", json!(2)),
            ("R-5.13", "/payload/ts", json!("2026-05-13T19:30:03Z")),
            ("R-5.3", "/payload", json!(1)),
        ];
        for (rule, place, value) in faults {
            let mut message = event(first, 1);
            *message.pointer_mut(place).unwrap() = value;
            let error = Witness::new(Side::Runtime).check(&message).unwrap_err();
            assert!(error.starts_with(rule), "{place}: {error}");
        }
        let mut witness = Witness::new(Side::Runtime);
        assert_eq!(witness.check(&event(first, 1)), Ok(()));
        assert!(witness.check(&event(first, 2)).unwrap_err().contains("used before"));
        assert!(witness.check(&event("msg_01JX3000000000000000000002", 3)).unwrap_err().starts_with("R-8.3.1"));
    }
}
