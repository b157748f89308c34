//! Messages about the session itself.

use serde::Serialize;

use crate::error::Error;
use crate::json::RawJson;
use crate::message::JobStatus;
use crate::time::Timestamp;

/// Name and version of a client or a runtime.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PeerInfo {
    /// Non-empty name.
    pub name: String,
    /// Non-empty version text.
    pub version: String,
}

/// How a client proves who it is.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Auth {
    /// Always `bearer`.
    pub scheme: String,
    /// The secret.
    pub token: String,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth").field("scheme", &self.scheme).field("token", &"[redacted]").finish()
    }
}

/// Where a resumed session stood.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Resume {
    /// The session to take up again.
    pub session_id: String,
    /// The secret of the last welcome.
    pub resume_token: String,
    /// The highest `event_seq` the client has processed.
    pub last_event_seq: u64,
}

impl std::fmt::Debug for Resume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resume")
            .field("session_id", &self.session_id)
            .field("resume_token", &"[redacted]")
            .field("last_event_seq", &self.last_event_seq)
            .finish()
    }
}

/// What a client offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClientCapabilities {
    /// Must contain `json`; default `["json"]`.
    pub encodings: Vec<String>,
    /// Feature names in the client's order; default none.
    pub features: Vec<String>,
}

impl Default for ClientCapabilities {
    fn default() -> Self {
        ClientCapabilities { encodings: vec!["json".into()], features: Vec::new() }
    }
}

/// `session.hello`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hello {
    /// Absent only when read from `session.resume`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<PeerInfo>,
    /// The bearer token.
    pub auth: Auth,
    /// What the client offers.
    pub capabilities: ClientCapabilities,
    /// The session to resume, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resume: Option<Resume>,
    /// Whether `capabilities.agents` was sent as an empty list, which only one published client does (D-1 of the
    /// design: it selects that client's wire profile).
    #[serde(skip)]
    pub empty_agents_list: bool,
}

/// One agent of the inventory a welcome shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AgentEntry {
    /// Agent name.
    pub name: String,
    /// Registered versions in order of registration; empty for an unversioned agent or a plain name.
    pub versions: Vec<String>,
    /// The version a bare name means.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
}

/// What a runtime offers, after negotiation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuntimeCapabilities {
    /// `["json"]`.
    pub encodings: Vec<String>,
    /// The negotiated features in the client's order.
    pub features: Vec<String>,
    /// Agents that can be run.
    pub agents: Vec<AgentEntry>,
}

/// `session.welcome`.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Welcome {
    /// The session, also on the envelope; one of the two may be missing on receipt, never both.
    pub session_id: String,
    /// Who answers.
    pub runtime: PeerInfo,
    /// Secret; new in every welcome.
    pub resume_token: String,
    /// Seconds a dropped session can be resumed.
    pub resume_window_sec: u64,
    /// Present exactly when `heartbeat` is negotiated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat_interval_sec: Option<u64>,
    /// What was negotiated.
    pub capabilities: RuntimeCapabilities,
    /// When the session was accepted; some peers leave it out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accepted_at: Option<Timestamp>,
}

impl std::fmt::Debug for Welcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Welcome")
            .field("session_id", &self.session_id)
            .field("runtime", &self.runtime)
            .field("resume_token", &"[redacted]")
            .field("resume_window_sec", &self.resume_window_sec)
            .field("heartbeat_interval_sec", &self.heartbeat_interval_sec)
            .field("capabilities", &self.capabilities)
            .finish_non_exhaustive()
    }
}

/// `session.ping`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ping {
    /// 1 to 128 characters, returned by the pong.
    pub nonce: String,
    /// When it was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent_at: Option<Timestamp>,
}

/// `session.pong`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pong {
    /// The nonce of the ping.
    pub ping_nonce: String,
    /// When the ping arrived.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received_at: Option<Timestamp>,
}

/// `session.ack`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ack {
    /// The highest `event_seq` the application has taken.
    pub last_processed_seq: u64,
}

/// The filter of `session.list_jobs`; conditions combine with "and".
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct JobFilter {
    /// Any of these states; an unknown name matches nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Vec<String>>,
    /// An agent reference; without a version it matches every version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Strictly after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_after: Option<Timestamp>,
    /// Strictly before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_before: Option<Timestamp>,
}

/// `session.list_jobs`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ListJobs {
    /// Which jobs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<JobFilter>,
    /// 1 to 1000, default 100; above is clamped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Where the last page ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// One entry of `session.jobs`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct JobEntry {
    /// The job.
    pub job_id: String,
    /// Resolved agent reference.
    pub agent: String,
    /// Its state.
    pub status: JobStatus,
    /// The effective lease (an empty object from peers that leave it out).
    pub lease: RawJson,
    /// When the lease ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_constraints: Option<RawJson>,
    /// Current counters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<RawJson>,
    /// The delegating job; `null` on the wire when there is none.
    pub parent_job_id: Option<String>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// The same instant, for peers that read this name.
    pub submitted_at: Timestamp,
    /// The job's trace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// In the submitting session's space; 0 from peers that leave it out.
    pub last_event_seq: u64,
}

/// `session.jobs`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Jobs {
    /// The `id` of the request.
    pub request_id: String,
    /// One page.
    pub jobs: Vec<JobEntry>,
    /// `null` on the last page; always present on the wire.
    pub next_cursor: Option<String>,
}

/// `session.close`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Close {
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `session.closed`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Closed {
    /// The reason of the close.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The `id` of the close or bye.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// `session.bye`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Bye {
    /// Always emitted; may be missing on receipt, then empty.
    pub reason: String,
    /// A code, if the session ended on an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// `session.error`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SessionError {
    /// Code, message, flag and details.
    #[serde(flatten)]
    pub error: Error,
    /// The `id` of the message it answers; only that request fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}
