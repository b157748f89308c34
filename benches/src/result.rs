//! A streamed result, counted and thrown away.

use std::time::Instant;

use crate::peer::{Peer, is_type};
use crate::server::{Kept, RESULT, Server, TOKEN};
use crate::{Measured, megabytes, single_threaded};

/// Megabytes of the result per second into a bare peer.
pub(crate) fn bare(agent: &'static str) -> Measured {
    let (server, host) = (Server::start(Kept::InMemory), single_threaded());
    let url = server.url.clone();
    let task = host.spawn(async move {
        let mut peer = Peer::connect(&url, 1 << 20).await;
        peer.open(TOKEN, None).await;
        let start = Instant::now();
        peer.submit(agent, "null").await;
        let mut bytes = 0;
        loop {
            let frame = peer.next().await;
            bytes += frame.len();
            if is_type(frame, "job.result") {
                break;
            }
        }
        let took = start.elapsed();
        assert!(bytes > RESULT, "{bytes} bytes arrived");
        megabytes(RESULT, took)
    });
    Ok(vec![host.block_on(task).unwrap()])
}
