//! Random cuts: whatever is lost on the way, acknowledged, stored late or dies with the process, a client that resumes
//! has every event once, in order, and one end per job (R-6.3.3 to R-6.3.6, R-6.3.19).

use std::collections::BTreeMap;

use arcp_proto::json::RawJson;
use arcp_proto::machine::job::Outcome;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::Result;
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
    /// The last `x-n` of each job, and whether it has ended.
    jobs: BTreeMap<String, (u64, bool)>,
    unanswered: Vec<String>,
    conns: u32,
    submits: u32,
}

struct Run {
    world: World,
    durable: bool,
    client: Resumer,
    /// What each living job said in this process, and what was said before it that was never stored.
    said: BTreeMap<String, u64>,
}

impl Run {
    fn new(durable: bool) -> Result<Self> {
        let given = json!({"config": {"durable": durable, "heartbeat_ms": null, "max_concurrent_jobs": 3}});
        let mut world = World::new(&given)?;
        let welcome = world.open("c0", "tok-alice", Some(&json!(["ack"])))?;
        let client = Resumer {
            session: welcome["session_id"].as_str().unwrap_or_default().to_owned(),
            token: welcome["payload"]["resume_token"].as_str().unwrap_or_default().to_owned(),
            asked: None,
            conn: Some("c0".into()),
            last_seq: 0,
            acked: 0,
            texts: BTreeMap::new(),
            jobs: BTreeMap::new(),
            unanswered: Vec::new(),
            conns: 0,
            submits: 0,
        };
        Ok(Run { world, durable, client, said: BTreeMap::new() })
    }

    fn act(&mut self, op: u8, what: u8) -> Result<()> {
        match op {
            0 | 1 => self.submit()?,
            2..=7 => self.emit(what)?,
            8 => self.finish(what)?,
            9 | 10 => self.read(usize::from(what))?,
            11 => self.cut()?,
            12 | 13 => self.resume()?,
            14 => self.ack()?,
            15 if self.durable => self.restart(what)?,
            _ if self.durable && what.is_multiple_of(3) => self.store_some()?,
            _ => self.world.store_all()?,
        }
        self.world.asked.clear();
        Ok(())
    }

    fn submit(&mut self) -> Result<()> {
        let (Some(conn), None) = (self.client.conn.clone(), &self.client.asked) else { return Ok(()) };
        let id = format!("submit-{}", self.client.submits);
        self.client.submits += 1;
        self.client.unanswered.push(id.clone());
        self.send_submit(&conn, &id)
    }

    fn send_submit(&mut self, conn: &str, id: &str) -> Result<()> {
        self.world.send(conn, &json!({"type": "job.submit", "id": id, "payload": {"agent": "echo"}})).map(drop)
    }

    fn alive(&self, what: u8) -> Option<String> {
        let alive: Vec<&String> =
            self.client.jobs.iter().filter(|(_, (_, ended))| !ended).map(|(job_id, _)| job_id).collect();
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
            "capabilities": {"encodings": ["json"], "features": ["ack"]}, "resume": resume,
        });
        self.client.asked = Some((id.clone(), token));
        self.world.send(&conn, &json!({"type": "session.hello", "id": id, "session_id": null, "payload": payload}))?;
        self.client.conn = Some(conn.clone());
        // Sometimes the welcome is lost with the next cut.
        if self.client.conns.is_multiple_of(3) {
            return Ok(());
        }
        self.world.store_all()?;
        self.welcomed(&conn)
    }

    fn welcomed(&mut self, conn: &str) -> Result<()> {
        while self.client.asked.is_some() {
            let Some((frame, text)) = self.world.peer(conn)?.inbox.pop_front() else {
                return Err(format!("{conn} was not welcomed"));
            };
            self.client.receive(&frame, &text)?;
        }
        for id in self.client.unanswered.clone() {
            self.send_submit(conn, &id)?;
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
            }
            self.read(usize::MAX)?;
        }
        if let Some(id) = self.client.unanswered.first() {
            return Err(format!("{id} was never answered"));
        }
        for (job_id, (last, ended)) in &self.client.jobs {
            if !ended {
                return Err(format!("{job_id} has no end"));
            }
            let said = self.said.get(job_id).copied().unwrap_or(0);
            if said != *last {
                return Err(format!("{job_id} said {said} events, {last} arrived"));
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
            "job.accepted" => {
                let request = frame["payload"]["request_id"].as_str().unwrap_or_default();
                self.unanswered.retain(|id| id != request);
                self.jobs.entry(job_id).or_default();
                return Ok(());
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
        let (last, ended) = self.jobs.entry(job_id).or_default();
        if *ended {
            return Err(format!("{text} follows the end"));
        }
        match frame["payload"]["body"]["x-n"].as_u64() {
            Some(n) if n == *last + 1 => *last = n,
            Some(n) => return Err(format!("event {n} follows event {last}")),
            None => *ended = true,
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_client_that_resumes_has_everything_once(
        durable in any::<bool>(),
        ops in prop::collection::vec((0_u8..18, any::<u8>()), 1..150),
    ) {
        let mut run = Run::new(durable).map_err(TestCaseError::fail)?;
        for (op, what) in ops {
            run.act(op, what).map_err(TestCaseError::fail)?;
        }
        run.end().map_err(TestCaseError::fail)?;
    }
}
