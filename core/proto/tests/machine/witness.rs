//! What must hold of every frame a runtime sends, whatever the case.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde_json::Value;

use crate::Result;
use crate::matcher::{is_id, is_time, is_trace_id};

/// Everything the runtime has said to anybody.
#[derive(Default)]
pub(crate) struct Witness {
    sessions: BTreeMap<String, Seen>,
    /// Every message by its id: one that comes again after a resume is the same, byte for byte.
    messages: BTreeMap<String, String>,
    /// Never to be shown to anybody.
    secrets: Vec<String>,
    /// Whether replays may begin in the middle.
    in_part: bool,
}

/// What one session was told.
#[derive(Default)]
struct Seen {
    last_seq: u64,
    jobs: BTreeMap<String, View>,
}

/// One session's view of one job.
#[derive(Default)]
struct View {
    /// Between `job.accepted` or `job.subscribed` and the terminal.
    open: bool,
    /// How often it was accepted or subscribed, less its terminals: a repeat may overtake the terminal it repeats.
    due: u32,
    terminal: Option<(String, Value)>,
    /// The number in the body of the last event, for schedules that number them.
    last_n: Option<u64>,
}

impl Witness {
    pub(crate) fn keep_secret(&mut self, secret: &str) {
        self.secrets.push(secret.to_owned());
    }

    /// Replays may begin in the middle of a job.
    pub(crate) fn expect_replays_in_part(&mut self) {
        self.in_part = true;
    }

    /// The session stopped following the job by its own wish.
    pub(crate) fn unfollowed(&mut self, session: &str, job: &str) {
        if let Some(view) = self.sessions.get_mut(session).and_then(|seen| seen.jobs.get_mut(job)) {
            view.last_n = None;
        }
    }

    /// Checks one frame.
    pub(crate) fn saw(&mut self, frame: &Value, text: &str) -> Result<()> {
        let id = frame["id"].as_str().unwrap_or_default().to_owned();
        match self.messages.entry(id) {
            Entry::Occupied(earlier) if earlier.get() == text => return Ok(()),
            Entry::Occupied(earlier) if without_secrets(earlier.get()) == without_secrets(text) => return Ok(()),
            Entry::Occupied(_) => return Err(format!("the id was used before in {text}")),
            Entry::Vacant(first) => drop(first.insert(text.to_owned())),
        }
        self.well_formed(frame, text).map_err(|error| format!("{error} in {text}"))?;
        self.in_order(frame).map_err(|error| format!("{error} in {text}"))
    }

    fn well_formed(&mut self, frame: &Value, text: &str) -> Result<()> {
        let kind = frame["type"].as_str().unwrap_or_default();
        let id = frame["id"].as_str().unwrap_or_default();
        let about_a_job = kind.starts_with("job.");
        let must = [
            ("arcp is not 1.1", frame["arcp"] == "1.1"),
            ("the id is not msg_ and a ULID", is_id("msg_", id)),
            ("the payload is no object", frame["payload"].is_object()),
            ("no session id", kind == "session.error" || has_id(frame, "session_id", "sess_")),
            ("no job id", !about_a_job || has_id(frame, "job_id", "job_")),
            ("a number in the wrong place", is_numbered(kind) == frame.get("event_seq").is_some()),
            ("no trace id (R-11.3)", !about_a_job || is_trace_id(frame["trace_id"].as_str().unwrap_or_default())),
        ];
        if let Some((fault, _)) = must.iter().find(|(_, holds)| !holds) {
            return Err((*fault).to_owned());
        }
        for member in ["ts", "accepted_at", "completed_at", "sent_at", "received_at"] {
            if let Some(time) = frame["payload"].get(member)
                && !is_time(time.as_str().unwrap_or_default())
            {
                return Err(format!("{member} is no time"));
            }
        }
        match self.secrets.iter().find(|secret| text.contains(secret.as_str())) {
            Some(_) => Err("a token is shown".to_owned()),
            None => Ok(()),
        }
    }

    fn in_order(&mut self, frame: &Value) -> Result<()> {
        let Some(session) = frame["session_id"].as_str() else { return Ok(()) };
        let seen = self.sessions.entry(session.to_owned()).or_default();
        if let Some(seq) = frame.get("event_seq") {
            if seq.as_u64() != Some(seen.last_seq + 1) {
                return Err(format!("event_seq {seq} follows {}", seen.last_seq));
            }
            seen.last_seq += 1;
        }
        let Some(job) = frame["job_id"].as_str() else { return Ok(()) };
        let view = seen.jobs.entry(job.to_owned()).or_default();
        let (kind, payload) = (frame["type"].as_str().unwrap_or_default(), &frame["payload"]);
        match kind {
            "job.accepted" => {
                view.open = true;
                view.due += 1;
            }
            "job.subscribed" => {
                view.open = true;
                let replayed = payload["replayed"] == true;
                view.due += u32::from(replayed || view.due == 0);
                if replayed {
                    // Most schedules replay from the start only.
                    view.last_n = Some(0).filter(|_| !self.in_part);
                }
            }
            "job.cancelled" => {}
            "job.event" if !view.open => {
                return Err("an event outside of the job's life".into());
            }
            "job.event" => {
                if let Some(n) = payload["body"]["x-n"].as_u64() {
                    if view.last_n.is_some_and(|last| n != last + 1) {
                        return Err(format!("event {n} follows {:?}", view.last_n));
                    }
                    view.last_n = Some(n);
                }
            }
            _ if view.due == 0 => return Err("a terminal nobody waits for".into()),
            _ => {
                view.open = false;
                view.due -= 1;
                view.last_n = None;
                let terminal = (kind.to_owned(), payload.clone());
                if view.terminal.get_or_insert_with(|| terminal.clone()) != &terminal {
                    return Err("a second, different terminal".to_owned());
                }
            }
        }
        Ok(())
    }

    /// How many terminals of a job this session saw.
    pub(crate) fn ended(&self, session: &str, job: &str) -> bool {
        self.sessions.get(session).and_then(|seen| seen.jobs.get(job)).is_some_and(|view| view.terminal.is_some())
    }
}

fn has_id(frame: &Value, member: &str, prefix: &str) -> bool {
    is_id(prefix, frame[member].as_str().unwrap_or_default())
}

fn is_numbered(kind: &str) -> bool {
    matches!(kind, "job.event" | "job.result" | "job.error")
}

/// A message without the credentials in it: a repeat shows only those that still work.
fn without_secrets(text: &str) -> Value {
    let mut message: Value = serde_json::from_str(text).unwrap_or_default();
    if let Some(payload) = message["payload"].as_object_mut() {
        payload.remove("credentials");
    }
    if message["payload"]["body"]["phase"] == "credential_rotated"
        && let Some(body) = message["payload"]["body"].as_object_mut()
    {
        body.remove("value");
    }
    message
}
