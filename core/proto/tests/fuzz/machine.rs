//! Any frames and any calls of a host, in any order: no machine panics, spins, or keeps more than its bounds.

use std::sync::Arc;
use std::time::Duration;

use arcp_proto::Error;
use arcp_proto::envelope::Head;
use arcp_proto::event::EventKind;
use arcp_proto::feature::Feature;
use arcp_proto::id::Entropy;
use arcp_proto::json::{Limits, RawJson};
use arcp_proto::machine::client::{ClientConfig, ClientEvent, HandleKey};
use arcp_proto::machine::frame::{Frame, Record};
use arcp_proto::machine::job::Outcome;
use arcp_proto::machine::kept::StoreOp;
use arcp_proto::machine::result_stream::ResultOptions;
use arcp_proto::machine::runtime::{BufferCap, ConnKey, Delegation, JobKey, OpenedResult, RuntimeConfig, RuntimeEvent};
use arcp_proto::machine::{ClientMachine, RuntimeMachine};
use arcp_proto::message::{JobFilter, ListJobs, PeerInfo, RuntimeMessage, Submit, Subscribe};
use arcp_proto::time::{Now, Timestamp};
use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

use crate::codec::{Damage, FRAMES, damage, damaged, tree};
use crate::runner::run;

/// What one call may make a machine ask for; far above what these bounds allow.
const MOST_ASKED: usize = 10_000;
const CONNS: usize = 4;
const WAITING: usize = 3;
const BUFFERED: usize = 16;

pub(crate) struct Seeded(pub(crate) u64);

impl Entropy for Seeded {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = self.0.to_be_bytes()[0];
        }
    }
}

pub(crate) fn start() -> Now {
    Now { mono: Duration::ZERO, wall: Timestamp::parse("2026-05-13T19:30:00.000Z").unwrap() }
}

fn config() -> RuntimeConfig {
    let mut config = RuntimeConfig::new(PeerInfo { name: "fuzz".into(), version: "1".into() });
    config.max_concurrent_jobs = 2;
    config.max_waiting_jobs = WAITING;
    config.max_delegated_jobs = 4;
    config.max_ended_jobs = 4;
    config.max_detached_sessions = 3;
    config.max_idempotency_keys = 4;
    config.outgoing_high_water = 4;
    config.buffer_cap = BufferCap { events: BUFFERED, bytes: 1 << 16 };
    config.retention = Duration::from_secs(5);
    config.resume_window = Duration::from_secs(5);
    config.limits.max_bytes = 1 << 14;
    config
}

/// One thing that happens: which, to whom, with what.
type Op = (u8, Index, Index, u8);

fn ops() -> impl Strategy<Value = Vec<Op>> {
    vec((0..32_u8, any::<Index>(), any::<Index>(), any::<u8>()), 1..160)
}

/// A runtime's host that keeps no promise.
struct Host {
    machine: RuntimeMachine,
    now: Now,
    conns: Vec<ConnKey>,
    jobs: Vec<JobKey>,
    /// Ids and tokens the runtime named, by what they are, for frames that get past the first check.
    sessions: Vec<(String, String)>,
    job_ids: Vec<String>,
    last_ticket: u64,
    questions: Vec<u64>,
    kept: Vec<Arc<Record>>,
    results: Vec<(JobKey, OpenedResult)>,
    sent: u64,
}

impl Host {
    fn new(durable: bool) -> Host {
        let mut config = config();
        config.durable = durable;
        let mut machine = RuntimeMachine::new(config, Box::new(Seeded(7)));
        for (name, version) in [("echo", Some("1.0.0")), ("echo", Some("2.0.0")), ("plain", None)] {
            machine.register_agent(name, version).unwrap();
        }
        Host {
            machine,
            now: start(),
            conns: vec![ConnKey(u64::MAX); CONNS],
            jobs: vec![JobKey(u64::MAX)],
            sessions: vec![("sess_none".into(), "rt_none".into())],
            job_ids: vec!["job_none".into()],
            last_ticket: 0,
            questions: vec![u64::MAX],
            kept: Vec::new(),
            results: Vec::new(),
            sent: 0,
        }
    }

    /// Half the connections are open from the start.
    fn open_some(&mut self, damage: &Damage, which: Index) -> Result<(), String> {
        for place in 0..CONNS / 2 {
            self.conns[place] = self.machine.connected(self.now);
            self.say(self.conns[place], 6, which, 255, "null", damage);
            self.drain(255)?;
        }
        Ok(())
    }

    fn act(&mut self, (op, who, which, what): Op, text: &str, damage: &Damage) -> Result<(), String> {
        let (now, conn, job) = (self.now, *who.get(&self.conns), *which.get(&self.jobs));
        let machine = &mut self.machine;
        match op {
            0 | 1 => {
                // At most so many at once; what becomes of the one before is the machine's business.
                let place = who.index(CONNS);
                self.conns[place] = machine.connected(now);
                let conn = self.conns[place];
                if !what.is_multiple_of(8) {
                    self.say(conn, 6 + 2 * u8::from(what.is_multiple_of(3)), which, what, text, damage);
                }
            }
            2 if what.is_multiple_of(4) => machine.disconnected(now, conn),
            3 if what.is_multiple_of(16) => machine.handle_oversize(now, conn),
            4 if what.is_multiple_of(2) => {
                machine.handle_frame(now, conn, &damaged(which.get::<String>(&FRAMES), damage))
            }
            5 if what.is_multiple_of(4) => machine.handle_frame(now, conn, text.as_bytes()),
            2..=16 => self.say(conn, op, which, what, text, damage),
            17 => {
                let verdict = if what < 200 { Ok("alice".to_owned()) } else { Err(Error::internal("no")) };
                machine.handle_verified(now, conn, verdict.map(Into::into));
            }
            18 => self.now.mono += Duration::from_millis(u64::from(what) * 100),
            // The time of day goes where it will.
            19 => self.now.wall.0 += (i64::from(what) - 128) * 10_000,
            20 | 21 => {
                let kinds = ["log", "metric", "progress", "status", "result_chunk", "delegate", "x-vendor.a.b", "new"];
                let bodies = [r#"{"level":"info","message":"m"}"#, r#"{"name":"cost.x","value":1e-3,"unit":"USD"}"#];
                let body = RawJson::parse(if what < 200 { bodies[usize::from(what % 2)] } else { text });
                let kind = EventKind::parse(kinds[usize::from(what % 8)]);
                let _ = body.map(|body| machine.emit(now, job, &kind, &body));
            }
            22 => {
                let _ = machine.authorize(now, job, ["fs.read", "tool.call", "?"][usize::from(what % 3)], text);
            }
            23 => {
                let outcome = match what % 4 {
                    0 => Outcome::Success(RawJson::parse(text).unwrap_or_else(|_| RawJson::null())),
                    1 => Outcome::Failed(Error::internal(text)),
                    2 => Outcome::Cancelled,
                    _ => Outcome::Success(RawJson::null()),
                };
                machine.finish(now, job, outcome);
            }
            24 => {
                let delegation = Delegation {
                    agent: ["echo", "plain@1", "nobody"][usize::from(what % 3)].into(),
                    input: RawJson::null(),
                    lease_request: if what.is_multiple_of(4) {
                        RawJson::parse(text).unwrap_or_else(|_| RawJson::null())
                    } else {
                        RawJson::empty_object()
                    },
                    lease_constraints: None,
                    delegate_id: (what.is_multiple_of(2)).then(|| text.to_owned()),
                    detached: what.is_multiple_of(5),
                };
                let _ = machine.delegate(now, job, &delegation);
                machine.cancel_child(now, *who.get(&self.jobs), text);
            }
            25 => {
                if let Ok(opened) = machine.open_result(now, job, ResultOptions::default()) {
                    self.results.push((job, opened));
                }
            }
            26 => {
                if let Some((job, opened)) = self.results.last_mut() {
                    let part = if what.is_multiple_of(2) {
                        opened.cutter.next_text(now.wall, text).0
                    } else {
                        opened.cutter.next_bytes(now.wall, text.as_bytes()).0
                    };
                    let _ = machine.write_result(now, *job, part);
                    let _ = machine.collect_result(*job, text.as_bytes());
                }
            }
            27 => {
                machine.flush_result(now, job);
                let _ = machine.close_result(now, job, Some(text));
            }
            28 => {
                let ticket = self.last_ticket.saturating_sub(u64::from(what % 2) * u64::from(what % 4));
                machine.handle_stored(now, ticket, if what < 250 { Ok(()) } else { Err("full".into()) });
            }
            29 => {
                let some = usize::from(what).min(self.kept.len());
                machine.handle_history(now, *which.get(&self.questions), &self.kept[..some]);
            }
            30 => machine.handle_timeout(now),
            _ if what > 250 => {
                machine.shutdown(now, "enough");
                machine.close_connections(now, "enough");
            }
            _ => drop(machine.must_wait(job)),
        }
        self.drain(what)
    }

    /// A message that is nearly right.
    fn say(&mut self, conn: ConnKey, op: u8, which: Index, what: u8, text: &str, damage: &Damage) {
        self.sent += 1;
        let (session, token) = which.get(&self.sessions).clone();
        let job_id = which.get(&self.job_ids).clone();
        let raw: Value = serde_json::from_str(text).unwrap_or(Value::Null);
        // What stands in another message's place is another submit.
        let op = if op < 6 { 9 } else { op };
        let mut features: Vec<&str> = Feature::ALL.into_iter().map(Feature::as_str).collect();
        features.rotate_left(usize::from(what % 4));
        features.truncate(usize::from(what));
        let mut hello = json!({
            "client": {"name": "fuzz", "version": "1"}, "auth": {"scheme": "bearer", "token": "t"},
            "capabilities": {"encodings": ["json"], "features": features},
        });
        if op == 8 {
            hello["resume"] = json!({"session_id": session, "resume_token": token, "last_event_seq": what % 8});
        }
        let (kind, payload) = match op {
            6..=8 => ("session.hello", hello),
            9..=11 => {
                let mut submit = json!({"agent": "echo", "input": raw});
                match what % 6 {
                    0 => submit["idempotency_key"] = format!("k{}", what % 4).into(),
                    1 | 2 => submit["lease_request"] = json!({"cost.budget": ["USD:0.01"], "agent.delegate": ["**"]}),
                    3 => submit["max_runtime_sec"] = (1_u64 << (what % 64)).into(),
                    4 => {
                        submit["parent_job_id"] = job_id.clone().into();
                        submit["lease_request"] = raw;
                    }
                    _ => {}
                }
                ("job.submit", submit)
            }
            12 => (
                "job.subscribe",
                json!({"job_id": job_id, "history": what.is_multiple_of(2), "from_event_seq": what % 5}),
            ),
            13 => ("job.cancel", json!({"job_id": job_id, "reason": text})),
            14 => ("session.ack", json!({"last_processed_seq": if what > 250 { u64::MAX >> 1 } else { what.into() }})),
            15 => ("job.unsubscribe", json!({"job_id": job_id})),
            _ => ("session.list_jobs", json!({"limit": what, "cursor": text, "filter": raw})),
        };
        let mut message = json!({"arcp": "1.1", "id": format!("m{}", self.sent), "type": kind, "payload": payload});
        if op > 8 && what.is_multiple_of(8) {
            // Whichever session this connection has, its id is nearly always left out.
            message["session_id"] = session.into();
        }
        let whole = !what.is_multiple_of(16);
        let bytes = if whole { message.to_string().into_bytes() } else { damaged(&message.to_string(), damage) };
        self.machine.handle_frame(self.now, conn, &bytes);
    }

    /// Does what is asked, carelessly, and looks at the bounds.
    fn drain(&mut self, what: u8) -> Result<(), String> {
        if self.machine.poll_timeout().is_some_and(|at| at <= self.now.mono) {
            self.machine.handle_timeout(self.now);
            if let Some(at) = self.machine.poll_timeout().filter(|at| *at <= self.now.mono) {
                return Err(format!("a timer at {at:?} is still due at {:?}", self.now.mono));
            }
        }
        let mut asked = 0;
        while let Some(event) = self.machine.poll_event() {
            asked += 1;
            if asked > MOST_ASKED {
                return Err("events do not end".into());
            }
            match event {
                RuntimeEvent::Verify { conn, .. } if what % 16 != 1 => {
                    self.machine.handle_verified(self.now, conn, Ok("alice".into()));
                }
                RuntimeEvent::Start { job, start } => {
                    self.jobs.push(job);
                    self.job_ids.push(start.job_id.to_string());
                }
                RuntimeEvent::ReadHistory { ticket, .. } => self.questions.push(ticket),
                _ => {}
            }
        }
        while let Some((ticket, op)) = self.machine.poll_store() {
            asked += 1;
            if asked > MOST_ASKED {
                return Err("operations of the store do not end".into());
            }
            self.last_ticket = ticket;
            if !what.is_multiple_of(4) {
                self.machine.handle_stored(self.now, ticket, Ok(()));
            }
            if let StoreOp::Append(record) = op {
                self.kept.push(record);
            }
        }
        let mut frames = Vec::new();
        for conn in self.conns.clone() {
            let queued = frames.len();
            // Some peers never read.
            if !what.is_multiple_of(3) || conn.0.is_multiple_of(2) {
                self.machine.poll_transmit(self.now, conn, usize::from(what), &mut frames);
            }
            if frames.len() - queued > usize::from(what) {
                return Err("more frames came than were asked for".into());
            }
        }
        for frame in &frames {
            self.look(frame)?;
        }
        let stats = self.machine.stats();
        // A replay may be longer, but no longer than what is kept.
        let most = (BUFFERED + 2 + self.kept.len()) * (self.conns.len() + 1);
        if usize::try_from(stats.frames_queued).is_ok_and(|queued| queued > most) {
            return Err(format!("{} frames wait, more than {most}", stats.frames_queued));
        }
        if self.machine.live_jobs() > 2 + WAITING + 4 {
            return Err(format!("{} jobs live", self.machine.live_jobs()));
        }
        Ok(())
    }

    fn look(&mut self, frame: &Frame) -> Result<(), String> {
        let mut bytes = Vec::new();
        frame.write(&mut bytes);
        let head = Head::parse(&bytes, &Limits::default())
            .map_err(|refusal| format!("{refusal:?} of {}", String::from_utf8_lossy(&bytes)))?;
        let message =
            RuntimeMessage::parse(&head).map_err(|error| format!("{error} in {}", String::from_utf8_lossy(&bytes)))?;
        if let RuntimeMessage::Welcome(welcome) = message {
            self.sessions.push((welcome.session_id, welcome.resume_token));
        }
        Ok(())
    }

    /// Whatever happened, time ends it.
    fn end(mut self) -> Result<(), String> {
        for conn in self.conns.clone() {
            self.machine.disconnected(self.now, conn);
        }
        for _ in 0..10_000 {
            self.machine.handle_stored(self.now, self.last_ticket, Ok(()));
            for job in self.jobs.clone() {
                self.machine.finish(self.now, job, Outcome::Cancelled);
            }
            self.drain(1)?;
            match self.machine.poll_timeout() {
                Some(at) => self.now.mono = self.now.mono.max(at),
                None if self.machine.live_jobs() == 0 => return Ok(()),
                None => {}
            }
        }
        Err(format!(
            "{} jobs live on, the next timer is at {:?}",
            self.machine.live_jobs(),
            self.machine.poll_timeout()
        ))
    }
}

#[test]
fn no_order_of_calls_breaks_a_runtime() {
    let texts = (tree(), damage());
    run("machine_runtime", (any::<bool>(), ops(), vec(texts, 1..4)), |(durable, ops, texts)| {
        let mut host = Host::new(durable);
        host.open_some(&texts[0].1, ops[0].1)?;
        for (n, op) in ops.into_iter().enumerate() {
            let (text, damage) = &texts[n % texts.len()];
            host.act(op, text, damage)?;
        }
        host.end()
    });
}

/// An application that asks anything, over a link on which anything comes.
struct Application {
    machine: ClientMachine,
    now: Now,
    handles: Vec<HandleKey>,
    /// Requests that wait for one answer each.
    open: Vec<u64>,
    ids: Vec<String>,
    seq: u64,
}

impl Application {
    fn act(&mut self, (op, who, which, what): Op, text: &str, damage: &Damage) -> Result<(), String> {
        let (now, machine) = (self.now, &mut self.machine);
        match op {
            0 => machine.connected(now, "t"),
            1 if what < 40 => machine.disconnected(now, "gone"),
            1 if what < 60 => machine.oversize(now),
            1 if what < 80 => machine.connect_failed(now, text),
            1 => {
                self.handles.push(machine.job(now, &format!("job_{}", what % 3)));
            }
            2 if what < 10 => machine.close(now, text),
            2 => {
                let filter: Option<JobFilter> = what.is_multiple_of(2).then(JobFilter::default);
                let list = ListJobs { filter, limit: Some(u64::from(what) + 1), cursor: Some(text.to_owned()) };
                if let Ok(ticket) = machine.list_jobs(now, &list) {
                    self.open.push(ticket.0);
                }
            }
            3 => machine.handle_frame(now, &damaged(which.get::<String>(&FRAMES), damage).into()),
            4 => machine.handle_frame(now, &Bytes::from(text.to_owned())),
            5 | 6 => {
                let mut submit = Submit::new("echo", RawJson::null());
                submit.idempotency_key = (what.is_multiple_of(3)).then(|| text.to_owned());
                let ticket = machine.submit(now, &submit, None);
                self.open.push(ticket.0);
            }
            7 => {
                let subscribe =
                    Subscribe { job_id: "job_1".into(), from_event_seq: None, history: what.is_multiple_of(2) };
                if let Ok(ticket) = machine.subscribe(now, &subscribe) {
                    self.open.push(ticket.0);
                }
            }
            8 => {
                let ticket = machine.cancel(now, "job_1", text);
                self.open.push(ticket.0);
            }
            9 => machine.unsubscribe(now, "job_1"),
            10 => machine.ack(now, u64::from(what)),
            11 => machine.processed(now, u64::from(what)),
            12 => machine.reading_paused(now),
            13 => {
                if !self.handles.is_empty() {
                    machine.leave_chunks(*which.get(&self.handles));
                }
                if !self.handles.is_empty() {
                    machine.forget(*who.get(&self.handles));
                }
            }
            14 => self.now.mono += Duration::from_millis(u64::from(what) * 200),
            15 => self.now.wall.0 += (i64::from(what) - 128) * 10_000,
            _ => self.hear(op, which, what, damage),
        }
        self.drain()
    }

    /// A message of a runtime that is nearly right.
    fn hear(&mut self, op: u8, which: Index, what: u8, damage: &Damage) {
        let request = which.get(&self.ids).clone();
        let time = "2026-05-13T19:30:00.000Z";
        let job = format!("job_{}", what % 3);
        let features: Vec<&str> = Feature::ALL.into_iter().map(Feature::as_str).collect();
        let (kind, payload) = match op {
            16 | 17 => (
                "session.welcome",
                json!({"session_id": "sess_1", "runtime": {"name": "r", "version": "1"}, "resume_token": "rt",
                    "resume_window_sec": 60, "heartbeat_interval_sec": 5,
                    "capabilities": {"encodings": ["json"], "features": features, "agents": []}, "accepted_at": time}),
            ),
            18 | 19 => (
                "job.accepted",
                json!({"job_id": job, "agent": "echo", "lease": {}, "accepted_at": time, "request_id": request}),
            ),
            20 => (
                "job.subscribed",
                json!({"job_id": job, "current_status": "running", "agent": "echo", "lease": {}, "parent_job_id": null,
                    "subscribed_from": 0, "replayed": false, "request_id": request}),
            ),
            21 => ("job.cancelled", json!({"job_id": job, "request_id": request})),
            22 => {
                let error = json!({"code": "INTERNAL_ERROR", "message": "m", "retryable": true, "request_id": request});
                ("session.error", error)
            }
            23 => (
                "job.error",
                json!({"final_status": "error", "code": "INTERNAL_ERROR", "message": "m", "retryable": true}),
            ),
            24 => ("job.result", json!({"final_status": "success", "result": 1, "completed_at": time})),
            25 => ("session.ping", json!({"nonce": "n", "sent_at": time})),
            26 if what < 10 => ("session.bye", json!({"reason": "r"})),
            26 => ("session.closed", json!({"request_id": request})),
            _ => ("job.event", json!({"kind": "log", "ts": time, "body": {"level": "info", "message": "m"}})),
        };
        let mut message = json!({"arcp": "1.1", "id": "m", "type": kind, "session_id": "sess_1", "payload": payload});
        if kind.starts_with("job.") {
            message["job_id"] = job.into();
        }
        if matches!(kind, "job.event" | "job.result" | "job.error") {
            self.seq += u64::from(!what.is_multiple_of(16));
            message["event_seq"] = self.seq.into();
        }
        let text = message.to_string();
        let bytes = if what.is_multiple_of(8) { damaged(&text, damage) } else { text.into_bytes() };
        self.machine.handle_frame(self.now, &bytes.into());
    }

    fn drain(&mut self) -> Result<(), String> {
        if self.machine.poll_timeout().is_some_and(|at| at <= self.now.mono) {
            self.machine.handle_timeout(self.now);
            if let Some(at) = self.machine.poll_timeout().filter(|at| *at <= self.now.mono) {
                return Err(format!("a timer at {at:?} is still due at {:?}", self.now.mono));
            }
        }
        let mut asked = 0;
        while let Some(event) = self.machine.poll_event() {
            asked += 1;
            if asked > MOST_ASKED {
                return Err("events do not end".into());
            }
            let answered = match event {
                ClientEvent::Accepted(ticket, handle, _) | ClientEvent::Subscribed(ticket, handle, _) => {
                    self.handles.push(handle);
                    Some(ticket)
                }
                ClientEvent::Cancelled(ticket, _)
                | ClientEvent::Refused(ticket, _)
                | ClientEvent::Jobs(ticket, _)
                | ClientEvent::Unknown(ticket)
                | ClientEvent::TimedOut(ticket) => Some(ticket),
                ClientEvent::Connect { attempt } if attempt.is_multiple_of(3) => {
                    self.machine.connect_failed(self.now, "refused");
                    None
                }
                ClientEvent::Connect { .. } => {
                    self.machine.connected(self.now, "t");
                    None
                }
                _ => None,
            };
            if let Some(ticket) = answered {
                let place = self.open.iter().position(|open| *open == ticket.0);
                self.open.swap_remove(place.ok_or_else(|| format!("{ticket:?} is answered twice"))?);
            }
        }
        let mut frames = Vec::new();
        self.machine.poll_transmit(&mut frames);
        if frames.len() > MOST_ASKED {
            return Err("frames do not end".into());
        }
        for frame in frames {
            let message: Value = serde_json::from_slice(&frame).map_err(|error| error.to_string())?;
            self.ids.extend(message["id"].as_str().map(str::to_owned));
        }
        Ok(())
    }

    /// Every request has one answer in bounded time, if only that the transport ended (D-7).
    fn end(mut self) -> Result<(), String> {
        for _ in 0..1000 {
            self.drain()?;
            match self.machine.poll_timeout() {
                Some(at) => self.now.mono = self.now.mono.max(at),
                None => break,
            }
        }
        self.machine.never_reconnect();
        self.machine.disconnected(self.now, "gone");
        self.machine.close(self.now, "enough");
        self.drain()?;
        match self.machine.poll_timeout() {
            Some(at) => Err(format!("a timer is left at {at:?}")),
            None => Ok(()),
        }
    }
}

#[test]
fn no_order_of_calls_breaks_a_client() {
    let texts = (tree(), damage());
    run("machine_client", (any::<Option<Index>>(), ops(), vec(texts, 1..4)), |(welcome, ops, texts)| {
        let config = ClientConfig::new(PeerInfo { name: "fuzz".into(), version: "1".into() });
        let machine = ClientMachine::new(config, Box::new(Seeded(9)));
        let mut application = Application {
            machine,
            now: start(),
            handles: Vec::new(),
            open: Vec::new(),
            ids: vec!["none".into()],
            seq: 0,
        };
        if let Some(which) = welcome {
            application.machine.connected(application.now, "t");
            application.hear(16, which, 1, &Vec::new());
        }
        for (n, op) in ops.into_iter().enumerate() {
            let (text, damage) = &texts[n % texts.len()];
            application.act(op, text, damage)?;
        }
        application.end()
    });
}
