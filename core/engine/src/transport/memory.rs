//! Two ends in one process: for tests, for agents beside their client, and for hosts that carry frames themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;

use super::{Received, Transport, TransportError};

/// How many frames one direction holds before its sender waits.
pub const MEMORY_FRAMES: usize = 1024;

/// One end of a pair. Dropping it ends the other.
#[derive(Debug)]
pub struct MemoryTransport {
    incoming: mpsc::Receiver<Bytes>,
    outgoing: PollSender<Bytes>,
    /// Whether a host carries the frames of either end further.
    carried: Arc<AtomicBool>,
}

/// Two connected ends; each direction is bounded to [`MEMORY_FRAMES`].
pub fn pair_memory_transports() -> (MemoryTransport, MemoryTransport) {
    let (to_left, from_right) = mpsc::channel(MEMORY_FRAMES);
    let (to_right, from_left) = mpsc::channel(MEMORY_FRAMES);
    let carried = Arc::<AtomicBool>::default();
    (
        MemoryTransport { incoming: from_right, outgoing: PollSender::new(to_right), carried: Arc::clone(&carried) },
        MemoryTransport { incoming: from_left, outgoing: PollSender::new(to_left), carried },
    )
}

impl MemoryTransport {
    /// The two halves, for a host that fills and drains the queues itself.
    pub fn into_queues(self) -> (mpsc::Receiver<Bytes>, Option<mpsc::Sender<Bytes>>) {
        // Nobody knows where to.
        self.carried.store(true, Ordering::Release);
        (self.incoming, self.outgoing.get_ref().cloned())
    }
}

impl Transport for MemoryTransport {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Received, TransportError>>> {
        Poll::Ready(ready!(self.incoming.poll_recv(cx)).map(|frame| Ok(Received::Frame(frame))))
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.outgoing.poll_reserve(cx).map_err(|_| ended())
    }

    fn start_send(&mut self, frame: Bytes) -> Result<(), TransportError> {
        self.outgoing.send_item(frame).map_err(|_| ended())
    }

    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        self.outgoing.close();
        self.incoming.close();
        Poll::Ready(())
    }

    fn is_private(&self) -> bool {
        !self.carried.load(Ordering::Acquire)
    }
}

fn ended() -> TransportError {
    TransportError::new("the other end of the memory transport is closed")
}
