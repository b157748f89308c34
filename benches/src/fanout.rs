//! One job and many that look on.

use std::time::Instant;

use crate::peer::{Peer, is_type};
use crate::server::{Kept, Server, TOKEN};
use crate::{Measured, rate, single_threaded};

/// Sessions that subscribe.
const SUBSCRIBERS: usize = 100;

/// Events of the job: fewer than may wait for one connection, so that none is cut off.
const EVENTS: u64 = 20_000;

/// Deliveries per second to all subscribers; the submitter's own copies are not counted.
pub(crate) fn fan_out() -> Measured {
    let (server, host) = (Server::start(Kept::InMemory), single_threaded());
    host.block_on(async {
        let mut submitter = Peer::connect(&server.url, 64 << 10).await;
        submitter.open(TOKEN, None).await;
        let job_id = submitter.submit("gated", &EVENTS.to_string()).await;
        let mut subscribers = Vec::new();
        for _ in 0..SUBSCRIBERS {
            let mut subscriber = Peer::connect(&server.url, 64 << 10).await;
            subscriber.open(TOKEN, None).await;
            subscriber.send("job.subscribe", &format!("{{\"job_id\":\"{job_id}\"}}")).await;
            subscriber.await_type("job.subscribed").await;
            subscribers.push(subscriber);
        }
        let start = Instant::now();
        server.gate.notify_one();
        let readers: Vec<_> =
            std::iter::once(submitter).chain(subscribers).map(|peer| tokio::spawn(read(peer))).collect();
        for reader in readers {
            reader.await.unwrap();
        }
        Ok(vec![rate(SUBSCRIBERS as u64 * EVENTS, start.elapsed())])
    })
}

async fn read(mut peer: Peer) {
    for _ in 0..EVENTS {
        peer.next().await;
    }
    assert!(is_type(peer.next().await, "job.result"), "more events than were made");
}
