//! Messages about one job.

use serde::{Serialize, Serializer};

use crate::error::Error;
use crate::json::RawJson;
use crate::time::Timestamp;

/// The state of a job. The last four are terminal and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JobStatus {
    /// Accepted, waiting for a slot.
    Pending,
    /// Its agent runs.
    Running,
    /// Ended with a `job.result`.
    Success,
    /// Ended with a `job.error`.
    Error,
    /// Ended because it was cancelled.
    Cancelled,
    /// Ended because it ran longer than `max_runtime_sec`.
    TimedOut,
}

impl JobStatus {
    /// The text on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            JobStatus::Pending => "pending",
            JobStatus::Running => "running",
            JobStatus::Success => "success",
            JobStatus::Error => "error",
            JobStatus::Cancelled => "cancelled",
            JobStatus::TimedOut => "timed_out",
        }
    }

    /// The state with this text.
    pub fn parse(text: &str) -> Option<JobStatus> {
        Some(match text {
            "pending" => JobStatus::Pending,
            "running" => JobStatus::Running,
            "success" => JobStatus::Success,
            "error" => JobStatus::Error,
            "cancelled" => JobStatus::Cancelled,
            "timed_out" => JobStatus::TimedOut,
            _ => return None,
        })
    }

    /// Whether nothing follows.
    pub fn is_terminal(self) -> bool {
        !matches!(self, JobStatus::Pending | JobStatus::Running)
    }
}

impl Serialize for JobStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// JSON that is sent but never shown: its `Debug` hides it (R-9.8.2.12).
#[derive(Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Secret(pub RawJson);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

/// `job.submit`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Submit {
    /// Agent reference, `name` or `name@version`.
    pub agent: String,
    /// Handed to the agent unchanged; `null` when absent.
    pub input: RawJson,
    /// Namespaces to patterns, a JSON object of string lists; `{}` when absent. Shape checked on receipt.
    pub lease_request: RawJson,
    /// `{expires_at?}`; checked by the lease rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_constraints: Option<LeaseConstraints>,
    /// 1 to 256 bytes of UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// At least 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_runtime_sec: Option<u64>,
    /// A job of the same session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_job_id: Option<String>,
    /// The delegation this submit answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delegate_id: Option<String>,
}

impl Submit {
    /// A submit of `input` to `agent`, with an empty lease and nothing else.
    pub fn new(agent: impl Into<String>, input: RawJson) -> Self {
        Submit {
            agent: agent.into(),
            input,
            lease_request: RawJson::empty_object(),
            lease_constraints: None,
            idempotency_key: None,
            max_runtime_sec: None,
            parent_job_id: None,
            delegate_id: None,
        }
    }
}

/// When a lease ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LeaseConstraints {
    /// RFC 3339 ending in `Z`, kept as the client wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

/// `job.accepted`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Accepted {
    /// Also on the envelope.
    pub job_id: String,
    /// Resolved `name@version`; absent from some peers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The effective lease.
    pub lease: RawJson,
    /// Present when the lease has an end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_constraints: Option<LeaseConstraints>,
    /// Currency to number; text amounts of published peers are rewritten to numbers on receipt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<RawJson>,
    /// Provisioned credentials of known schemes; others are dropped on receipt (R-9.8.1.2). Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Secret>,
    /// When it was accepted; absent from some peers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accepted_at: Option<Timestamp>,
    /// The job's trace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// For a delegated child.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_job_id: Option<String>,
    /// For a delegated child.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delegate_id: Option<String>,
    /// The `id` of the submit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The effective value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_runtime_sec: Option<u64>,
}

/// `job.cancel`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cancel {
    /// Always emitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The job: from the envelope, else the payload; both present and different is refused.
    pub job_id: String,
    /// A code, if the peer gave one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// `job.cancelled`, the acknowledgement of a cancel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cancelled {
    /// The job.
    pub job_id: String,
    /// The reason of the cancel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Present when the job had already ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_status: Option<JobStatus>,
    /// The `id` of the cancel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// `job.result`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct JobResult {
    /// `success`; a published peer also sends `cancelled` and `timed_out`, which a client maps to errors.
    pub final_status: JobStatus,
    /// The inline form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<RawJson>,
    /// The streamed form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result_id: Option<String>,
    /// Bytes of decoded data, in the streamed form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result_size: Option<u64>,
    /// A sentence about the result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// When the job ended; absent from some peers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Timestamp>,
}

/// `job.error`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct JobError {
    /// `error`, `cancelled` or `timed_out`.
    pub final_status: JobStatus,
    /// Code, message, flag and details.
    #[serde(flatten)]
    pub error: Error,
    /// When the job ended; absent from some peers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Timestamp>,
}

/// `job.subscribe`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Subscribe {
    /// The job.
    pub job_id: String,
    /// In the submitting session's space; means something only with `history`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_event_seq: Option<u64>,
    /// Whether kept events are sent first.
    pub history: bool,
}

/// `job.subscribed`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Subscribed {
    /// The job.
    pub job_id: String,
    /// Its state at this moment.
    pub current_status: JobStatus,
    /// Resolved agent reference.
    pub agent: String,
    /// The effective lease (an empty object from peers that leave it out).
    pub lease: RawJson,
    /// When the lease ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_constraints: Option<LeaseConstraints>,
    /// Current counters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<RawJson>,
    /// Only for the submitting principal. Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Secret>,
    /// The delegating job; `null` on the wire when there is none.
    pub parent_job_id: Option<String>,
    /// The job's trace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// The last event before this answer, in the submitting session's space.
    pub subscribed_from: u64,
    /// Whether history follows; a count is read as "more than none".
    pub replayed: bool,
    /// The `id` of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// `job.unsubscribe`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unsubscribe {
    /// The job.
    pub job_id: String,
}
