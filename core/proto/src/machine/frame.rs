//! What leaves for a peer: decided under the machine's lock, written as bytes outside it.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use crate::envelope::{Header, write_frame};
use crate::error::ErrorCode;
use crate::feature::Feature;
use crate::id::Ulid;
use crate::message::{JobStatus, kind};
use crate::time::Timestamp;

/// The shape a runtime writes for a session (D-1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WireProfile {
    /// The draft's form plus the added members.
    #[default]
    Draft,
    /// What the published Python SDK 1.1 can read: text budgets, and `final_status: "error"` for every `job.error`.
    Py11,
}

/// Which message type a [`Record`] becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// `job.event`.
    Event,
    /// `job.result`.
    Result,
    /// `job.error`, with the state it ends in.
    Error(JobStatus),
}

impl RecordKind {
    fn message_type(self) -> &'static str {
        match self {
            RecordKind::Event => kind::JOB_EVENT,
            RecordKind::Result => kind::JOB_RESULT,
            RecordKind::Error(_) => kind::JOB_ERROR,
        }
    }

    /// The state a terminal ends in.
    pub fn final_status(self) -> Option<JobStatus> {
        match self {
            RecordKind::Event => None,
            RecordKind::Result => Some(JobStatus::Success),
            RecordKind::Error(status) => Some(status),
        }
    }

    /// Whether nothing of the job follows.
    pub fn is_terminal(self) -> bool {
        self != RecordKind::Event
    }
}

/// One event or terminal of a job. The payload is serialised once and shared by every receiver.
#[derive(Debug)]
pub struct Record {
    /// The job it belongs to.
    pub job_id: Arc<str>,
    /// The job's trace.
    pub trace_id: Arc<str>,
    /// What it becomes on the wire.
    pub kind: RecordKind,
    /// Its place in the job, from 1, without gaps.
    pub job_seq: u64,
    /// The submitting session's `event_seq` after this record.
    pub source_seq: u64,
    /// When the agent made it.
    pub at: Timestamp,
    /// The feature a receiver must have negotiated to see it.
    pub feature: Option<Feature>,
    /// The whole `payload` as JSON text.
    pub payload: Bytes,
}

impl Record {
    /// What it weighs in a bounded buffer.
    pub fn cost(&self) -> usize {
        self.payload.len() + 128
    }
}

/// What every frame of one session carries.
#[derive(Debug)]
pub struct SessionName {
    /// The session's id.
    pub id: Arc<str>,
    /// Message ids of events derive from it, so that a replay is byte-identical (D-18).
    pub(super) seed: [u8; 10],
    /// The form this session's peer reads.
    pub profile: WireProfile,
}

impl SessionName {
    /// The name of a session as it was kept, so that its frames can be written again.
    pub fn new(id: Arc<str>, seed: [u8; 10], profile: WireProfile) -> SessionName {
        SessionName { id, seed, profile }
    }
}

/// Who a session is to a job whose records it gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Receiver {
    /// It submitted the job.
    #[default]
    Submitter,
    /// Its principal did, in another session.
    Principal,
    /// Somebody the policy lets look on: what belongs to the submitting principal alone is left out (R-7.6.11, D-30).
    Onlooker,
}

impl Receiver {
    /// What a session is to a job; both are named by session id and principal.
    pub fn of(session: (&str, &str), submitter: (&str, &str)) -> Receiver {
        if session.0 == submitter.0 {
            Receiver::Submitter
        } else if session.1 == submitter.1 {
            Receiver::Principal
        } else {
            Receiver::Onlooker
        }
    }

    /// Whether another session submitted the job.
    pub fn is_foreign(self) -> bool {
        self != Receiver::Submitter
    }
}

/// One message on its way out. Its `Debug` shows no payload, which may hold a secret (R-9.8.2.12).
#[derive(Clone)]
pub enum Frame {
    /// A numbered copy of a record.
    Event {
        /// Whose copy.
        session: Arc<SessionName>,
        /// Its number in that session.
        event_seq: u64,
        /// What is copied.
        record: Arc<Record>,
        /// Who the session is to the job: any but the submitting one is told the number it has there.
        receiver: Receiver,
    },
    /// Anything that has no `event_seq`.
    Message {
        /// The session, once there is one.
        session_id: Option<Arc<str>>,
        /// The `type`.
        kind: &'static str,
        /// The message id.
        id: String,
        /// The job, for `job.*`.
        job_id: Option<Arc<str>>,
        /// The job's trace.
        trace_id: Option<Arc<str>>,
        /// The payload as JSON text.
        payload: Bytes,
    },
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Frame::Event { event_seq, record, receiver, .. } => {
                let mut shown = f.debug_struct("Event");
                shown.field("event_seq", event_seq).field("kind", &record.kind).field("job_id", &record.job_id);
                shown.field("receiver", receiver).finish_non_exhaustive()
            }
            Frame::Message { kind, id, job_id, .. } => {
                let mut shown = f.debug_struct("Message");
                shown.field("kind", kind).field("id", id).field("job_id", job_id).finish_non_exhaustive()
            }
        }
    }
}

impl Frame {
    /// Appends the frame's JSON text to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Frame::Event { session, event_seq, record, receiver } => {
                let mut id = [0; 30];
                event_message_id(&mut id, session, *event_seq, record.at);
                let header = Header {
                    kind: record.kind.message_type(),
                    // The bytes are `msg_` and Crockford letters.
                    id: std::str::from_utf8(&id).unwrap_or_default(),
                    session_id: Some(&session.id),
                    job_id: Some(&record.job_id),
                    trace_id: Some(&record.trace_id),
                    event_seq: Some(*event_seq),
                    extensions: None,
                    source_event_seq: receiver.is_foreign().then_some(record.source_seq),
                };
                let payload = match receiver {
                    Receiver::Onlooker => public_payload(record),
                    Receiver::Submitter | Receiver::Principal => Cow::Borrowed(&*record.payload),
                };
                match (session.profile, record.kind) {
                    (WireProfile::Py11, RecordKind::Error(status @ (JobStatus::Cancelled | JobStatus::TimedOut))) => {
                        write_frame(out, &header, &as_plain_error(&payload, status));
                    }
                    _ => write_frame(out, &header, &payload),
                }
            }
            Frame::Message { session_id, kind, id, job_id, trace_id, payload } => {
                let header = Header {
                    kind,
                    id,
                    session_id: session_id.as_deref(),
                    job_id: job_id.as_deref(),
                    trace_id: trace_id.as_deref(),
                    event_seq: None,
                    extensions: None,
                    source_event_seq: None,
                };
                write_frame(out, &header, payload);
            }
        }
    }

    pub(super) fn is_opening(&self) -> bool {
        matches!(self, Frame::Message { kind: kind::JOB_ACCEPTED | kind::JOB_SUBSCRIBED, .. })
    }

    /// What it weighs in a bounded queue.
    pub fn cost(&self) -> usize {
        match self {
            Frame::Event { record, .. } => record.cost(),
            Frame::Message { payload, .. } => payload.len() + 256,
        }
    }
}

/// `msg_` and a ULID made of the record's time and the session's seed plus the number: the same on every replay, and
/// increasing with the number.
fn event_message_id(out: &mut [u8; 30], session: &SessionName, event_seq: u64, at: Timestamp) {
    let mut wide = [0; 16];
    wide[6..].copy_from_slice(&session.seed);
    let random = (u128::from_be_bytes(wide) + u128::from(event_seq)).to_be_bytes();
    let mut tail = [0; 10];
    tail.copy_from_slice(&random[6..]);
    let ulid = Ulid::from_parts(at.0.max(0).unsigned_abs(), tail);
    let mut text = Vec::with_capacity(26);
    ulid.push_to(&mut text);
    out[..4].copy_from_slice(b"msg_");
    out[4..].copy_from_slice(&text[..26]);
}

/// What an onlooker may read of a record: no words of a failed agent (D-30), no value of a credential.
fn public_payload(record: &Record) -> Cow<'_, [u8]> {
    let whole = Cow::Borrowed(&*record.payload);
    let told = match record.kind {
        RecordKind::Error(_) => without_words(&record.payload),
        RecordKind::Event if record.payload.starts_with(b"{\"kind\":\"status\"") => without_value(&record.payload),
        RecordKind::Event | RecordKind::Result => return whole,
    };
    // Our own records can be read; one that could not is shown to nobody else.
    told.map_or(Cow::Borrowed(b"{}"), |told| told.map_or(whole, Cow::Owned))
}

type Members = serde_json::Map<String, serde_json::Value>;

/// `Some(None)` where nothing has to be left out.
fn without_words(payload: &[u8]) -> Option<Option<Vec<u8>>> {
    let mut error: Members = serde_json::from_slice(payload).ok()?;
    if error.get("code")? != ErrorCode::InternalError.as_str() {
        return Some(None);
    }
    error.insert("message".into(), "the job failed; its submitter was told more".into());
    error.remove("details");
    // In the order the others are written in, which a profile relies on.
    let status = error.remove("final_status")?;
    let mut text = format!("{{\"final_status\":{status},").into_bytes();
    text.extend_from_slice(serde_json::to_vec(&error).ok()?.get(1..)?);
    Some(Some(text))
}

fn without_value(payload: &[u8]) -> Option<Option<Vec<u8>>> {
    let mut event: Members = serde_json::from_slice(payload).ok()?;
    let body = event.get_mut("body").and_then(serde_json::Value::as_object_mut)?;
    if body.get("phase").is_none_or(|phase| phase != "credential_rotated") {
        return Some(None);
    }
    body.remove("value");
    Some(Some(serde_json::to_vec(&event).ok()?))
}

/// The published Python client dies on any other `final_status` in a `job.error` (D-52, D-53).
fn as_plain_error(payload: &[u8], status: JobStatus) -> Vec<u8> {
    let shown = format!("{{\"final_status\":\"{}\"", status.as_str());
    match payload.strip_prefix(shown.as_bytes()) {
        Some(rest) => [b"{\"final_status\":\"error\"", rest].concat(),
        None => payload.to_vec(),
    }
}
