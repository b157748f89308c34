//! One session, end to end, over the transports.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

mod support;

use std::future::{Future, poll_fn};
use std::task::Poll;

use arcp_engine::transport::{ConnectOptions, WebSocketTransport, pair_memory_transports};
use arcp_engine::{Client, Error, JobContext, ListenOptions, Listener, Runtime, StaticBearerVerifier};
use arcp_proto::json::RawJson;
use arcp_proto::machine::client::ClientConfig;
use arcp_proto::machine::runtime::RuntimeConfig;
use arcp_proto::message::Subscribe;
use arcp_proto::{Error as ProtocolError, ErrorCode};
use support::{BOUND, connected, peer, submit};
use tokio::time::timeout;

fn runtime() -> Runtime {
    let runtime = Runtime::new(RuntimeConfig::new(peer("runtime")), StaticBearerVerifier::new([("tok", "me")]));
    runtime.register_agent("echo", echo).unwrap();
    runtime.register_agent("sleeper", sleeper).unwrap();
    runtime.register_agent("stubborn", stubborn).unwrap();
    runtime.register_agent("chatty", chatty).unwrap();
    runtime
        .register_agent("fails", |_: RawJson, _: JobContext| async { Err(ProtocolError::internal("boom")) })
        .unwrap();
    runtime
        .register_agent("panics", |input: RawJson, _: JobContext| async move {
            assert_eq!(input.get(), "never", "on purpose");
            Ok(input)
        })
        .unwrap();
    runtime
}

async fn echo(input: RawJson, ctx: JobContext) -> Result<RawJson, ProtocolError> {
    ctx.log("info", "echo started").await?;
    RawJson::parse(&format!("{{\"echoed\":{}}}", input.get()))
}

/// Looks out for cancellation, and cleans up.
async fn sleeper(_: RawJson, ctx: JobContext) -> Result<RawJson, ProtocolError> {
    ctx.status("running", None).await?;
    ctx.cancelled().await;
    ctx.log("info", "cleaned up").await?;
    Ok(RawJson::null())
}

/// Waits for ever and does not look out for anything.
async fn stubborn(_: RawJson, ctx: JobContext) -> Result<RawJson, ProtocolError> {
    ctx.status("running", None).await?;
    std::future::pending().await
}

async fn chatty(input: RawJson, ctx: JobContext) -> Result<RawJson, ProtocolError> {
    let count: u64 = input.get().parse().map_err(|_| ProtocolError::invalid("a number"))?;
    for i in 1..=count {
        ctx.progress(&i.to_string(), Some(input.get()), None).await?;
    }
    Ok(input)
}

async fn kinds(handle: &arcp_engine::JobHandle) -> Vec<String> {
    let mut kinds = Vec::new();
    while let Some(event) = timeout(BOUND, handle.next_event()).await.unwrap() {
        kinds.push(event.kind().to_owned());
    }
    kinds
}

#[tokio::test]
async fn a_job_runs_over_memory() {
    let runtime = runtime();
    let client = connected(&runtime).await;
    let handle = client.submit(&submit("echo", r#"{"hi":1}"#), None).await.unwrap();
    assert_eq!(kinds(&handle).await, ["log"]);
    let result = timeout(BOUND, handle.result()).await.unwrap().unwrap();
    assert_eq!(result.result.unwrap().get(), r#"{"echoed":{"hi":1}}"#);
    client.close("done").await;
    assert!(matches!(client.submit(&submit("echo", "1"), None).await, Err(Error::Closed(_))));
}

#[tokio::test]
async fn a_job_runs_over_a_websocket() {
    let runtime = runtime();
    let listener = Listener::bind(ListenOptions { port: 0, ..ListenOptions::default() }).await.unwrap();
    let url = listener.url().to_owned();
    let serving = tokio::spawn({
        let runtime = runtime.clone();
        async move { runtime.serve(listener).await }
    });
    let transport = WebSocketTransport::connect(&url, ConnectOptions::default()).await.unwrap();
    let client = Client::new(ClientConfig::new(peer("client")));
    client.connect(transport, "tok").await.unwrap();
    let handle = client.submit(&submit("chatty", "5000"), None).await.unwrap();
    let mut batch = Vec::new();
    let mut count = 0;
    while timeout(BOUND, handle.next_events(256, &mut batch)).await.unwrap() {
        // So many at once may bring a word of back pressure with them.
        count += batch.iter().filter(|event| event.kind() == "progress").count();
        batch.clear();
    }
    assert_eq!(count, 5000);
    timeout(BOUND, handle.result()).await.unwrap().unwrap();
    timeout(BOUND, client.close("done")).await.unwrap();
    let wrong = WebSocketTransport::connect(&url.replace("/arcp", "/x"), ConnectOptions::default()).await;
    assert!(wrong.err().unwrap().to_string().contains("404"));
    serving.abort();
}

#[tokio::test]
async fn a_bad_token_is_refused_with_its_code() {
    let runtime = runtime();
    let (left, right) = pair_memory_transports();
    tokio::spawn(async move { runtime.accept(right).await });
    let client = Client::new(ClientConfig::new(peer("client")));
    let refused = timeout(BOUND, client.connect(left, "wrong")).await.unwrap().unwrap_err();
    assert_eq!(refused.protocol().map(|error| error.code.clone()), Some(ErrorCode::Unauthenticated));
}

#[tokio::test]
async fn a_cancelled_agent_cleans_up_before_the_terminal() {
    let runtime = runtime();
    let client = connected(&runtime).await;
    for (agent, expected) in [("sleeper", vec!["status", "log"]), ("stubborn", vec!["status"])] {
        let handle = client.submit(&submit(agent, "null"), None).await.unwrap();
        assert_eq!(timeout(BOUND, handle.next_event()).await.unwrap().unwrap().kind(), "status");
        assert_eq!(client.cancel_job_acknowledged(handle.job_id(), "stop").await.unwrap(), None);
        assert_eq!(kinds(&handle).await, expected[1..]);
        let error = timeout(BOUND, handle.result()).await.unwrap().unwrap_err();
        assert_eq!(error.protocol().map(|error| error.code.clone()), Some(ErrorCode::Cancelled));
    }
}

#[tokio::test]
async fn a_failing_or_panicking_agent_ends_in_an_error_and_others_go_on() {
    let runtime = runtime();
    let client = connected(&runtime).await;
    for (agent, text) in [("fails", "boom"), ("panics", "on purpose")] {
        let handle = client.submit(&submit(agent, "1"), None).await.unwrap();
        let error = timeout(BOUND, handle.result()).await.unwrap().unwrap_err();
        let error = error.protocol().unwrap();
        assert_eq!(error.code, ErrorCode::InternalError);
        assert!(error.message.contains(text), "{error}");
    }
    let handle = client.submit(&submit("echo", "1"), None).await.unwrap();
    timeout(BOUND, handle.result()).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_subscriber_sees_history_then_live_events_once_each() {
    let runtime = runtime();
    let (owner, watcher) = (connected(&runtime).await, connected(&runtime).await);
    let handle = owner.submit(&submit("sleeper", "null"), None).await.unwrap();
    handle.next_event().await.unwrap();
    let request = Subscribe { job_id: handle.job_id().into(), from_event_seq: None, history: true };
    let subscription = watcher.subscribe(&request).await.unwrap();
    assert!(subscription.subscribed().replayed);
    owner.cancel_job(handle.job_id(), "stop").unwrap();
    let mut seen = Vec::new();
    while let Some(event) = timeout(BOUND, subscription.handle().next_event()).await.unwrap() {
        seen.push((event.event_seq, event.kind().to_owned()));
    }
    assert_eq!(seen, [(1, "status".to_owned()), (2, "log".to_owned())]);
    timeout(BOUND, subscription.handle().result()).await.unwrap().unwrap_err();
    // The ended job is kept: its events and its terminal can be had again.
    let again = connected(&runtime).await.subscribe(&request).await.unwrap();
    let mut count = 0;
    while timeout(BOUND, again.handle().next_event()).await.unwrap().is_some() {
        count += 1;
    }
    assert_eq!(count, 2);
}

#[tokio::test]
async fn a_lost_runtime_ends_every_wait() {
    let runtime = runtime();
    let (left, right) = pair_memory_transports();
    let serving = tokio::spawn({
        let runtime = runtime.clone();
        async move { runtime.accept(right).await }
    });
    let client = Client::new(ClientConfig::new(peer("client")));
    client.connect(left, "tok").await.unwrap();
    let handle = client.submit(&submit("stubborn", "null"), None).await.unwrap();
    serving.abort();
    assert!(matches!(timeout(BOUND, handle.result()).await.unwrap(), Err(Error::Transport(_))));
    assert!(matches!(client.submit(&submit("echo", "1"), None).await, Err(Error::Transport(_))));
}

#[tokio::test]
async fn a_shutdown_cancels_jobs_and_says_goodbye() {
    let runtime = runtime();
    let client = connected(&runtime).await;
    let handle = client.submit(&submit("sleeper", "null"), None).await.unwrap();
    handle.next_event().await.unwrap();
    timeout(BOUND, runtime.shutdown("stopping", BOUND)).await.unwrap();
    let error = timeout(BOUND, handle.result()).await.unwrap().unwrap_err();
    assert_eq!(error.protocol().map(|error| error.code.clone()), Some(ErrorCode::Cancelled));
    assert!(matches!(timeout(BOUND, client.closed()).await.unwrap(), Error::Closed(_)));
}

#[tokio::test]
async fn a_submit_nobody_waits_for_leaves_no_job_running() {
    let runtime = runtime();
    let client = connected(&runtime).await;
    let (started, mut starts) = tokio::sync::mpsc::unbounded_channel();
    runtime
        .register_agent("tells", move |_: RawJson, ctx: JobContext| {
            let started = started.clone();
            async move {
                started.send("started").unwrap();
                ctx.cancelled().await;
                started.send("cancelled").unwrap();
                Ok(RawJson::null())
            }
        })
        .unwrap();
    // Sent, and dropped before the answer.
    let request = submit("tells", "null");
    let mut waiting = Box::pin(client.submit(&request, None));
    let sent = poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx).is_pending())).await;
    assert!(sent);
    drop(waiting);
    for expected in ["started", "cancelled"] {
        assert_eq!(timeout(BOUND, starts.recv()).await.unwrap(), Some(expected));
    }
}
