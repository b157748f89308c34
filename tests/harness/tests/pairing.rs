//! The harness itself, played with fake shims: that it passes what is right, fails what is wrong, and never hangs.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;

use arcp_harness::case::{self, Case};
use arcp_harness::play::{Sides, play};
use arcp_harness::root;
use arcp_harness::shim::{Answer, Shim};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, duplex};

/// A shim in this process: `answer` is given each command and returns the line's `ok` or `error`.
async fn fake(answer: impl Fn(&str, &Value) -> Value + Send + 'static) -> Arc<Shim> {
    let (ours, theirs) = duplex(4096);
    let (reader, writer) = tokio::io::split(ours);
    tokio::spawn(run(theirs, answer));
    Arc::new(Shim::over("fake", reader, writer).await.unwrap())
}

async fn run(pipe: DuplexStream, answer: impl Fn(&str, &Value) -> Value) {
    let (reader, mut writer) = tokio::io::split(pipe);
    let mut lines = BufReader::new(reader).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let command: Value = serde_json::from_str(&line).unwrap();
        let mut reply = answer(command["do"].as_str().unwrap(), &command);
        if reply.is_string() {
            writer.write_all(reply.as_str().unwrap().as_bytes()).await.unwrap();
            continue;
        }
        reply["id"] = command["id"].clone();
        if writer.write_all(format!("{reply}\n").as_bytes()).await.is_err() {
            return;
        }
    }
}

/// A client and a runtime that do what `smoke-echo` asks, job `j1` first.
fn honest(command: &str, arguments: &Value) -> Value {
    let ok = match command {
        "hello" => json!({"language": "fake", "capabilities": ["client", "runtime", "agent.echo"]}),
        "serve" => json!({"runtime": "r1", "url": "ws://127.0.0.1:1/arcp"}),
        "connect" => json!({"session": "s1", "session_id": "sess_01JX3S00000000000000000001", "features": []}),
        "submit" if arguments["input"].is_null() => {
            json!({"job": "j2", "job_id": "job_01JX3J00000000000000000002", "agent": "echo"})
        }
        "submit" => json!({"job": "j1", "job_id": "job_01JX3J00000000000000000001", "agent": "echo"}),
        "events" => {
            json!({"events": [{"kind": "log", "body": {"level": "info", "message": "echo started"}}], "ended": true})
        }
        "result" if arguments["job"] == "j2" => json!({"status": "success", "result": {"echoed": null}}),
        "result" => json!({"status": "success", "result": {"echoed":
            {"hi": 1, "text": "a\n\"é\" 😀", "list": [null, true, -1.5, [], {}]}}}),
        "close" | "stop" => json!({}),
        other => return json!({"error": {"code": "UNSUPPORTED", "message": other, "retryable": false}}),
    };
    json!({ "ok": ok })
}

fn corpus(id: &str) -> Case {
    let cases = case::load(&root().join("tests/corpus/scenario")).unwrap();
    cases.into_iter().find(|case| case.id == id).unwrap()
}

async fn sides(client: impl Fn(&str, &Value) -> Value + Send + 'static) -> Sides {
    Sides { client: Some(fake(client).await), runtime: Some(fake(honest).await) }
}

#[tokio::test]
async fn a_pair_that_does_right_passes() {
    let sides = sides(honest).await;
    let case = corpus("smoke-echo");
    assert!(sides.lacking(&case).is_empty());
    assert_eq!(play(&case, &sides).await, Ok(()));
}

#[tokio::test]
async fn a_wrong_answer_names_its_step_and_place() {
    let wrong = |command: &str, arguments: &Value| match command {
        "submit" => json!({"ok": {"job": "j1", "job_id": "7", "agent": "echo"}}),
        _ => honest(command, arguments),
    };
    let error = play(&corpus("smoke-echo"), &sides(wrong).await).await.unwrap_err();
    assert!(error.starts_with("step 1: job_id: expected"), "{error}");
}

#[tokio::test]
async fn an_error_is_no_success_and_the_reverse() {
    let refusing = |command: &str, arguments: &Value| match command {
        "result" => json!({"error": {"code": "INTERNAL_ERROR", "message": "no", "retryable": true}}),
        _ => honest(command, arguments),
    };
    let error = play(&corpus("smoke-echo"), &sides(refusing).await).await.unwrap_err();
    assert!(error.starts_with("step 3: failed:"), "{error}");
    let error = play(&corpus("pair-bad-token"), &sides(honest).await).await.unwrap_err();
    assert!(error.starts_with("step 1: expected the error"), "{error}");
}

#[tokio::test]
async fn capabilities_decide_what_can_be_played() {
    let sides = sides(honest).await;
    assert_eq!(sides.lacking(&corpus("smoke-cancel")), ["fake: agent.sleeper"]);
    assert_eq!(sides.lacking(&corpus("pair-subscribe")), ["fake: subscribe", "fake: agent.sleeper"]);
}

#[tokio::test]
async fn a_line_that_is_no_answer_ends_the_shim() {
    let babbling = |command: &str, arguments: &Value| match command {
        "connect" => json!("hello there\n"),
        _ => honest(command, arguments),
    };
    let sides = sides(babbling).await;
    let error = play(&corpus("smoke-echo"), &sides).await.unwrap_err();
    assert!(error.contains("a line that is not an answer: hello there"), "{error}");
    assert!(!sides.client.unwrap().is_running());
}

#[tokio::test]
async fn a_scripted_runtime_watches_the_client() {
    // It says it is connected without ever having been: the scripted runtime must notice.
    tokio::time::pause();
    let sides = Sides { client: Some(fake(honest).await), runtime: None };
    let error = play(&corpus("client-hello"), &sides).await.unwrap_err();
    assert!(error.contains("no client came"), "{error}");
}

#[tokio::test]
async fn a_process_is_started_asked_and_ended() {
    let script = r#"while read -r line; do
        id=$(printf %s "$line" | tr -dc 0-9)
        printf '{"id":%s,"ok":{"language":"sh","capabilities":["client"]}}\n' "$id"
        case $line in *exit*) exit "$STATUS";; esac
    done"#;
    for (status, fails) in [("0", false), ("3", true)] {
        let command =
            ["env".to_owned(), format!("STATUS={status}"), "sh".to_owned(), "-c".to_owned(), script.to_owned()];
        let shim = Shim::spawn("sh", &command, &root()).await.unwrap();
        assert!(shim.capabilities().contains("client"));
        let answer = shim.ask("anything", Map::new()).await.unwrap().answer().await.unwrap();
        assert!(matches!(answer, Answer::Ok(_)));
        assert_eq!(shim.exit().await.is_err(), fails);
    }
    let missing = Shim::spawn("none", &["./no-such-shim".to_owned()], &root()).await;
    assert!(missing.err().unwrap().contains("does not start"));
}
