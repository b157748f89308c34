//! Jobs that succeed: serve, submit, tail.

#![cfg(unix)]

mod support;

use arcp::CancelPolicy;
use serde_json::json;
use support::{BOUND, Host, Running, TOKEN, arcp, finish, run, session};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

#[tokio::test]
async fn serve_submit_and_tail_print_what_the_readme_promises() {
    let (server, url) = Running::serve(&["--host", "127.0.0.1", "--principal", "me@example.com"]).await;
    assert!(url.starts_with("ws://127.0.0.1:") && url.ends_with("/arcp"), "{url}");

    let submitted = run(&session("submit", &url, &["--agent", "echo", "--input", r#"{"hi":1}"#])).await;
    assert_eq!(submitted.status, 0, "{submitted:?}");
    let start =
        "{\n  \"final_status\": \"success\",\n  \"result\": {\n    \"echoed\": {\n      \"hi\": 1\n    }\n  },\n";
    assert!(submitted.stdout.starts_with(start) && submitted.stdout.ends_with("Z\"\n}\n"), "{submitted:?}");
    assert!(submitted.job_id().starts_with("job_"), "{submitted:?}");

    let tailed = run(&session("tail", &url, &["--job-id", submitted.job_id()])).await;
    assert_eq!((tailed.status, &*tailed.stderr), (0, ""), "{tailed:?}");
    let lines = tailed.json_lines();
    assert!(tailed.stdout.starts_with("{\"kind\":\"log\",\"body\":{"), "{tailed:?}");
    assert_eq!(lines[0]["body"], json!({"level": "info", "message": "echo started"}));
    assert!(lines[0]["ts"].is_string());
    assert_eq!(lines[1..], [submitted.json()]);

    let later = run(&session("tail", &url, &["--job-id", submitted.job_id(), "--from-seq", "1"])).await;
    assert_eq!(later.json_lines(), [submitted.json()]);

    server.signal("INT").await;
    let served = server.end().await;
    assert_eq!((served.status, &*served.stdout, &*served.stderr), (0, "", ""));
}

#[tokio::test]
async fn input_keeps_its_digits_wherever_it_comes_from() {
    let (_server, url) = Running::serve(&[]).await;
    let input = r#"{"n":1.10,"big":123456789012345678901234567890}"#;
    let file = std::env::temp_dir().join(format!("arcp-input-{}.json", std::process::id()));
    std::fs::write(&file, input).unwrap();
    let from_file = format!("@{}", file.display());
    for given in [input, &*from_file] {
        let ran = run(&session("submit", &url, &["--agent", "echo", "--input", given])).await;
        assert!(ran.stdout.contains("\"n\": 1.10,\n"), "{ran:?}");
        assert!(ran.stdout.contains("\"big\": 123456789012345678901234567890\n"), "{ran:?}");
    }
    std::fs::remove_file(&file).unwrap();

    let mut command = arcp(session("submit", &url, &["--agent", "echo", "--input", "-", "--quiet"]));
    let mut child = command
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"[-1]").await.unwrap();
    let output = timeout(BOUND, child.wait_with_output()).await.unwrap().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(result["result"], json!({"echoed": [-1]}));
}

#[tokio::test]
async fn programs_get_one_json_object_per_line() {
    let (_server, url) = Running::serve(&[]).await;
    let submitted = run(&session("submit", &url, &["--agent", "echo", "--output", "json"])).await;
    assert_eq!((submitted.status, &*submitted.stderr), (0, ""), "{submitted:?}");
    let lines = submitted.json_lines();
    assert_eq!(lines.len(), 3, "{submitted:?}");
    assert_eq!(lines[0]["accepted"]["agent"], "echo");
    assert_eq!(lines[1]["event"]["kind"], "log");
    assert_eq!(lines[2]["result"]["result"], json!({"echoed": null}));

    let job_id = lines[0]["accepted"]["job_id"].as_str().unwrap();
    let tailed = run(&session("tail", &url, &["--job-id", job_id, "--output", "json"])).await;
    assert_eq!(tailed.json_lines(), lines[1..]);
    let cancelled = run(&session("cancel", &url, &["--job-id", job_id, "--output", "json"])).await;
    assert_eq!(cancelled.json(), json!({"cancel": {"job_id": job_id, "already_ended": "success"}}));
}

#[tokio::test]
async fn serve_says_where_it_listens_as_json() {
    let mut server = Running::start(&["serve", "--port", "0", "--token", TOKEN, "--db", "memory", "--output", "json"]);
    let line: serde_json::Value = serde_json::from_str(&server.out_line().await).unwrap();
    assert_eq!(line["listening"]["db"], json!(null));
    let url = line["listening"]["url"].as_str().unwrap();
    assert_eq!(run(&session("submit", url, &["--agent", "echo"])).await.status, 0);
}

#[tokio::test]
async fn the_token_may_come_from_a_file_or_the_environment() {
    let (_server, url) = Running::serve(&[]).await;
    let file = std::env::temp_dir().join(format!("arcp-token-{}", std::process::id()));
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let submit = ["submit", "--url", &url, "--agent", "echo"];
    // What was asked for by name wins over the environment.
    let from_file = finish(arcp(submit).arg("--token-file").arg(&file).env("ARCP_TOKEN", "wrong")).await;
    std::fs::remove_file(&file).unwrap();
    assert_eq!(from_file.status, 0, "{from_file:?}");
    let from_environment = finish(arcp(submit).env("ARCP_TOKEN", TOKEN)).await;
    assert_eq!(from_environment.status, 0, "{from_environment:?}");
}

#[tokio::test]
async fn one_key_is_one_job() {
    let (_server, url) = Running::serve(&[]).await;
    let args = session("submit", &url, &["--agent", "echo", "--idempotency-key", "week-19"]);
    let (first, again) = (run(&args).await, run(&args).await);
    assert_eq!((first.status, again.status), (0, 0), "{again:?}");
    assert_eq!(first.job_id(), again.job_id());
    assert_eq!(first.json(), again.json());
}

#[tokio::test]
async fn a_detached_job_goes_on_and_is_followed_live() {
    let mut host = Host::start(CancelPolicy::Session).await;
    let job_id = host.detached("waits").await;
    assert_eq!(host.hear().await, "started");
    let url = host.url.clone();
    let mut tail = Running::start(&session("tail", &url, &["--job-id", &job_id]));
    assert!(tail.out_line().await.contains("\"phase\":\"working\""));
    host.release.notify_one();
    let ended = tail.end().await;
    assert_eq!(ended.status, 0, "{ended:?}");
    assert_eq!(ended.json()["result"], "released");
}

#[tokio::test]
async fn jobs_are_listed_page_by_page() {
    let mut host = Host::start(CancelPolicy::Session).await;
    let url = host.url.clone();
    let waiting = host.detached("waits").await;
    assert_eq!(host.hear().await, "started");
    for _ in 0..3 {
        assert_eq!(run(&session("submit", &url, &["--agent", "fails"])).await.status, 6);
    }
    let list = async |more: &[&'static str]| {
        let ran = run(&session("jobs", &url, &[more, &["--output", "json"]].concat())).await;
        assert_eq!((ran.status, &*ran.stderr), (0, ""), "{ran:?}");
        ran.json_lines().into_iter().map(|line| line["job"].clone()).collect::<Vec<_>>()
    };
    let all = list(&[]).await;
    assert_eq!((all.len(), &all[0]["job_id"]), (4, &json!(waiting)));
    assert_eq!(list(&["--limit", "1"]).await.len(), 1);
    assert_eq!(list(&["--limit", "1", "--all"]).await, all);
    assert_eq!(list(&["--agent", "fails"]).await.len(), 3);
    assert_eq!(list(&["--status", "cancelled", "--status", "timed_out"]).await.len(), 0);
    let running = list(&["--status", "running", "--status", "pending"]).await;
    assert_eq!((running.len(), &running[0]["job_id"], &running[0]["agent"]), (1, &json!(waiting), &json!("waits")));

    let table = run(&session("jobs", &url, &["--status", "running"])).await;
    let lines: Vec<&str> = table.stdout.lines().collect();
    assert!(lines.len() == 2 && lines[0].starts_with("JOB ") && lines[0].ends_with("  LAST-SEQ"), "{table:?}");
    assert!(lines[1].starts_with(&waiting) && lines[1].contains("  waits  running  "), "{table:?}");
}

#[tokio::test]
async fn a_streamed_result_is_printed_as_its_bytes() {
    let host = Host::start(CancelPolicy::Session).await;
    let streamed = run(&session("submit", &host.url, &["--agent", "streams"])).await;
    assert_eq!((streamed.status, &*streamed.stdout), (0, "one,two,\nthree"), "{streamed:?}");
    let told = run(&session("submit", &host.url, &["--agent", "streams", "--output", "json"])).await;
    let lines = told.json_lines();
    assert!(lines.iter().any(|line| line["event"]["kind"] == "result_chunk"), "{told:?}");
    assert!(lines.last().unwrap()["result"]["result_id"].is_string(), "{told:?}");
}

#[tokio::test]
async fn version_and_help_answer_on_stdout() {
    let version = run(&["--version"]).await;
    assert_eq!(version.stdout, format!("arcp, version {} (protocol 1.1)\n", arcp::IMPL_VERSION));
    for command in [
        "serve",
        "submit",
        "tail",
        "cancel",
        "jobs",
        "sessions",
        "replay",
        "db",
        "db backup",
        "db check",
        "db vacuum",
        "completions",
    ] {
        let help = run(&command.split(' ').chain(["--help"]).collect::<Vec<_>>()).await;
        assert_eq!((help.status, &*help.stderr), (0, ""));
        assert!(help.stdout.contains(&format!("  arcp {command} ")), "no example: {}", help.stdout);
        assert!(help.stdout.contains("Exit status:"), "{}", help.stdout);
    }
}
