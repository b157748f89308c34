//! The envelope as a value of its own, for hosts that want to look at whole messages.

use serde_json::value::RawValue;

use super::{Head, NAMES};
use crate::error::Error;
use crate::json::{Fields, Limits, ObjectWriter, RawJson, string};

/// A whole message, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// `1.<n>` as the peer wrote it.
    pub arcp: String,
    /// 1 to 128 characters without controls.
    pub id: String,
    /// The member `type`.
    pub kind: String,
    /// Absent on a hello.
    pub session_id: Option<String>,
    /// 32 lower-case hex characters.
    pub trace_id: Option<String>,
    /// The job the message is about.
    pub job_id: Option<String>,
    /// Present on `job.event`, `job.result` and `job.error`.
    pub event_seq: Option<u64>,
    /// A JSON object.
    pub payload: RawJson,
    /// A JSON object.
    pub extensions: Option<RawJson>,
    /// Members the protocol does not name, in the order written.
    pub unknown: Vec<(String, RawJson)>,
}

impl Envelope {
    /// Reads one message under the default [`Limits`]; refused as by [`Head::parse`].
    pub fn parse(text: &str) -> Result<Envelope, Error> {
        let head = Head::parse(text.as_bytes(), &Limits::default()).map_err(|refusal| refusal.error)?;
        let whole: &RawValue =
            serde_json::from_str(text).map_err(|error| crate::json::syntax("the message", &error))?;
        let members = Fields::read("message", whole)?;
        let unknown = members.members().filter(|(name, _)| !NAMES.contains(name));
        Ok(Envelope {
            arcp: members.value("arcp").and_then(string).unwrap_or_default().into_owned(),
            id: head.id.into_owned(),
            kind: head.kind.into_owned(),
            session_id: head.session_id.map(Into::into),
            trace_id: head.trace_id.map(Into::into),
            job_id: head.job_id.map(Into::into),
            event_seq: head.event_seq,
            payload: RawJson::from_raw(head.payload),
            extensions: head.extensions.map(RawJson::from_raw),
            unknown: unknown.map(|(name, value)| (name.to_owned(), RawJson::from_raw(value))).collect(),
        })
    }

    /// The message as one line of JSON.
    pub fn to_json(&self) -> String {
        let mut out = ObjectWriter::new();
        out.text("arcp", &self.arcp);
        out.text("id", &self.id);
        out.text("type", &self.kind);
        out.opt_text("session_id", self.session_id.as_deref());
        out.opt_text("job_id", self.job_id.as_deref());
        out.opt_text("trace_id", self.trace_id.as_deref());
        if let Some(event_seq) = self.event_seq {
            out.u64("event_seq", event_seq);
        }
        out.json("payload", self.payload.get());
        out.opt_json("extensions", self.extensions.as_ref());
        for (name, value) in &self.unknown {
            out.json(name, value.get());
        }
        out.into_text()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_member_survives_the_round_trip() {
        let text = concat!(
            r#"{"arcp":"1.2","id":"m","type":"job.event","session_id":"s","job_id":"j","trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","#,
            r#""event_seq":3,"payload":{"n":1.10},"extensions":{"x-vendor.a.b":1},"prio\"rity":[9007199254740993]}"#
        );
        let envelope = Envelope::parse(text).unwrap();
        assert_eq!(envelope.to_json(), text);
        assert_eq!(envelope.unknown[0].0, "prio\"rity");
        assert_eq!(Envelope::parse(&envelope.to_json()).unwrap(), envelope);
        assert!(Envelope::parse("{}").is_err());
    }
}
