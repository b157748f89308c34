//! What happens at once, and what happens to a peer that does not keep up.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arcp_engine::transport::{MEMORY_FRAMES, pair_memory_transports};
use arcp_engine::{JobContext, Runtime, StaticBearerVerifier};
use arcp_proto::envelope::{Header, write_frame};
use arcp_proto::json::RawJson;
use arcp_proto::machine::runtime::RuntimeConfig;
use arcp_proto::message::Subscribe;
use arcp_proto::{Error as ProtocolError, ErrorCode};
use serde_json::{Value, json};
use support::{BOUND, connected, peer, submit};
use tokio::sync::Notify;
use tokio::time::timeout;

fn runtime(change: impl FnOnce(&mut RuntimeConfig)) -> Runtime {
    let mut config = RuntimeConfig::new(peer("runtime"));
    change(&mut config);
    let runtime = Runtime::new(config, StaticBearerVerifier::new([("tok", "me")]));
    runtime.register_agent("echo", async |input: RawJson, _: JobContext| Ok(input)).unwrap();
    runtime.register_agent("chatty", chatty).unwrap();
    runtime
}

/// Emits as many log lines as its input says.
async fn chatty(input: RawJson, ctx: JobContext) -> Result<RawJson, ProtocolError> {
    let count: u64 = input.get().parse().map_err(|_| ProtocolError::invalid("a number"))?;
    for _ in 0..count {
        ctx.log("info", "a line").await?;
    }
    Ok(input)
}

/// Rules: R-7.3.2, R-7.4.9
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancel_against_completion_has_one_winner() {
    let runtime = runtime(|_| {});
    let client = connected(&runtime).await;
    let (mut finished, mut cancelled) = (0, 0);
    for _ in 0..1000 {
        let handle = client.submit(&submit("echo", "1"), None).await.unwrap();
        client.cancel_job(handle.job_id(), "race").unwrap();
        match timeout(BOUND, handle.result()).await.unwrap() {
            Ok(_) => finished += 1,
            Err(error) => {
                assert_eq!(error.protocol().map(|error| &error.code), Some(&ErrorCode::Cancelled), "{error}");
                cancelled += 1;
            }
        }
    }
    assert_eq!(finished + cancelled, 1000);
}

/// Rules: R-7.6.5
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_and_live_events_meet_without_loss_or_double() {
    // Every event counted below is the agent's own.
    let runtime = runtime(|config| config.backpressure_threshold = u64::MAX);
    let owner = connected(&runtime).await;
    let handle = owner.submit(&submit("chatty", "6000"), None).await.unwrap();
    let job_id = handle.job_id().to_owned();
    let reading = tokio::spawn(async move {
        let mut batch = Vec::new();
        while handle.next_events(256, &mut batch).await {}
        batch.len()
    });
    let mut followers = Vec::new();
    for _ in 0..10 {
        let watcher = connected(&runtime).await;
        let request = Subscribe { job_id: job_id.clone(), from_event_seq: None, history: true };
        followers.push(tokio::spawn(async move {
            let subscription = watcher.subscribe(&request).await.unwrap();
            let mut batch = Vec::new();
            while subscription.handle().next_events(1024, &mut batch).await {}
            let numbers: Vec<u64> = batch.iter().map(|event| event.event_seq).collect();
            subscription.handle().result().await.unwrap();
            numbers
        }));
    }
    for follower in followers {
        let numbers = timeout(BOUND, follower).await.unwrap().unwrap();
        assert_eq!(numbers.len(), 6000);
        assert!(numbers.iter().copied().eq(1..=6000));
    }
    assert_eq!(timeout(BOUND, reading).await.unwrap().unwrap(), 6000);
}

/// Rules: R-7.3.9
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_ignores_everything_is_abandoned_after_the_grace() {
    let runtime = runtime(|config| config.cancel_grace = Duration::from_millis(50));
    let dropped = Arc::new(Notify::new());
    struct Tell(Arc<Notify>);
    impl Drop for Tell {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    let tell = Arc::clone(&dropped);
    runtime
        .register_agent("stubborn", move |_: RawJson, ctx: JobContext| {
            let tell = Tell(Arc::clone(&tell));
            async move {
                let _tell = tell;
                // It looks out for cancellation, and then does not end.
                ctx.cancelled().await;
                std::future::pending().await
            }
        })
        .unwrap();
    let client = connected(&runtime).await;
    let mut request = submit("stubborn", "null");
    request.max_runtime_sec = Some(1);
    let handle = client.submit(&request, None).await.unwrap();
    client.cancel_job(handle.job_id(), "stop").unwrap();
    let error = timeout(BOUND, handle.result()).await.unwrap().unwrap_err();
    assert_eq!(error.protocol().map(|error| &error.code), Some(&ErrorCode::Cancelled));
    timeout(BOUND, dropped.notified()).await.unwrap();
}

/// Rules: R-6.5.11, R-6.5.14
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_never_reads_makes_its_own_agent_wait_and_nobody_else() {
    let runtime = runtime(|_| {});
    let emitted = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&emitted);
    runtime
        .register_agent("endless", move |_: RawJson, ctx: JobContext| {
            let counter = Arc::clone(&counter);
            async move {
                loop {
                    ctx.log("info", "a line").await?;
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            }
        })
        .unwrap();

    // A peer by hand: it says hello and submits, and reads nothing of what follows.
    let (theirs, ours) = pair_memory_transports();
    let host = runtime.clone();
    let serving = tokio::spawn(async move { host.accept(ours).await });
    let (mut incoming, outgoing) = theirs.into_queues();
    let outgoing = outgoing.unwrap();
    let say = |kind: &str, payload: Value| {
        let mut frame = Vec::new();
        write_frame(&mut frame, &Header { kind, id: kind, ..Header::default() }, payload.to_string().as_bytes());
        outgoing.try_send(frame.into()).unwrap();
    };
    say(
        "session.hello",
        json!({
            "client": {"name": "x", "version": "1"}, "auth": {"scheme": "bearer", "token": "tok"},
            "capabilities": {"encodings": ["json"], "features": []},
        }),
    );
    timeout(BOUND, incoming.recv()).await.unwrap().unwrap();
    say("job.submit", json!({"agent": "endless"}));

    // Others go on meanwhile, for as long as it takes the endless agent to stand still.
    let other = connected(&runtime).await;
    let mut before = usize::MAX;
    let standstill = async {
        loop {
            for _ in 0..50 {
                let handle = other.submit(&submit("echo", "1"), None).await.unwrap();
                handle.result().await.unwrap();
            }
            let now = emitted.load(Ordering::Relaxed);
            if now > 0 && now == before {
                return now;
            }
            before = now;
        }
    };
    let held = timeout(BOUND, standstill).await.unwrap();
    let room = runtime_queue() + 2 * MEMORY_FRAMES;
    assert!(held <= room, "{held} events for a peer that reads nothing; there is room for {room}");
    // Once it reads, the agent goes on.
    for _ in 0..2 * room {
        timeout(BOUND, incoming.recv()).await.unwrap().unwrap();
    }
    serving.abort();
}

/// What may wait in the runtime for one connection before its emitters wait.
fn runtime_queue() -> usize {
    RuntimeConfig::new(peer("x")).outgoing_high_water
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_events_make_their_agent_wait_before_the_connection_is_given_up() {
    let runtime = runtime(|_| {});
    runtime
        .register_agent("large", async |_: RawJson, ctx: JobContext| {
            let text = "x".repeat(1 << 20);
            for _ in 0..200 {
                ctx.thought(&text).await?;
            }
            Ok(RawJson::null())
        })
        .unwrap();
    let client = connected(&runtime).await;
    let handle = client.submit(&submit("large", "null"), None).await.unwrap();
    let mut count = 0;
    while timeout(BOUND, handle.next_event()).await.unwrap().is_some() {
        count += 1;
    }
    assert_eq!(count, 200);
    timeout(BOUND, handle.result()).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_as_long_as_the_store_keeps_reaches_its_subscriber() {
    let runtime = runtime(|_| {});
    let owner = connected(&runtime).await;
    let handle = owner.submit(&submit("chatty", "101000"), None).await.unwrap();
    timeout(BOUND, handle.result()).await.unwrap().unwrap();
    let request = Subscribe { job_id: handle.job_id().into(), from_event_seq: None, history: true };
    let subscription = connected(&runtime).await.subscribe(&request).await.unwrap();
    let mut batch = Vec::new();
    let mut count = 0;
    while timeout(BOUND, subscription.handle().next_events(1024, &mut batch)).await.unwrap() {
        count += batch.len();
        batch.clear();
    }
    // The store keeps 100 000 records of a job, of which the last is its end.
    assert_eq!(count, 99_999);
    timeout(BOUND, subscription.handle().result()).await.unwrap().unwrap();
}

/// Rules: R-9.6.17
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_thousand_charges_at_once_are_all_booked() {
    let runtime = runtime(|_| {});
    let spends = async |_: RawJson, ctx: JobContext| {
        let spenders = (0..100).map(|_| {
            let ctx = ctx.clone();
            tokio::spawn(async move {
                for _ in 0..100 {
                    ctx.metric("cost.llm", "0.0001", Some("USD")).await.unwrap();
                }
            })
        });
        for spender in spenders.collect::<Vec<_>>() {
            spender.await.unwrap();
        }
        Ok(ctx.budget().unwrap())
    };
    runtime.register_agent("spends", spends).unwrap();
    let client = connected(&runtime).await;
    let mut order = submit("spends", "null");
    order.lease_request = RawJson::parse(r#"{"cost.budget":["USD:3.5"]}"#).unwrap();
    let handle = client.submit(&order, None).await.unwrap();
    let mut booked = 0;
    while let Some(event) = timeout(BOUND, handle.next_event()).await.unwrap() {
        let body: Value = serde_json::from_slice(&event.body).unwrap();
        booked += usize::from(body["name"] == "cost.llm");
    }
    let result = timeout(BOUND, handle.result()).await.unwrap().unwrap();
    assert_eq!((booked, result.result.unwrap().get()), (10_000, r#"{"USD":2.5}"#));
}
