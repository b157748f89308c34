//! Client cases: the application asks, a scripted runtime writes frames, time passes. In a case `send` and `receive`
//! are the runtime's.

use std::collections::{BTreeMap, VecDeque};

use arcp_proto::Error;
use arcp_proto::json::RawJson;
use arcp_proto::machine::ClientMachine;
use arcp_proto::machine::client::{Backoff, ClientConfig, ClientEvent, CloseStyle, HandleKey, Loss, Ticket};
use arcp_proto::message::{JobFilter, LeaseConstraints, ListJobs, PeerInfo, Resume, Submit, Subscribe};
use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::Result;
use crate::clock::{Clock, Seeded, millis};
use crate::matcher::{Scope, matches, resolve};
use crate::step::{Step, each};

/// Verbs and what may stand beside them.
const VERBS: &[(&str, &[&str])] = &[
    // The application and its transport.
    ("connect", &[]),
    ("disconnect", &[]),
    ("connect_failed", &[]),
    ("oversize", &[]),
    ("reconnect", &[]),
    ("resume", &[]),
    ("job", &["is"]),
    ("jobs", &[]),
    ("leave_chunks", &[]),
    ("list_jobs", &["as", "refused", "says"]),
    ("abandon", &[]),
    ("has_room", &[]),
    ("open", &["features", "heartbeat_sec"]),
    ("submit", &["as", "trace_id", "times"]),
    ("subscribe", &["as", "refused", "says"]),
    ("unsubscribe", &[]),
    ("cancel", &["as", "reason"]),
    ("ack", &[]),
    ("processed", &[]),
    ("forget", &[]),
    ("close", &[]),
    ("told", &[]),
    ("told_nothing", &[]),
    ("skip_told", &[]),
    ("skip_frames", &[]),
    ("has_feature", &["is"]),
    ("latest_event_seq", &[]),
    ("advance_ms", &[]),
    ("step_wall_ms", &[]),
    ("next_timeout_ms", &[]),
    // The scripted runtime.
    ("send", &["times"]),
    ("send_text", &[]),
    ("flood", &[]),
    ("receive", &[]),
    ("receive_nothing", &[]),
];

/// Plays one case.
pub(crate) fn play(case: &Value) -> Result<()> {
    let mut game = Game { app: App::new(&case["given"])?, scope: Scope::new(), sent: 0 };
    each(case, |step| game.step(step))?;
    if let Some(text) = game.app.frames.front() {
        return Err(format!("nobody expected {text}"));
    }
    match game.app.events.front() {
        Some(event) => Err(format!("nobody expected {event}")),
        None => Ok(()),
    }
}

/// A client machine and the application around it.
pub(crate) struct App {
    pub(crate) machine: ClientMachine,
    pub(crate) clock: Clock,
    /// What the machine told and nobody looked at.
    pub(crate) events: VecDeque<Value>,
    /// What it sent and nobody looked at.
    pub(crate) frames: VecDeque<String>,
    names: BTreeMap<Ticket, String>,
    session: String,
}

impl App {
    pub(crate) fn new(given: &Value) -> Result<Self> {
        let mut config = ClientConfig::new(PeerInfo { name: "examplectl".into(), version: "0.4.1".into() });
        // Most cases are about one connection.
        config.reconnect = None;
        for (name, value) in given["config"].as_object().unwrap_or(&Map::new()) {
            match name.as_str() {
                "features" => config.features = serde_json::from_value(value.clone()).map_err(|e| e.to_string())?,
                "auto_ack" => config.auto_ack = value == true,
                "close_style" if value == "close" => config.close_style = CloseStyle::Close,
                "reconnect" if value == true => config.reconnect = Some(Backoff::default()),
                "give_up_ms" => {
                    config.reconnect = Some(Backoff { give_up_after: Some(millis(value)?), ..Backoff::default() });
                }
                "max_result_bytes" => {
                    config.max_result_bytes = value.as_u64().unwrap_or_default().try_into().unwrap_or_default();
                }
                "request_ms" => config.request_timeout = millis(value)?,
                _ => return Err(format!("config has no {name} of {value}")),
            }
        }
        Ok(App {
            machine: ClientMachine::new(config, Box::new(Seeded(1))),
            clock: Clock::new(),
            events: VecDeque::new(),
            frames: VecDeque::new(),
            names: BTreeMap::new(),
            session: "sess_01JX3S00000000000000000001".into(),
        })
    }

    /// Takes everything the machine has to say.
    pub(crate) fn drain(&mut self) {
        let mut frames: Vec<Bytes> = Vec::new();
        self.machine.poll_transmit(&mut frames);
        self.frames.extend(frames.iter().map(|frame| String::from_utf8(frame.to_vec()).unwrap()));
        while let Some(event) = self.machine.poll_event() {
            let shown = self.show(event);
            self.events.extend(shown);
        }
    }

    pub(crate) fn receive(&mut self, frame: &str) {
        self.machine.handle_frame(self.clock.0, &Bytes::copy_from_slice(frame.as_bytes()));
        self.drain();
    }

    /// Lets time pass, stopping at every deadline on the way.
    pub(crate) fn pass(&mut self, time: std::time::Duration) {
        let until = self.clock.0.mono + time;
        while let Some(at) = self.machine.poll_timeout().filter(|at| *at <= until) {
            self.clock.pass_to(at);
            self.machine.handle_timeout(self.clock.0);
            self.drain();
        }
        self.clock.pass_to(until);
    }

    pub(crate) fn name(&mut self, ticket: Ticket, name: &str) {
        self.names.insert(ticket, name.to_owned());
    }

    fn show(&self, event: ClientEvent) -> Option<Value> {
        let name = |ticket: Ticket| self.names.get(&ticket).cloned();
        Some(match event {
            ClientEvent::Writable => return None,
            ClientEvent::Welcomed(welcome) => json!({"event": "welcomed", "welcome": *welcome}),
            ClientEvent::NotWelcomed(why) => json!({"event": "not_welcomed", "error": why.as_ref().map(error)}),
            ClientEvent::Accepted(ticket, handle, accepted) => {
                json!({"event": "accepted", "request": name(ticket), "handle": handle.0, "accepted": *accepted})
            }
            ClientEvent::Subscribed(ticket, handle, subscribed) => {
                json!({"event": "subscribed", "request": name(ticket), "handle": handle.0, "subscribed": *subscribed})
            }
            ClientEvent::Cancelled(ticket, status) => {
                json!({"event": "cancelled", "request": name(ticket), "current_status": status})
            }
            ClientEvent::Refused(ticket, why) => {
                json!({"event": "refused", "request": name(ticket), "error": error(&why)})
            }
            ClientEvent::TimedOut(ticket) => json!({"event": "timed_out", "request": name(ticket)}),
            ClientEvent::Event(handle, event) => json!({
                "event": "event", "handle": handle.0, "event_seq": event.event_seq, "position": event.position,
                "kind": event.kind(),
                "ts": event.ts(), "body": serde_json::from_str::<Value>(event.body()).unwrap(),
            }),
            ClientEvent::Ended(handle, Ok(result)) => {
                json!({"event": "ended", "handle": handle.0, "result": *result})
            }
            ClientEvent::Ended(handle, Err(why)) => {
                json!({"event": "ended", "handle": handle.0, "error": error(&why)})
            }
            ClientEvent::Jobs(ticket, jobs) => json!({"event": "jobs", "request": name(ticket), "jobs": *jobs}),
            ClientEvent::Unknown(ticket) => json!({"event": "unknown", "request": name(ticket)}),
            ClientEvent::Missed(handle, count) => json!({"event": "missed", "handle": handle.0, "count": count}),
            ClientEvent::Assembled(handle, bytes) => {
                json!({"event": "assembled", "handle": handle.0, "text": String::from_utf8_lossy(&bytes)})
            }
            ClientEvent::Resumed(welcome) => json!({"event": "resumed", "welcome": *welcome}),
            ClientEvent::StartedOver(welcome) => json!({"event": "started_over", "welcome": *welcome}),
            ClientEvent::Connect { attempt } => json!({"event": "connect", "attempt": attempt}),
            ClientEvent::SessionError(why) => json!({"event": "session_error", "error": error(&why)}),
            ClientEvent::Lost(loss) => lost("lost", loss),
            ClientEvent::Cut(loss) => lost("cut", loss),
            ClientEvent::Closed => json!({"event": "closed"}),
        })
    }
}

fn lost(event: &str, loss: Loss) -> Value {
    match loss {
        Loss::Disconnected(why) => json!({"event": event, "disconnected": why}),
        Loss::Gap { expected, got } => json!({"event": event, "gap": {"expected": expected, "got": got}}),
        Loss::HeartbeatLost => json!({"event": event, "heartbeat": true}),
        Loss::Oversize => json!({"event": event, "oversize": true}),
        Loss::Bye(reason) => json!({"event": event, "bye": reason}),
        Loss::Refused(why) => json!({"event": event, "refused": error(&why)}),
        Loss::GaveUp { attempts, why } => json!({"event": event, "gave_up": attempts, "why": why}),
    }
}

fn error(error: &Error) -> Value {
    let details = error.details.as_ref().map(|details| serde_json::from_str::<Value>(details.get()).unwrap());
    json!({"code": error.code.as_str(), "message": error.message, "retryable": error.retryable, "details": details})
}

/// A submit as an application writes it.
pub(crate) fn submit(payload: &Value) -> Result<Submit> {
    let raw = |name: &str, default: RawJson| match payload.get(name) {
        Some(value) => RawJson::parse(&value.to_string()).map_err(|error| error.message),
        None => Ok(default),
    };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Ok(Submit {
        agent: text(&payload["agent"]).ok_or("a submit needs an agent")?,
        input: raw("input", RawJson::null())?,
        lease_request: raw("lease_request", RawJson::empty_object())?,
        lease_constraints: payload
            .get("lease_constraints")
            .map(|constraints| LeaseConstraints { expires_at: text(&constraints["expires_at"]) }),
        idempotency_key: text(&payload["idempotency_key"]),
        max_runtime_sec: payload["max_runtime_sec"].as_u64(),
        parent_job_id: None,
        delegate_id: None,
    })
}

/// A subscription as an application writes it.
pub(crate) fn subscribe(payload: &Value) -> Subscribe {
    Subscribe {
        job_id: payload["job_id"].as_str().unwrap_or_default().to_owned(),
        from_event_seq: payload["from_event_seq"].as_u64(),
        history: payload["history"] == true,
    }
}

/// Drops so many that nobody needs to look at one by one.
fn skip<T>(queue: &mut VecDeque<T>, count: u64) -> Result<()> {
    let count = usize::try_from(count).unwrap();
    if queue.len() < count {
        return Err(format!("there are only {}", queue.len()));
    }
    queue.drain(..count);
    Ok(())
}

struct Game {
    app: App,
    scope: Scope,
    sent: u64,
}

impl Game {
    fn step(&mut self, step: &Value) -> Result<()> {
        let step = Step::read(step, VERBS)?;
        let done = self.play(&step);
        self.app.drain();
        done
    }

    fn play(&mut self, step: &Step<'_>) -> Result<()> {
        let now = self.app.clock.0;
        let object = resolve(step.object, &self.scope)?;
        let text = object.as_str().unwrap_or_default();
        let number = object.as_u64().unwrap_or_default();
        match step.verb {
            "connect" => self.app.machine.connected(now, text),
            "disconnect" => self.app.machine.disconnected(now, text),
            "connect_failed" => self.app.machine.connect_failed(now, text),
            "oversize" => self.app.machine.oversize(now),
            "reconnect" => return self.reconnect(text),
            "resume" => self.app.machine.resume(&Resume {
                session_id: self.app.session.clone(),
                resume_token: "rt_of_another_client".into(),
                last_event_seq: number,
            }),
            "job" => {
                let handle = self.app.machine.job(now, text);
                self.scope.insert(step.need("is")?.to_owned(), handle.0.into());
            }
            "jobs" => {
                let mut jobs = self.app.machine.jobs();
                jobs.sort();
                return if json!(jobs) == object { Ok(()) } else { Err(format!("they are {jobs:?}")) };
            }
            "leave_chunks" => self.app.machine.leave_chunks(HandleKey(number)),
            "list_jobs" => {
                let filter = object["status"]
                    .as_str()
                    .map(|status| JobFilter { status: Some(vec![status.to_owned()]), ..JobFilter::default() });
                let asked = self.app.machine.list_jobs(now, &ListJobs { filter, ..ListJobs::default() });
                if let Ok(ticket) = asked {
                    self.app.name(ticket, step.text("as").unwrap_or("list"));
                }
                return step.check_refusal(asked.map(|_| ()));
            }
            "abandon" => {
                let found = self.app.names.iter().find(|(_, name)| *name == text).map(|(ticket, _)| *ticket);
                self.app.machine.abandon_submit(found.ok_or("no such request")?);
            }
            "has_room" if *step.object == json!(self.app.machine.has_room()) => {}
            "has_room" => return Err("it is not so".into()),
            "open" => return self.open(step),
            "submit" => {
                for _ in 0..step.get("times").and_then(Value::as_u64).unwrap_or(1) {
                    let ticket = self.app.machine.submit(now, &submit(&object)?, step.text("trace_id"));
                    self.app.name(ticket, step.text("as").unwrap_or("submit"));
                }
            }
            "subscribe" => {
                let asked = self.app.machine.subscribe(now, &subscribe(&object));
                if let Ok(ticket) = asked {
                    self.app.name(ticket, step.text("as").unwrap_or("subscribe"));
                }
                return step.check_refusal(asked.map(|_| ()));
            }
            "unsubscribe" => self.app.machine.unsubscribe(now, text),
            "cancel" => {
                let ticket = self.app.machine.cancel(now, text, step.text("reason").unwrap_or("enough"));
                self.app.name(ticket, step.text("as").unwrap_or("cancel"));
            }
            "ack" => self.app.machine.ack(now, number),
            "processed" => self.app.machine.processed(now, number),
            "forget" => self.app.machine.forget(HandleKey(number)),
            "close" => self.app.machine.close(now, text),
            "told" => {
                let event = self.app.events.pop_front().ok_or("nothing was told")?;
                return matches(step.object, &event, &mut self.scope);
            }
            "told_nothing" => {
                return self.app.events.front().map_or(Ok(()), |event| Err(format!("it was told {event}")));
            }
            "skip_told" => return skip(&mut self.app.events, number),
            "skip_frames" => return skip(&mut self.app.frames, number),
            "has_feature" if step.get("is") == Some(&json!(self.app.machine.has_feature(text))) => {}
            "has_feature" => return Err("it is not so".into()),
            "latest_event_seq" if self.app.machine.latest_event_seq() == number => {}
            "latest_event_seq" => return Err(format!("it is {}", self.app.machine.latest_event_seq())),
            "advance_ms" => self.app.pass(millis(step.object)?),
            "step_wall_ms" => return self.app.clock.step_wall(step.object),
            "next_timeout_ms" => return Clock::check_deadline(step.object, self.app.machine.poll_timeout()),
            "send" => {
                for _ in 0..step.get("times").and_then(Value::as_u64).unwrap_or(1) {
                    self.send(&object)?;
                }
            }
            "flood" => {
                let (from, through) = (object["from"].as_u64(), object["through"].as_u64());
                for seq in from.unwrap_or_default()..=through.unwrap_or_default() {
                    let body = json!({"level": "info", "message": "m"});
                    let payload = json!({"kind": "log", "ts": crate::clock::START, "body": body});
                    let job_id = &object["job_id"];
                    self.send(&json!({"type": "job.event", "job_id": job_id, "event_seq": seq, "payload": payload}))?;
                }
            }
            "send_text" => self.app.receive(text),
            "receive" => {
                let text = self.app.frames.pop_front().ok_or("the client sent nothing")?;
                let frame: Value = serde_json::from_str(&text).map_err(|e| format!("{e} in {text}"))?;
                return matches(step.object, &frame, &mut self.scope).map_err(|error| format!("{error} in {text}"));
            }
            "receive_nothing" => {
                return self.app.frames.front().map_or(Ok(()), |text| Err(format!("the client sent {text}")));
            }
            other => return Err(format!("{other} is not played")),
        }
        Ok(())
    }

    /// Sends an envelope with the members every envelope has; `null` leaves one out.
    fn send(&mut self, message: &Value) -> Result<()> {
        self.sent += 1;
        let mut members = message.as_object().cloned().ok_or("a message is an object")?;
        members.entry("arcp").or_insert_with(|| "1.1".into());
        members.entry("id").or_insert_with(|| format!("r{}", self.sent).into());
        members.entry("payload").or_insert_with(|| json!({}));
        members.entry("session_id").or_insert_with(|| self.app.session.as_str().into());
        members.retain(|_, value| !value.is_null());
        self.app.receive(&Value::Object(members).to_string());
        Ok(())
    }

    /// Lets the back-off pass, is asked for a connection and has one.
    fn reconnect(&mut self, token: &str) -> Result<()> {
        self.app.pass(std::time::Duration::from_secs(5));
        let told = self.app.events.pop_front().ok_or("no connection was asked for")?;
        if told["event"] != "connect" {
            return Err(format!("it was told {told}"));
        }
        self.app.machine.connected(self.app.clock.0, token);
        Ok(())
    }

    /// Connects and is welcomed with these features.
    fn open(&mut self, step: &Step<'_>) -> Result<()> {
        self.app.machine.connected(self.app.clock.0, step.name()?);
        self.app.drain();
        self.app.frames.pop_front().ok_or("no hello")?;
        let mut payload = json!({
            "session_id": self.app.session,
            "runtime": {"name": "example-runtime", "version": "1.1.0"},
            "resume_token": "rt_a1b2c3d4e5f60718293a4b5c6d7e8f01",
            "resume_window_sec": 600,
            "capabilities": {
                "encodings": ["json"],
                "features": step.get("features").cloned().unwrap_or_else(|| json!(["ack", "subscribe", "progress"])),
                "agents": [{"name": "echo", "versions": ["1.0.0"], "default": "1.0.0"}],
            },
            "accepted_at": "2026-05-13T19:30:00.000Z",
        });
        if let Some(seconds) = step.get("heartbeat_sec") {
            payload["heartbeat_interval_sec"] = seconds.clone();
        }
        self.send(&json!({"type": "session.welcome", "payload": payload}))?;
        let told = self.app.events.pop_front().ok_or("no welcome was told")?;
        if told["event"] == "welcomed" { Ok(()) } else { Err(format!("not welcomed: {told}")) }
    }
}
