//! Echo jobs, one at a time, alone and beside a job of another session that emits as fast as it may.

use std::time::{Duration, Instant};

use crate::peer::Peer;
use crate::server::{Kept, Server, TOKEN};
use crate::{Measured, microseconds, single_threaded};

/// How long echoes are measured.
const RUN: Duration = Duration::from_secs(3);

/// Half of the echoes, all but one in a hundred, and all of them took no longer than this: in microseconds, first alone,
/// then beside the other session. The runtime has the threads this makes.
pub(crate) fn echoes(threads: fn() -> tokio::runtime::Runtime) -> Measured {
    let alone = measure(threads(), false);
    let beside = measure(threads(), true);
    Ok(alone.into_iter().chain(beside).collect())
}

fn measure(threads: tokio::runtime::Runtime, beside: bool) -> [f64; 3] {
    let (server, host) = (Server::start_on(threads, Kept::InMemory), single_threaded());
    let chatty = beside.then(|| {
        let (chatty, url) = (single_threaded(), server.url.clone());
        chatty.spawn(async move {
            let mut peer = Peer::connect(&url, 256 << 10).await;
            peer.open(TOKEN, None).await;
            peer.submit("stream", &u64::MAX.to_string()).await;
            loop {
                peer.next().await;
            }
        });
        chatty
    });
    let url = server.url.clone();
    let task = host.spawn(async move {
        let mut peer = Peer::connect(&url, 64 << 10).await;
        peer.open(TOKEN, None).await;
        // What happens only once is over.
        for _ in 0..200 {
            echo(&mut peer).await;
        }
        let start = Instant::now();
        let mut took = Vec::new();
        while start.elapsed() < RUN {
            took.push(echo(&mut peer).await);
        }
        took
    });
    let mut took = host.block_on(task).unwrap();
    if let Some(chatty) = chatty {
        chatty.shutdown_background();
    }
    took.sort_unstable();
    [took.len() / 2, took.len() * 99 / 100, took.len() - 1].map(|at| microseconds(took[at]))
}

async fn echo(peer: &mut Peer) -> Duration {
    let start = Instant::now();
    peer.submit("echo", "{\"hi\":1}").await;
    peer.await_type("job.result").await;
    start.elapsed()
}
