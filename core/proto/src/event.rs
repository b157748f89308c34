//! What happens in a job (runtime-protocol 1.5): ten kinds of event, and vendors' own.

mod body;
mod build;
mod check;

use std::borrow::Cow;

use base64_simd::STANDARD;
use serde_json::value::RawValue;

use crate::error::Error;
use crate::json::{Fields, pick, push_string, string};
use crate::time::Timestamp;

pub use body::{EventBody, ToolOutcome};
pub use build::{artifact_ref, delegate, log, metric, progress, result_chunk, status, thought, tool_call, tool_result};
pub use check::check_emitted;

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $text:literal;)*) => {
        /// The kind of an event.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum EventKind {
            $($(#[$doc])* $variant,)*
            /// A kind of some vendor, the whole `x-vendor.…` name.
            Vendor(Box<str>),
            /// Any other text: passed on when received (R-8.2.3), never emitted (R-8.2.4).
            Unknown(Box<str>),
        }

        impl EventKind {
            /// The ten kinds of the protocol.
            pub const ALL: &'static [EventKind] = &[$(EventKind::$variant,)*];

            /// The kind with this text.
            pub fn parse(text: &str) -> EventKind {
                match text {
                    $($text => EventKind::$variant,)*
                    _ if text.len() > "x-vendor.".len() && text.starts_with("x-vendor.") => EventKind::Vendor(text.into()),
                    _ => EventKind::Unknown(text.into()),
                }
            }

            /// The text on the wire.
            pub fn as_str(&self) -> &str {
                match self {
                    $(EventKind::$variant => $text,)*
                    EventKind::Vendor(text) | EventKind::Unknown(text) => text,
                }
            }
        }
    };
}

kinds! {
    /// A line for people.
    Log = "log";
    /// What the agent considers.
    Thought = "thought";
    /// A tool is about to be used.
    ToolCall = "tool_call";
    /// What came of it.
    ToolResult = "tool_result";
    /// The job entered a phase.
    Status = "status";
    /// A measured number; `cost.*` charges the budget.
    Metric = "metric";
    /// Something was made that can be fetched elsewhere.
    ArtifactRef = "artifact_ref";
    /// Another job is asked for.
    Delegate = "delegate";
    /// How far the job is; needs the feature `progress`.
    Progress = "progress";
    /// A part of the result; needs the feature `result_chunk`.
    ResultChunk = "result_chunk";
}

/// The payload of a `job.event`, its body raw.
#[derive(Clone, Debug)]
pub struct EventPayload<'a> {
    /// Any text; [`EventKind::parse`] sorts it.
    pub kind: Cow<'a, str>,
    /// When the agent made the event, as the peer wrote it.
    pub ts: Cow<'a, str>,
    /// Any JSON value; [`EventBody::read`] reads it.
    pub body: &'a RawValue,
}

impl<'a> EventPayload<'a> {
    /// Reads `{kind, ts, body}` and leaves the body alone (R-8.2.2). `INVALID_REQUEST` when one of the three is missing, the
    /// kind is empty, or `ts` is no time.
    pub fn parse(payload: &'a str) -> Result<EventPayload<'a>, Error> {
        let [kind, ts, body] =
            pick(payload, &["kind", "ts", "body"]).map_err(|error| crate::json::syntax("payload", &error))?;
        let fault =
            |name: &str, must_be: &str| Error::invalid(format!("payload.{name} of a job.event must be {must_be}"));
        let kind = kind.and_then(string).filter(|kind| !kind.is_empty());
        let ts = ts.and_then(string).filter(|ts| Timestamp::parse(ts).is_some());
        Ok(EventPayload {
            kind: kind.ok_or_else(|| fault("kind", "the name of an event kind, such as \"log\""))?,
            ts: ts.ok_or_else(|| fault("ts", "a time, such as \"2026-05-13T19:30:00.000Z\""))?,
            body: body.ok_or_else(|| fault("body", "an object"))?,
        })
    }

    /// `ts` as an instant.
    pub fn time(&self) -> Option<Timestamp> {
        Timestamp::parse(&self.ts)
    }
}

/// Appends the payload of a `job.event`; `body` must be JSON.
pub fn write_event_payload(out: &mut Vec<u8>, kind: &str, ts: Timestamp, body: &[u8]) {
    out.reserve(body.len() + kind.len() + 64);
    out.extend_from_slice(b"{\"kind\":");
    push_string(out, kind);
    out.extend_from_slice(b",\"ts\":\"");
    ts.push_to(out);
    out.extend_from_slice(b"\",\"body\":");
    out.extend_from_slice(body);
    out.push(b'}');
}

/// One part of a streamed result, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultChunk {
    /// The same for all parts of a job (R-8.4.2).
    pub result_id: String,
    /// 0, 1, 2, … (R-8.4.1).
    pub chunk_seq: u64,
    /// The bytes; of a `utf8` part the bytes of its text.
    pub data: Vec<u8>,
    /// Whether another part follows.
    pub more: bool,
}

impl ResultChunk {
    /// Reads the body of a `result_chunk`. A missing `encoding` means `utf8`; base64 is RFC 4648 section 4 with padding
    /// (R-8.4.7). Everything else is `INVALID_REQUEST`.
    pub fn read(body: &RawValue) -> Result<ResultChunk, Error> {
        let fields = Fields::read("body", body)?;
        let data = fields.str("data", "the part of the result")?;
        let data = match fields.opt_str("encoding", "\"utf8\" or \"base64\"")?.as_deref() {
            None | Some("utf8") => data.into_owned().into_bytes(),
            Some("base64") => STANDARD
                .decode_to_vec(data.as_bytes())
                .map_err(|_| fields.fault("data", "base64 with padding", "encoding \"utf8\" for plain text"))?,
            Some(_) => return Err(fields.fault("encoding", "utf8 or base64", "one of the two")),
        };
        Ok(ResultChunk {
            result_id: fields.non_empty("result_id", "the id of the result")?.into(),
            chunk_seq: fields.u64("chunk_seq", 0)?,
            data,
            more: fields
                .opt_bool("more")?
                .ok_or_else(|| fields.fault("more", "true or false", "false on the last part"))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_keep_their_text() {
        assert_eq!(EventKind::ALL.len(), 10);
        for kind in EventKind::ALL {
            assert_eq!(EventKind::parse(kind.as_str()), *kind);
        }
        assert_eq!(EventKind::parse("x-vendor.acme.heat"), EventKind::Vendor("x-vendor.acme.heat".into()));
        for text in ["x-vendor.", "brand_new", ""] {
            assert_eq!(EventKind::parse(text), EventKind::Unknown(text.into()));
        }
    }

    #[test]
    fn a_payload_is_read_as_it_was_written() {
        let mut out = Vec::new();
        write_event_payload(&mut out, "log", Timestamp(1), b"{\"a\":1}");
        let text = String::from_utf8(out).unwrap();
        let payload = EventPayload::parse(&text).unwrap();
        assert_eq!((&*payload.kind, payload.time(), payload.body.get()), ("log", Some(Timestamp(1)), "{\"a\":1}"));
        for text in [
            "{}",
            "[]",
            r#"{"kind":"","ts":"2026-05-13T19:30:00Z","body":{}}"#,
            r#"{"kind":"log","ts":"now","body":{}}"#,
            r#"{"kind":"log","ts":"2026-05-13T19:30:00Z"}"#,
        ] {
            assert!(EventPayload::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn chunks_are_decoded() {
        let read = |text: &str| ResultChunk::read(serde_json::from_str(text).unwrap());
        assert_eq!(
            read(r#"{"result_id":"r","chunk_seq":0,"data":"a\u00e9","more":true}"#).unwrap().data,
            "aé".as_bytes()
        );
        assert_eq!(
            read(r#"{"result_id":"r","chunk_seq":1,"data":"/+8=","encoding":"base64","more":false}"#).unwrap().data,
            [0xff, 0xef]
        );
        for data in ["_-8=", "/+8", "/+9=", "/+8=\\n"] {
            assert!(
                read(&format!(r#"{{"result_id":"r","chunk_seq":1,"data":"{data}","encoding":"base64","more":false}}"#))
                    .is_err(),
                "{data}"
            );
        }
    }
}
