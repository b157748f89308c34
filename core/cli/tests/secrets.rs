//! No secret in any output: a whole run of `arcp serve` is searched for the tokens that went through it.

#![cfg(unix)]
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a failed step is a failed test")]

mod support;

use std::future::poll_fn;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use arcp::transport::Received;
use arcp::{ConnectOptions, Transport, WebSocketTransport};
use serde_json::{Value, json};
use support::folder::Folder;
use support::{BOUND, Running, arcp, finish};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const GOOD: &str = "bearer-of-the-operator-Zk3";
const OTHER: &str = "bearer-of-another-Qv8";
const WRONG: &str = "bearer-nobody-gave-Xw5";
const WRONG_RESUME: &str = "rt_guessed_by_somebody_Jh2";
const PRIVATE: &str = "said-in-private-Mt6";

/// A client that speaks for itself, so that it sees every secret and may show wrong ones.
struct Raw {
    transport: WebSocketTransport,
    sent: u32,
    session: Option<String>,
}

impl Raw {
    async fn open(url: &str) -> Raw {
        let transport = WebSocketTransport::connect(url, ConnectOptions::default()).await.unwrap();
        Raw { transport, sent: 0, session: None }
    }

    async fn send(&mut self, kind: &str, job_id: Option<&str>, payload: Value) {
        self.sent += 1;
        let id = format!("msg_{:p}_{}", &raw const self.sent, self.sent);
        let mut message = json!({"arcp": "1.1", "id": id, "type": kind, "payload": payload});
        if let Some(session) = &self.session {
            message["session_id"] = json!(session);
        }
        if let Some(job_id) = job_id {
            message["job_id"] = json!(job_id);
        }
        self.send_text(message.to_string()).await;
    }

    async fn send_text(&mut self, text: String) {
        poll_fn(|cx| self.transport.poll_ready(cx)).await.unwrap();
        self.transport.start_send(text.into()).unwrap();
        poll_fn(|cx| self.transport.poll_flush(cx)).await.unwrap();
    }

    /// The next message of this kind; `None` when the connection ends first.
    async fn next(&mut self, kind: &str) -> Option<Value> {
        loop {
            let received = timeout(BOUND, poll_fn(|cx| self.transport.poll_recv(cx))).await.expect("nothing came");
            let Some(Ok(Received::Frame(frame))) = received else { return None };
            let message: Value = serde_json::from_slice(&frame).unwrap();
            if message["type"] == kind {
                return Some(message);
            }
        }
    }

    async fn hello(&mut self, token: &str, resume: Option<Value>) {
        let features = ["ack", "subscribe", "list_jobs", "heartbeat"];
        let mut payload = json!({
            "client": {"name": "raw", "version": "1"},
            "auth": {"scheme": "bearer", "token": token},
            "capabilities": {"encodings": ["json"], "features": features},
        });
        if let Some(resume) = resume {
            payload["resume"] = resume;
        }
        self.send("session.hello", None, payload).await;
    }

    /// Session and resume token.
    async fn welcomed(&mut self) -> (String, String) {
        let welcome = self.next("session.welcome").await.expect("no welcome");
        let text = |name: &str| welcome["payload"][name].as_str().unwrap().to_owned();
        self.session = Some(text("session_id"));
        (text("session_id"), text("resume_token"))
    }
}

fn resume(session: &str, token: &str) -> Value {
    json!({"session_id": session, "resume_token": token, "last_event_seq": 0})
}

async fn get(url: &str) -> String {
    let address = url.strip_prefix("http://").and_then(|rest| rest.strip_suffix("/metrics")).unwrap();
    let mut tcp = TcpStream::connect(address).await.unwrap();
    tcp.write_all(format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes()).await.unwrap();
    let mut text = String::new();
    timeout(BOUND, tcp.read_to_string(&mut text)).await.unwrap().unwrap();
    text
}

async fn submitted(url: &str, token: &str, agent: &str) -> (i32, String) {
    let mut command = arcp(["submit", "--url", url, "--agent", agent, "--verbose"]);
    let ran = finish(command.env("ARCP_TOKEN", token).env("RUST_LOG", "trace")).await;
    (ran.status, ran.stdout + &ran.stderr)
}

/// Sessions that are welcomed, resumed with right and wrong tokens, and refused; jobs that end well, in an error and by a
/// cancel; messages that cannot be read. Gives the resume tokens it saw, and what clients printed.
async fn everything(url: &str) -> (Vec<String>, Vec<(String, String)>) {
    let mut printed = Vec::new();
    for (token, agent, status) in [(GOOD, "echo", 0), (OTHER, "echo", 0), (WRONG, "echo", 4), (GOOD, "nobody", 1)] {
        let (ended, text) = submitted(url, token, agent).await;
        assert!(ended == status || status == 1 && ended != 0, "{ended}: {text}");
        printed.push((format!("arcp submit of {agent}"), text));
    }
    let mut tokens = Vec::new();
    let mut first = Raw::open(url).await;
    first.hello(GOOD, None).await;
    let (session, token) = first.welcomed().await;
    tokens.push(token.clone());
    first.send("job.submit", None, json!({"agent": "echo", "input": {"hi": 1}})).await;
    let job = first.next("job.accepted").await.unwrap()["job_id"].as_str().unwrap().to_owned();
    first.next("job.result").await.unwrap();
    first.send("job.cancel", Some(&job), json!({"reason": "late"})).await;
    first.send("job.subscribe", Some(&job), json!({"job_id": job, "history": true})).await;
    first.next("job.subscribed").await.unwrap();
    first.send("job.submit", None, json!({"agent": "nobody"})).await;
    first.next("session.error").await.unwrap();
    // A token where none belongs, and what is no message at all.
    first.send("job.submit", None, json!({"agent": 7, "auth": {"token": PRIVATE}})).await;
    first.next("session.error").await.unwrap();
    first.send_text(format!("{{\"arcp\":\"1.1\",\"type\":\"session.hello\",\"token\":\"{PRIVATE}\"")).await;
    drop(first);

    // Right, wrong, used up, and somebody else's.
    let mut second = Raw::open(url).await;
    second.hello(GOOD, Some(resume(&session, &token))).await;
    let (again, rotated) = second.welcomed().await;
    assert_eq!(again, session);
    assert_ne!(rotated, token);
    tokens.push(rotated.clone());
    drop(second);
    for (bearer, shown) in [(GOOD, WRONG_RESUME), (OTHER, &*rotated), (WRONG, &*rotated), (GOOD, &*token)] {
        let mut refused = Raw::open(url).await;
        refused.hello(bearer, Some(resume(&session, shown))).await;
        let error = refused.next("session.error").await.expect("it was not refused");
        for secret in [bearer, shown] {
            assert!(!error.to_string().contains(secret), "{error}");
        }
    }
    // No hello at all, and one that is not well formed.
    let mut rude = Raw::open(url).await;
    rude.send("job.submit", None, json!({"agent": "echo", "token": PRIVATE})).await;
    drop(rude.next("session.error").await);
    let mut odd = Raw::open(url).await;
    odd.send("session.hello", None, json!({"client": 1, "auth": {"scheme": "bearer", "token": PRIVATE}})).await;
    let error = odd.next("session.error").await.expect("it was not refused").to_string();
    assert!(!error.contains(PRIVATE), "{error}");
    (tokens, printed)
}

fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.display().to_string(), std::fs::read(path).unwrap())).collect()
}

fn search(places: &[(String, Vec<u8>)], secrets: &[&str]) {
    for (place, bytes) in places {
        for secret in secrets {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{place} shows {secret}: {}", String::from_utf8_lossy(bytes));
        }
    }
}

#[tokio::test]
async fn no_token_is_in_any_output_or_file() {
    let (kept, outside) = (Folder::new("secrets-kept"), Folder::new("secrets-given"));
    let (db, audit) = (kept.at("arcp.db"), kept.at("audit.jsonl"));
    let (file, list) = (outside.at("token"), outside.at("tokens"));
    std::fs::write(&file, format!("{GOOD}\n")).unwrap();
    std::fs::write(&list, format!("other@example.com {OTHER}\n")).unwrap();
    for secret in [&file, &list] {
        std::fs::set_permissions(secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let serve = ["serve", "--port", "0", "--verbose", "--db", &db, "--audit", &audit, "--metrics", "127.0.0.1:0"];
    let mut command = arcp([&serve[..], &["--token-file", &file, "--tokens", &list]].concat());
    command.env("RUST_LOG", "trace");
    let mut server = Running::spawn(command);
    let (mut url, mut metrics, mut said) = (None, None, Vec::new());
    while url.is_none() || metrics.is_none() {
        let line = server.err_line().await;
        url = line.strip_prefix("arcp serve listening on ").map(str::to_owned).or(url);
        metrics = line.strip_prefix("arcp serve metrics on ").map(str::to_owned).or(metrics);
        said.push(line);
    }
    let (tokens, printed) = everything(&url.unwrap()).await;
    let figures = get(&metrics.unwrap()).await;
    assert!(figures.contains("arcp_authentication_failures_total"), "{figures}");
    // While it runs: the write-ahead log is there too.
    let mut places = files(kept.path());
    assert!(places.iter().any(|(name, bytes)| name.ends_with("-wal") && !bytes.is_empty()), "no write-ahead log");
    server.signal("TERM").await;
    let ended = server.end().await;
    assert_eq!(ended.status, 0, "{ended:?}");
    // Logs have to speak for their silence to say something.
    assert!(ended.stderr.contains("arcp: debug: "), "{ended:?}");
    let log = std::fs::read_to_string(&audit).unwrap();
    for part in [r#""action":"authenticate""#, r#""action":"resume","decision":"refused""#, "other@example.com"] {
        assert!(log.contains(part), "{part} is not in {log}");
    }
    places.extend(files(kept.path()));
    places.extend(printed.into_iter().map(|(name, text)| (name, text.into_bytes())));
    places.push(("stdout".into(), ended.stdout.into_bytes()));
    places.push(("stderr".into(), (said.join("\n") + &ended.stderr).into_bytes()));
    places.push(("/metrics".into(), figures.into_bytes()));
    let mut secrets = vec![GOOD, OTHER, WRONG, WRONG_RESUME, PRIVATE];
    secrets.extend(tokens.iter().map(String::as_str));
    search(&places, &secrets);
    // What is kept of a session is really there, so that the search looked at the right files.
    assert!(places.iter().any(|(_, bytes)| bytes.windows(5).any(|window| window == b"sess_")));
}
