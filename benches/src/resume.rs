//! A session that lost its connection while a job emitted, taken up again from its first event.

use std::time::Instant;

use arcp::message::Resume;
use arcp::{Client, ClientConfig, ConnectOptions, WebSocketTransport};

use crate::peer::{Peer, Ticket, is_type};
use crate::server::{Kept, Server, TOKEN, peer};
use crate::{Measured, milliseconds, single_threaded};

/// Events that wait when the session is taken up.
const EVENTS: u64 = 10_000;

/// Milliseconds from the connect to the last event, read by a bare peer.
pub(crate) fn bare(kept: Kept) -> Measured {
    let (server, host) = (Server::start(kept), single_threaded());
    host.block_on(async {
        let (ticket, _) = lose(&server).await;
        let url = server.url.clone();
        let took = tokio::spawn(async move {
            let start = Instant::now();
            let mut again = Peer::connect(&url, 256 << 10).await;
            again.open(TOKEN, Some(&ticket)).await;
            for _ in 0..EVENTS {
                assert!(is_type(again.next().await, "job.event"));
            }
            let took = start.elapsed();
            assert!(is_type(again.next().await, "job.result"), "more events than were made");
            took
        });
        Ok(vec![milliseconds(took.await.unwrap())])
    })
}

/// The same, by the Rust client, up to the last event its application has.
pub(crate) fn client(kept: Kept) -> Measured {
    let (server, host) = (Server::start(kept), single_threaded());
    host.block_on(async {
        let (Ticket { session_id, resume_token }, job_id) = lose(&server).await;
        let url = server.url.clone();
        let took = tokio::spawn(async move {
            let start = Instant::now();
            let transport = WebSocketTransport::connect(&url, ConnectOptions::default()).await.unwrap();
            let client = Client::new(ClientConfig::new(peer("bench-client")));
            let resume = Resume { session_id, resume_token, last_event_seq: 0 };
            client.connect_resuming(transport, TOKEN, resume).await.unwrap();
            let handle = client.job(&job_id).unwrap();
            let mut batch = Vec::new();
            let mut count = 0;
            while count < EVENTS && handle.next_events(1024, &mut batch).await {
                count += batch.len() as u64;
                batch.clear();
            }
            let took = start.elapsed();
            assert_eq!(count, EVENTS);
            client.close("measured").await;
            took
        });
        Ok(vec![milliseconds(took.await.unwrap())])
    })
}

/// Submits a job, loses the connection, and lets the job emit and end unseen.
async fn lose(server: &Server) -> (Ticket, String) {
    let mut first = Peer::connect(&server.url, 64 << 10).await;
    let ticket = first.open(TOKEN, None).await;
    let job_id = first.submit("gated", &EVENTS.to_string()).await;
    drop(first);
    server.until("the connection is gone", |stats| stats.sessions_detached == 1).await;
    server.gate.notify_one();
    server.until("the job has ended", |stats| stats.jobs_running == 0 && stats.unstored_ops == 0).await;
    (ticket, job_id)
}
