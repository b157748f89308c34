//! Ways for messages to travel: one JSON object per frame, in order.

mod cleartext;
mod join;
mod memory;
mod stdio;
pub mod tls;
mod websocket;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

pub use crate::error::TransportError;
pub use cleartext::AllowCleartext;
pub(crate) use cleartext::is_loopback;
pub use join::join;
pub use memory::{MEMORY_FRAMES, MemoryTransport, pair_memory_transports};
pub use stdio::StdioTransport;
pub(crate) use websocket::Wire;
pub use websocket::{ConnectOptions, WebSocketTransport, websocket_config};

/// What a transport received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// One message.
    Frame(Bytes),
    /// A message over the size cap, refused before it was held whole.
    Oversize,
}

/// A connection that carries frames both ways. One task drives it; a slow peer shows as `Pending`.
pub trait Transport: Send + 'static {
    /// The next message; `None` at the end.
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Received, TransportError>>>;

    /// Whether one more frame can be taken.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>>;

    /// Takes a frame after `poll_ready` said so; it may wait in a buffer until `poll_flush`.
    fn start_send(&mut self, frame: Bytes) -> Result<(), TransportError>;

    /// Sends what was taken.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>>;

    /// Ends the connection, politely where the transport knows how.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Whether secrets may travel over it: it is encrypted, or does not leave this machine (R-9.8.2.11). Asked once, before
    /// anything is received. No, unless it says so.
    fn is_private(&self) -> bool {
        false
    }

    /// What makes this connection anew after it was lost; `None` where nobody knows how, and a loss is final (D-7).
    fn reopener(&self) -> Option<Arc<dyn Reopen>> {
        None
    }
}

/// A connection on its way.
pub type Reopening<'a> = Pin<Box<dyn Future<Output = Result<Box<dyn Transport>, TransportError>> + Send + 'a>>;

/// Makes a connection to the same peer anew.
pub trait Reopen: Send + Sync + 'static {
    /// Opens it. The client bounds the time this takes, and asks again after a failure.
    fn reopen(&self) -> Reopening<'_>;

    /// Whether the application closed the connection itself: then it is not made anew (D-24).
    fn is_closed(&self) -> bool {
        false
    }
}

impl Transport for Box<dyn Transport> {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Received, TransportError>>> {
        (**self).poll_recv(cx)
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        (**self).poll_ready(cx)
    }

    fn start_send(&mut self, frame: Bytes) -> Result<(), TransportError> {
        (**self).start_send(frame)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        (**self).poll_flush(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        (**self).poll_close(cx)
    }

    fn is_private(&self) -> bool {
        (**self).is_private()
    }

    fn reopener(&self) -> Option<Arc<dyn Reopen>> {
        (**self).reopener()
    }
}
