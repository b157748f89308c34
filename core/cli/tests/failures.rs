//! What goes wrong: one line that says what to do, and a status of its own.

#![cfg(unix)]

mod support;

use arcp::CancelPolicy;
use support::{Host, Running, TOKEN, arcp, fails, finish, one_line, run, session};
use tokio::net::TcpListener;
use tokio::process::Command;

#[tokio::test]
async fn wrong_arguments_are_told_before_anything_is_opened() {
    let submit = |more: &[&'static str]| session("submit", "ws://127.0.0.1:1/arcp", more);
    let cases: &[(Vec<&str>, &str)] = &[
        (vec!["submit", "--agent", "echo"], "--url"),
        (vec!["submit", "--url", "http://127.0.0.1/arcp", "--agent", "echo"], "ws://"),
        (vec!["submit", "--url", "ws://127.0.0.1:99999/", "--agent", "echo"], "65535"),
        (vec!["submit", "--url", "ws://127.0.0.1:1/arcp", "--agent", "echo"], "ARCP_TOKEN"),
        (vec!["sumbit"], "'submit'"),
        (submit(&["--agent", "echo", "--input", "{hi:1}"]), "--input is not JSON"),
        (submit(&["--agent", "echo", "--input", "@no-such-file.json"]), "no-such-file.json"),
        (submit(&["--agent", "echo", "--lease", r#"{"fs.read":"/**"}"#]), "fs.read"),
        (submit(&["--agent", "echo", "--lease-expires-at", "tomorrow"]), "2026-05-13T19:30:00Z"),
        (submit(&["--agent", "echo", "--max-runtime", "0"]), "--max-runtime"),
        (submit(&["--agent", "echo", "--idempotency-key", ""]), "1 to 256 bytes"),
        (submit(&["--agent", ""]), "--agent"),
        (submit(&["--agent", "echo", "--token-file", "x"]), "--token-file"),
        (submit(&["--agent", "echo", "--ca-file", "no-such-file.pem"]), "no-such-file.pem"),
        (session("tail", "ws://127.0.0.1:1/arcp", &[]), "--job-id"),
        (vec!["serve", "--port", "70000", "--token", TOKEN], "65535"),
        (vec!["serve", "--port", "0"], "ARCP_TOKEN"),
        (vec!["serve", "--port", "0", "--token", ""], "empty"),
        (vec!["serve", "--app", "no_attribute"], "MODULE:ATTRIBUTE"),
        (vec!["serve", "--app", "a:b", "--token", TOKEN], "--app"),
        (vec!["serve", "--path", "arcp", "--token", TOKEN], "must begin with /"),
        (vec!["serve", "--token", TOKEN, "--tls-cert", "c.pem"], "--tls-key"),
        (vec!["serve", "--tokens", "no-such-file.txt"], "no-such-file.txt"),
        (vec!["serve", "--jwt-secret-file", "no-such-file"], "--jwt-secret-file: cannot read no-such-file"),
        (vec!["serve", "--jwt-public-key", "no-such-file.pem"], "no-such-file.pem"),
        (vec!["serve", "--jwks-url", "http://issuer.example/jwks"], "must be https"),
        (vec!["serve", "--jwks-url", "issuer.example/jwks"], "--jwks-url"),
        (vec!["serve", "--jwks-url", "https://x/", "--jwt-public-key", "k.pem"], "--jwt-public-key"),
        (vec!["serve", "--jwks-url", "https://x/", "--jwt-leeway", "3601"], "3600"),
        (vec!["serve", "--jwks-url", "https://x/", "--jwt-audience", ""], "--jwt-audience"),
        (vec!["serve", "--token", TOKEN, "--jwt-audience", "arcp"], "--jwks-url"),
        (vec!["serve", "--app", "a:b", "--jwks-url", "https://x/"], "--jwks-url"),
        (vec!["serve", "--app", "a:b", "--tokens", "t.txt"], "--tokens"),
        (vec!["serve", "--token", TOKEN, "--db", ""], "--db"),
        (vec!["serve", "--token", TOKEN, "--db", "redis://localhost"], "URLs are not taken"),
        (vec!["serve", "--token", TOKEN, "--db-quota", "1K"], "1M at least"),
        (vec!["serve", "--token", TOKEN, "--db", "memory", "--db-quota", "1G"], "--db-quota"),
        (vec!["serve", "--token", TOKEN, "--db", "memory", "--synchronous", "full"], "--synchronous"),
        (vec!["serve", "--token", TOKEN, "--synchronous", "off"], "normal, full"),
        (vec!["serve", "--token", TOKEN, "--max-sessions-per-principal", "0"], "--max-sessions-per-principal"),
        (vec!["serve", "--token", TOKEN, "--resume-window", "2592001"], "2592000"),
        (vec!["serve", "--app", "a:b", "--synchronous", "full"], "give --db"),
        (vec!["serve", "--app", "a:b", "--db", "a.db", "--db-quota", "1G"], "--db-quota"),
        (vec!["serve", "--app", "a:b", "--max-concurrent-jobs", "3"], "--max-concurrent-jobs"),
        (vec!["replay", "--db", "a.db"], "--session"),
        (vec!["replay", "--db", "a.db", "--session", "s", "--after-seq", "x"], "--after-seq"),
        (vec!["db", "backup", "--db", "a.db"], "<TO>"),
        (vec!["completions", "tcsh"], "zsh"),
        (session("jobs", "ws://127.0.0.1:1/arcp", &["--status", "done"]), "timed_out"),
        (session("jobs", "ws://127.0.0.1:1/arcp", &["--limit", "0"]), "--limit"),
    ];
    for (args, expected) in cases {
        let line = fails(args, 2).await;
        assert!(line.contains(expected), "{args:?}: {line}");
    }
}

#[tokio::test]
async fn no_connection_is_status_3() {
    for command in [
        session("submit", "ws://127.0.0.1:1/arcp", &["--agent", "echo"]),
        session("tail", "ws://127.0.0.1:1/arcp", &["--job-id", "job_1"]),
        session("cancel", "ws://127.0.0.1:1/arcp", &["--job-id", "job_1"]),
        session("jobs", "ws://127.0.0.1:1/arcp", &[]),
    ] {
        let line = fails(&command, 3).await;
        assert!(line.contains("ws://127.0.0.1:1/arcp") && line.contains("arcp serve"), "{line}");
    }
    let (_server, url) = Running::serve(&["--path", "/here"]).await;
    let elsewhere = url.replace("/here", "/arcp");
    let line = fails(&session("submit", &elsewhere, &["--agent", "echo"]), 3).await;
    assert!(line.contains("404") && line.contains("--url"), "{line}");
    // Something that is no ARCP runtime, and hangs up.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/arcp", listener.local_addr().unwrap());
    tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    fails(&session("submit", &url, &["--agent", "echo"]), 3).await;
}

#[tokio::test]
async fn a_refusal_keeps_its_code() {
    let (_server, url) = Running::serve(&[]).await;
    for command in [["submit", "--agent", "echo"], ["tail", "--job-id", "job_1"], ["cancel", "--job-id", "job_1"]] {
        let args = [&command[..], &["--url", &url, "--token", "another"]].concat();
        let line = fails(&args, 4).await;
        assert!(line.starts_with("arcp: UNAUTHENTICATED: ") && line.contains("--token-file"), "{line}");
        assert!(!line.contains("another"), "{line}");
    }
    let line = fails(&session("submit", &url, &["--agent", "nobody"]), 5).await;
    assert!(line.starts_with("arcp: AGENT_NOT_AVAILABLE: ") && line.ends_with(": echo"), "{line}");
    for command in ["tail", "cancel"] {
        let line = fails(&session(command, &url, &["--job-id", "job_01J0000000000000000000000"]), 5).await;
        assert!(line.starts_with("arcp: JOB_NOT_FOUND: "), "{line}");
    }
    let ran = run(&session("submit", &url, &["--agent", "nobody", "--output", "json"])).await;
    assert_eq!(ran.status, 5);
    assert_eq!(ran.json()["error"]["code"], "AGENT_NOT_AVAILABLE");
    assert_eq!(ran.json()["error"]["retryable"], false);
}

#[tokio::test]
async fn local_failures_are_told_to_programs_in_lower_case() {
    let ran = run(&session("submit", "ws://127.0.0.1:1/arcp", &["--agent", "echo", "--output", "json"])).await;
    assert_eq!(ran.json()["error"]["code"], "no_connection");
    let bad =
        run(&session("submit", "ws://127.0.0.1:1/arcp", &["--agent", "a", "--input", "{", "--output", "json"])).await;
    assert_eq!(bad.json()["error"]["code"], "usage");
}

#[tokio::test]
async fn a_port_in_use_is_told() {
    let (_server, url) = Running::serve(&[]).await;
    let port = url.trim_start_matches("ws://127.0.0.1:").trim_end_matches("/arcp");
    let line = fails(&["serve", "--port", port, "--token", TOKEN, "--db", "memory"], 1).await;
    assert!(line.contains(port) && line.contains("choose another"), "{line}");
}

#[tokio::test]
async fn a_job_that_fails_or_runs_too_long_has_its_status() {
    let host = Host::start(CancelPolicy::Session).await;
    let failed = run(&session("submit", &host.url, &["--agent", "fails"])).await;
    // Whatever the agent says stays one line.
    assert_eq!(one_line(&failed, 6), "arcp: INTERNAL_ERROR: boom\\nbang");
    assert_eq!(failed.stdout, "");
    let job_id = failed.stderr.lines().next().unwrap().strip_prefix("job ").unwrap();
    let tailed = run(&session("tail", &host.url, &["--job-id", job_id])).await;
    assert_eq!(one_line(&tailed, 6), one_line(&failed, 6));
    let slow = run(&session("submit", &host.url, &["--agent", "waits", "--max-runtime", "1"])).await;
    assert!(one_line(&slow, 8).starts_with("arcp: TIMEOUT: "), "{slow:?}");
}

#[tokio::test]
async fn a_lost_runtime_is_told() {
    let mut host = Host::start(CancelPolicy::Session).await;
    let url = host.url.clone();
    let submit = Running::start(&session("submit", &url, &["--agent", "waits", "--reconnect", "1"]));
    assert_eq!(host.hear().await, "started");
    host.vanish().await;
    let line = one_line(&submit.end().await, 3);
    assert!(line.contains("lost"), "{line}");
}

#[tokio::test]
async fn nobody_reading_is_no_panic() {
    let (_server, url) = Running::serve(&[]).await;
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = arcp(session("submit", &url, &["--agent", "echo", "--quiet"]));
    let child = command.stdout(writer).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let output = tokio::time::timeout(support::BOUND, child.wait_with_output()).await.unwrap().unwrap();
    assert_eq!((output.status.code(), &*output.stderr), (Some(1), &b""[..]));
}

#[tokio::test]
async fn a_python_runtime_is_left_to_python() {
    let folder = std::env::temp_dir().join(format!("arcp-python-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let serve = ["serve", "--app", "agents:runtime", "--port", "0"];
    let missing = finish(arcp(serve).env("PATH", &folder)).await;
    assert!(one_line(&missing, 1).contains("no python3"), "{missing:?}");

    let python = folder.join("python3");
    // Written by another process: one that this one forks meanwhile would hold the file open, and it could not be run.
    let pretend = async |script: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", "printf '#!/bin/sh\n%s\n' \"$1\" > \"$2\" && chmod +x \"$2\"", "sh", script]).arg(&python);
        assert!(shell.status().await.unwrap().success());
    };
    pretend("exit 1").await;
    let without = finish(arcp(serve).env("PATH", &folder)).await;
    assert!(one_line(&without, 1).contains("the Python package arcp"), "{without:?}");

    pretend("[ \"$1\" = -c ] || { echo \"$@\"; exit 9; }").await;
    let with = finish(arcp(serve).env("PATH", &folder)).await;
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!((with.status, &*with.stdout), (9, "-m arcp serve --app agents:runtime --port 0\n"));
}
