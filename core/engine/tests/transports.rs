//! The transports by themselves: TLS, lines, bounds, closing.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

use std::future::poll_fn;
use std::time::Duration;

use arcp_engine::transport::{
    ConnectOptions, Received, StdioTransport, Transport, WebSocketTransport, join, pair_memory_transports, tls,
};
use arcp_engine::{Client, JobContext, ListenOptions, Listener, Runtime, StaticBearerVerifier};
use arcp_proto::json::RawJson;
use arcp_proto::machine::client::ClientConfig;
use arcp_proto::machine::runtime::RuntimeConfig;
use arcp_proto::message::{PeerInfo, Submit};
use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, duplex, split};
use tokio::time::timeout;

const BOUND: Duration = Duration::from_secs(10);

fn peer(name: &str) -> PeerInfo {
    PeerInfo { name: name.into(), version: "1".into() }
}

fn runtime() -> Runtime {
    let runtime = Runtime::new(RuntimeConfig::new(peer("runtime")), StaticBearerVerifier::new([("tok", "me")]));
    runtime.register_agent("echo", async |input: RawJson, _: JobContext| Ok(input)).unwrap();
    runtime
}

async fn echo_over(client_end: impl Transport) {
    let client = Client::new(ClientConfig::new(peer("client")));
    timeout(BOUND, client.connect(client_end, "tok")).await.unwrap().unwrap();
    let submit = Submit::new("echo", RawJson::parse("{\"n\":9007199254740993}").unwrap());
    let handle = timeout(BOUND, client.submit(&submit, None)).await.unwrap().unwrap();
    let result = timeout(BOUND, handle.result()).await.unwrap().unwrap();
    assert_eq!(result.result.unwrap().get(), "{\"n\":9007199254740993}");
    timeout(BOUND, client.close("done")).await.unwrap();
}

async fn receive(transport: &mut impl Transport) -> Option<Received> {
    timeout(BOUND, poll_fn(|cx| transport.poll_recv(cx))).await.unwrap().map(Result::unwrap)
}

#[tokio::test]
async fn wss_carries_a_job_and_a_stranger_is_refused() {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (chain, key) = (own.cert.pem(), own.signing_key.serialize_pem());
    let options = ListenOptions {
        host: "localhost".into(),
        port: 0,
        tls: Some(tls::server_config(chain.as_bytes(), key.as_bytes()).unwrap()),
        ..ListenOptions::default()
    };
    let listener = Listener::bind(options).await.unwrap();
    let url = listener.url().to_owned();
    assert!(url.starts_with("wss://localhost:"), "{url}");
    let runtime = runtime();
    tokio::spawn(async move { runtime.serve(listener).await });

    let trusting =
        ConnectOptions { tls: Some(tls::client_config(Some(chain.as_bytes())).unwrap()), ..ConnectOptions::default() };
    echo_over(WebSocketTransport::connect(&url, trusting).await.unwrap()).await;

    let refused = WebSocketTransport::connect(&url, ConnectOptions::default()).await.err().unwrap();
    assert!(refused.to_string().contains("certificate"), "{refused}");
}

#[test]
fn pem_text_without_a_certificate_is_named() {
    let error = tls::client_config(Some(b"nothing here")).unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
    let error = tls::server_config(b"nothing here", b"nor here").unwrap_err();
    assert!(error.to_string().contains("private key"), "{error}");
}

/// Rules
#[tokio::test]
async fn a_job_runs_over_lines() {
    let (client_end, server_end) = duplex(4096);
    let (server_read, server_write) = split(server_end);
    let (client_read, client_write) = split(client_end);
    let runtime = runtime();
    tokio::spawn(async move { runtime.accept(StdioTransport::new(server_read, server_write, 16 << 20)).await });
    echo_over(StdioTransport::new(client_read, client_write, 16 << 20)).await;
}

/// Serves its standard streams with an agent that prints.
#[cfg(unix)]
#[allow(clippy::print_stdout, reason = "what is printed is the test")]
async fn as_a_child() {
    let runtime = runtime();
    let prints = async |input: RawJson, ctx: JobContext| {
        println!("the agent prints");
        ctx.log("info", "a line").await?;
        std::process::Command::new("echo").arg("so does its child").status().unwrap();
        Ok(input)
    };
    runtime.register_agent("prints", prints).unwrap();
    runtime.accept(StdioTransport::from_std_streams(16 << 20)).await;
    std::process::exit(0);
}

/// Rules
#[cfg(unix)]
#[tokio::test]
async fn what_an_agent_of_a_child_process_prints_reaches_nobody_as_a_message() {
    if std::env::var_os("ARCP_TEST_STDIO").is_some() {
        return as_a_child().await;
    }
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "what_an_agent_of_a_child_process_prints_reaches_nobody_as_a_message", "--nocapture"])
        .env("ARCP_TEST_STDIO", "1")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    let hello = serde_json::json!({
        "client": {"name": "x", "version": "1"}, "auth": {"scheme": "bearer", "token": "tok"},
        "capabilities": {"encodings": ["json"], "features": []},
    });
    let mut seen = Vec::new();
    for (kind, payload, last) in [
        ("session.hello", hello, "session.welcome"),
        ("job.submit", serde_json::json!({"agent": "prints", "input": 7}), "job.result"),
        ("session.bye", serde_json::json!({"reason": "done"}), "session.closed"),
    ] {
        let message = serde_json::json!({"arcp": "1.1", "id": kind, "type": kind, "payload": payload});
        input.write_all(format!("{message}\n").as_bytes()).await.unwrap();
        loop {
            let line = timeout(BOUND, output.next_line()).await.unwrap().unwrap().unwrap();
            // What the test program prints before its test begins.
            if seen.is_empty() && !line.starts_with('{') {
                continue;
            }
            let message: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
            seen.push(message["type"].as_str().unwrap().to_owned());
            if message["type"] == last {
                break;
            }
        }
    }
    assert_eq!(seen, ["session.welcome", "job.accepted", "job.event", "job.result", "session.closed"]);
    assert_eq!(timeout(BOUND, output.next_line()).await.unwrap().unwrap(), None);
    let said = timeout(BOUND, child.wait_with_output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("the agent prints") && said.contains("so does its child"), "{said}");
}

/// Rules
#[tokio::test]
async fn lines_may_be_blank_or_end_in_a_return_but_not_be_too_long() {
    let (mut far, near) = duplex(4096);
    let (read, write) = split(near);
    let mut transport = StdioTransport::new(read, write, 16);
    far.write_all(b"\n  \n{\"a\":1}\r\n{\"way\":\"too long\"}\n{}\n").await.unwrap();
    assert_eq!(receive(&mut transport).await, Some(Received::Frame(Bytes::from_static(b"{\"a\":1}"))));
    assert_eq!(receive(&mut transport).await, Some(Received::Oversize));
    poll_fn(|cx| transport.poll_ready(cx)).await.unwrap();
    transport.start_send(Bytes::from_static(b"{}")).unwrap();
    poll_fn(|cx| transport.poll_flush(cx)).await.unwrap();
    let mut line = [0; 3];
    far.read_exact(&mut line).await.unwrap();
    assert_eq!(&line, b"{}\n");
}

/// Rules
#[tokio::test]
async fn a_line_that_is_too_long_is_answered_before_the_end() {
    let (mut far, near) = duplex(4096);
    let (read, write) = split(near);
    let runtime = runtime();
    let accepting = tokio::spawn(async move { runtime.accept(StdioTransport::new(read, write, 64)).await });
    far.write_all(&[b'x'; 200]).await.unwrap();
    far.write_all(b"\n").await.unwrap();
    let mut answer = String::new();
    timeout(BOUND, far.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.contains("INVALID_REQUEST"), "{answer}");
    timeout(BOUND, accepting).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_shutdown_returns_once_its_goodbye_has_left() {
    let (client_end, server_end) = pair_memory_transports();
    let runtime = runtime();
    let host = runtime.clone();
    tokio::spawn(async move { host.accept(server_end).await });
    let client = Client::new(ClientConfig::new(peer("client")));
    client.connect(client_end, "tok").await.unwrap();
    timeout(BOUND, runtime.shutdown("stopping", BOUND)).await.unwrap();
    assert!(timeout(BOUND, client.closed()).await.unwrap().to_string().contains("stopping"));
}

#[tokio::test]
async fn joined_transports_carry_both_ways_and_end_together() {
    let (client_end, left) = pair_memory_transports();
    let (right, server_end) = pair_memory_transports();
    let joined = tokio::spawn(join(left, right));
    let runtime = runtime();
    tokio::spawn(async move { runtime.accept(server_end).await });
    echo_over(client_end).await;
    timeout(BOUND, joined).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_port_in_use_is_named_with_the_remedy() {
    let first = Listener::bind(ListenOptions { port: 0, ..ListenOptions::default() }).await.unwrap();
    let again = ListenOptions { port: first.address().port(), ..ListenOptions::default() };
    let error = Listener::bind(again).await.err().unwrap();
    assert!(error.to_string().contains("in use"), "{error}");
}

#[tokio::test]
async fn a_bad_url_says_what_is_wrong_with_it() {
    for (url, hint) in
        [("http://localhost/", "ws://"), ("ws://", "URL"), ("not a url", "URL"), ("ws://127.0.0.1:1/", "refused")]
    {
        let error = WebSocketTransport::connect(url, ConnectOptions::default()).await.err().unwrap();
        assert!(error.to_string().contains(hint), "{url}: {error}");
    }
}
