//! The texts of the member `type`.

/// Opens a session, or resumes one.
pub const SESSION_HELLO: &str = "session.hello";
/// Read as a hello with a resume block; never emitted.
pub const SESSION_RESUME: &str = "session.resume";
/// Accepts a session.
pub const SESSION_WELCOME: &str = "session.welcome";
/// Asks for a sign of life.
pub const SESSION_PING: &str = "session.ping";
/// Gives it.
pub const SESSION_PONG: &str = "session.pong";
/// Tells how far the client has come.
pub const SESSION_ACK: &str = "session.ack";
/// Asks for a page of jobs.
pub const SESSION_LIST_JOBS: &str = "session.list_jobs";
/// A page of jobs.
pub const SESSION_JOBS: &str = "session.jobs";
/// Ends the connection, in the draft's form.
pub const SESSION_CLOSE: &str = "session.close";
/// Answers a close or bye.
pub const SESSION_CLOSED: &str = "session.closed";
/// Ends the connection, from either side.
pub const SESSION_BYE: &str = "session.bye";
/// Refuses a request or the session.
pub const SESSION_ERROR: &str = "session.error";
/// Asks for a job.
pub const JOB_SUBMIT: &str = "job.submit";
/// Accepts a job.
pub const JOB_ACCEPTED: &str = "job.accepted";
/// Asks to cancel a job.
pub const JOB_CANCEL: &str = "job.cancel";
/// Acknowledges a cancel.
pub const JOB_CANCELLED: &str = "job.cancelled";
/// Something happened in a job.
pub const JOB_EVENT: &str = "job.event";
/// A job ended well.
pub const JOB_RESULT: &str = "job.result";
/// A job ended otherwise.
pub const JOB_ERROR: &str = "job.error";
/// Asks for a job's events.
pub const JOB_SUBSCRIBE: &str = "job.subscribe";
/// Grants them.
pub const JOB_SUBSCRIBED: &str = "job.subscribed";
/// Ends a subscription.
pub const JOB_UNSUBSCRIBE: &str = "job.unsubscribe";

/// What a runtime accepts.
pub const FROM_CLIENT: &[&str] = &[
    SESSION_HELLO,
    SESSION_RESUME,
    SESSION_PING,
    SESSION_PONG,
    SESSION_ACK,
    SESSION_LIST_JOBS,
    SESSION_CLOSE,
    SESSION_BYE,
    JOB_SUBMIT,
    JOB_CANCEL,
    JOB_SUBSCRIBE,
    JOB_UNSUBSCRIBE,
];

/// What a client accepts.
pub const FROM_RUNTIME: &[&str] = &[
    SESSION_WELCOME,
    SESSION_PING,
    SESSION_PONG,
    SESSION_JOBS,
    SESSION_CLOSED,
    SESSION_BYE,
    SESSION_ERROR,
    JOB_ACCEPTED,
    JOB_CANCELLED,
    JOB_EVENT,
    JOB_RESULT,
    JOB_ERROR,
    JOB_SUBSCRIBED,
];

/// Whether messages of this type consume an `event_seq` (1.3).
pub fn is_numbered(kind: &str) -> bool {
    matches!(kind, JOB_EVENT | JOB_RESULT | JOB_ERROR)
}
