//! Random cuts: whatever is lost on the way, acknowledged, stored late, cancelled or dies with the process, a client that
//! resumes has every event once, in order, and one end per job (R-6.3.3 to R-6.3.6, R-6.3.19). One whose session is gone
//! subscribes to its jobs in a new one, from the last number it has, and still has every event once (R-7.6.3).

use std::collections::{BTreeMap, BTreeSet};

use arcp_proto::json::RawJson;
use arcp_proto::machine::job::Outcome;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::Result;
use crate::runner::run;
use crate::world::World;

/// A client that keeps what it needs to resume, and nothing else.
struct Resumer {
    session: String,
    token: String,
    /// The hello that may be asked again, with the token it showed.
    asked: Option<(String, String)>,
    /// The connection's name, while it has one.
    conn: Option<String>,
    last_seq: u64,
    acked: u64,
    /// By number: what every replay must repeat.
    texts: BTreeMap<u64, String>,
    jobs: BTreeMap<String, Known>,
    /// Requests without an answer, by id: they are asked again over each new connection (D-17).
    unanswered: BTreeMap<String, Value>,
    /// The resume that was asked for is refused.
    refused: bool,
    conns: u32,
    requests: u32,
}

/// What the client has of a job.
#[derive(Default)]
struct Known {
    /// The last `x-n`; `None` when its first events went to a session that is gone, or may have.
    last: Option<u64>,
    /// The last number it has in the submitting session's space.
    source: u64,
    ended: bool,
    /// It was accepted again under its key: its end may be told again (R-7.2.9).
    again: bool,
}

struct Run {
    world: World,
    durable: bool,
    client: Resumer,
    /// What each living job said in this process, and what was said before it that was never stored.
    said: BTreeMap<String, u64>,
    /// Another session of the same principal, while it has a connection; the witness looks at what it gets.
    onlooker: Option<String>,
    onlookers: u32,
}

impl Run {
    /// `small`: a session keeps few events, so that some resumes come too late.
    fn new(durable: bool, small: bool) -> Result<Self> {
        let cap = if small { 20 } else { 100_000 };
        let given = json!({"config": {
            "durable": durable, "heartbeat_ms": null, "max_concurrent_jobs": 3, "buffer_cap_events": cap,
        }});
        let mut world = World::new(&given)?;
        world.witness.expect_replays_in_part();
        let welcome = world.open("c0", "tok-alice", Some(&json!(FEATURES)))?;
        let client = Resumer {
            session: welcome["session_id"].as_str().unwrap_or_default().to_owned(),
            token: welcome["payload"]["resume_token"].as_str().unwrap_or_default().to_owned(),
            asked: None,
            conn: Some("c0".into()),
            last_seq: 0,
            acked: 0,
            texts: BTreeMap::new(),
            jobs: BTreeMap::new(),
            unanswered: BTreeMap::new(),
            refused: false,
            conns: 0,
            requests: 0,
        };
        Ok(Run { world, durable, client, said: BTreeMap::new(), onlooker: None, onlookers: 0 })
    }

    fn act(&mut self, op: u8, what: u8) -> Result<()> {
        match op {
            0 | 1 => self.submit(what)?,
            2..=7 => (0..=what / 24).try_for_each(|_| self.emit(what))?,
            8 => self.finish(what)?,
            9 | 10 => self.read(usize::from(what / 4))?,
            11 => self.cut()?,
            12 | 13 => self.resume()?,
            14 => self.ack()?,
            15 if self.durable => self.restart(what)?,
            18 | 19 if self.client.unanswered.len() > 4 => {}
            18 => self.ask_of(what, "job.cancel", &json!({"reason": "enough"}))?,
            19 => self.ask("session.list_jobs", &json!({"limit": 1 + what % 4}))?,
            20 => self.look_on(what)?,
            21 => self.leave_onlooker()?,
            22 => self.lose_ack()?,
            _ if self.durable && what.is_multiple_of(3) => self.store_some()?,
            _ => self.world.store_all()?,
        }
        self.world.asked.clear();
        self.notice()
    }

    fn submit(&mut self, what: u8) -> Result<()> {
        // What is asked at once fits a small buffer.
        if self.client.unanswered.len() > 2 || self.client.jobs.values().filter(|known| !known.ended).count() > 4 {
            return Ok(());
        }
        let mut payload = json!({"agent": "echo"});
        if what.is_multiple_of(2) {
            payload["idempotency_key"] = format!("key-{}", self.client.requests).into();
        }
        self.ask("job.submit", &payload)
    }

    /// Asks something that has an answer.
    fn ask(&mut self, kind: &str, payload: &Value) -> Result<()> {
        let (Some(conn), None) = (self.client.conn.clone(), &self.client.asked) else { return Ok(()) };
        let id = format!("request-{:04}", self.client.requests);
        self.client.requests += 1;
        let message = json!({"type": kind, "id": id, "payload": payload});
        self.client.unanswered.insert(id, message.clone());
        self.world.send(&conn, &message).map(drop)
    }

    /// The same about a job that lives.
    fn ask_of(&mut self, what: u8, kind: &str, payload: &Value) -> Result<()> {
        let Some(job_id) = self.alive(what) else { return Ok(()) };
        let mut payload = payload.clone();
        payload["job_id"] = job_id.into();
        self.ask(kind, &payload)
    }

    /// Another session follows a job, from its first event on.
    fn look_on(&mut self, what: u8) -> Result<()> {
        let Some(job_id) = self.alive(what) else { return Ok(()) };
        let closing = match &self.onlooker {
            Some(name) => self.world.peer(name)?.closing,
            None => false,
        };
        if closing {
            self.leave_onlooker()?;
        }
        let name = match &self.onlooker {
            Some(name) => name.clone(),
            None => {
                self.onlookers += 1;
                let name = format!("o{}", self.onlookers);
                self.world.open(&name, "tok-alice", Some(&json!(FEATURES)))?;
                self.onlooker = Some(name.clone());
                name
            }
        };
        let payload = json!({"job_id": job_id, "history": true});
        self.world.send(&name, &json!({"type": "job.subscribe", "payload": payload})).map(drop)
    }

    fn leave_onlooker(&mut self) -> Result<()> {
        match self.onlooker.take() {
            Some(name) => self.world.drop_peer(&name),
            None => Ok(()),
        }
    }

    /// The link breaks under an acknowledgement: it is sent again, or a later one, or never.
    fn lose_ack(&mut self) -> Result<()> {
        self.client.acked = self.client.last_seq;
        self.cut()
    }

    fn alive(&self, what: u8) -> Option<String> {
        let alive: Vec<&String> =
            self.client.jobs.iter().filter(|(_, known)| !known.ended).map(|(job_id, _)| job_id).collect();
        let place = usize::from(what).checked_rem(alive.len())?;
        Some(alive[place].clone())
    }

    fn emit(&mut self, what: u8) -> Result<()> {
        let Some(job_id) = self.alive(what) else { return Ok(()) };
        let Ok(job) = self.world.job(&job_id) else { return Ok(()) };
        if self.world.machine.job(job).is_none_or(|job| job.status().is_terminal()) {
            return Ok(());
        }
        let n = self.said.entry(job_id).or_default();
        *n += 1;
        let body = RawJson::parse(&format!(r#"{{"level":"info","message":"m","x-n":{n}}}"#)).map_err(|e| e.message)?;
        self.world.emit(job, "log", &body)?.map_err(|error| error.message)
    }

    fn finish(&mut self, what: u8) -> Result<()> {
        let Some(job_id) = self.alive(what) else { return Ok(()) };
        match self.world.job(&job_id) {
            Ok(job) => self.world.finish(job, Outcome::Success(RawJson::null())),
            Err(_) => Ok(()),
        }
    }

    /// Reads at most so many frames; the rest stays in the socket.
    fn read(&mut self, most: usize) -> Result<()> {
        let Some(conn) = self.client.conn.clone() else { return Ok(()) };
        for _ in 0..most {
            let Some((frame, text)) = self.world.peer(&conn)?.inbox.pop_front() else { return Ok(()) };
            self.client.receive(&frame, &text)?;
        }
        Ok(())
    }

    /// The runtime gave up on a connection that took too much at once; the client hears it as a cut.
    fn notice(&mut self) -> Result<()> {
        match self.client.conn.clone() {
            Some(_) if self.client.refused => self.start_over(),
            Some(conn) if self.world.peer(&conn)?.closing => self.cut(),
            _ => Ok(()),
        }
    }

    /// The link breaks: what was not read is lost.
    fn cut(&mut self) -> Result<()> {
        let Some(conn) = self.client.conn.take() else { return Ok(()) };
        self.world.peer(&conn)?.inbox.clear();
        self.world.drop_peer(&conn)
    }

    fn resume(&mut self) -> Result<()> {
        // Half the time the old connection still looks open.
        if let Some(old) = self.client.conn.take() {
            self.world.peer(&old)?.inbox.clear();
        }
        self.client.conns += 1;
        let conn = format!("c{}", self.client.conns);
        self.world.connect(&conn)?;
        let (id, token) = match &self.client.asked {
            Some(asked) => asked.clone(),
            None => (format!("hello-{}", self.client.conns), self.client.token.clone()),
        };
        let resume =
            json!({"session_id": self.client.session, "resume_token": token, "last_event_seq": self.client.last_seq});
        let payload = json!({
            "client": {"name": "corpus", "version": "1.0"}, "auth": {"scheme": "bearer", "token": "tok-alice"},
            "capabilities": {"encodings": ["json"], "features": FEATURES}, "resume": resume,
        });
        self.client.asked = Some((id.clone(), token));
        self.world.send(&conn, &json!({"type": "session.hello", "id": id, "session_id": null, "payload": payload}))?;
        self.client.conn = Some(conn.clone());
        if self.is_refused(&conn)? {
            return self.start_over();
        }
        // Sometimes the welcome is lost with the next cut.
        if self.client.conns.is_multiple_of(3) {
            return Ok(());
        }
        self.world.store_all()?;
        self.welcomed(&conn)
    }

    /// Whether the resume was refused; the verifier answers at once, and a refusal does not wait for the store.
    fn is_refused(&mut self, conn: &str) -> Result<bool> {
        let inbox = &mut self.world.peer(conn)?.inbox;
        let refused = |(frame, _): &(Value, String)| frame["payload"]["code"] == "RESUME_WINDOW_EXPIRED";
        Ok(inbox.front().is_some_and(refused))
    }

    /// The session is gone: a new one follows the jobs that live, from the last number the client has of each. What had
    /// a key is asked again under it; whether the rest was done nobody knows.
    fn start_over(&mut self) -> Result<()> {
        self.cut()?;
        self.client.conns += 1;
        let conn = format!("c{}", self.client.conns);
        let welcome = self.world.open(&conn, "tok-alice", Some(&json!(FEATURES)))?;
        let client = &mut self.client;
        client.session = welcome["session_id"].as_str().unwrap_or_default().to_owned();
        client.token = welcome["payload"]["resume_token"].as_str().unwrap_or_default().to_owned();
        client.asked = None;
        client.refused = false;
        client.conn = Some(conn);
        (client.last_seq, client.acked) = (0, 0);
        client.texts.clear();
        let before = std::mem::take(&mut client.unanswered);
        for message in before.into_values().filter(|message| message["payload"]["idempotency_key"].is_string()) {
            self.ask("job.submit", &message["payload"])?;
            if let Some(mut asked) = self.client.unanswered.last_entry() {
                asked.get_mut()["again"] = true.into();
            }
        }
        let living: Vec<(String, u64)> = self
            .client
            .jobs
            .iter()
            .filter(|(_, known)| !known.ended)
            .map(|(job_id, known)| (job_id.clone(), known.source))
            .collect();
        for (job_id, source) in living {
            self.ask("job.subscribe", &json!({"job_id": job_id, "history": true, "from_event_seq": source}))?;
        }
        Ok(())
    }

    fn welcomed(&mut self, conn: &str) -> Result<()> {
        while self.client.asked.is_some() {
            let Some((frame, text)) = self.world.peer(conn)?.inbox.pop_front() else {
                return Err(format!("{conn} was not welcomed"));
            };
            self.client.receive(&frame, &text)?;
            if self.client.refused {
                return self.start_over();
            }
        }
        for message in self.client.unanswered.clone().into_values() {
            self.world.send(conn, &message)?;
        }
        Ok(())
    }

    fn ack(&mut self) -> Result<()> {
        let (Some(conn), None) = (self.client.conn.clone(), &self.client.asked) else { return Ok(()) };
        self.client.acked = self.client.last_seq;
        let payload = json!({"last_processed_seq": self.client.last_seq});
        self.world.send(&conn, &json!({"type": "session.ack", "payload": payload})).map(drop)
    }

    fn store_some(&mut self) -> Result<()> {
        match self.world.store.through(1) {
            Some(upto) => self.world.stored(upto, Ok(())),
            None => Ok(()),
        }
    }

    fn restart(&mut self, what: u8) -> Result<()> {
        if let Some(conn) = self.client.conn.take() {
            self.world.peer(&conn)?.inbox.clear();
        }
        self.onlooker = None;
        let restartable = if what.is_multiple_of(2) { vec!["echo".to_owned()] } else { Vec::new() };
        self.world.restart(&restartable)?;
        self.world.store_all()?;
        // An agent that is run again goes on where its kept events end: what was not stored was never said.
        let kept = |job_id: &String| (job_id.clone(), self.world.store.last_n(job_id));
        self.said = self.said.keys().map(kept).collect();
        Ok(())
    }

    fn end(mut self) -> Result<()> {
        self.cut()?;
        self.world.store_all()?;
        for _ in 0..4 {
            self.resume()?;
            self.world.store_all()?;
            if let Some(conn) = self.client.conn.clone() {
                self.welcomed(&conn)?;
            }
            self.world.store_all()?;
            self.read(usize::MAX)?;
            while let Some(job) = self.world.alive() {
                self.world.finish(job, Outcome::Success(RawJson::null()))?;
                self.world.store_all()?;
                self.read(usize::MAX)?;
            }
            self.read(usize::MAX)?;
            self.notice()?;
        }
        if let Some(request) = self.client.unanswered.values().next() {
            return Err(format!("{request} was never answered"));
        }
        for (job_id, known) in &self.client.jobs {
            if !known.ended {
                return Err(format!("{job_id} has no end"));
            }
            let said = self.said.get(job_id).copied().unwrap_or(0);
            if known.last.is_some_and(|last| last != said) {
                return Err(format!("{job_id} said {said} events, {:?} arrived", known.last));
            }
        }
        self.world.asked.clear();
        self.world.leave_nothing()
    }
}

impl Resumer {
    fn receive(&mut self, frame: &Value, text: &str) -> Result<()> {
        let job_id = frame["job_id"].as_str().unwrap_or_default().to_owned();
        match frame["type"].as_str().unwrap_or_default() {
            "session.welcome" => {
                self.asked = None;
                self.token = frame["payload"]["resume_token"].as_str().unwrap_or_default().to_owned();
                return Ok(());
            }
            "session.error" if frame["payload"]["code"] == "RESUME_WINDOW_EXPIRED" => {
                self.refused = true;
                return Ok(());
            }
            "session.error" if frame["payload"]["details"]["cap"] == "buffered_events" => return Ok(()),
            "session.error" | "session.jobs" | "job.accepted" | "job.subscribed" | "job.cancelled" => {
                return self.answered(frame, text);
            }
            "job.event" | "job.result" | "job.error" => {}
            _ => return Err(format!("nobody expected {text}")),
        }
        let seq = frame["event_seq"].as_u64().unwrap_or_default();
        if self.texts.entry(seq).or_insert_with(|| text.to_owned()) != text {
            return Err(format!("{text} differs from what had this number"));
        }
        if seq != self.last_seq + 1 {
            return Err(format!("{text} follows number {}", self.last_seq));
        }
        self.last_seq = seq;
        let known = self.jobs.entry(job_id).or_default();
        if known.ended && known.again && frame["type"] != "job.event" {
            return Ok(());
        }
        if known.ended {
            return Err(format!("{text} follows the end"));
        }
        known.source = frame["extensions"]["x-vendor.arcp.source_event_seq"].as_u64().unwrap_or(seq);
        match (frame["payload"]["body"]["x-n"].as_u64(), known.last) {
            (Some(n), None) => known.last = Some(n),
            (Some(n), Some(last)) if n == last + 1 => known.last = Some(n),
            (Some(n), Some(last)) => return Err(format!("event {n} follows event {last}")),
            (None, _) => known.ended = true,
        }
        Ok(())
    }

    fn answered(&mut self, frame: &Value, text: &str) -> Result<()> {
        let (kind, payload) = (frame["type"].as_str().unwrap_or_default(), &frame["payload"]);
        let request = self.unanswered.remove(payload["request_id"].as_str().unwrap_or_default());
        match kind {
            "job.accepted" => {
                let first = Known { last: Some(0), ..Known::default() };
                // A job that began in an earlier session may have said something already.
                let earlier = request.is_some_and(|request| request["again"] == true);
                let known = if earlier { Known::default() } else { first };
                let job_id = payload["job_id"].as_str().unwrap_or_default().to_owned();
                self.jobs.entry(job_id).or_insert(known).again |= earlier;
            }
            "session.jobs" => {
                let jobs = payload["jobs"].as_array().map(Vec::as_slice).unwrap_or_default();
                let ids: BTreeSet<&str> = jobs.iter().filter_map(|job| job["job_id"].as_str()).collect();
                if ids.len() != jobs.len() || jobs.len() > 4 {
                    return Err(format!("an odd page: {text}"));
                }
            }
            // Only the session that submitted a job may cancel it.
            "session.error" if request.is_none_or(|asked| asked["type"] != "job.cancel") => {
                return Err(format!("nobody expected {text}"));
            }
            _ => {}
        }
        Ok(())
    }
}

/// What both clients ask for: kinds they do not take have no number in their sessions.
const FEATURES: [&str; 3] = ["ack", "subscribe", "list_jobs"];

#[test]
fn a_client_that_resumes_has_everything_once() {
    let ops = prop::collection::vec((0_u8..23, any::<u8>()), 1..150);
    run("schedule_cuts", (any::<bool>(), any::<bool>(), ops), |(durable, small, ops)| {
        let mut run = Run::new(durable, small)?;
        for (op, what) in ops {
            run.act(op, what)?;
        }
        run.end()
    });
}

fn play(ops: &[(u8, u8)]) -> Result<()> {
    let mut run = Run::new(true, true)?;
    ops.iter().try_for_each(|(op, what)| run.act(*op, *what))?;
    run.end()
}

#[test]
fn a_history_longer_than_the_buffer_comes_through_a_store() {
    let submits = [(0, 0); 4];
    let rest = [(12, 0), (9, 4), (2, 144), (2, 240), (20, 0), (0, 0), (2, 48), (0, 0)];
    play(&[&submits[..], &rest].concat()).unwrap();
}

#[test]
fn a_resume_whose_events_went_while_it_waited_for_the_store_is_refused() {
    let resumes = [(12, 0); 4];
    let rest = [(0, 0), (16, 1), (9, 4), (0, 0), (2, 120), (2, 24), (2, 120), (2, 144), (12, 0)];
    play(&[&resumes[..], &rest].concat()).unwrap();
}
