//! `arcp serve` as an operator sees it: figures, health, and the audit log.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

mod support;

use support::{BOUND, Running, TOKEN, arcp, fails, run, session};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

async fn get(url: &str, path: &str) -> String {
    let address = url.strip_prefix("http://").and_then(|rest| rest.strip_suffix("/metrics")).unwrap();
    let mut tcp = TcpStream::connect(address).await.unwrap();
    tcp.write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes()).await.unwrap();
    let mut text = String::new();
    timeout(BOUND, tcp.read_to_string(&mut text)).await.unwrap().unwrap();
    text
}

#[tokio::test]
async fn figures_and_an_audit_log_tell_of_jobs_and_refusals() {
    let path = std::env::temp_dir().join(format!("arcp-cli-audit-{}.jsonl", std::process::id()));
    drop(std::fs::remove_file(&path));
    let (mut server, url) = Running::serve(&["--metrics", "127.0.0.1:0", "--audit", path.to_str().unwrap()]).await;
    let line = server.err_line().await;
    let metrics = line.strip_prefix("arcp serve metrics on ").unwrap_or_else(|| panic!("{line}"));
    assert!(get(metrics, "/health").await.starts_with("HTTP/1.1 200 "));
    assert!(get(metrics, "/ready").await.starts_with("HTTP/1.1 200 "));
    assert_eq!(run(&session("submit", &url, &["--agent", "echo"])).await.status, 0);
    assert_eq!(run(&["submit", "--url", &url, "--token", "wrong-5ecret", "--agent", "echo"]).await.status, 4);
    let figures = get(metrics, "/metrics").await;
    for figure in ["arcp_jobs_ended_total{status=\"success\"} 1\n", "arcp_authentication_failures_total 1\n"] {
        assert!(figures.contains(figure), "{figures}");
    }
    // The next server finds the address taken.
    let taken = metrics.trim_start_matches("http://").trim_end_matches("/metrics");
    let line = fails(&["serve", "--port", "0", "--token", TOKEN, "--db", "memory", "--metrics", taken], 1).await;
    assert!(line.contains("--metrics: cannot serve metrics on") && line.contains("choose another"), "{line}");
    server.signal("TERM").await;
    assert_eq!(server.end().await.status, 0);
    let log = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    for line in log.lines() {
        let entry: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(entry["at"].is_string() && entry["action"].is_string() && entry["decision"].is_string(), "{line}");
    }
    for part in
        [r#""action":"authenticate","decision":"allowed","principal":"cli-user""#, r#""reason":"UNAUTHENTICATED""#]
    {
        assert!(log.contains(part), "{log}");
    }
    assert!(!log.contains("5ecret"), "{log}");
}

#[tokio::test]
async fn the_metrics_address_is_part_of_the_json_line() {
    let serve = ["serve", "--port", "0", "--token", TOKEN, "--db", "memory", "--metrics", "127.0.0.1:0"];
    let mut server = Running::start(&[&serve[..], &["--output", "json"]].concat());
    let line: serde_json::Value = serde_json::from_str(&server.out_line().await).unwrap();
    assert!(get(line["listening"]["metrics"].as_str().unwrap(), "/health").await.starts_with("HTTP/1.1 200 "));
    server.signal("TERM").await;
    assert_eq!(server.end().await.status, 0);
}

#[tokio::test]
async fn an_audit_file_or_address_that_cannot_be_used_is_refused() {
    let line =
        fails(&["serve", "--token", TOKEN, "--port", "0", "--db", "memory", "--audit", "/nowhere/audit.jsonl"], 2)
            .await;
    assert!(line.contains("--audit: cannot append to /nowhere/audit.jsonl"), "{line}");
    let output = arcp(["serve", "--token", TOKEN, "--metrics", "9100"]).output().await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("it must be HOST:PORT"));
}
