//! Cursors of listings: the intact one goes on where its page ended, any other text is refused.

use arcp_proto::feature::Feature;
use arcp_proto::machine::RuntimeMachine;
use arcp_proto::machine::runtime::{ConnKey, RuntimeConfig, RuntimeEvent};
use arcp_proto::message::PeerInfo;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::codec::{damage, damaged};
use crate::machine::{Seeded, start};
use crate::runner::run;

/// A runtime with one connection per principal.
struct Runtime {
    machine: RuntimeMachine,
    conns: Vec<ConnKey>,
    sent: u64,
}

impl Runtime {
    fn new(seed: u64, jobs: usize) -> Result<Runtime, String> {
        let mut config = RuntimeConfig::new(PeerInfo { name: "fuzz".into(), version: "1".into() });
        config.features = Feature::ALL.into_iter().map(|feature| feature.as_str().to_owned()).collect();
        let mut machine = RuntimeMachine::new(config, Box::new(Seeded(seed)));
        machine.register_agent("echo", None).map_err(|error| error.message)?;
        let mut runtime = Runtime { machine, conns: Vec::new(), sent: 0 };
        for principal in ["alice", "bob"] {
            let conn = runtime.machine.connected(start());
            runtime.conns.push(conn);
            let hello = json!({
                "client": {"name": "fuzz", "version": "1"}, "auth": {"scheme": "bearer", "token": principal},
                "capabilities": {"encodings": ["json"], "features": ["list_jobs"]},
            });
            runtime.ask(runtime.conns.len() - 1, "session.hello", &hello)?;
            for _ in 0..jobs {
                runtime.ask(runtime.conns.len() - 1, "job.submit", &json!({"agent": "echo"}))?;
            }
        }
        Ok(runtime)
    }

    /// Sends a request and returns the frame that answers it.
    fn ask(&mut self, place: usize, kind: &str, payload: &Value) -> Result<Value, String> {
        let conn = self.conns[place];
        self.sent += 1;
        let message = json!({"arcp": "1.1", "id": format!("m{}", self.sent), "type": kind, "payload": payload});
        self.machine.handle_frame(start(), conn, message.to_string().as_bytes());
        while let Some(event) = self.machine.poll_event() {
            if let RuntimeEvent::Verify { conn, token } = event {
                self.machine.handle_verified(start(), conn, Ok(token.0.into()));
            }
        }
        let mut frames = Vec::new();
        self.machine.poll_transmit(start(), conn, usize::MAX, &mut frames);
        let mut bytes = Vec::new();
        frames.last().ok_or_else(|| format!("{kind} is not answered"))?.write(&mut bytes);
        serde_json::from_slice(&bytes).map_err(|error| error.to_string())
    }

    fn list(&mut self, place: usize, filter: &Value, limit: usize, cursor: &str) -> Result<Value, String> {
        let answer =
            self.ask(place, "session.list_jobs", &json!({"filter": filter, "limit": limit, "cursor": cursor}))?;
        match answer["payload"]["code"].as_str() {
            None if answer["type"] == "session.jobs" => Ok(answer["payload"].clone()),
            Some(code) => Err(code.to_owned()),
            None => Err(format!("answered by {answer}")),
        }
    }

    fn refuses(&mut self, place: usize, filter: &Value, cursor: &str, what: &str) -> Result<(), String> {
        match self.list(place, filter, 10, cursor) {
            Err(code) if code == "INVALID_REQUEST" => Ok(()),
            other => Err(format!("{what} {cursor:?}: {other:?}")),
        }
    }
}

#[test]
fn only_the_cursor_of_a_page_goes_on() {
    let strategy = (2..6_usize, 1..5_usize, any::<u64>(), damage(), any::<String>(), "[A-Za-z0-9_-]{0,120}");
    run("cursor_pages", strategy, |(jobs, limit, seed, damage, text, plain)| {
        let limit = limit.min(jobs - 1);
        let mut ours = Runtime::new(seed, jobs)?;
        let mut theirs = Runtime::new(seed.wrapping_add(1), jobs)?;
        let filter = json!({"status": ["running"]});
        let first = ours.ask(0, "session.list_jobs", &json!({"filter": filter, "limit": limit}))?["payload"].clone();
        let cursor = first["next_cursor"].as_str().ok_or_else(|| format!("no cursor in {first}"))?.to_owned();
        let before = first["jobs"].as_array().map_or(0, Vec::len);
        let rest = ours.list(0, &filter, 100, &cursor)?;
        let after = rest["jobs"].as_array().map_or(0, Vec::len);
        if before != limit || before + after != jobs || rest["next_cursor"] != Value::Null {
            return Err(format!("{jobs} jobs in pages of {before} and {after}"));
        }
        let bytes = URL_SAFE_NO_PAD.decode(&cursor).map_err(|error| error.to_string())?;
        let flipped = damaged(&cursor, &damage);
        // Lossy damage may leave it whole; then it is the cursor.
        let flipped = String::from_utf8_lossy(&flipped).into_owned();
        for other in [flipped, text, plain] {
            if other != cursor {
                ours.refuses(0, &filter, &other, "damaged")?;
            }
        }
        for length in 0..bytes.len() {
            ours.refuses(0, &filter, &URL_SAFE_NO_PAD.encode(&bytes[..length]), "cut short")?;
        }
        ours.refuses(1, &filter, &cursor, "of another principal")?;
        ours.refuses(0, &json!({"status": ["running", "pending"]}), &cursor, "of another filter")?;
        theirs.refuses(0, &filter, &cursor, "of another runtime")
    });
}
