//! The task behind one connection: it reads, and writes whatever waits, without either holding up the other.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use tokio::time::{Sleep, sleep};

use crate::error::TransportError;
use crate::transport::{Received, Transport};

/// Wakes a connection's task when frames wait or when it is to close.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    waker: AtomicWaker,
    writable: AtomicBool,
    close: AtomicBool,
}

impl Signal {
    pub(crate) fn writable(&self) {
        self.writable.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Closes once everything that waits is sent.
    pub(crate) fn close(&self) {
        self.close.store(true, Ordering::Release);
        self.writable();
    }

    pub(crate) fn wake(&self) {
        self.waker.wake();
    }

    pub(crate) fn register(&self, cx: &Context<'_>) {
        self.waker.register(cx.waker());
    }
}

/// What a connection's task serves: a machine behind its lock.
pub(crate) trait Endpoint {
    /// Takes received messages, in order.
    fn receive(&mut self, received: &mut Vec<Received>);

    /// Appends frames that are to be sent; none when nothing waits.
    fn transmit(&mut self, frames: &mut Vec<Bytes>);

    /// Whether reading should pause because the application lags; registers for the change.
    fn paused(&mut self, _cx: &mut Context<'_>) -> bool {
        false
    }

    /// Whether this connection is of no more use: it is closed without waiting for anything.
    fn abandoned(&mut self) -> bool {
        false
    }

    /// Does what is due, and registers for the next deadline.
    fn tick(&mut self, _cx: &mut Context<'_>) {}
}

/// Messages taken from the transport before the machine is asked, under one lock.
const READ_BATCH: usize = 64;

/// How long a connection that is to close may take to send what waits, whatever the peer does.
const LINGER: Duration = Duration::from_secs(2);

/// Runs the connection to its end: `Ok` when either side closed it, else what failed.
pub(crate) async fn drive<T: Transport, E: Endpoint>(
    transport: &mut T,
    endpoint: &mut E,
    signal: &Signal,
) -> Result<(), TransportError> {
    // Grows with the first batch: an idle connection needs no room for one.
    let mut received = Vec::new();
    let mut frames: Vec<Bytes> = Vec::new();
    let mut sent = 0;
    let mut flushed = true;
    // The peer has closed its side, or said more than is taken: nothing is read any more.
    let mut deaf = false;
    let mut linger: Option<Pin<Box<Sleep>>> = None;
    poll_fn(|cx| {
        loop {
            signal.register(cx);
            endpoint.tick(cx);
            if endpoint.abandoned() {
                // Politely where that takes no time.
                let _ = transport.poll_close(cx);
                return Poll::Ready(Ok(()));
            }
            let closing = signal.close.load(Ordering::Acquire);

            // Everything that waits goes out in one flush.
            loop {
                if sent == frames.len() {
                    frames.clear();
                    sent = 0;
                    if signal.writable.swap(false, Ordering::AcqRel) {
                        endpoint.transmit(&mut frames);
                    }
                    if frames.is_empty() {
                        break;
                    }
                    // There may be more than one batch.
                    signal.writable.store(true, Ordering::Release);
                }
                match transport.poll_ready(cx)? {
                    Poll::Ready(()) => {
                        transport.start_send(std::mem::take(&mut frames[sent]))?;
                        sent += 1;
                        flushed = false;
                    }
                    Poll::Pending => break,
                }
            }
            if !flushed {
                flushed = transport.poll_flush(cx)?.is_ready();
            }
            if closing || deaf {
                let all_sent = frames.is_empty() && flushed;
                if all_sent && transport.poll_close(cx).is_ready() {
                    return Poll::Ready(Ok(()));
                }
                let linger = linger.get_or_insert_with(|| Box::pin(sleep(LINGER)));
                if linger.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Ok(()));
                }
                if all_sent || deaf {
                    return Poll::Pending;
                }
            }

            if !endpoint.paused(cx) {
                while received.len() < READ_BATCH && !deaf {
                    match transport.poll_recv(cx) {
                        Poll::Ready(Some(Ok(message))) => {
                            deaf = message == Received::Oversize;
                            received.push(message);
                        }
                        Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                        Poll::Ready(None) => deaf = true,
                        Poll::Pending => break,
                    }
                }
            }
            let read = received.len();
            if read > 0 {
                endpoint.receive(&mut received);
                received.clear();
            }
            if read == READ_BATCH || deaf || endpoint.abandoned() {
                continue;
            }
            if read > 0 {
                // Whoever these messages woke runs first, so that its answers leave with ours in one flush.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            // Either nothing is to be sent, or the transport is full and its own waker brings us back.
            if sent < frames.len() || !signal.writable.load(Ordering::Acquire) {
                return Poll::Pending;
            }
        }
    })
    .await
}
