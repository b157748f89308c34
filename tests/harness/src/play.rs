//! Plays one case.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::case::{Case, Kind, Receive, Send, SendText, Step};
use crate::matcher::{Scope, matches, resolve};
use crate::peer::{Arrival, Connection, Door, open};
use crate::relay::Relay;
use crate::shim::{Answer, Pending, Shim};
use crate::{Result, WAIT};

/// The token of the principal `alice`, whom cases speak for unless they say otherwise.
pub const ALICE: &str = "tok-alice";
/// The token of the principal `bob`.
pub const BOB: &str = "tok-bob";

/// What a plain deployment offers: all but `provisioned_credentials`, which needs a provisioner.
pub const FEATURES: [&str; 10] = [
    "heartbeat",
    "ack",
    "list_jobs",
    "subscribe",
    "agent_versions",
    "lease_expires_at",
    "cost.budget",
    "model.use",
    "progress",
    "result_chunk",
];

/// The session id of every scripted runtime.
const SESSION: &str = "sess_01JX3S00000000000000000001";

/// The sides a case is played with.
pub struct Sides {
    /// The client's shim, in pair and client cases.
    pub client: Option<Arc<Shim>>,
    /// The runtime's shim, in pair and runtime cases.
    pub runtime: Option<Arc<Shim>>,
}

impl Sides {
    /// What the sides can do together.
    #[must_use]
    pub fn lacking(&self, case: &Case) -> Vec<String> {
        let mut lacking = Vec::new();
        for (role, shim) in [("client", &self.client), ("runtime", &self.runtime)] {
            let Some(shim) = shim else { continue };
            let agents = case.given.agents.iter().filter(|_| role == "runtime");
            let agents = agents.map(|agent| format!("agent.{}", agent.split('@').next().unwrap_or_default()));
            let needs = case.needs.iter().filter(|need| side_of(need) == role).cloned();
            for need in std::iter::once(role.to_owned()).chain(agents).chain(needs) {
                if !shim.capabilities().contains(&need) {
                    lacking.push(format!("{}: {need}", shim.language()));
                }
            }
        }
        lacking
    }
}

/// Which side of a case a capability is asked of.
#[must_use]
pub fn side_of(capability: &str) -> &'static str {
    if capability == "agent_versions" || capability.starts_with("agent.") { "runtime" } else { "client" }
}

/// Plays a case from its start to its last step, then tidies up.
///
/// # Errors
/// Says which step failed, and how.
pub async fn play(case: &Case, sides: &Sides) -> Result<()> {
    let mut player = Player::default();
    let outcome = player.run(case, sides).await;
    let tidied = player.tidy(sides).await;
    outcome.and(tidied)
}

#[derive(Default)]
struct Player {
    scope: Scope,
    door: Option<Door>,
    connections: BTreeMap<String, Connection>,
    pending: BTreeMap<String, Pending>,
    sessions: Vec<Value>,
    served: Option<Value>,
    relay: Option<Relay>,
    made: u32,
}

impl Player {
    async fn run(&mut self, case: &Case, sides: &Sides) -> Result<()> {
        self.begin(case, sides).await.map_err(|e| format!("at the start: {e}"))?;
        for (i, step) in case.steps.iter().enumerate() {
            self.step(step, sides).await.map_err(|e| format!("step {}: {e}", i + 1))?;
        }
        match self.pending.keys().next() {
            Some(name) => Err(format!("the case never finishes {name:?}")),
            None => Ok(()),
        }
    }

    async fn begin(&mut self, case: &Case, sides: &Sides) -> Result<()> {
        if let Some(runtime) = &sides.runtime {
            let arguments = json!({ "agents": case.given.agents, "tokens": { ALICE: "alice", BOB: "bob" } });
            let served = command(runtime, "serve", arguments).await?.answer().await?;
            let served = expect(
                served,
                Some(&json!({ "runtime": { "$any": "value" }, "url": { "$bind": "url" } })),
                None,
                &mut self.scope,
            )?;
            self.served = Some(served["runtime"].clone());
            if case.given.relay {
                let url = served["url"].as_str().unwrap_or_default();
                let relay = Relay::to(url).await?;
                self.scope.insert("url".to_owned(), json!(relay.url(url)?));
                self.relay = Some(relay);
            }
        } else {
            let door = Door::new().await?;
            self.scope.insert("url".to_owned(), json!(door.url()?));
            self.door = Some(door);
        }
        if !case.given.session {
            return Ok(());
        }
        let features = match &case.given.features {
            Some(features) => json!(features),
            None => json!(FEATURES),
        };
        for step in opening(case.kind, &features)? {
            self.step(&step, sides).await?;
        }
        Ok(())
    }

    async fn step(&mut self, step: &Step, sides: &Sides) -> Result<()> {
        match step {
            Step::Do(step) => {
                let pending = self.command(&step.command, &step.with, sides).await?;
                self.finish(pending, step.ok.as_ref(), step.error.as_ref()).await
            }
            Step::Start(step) => {
                let pending = self.command(&step.start, &step.with, sides).await?;
                self.pending.insert(step.name.clone(), pending);
                Ok(())
            }
            Step::Finish(step) => {
                let pending = self.pending.remove(&step.finish);
                let pending = pending.ok_or_else(|| format!("nothing was started as {:?}", step.finish))?;
                self.finish(pending, step.ok.as_ref(), step.error.as_ref()).await
            }
            Step::Open(step) => {
                let url = self.scope.get("url").and_then(Value::as_str).unwrap_or_default();
                match (open(url, &step.open, &step.headers).await?, step.status) {
                    (Ok(connection), None) => {
                        self.connections.insert(step.on.clone(), connection);
                        Ok(())
                    }
                    (Err(status), Some(expected)) if status == expected => Ok(()),
                    (Ok(_), Some(status)) => Err(format!("{} was accepted, expected HTTP {status}", step.open)),
                    (Err(status), _) => Err(format!("{} was refused with HTTP {status}", step.open)),
                }
            }
            Step::Accept(step) => {
                let door = self.door.as_ref().ok_or("only a client case can accept")?;
                let connection = door.accept().await?;
                self.connections.insert(step.accept.clone(), connection);
                Ok(())
            }
            Step::Send(step) => self.send(step).await,
            Step::SendText(step) => self.send_text(step).await,
            Step::Receive(step) => self.receive(step).await,
            Step::Leave(step) => {
                let connection = self.connections.remove(&step.leave);
                connection.ok_or_else(|| format!("the case has no connection {:?}", step.leave))?.leave().await;
                Ok(())
            }
            Step::Cut(_) => {
                self.relay.as_ref().ok_or("the case has no relay to cut")?.cut();
                Ok(())
            }
            Step::Closed(step) => loop {
                match self.connection(&step.closed)?.receive().await? {
                    Arrival::Closed => {
                        self.connections.remove(&step.closed);
                        return Ok(());
                    }
                    Arrival::Message(message) if step.skip.iter().any(|skipped| message["type"] == *skipped) => {}
                    Arrival::Message(message) => {
                        return Err(format!("expected the end of the connection, found {message}"));
                    }
                }
            },
        }
    }

    /// Commands go to the client, except those that only a runtime knows.
    async fn command(&self, name: &str, with: &Map<String, Value>, sides: &Sides) -> Result<Pending> {
        let side = if matches!(name, "serve" | "stop") { &sides.runtime } else { &sides.client };
        let shim = side.as_ref().ok_or_else(|| format!("no side of this case knows {name:?}"))?;
        let mut arguments = resolve(&json!(with), &self.scope)?;
        if name == "stop" {
            arguments["runtime"] = self.served.clone().unwrap_or_default();
        }
        command(shim, name, arguments).await
    }

    async fn finish(&mut self, pending: Pending, ok: Option<&Value>, error: Option<&Value>) -> Result<()> {
        let answer = pending.answer().await?;
        if let Answer::Ok(answer) = &answer
            && let (Some(session), Some(_)) = (answer.get("session"), answer.get("session_id"))
        {
            self.sessions.push(session.clone());
        }
        expect(answer, ok, error, &mut self.scope).map(|_| ())
    }

    async fn send(&mut self, step: &Send) -> Result<()> {
        let mut message = resolve(&json!(step.send), &self.scope)?;
        self.made += 1;
        let id = json!(format!("msg_01JX3000000000000000{:06}", self.made));
        let session = self.scope.get("session_id").cloned();
        if let Value::Object(members) = &mut message {
            for (name, value) in [("arcp", Some(json!("1.1"))), ("id", Some(id)), ("session_id", session)] {
                if let (None, Some(value)) = (members.get(name), value) {
                    members.insert(name.to_owned(), value);
                }
            }
            members.retain(|_, value| value.get("$absent").is_none());
        }
        let text = message.to_string();
        let resumed = &message["payload"]["resume"]["last_event_seq"];
        for _ in 0..step.times {
            let connection = self.connection(&step.on)?;
            if let Some(last_event_seq) = resumed.as_u64() {
                connection.resumes_after(last_event_seq);
            }
            connection.send(text.clone(), false).await?;
        }
        Ok(())
    }

    async fn send_text(&mut self, step: &SendText) -> Result<()> {
        let mut text = step.send_text.clone();
        for (name, value) in &self.scope {
            if let Some(value) = value.as_str() {
                text = text.replace(&format!("${{{name}}}"), value);
            }
        }
        if step.pad > 0 {
            text = text.replace("${pad}", &"x".repeat(step.pad));
        }
        for _ in 0..step.times {
            self.connection(&step.on)?.send(text.clone(), step.binary).await?;
        }
        Ok(())
    }

    async fn receive(&mut self, step: &Receive) -> Result<()> {
        for _ in 0..step.times {
            let message = loop {
                let arrival = self.connection(&step.on)?.receive().await;
                let arrival = arrival.map_err(|e| format!("{e}, expected {}", step.receive))?;
                let Arrival::Message(message) = arrival else {
                    return Err(format!("the connection ended, expected {}", step.receive));
                };
                let kind = &message["type"];
                // An ack may come at any time; only a case about acks looks at them.
                let passed = step.skip.iter().any(|skipped| kind == skipped)
                    || kind == "session.ack" && step.receive["type"] != "session.ack";
                if !passed {
                    break message;
                }
            };
            matches(&step.receive, &message, &mut self.scope).map_err(|e| format!("{e}; the message: {message}"))?;
        }
        Ok(())
    }

    fn connection(&mut self, name: &str) -> Result<&mut Connection> {
        self.connections.get_mut(name).ok_or_else(|| format!("the case has no connection {name:?}"))
    }

    /// Closes every session and runtime the case opened. That a close ends is itself a rule.
    async fn tidy(self, sides: &Sides) -> Result<()> {
        let mut closing = Vec::new();
        if let Some(client) = &sides.client {
            for session in self.sessions {
                closing.push(command(client, "close", json!({ "session": session })).await?);
            }
        }
        // A scripted runtime keeps its connections up until each client has said what it says at its end.
        let said = async {
            for (_, mut connection) in self.connections {
                while sides.client.is_some() && !closing.is_empty() {
                    match connection.receive().await {
                        Ok(Arrival::Message(message)) if message["type"] != "session.bye" => {}
                        _ => break,
                    }
                }
                connection.leave().await;
            }
        };
        if tokio::time::timeout(WAIT, said).await.is_err() {
            return Err(format!("a connection was still busy {WAIT:?} after the case"));
        }
        drop(self.door);
        for pending in closing {
            pending.answer().await?;
        }
        if let (Some(runtime), Some(served)) = (&sides.runtime, self.served) {
            command(runtime, "stop", json!({ "runtime": served })).await?.answer().await?;
        }
        Ok(())
    }
}

async fn command(shim: &Shim, name: &str, arguments: Value) -> Result<Pending> {
    match arguments {
        Value::Object(arguments) => shim.ask(name, arguments).await,
        other => Err(format!("the arguments of {name} are {other}, expected an object")),
    }
}

/// Checks an answer; hands back what it holds.
fn expect(answer: Answer, ok: Option<&Value>, error: Option<&Value>, scope: &mut Scope) -> Result<Value> {
    match (answer, error) {
        (Answer::Ok(value), None) => {
            matches(ok.unwrap_or(&json!({})), &value, scope).map_err(|e| format!("{e}; the answer: {value}"))?;
            Ok(value)
        }
        (Answer::Error(value), Some(expected)) => {
            matches(expected, &value, scope).map_err(|e| format!("{e}; the error: {value}"))?;
            Ok(value)
        }
        (Answer::Error(value), None) => Err(format!("failed: {value}")),
        (Answer::Ok(value), Some(expected)) => Err(format!("expected the error {expected}, found {value}")),
    }
}

/// The handshake every case with `given.session` begins with.
fn opening(kind: Kind, features: &Value) -> Result<Vec<Step>> {
    let connect = json!({ "url": { "$ref": "url" }, "token": ALICE, "features": features });
    let connected = json!({ "session": { "$bind": "s" }, "session_id": { "$bind": "session_id" } });
    let steps = match kind {
        Kind::Pair => json!([{ "do": "connect", "with": connect, "ok": connected }]),
        Kind::Client => json!([
            { "start": "connect", "with": connect, "as": "opening" },
            { "accept": "a" },
            { "receive": { "type": "session.hello" } },
            { "send": welcome(features) },
            { "finish": "opening", "ok": connected },
        ]),
        Kind::Runtime => json!([
            { "open": "/arcp" },
            { "send": hello(features) },
            { "receive": { "type": "session.welcome", "session_id": { "$bind": "session_id" } } },
        ]),
    };
    serde_json::from_value(steps).map_err(|e| format!("the opening steps: {e}"))
}

fn hello(features: &Value) -> Value {
    json!({ "type": "session.hello", "payload": {
        "client": { "name": "harness", "version": "1.0.0" },
        "auth": { "scheme": "bearer", "token": ALICE },
        "capabilities": { "encodings": ["json"], "features": features },
    } })
}

fn welcome(features: &Value) -> Value {
    let mut payload = json!({
        "session_id": SESSION,
        "runtime": { "name": "harness", "version": "1.0.0" },
        "resume_token": "rt_a1b2c3d4e5f60718293a4b5c6d7e8f01",
        "resume_window_sec": 600,
        "capabilities": { "encodings": ["json"], "features": features, "agents": [
            { "name": "echo", "versions": ["1.0.0"], "default": "1.0.0" },
        ] },
        "accepted_at": "2026-05-13T19:30:01.000Z",
    });
    if features.as_array().is_some_and(|names| names.contains(&json!("heartbeat"))) {
        payload["heartbeat_interval_sec"] = json!(30);
    }
    json!({ "type": "session.welcome", "session_id": SESSION, "payload": payload })
}
