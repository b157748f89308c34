//! The task behind one connection: it reads, and writes whatever waits, without either holding up the other.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::task::AtomicWaker;

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

    /// Does what is due, and registers for the next deadline.
    fn tick(&mut self, _cx: &mut Context<'_>) {}
}

/// Messages taken from the transport before the machine is asked, under one lock.
const READ_BATCH: usize = 64;

/// Runs the connection to its end: `Ok` when either side closed it, else what failed.
pub(crate) async fn drive<T: Transport, E: Endpoint>(
    transport: &mut T,
    endpoint: &mut E,
    signal: &Signal,
) -> Result<(), TransportError> {
    let mut received = Vec::with_capacity(READ_BATCH);
    let mut frames: Vec<Bytes> = Vec::new();
    let mut sent = 0;
    let mut flushed = true;
    poll_fn(|cx| {
        loop {
            signal.register(cx);
            endpoint.tick(cx);
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
            if closing && frames.is_empty() && flushed {
                return transport.poll_close(cx).map(Ok);
            }

            let mut ended = None;
            if !endpoint.paused(cx) {
                while received.len() < READ_BATCH {
                    match transport.poll_recv(cx) {
                        Poll::Ready(Some(Ok(message))) => received.push(message),
                        Poll::Ready(Some(Err(error))) => {
                            ended = Some(Err(error));
                            break;
                        }
                        Poll::Ready(None) => {
                            ended = Some(Ok(()));
                            break;
                        }
                        Poll::Pending => break,
                    }
                }
            }
            let read = received.len();
            if read > 0 {
                endpoint.receive(&mut received);
                received.clear();
            }
            if let Some(end) = ended {
                return Poll::Ready(end);
            }
            if read == READ_BATCH {
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
