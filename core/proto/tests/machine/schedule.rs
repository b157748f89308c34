//! Random schedules: whatever the order of connects, cuts, submits, emits, cancels, ends, subscriptions, stalls, store
//! answers and time, the witness finds no fault, nothing panics, and nothing is left behind.

use std::collections::{BTreeMap, BTreeSet};

use arcp_proto::json::RawJson;
use arcp_proto::machine::job::Outcome;
use arcp_proto::machine::runtime::JobKey;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::Result;
use crate::client::App;
use crate::runner::run;
use crate::world::World;

const PEERS: u8 = 4;
const BUFFER_CAP: usize = 12;

fn given(durable: bool) -> Value {
    json!({
        "agents": ["echo@1.0.0"],
        "history": "waits",
        "config": {
            "durable": durable, "max_concurrent_jobs": 2, "max_waiting_jobs": 3, "max_ended_jobs": 3,
            "retention_ms": 5000, "resume_window_ms": 3000, "idempotency_ms": 8000, "cancel_grace_ms": 2000,
            "lease_grace_ms": 100, "heartbeat_ms": 10000, "outgoing_high_water": 4,
            "buffer_cap_events": BUFFER_CAP, "max_sessions_per_principal": 3,
        },
    })
}

/// A world, and what the schedule knows of it.
struct Run {
    world: World,
    /// Jobs in the order of their acceptance, with the connection that submitted them.
    jobs: Vec<(String, String)>,
    /// Events each job has emitted.
    emitted: BTreeMap<JobKey, u64>,
    follows: BTreeSet<(String, String)>,
    /// The most that any job has said so far.
    longest: usize,
    /// Whether frames wait for their connection only: a durable store may release any number at once.
    bounded: bool,
}

impl Run {
    fn new(durable: bool) -> Self {
        let world = World::new(&given(durable)).unwrap();
        Run {
            world,
            jobs: Vec::new(),
            emitted: BTreeMap::new(),
            follows: BTreeSet::new(),
            longest: 0,
            bounded: !durable,
        }
    }

    fn is_open(&mut self, name: &str) -> bool {
        self.world.peer(name).is_ok_and(|peer| !peer.closing && !peer.is_gone() && peer.session.is_some())
    }

    fn job(&self, choice: u8) -> Option<String> {
        let place = usize::from(choice).checked_rem(self.jobs.len())?;
        Some(self.jobs[place].0.clone())
    }

    fn act(&mut self, op: u8, who: u8, what: u8) -> Result<()> {
        let name = format!("{}{}", if who.is_multiple_of(2) { "a" } else { "b" }, who % PEERS);
        let open = self.is_open(&name);
        let job_id = self.job(what);
        let job = job_id.as_deref().and_then(|job_id| self.world.job(job_id).ok());
        match op {
            0 | 1 if !open => {
                if self.world.peers.contains_key(&name) {
                    self.world.drop_peer(&name)?;
                }
                let token = if who.is_multiple_of(2) { "tok-alice" } else { "tok-bob" };
                let all = json!(["ack", "subscribe", "progress", "heartbeat"]);
                let few = json!(["subscribe"]);
                // A full house is a refusal, not a fault.
                let _ = self.world.open(&name, token, Some(if what.is_multiple_of(3) { &few } else { &all }));
            }
            2 if self.world.peers.contains_key(&name) => {
                self.world.drop_peer(&name)?;
            }
            3..=5 if open => {
                let mut submit = json!({"agent": "echo", "input": what % 2});
                if what.is_multiple_of(3) {
                    submit["idempotency_key"] = format!("k{}", what % 4).into();
                }
                if what.is_multiple_of(5) {
                    submit["max_runtime_sec"] = 1.into();
                }
                self.world.send(&name, &json!({"type": "job.submit", "payload": submit}))?;
            }
            6 if open => {
                if let Some(job_id) = job_id {
                    let payload = json!({"job_id": job_id, "history": who >= 128});
                    self.world.send(&name, &json!({"type": "job.subscribe", "payload": payload}))?;
                }
            }
            7 if open => {
                // What it leaves it has read up to here.
                self.world.set_stalled(&name, false)?;
                self.world.store_all()?;
                self.look()?;
                if let Some(job_id) = job_id.filter(|job_id| !self.jobs.contains(&(job_id.clone(), name.clone()))) {
                    self.world.send(&name, &json!({"type": "job.unsubscribe", "payload": {"job_id": job_id}}))?;
                    let session = self.world.peer(&name)?.session.clone().unwrap_or_default();
                    self.world.witness.unfollowed(&session, &job_id);
                    self.follows.remove(&(session, job_id));
                }
            }
            8 if open => {
                if let Some(job_id) = job_id {
                    let payload = json!({"job_id": job_id, "reason": "enough"});
                    self.world.send(&name, &json!({"type": "job.cancel", "payload": payload}))?;
                }
            }
            9..=13 => {
                // An emitter that is told to wait does.
                if let Some(job) = job.filter(|job| !self.world.machine.must_wait(*job)) {
                    self.emit(job, what)?;
                }
            }
            14 => {
                if let Some(job) = job {
                    let outcome = match what % 3 {
                        0 => Outcome::Success(RawJson::null()),
                        1 => Outcome::Failed(arcp_proto::Error::internal("it failed")),
                        _ => Outcome::Cancelled,
                    };
                    self.world.finish(job, outcome)?;
                }
            }
            15 => self.world.pass(std::time::Duration::from_millis(u64::from(what) * 40))?,
            16 if open => self.world.set_stalled(&name, true)?,
            17 if open => self.world.set_stalled(&name, false)?,
            18 if open => {
                self.world.send(&name, &json!({"type": "session.ack", "payload": {"last_processed_seq": what}}))?;
            }
            19 if open => self.world.send_bytes(&name, if what.is_multiple_of(2) { b"?" } else { b"{}" })?,
            20 | 21 if !self.world.unanswered.is_empty() => {
                self.world.answer_history(op == 20)?;
                self.world.settle()?;
            }
            22..=24 => self.store(what)?,
            _ => {}
        }
        self.look()
    }

    fn emit(&mut self, job: JobKey, what: u8) -> Result<()> {
        if what.is_multiple_of(4) {
            let body = RawJson::parse(r#"{"current":1}"#).unwrap();
            return self.world.emit(job, "progress", &body).map(drop);
        }
        let n = self.emitted.get(&job).copied().unwrap_or(0) + 1;
        let body = RawJson::parse(&format!(r#"{{"level":"info","message":"m","x-n":{n}}}"#)).unwrap();
        if self.world.emit(job, "log", &body)?.is_ok() {
            self.emitted.insert(job, n);
        }
        Ok(())
    }

    fn store(&mut self, what: u8) -> Result<()> {
        let waiting = &self.world.store.waiting;
        let ticket = |entry: Option<&(u64, bool)>| entry.map(|(ticket, _)| *ticket);
        match (ticket(waiting.front()), ticket(waiting.back())) {
            (Some(_), Some(last)) if what.is_multiple_of(5) => self.world.stored(last, Err("disk full".into())),
            (Some(first), _) if what % 5 == 1 => self.world.stored(first, Ok(())),
            (_, Some(last)) => self.world.stored(last, Ok(())),
            _ => Ok(()),
        }
    }

    /// Reads what arrived: the witness has seen it already.
    fn look(&mut self) -> Result<()> {
        // A replay is bounded by what its job has said, of whatever kind.
        self.longest = self.longest.max(self.world.store.longest_history());
        let longest = self.longest;
        for (name, peer) in &mut self.world.peers {
            if self.bounded && peer.inbox.len() > BUFFER_CAP + 2 + longest {
                return Err(format!("{} frames waited for {name}", peer.inbox.len()));
            }
            for (frame, _) in peer.inbox.drain(..) {
                let job_id = frame["job_id"].as_str().unwrap_or_default().to_owned();
                if frame["type"] == "job.accepted" && !self.jobs.iter().any(|(known, _)| *known == job_id) {
                    self.jobs.push((job_id.clone(), name.clone()));
                }
                if frame["type"] == "job.accepted" {
                    self.follows.insert((peer.session.clone().unwrap_or_default(), job_id));
                }
            }
        }
        self.world.asked.clear();
        Ok(())
    }

    /// Everybody reads, the store answers, every job ends: whoever is still there has seen the end of what it asked for.
    fn end(mut self) -> Result<()> {
        let names: Vec<String> = self.world.peers.keys().cloned().collect();
        for _ in 0..1000 {
            for name in &names {
                if self.is_open(name) {
                    self.world.set_stalled(name, false)?;
                }
            }
            self.store(2)?;
            match self.world.alive() {
                Some(job) => self.world.finish(job, Outcome::Success(RawJson::null()))?,
                None if !self.world.unanswered.is_empty() => {
                    self.world.answer_history(false)?;
                    self.world.settle()?;
                }
                None if self.world.store.waiting.is_empty() => break,
                None => {}
            }
            self.look()?;
        }
        for name in &names {
            if !self.is_open(name) {
                continue;
            }
            let session = self.world.peer(name)?.session.clone().unwrap_or_default();
            let unseen = self.follows.iter().find(|(who, job)| *who == session && !self.world.witness.ended(who, job));
            if let Some((_, job)) = unseen {
                return Err(format!("{name} never saw the end of {job}"));
            }
        }
        self.world.leave_nothing()
    }
}

#[test]
fn a_runtime_keeps_its_word() {
    let ops = prop::collection::vec((0_u8..25, any::<u8>(), any::<u8>()), 1..120);
    run("schedule_runtime", (any::<bool>(), ops), |(durable, ops)| {
        let mut run = Run::new(durable);
        for (op, who, what) in ops {
            run.act(op, who, what)?;
        }
        run.end()
    });
}

/// The runtime's own frames over a link that repeats and loses: nothing is delivered twice or out of order, and a
/// loss is noticed at the next number (R-8.3.4 to R-8.3.6).
#[test]
fn a_client_delivers_once() {
    let ops = prop::collection::vec((0_u8..12, any::<u8>()), 1..120);
    run("schedule_client", (any::<bool>(), ops), |(lossy, ops)| deliver(lossy, &ops));
}

/// Two clients of one principal: one submits, the other follows.
fn deliver(lossy: bool, ops: &[(u8, u8)]) -> Result<()> {
    let mut world = World::new(&json!({"config": {"heartbeat_ms": null}}))?;
    let mut ends: BTreeMap<&str, End> = BTreeMap::new();
    for name in ["a", "b"] {
        world.connect(name)?;
        let mut app = App::new(&json!({}))?;
        app.machine.connected(app.clock.0, "tok-alice");
        app.drain();
        ends.insert(name, End { app, handles: BTreeMap::new(), last_seq: 0, lost_from: None });
    }
    let mut jobs: Vec<String> = Vec::new();
    let mut n: BTreeMap<String, u64> = BTreeMap::new();
    for (op, what) in ops.iter().copied() {
        let job_id = usize::from(what).checked_rem(jobs.len()).map(|place| jobs[place].clone());
        match (op, job_id) {
            (0 | 1, _) => {
                let app = &mut ends.get_mut("a").unwrap().app;
                app.machine.submit(app.clock.0, &crate::client::submit(&json!({"agent": "echo"}))?, None);
            }
            (2 | 3, Some(job_id)) => {
                let app = &mut ends.get_mut("b").unwrap().app;
                let history = json!({"job_id": job_id, "history": true});
                // A session that is lost cannot subscribe.
                let _ = app.machine.subscribe(app.clock.0, &crate::client::subscribe(&history));
            }
            (4..=9, Some(job_id)) => {
                let n = n.entry(job_id.clone()).or_default();
                *n += 1;
                let body = RawJson::parse(&format!(r#"{{"level":"info","message":"m","x-n":{n}}}"#)).unwrap();
                let job = world.job(&job_id)?;
                world.emit(job, "log", &body)?.map_err(|error| error.message)?;
            }
            (10, Some(job_id)) => {
                let job = world.job(&job_id)?;
                world.finish(job, Outcome::Success(RawJson::null()))?;
            }
            _ => {}
        }
        for (name, end) in &mut ends {
            end.app.drain();
            for frame in std::mem::take(&mut end.app.frames) {
                world.send_bytes(name, frame.as_bytes())?;
            }
            for (frame, text) in std::mem::take(&mut world.peer(name)?.inbox) {
                if frame["type"] == "job.accepted" {
                    jobs.push(frame["job_id"].as_str().unwrap_or_default().to_owned());
                }
                let numbered = frame["event_seq"].as_u64();
                if let Some(seq) = numbered.filter(|_| lossy && op == 9 && what % 7 == 0) {
                    end.lost_from.get_or_insert(seq);
                    continue;
                }
                end.app.receive(&text);
                // A repeat, as after a resume.
                if what % 3 == 0 && numbered.is_some() {
                    end.app.receive(&text);
                }
            }
            end.check()?;
        }
        world.asked.clear();
    }
    Ok(())
}

/// One client and what it was told.
struct End {
    app: App,
    /// The last number in the body of an event, by handle; gone when it ended.
    handles: BTreeMap<u64, Option<u64>>,
    last_seq: u64,
    /// The first number the link lost.
    lost_from: Option<u64>,
}

impl End {
    fn check(&mut self) -> Result<()> {
        for event in std::mem::take(&mut self.app.events) {
            let handle = event["handle"].as_u64().unwrap_or_default();
            match event["event"].as_str().unwrap_or_default() {
                "event" => {
                    let seq = event["event_seq"].as_u64().unwrap_or_default();
                    if self.lost_from.is_some_and(|lost| seq > lost) {
                        return Err(format!("{event} was delivered behind a gap"));
                    }
                    // A job with two handles tells both of one number.
                    if seq != self.last_seq && seq < self.last_seq {
                        return Err(format!("{event} follows number {}", self.last_seq));
                    }
                    self.last_seq = seq;
                    let n = event["body"]["x-n"].as_u64();
                    let last = self.handles.entry(handle).or_insert(Some(0));
                    match last {
                        None => return Err(format!("{event} follows the end")),
                        Some(0) => {}
                        Some(last) if n == Some(*last + 1) => {}
                        Some(last) => return Err(format!("{event} follows event {last}")),
                    }
                    *last = n;
                }
                "ended" if self.handles.insert(handle, None) == Some(None) => {
                    return Err(format!("handle {handle} ended twice"));
                }
                "lost" if self.lost_from.is_none() => return Err(format!("{event} with nothing lost")),
                _ => {}
            }
        }
        Ok(())
    }
}
