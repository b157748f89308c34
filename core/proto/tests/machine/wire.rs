//! The cases of `tests/corpus/wire` that only a machine can judge, played from their own files.

use serde_json::{Map, Value, json};

use crate::Result;
use crate::corpus::{cases, judge};
use crate::world::World;

const AGENTS: &[&str] = &["echo@1.0.0", "code-refactor@2.0.0"];

#[test]
fn messages_only_a_machine_refuses() {
    let all = cases("wire/envelopes-invalid.json").into_iter().filter(|case| case.get("needs").is_some());
    judge(all.map(|case| (case["id"].as_str().unwrap().to_owned(), refused(&case))));
}

fn refused(case: &Value) -> Result<()> {
    let mut world = World::new(&json!({"agents": AGENTS, "tokens": {"tok-demo": "demo"}}))?;
    let given = &case["given"];
    let mut message = given["message"].clone();
    match given["phase"].as_str() {
        Some("handshake") => world.connect("A")?,
        Some("established") => {
            let welcome = world.open("A", "tok-demo", None)?;
            // The file writes its own session's id; that of another session stays another's.
            if message["session_id"] == "sess_01JX2Q50000000000000000001" {
                message["session_id"] = welcome["session_id"].clone();
            }
        }
        phase => return Err(format!("no phase {phase:?}")),
    }
    let id = world.send("A", &message)?;
    let (answer, text) = world.take("A")?;
    if answer["type"] != "session.error"
        || answer["payload"]["code"] != case["expect"]["code"]
        || answer["payload"]["request_id"] != id
    {
        return Err(format!("answered by {text}"));
    }
    if json!(world.peer("A")?.closing) != case["expect"]["closes"] {
        return Err("the connection is closed, or open, against the case".into());
    }
    if world.machine.live_jobs() != 0 {
        return Err("something was kept of it".into());
    }
    world.wind_down()
}

#[test]
fn features_that_were_not_negotiated() {
    // Every row of features.json is shown by a machine case of its own; here the negotiation itself.
    let all = cases("wire/features.json").into_iter().filter(|case| case["given"].get("client").is_some());
    judge(all.map(|case| (case["id"].as_str().unwrap().to_owned(), negotiated(&case))));
}

fn negotiated(case: &Value) -> Result<()> {
    let offered = case["given"]["runtime"].as_array().cloned().unwrap_or_default();
    let mut world = World::new(&json!({"config": {"features": offered}}))?;
    let mut capabilities = Map::new();
    if !case["given"]["client"].is_null() {
        capabilities.insert("features".into(), case["given"]["client"].clone());
    }
    world.connect("A")?;
    let payload = json!({
        "client": {"name": "corpus", "version": "1.0"},
        "auth": {"scheme": "bearer", "token": "tok-alice"},
        "capabilities": capabilities,
    });
    world.send("A", &json!({"type": "session.hello", "payload": payload}))?;
    let (welcome, text) = world.take("A")?;
    if welcome["payload"]["capabilities"]["features"] != case["expect"]["negotiated"] {
        return Err(format!("welcomed by {text}"));
    }
    world.wind_down()
}
