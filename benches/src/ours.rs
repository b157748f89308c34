//! The same machine, the same loopback, through the Rust client.

use std::time::{Duration, Instant};

use arcp::{Client, ClientConfig, ConnectOptions, RawJson, Submit, WebSocketTransport};

use crate::server::{Kept, RESULT, Server, TOKEN, peer};
use crate::{Measured, megabytes, rate, single_threaded};

/// Events of one measured job.
const EVENTS: u64 = 400_000;

async fn connect(url: &str) -> Client {
    let transport = WebSocketTransport::connect(url, ConnectOptions::default()).await.unwrap();
    let client = Client::new(ClientConfig::new(peer("bench-client")));
    client.connect(transport, TOKEN).await.unwrap();
    client
}

fn submit(agent: &str, input: &str) -> Submit {
    Submit::new(agent, RawJson::parse(input).unwrap())
}

/// Jobs per second with so many in flight.
pub(crate) fn in_flight(kept: Kept, width: usize) -> Measured {
    let (server, host) = (Server::start(kept), single_threaded());
    let url = server.url.clone();
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
        let took = start.elapsed();
        client.close("measured").await;
        rate(count, took)
    });
    Ok(vec![host.block_on(task).unwrap()])
}

/// Events of one job per second, taken in batches.
pub(crate) fn events(kept: Kept) -> Measured {
    let (server, host) = (Server::start(kept), single_threaded());
    let url = server.url.clone();
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
        client.close("measured").await;
        rate(count, took)
    });
    Ok(vec![host.block_on(task).unwrap()])
}

/// Megabytes per second of a streamed result, put together by the client.
pub(crate) fn result(agent: &'static str) -> Measured {
    let (server, host) = (Server::start(Kept::InMemory), single_threaded());
    let url = server.url.clone();
    let task = host.spawn(async move {
        let client = connect(&url).await;
        let start = Instant::now();
        let handle = client.submit(&submit(agent, "null"), None).await.unwrap();
        let bytes = handle.result_bytes().await.unwrap();
        let took = start.elapsed();
        assert_eq!(bytes.len(), RESULT);
        client.close("measured").await;
        megabytes(RESULT, took)
    });
    Ok(vec![host.block_on(task).unwrap()])
}
