//! Every message of the protocol (runtime-protocol 1.3 and 1.4), as it is emitted and as it is read.
//!
//! The structs serialise to the draft's form plus the members deployed peers need. Reading goes through
//! [`ClientMessage::parse`] and [`RuntimeMessage::parse`], which accept every listed spelling.

pub mod kind;

mod credential;
mod job;
mod parse;
mod session;

use serde::Serialize;

pub(crate) use parse::read_error;

pub use credential::*;
pub use job::*;
pub use session::*;

/// What a client says to a runtime.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientMessage {
    /// `session.hello`, or `session.resume` read as a hello with a resume block.
    Hello(Hello),
    /// `session.ping`.
    Ping(Ping),
    /// `session.pong`.
    Pong(Pong),
    /// `session.ack`.
    Ack(Ack),
    /// `session.list_jobs`.
    ListJobs(ListJobs),
    /// `session.close`.
    Close(Close),
    /// `session.bye`.
    Bye(Bye),
    /// `job.submit`.
    Submit(Submit),
    /// `job.cancel`.
    Cancel(Cancel),
    /// `job.subscribe`.
    Subscribe(Subscribe),
    /// `job.unsubscribe`.
    Unsubscribe(Unsubscribe),
    /// An `x-vendor.*` type whose `extensions.optional` is true: nothing to do.
    Ignored,
}

/// What a runtime says to a client.
#[derive(Clone, Debug, PartialEq)]
pub enum RuntimeMessage {
    /// `session.welcome`.
    Welcome(Welcome),
    /// `session.ping`.
    Ping(Ping),
    /// `session.pong`.
    Pong(Pong),
    /// `session.jobs`.
    Jobs(Jobs),
    /// `session.closed`.
    Closed(Closed),
    /// `session.bye`.
    Bye(Bye),
    /// `session.error`.
    Error(SessionError),
    /// `job.accepted`.
    Accepted(Accepted),
    /// `job.cancelled`: the acknowledgement, not the terminal.
    Cancelled(Cancelled),
    /// `job.event`; the payload stays raw (`{kind, ts, body}`).
    Event,
    /// `job.result`; also what a published peer sends for a cancelled or timed out job.
    Result(JobResult),
    /// `job.error`.
    JobError(JobError),
    /// `job.subscribed`.
    Subscribed(Subscribed),
    /// A type a client ignores: unknown, vendor, or in the wrong direction.
    Ignored,
}

/// A payload this side writes, and the type of the message it goes into.
pub trait Payload: Serialize {
    /// One of [`kind`].
    const KIND: &'static str;
}

macro_rules! payloads {
    ($($payload:ty = $kind:ident;)*) => {
        $(impl Payload for $payload {
            const KIND: &'static str = kind::$kind;
        })*
    };
}

payloads! {
    Hello = SESSION_HELLO;
    Welcome = SESSION_WELCOME;
    Ping = SESSION_PING;
    Pong = SESSION_PONG;
    Ack = SESSION_ACK;
    ListJobs = SESSION_LIST_JOBS;
    Jobs = SESSION_JOBS;
    Close = SESSION_CLOSE;
    Closed = SESSION_CLOSED;
    Bye = SESSION_BYE;
    SessionError = SESSION_ERROR;
    Submit = JOB_SUBMIT;
    Accepted = JOB_ACCEPTED;
    Cancel = JOB_CANCEL;
    Cancelled = JOB_CANCELLED;
    JobResult = JOB_RESULT;
    JobError = JOB_ERROR;
    Subscribe = JOB_SUBSCRIBE;
    Subscribed = JOB_SUBSCRIBED;
    Unsubscribe = JOB_UNSUBSCRIBE;
}

/// Reads the error of a `session.error`, a `job.error` or a `tool_result` from its payload object.
///
/// # Errors
/// `INVALID_REQUEST` when the payload is not an object with a `code`.
pub fn error_from_payload(payload: &serde_json::value::RawValue) -> Result<crate::Error, crate::Error> {
    parse::read_error(&crate::json::Fields::read("payload", payload)?)
}

/// Which side reads a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receiver {
    /// What a client says.
    Runtime,
    /// What a runtime says.
    Client,
}

/// Reads a whole message as one side does, for its faults only.
///
/// # Errors
/// What that side would refuse it with.
pub fn check_message(text: &str, receiver: Receiver) -> Result<(), crate::Error> {
    let head = crate::envelope::Head::parse(text.as_bytes(), &crate::json::Limits::default())
        .map_err(|refusal| refusal.error)?;
    match receiver {
        Receiver::Runtime => ClientMessage::parse(&head).map(drop),
        Receiver::Client => {
            if RuntimeMessage::parse(&head)? == RuntimeMessage::Event {
                let event = crate::event::EventPayload::parse(head.payload.get())?;
                if event.kind == "result_chunk" {
                    crate::event::ResultChunk::read(event.body)?;
                }
            }
            Ok(())
        }
    }
}
