//! The corpus agents (see ../../README.md).

use std::time::Duration;

use arcp::{Delegate, JobContext, ProtocolError, RawJson, Runtime};
use serde_json::{Value, json};

use crate::Failure;

/// What this shim hosts.
pub(crate) const NAMES: [&str; 9] =
    ["echo", "events", "sleeper", "fails", "refuses", "authorizes", "slow", "streams", "delegates"];

/// Registers `name` or `name@version`.
pub(crate) fn register(runtime: &Runtime, reference: &str) -> Result<(), Failure> {
    let (name, version) = match reference.split_once('@') {
        Some((name, version)) => (name, Some(version)),
        None => (reference, None),
    };
    let agent: std::sync::Arc<dyn arcp::Agent> = match name {
        "echo" => std::sync::Arc::new(echo),
        "events" => std::sync::Arc::new(events),
        "sleeper" => std::sync::Arc::new(sleeper),
        "fails" => std::sync::Arc::new(fails),
        "refuses" => std::sync::Arc::new(refuses),
        "authorizes" => std::sync::Arc::new(authorizes),
        "slow" => std::sync::Arc::new(slow),
        "streams" => std::sync::Arc::new(streams),
        "delegates" => std::sync::Arc::new(delegates),
        other => return Err(Failure::local("BAD_ARGUMENT", format!("no corpus agent \"{other}\""))),
    };
    Ok(runtime.register(name, version, agent, false)?)
}

fn value(input: &RawJson) -> Value {
    serde_json::from_str(input.get()).unwrap_or_default()
}

fn raw(value: &Value) -> Result<RawJson, ProtocolError> {
    RawJson::parse(&value.to_string())
}

async fn echo(input: RawJson, ctx: JobContext) -> Result<RawJson, ProtocolError> {
    ctx.log("info", "echo started").await?;
    RawJson::parse(&format!("{{\"echoed\":{}}}", input.get()))
}

async fn events(_: RawJson, ctx: JobContext) -> Result<RawJson, ProtocolError> {
    ctx.status("working", Some("step one")).await?;
    ctx.log("info", "hello").await?;
    ctx.thought("thinking").await?;
    ctx.tool_call("clock", &json!({}), "c1").await?;
    ctx.tool_result("c1", &"19:30").await?;
    ctx.metric("files.read", "2.5", Some("files")).await?;
    ctx.progress("1", Some("2"), Some("steps")).await?;
    let artifact = json!({"uri": "file:///report.txt", "content_type": "text/plain", "byte_size": 12});
    ctx.emit("artifact_ref", &raw(&artifact)?).await?;
    ctx.emit("x-vendor.example.note", &raw(&json!({"text": "a note"}))?).await?;
    raw(&json!({"count": 9}))
}

async fn sleeper(_: RawJson, ctx: JobContext) -> Result<RawJson, ProtocolError> {
    ctx.status("running", None).await?;
    tokio::select! {
        _ = ctx.cancelled() => {
            ctx.log("info", "cleaned up").await?;
            Ok(RawJson::null())
        }
        () = tokio::time::sleep(Duration::from_secs(30)) => raw(&json!({"slept": true})),
    }
}

async fn fails(_: RawJson, _: JobContext) -> Result<RawJson, ProtocolError> {
    Err(ProtocolError::internal("boom"))
}

async fn refuses(_: RawJson, _: JobContext) -> Result<RawJson, ProtocolError> {
    let error = ProtocolError::new(arcp::ErrorCode::PermissionDenied, "policy says no");
    Err(error.with_details(raw(&json!({"why": "policy"}))?))
}

async fn authorizes(input: RawJson, ctx: JobContext) -> Result<RawJson, ProtocolError> {
    let input = value(&input);
    match ctx.authorize("fs.read", input["path"].as_str().unwrap_or_default()) {
        Ok(()) => raw(&json!({"allowed": true})),
        Err(error) => {
            let shown = ProtocolError { details: None, ..error };
            ctx.tool_error("c1", &shown).await?;
            raw(&json!({"allowed": false}))
        }
    }
}

async fn slow(input: RawJson, ctx: JobContext) -> Result<RawJson, ProtocolError> {
    let count = value(&input)["n"].as_u64().unwrap_or(0);
    let total = count.to_string();
    for i in 1..=count {
        ctx.progress(&i.to_string(), Some(&total), None).await?;
    }
    raw(&json!({"sent": count}))
}

async fn streams(_: RawJson, ctx: JobContext) -> Result<RawJson, ProtocolError> {
    let mut writer = ctx.stream_result()?;
    writer.write_text("[1,2").await?;
    writer.flush();
    writer.write_text(",3]").await?;
    writer.finish(Some("three numbers"))?;
    Ok(RawJson::null())
}

async fn delegates(input: RawJson, ctx: JobContext) -> Result<RawJson, ProtocolError> {
    let child = Delegate { delegate_id: Some("d1".into()), ..Delegate::new("echo", input) };
    let result = ctx.delegate(child).await?.result().await?;
    RawJson::parse(&format!("{{\"child\":{}}}", result.get()))
}
