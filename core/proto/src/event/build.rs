//! Bodies for agents to emit, each already as R-8.2.1 wants it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::check::{LEVELS, is_number};
use crate::error::Error;
use crate::json::{Fields, ObjectWriter, RawJson};

/// `log`: `level` is one of `trace`, `debug`, `info`, `warn`, `error`, `critical`; `attributes` an object.
pub fn log(level: &str, message: &str, attributes: Option<&RawJson>) -> Result<RawJson, Error> {
    if !LEVELS.contains(&level) {
        return Err(Error::invalid("level must be trace, debug, info, warn, error or critical; send \"info\""));
    }
    let mut body = ObjectWriter::new();
    body.text("level", level);
    body.text("message", message);
    body.opt_json("attributes", object("attributes", attributes)?);
    body.finish()
}

/// `thought`.
pub fn thought(text: &str) -> Result<RawJson, Error> {
    let mut body = ObjectWriter::new();
    body.text("text", text);
    body.finish()
}

/// `tool_call`: `args` is an object.
pub fn tool_call(tool: &str, args: Option<&RawJson>, call_id: &str) -> Result<RawJson, Error> {
    let mut body = ObjectWriter::new();
    body.text("tool", not_empty("tool", tool)?);
    body.opt_json("args", object("args", args)?);
    body.text("call_id", not_empty("call_id", call_id)?);
    body.finish()
}

/// `tool_result`: `Ok` holds what the tool gave, if anything, `Err` why it failed.
pub fn tool_result(call_id: &str, outcome: Result<Option<&RawJson>, &Error>) -> Result<RawJson, Error> {
    let mut body = ObjectWriter::new();
    body.text("call_id", not_empty("call_id", call_id)?);
    match outcome {
        Ok(result) => body.opt_json("result", result),
        Err(error) => body.json("error", RawJson::from_serialize(error)?.get()),
    }
    body.finish()
}

/// `delegate`: `lease_request` is an object of lists, `lease_constraints` an object with `expires_at` (D-131).
/// `child_job_id` is what the child's job will be called, if it is granted.
pub fn delegate(
    delegate_id: &str,
    agent: &str,
    input: &RawJson,
    lease_request: &RawJson,
    lease_constraints: Option<&RawJson>,
    child_job_id: Option<&str>,
) -> Result<RawJson, Error> {
    let mut body = ObjectWriter::new();
    body.text("delegate_id", not_empty("delegate_id", delegate_id)?);
    body.text("agent", not_empty("agent", agent)?);
    body.json("input", input.get());
    body.opt_json("lease_request", object("lease_request", Some(lease_request))?);
    body.opt_json("lease_constraints", object("lease_constraints", lease_constraints)?);
    body.opt_text("child_job_id", child_job_id);
    let body = body.finish()?;
    super::check_emitted("delegate", &body)?;
    Ok(body)
}

/// `status`: `more` is an object of further members; `phase` and `message` in it are passed over.
pub fn status(phase: &str, message: Option<&str>, more: Option<&RawJson>) -> Result<RawJson, Error> {
    let mut body = ObjectWriter::new();
    body.text("phase", not_empty("phase", phase)?);
    body.opt_text("message", message);
    if let Some(more) = more {
        for (name, value) in
            Fields::read("more", more.as_raw())?.members().filter(|(name, _)| !matches!(*name, "phase" | "message"))
        {
            body.json(name, value.get());
        }
    }
    body.finish()
}

/// `metric`: `value` is the text of a JSON number, written digit for digit (R-9.6.4); `dimensions` an object.
pub fn metric(name: &str, value: &str, unit: Option<&str>, dimensions: Option<&RawJson>) -> Result<RawJson, Error> {
    let mut body = ObjectWriter::new();
    body.text("name", not_empty("name", name)?);
    body.json("value", number("value", value)?);
    body.opt_text("unit", unit);
    body.opt_json("dimensions", object("dimensions", dimensions)?);
    body.finish()
}

/// `artifact_ref`: `byte_size` in bytes, `sha256` in hex.
pub fn artifact_ref(
    uri: &str,
    content_type: &str,
    byte_size: Option<u64>,
    sha256: Option<&str>,
) -> Result<RawJson, Error> {
    let mut body = ObjectWriter::new();
    body.text("uri", not_empty("uri", uri)?);
    body.text("content_type", not_empty("content_type", content_type)?);
    if let Some(byte_size) = byte_size {
        body.u64("byte_size", byte_size);
    }
    body.opt_text("sha256", sha256);
    body.finish()
}

/// `progress`: `current` and `total` are texts of JSON numbers of at least 0 (R-8.2.1.1).
pub fn progress(
    current: &str,
    total: Option<&str>,
    units: Option<&str>,
    message: Option<&str>,
) -> Result<RawJson, Error> {
    let mut body = ObjectWriter::new();
    body.json("current", number("current", current)?);
    if let Some(total) = total {
        body.json("total", number("total", total)?);
    }
    body.opt_text("units", units);
    body.opt_text("message", message);
    let body = body.finish()?;
    super::check_emitted("progress", &body)?;
    Ok(body)
}

/// `result_chunk`: valid UTF-8 goes as text, everything else as base64. The caller cuts text between code points (R-8.4.6).
pub fn result_chunk(result_id: &str, chunk_seq: u64, data: &[u8], more: bool) -> Result<RawJson, Error> {
    let mut body = ObjectWriter::new();
    body.text("result_id", not_empty("result_id", result_id)?);
    body.u64("chunk_seq", chunk_seq);
    match str::from_utf8(data) {
        Ok(text) => {
            body.text("data", text);
            body.text("encoding", "utf8");
        }
        Err(_) => {
            body.text("data", &STANDARD.encode(data));
            body.text("encoding", "base64");
        }
    }
    body.bool("more", more);
    body.finish()
}

fn not_empty<'a>(name: &str, text: &'a str) -> Result<&'a str, Error> {
    if text.is_empty() { Err(Error::invalid(format!("{name} must be text that is not empty"))) } else { Ok(text) }
}

fn number<'a>(name: &str, text: &'a str) -> Result<&'a str, Error> {
    if is_number(text) {
        Ok(text)
    } else {
        Err(Error::invalid(format!("{name} must be a finite number; send it as JSON writes it")))
    }
}

fn object<'a>(name: &'static str, value: Option<&'a RawJson>) -> Result<Option<&'a RawJson>, Error> {
    if let Some(value) = value {
        Fields::read(name, value.as_raw())?;
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{ResultChunk, check_emitted};

    #[test]
    fn every_builder_makes_what_may_be_emitted() {
        let object = RawJson::parse("{\"a\":1}").unwrap();
        let error = Error::invalid("no");
        for (kind, body, text) in [
            ("log", log("warn", "a\"b", Some(&object)), r#"{"level":"warn","message":"a\"b","attributes":{"a":1}}"#),
            ("thought", thought(""), r#"{"text":""}"#),
            ("tool_call", tool_call("t", Some(&object), "c"), r#"{"tool":"t","args":{"a":1},"call_id":"c"}"#),
            ("tool_result", tool_result("c", Ok(Some(&RawJson::null()))), r#"{"call_id":"c","result":null}"#),
            (
                "tool_result",
                tool_result("c", Err(&error)),
                r#"{"call_id":"c","error":{"code":"INVALID_REQUEST","message":"no","retryable":false}}"#,
            ),
            ("status", status("p", Some("m"), Some(&object)), r#"{"phase":"p","message":"m","a":1}"#),
            (
                "metric",
                metric("cost.x", "0.10000000000000000000000001", Some("USD"), None),
                r#"{"name":"cost.x","value":0.10000000000000000000000001,"unit":"USD"}"#,
            ),
            (
                "artifact_ref",
                artifact_ref("u", "t/p", Some(3), Some("ab")),
                r#"{"uri":"u","content_type":"t/p","byte_size":3,"sha256":"ab"}"#,
            ),
            ("progress", progress("1.5", Some("2"), None, None), r#"{"current":1.5,"total":2}"#),
            (
                "result_chunk",
                result_chunk("r", 0, "é".as_bytes(), true),
                r#"{"result_id":"r","chunk_seq":0,"data":"é","encoding":"utf8","more":true}"#,
            ),
            (
                "result_chunk",
                result_chunk("r", 1, &[255], false),
                r#"{"result_id":"r","chunk_seq":1,"data":"/w==","encoding":"base64","more":false}"#,
            ),
        ] {
            let body = body.unwrap();
            assert_eq!(body.get(), text);
            assert_eq!(check_emitted(kind, &body), Ok(()), "{text}");
        }
    }

    #[test]
    fn builders_refuse_what_may_not_be_emitted() {
        let list = RawJson::parse("[]").unwrap();
        for refused in [
            log("loud", "m", None),
            log("info", "m", Some(&list)),
            tool_call("", None, "c"),
            tool_call("t", Some(&list), "c"),
            tool_result("", Ok(None)),
            status("", None, None),
            status("p", None, Some(&list)),
            metric("m", "NaN", None, None),
            metric("m", "1,\"x\":2", None, None),
            metric("m", "01", None, None),
            metric("m", "\"1\"", None, None),
            metric("m", " 1", None, None),
            artifact_ref("", "t", None, None),
            progress("-1", None, None, None),
            progress("1", Some("-1"), None, None),
            result_chunk("", 0, b"", false),
        ] {
            assert!(refused.is_err(), "{refused:?}");
        }
    }

    #[test]
    fn a_chunk_comes_back_as_it_went() {
        for data in [&b"plain"[..], &[0xff, 0, 1], b""] {
            let body = result_chunk("r", 7, data, true).unwrap();
            let chunk = ResultChunk::read(body.as_raw()).unwrap();
            assert_eq!(chunk, ResultChunk { result_id: "r".into(), chunk_seq: 7, data: data.to_vec(), more: true });
        }
    }
}
