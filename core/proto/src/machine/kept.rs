//! What a runtime keeps beyond a connection, and with a durable store beyond its process.
//!
//! The machine says what to keep as a sequence of [`StoreOp`]s; a store carries them out in order, and gives back a
//! [`Kept`] when the next process opens it.

use std::sync::Arc;

use super::frame::{Record, WireProfile};
use crate::json::RawJson;
use crate::message::JobStatus;
use crate::time::Timestamp;
use crate::trace::TraceContext;

/// The SHA-256 of a secret: the secret itself is never kept (D-8).
pub type TokenHash = [u8; 32];

/// One thing for the store to carry out. Operations are numbered from 1 in the order they were decided.
#[derive(Debug)]
pub enum StoreOp {
    /// Insert the session, or replace everything of it but its numbers.
    SaveSession(Box<KeptSession>),
    /// Everything of this session up to this number may go: it was acknowledged, or fell out of the buffer.
    Free {
        /// The session.
        session: Arc<str>,
        /// The last number freed.
        through: u64,
    },
    /// Forget the session and its numbers.
    ForgetSession(Arc<str>),
    /// Insert the job.
    SaveJob(Box<KeptJob>),
    /// The job's state or counters changed; a terminal says its state itself.
    UpdateJob {
        /// The job.
        job_id: Arc<str>,
        /// `pending` or `running`.
        status: JobStatus,
        /// Current counters as a JSON object.
        budget: Option<RawJson>,
    },
    /// This session follows that job from now on.
    Follow(Box<KeptFollow>),
    /// This session no longer follows that job.
    Unfollow {
        /// The session.
        session: Arc<str>,
        /// The job.
        job_id: Arc<str>,
    },
    /// Append a record to its job.
    Append(Arc<Record>),
    /// A record of the store has this number in this session. The record was appended by an earlier operation.
    Number {
        /// The session.
        session: Arc<str>,
        /// Its number there.
        event_seq: u64,
        /// The record.
        record: Arc<Record>,
    },
    /// A session is given the history it is owed, all of it or nothing: these records have the numbers from
    /// `first_event_seq` on, and none is owed any more.
    History {
        /// The session.
        session: Arc<str>,
        /// The job.
        job_id: Arc<str>,
        /// The number of the first record.
        first_event_seq: u64,
        /// Appended by earlier operations.
        records: Vec<Arc<Record>>,
    },
    /// Forget the job and its records, also where sessions number them: such a session then comes back with everything
    /// up to the last number that is gone freed.
    ForgetJob(Arc<str>),
    /// Insert or replace an idempotency key.
    SaveKey(Box<KeptKey>),
    /// Forget an idempotency key.
    ForgetKey {
        /// Whose.
        principal: Arc<str>,
        /// The key.
        key: String,
    },
    /// Insert or replace a credential that must be revoked some day (R-9.8.2.6).
    SaveCredential(Box<KeptCredential>),
    /// The credential was revoked.
    ForgetCredential(String),
}

/// A session as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptSession {
    /// `sess_…`.
    pub id: Arc<str>,
    /// Whose.
    pub principal: Arc<str>,
    /// Message ids of events derive from it (D-18).
    pub seed: [u8; 10],
    /// The form its peer reads.
    pub profile: WireProfile,
    /// The negotiated features, in the client's order.
    pub features: Vec<String>,
    /// Of the resume token in force.
    pub token: TokenHash,
    /// The resume that brought that token, so that the same request can be answered again after a cut (D-17).
    pub resumed_by: Option<ResumedBy>,
    /// When its connection was lost; `None` while it has one.
    pub detached_at: Option<Timestamp>,
}

/// The request a session was last resumed by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResumedBy {
    /// The message id of that hello.
    pub hello_id: String,
    /// Of the token it showed.
    pub token: TokenHash,
}

/// That a session follows a job of another session, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeptFollow {
    /// The session that follows.
    pub session: Arc<str>,
    /// The job.
    pub job_id: Arc<str>,
    /// The `id` of the request that made it follow, to repeat its answer (D-17).
    pub request_id: String,
    /// Which answer that is.
    pub asked_by: AskedBy,
    /// The payload of that answer, as JSON.
    pub answer: String,
    /// It has yet to be given the history behind this `source_seq`; 0 means all.
    pub owed_after: Option<u64>,
}

/// What made a session follow a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AskedBy {
    /// `job.subscribe`, answered by `job.subscribed`.
    Subscribe,
    /// A `job.submit` under a key that was used, answered by `job.accepted`.
    Submit,
}

/// A job as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptJob {
    /// `job_…`.
    pub job_id: Arc<str>,
    /// The submitting session.
    pub session: Arc<str>,
    /// The `id` of the submit, to repeat its answer (D-17); empty for a delegated child.
    pub request_id: String,
    /// Whose.
    pub principal: Arc<str>,
    /// Agent name.
    pub agent: String,
    /// Resolved version.
    pub version: Option<String>,
    /// 32 hex digits.
    pub trace_id: Arc<str>,
    /// Handed to the agent.
    pub input: RawJson,
    /// The effective lease as JSON.
    pub lease: RawJson,
    /// The end of the lease as it was asked for.
    pub expires_at: Option<String>,
    /// The effective limit.
    pub max_runtime_sec: Option<u64>,
    /// The delegating job.
    pub parent_job_id: Option<Arc<str>>,
    /// What the delegating job calls it.
    pub delegate_id: Option<String>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// The idempotency key it was submitted under.
    pub key: Option<String>,
    /// What the submit said about the span that caused it.
    pub trace_context: Option<TraceContext>,
}

/// An idempotency key as it is kept.
#[derive(Clone, Debug)]
pub struct KeptKey {
    /// Whose.
    pub principal: Arc<str>,
    /// The key.
    pub key: String,
    /// SHA-256 of the canonical parameters.
    pub fingerprint: [u8; 32],
    /// The job it made.
    pub job_id: Arc<str>,
    /// The job's trace.
    pub trace_id: Arc<str>,
    /// The payload of `job.accepted` as JSON, without `request_id` and credentials.
    pub accepted: RawJson,
    /// When it may be forgotten.
    pub expires_at: Timestamp,
    /// The job's end, once the job itself is forgotten.
    pub terminal: Option<Arc<Record>>,
}

/// A credential that is to be revoked, without its value.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptCredential {
    /// `cred_…`, or the provisioner's own id.
    pub id: String,
    /// The job it was issued for.
    pub job_id: Arc<str>,
    /// What the provisioner needs to revoke it, as JSON. Never the value.
    pub handle: RawJson,
    /// When it was issued.
    pub issued_at: Timestamp,
}

/// Everything a store gives back when it is opened.
#[derive(Debug, Default)]
pub struct Kept {
    /// Rises each time the store gets a new owner: what an earlier owner still writes is refused.
    pub epoch: u64,
    /// Sessions, with their numbers.
    pub sessions: Vec<RestoredSession>,
    /// Jobs, oldest first.
    pub jobs: Vec<RestoredJob>,
    /// Idempotency keys.
    pub keys: Vec<KeptKey>,
    /// Credentials nobody has revoked yet.
    pub credentials: Vec<KeptCredential>,
}

/// A session as it comes back.
#[derive(Debug)]
pub struct RestoredSession {
    /// What was saved.
    pub session: KeptSession,
    /// The last number that was freed; 0 for none.
    pub freed: u64,
    /// The numbered records that are kept, in order: numbers `freed + 1`, `freed + 2`, …
    pub log: Vec<Arc<Record>>,
    /// The jobs it follows.
    pub follows: Vec<KeptFollow>,
}

/// A job as it comes back.
#[derive(Debug)]
pub struct RestoredJob {
    /// What was saved.
    pub job: KeptJob,
    /// Its last state.
    pub status: JobStatus,
    /// Its last counters.
    pub budget: Option<RawJson>,
    /// Of its last record; 0 for none.
    pub job_seq: u64,
    /// Of its last record; 0 for none.
    pub source_seq: u64,
    /// Whether a `result_chunk` was emitted (D-26).
    pub chunked: bool,
    /// Its end.
    pub terminal: Option<Arc<Record>>,
}
