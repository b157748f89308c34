//! A client against a runtime that replays exactly, over a link that cuts, drops, repeats and stalls: whatever the
//! schedule, every event is told once and in order, every request is settled once, and every handle ends once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::Result;
use crate::client::App;
use crate::clock::START;
use crate::runner::run;

#[test]
fn a_healing_client_tells_everything_once() {
    let ops = prop::collection::vec((0_u8..16, any::<u8>()), 1..160);
    run("schedule_healing", ops, |ops| Schedule::new().and_then(|schedule| schedule.play(&ops)));
}

/// A job at the runtime.
#[derive(Default)]
struct Job {
    /// The submitting session.
    session: usize,
    /// Payload and number in the submitting session's space, in order.
    records: Vec<(&'static str, Value, u64)>,
    ended: bool,
}

#[derive(Default)]
struct Session {
    token: String,
    /// The hello that brought the token, and the token it showed.
    brought_by: Option<(String, String)>,
    /// Every numbered frame.
    log: Vec<String>,
    gone: bool,
    answers: BTreeMap<String, String>,
    follows: BTreeSet<String>,
    acked: u64,
}

/// A runtime that keeps everything, and its end of the link.
#[derive(Default)]
struct Peer {
    sessions: Vec<Session>,
    serving: Option<usize>,
    jobs: BTreeMap<String, Job>,
    keys: BTreeMap<String, String>,
    made: u64,
    to_client: VecDeque<String>,
}

impl Peer {
    fn fresh(&mut self, prefix: &str) -> String {
        self.made += 1;
        format!("{prefix}{:026}", self.made)
    }

    fn say(&mut self, session: usize, kind: &str, job_id: Option<&str>, payload: Value) -> String {
        let id = self.fresh("msg_");
        let frame = json!({
            "arcp": "1.1", "id": id, "type": kind, "session_id": name(session), "job_id": job_id, "payload": payload,
        });
        let text = frame.to_string();
        self.to_client.push_back(text.clone());
        text
    }

    /// A numbered frame: kept, and sent while the session has the link.
    fn number(&mut self, session: usize, job_id: &str, kind: &str, payload: &Value, source: Option<u64>) {
        if self.sessions[session].gone {
            return;
        }
        let id = self.fresh("msg_");
        let mut frame = json!({
            "arcp": "1.1", "id": id, "type": kind, "session_id": name(session), "job_id": job_id,
            "event_seq": self.sessions[session].log.len() + 1, "payload": payload,
        });
        if let Some(source) = source {
            frame["extensions"] = json!({"x-vendor.arcp.source_event_seq": source});
        }
        self.sessions[session].log.push(frame.to_string());
        if self.serving == Some(session) {
            self.to_client.push_back(frame.to_string());
        }
    }

    fn record(&mut self, job_id: &str, kind: &'static str, payload: Value) {
        let Some(job) = self.jobs.get(job_id).filter(|job| !job.ended) else { return };
        let own = job.session;
        let last = job.records.last().map_or(0, |(_, _, source)| *source);
        // The space goes on without its session.
        let source = (self.sessions[own].log.len() as u64 + 1).max(last + 1);
        self.number(own, job_id, kind, &payload, None);
        for session in 0..self.sessions.len() {
            if self.sessions[session].follows.contains(job_id) {
                self.number(session, job_id, kind, &payload, Some(source));
            }
        }
        let job = self.jobs.get_mut(job_id).unwrap();
        job.ended = kind == "job.result";
        job.records.push((kind, payload, source));
    }

    fn emit(&mut self, job_id: &str) {
        let n = self.jobs[job_id].records.len() + 1;
        self.record(job_id, "job.event", json!({"kind": "log", "ts": START, "body": {"n": n}}));
    }

    fn finish(&mut self, job_id: &str) {
        self.record(job_id, "job.result", json!({"final_status": "success", "result": 1, "completed_at": START}));
    }

    fn welcome(&mut self, session: usize) {
        let token = self.sessions[session].token.clone();
        let features = ["ack", "subscribe", "list_jobs"];
        let payload = json!({
            "session_id": name(session), "runtime": {"name": "r", "version": "1"}, "resume_token": token,
            "resume_window_sec": 600, "capabilities": {"encodings": ["json"], "features": features, "agents": []},
        });
        self.serving = Some(session);
        self.say(session, "session.welcome", None, payload);
    }

    fn hello(&mut self, id: &str, resume: &Value) {
        if resume.is_null() {
            let token = self.fresh("rt_");
            self.sessions.push(Session { token, ..Session::default() });
            return self.welcome(self.sessions.len() - 1);
        }
        let shown = resume["resume_token"].as_str().unwrap_or_default().to_owned();
        let last = usize::try_from(resume["last_event_seq"].as_u64().unwrap()).unwrap();
        let found = (0..self.sessions.len()).find(|session| name(*session) == resume["session_id"]);
        let fits = |session: &Session| {
            let again = session.brought_by.as_ref() == Some(&(id.to_owned(), shown.clone()));
            !session.gone && last <= session.log.len() && (session.token == shown || again)
        };
        let Some(found) = found.filter(|session| fits(&self.sessions[*session])) else {
            let payload = json!({"code": "RESUME_WINDOW_EXPIRED", "message": "gone", "retryable": false});
            self.say(0, "session.error", None, payload);
            return;
        };
        if self.sessions[found].token == shown {
            self.sessions[found].token = self.fresh("rt_");
            self.sessions[found].brought_by = Some((id.to_owned(), shown));
        }
        self.welcome(found);
        let replay = self.sessions[found].log[last..].to_vec();
        self.to_client.extend(replay);
    }

    fn receive(&mut self, text: &str) -> Result<()> {
        let frame: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let (id, payload) = (frame["id"].as_str().unwrap_or_default(), &frame["payload"]);
        let kind = frame["type"].as_str().unwrap_or_default();
        if kind == "session.hello" {
            self.hello(id, &payload["resume"]);
            return Ok(());
        }
        let session = self.serving.ok_or_else(|| format!("{kind} before a welcome"))?;
        if frame["session_id"] != name(session) {
            return Err(format!("{kind} for another session: {text}"));
        }
        if let Some(answer) = self.sessions[session].answers.get(id).cloned() {
            self.to_client.push_back(answer);
            return Ok(());
        }
        let answer = match kind {
            "session.ack" => {
                let acked = payload["last_processed_seq"].as_u64().unwrap_or_default();
                if acked > self.sessions[session].log.len() as u64 {
                    return Err(format!("{acked} was acknowledged and never numbered"));
                }
                self.sessions[session].acked = acked;
                return Ok(());
            }
            "job.submit" => {
                let key = payload["idempotency_key"].as_str();
                let known = key.and_then(|key| self.keys.get(key)).cloned();
                let job_id = known.clone().unwrap_or_else(|| self.fresh("job_"));
                let accepted = json!({"job_id": job_id, "agent": "echo", "lease": {}, "request_id": id});
                let answer = self.say(session, "job.accepted", Some(&job_id), accepted);
                match known {
                    None => {
                        self.jobs.insert(job_id.clone(), Job { session, ..Job::default() });
                        self.keys.extend(key.map(|key| (key.to_owned(), job_id)));
                    }
                    Some(job_id) => self.follow(session, &job_id, None),
                }
                answer
            }
            "job.subscribe" => {
                let job_id = frame["job_id"].as_str().unwrap_or_default();
                let own = self.jobs[job_id].session == session;
                let follows = self.sessions[session].follows.contains(job_id);
                let from = payload["from_event_seq"].as_u64().unwrap_or_default();
                let from = Some(from).filter(|_| payload["history"] == true && !own && !follows);
                let records = &self.jobs[job_id].records;
                let replayed = from.is_some_and(|from| records.iter().any(|(_, _, source)| *source > from));
                let subscribed = json!({
                    "job_id": job_id, "current_status": if self.jobs[job_id].ended { "success" } else { "running" },
                    "agent": "echo", "lease": {}, "parent_job_id": null, "replayed": replayed, "request_id": id,
                    "subscribed_from": records.last().map_or(0, |(_, _, source)| *source),
                });
                let answer = self.say(session, "job.subscribed", Some(job_id), subscribed);
                if !own && !follows {
                    self.follow(session, job_id, from.or(Some(u64::MAX)));
                }
                answer
            }
            other => return Err(format!("nobody expected {other}")),
        };
        self.sessions[session].answers.insert(id.to_owned(), answer);
        Ok(())
    }

    /// History above a number, or the end of an ended job, and everything from now on.
    fn follow(&mut self, session: usize, job_id: &str, from: Option<u64>) {
        let records = self.jobs[job_id].records.clone();
        for (kind, payload, source) in records {
            if from.map_or(kind == "job.result", |from| source > from) {
                self.number(session, job_id, kind, &payload, Some(source));
            }
        }
        if self.jobs[job_id].session != session {
            self.sessions[session].follows.insert(job_id.to_owned());
        }
    }
}

/// The session of another client.
const OTHER: usize = 0;

fn name(session: usize) -> String {
    format!("sess_{session}")
}

/// What a handle was told.
#[derive(Default)]
struct Told {
    job_id: String,
    /// Whether every event is due, from the first on.
    whole: bool,
    last: Option<u64>,
    ended: Option<Value>,
}

struct Schedule {
    app: App,
    peer: Peer,
    to_peer: VecDeque<String>,
    up: bool,
    refuses_links: bool,
    asked: u64,
    settled: BTreeMap<String, Value>,
    handles: BTreeMap<u64, Told>,
    over: bool,
}

impl Schedule {
    fn new() -> Result<Self> {
        let app = App::new(&json!({"config": {"reconnect": true}}))?;
        let mut schedule = Schedule {
            app,
            peer: Peer { sessions: vec![Session::default()], ..Peer::default() },
            to_peer: VecDeque::new(),
            up: true,
            refuses_links: false,
            asked: 0,
            settled: BTreeMap::new(),
            handles: BTreeMap::new(),
            over: false,
        };
        schedule.app.machine.connected(schedule.app.clock.0, "t");
        schedule.carry(usize::MAX)?;
        Ok(schedule)
    }

    fn play(mut self, ops: &[(u8, u8)]) -> Result<()> {
        for (op, what) in ops {
            self.act(*op, *what)?;
            self.hear()?;
        }
        self.settle_down()
    }

    fn act(&mut self, op: u8, what: u8) -> Result<()> {
        let now = self.app.clock.0;
        let jobs: Vec<String> = self.peer.jobs.keys().cloned().collect();
        let job = usize::from(what).checked_rem(jobs.len()).map(|place| jobs[place].clone());
        match (op, job) {
            (0 | 1, _) => {
                self.asked += 1;
                let mut payload = json!({"agent": "echo"});
                if what.is_multiple_of(2) {
                    payload["idempotency_key"] = format!("k{}", self.asked).into();
                }
                let ticket = self.app.machine.submit(now, &crate::client::submit(&payload)?, None);
                self.app.name(ticket, &format!("r{}", self.asked));
            }
            (2..=5, Some(job)) => (0..=what % 4).for_each(|_| self.peer.emit(&job)),
            (6, Some(job)) => self.peer.finish(&job),
            // One subscribes to jobs one knows: those that were accepted, and those of others.
            (7, Some(job)) if self.peer.jobs[&job].session == OTHER || self.knows(&job) => {
                let subscribe = json!({"job_id": job, "history": what.is_multiple_of(2)});
                if let Ok(ticket) = self.app.machine.subscribe(now, &crate::client::subscribe(&subscribe)) {
                    self.asked += 1;
                    self.app.name(ticket, &format!("r{}", self.asked));
                }
            }
            (8 | 9, _) => self.carry(usize::from(what % 8))?,
            (10, _) => self.cut(),
            (11, _) => {
                // A frame is lost from the middle: only a broken runtime or proxy does that.
                let at = usize::from(what) % (self.peer.to_client.len() + 1);
                let numbered = self.peer.to_client.get(at).is_some_and(|text| text.contains("event_seq\":"));
                // A loss shows at the next number: one that nothing follows cannot be told from a quiet runtime.
                let followed = self.peer.to_client.iter().skip(at + 1).any(|text| text.contains("event_seq\":"));
                if numbered && followed && what.is_multiple_of(3) {
                    self.peer.to_client.remove(at);
                }
            }
            (12, _) => {
                if let Some(text) = self.peer.to_client.front().filter(|text| text.contains("event_seq\":")).cloned() {
                    self.peer.to_client.insert(1, text);
                }
            }
            (13, _) if what.is_multiple_of(4) => {
                self.peer.sessions.iter_mut().skip(1).for_each(|session| session.gone = true);
                self.cut();
            }
            (15, _) if what.is_multiple_of(3) => {
                let job_id = self.peer.fresh("job_");
                self.peer.jobs.insert(job_id, Job { session: OTHER, ..Job::default() });
            }
            (14, _) => self.refuses_links = what.is_multiple_of(3),
            _ => self.pass(u64::from(what) * 10)?,
        }
        Ok(())
    }

    fn knows(&self, job_id: &str) -> bool {
        self.handles.values().any(|told| told.job_id == job_id)
    }

    fn pass(&mut self, ms: u64) -> Result<()> {
        self.app.pass(Duration::from_millis(ms));
        self.hear()
    }

    fn cut(&mut self) {
        if self.up {
            self.drop_link();
            self.app.machine.disconnected(self.app.clock.0, "cut");
        }
    }

    fn drop_link(&mut self) {
        self.up = false;
        self.peer.to_client.clear();
        self.peer.serving = None;
        self.to_peer.clear();
        self.app.frames.clear();
    }

    /// Carries up to so many frames each way.
    fn carry(&mut self, count: usize) -> Result<()> {
        self.hear()?;
        for _ in 0..count {
            let up = self.to_peer.pop_front();
            if let Some(text) = &up {
                self.peer.receive(text)?;
            }
            let down = self.peer.to_client.pop_front();
            if let Some(text) = &down {
                self.app.receive(text);
                self.hear()?;
            }
            if up.is_none() && down.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// Looks at everything the client said, to its host and to its runtime.
    fn hear(&mut self) -> Result<()> {
        loop {
            self.app.drain();
            if self.up {
                self.to_peer.extend(self.app.frames.drain(..));
            } else if let Some(text) = self.app.frames.front() {
                return Err(format!("without a link it sent {text}"));
            }
            let Some(event) = self.app.events.pop_front() else { return Ok(()) };
            self.told(&event)?;
        }
    }

    fn told(&mut self, event: &Value) -> Result<()> {
        if self.over {
            return Err(format!("{event} after the end"));
        }
        let handle = event["handle"].as_u64().unwrap_or_default();
        let kind = event["event"].as_str().unwrap_or_default();
        match kind {
            "accepted" | "subscribed" | "refused" | "unknown" | "timed_out" => {
                let request = event["request"].as_str().unwrap_or_default().to_owned();
                if let Some(before) = self.settled.insert(request, event.clone()) {
                    return Err(format!("{event} was settled before: {before}"));
                }
                let job_id = event[kind]["job_id"].as_str().unwrap_or_default().to_owned();
                if kind == "accepted" {
                    let session = self.peer.serving.unwrap_or_default();
                    let whole = self.peer.jobs.get(&job_id).is_none_or(|job| job.session == session);
                    let first = self.handles.values().all(|told| told.job_id != job_id);
                    self.handles.insert(handle, Told { job_id, whole: whole && first, ..Told::default() });
                } else if kind == "subscribed" {
                    self.handles.entry(handle).or_default().job_id = job_id;
                }
            }
            "event" => {
                let told = self.handles.entry(handle).or_default();
                let n = event["body"]["n"].as_u64();
                let due = told.last.map(|last| last + 1).or(told.whole.then_some(1));
                if told.ended.is_some() || due.is_some_and(|due| n != Some(due)) {
                    return Err(format!("{event} where {due:?} is due, ended {:?}", told.ended));
                }
                told.last = n;
                let position = event["position"].as_u64().unwrap_or_default();
                self.app.machine.processed(self.app.clock.0, position);
            }
            "ended" => {
                let told = self.handles.entry(handle).or_default();
                if let Some(before) = told.ended.replace(event.clone()) {
                    return Err(format!("{event} ended before: {before}"));
                }
            }
            "cut" => self.drop_link(),
            "connect" if self.refuses_links => self.app.machine.connect_failed(self.app.clock.0, "refused"),
            "connect" => {
                self.up = true;
                self.app.machine.connected(self.app.clock.0, "t");
            }
            "lost" => self.over = true,
            "welcomed" | "resumed" | "started_over" | "session_error" => {}
            other => return Err(format!("nobody expected {other}: {event}")),
        }
        Ok(())
    }

    /// No more faults: everything comes to its end.
    fn settle_down(mut self) -> Result<()> {
        self.refuses_links = false;
        for round in 0..60 {
            self.carry(usize::MAX)?;
            if round == 20 {
                // Every job is known by now.
                let jobs: Vec<String> = self.peer.jobs.keys().cloned().collect();
                jobs.iter().for_each(|job| self.peer.finish(job));
            }
            self.pass(2000)?;
        }
        if self.over {
            // Only a runtime that leaves the same gap three times is given up.
            return Ok(());
        }
        if self.settled.len() as u64 != self.asked {
            return Err(format!("of {} requests only {:?} were settled", self.asked, self.settled.keys()));
        }
        // A handle whose subscribe was not answered in time is nobody's.
        for (handle, told) in self.handles.iter().filter(|(_, told)| !told.job_id.is_empty()) {
            let Some(end) = &told.ended else { return Err(format!("handle {handle} of {} never ended", told.job_id)) };
            let events = self.peer.jobs.get(&told.job_id).map_or(0, |job| job.records.len() as u64 - 1);
            let partly = told.last.is_none() && !told.whole;
            if end["result"].is_object() && !partly && told.last.unwrap_or_default() != events {
                return Err(format!(
                    "handle {handle} of {} ended well after {:?} of {events} events, whole {}; settled {:?}",
                    told.job_id, told.last, told.whole, self.settled
                ));
            }
        }
        let session = &self.peer.sessions[self.peer.serving.ok_or("it is not connected in the end")?];
        if session.acked != session.log.len() as u64 {
            return Err(format!("{} of {} were acknowledged", session.acked, session.log.len()));
        }
        Ok(())
    }
}
