//! What an agent may emit.

use serde_json::value::RawValue;

use super::{EventKind, ResultChunk};
use crate::error::Error;
use crate::json::{Fields, RawJson};
use crate::time::Timestamp;

pub(super) const LEVELS: [&str; 6] = ["trace", "debug", "info", "warn", "error", "critical"];

/// Whether an agent may emit `body` under `kind`: one of the ten kinds with its members, or `x-vendor.*` with anything
/// (R-8.2.1, R-8.2.4). `INVALID_REQUEST` names the member at fault. `current` beyond `total` is allowed (R-8.2.1.2).
pub fn check_emitted(kind: &str, body: &RawJson) -> Result<(), Error> {
    let kind = match EventKind::parse(kind) {
        EventKind::Vendor(_) => return Ok(()),
        EventKind::Unknown(_) => {
            return Err(Error::invalid(
                "an agent may emit only the ten kinds of the protocol; send a kind of its own as \"x-vendor.<vendor>.<name>\"",
            ));
        }
        kind => kind,
    };
    let fields = Fields::read(format!("{}.body", kind.as_str()), body.as_raw())?;
    match kind {
        EventKind::Log => {
            if !LEVELS.contains(&&*fields.str("level", "\"info\"")?) {
                return Err(fields.fault("level", "trace, debug, info, warn, error or critical", "\"info\""));
            }
            fields.str("message", "a sentence")?;
            fields.opt_object("attributes")?;
        }
        EventKind::Thought => {
            fields.str("text", "a sentence")?;
        }
        EventKind::ToolCall => {
            fields.non_empty("tool", "the name of the tool")?;
            fields.opt_object("args")?;
            fields.non_empty("call_id", "an id for this call")?;
        }
        EventKind::ToolResult => tool_result(&fields)?,
        EventKind::Status => {
            fields.opt_str("message", "a sentence")?;
            if fields.non_empty("phase", "the name of the phase")? == "credential_rotated" {
                fields.non_empty("id", "the id of the credential")?;
                fields.non_empty("value", "the new value")?;
            }
        }
        EventKind::Metric => {
            fields.non_empty("name", "the name of the metric")?;
            fields.number("value")?;
            fields.opt_str("unit", "a unit")?;
            fields.opt_object("dimensions")?;
        }
        EventKind::ArtifactRef => {
            fields.non_empty("uri", "where it can be fetched")?;
            fields.non_empty("content_type", "\"text/plain\"")?;
            fields.opt_u64("byte_size", 0)?;
            fields.opt_non_empty("sha256", "a digest in hex")?;
        }
        EventKind::Delegate => delegate(&fields)?,
        EventKind::Progress => {
            not_negative(&fields, "current")?.ok_or_else(|| fields.fault("current", "a number of at least 0", ""))?;
            not_negative(&fields, "total")?;
            fields.opt_str("units", "a unit")?;
            fields.opt_str("message", "a sentence")?;
        }
        EventKind::ResultChunk => {
            ResultChunk::read(body.as_raw())?;
            fields.str("encoding", "\"utf8\" or \"base64\"")?;
        }
        EventKind::Vendor(_) | EventKind::Unknown(_) => {}
    }
    Ok(())
}

fn tool_result(fields: &Fields<'_>) -> Result<(), Error> {
    fields.non_empty("call_id", "the id of the call")?;
    let Some(error) = fields.opt_object("error")? else { return Ok(()) };
    if fields.value("result").is_some() {
        return Err(Error::invalid("tool_result.body must not hold both result and error; send the one that applies"));
    }
    error.non_empty("code", "an error code")?;
    error.non_empty("message", "a sentence")?;
    error.opt_bool("retryable")?.ok_or_else(|| error.fault("retryable", "true or false", ""))?;
    error.opt_object("details")?;
    Ok(())
}

fn delegate(fields: &Fields<'_>) -> Result<(), Error> {
    if fields.value("delegate_id").is_none()
        && fields.opt_non_empty("child_job_id", "the id of the child's job")?.is_some()
    {
        // It tells of a job its agent has submitted by other means, and asks for none.
        return fields.non_empty("agent", "\"name\" or \"name@version\"").map(drop);
    }
    fields.non_empty("delegate_id", "an id for this delegation")?;
    fields.non_empty("agent", "\"name\" or \"name@version\"")?;
    if let Some(lease) = fields.opt_object("lease_request")? {
        lease.lists_of_text()?;
    }
    if let Some(constraints) = fields.opt_object("lease_constraints")? {
        let expires_at = constraints.opt_str("expires_at", "\"YYYY-MM-DDThh:mm:ssZ\"")?;
        if expires_at.is_some_and(|text| Timestamp::parse_utc(&text).is_none()) {
            return Err(constraints.fault(
                "expires_at",
                "an existing UTC time that ends in Z",
                "\"YYYY-MM-DDThh:mm:ssZ\"",
            ));
        }
    }
    Ok(())
}

fn not_negative<'a>(fields: &Fields<'a>, name: &str) -> Result<Option<&'a str>, Error> {
    let number = fields.opt_number(name)?;
    let negative = |text: &str| {
        text.starts_with('-')
            && text.bytes().take_while(|byte| !matches!(byte, b'e' | b'E')).any(|byte| matches!(byte, b'1'..=b'9'))
    };
    match number {
        Some(text) if negative(text) => Err(fields.fault(name, "a number of at least 0", "")),
        number => Ok(number),
    }
}

/// Whether `text` is a JSON number.
pub(super) fn is_number(text: &str) -> bool {
    text.starts_with(|first: char| first == '-' || first.is_ascii_digit())
        && serde_json::from_str::<&RawValue>(text).is_ok_and(|raw| raw.get() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_ten_kinds_need() {
        let check = |kind: &str, body: &str| check_emitted(kind, &RawJson::parse(body).unwrap());
        for (kind, body) in [
            ("log", r#"{"level":"critical","message":"","attributes":{}}"#),
            ("thought", r#"{"text":""}"#),
            ("tool_call", r#"{"tool":"clock","call_id":"c"}"#),
            ("tool_result", r#"{"call_id":"c"}"#),
            ("tool_result", r#"{"call_id":"c","result":1,"error":null}"#),
            ("tool_result", r#"{"call_id":"c","error":{"code":"X","message":"m","retryable":false}}"#),
            ("status", r#"{"phase":"thinking","of":3}"#),
            ("metric", r#"{"name":"cost.llm","value":-0.12345678901234567890123,"unit":"USD"}"#),
            ("artifact_ref", r#"{"uri":"s3://b/k","content_type":"text/csv","byte_size":0}"#),
            (
                "delegate",
                r#"{"delegate_id":"d","agent":"a","lease_request":{"fs.read":["/a"]},"lease_constraints":{"expires_at":"2099-01-01T00:00:00Z"}}"#,
            ),
            ("progress", r#"{"current":47.5,"total":10}"#),
            ("progress", r#"{"current":-0.0e5}"#),
            ("result_chunk", r#"{"result_id":"r","chunk_seq":0,"data":"","encoding":"utf8","more":false}"#),
            ("x-vendor.acme.heat", "41"),
        ] {
            assert_eq!(check(kind, body), Ok(()), "{kind} {body}");
        }
        for (kind, body, names) in [
            ("foo", "{}", "x-vendor"),
            ("log", "[]", "log.body must be an object, got a list"),
            ("log", r#"{"level":"loud","message":"m"}"#, "log.body.level"),
            ("log", r#"{"level":"info"}"#, "log.body.message"),
            ("thought", "{}", "thought.body.text"),
            ("tool_call", r#"{"tool":"clock"}"#, "call_id"),
            ("tool_call", r#"{"tool":"clock","call_id":"c","args":[]}"#, "args"),
            (
                "tool_result",
                r#"{"call_id":"c","result":1,"error":{"code":"X","message":"m","retryable":false}}"#,
                "both",
            ),
            ("tool_result", r#"{"call_id":"c","error":{"code":"X","message":"m"}}"#, "retryable"),
            ("status", r#"{"message":"m"}"#, "phase"),
            ("status", r#"{"phase":"credential_rotated","id":"c"}"#, "value"),
            ("metric", r#"{"name":"m","value":"1"}"#, "metric.body.value must be a number, got text"),
            ("metric", r#"{"name":"m","value":null}"#, "metric.body.value"),
            ("artifact_ref", r#"{"uri":"u"}"#, "content_type"),
            (
                "delegate",
                r#"{"delegate_id":"d","agent":"a","lease_request":{"fs.read":"/a"}}"#,
                "lease_request.fs.read",
            ),
            (
                "delegate",
                r#"{"delegate_id":"d","agent":"a","lease_constraints":{"expires_at":"2099-01-01T00:00:00+00:00"}}"#,
                "expires_at",
            ),
            ("progress", r#"{"current":-1}"#, "current"),
            ("progress", r#"{"total":1}"#, "current"),
            ("result_chunk", r#"{"result_id":"r","chunk_seq":0,"data":"","more":false}"#, "encoding"),
            (
                "result_chunk",
                r#"{"result_id":"r","chunk_seq":-1,"data":"","encoding":"utf8","more":false}"#,
                "chunk_seq",
            ),
        ] {
            let error = check(kind, body).unwrap_err();
            assert!(error.message.contains(names), "{kind} {body}: {}", error.message);
        }
    }
}
