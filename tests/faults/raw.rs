//! A client by hand that takes nothing on trust: it keeps every numbered message as it came, resumes from before where it
//! was, and compares what it is sent again byte for byte.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::support::{BOUND, Chance, TOKEN};

pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A hello without a resume.
pub(crate) fn hello(id: &str, features: &[&str]) -> Value {
    json!({"arcp": "1.1", "id": id, "type": "session.hello", "payload": {
        "client": {"name": "raw", "version": "1"},
        "auth": {"scheme": "bearer", "token": TOKEN},
        "capabilities": {"encodings": ["json"], "features": features},
    }})
}

pub(crate) async fn say(socket: &mut Socket, message: &Value) -> bool {
    socket.send(Message::text(message.to_string())).await.is_ok()
}

/// The next message, as it came; `None` when the connection is over.
pub(crate) async fn hear(socket: &mut Socket) -> Option<String> {
    loop {
        match socket.next().await? {
            Ok(Message::Text(text)) => return Some(text.as_str().to_owned()),
            Ok(_) => {}
            Err(_) => return None,
        }
    }
}

pub(crate) struct Raw {
    url: String,
    chance: Chance,
    /// Counts messages of this client, for their ids.
    said: u64,
    session: Option<Session>,
    /// Submits without an answer, by message id; said again on every connection.
    pub(crate) unanswered: BTreeMap<String, Value>,
    /// Jobs by idempotency key.
    pub(crate) jobs: BTreeMap<String, String>,
    /// Every numbered message, as it came first.
    pub(crate) frames: BTreeMap<u64, String>,
    /// Terminals by job.
    pub(crate) ended: BTreeMap<String, u64>,
    pub(crate) resumes: u64,
    pub(crate) compared: u64,
}

struct Session {
    id: String,
    /// The hello that resumes it, the same until it was answered.
    resume_token: String,
    hello_id: String,
    acked: u64,
}

impl Raw {
    pub(crate) fn new(url: &str, chance: Chance) -> Raw {
        Raw {
            url: url.into(),
            chance,
            said: 0,
            session: None,
            unanswered: BTreeMap::new(),
            jobs: BTreeMap::new(),
            frames: BTreeMap::new(),
            ended: BTreeMap::new(),
            resumes: 0,
            compared: 0,
        }
    }

    pub(crate) fn session_id(&self) -> &str {
        &self.session.as_ref().expect("it was welcomed").id
    }

    fn next_id(&mut self) -> String {
        self.said += 1;
        format!("raw_{}", self.said)
    }

    /// Will be said as soon as there is a connection.
    pub(crate) fn submit(&mut self, agent: &str, input: &Value, key: &str) {
        let id = self.next_id();
        let payload = json!({"agent": agent, "input": input, "idempotency_key": key});
        let message = json!({"arcp": "1.1", "id": id, "type": "job.submit", "payload": payload});
        self.unanswered.insert(id, message);
    }

    fn last(&self) -> u64 {
        self.frames.last_key_value().map_or(0, |(number, _)| *number)
    }

    /// One connection, from the hello until it is lost, `enough` says so, or it is cut after a while. A runtime that is not
    /// there is tried again by the caller.
    pub(crate) async fn connection(&mut self, enough: impl Fn(&Raw) -> bool) {
        let Ok(Ok((mut socket, _))) = timeout(BOUND, connect_async(&self.url)).await else {
            return sleep(Duration::from_millis(20)).await;
        };
        let Some(mut expected) = self.shakes_hands(&mut socket).await else { return };
        for message in self.unanswered.values() {
            if !say(&mut socket, message).await {
                return;
            }
        }
        let mut left = 50 + self.chance.below(1000);
        while left > 0 && !enough(self) {
            let Some(text) = timeout(BOUND, hear(&mut socket)).await.expect("nothing comes") else { return };
            let message: Value = serde_json::from_str(&text).unwrap();
            if let Some(number) = message["event_seq"].as_u64() {
                assert_eq!(number, expected, "a gap or a double: {text}");
                expected += 1;
                self.keep(number, text, &message);
                left -= 1;
            } else {
                self.answered(&message);
            }
            if left.is_multiple_of(100) && !self.acks(&mut socket).await {
                return;
            }
        }
    }

    /// Says the hello, and returns the number that is to come next.
    async fn shakes_hands(&mut self, socket: &mut Socket) -> Option<u64> {
        let id = self.session.as_ref().map(|session| session.hello_id.clone());
        let id = id.unwrap_or_else(|| self.next_id());
        let mut hello = hello(&id, &["ack"]);
        let mut from = 0;
        if let Some(session) = &self.session {
            // From a little before, to be sent again what is known; never from before what was acknowledged.
            from = session.acked.max(self.last().saturating_sub(self.chance.below(300)));
            hello["payload"]["resume"] =
                json!({"session_id": session.id, "resume_token": session.resume_token, "last_event_seq": from});
        }
        if !say(socket, &hello).await {
            return None;
        }
        let text = timeout(BOUND, hear(socket)).await.expect("no welcome")?;
        let welcome: Value = serde_json::from_str(&text).unwrap();
        if welcome["payload"]["retryable"] == true && text.contains("this cannot be stored for now") {
            // A full disk. The same hello is said again.
            sleep(Duration::from_millis(100)).await;
            return None;
        }
        assert_eq!(welcome["type"], "session.welcome", "{text}");
        let text_of = |name: &str| welcome["payload"][name].as_str().unwrap().to_owned();
        let (id, resume_token, hello_id) = (text_of("session_id"), text_of("resume_token"), self.next_id());
        let acked = match &self.session {
            Some(session) => {
                assert_eq!(session.id, id, "another session took its place");
                self.resumes += 1;
                session.acked
            }
            None => 0,
        };
        self.session = Some(Session { id, resume_token, hello_id, acked });
        Some(from + 1)
    }

    fn keep(&mut self, number: u64, text: String, message: &Value) {
        let job = message["job_id"].as_str().unwrap();
        if let Some(before) = self.frames.get(&number) {
            assert_eq!(*before, text, "number {number} came again, and not as it was");
            self.compared += 1;
            return;
        }
        assert!(!self.ended.contains_key(job), "{job} went on after its end: {text}");
        if message["type"] != "job.event" {
            self.ended.insert(job.to_owned(), number);
        }
        self.frames.insert(number, text);
    }

    fn answered(&mut self, message: &Value) {
        let Some(request) = message["payload"]["request_id"].as_str() else { return };
        assert_eq!(message["type"], "job.accepted", "{message}");
        let job = message["job_id"].as_str().unwrap().to_owned();
        // A repeated answer is the same answer.
        let Some(submit) = self.unanswered.remove(request) else { return };
        let key = submit["payload"]["idempotency_key"].as_str().unwrap().to_owned();
        assert_eq!(self.jobs.insert(key, job), None);
    }

    /// Acknowledges most of what it has.
    async fn acks(&mut self, socket: &mut Socket) -> bool {
        let upto = self.last().saturating_sub(400);
        let Some(session) = &mut self.session else { return true };
        if upto <= session.acked {
            return true;
        }
        session.acked = upto;
        let payload = json!({"last_processed_seq": upto});
        say(socket, &json!({"arcp": "1.1", "id": format!("ack_{upto}"), "type": "session.ack", "payload": payload}))
            .await
    }

    /// Nothing is missing from 1 on, and every job it knows has exactly one end.
    pub(crate) fn check(&self) {
        assert!(self.frames.keys().copied().eq(1..=self.last()), "a number is missing");
        let (known, ended): (BTreeSet<&String>, BTreeSet<&String>) =
            (self.jobs.values().collect(), self.ended.keys().collect());
        assert_eq!(known, ended);
        assert_eq!(self.unanswered.len(), 0);
    }
}
