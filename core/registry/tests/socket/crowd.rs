//! Slow sockets, and changes that come fast.

use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{PATIENCE, Server, calm, fill, raw};

/// Rules: REG-313, REG-504
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_is_dropped_and_slows_nobody() {
    let mut limits = calm();
    limits.public.timeout = Duration::from_millis(500);
    let server = Server::start(limits).await;
    fill(&server, 40).await;
    let slow = raw(server.address, "/public/ws").await;
    let mut quick = server.connect("/public/ws").await;
    quick.json().await;
    server.settled(2).await;
    let (mut worst, begin) = (Duration::ZERO, Instant::now());
    let mut round = 0;
    while server.sockets.live() == 2 {
        assert!(begin.elapsed() < PATIENCE, "the slow socket is still there");
        round += 1;
        let (id, start) = (format!("round-{round}"), Instant::now());
        server.register(&id, "testing").await;
        // The one list with it may be late by what was sent together with the one before.
        loop {
            let update = quick.until("agents_update").await;
            if update["data"]["agents"].as_array().unwrap().iter().any(|agent| agent["agent_id"] == *id) {
                break;
            }
        }
        worst = worst.max(start.elapsed());
    }
    println!("dropped after {:?} and {round} changes; the quick one waited {worst:?} at most", begin.elapsed());
    assert!(worst < Duration::from_secs(2), "{worst:?}");
    assert!(begin.elapsed() >= Duration::from_millis(500));
    // What was under way when it was dropped ends in the middle: no further list was sent.
    let mut slow = slow;
    let mut lists = 0;
    while let Ok(Some(Ok(Message::Text(_)))) = timeout(PATIENCE, slow.next()).await {
        lists += 1;
    }
    assert!(lists < round, "lists it did not take were not piled up: {lists} of {round}");
}

/// A socket that takes its time gets the newest list, not all of them.
///
/// Rules: REG-313
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_that_come_fast_go_out_together() {
    let server = Server::start(calm()).await;
    let mut client = server.connect("/public/ws").await;
    client.json().await;
    for n in 0..300 {
        server.register(&format!("agent-{n}"), "testing").await;
    }
    let (mut updates, mut count) = (0, 0);
    while count < 300 {
        let update = client.until("agents_update").await;
        updates += 1;
        let now = update["data"]["total_count"].as_u64().unwrap();
        assert!(now >= count, "an older list after a newer one");
        count = now;
    }
    println!("300 changes in {updates} lists");
    assert!(updates < 200, "{updates}");
}
