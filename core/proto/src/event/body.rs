//! Bodies as they are received, in every spelling of section 1.5.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::{EventKind, ResultChunk};
use crate::error::Error;
use crate::json::{Fields, unsigned};
use crate::message::read_error;

/// What an event says. Members are borrowed from the message; numbers stay text.
#[derive(Clone, Debug)]
pub enum EventBody<'a> {
    /// `log`; any level.
    Log {
        /// Severity.
        level: Cow<'a, str>,
        /// The line.
        message: Cow<'a, str>,
        /// An object.
        attributes: Option<&'a RawValue>,
    },
    /// `thought`.
    Thought {
        /// What the agent considers.
        text: Cow<'a, str>,
    },
    /// `tool_call`.
    ToolCall {
        /// The tool.
        tool: Cow<'a, str>,
        /// An object.
        args: Option<&'a RawValue>,
        /// Joins call and result.
        call_id: Cow<'a, str>,
    },
    /// `tool_result`.
    ToolResult {
        /// Joins call and result.
        call_id: Cow<'a, str>,
        /// What came of it.
        outcome: ToolOutcome<'a>,
    },
    /// `status`; further members stand in the raw body.
    Status {
        /// The phase.
        phase: Cow<'a, str>,
        /// A line about it.
        message: Option<Cow<'a, str>>,
    },
    /// `metric`.
    Metric {
        /// The name; `cost.*` charges a budget.
        name: Cow<'a, str>,
        /// The text of a JSON number.
        value: &'a str,
        /// The unit; of a cost the currency.
        unit: Option<Cow<'a, str>>,
        /// An object.
        dimensions: Option<&'a RawValue>,
    },
    /// `artifact_ref`.
    ArtifactRef {
        /// Where it can be fetched.
        uri: Cow<'a, str>,
        /// Its media type.
        content_type: Option<Cow<'a, str>>,
        /// Bytes.
        byte_size: Option<u64>,
        /// Digest in hex.
        sha256: Option<Cow<'a, str>>,
    },
    /// `delegate`.
    Delegate {
        /// Joins delegation, child and result; one published peer names the child's job instead.
        delegate_id: Option<Cow<'a, str>>,
        /// The child's agent.
        agent: Cow<'a, str>,
        /// What it is given.
        input: Option<&'a RawValue>,
        /// An object of lists.
        lease_request: Option<&'a RawValue>,
        /// An object.
        lease_constraints: Option<&'a RawValue>,
        /// The child's job, from the peer that names it.
        child_job_id: Option<Cow<'a, str>>,
    },
    /// `progress`; `current` may be beyond `total`.
    Progress {
        /// The text of a JSON number.
        current: &'a str,
        /// The text of a JSON number.
        total: Option<&'a str>,
        /// What is counted.
        units: Option<Cow<'a, str>>,
        /// A line about it.
        message: Option<Cow<'a, str>>,
    },
    /// `result_chunk`, decoded.
    ResultChunk(ResultChunk),
    /// A vendor's or unknown kind, or a body that is not as its kind says: passed on as it is (R-8.2.2, R-8.2.3).
    Other(&'a RawValue),
}

/// The end of a tool call.
#[derive(Clone, Debug)]
pub enum ToolOutcome<'a> {
    /// What the tool gave.
    Result(&'a RawValue),
    /// Why it failed.
    Error(Error),
    /// Nothing was said.
    Nothing,
}

impl<'a> EventBody<'a> {
    /// Reads `body` as its `kind` says; never fails, see [`EventBody::Other`].
    pub fn read(kind: &str, body: &'a RawValue) -> EventBody<'a> {
        EventBody::try_read(&EventKind::parse(kind), body).ok().flatten().unwrap_or(EventBody::Other(body))
    }

    fn try_read(kind: &EventKind, body: &'a RawValue) -> Result<Option<EventBody<'a>>, Error> {
        if matches!(kind, EventKind::Vendor(_) | EventKind::Unknown(_)) {
            return Ok(None);
        }
        let fields = Fields::read("body", body)?;
        Ok(Some(match kind {
            EventKind::Log => EventBody::Log {
                level: fields.str("level", "")?,
                message: fields.str("message", "")?,
                attributes: fields.value("attributes"),
            },
            EventKind::Thought => EventBody::Thought { text: fields.str("text", "")? },
            EventKind::ToolCall => EventBody::ToolCall {
                tool: either(&fields, "tool", "name")?,
                args: fields.value("args").or(fields.value("arguments")),
                call_id: either(&fields, "call_id", "tool_call_id")?,
            },
            EventKind::ToolResult => EventBody::ToolResult {
                call_id: either(&fields, "call_id", "tool_call_id")?,
                outcome: match (fields.opt_object("error")?, fields.raw("result").or(fields.raw("output"))) {
                    (Some(error), _) => ToolOutcome::Error(read_error(&error)?),
                    (None, Some(result)) => ToolOutcome::Result(result),
                    (None, None) => ToolOutcome::Nothing,
                },
            },
            EventKind::Status => {
                EventBody::Status { phase: fields.str("phase", "")?, message: fields.opt_str("message", "")? }
            }
            EventKind::Metric => EventBody::Metric {
                name: fields.str("name", "")?,
                value: fields.number("value")?,
                unit: fields.opt_str("unit", "")?,
                dimensions: ["dimensions", "dims", "attributes"].into_iter().find_map(|name| fields.value(name)),
            },
            EventKind::ArtifactRef => EventBody::ArtifactRef {
                uri: fields.str("uri", "")?,
                content_type: opt_either(&fields, "content_type", "media_type")?,
                byte_size: ["byte_size", "size_bytes", "size"]
                    .into_iter()
                    .find_map(|name| fields.value(name))
                    .and_then(unsigned),
                sha256: fields.opt_str("sha256", "")?,
            },
            EventKind::Delegate => EventBody::Delegate {
                delegate_id: fields.opt_str("delegate_id", "")?,
                agent: fields.str("agent", "")?,
                input: fields.raw("input"),
                lease_request: fields.value("lease_request"),
                lease_constraints: fields.value("lease_constraints"),
                child_job_id: fields.opt_str("child_job_id", "")?,
            },
            EventKind::Progress => EventBody::Progress {
                current: fields.number("current")?,
                total: fields.opt_number("total")?,
                units: fields.opt_str("units", "")?,
                message: fields.opt_str("message", "")?,
            },
            EventKind::ResultChunk => EventBody::ResultChunk(ResultChunk::read(body)?),
            EventKind::Vendor(_) | EventKind::Unknown(_) => return Ok(None),
        }))
    }
}

fn opt_either<'a>(fields: &Fields<'a>, draft: &str, other: &str) -> Result<Option<Cow<'a, str>>, Error> {
    Ok(match fields.opt_str(draft, "")? {
        None => fields.opt_str(other, "")?,
        found => found,
    })
}

fn either<'a>(fields: &Fields<'a>, draft: &str, other: &str) -> Result<Cow<'a, str>, Error> {
    opt_either(fields, draft, other)?.ok_or_else(|| fields.fault(draft, "text", ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> &RawValue {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn spellings_of_published_peers_mean_the_same() {
        let python = r#"{"name":"t","arguments":{"a":1},"tool_call_id":"c"}"#;
        let draft = r#"{"tool":"t","args":{"a":1},"call_id":"c"}"#;
        for body in [python, draft] {
            let EventBody::ToolCall { tool, args, call_id } = EventBody::read("tool_call", raw(body)) else {
                panic!("{body}")
            };
            assert_eq!((&*tool, args.map(RawValue::get), &*call_id), ("t", Some(r#"{"a":1}"#), "c"));
        }
        let EventBody::ToolResult { outcome: ToolOutcome::Result(result), .. } =
            EventBody::read("tool_result", raw(r#"{"tool_call_id":"c","output":[1]}"#))
        else {
            panic!("output")
        };
        assert_eq!(result.get(), "[1]");
        for member in ["dimensions", "dims", "attributes"] {
            let text = format!(r#"{{"name":"m","value":1.10,"{member}":{{}}}}"#);
            let EventBody::Metric { value: "1.10", dimensions: Some(_), .. } = EventBody::read("metric", raw(&text))
            else {
                panic!("{member}")
            };
        }
        for body in [
            r#"{"uri":"u","content_type":"t","byte_size":3}"#,
            r#"{"uri":"u","media_type":"t","size_bytes":3}"#,
            r#"{"uri":"u","media_type":"t","size":3}"#,
        ] {
            let EventBody::ArtifactRef { content_type: Some(_), byte_size: Some(3), .. } =
                EventBody::read("artifact_ref", raw(body))
            else {
                panic!("{body}")
            };
        }
    }

    #[test]
    fn odd_bodies_are_passed_on() {
        for (kind, body) in [
            ("log", "[]"),
            ("log", r#"{"level":1}"#),
            ("result_chunk", "{}"),
            ("brand_new", "{}"),
            ("x-vendor.a.b", "4"),
            ("metric", r#"{"name":"m","value":"1"}"#),
        ] {
            assert!(
                matches!(EventBody::read(kind, raw(body)), EventBody::Other(other) if other.get() == body),
                "{kind}"
            );
        }
    }

    #[test]
    fn a_refused_tool_keeps_its_code() {
        let body = raw(r#"{"call_id":"c","error":{"code":"BUDGET_EXHAUSTED","message":"m","retryable":true}}"#);
        let EventBody::ToolResult { outcome: ToolOutcome::Error(error), .. } = EventBody::read("tool_result", body)
        else {
            panic!("no error")
        };
        assert_eq!((error.code.as_str(), error.retryable), ("BUDGET_EXHAUSTED", false));
    }
}
