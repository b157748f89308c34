//! Client and runtime over a link that is cut under them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use arcp_engine::StaticBearerVerifier;
use arcp_engine::transport::{ConnectOptions, WebSocketTransport};
use arcp_engine::{Client, ConnectionState, JobContext, JobHandle, ListenOptions, Listener, Runtime};
use arcp_proto::json::RawJson;
use arcp_proto::machine::client::{Backoff, ClientConfig};
use arcp_proto::machine::runtime::RuntimeConfig;
use arcp_proto::message::{Resume, Subscribe};
use arcp_proto::{Error as ProtocolError, ErrorCode};
use serde_json::Value;
use support::{BOUND, peer, submit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio::time::{sleep, timeout};

/// A proxy that cuts every connection through it at once, without a word to either side.
struct Cutter {
    url: String,
    cut: broadcast::Sender<()>,
    shut: Arc<AtomicBool>,
}

impl Cutter {
    async fn before(target: std::net::SocketAddr) -> Cutter {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/arcp", listener.local_addr().unwrap());
        let (cut, _) = broadcast::channel(4);
        let shut = Arc::new(AtomicBool::new(false));
        let (cuts, closed) = (cut.clone(), Arc::clone(&shut));
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                if closed.load(Ordering::SeqCst) {
                    continue;
                }
                let mut over = cuts.subscribe();
                tokio::spawn(async move {
                    let Ok(mut far) = TcpStream::connect(target).await else { return };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = over.recv() => {}
                    }
                });
            }
        });
        Cutter { url, cut, shut }
    }

    fn cut(&self) {
        // Nobody may be connected just now.
        drop(self.cut.send(()));
    }
}

struct World {
    runs: Arc<AtomicUsize>,
    cutter: Cutter,
}

async fn world(change: impl FnOnce(&mut RuntimeConfig)) -> World {
    let mut config = RuntimeConfig::new(peer("runtime"));
    change(&mut config);
    let runtime = Runtime::new(config, StaticBearerVerifier::new([("tok", "me")]));
    let runs = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&runs);
    runtime
        .register_agent("echo", move |input: RawJson, ctx: JobContext| {
            counter.fetch_add(1, Ordering::SeqCst);
            async move {
                ctx.log("info", "echo").await?;
                Ok(input)
            }
        })
        .unwrap();
    runtime.register_agent("counts", counts).unwrap();
    runtime.register_agent("ticks", ticks).unwrap();
    let listener = Listener::bind(ListenOptions { port: 0, ..ListenOptions::default() }).await.unwrap();
    let cutter = Cutter::before(listener.address()).await;
    tokio::spawn(async move { runtime.serve(listener).await });
    World { runs, cutter }
}

/// Counts to its input as fast as it can.
async fn counts(input: RawJson, ctx: JobContext) -> Result<RawJson, ProtocolError> {
    let count: u64 = input.get().parse().map_err(|_| ProtocolError::invalid("a number"))?;
    for i in 1..=count {
        ctx.progress(&i.to_string(), None, None).await?;
    }
    Ok(input)
}

/// Counts to its input, one every 5 ms.
async fn ticks(input: RawJson, ctx: JobContext) -> Result<RawJson, ProtocolError> {
    let count: u64 = input.get().parse().map_err(|_| ProtocolError::invalid("a number"))?;
    for i in 1..=count {
        ctx.progress(&i.to_string(), None, None).await?;
        sleep(Duration::from_millis(5)).await;
    }
    Ok(input)
}

fn config() -> ClientConfig {
    let mut config = ClientConfig::new(peer("client"));
    let (initial, max) = (Duration::from_millis(5), Duration::from_millis(50));
    config.reconnect = Some(Backoff { initial, max, give_up_after: Some(BOUND) });
    config
}

impl World {
    async fn link(&self) -> WebSocketTransport {
        WebSocketTransport::connect(&self.cutter.url, ConnectOptions::default()).await.unwrap()
    }

    async fn client(&self) -> Client {
        let client = Client::new(config());
        timeout(BOUND, client.connect(self.link().await, "tok")).await.unwrap().unwrap();
        client
    }
}

/// What a handle's events count, to the end.
async fn counted(handle: &JobHandle) -> Vec<u64> {
    let mut counted = Vec::new();
    let mut batch = Vec::new();
    while timeout(BOUND, handle.next_events(256, &mut batch)).await.unwrap() {
        for event in batch.drain(..) {
            let body: Value = serde_json::from_str(event.body()).unwrap();
            counted.extend(body["current"].as_u64());
        }
    }
    counted
}

fn whole(count: u64) -> Vec<u64> {
    (1..=count).collect()
}

/// Rules
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_job_reaches_its_reader_once_and_in_order_over_many_cuts() {
    let world = world(|_| {}).await;
    let client = world.client().await;
    let mut state = client.connection_state();
    let handle = client.submit(&submit("counts", "100000"), None).await.unwrap();
    let reading = tokio::spawn({
        let handle = handle.clone();
        async move { counted(&handle).await }
    });
    let mut cuts = 0;
    while !reading.is_finished() {
        sleep(Duration::from_millis(20)).await;
        world.cutter.cut();
        cuts += 1;
        let open = |state: &ConnectionState| matches!(state, ConnectionState::Open(_));
        timeout(BOUND, state.wait_for(open)).await.unwrap().unwrap();
    }
    assert!(reading.await.unwrap() == whole(100_000), "every event once, in order");
    assert_eq!(timeout(BOUND, handle.result()).await.unwrap().unwrap().result.unwrap().get(), "100000");
    assert!(cuts > 3, "{cuts} cuts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn submits_over_cuts_are_each_run_once() {
    let world = world(|_| {}).await;
    let client = world.client().await;
    let mut submitting = tokio::task::JoinSet::new();
    for i in 0..200_u64 {
        let client = client.clone();
        submitting.spawn(async move {
            sleep(Duration::from_millis(i)).await;
            let handle = timeout(BOUND, client.submit(&submit("echo", &i.to_string()), None)).await.unwrap().unwrap();
            let result = timeout(BOUND, handle.result()).await.unwrap().unwrap();
            assert_eq!(result.result.unwrap().get(), i.to_string());
        });
    }
    let cutting = async {
        loop {
            sleep(Duration::from_millis(15)).await;
            world.cutter.cut();
        }
    };
    let all = async {
        while let Some(done) = submitting.join_next().await {
            done.unwrap();
        }
    };
    tokio::select! {
        () = cutting => {}
        () = all => {}
    }
    assert_eq!(world.runs.load(Ordering::SeqCst), 200);
}

/// Rules
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_and_the_right_to_cancel_survive_the_link() {
    let world = world(|_| {}).await;
    let (owner, watcher) = (world.client().await, world.client().await);
    let handle = owner.submit(&submit("ticks", "10000"), None).await.unwrap();
    let request = Subscribe { job_id: handle.job_id().into(), from_event_seq: None, history: true };
    let subscription = watcher.subscribe(&request).await.unwrap();
    let reading = tokio::spawn(async move { counted(subscription.handle()).await });
    for _ in 0..5 {
        sleep(Duration::from_millis(50)).await;
        world.cutter.cut();
    }
    assert_eq!(owner.cancel_job_acknowledged(handle.job_id(), "enough").await.unwrap(), None);
    let counted = reading.await.unwrap();
    assert!(counted == whole(counted.len() as u64) && counted.len() > 5, "{counted:?}");
    let error = timeout(BOUND, handle.result()).await.unwrap().unwrap_err();
    assert_eq!(error.protocol().map(|error| &error.code), Some(&ErrorCode::Cancelled));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handle_follows_its_job_beyond_the_end_of_its_session() {
    let world = world(|config| config.resume_window = Duration::from_secs(1)).await;
    let client = world.client().await;
    let before = client.welcome().unwrap().session_id.clone();
    let handle = client.submit(&submit("ticks", "500"), None).await.unwrap();
    let reading = tokio::spawn({
        let handle = handle.clone();
        async move { counted(&handle).await }
    });
    sleep(Duration::from_millis(100)).await;
    world.cutter.shut.store(true, Ordering::SeqCst);
    world.cutter.cut();
    sleep(Duration::from_millis(1200)).await;
    world.cutter.shut.store(false, Ordering::SeqCst);
    assert_eq!(reading.await.unwrap(), whole(500));
    assert_eq!(timeout(BOUND, handle.result()).await.unwrap().unwrap().result.unwrap().get(), "500");
    assert_ne!(client.welcome().unwrap().session_id, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fresh_client_takes_up_the_session_of_one_that_is_gone() {
    let world = world(|_| {}).await;
    let first = world.client().await;
    let welcome = first.welcome().unwrap();
    let handle = first.submit(&submit("ticks", "100"), None).await.unwrap();
    let job_id = handle.job_id().to_owned();
    while first.latest_event_seq() < 10 {
        sleep(Duration::from_millis(5)).await;
    }
    world.cutter.cut();
    let resume = Resume {
        session_id: welcome.session_id.clone(),
        resume_token: welcome.resume_token.clone(),
        last_event_seq: 10,
    };
    // Its process is gone: nobody heals, nobody says goodbye.
    drop((first, handle));
    let second = Client::new(config());
    match timeout(BOUND, second.connect_resuming(world.link().await, "tok", resume)).await.unwrap() {
        Ok(resumed) => assert_eq!(resumed.session_id, welcome.session_id),
        Err(error) => panic!("{error}"),
    }
    let handle = second.job(&job_id).unwrap();
    assert_eq!(counted(&handle).await, (11..=100).collect::<Vec<u64>>());
    assert_eq!(handle.result_value().await.unwrap().get(), "100");
}

/// Rules
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_resume_token_is_refused_and_told() {
    let world = world(|_| {}).await;
    let welcome = world.client().await.welcome().unwrap();
    let resume = Resume { session_id: welcome.session_id.clone(), resume_token: "rt_x".into(), last_event_seq: 0 };
    let client = Client::new(config());
    let error = timeout(BOUND, client.connect_resuming(world.link().await, "tok", resume)).await.unwrap().unwrap_err();
    assert_eq!(error.protocol().map(|error| &error.code), Some(&ErrorCode::ResumeWindowExpired));
}
