//! The same machine, the same loopback, through ARCP.

use std::time::{Duration, Instant};

use arcp::message::PeerInfo;
use arcp::{
    Client, ClientConfig, ConnectOptions, JobContext, ListenOptions, Listener, ProtocolError, RawJson, Runtime,
    RuntimeConfig, StaticBearerVerifier, Submit, WebSocketTransport, event,
};

use crate::single_threaded;

/// Events of one measured job.
const EVENTS: u64 = 400_000;

fn peer(name: &str) -> PeerInfo {
    PeerInfo { name: name.into(), version: "1".into() }
}

/// A runtime with an echo agent and one that emits log events, each about the length of the raw frames.
pub(crate) fn serve(server: &tokio::runtime::Runtime) -> String {
    let runtime = Runtime::new(RuntimeConfig::new(peer("bench")), StaticBearerVerifier::new([("tok", "me")]));
    runtime.register_agent("echo", async |input: RawJson, _: JobContext| Ok::<_, ProtocolError>(input)).unwrap();
    runtime
        .register_agent("stream", |input: RawJson, ctx: JobContext| async move {
            let count: u64 = input.get().parse().map_err(|_| ProtocolError::invalid("input must be a count"))?;
            for i in 0..count {
                let body = event::log("info", &format!("line {i}"), None)?;
                ctx.emit("log", &body).await?;
            }
            Ok(input)
        })
        .unwrap();
    server.block_on(async move {
        let listener = Listener::bind(ListenOptions { port: 0, ..ListenOptions::default() }).await.unwrap();
        let url = listener.url().to_owned();
        tokio::spawn(async move { runtime.serve(listener).await });
        url
    })
}

async fn connect(url: &str) -> Client {
    let transport = WebSocketTransport::connect(url, ConnectOptions::default()).await.unwrap();
    let client = Client::new(ClientConfig::new(peer("bench-client")));
    client.connect(transport, "tok").await.unwrap();
    client
}

fn submit(agent: &str, input: &str) -> Submit {
    Submit::new(agent, RawJson::parse(input).unwrap())
}

/// Jobs with so many in flight.
pub(crate) fn in_flight(width: usize) -> (u64, Duration) {
    let (server, host) = (single_threaded(), single_threaded());
    let url = serve(&server);
    let task = host.spawn(async move {
        let client = connect(&url).await;
        let start = Instant::now();
        let mut workers = Vec::new();
        for _ in 0..width {
            let client = client.clone();
            workers.push(tokio::spawn(async move {
                let request = submit("echo", "{\"hi\":1}");
                let mut count = 0;
                while start.elapsed() < crate::RUN {
                    client.submit(&request, None).await.unwrap().result().await.unwrap();
                    count += 1;
                }
                count
            }));
        }
        let mut count: u64 = 0;
        for worker in workers {
            count += worker.await.unwrap();
        }
        (count, start.elapsed())
    });
    host.block_on(task).unwrap()
}

/// Events of one job, taken in batches.
pub(crate) fn events() -> (u64, Duration) {
    let (server, host) = (single_threaded(), single_threaded());
    let url = serve(&server);
    let task = host.spawn(async move {
        let client = connect(&url).await;
        let start = Instant::now();
        let handle = client.submit(&submit("stream", &EVENTS.to_string()), None).await.unwrap();
        let mut batch = Vec::with_capacity(256);
        let mut count = 0;
        while handle.next_events(256, &mut batch).await {
            count += batch.len() as u64;
            batch.clear();
        }
        let took: Duration = start.elapsed();
        // A word of back pressure may be among them.
        assert!(count >= EVENTS, "{count} of {EVENTS} events arrived");
        handle.result().await.unwrap();
        (count, took)
    });
    host.block_on(task).unwrap()
}
