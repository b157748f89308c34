//! The envelope around every message (runtime-protocol 1.1): its head read without copying, written without detours.

mod owned;

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::error::Error;
use crate::json::{Limits, check, pick, push_string, push_u64, shape, string, syntax, unsigned};
use crate::message::{Payload, kind};
use crate::trace::{TraceContext, trace_id_of};

pub use owned::Envelope;

/// A received message: its envelope read and checked, its payload still raw.
#[derive(Clone, Debug)]
pub struct Head<'a> {
    /// 1 to 128 characters without controls (R-5.7).
    pub id: Cow<'a, str>,
    /// The member `type`: one of [`kind`], or anything else a peer may say.
    pub kind: Cow<'a, str>,
    /// Absent on a hello, and tolerated as absent later (R-5.11).
    pub session_id: Option<Cow<'a, str>>,
    /// The job the message is about.
    pub job_id: Option<Cow<'a, str>>,
    /// 32 lower-case hex characters, also when the peer sent a whole `traceparent` (R-11.1).
    pub trace_id: Option<Cow<'a, str>>,
    /// At least 1; read only on `job.event`, `job.result` and `job.error`, the types that consume a number.
    pub event_seq: Option<u64>,
    /// A JSON object.
    pub payload: &'a RawValue,
    /// Whether `extensions.optional` is `true`, so that a receiver that does not know the type ignores it (R-5.16).
    pub optional: bool,
    /// A JSON object.
    pub extensions: Option<&'a RawValue>,
}

/// A message that cannot be read, with what could be read of it, so that the answer can name it and a numbered message
/// still advances the sequence (D-29).
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// Why; always `INVALID_REQUEST`.
    pub error: Error,
    /// `id`, if that much was valid.
    pub id: Option<String>,
    /// `type`, if that much was valid.
    pub kind: Option<String>,
    /// `job_id`, if that much was valid.
    pub job_id: Option<String>,
    /// `event_seq`, if that much was valid and the type consumes a number.
    pub event_seq: Option<u64>,
}

impl From<Error> for Box<Refusal> {
    fn from(error: Error) -> Self {
        Box::new(Refusal { error, id: None, kind: None, job_id: None, event_seq: None })
    }
}

const NAMES: [&str; 9] =
    ["arcp", "id", "type", "session_id", "job_id", "trace_id", "event_seq", "payload", "extensions"];

type Member<'a> = Option<&'a RawValue>;

impl<'a> Head<'a> {
    /// Reads the envelope of `frame`. Unknown members are ignored (R-5.1), of equal names the last wins, `null` is absent.
    pub fn parse(frame: &'a [u8], limits: &Limits) -> Result<Head<'a>, Box<Refusal>> {
        let text = check(frame, limits)?;
        let members = pick(text, &NAMES).map_err(|error| not_an_object(text, &error))?;
        let members = members.map(|member| member.filter(|value| value.get() != "null"));
        Head::read(&members).map_err(|error| {
            let [_, id, kind, _, job_id, _, event_seq, ..] = members;
            let kind = read_type(kind).ok();
            Box::new(Refusal {
                error,
                id: read_id("id", id).ok().flatten().map(Cow::into_owned),
                event_seq: kind.as_deref().and_then(|kind| read_event_seq(kind, event_seq).ok().flatten()),
                kind: kind.map(Cow::into_owned),
                job_id: read_id("job_id", job_id).ok().flatten().map(Cow::into_owned),
            })
        })
    }

    fn read(
        &[arcp, id, kind, session_id, job_id, trace_id, event_seq, payload, extensions]: &[Member<'a>; 9],
    ) -> Result<Head<'a>, Error> {
        if !arcp.and_then(string).is_some_and(|version| is_spoken(&version)) {
            return Err(fault("arcp", "a version of this protocol", arcp, "\"1.1\""));
        }
        let kind = read_type(kind)?;
        if extensions.is_some_and(|value| shape(value) != "an object") {
            return Err(fault("extensions", "an object", extensions, "{\"x-vendor.<vendor>.<name>\":...}"));
        }
        Ok(Head {
            id: read_id("id", id)?.ok_or_else(|| fault("id", "text of 1 to 128 characters", None, "a new id"))?,
            session_id: read_id("session_id", session_id)?,
            job_id: read_id("job_id", job_id)?,
            trace_id: trace_id.map(read_trace_id).transpose()?,
            event_seq: read_event_seq(&kind, event_seq)?,
            payload: payload
                .filter(|value| shape(value) == "an object")
                .ok_or_else(|| fault("payload", "an object", payload, "{...}"))?,
            optional: extensions.is_some_and(is_optional),
            extensions,
            kind,
        })
    }

    /// Whether `id` is a ULID without a prefix, one mark of the published Python client (D-1).
    pub fn has_bare_ulid(&self) -> bool {
        let crockford =
            |byte: u8| byte.is_ascii_digit() || byte.is_ascii_uppercase() && !matches!(byte, b'I' | b'L' | b'O' | b'U');
        self.id.len() == 26 && self.id.bytes().all(crockford)
    }

    /// The trace context among the extensions; `None` when there is none that can be read (R-11.5, R-11.7).
    pub fn trace_context(&self) -> Option<TraceContext> {
        self.extensions.and_then(TraceContext::from_extensions)
    }

    /// What to report when the payload turns out to be wrong.
    pub fn refusal(&self, error: Error) -> Refusal {
        Refusal {
            error,
            id: Some(self.id.as_ref().to_owned()),
            kind: Some(self.kind.as_ref().to_owned()),
            job_id: self.job_id.as_deref().map(str::to_owned),
            event_seq: self.event_seq,
        }
    }
}

fn fault(name: &str, must_be: &str, found: Member<'_>, example: &str) -> Error {
    let got = found.map_or("nothing", shape);
    Error::invalid(format!("{name} must be {must_be}, got {got}; send {example}"))
}

fn not_an_object(text: &str, error: &serde_json::Error) -> Error {
    match serde_json::from_str::<&RawValue>(text).map(shape) {
        Ok("an object") => syntax("the message", error),
        Err(error) => syntax("the message", &error),
        Ok(other) => {
            Error::invalid(format!("a message must be a JSON object, got {other}; send {{\"arcp\":\"1.1\",...}}"))
        }
    }
}

/// `1.<n>` with n at least 1 (R-5.4).
fn is_spoken(version: &str) -> bool {
    let minor = version.strip_prefix("1.").unwrap_or_default();
    minor.bytes().all(|byte| byte.is_ascii_digit()) && !minor.is_empty() && !minor.starts_with('0')
}

fn read_id<'a>(name: &str, member: Member<'a>) -> Result<Option<Cow<'a, str>>, Error> {
    let Some(value) = member else { return Ok(None) };
    let id = string(value).filter(|id| is_id(id));
    id.map(Some).ok_or_else(|| fault(name, "text of 1 to 128 characters without controls", member, "an id"))
}

/// Ids are nearly always short ASCII, which needs no decoding.
fn is_id(text: &str) -> bool {
    match text.len() {
        0 => false,
        1..=128 if text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) => true,
        1..=512 => text.chars().count() <= 128 && !text.chars().any(char::is_control),
        _ => false,
    }
}

fn read_type<'a>(member: Member<'a>) -> Result<Cow<'a, str>, Error> {
    let kind = member.and_then(string).filter(|kind| !kind.is_empty());
    kind.ok_or_else(|| fault("type", "the name of a message type", member, "one such as \"session.ping\""))
}

fn read_event_seq(kind: &str, member: Member<'_>) -> Result<Option<u64>, Error> {
    let (Some(value), true) = (member, kind::is_numbered(kind)) else { return Ok(None) };
    let seq = unsigned(value).filter(|seq| *seq >= 1);
    let fault = || {
        Error::invalid(format!("event_seq must be a whole number from 1 to 9223372036854775807, got {}", shape(value)))
    };
    seq.map(Some).ok_or_else(fault)
}

/// A trace id, or the one inside a `traceparent` (R-11.1).
fn read_trace_id(value: &RawValue) -> Result<Cow<'_, str>, Error> {
    let id = match string(value) {
        Some(Cow::Borrowed(text)) => trace_id_of(text).map(Cow::Borrowed),
        Some(Cow::Owned(text)) => trace_id_of(&text).map(|id| Cow::Owned(id.to_owned())),
        None => None,
    };
    id.ok_or_else(|| {
        fault(
            "trace_id",
            "32 lower-case hex characters, not all zero, or a traceparent",
            Some(value),
            "a trace id or leave it out",
        )
    })
}

fn is_optional(extensions: &RawValue) -> bool {
    pick(extensions.get(), &["optional"]).is_ok_and(|[flag]| flag.is_some_and(|flag| flag.get() == "true"))
}

/// The extension that tells a subscriber an event's number in the submitting session (R-7.6.8).
pub const SOURCE_EVENT_SEQ: &str = "x-vendor.arcp.source_event_seq";

/// The members of an envelope to be written, except the payload.
#[derive(Clone, Copy, Debug, Default)]
pub struct Header<'a> {
    /// The member `type`.
    pub kind: &'a str,
    /// A new message id.
    pub id: &'a str,
    /// On every message after the hello (R-5.9).
    pub session_id: Option<&'a str>,
    /// On every message about one job.
    pub job_id: Option<&'a str>,
    /// 32 lower-case hex characters.
    pub trace_id: Option<&'a str>,
    /// Exactly on `job.event`, `job.result` and `job.error`.
    pub event_seq: Option<u64>,
    /// A JSON object; not written beside `source_event_seq`, which is one of its own.
    pub extensions: Option<&'a str>,
    /// The number in the submitting session, on copies for others (R-7.6.8).
    pub source_event_seq: Option<u64>,
}

/// Appends a whole message: `header` around `payload`, which must be a JSON object.
pub fn write_frame(out: &mut Vec<u8>, header: &Header<'_>, payload: &[u8]) {
    out.reserve(payload.len() + 256);
    write_head(out, header);
    out.extend_from_slice(payload);
    out.push(b'}');
}

/// Appends a whole message with `payload` serialised in place. `INTERNAL_ERROR`, and nothing appended, if that fails.
pub fn write_message<P: Payload>(out: &mut Vec<u8>, header: &Header<'_>, payload: &P) -> Result<(), Error> {
    let start = out.len();
    write_head(out, header);
    if let Err(error) = serde_json::to_writer(&mut *out, payload) {
        out.truncate(start);
        return Err(Error::internal(format!("a {} could not be written: {error}", header.kind)));
    }
    out.push(b'}');
    Ok(())
}

fn write_head(out: &mut Vec<u8>, header: &Header<'_>) {
    out.extend_from_slice(b"{\"arcp\":\"1.1\",\"id\":");
    push_string(out, header.id);
    out.extend_from_slice(b",\"type\":");
    push_string(out, header.kind);
    if let Some(session_id) = header.session_id {
        out.extend_from_slice(b",\"session_id\":");
        push_string(out, session_id);
    }
    if let Some(job_id) = header.job_id {
        out.extend_from_slice(b",\"job_id\":");
        push_string(out, job_id);
    }
    if let Some(trace_id) = header.trace_id {
        out.extend_from_slice(b",\"trace_id\":");
        push_string(out, trace_id);
    }
    if let Some(event_seq) = header.event_seq {
        out.extend_from_slice(b",\"event_seq\":");
        push_u64(out, event_seq);
    }
    if let Some(source) = header.source_event_seq {
        out.extend_from_slice(b",\"extensions\":{\"");
        out.extend_from_slice(SOURCE_EVENT_SEQ.as_bytes());
        out.extend_from_slice(b"\":");
        push_u64(out, source);
        out.push(b'}');
    } else if let Some(extensions) = header.extensions {
        out.extend_from_slice(b",\"extensions\":");
        out.extend_from_slice(extensions.as_bytes());
    }
    out.extend_from_slice(b",\"payload\":");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(frame: &str) -> Result<Head<'_>, Box<Refusal>> {
        Head::parse(frame.as_bytes(), &Limits::default())
    }

    #[test]
    fn a_frame_is_read_as_it_was_written() {
        let header = Header {
            kind: kind::JOB_EVENT,
            id: "msg_1",
            session_id: Some("sess_1"),
            job_id: Some("a\"b"),
            trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736"),
            event_seq: Some(7),
            extensions: Some("{\"optional\":true}"),
            source_event_seq: None,
        };
        let mut frame = Vec::new();
        write_frame(&mut frame, &header, b"{\"kind\":\"log\"}");
        let head = Head::parse(&frame, &Limits::default()).unwrap();
        assert_eq!((&*head.id, &*head.kind, head.event_seq), ("msg_1", "job.event", Some(7)));
        assert_eq!(
            (head.session_id.as_deref(), head.job_id.as_deref(), head.trace_id.as_deref()),
            (header.session_id, header.job_id, header.trace_id)
        );
        assert_eq!(head.payload.get(), "{\"kind\":\"log\"}");
        assert!(matches!(head.id, Cow::Borrowed(_)) && !head.has_bare_ulid() && head.optional);
    }

    #[test]
    fn frames_that_are_no_objects_say_so() {
        for (frame, got) in [
            ("[", "ends too early"),
            ("3", "got a number"),
            ("\"x\"", "got text"),
            ("[]", "got a list"),
            ("{\"a\":1,}", "is not JSON"),
            ("", "ends too early"),
            ("{} {}", "is not JSON"),
        ] {
            let refusal = parse(frame).unwrap_err();
            assert!(refusal.error.message.contains(got), "{frame}: {}", refusal.error.message);
        }
    }

    #[test]
    fn a_refusal_carries_what_could_be_read() {
        let refusal =
            parse(r#"{"arcp":"1.1","id":"m","type":"job.event","job_id":"j","event_seq":4,"payload":[]}"#).unwrap_err();
        assert_eq!(refusal.error.message, "payload must be an object, got a list; send {...}");
        assert_eq!(
            (refusal.id.as_deref(), refusal.kind.as_deref(), refusal.job_id.as_deref(), refusal.event_seq),
            (Some("m"), Some("job.event"), Some("j"), Some(4))
        );
        let refusal = parse(r#"{"arcp":"2.0","id":12,"type":"job.event","event_seq":0,"payload":{}}"#).unwrap_err();
        assert_eq!((refusal.id, refusal.event_seq), (None, None));
    }

    #[test]
    fn versions_from_one_point_one_on_are_spoken() {
        assert!(["1.1", "1.2", "1.10"].into_iter().all(is_spoken));
        assert!(!["1", "1.0", "1.", "1.01", "2.1", "1.1\n", "1.1.0", "1.x", ""].into_iter().any(is_spoken));
    }

    #[test]
    fn trace_ids_and_traceparents() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        for text in [id.to_owned(), format!("00-{id}-00f067aa0ba902b7-01"), format!("01-{id}-00f067aa0ba902b7-01-more")]
        {
            assert_eq!(trace_id_of(&text), Some(id), "{text}");
        }
        for text in [
            "".to_owned(),
            "0".repeat(32),
            id.to_uppercase(),
            format!("{id}\n"),
            id[1..].to_owned(),
            format!("00-{id}-00f067aa0ba902b7-01-more"),
            format!("ff-{id}-00f067aa0ba902b7-01"),
            format!("00-{id}-0000000000000000-01"),
            format!("00-{id}-00f067aa0ba902b7"),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
        ] {
            assert_eq!(trace_id_of(&text), None, "{text:?}");
        }
    }

    #[test]
    fn a_number_counts_only_on_the_types_that_consume_one() {
        let head = parse(r#"{"arcp":"1.1","id":"m","type":"session.ping","event_seq":"x","payload":{},"extensions":{"optional":true}}"#).unwrap();
        assert!(head.event_seq.is_none() && head.optional);
    }
}
