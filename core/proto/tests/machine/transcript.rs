//! The transcripts of `tests/corpus/wire/transcripts.json`, played as the runtime and as the client.
//!
//! What one side writes by itself is driven out of it: an event the transcript shows is emitted unless the machine has
//! sent it already, a ping is waited for.

use std::collections::BTreeMap;
use std::time::Duration;

use arcp_proto::json::RawJson;
use arcp_proto::machine::job::Outcome;
use arcp_proto::message::{JobFilter, ListJobs, Resume};
use arcp_proto::time::Timestamp;
use serde_json::{Map, Value, json};

use crate::Result;
use crate::client::{App, submit, subscribe};
use crate::corpus::{cases, judge};
use crate::matcher::{Scope, matches, resolve};
use crate::world::{World, texts};

fn transcripts() -> Vec<Value> {
    cases("wire/transcripts.json")
}

#[test]
fn as_the_runtime() {
    judge(transcripts().iter().map(|case| (case["id"].as_str().unwrap().to_owned(), as_runtime(case))));
}

#[test]
fn as_the_client() {
    judge(transcripts().iter().map(|case| (case["id"].as_str().unwrap().to_owned(), as_client(case))));
}

/// The transcript's matchers in the harness' language.
fn expected(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            if let Some(name) = members.get("$is") {
                return json!({ "$ref": name });
            }
            if let Some(form) = members.get("$any") {
                let form = if form == "nonce" { json!("text") } else { form.clone() };
                let mut matcher = Map::from_iter([("$any".to_owned(), form)]);
                if let Some(name) = members.get("as") {
                    matcher.insert("$bind".into(), name.clone());
                }
                return Value::Object(matcher);
            }
            Value::Object(members.iter().map(|(name, value)| (name.clone(), expected(value))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(expected).collect()),
        other => other.clone(),
    }
}

/// What the sender of a message writes: its own values, and those that came before.
fn written(value: &Value, scope: &Scope) -> Result<Value> {
    match value {
        Value::Object(members) => {
            if let Some(name) = members.get("$is") {
                return resolve(&json!({ "$ref": name }), scope);
            }
            if let Some(like) = members.get("like") {
                return Ok(like.clone());
            }
            let written: Result<Map<_, _>> =
                members.iter().map(|(name, value)| Ok((name.clone(), written(value, scope)?))).collect();
            written.map(Value::Object)
        }
        Value::Array(items) => items.iter().map(|item| written(item, scope)).collect::<Result<_>>().map(Value::Array),
        other => Ok(other.clone()),
    }
}

/// Checks the envelope, then the payload, which may name what the envelope binds.
fn check(expected: &Value, frame: &Value, scope: &mut Scope) -> Result<()> {
    let mut envelope = expected.clone();
    envelope.as_object_mut().and_then(|members| members.remove("payload"));
    matches(&envelope, frame, scope)?;
    matches(&expected["payload"], &frame["payload"], scope)
}

/// Names what a sender's own values are called.
fn bind(value: &Value, scope: &mut Scope) {
    match value {
        Value::Object(members) => {
            if let (Some(name), Some(like)) = (members.get("as").and_then(Value::as_str), members.get("like")) {
                scope.insert(name.to_owned(), like.clone());
            }
            members.values().for_each(|member| bind(member, scope));
        }
        Value::Array(items) => items.iter().for_each(|item| bind(item, scope)),
        _ => {}
    }
}

/// When the transcript says a runtime's message was made.
fn time_of(payload: &Value) -> Option<Timestamp> {
    let like = ["ts", "accepted_at", "completed_at", "received_at"].iter().find_map(|name| payload.get(name));
    like.and_then(|time| time["like"].as_str()).and_then(Timestamp::parse)
}

fn until(now: Timestamp, then: Option<Timestamp>) -> Duration {
    Duration::from_millis(then.map_or(0, |then| then.0.saturating_sub(now.0)).max(0).unsigned_abs())
}

// ---- as the runtime --------------------------------------------------------------------------------------------

fn as_runtime(case: &Value) -> Result<()> {
    let features: Vec<&str> = arcp_proto::feature::CLIENT_DEFAULT.iter().map(|feature| feature.as_str()).collect();
    let mut world = World::new(&json!({
        "config": {"features": features},
        "agents": ["echo@1.0.0", "indexer@1.0.0", "web-research@1.0.0", "web-research@1.1.0"],
    }))?;
    world.machine.set_default_agent_version("web-research", "1.1.0").map_err(|error| error.message)?;
    let mut scope = Scope::new();
    crate::step::each(case, |step| {
        let on = step["connection"].as_str().unwrap_or("A");
        let Some(message) = step.get("message") else {
            if step["breaks"] == true {
                world.drop_peer(on)?;
            }
            // What the agent makes while nobody sees it.
            let unseen = step.get("makes");
            return unseen.map_or(Ok(()), |made| bring_about(&mut world, &expected(made), made, &scope));
        };
        if step["from"] == "client" {
            if message["type"] == "session.hello" {
                world.connect(on)?;
            }
            bind(message, &mut scope);
            let message = written(message, &scope)?;
            return world.send(on, &message).map(|_| ());
        }
        let expected = expected(message);
        if world.peer(on)?.inbox.is_empty() {
            bring_about(&mut world, &expected, message, &scope)?;
        }
        let (frame, text) = world.take(on)?;
        check(&expected, &frame, &mut scope).map_err(|error| format!("{error} in {text}"))
    })?;
    while world.asked(|_| Some(())).is_some() {}
    world.wind_down()
}

/// Makes the agent, or time, do what the runtime then tells.
fn bring_about(world: &mut World, expected: &Value, message: &Value, scope: &Scope) -> Result<()> {
    if expected["type"] == "session.ping" {
        let idle = world.machine.poll_timeout().ok_or("nothing is waited for")?;
        return world.pass(idle.saturating_sub(world.clock.0.mono));
    }
    // A client that is alive says so; the transcripts leave that out.
    let mut left = until(world.clock.0.wall, time_of(&message["payload"]));
    while !left.is_zero() {
        let part = left.min(Duration::from_secs(10));
        world.pass(part)?;
        left -= part;
        let names: Vec<String> = world.peers.keys().cloned().collect();
        for name in names {
            world.send(&name, &json!({"type": "session.pong", "payload": {"ping_nonce": "x"}}))?;
            world.peer(&name)?.inbox.retain(|(frame, _)| frame["type"] != "session.ping");
        }
    }
    let job_id = resolve(&expected["job_id"], scope)?;
    let job = world.job(job_id.as_str().unwrap_or_default())?;
    let payload = &expected["payload"];
    let raw = |value: &Value| RawJson::parse(&value.to_string()).map_err(|error| error.message);
    match expected["type"].as_str() {
        // What the agent is refused is told by the machine; the transcript shows it next.
        Some("job.event") => {
            // What the agent itself writes, such as the id of its result, is its own to choose.
            let mut own = scope.clone();
            bind(&message["payload"]["body"], &mut own);
            let body = written(&message["payload"]["body"], &own)?;
            world.emit(job, payload["kind"].as_str().unwrap_or_default(), &raw(&body)?).map(drop)
        }
        Some("job.result") if payload.get("result_id").is_some() => {
            world.close_result(job, payload["summary"].as_str())?.map_err(|error| error.message)?;
            world.finish(job, Outcome::Success(RawJson::null()))
        }
        Some("job.result") => world.finish(job, Outcome::Success(raw(&payload["result"])?)),
        Some("job.error") => world.finish(job, Outcome::Cancelled),
        other => Err(format!("{other:?} does not come by itself")),
    }
}

// ---- as the client ---------------------------------------------------------------------------------------------

fn as_client(case: &Value) -> Result<()> {
    let mut apps: BTreeMap<String, App> = BTreeMap::new();
    let mut scope = Scope::new();
    crate::step::each(case, |step| {
        let Some(message) = step.get("message") else { return Ok(()) };
        let on = step["connection"].as_str().unwrap_or("A").to_owned();
        if step["from"] == "runtime" {
            bind(message, &mut scope);
            let message = written(message, &scope)?;
            apps.get_mut(&on).ok_or("nobody is connected")?.receive(&message.to_string());
            return Ok(());
        }
        let expected = expected(message);
        if expected["type"] == "session.hello" {
            let features = &expected["payload"]["capabilities"]["features"];
            let mut app = App::new(&json!({"config": {"features": features, "close_style": "close"}}))?;
            if let Some(resume) = expected["payload"].get("resume") {
                let resume = resolve(resume, &scope)?;
                let text = |name: &str| resume[name].as_str().unwrap_or_default().to_owned();
                app.machine.resume(&Resume {
                    session_id: text("session_id"),
                    resume_token: text("resume_token"),
                    last_event_seq: resume["last_event_seq"].as_u64().unwrap_or_default(),
                });
            }
            apps.insert(on.clone(), app);
        }
        let app = apps.get_mut(&on).ok_or("nobody is connected")?;
        if app.frames.is_empty() {
            ask(app, &expected, &scope)?;
        }
        let text = app.frames.pop_front().ok_or("the client sent nothing")?;
        let mut frame: Value = serde_json::from_str(&text).map_err(|e| format!("{e} in {text}"))?;
        // Who the client is, and a trace it was not given, are its own affair.
        frame["payload"]["client"] = expected["payload"]["client"].clone();
        // An optional member may be null or absent.
        for (name, _) in expected["payload"].as_object().into_iter().flatten().filter(|(_, value)| value.is_null()) {
            frame["payload"].as_object_mut().map(|payload| payload.entry(name).or_insert(Value::Null));
        }
        check(&expected, &frame, &mut scope).map_err(|error| format!("{error} in {text}"))
    })?;
    match apps.values().find_map(|app| app.frames.front()) {
        Some(text) => Err(format!("nobody expected {text}")),
        None => Ok(()),
    }
}

/// Makes the application, or time, do what the client then says.
fn ask(app: &mut App, expected: &Value, scope: &Scope) -> Result<()> {
    let now = app.clock.0;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let payload = resolve(&expected["payload"], scope).unwrap_or_else(|_| expected["payload"].clone());
    match expected["type"].as_str() {
        Some("session.hello") => app.machine.connected(now, &text(&payload["auth"]["token"])),
        Some("session.ping") => {
            let idle = app.machine.poll_timeout().ok_or("nothing is waited for")?;
            app.pass(idle.saturating_sub(now.mono));
        }
        Some("session.ack") => app.machine.ack(now, payload["last_processed_seq"].as_u64().unwrap_or_default()),
        Some("session.close") => app.machine.close(now, &text(&payload["reason"])),
        Some("job.submit") => {
            // A trace the transcript binds is the application's to choose.
            let trace_id = match resolve(&expected["trace_id"], scope) {
                Ok(Value::String(trace_id)) => Some(trace_id),
                _ => expected.get("trace_id").map(|_| "4bf92f3577b34da6a3ce929d0e0e4736".to_owned()),
            };
            app.machine.submit(now, &submit(&payload)?, trace_id.as_deref());
        }
        Some("job.cancel") => {
            app.machine.cancel(now, &text(&payload["job_id"]), &text(&payload["reason"]));
        }
        Some("session.list_jobs") => {
            let status = payload["filter"]["status"].as_array().map(|_| texts(&payload["filter"]["status"]));
            let list = ListJobs {
                filter: status.map(|status| JobFilter { status: Some(status), ..JobFilter::default() }),
                limit: payload["limit"].as_u64(),
                cursor: payload["cursor"].as_str().map(str::to_owned),
            };
            app.machine.list_jobs(now, &list).map_err(|error| error.message)?;
        }
        Some("job.subscribe") => {
            app.machine.subscribe(now, &subscribe(&payload)).map_err(|error| error.message)?;
        }
        other => return Err(format!("{other:?} is not asked for")),
    }
    app.drain();
    Ok(())
}
