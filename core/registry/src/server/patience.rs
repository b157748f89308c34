//! A connection whose peer must take what it asked for: who reads nothing, or next to nothing, holds an answer of megabytes
//! and a place among the connections.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// So long a peer may take nothing.
const PATIENCE: Duration = Duration::from_secs(30);
/// What it takes gives it time again, a second for each of these, up to the whole.
const SLOWEST_BYTES_PER_SECOND: u64 = 16 << 10;

/// Fails a write that waits for too long, until it is told that the connection is a WebSocket, which has rules of its own.
#[derive(Debug)]
pub(super) struct Patient<S> {
    stream: S,
    is_socket: Arc<AtomicBool>,
    /// What is left of the peer's time.
    left: Duration,
    /// Since when a write waits, and until when it may.
    waits: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl<S> Patient<S> {
    pub(super) fn new(stream: S, is_socket: Arc<AtomicBool>) -> Self {
        Patient { stream, is_socket, left: PATIENCE, waits: None }
    }

    fn judge(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if self.is_socket.load(Ordering::Relaxed) {
            self.waits = None;
            return written;
        }
        match written {
            Poll::Ready(Ok(taken)) => {
                if let Some((since, _)) = self.waits.take() {
                    self.left = self.left.saturating_sub(since.elapsed());
                }
                let millis = (taken as u64).saturating_mul(1000) / SLOWEST_BYTES_PER_SECOND;
                self.left = (self.left + Duration::from_millis(millis)).min(PATIENCE);
                Poll::Ready(Ok(taken))
            }
            Poll::Ready(failed) => Poll::Ready(failed),
            Poll::Pending => {
                let left = self.left;
                let (_, until) = self.waits.get_or_insert_with(|| (Instant::now(), Box::pin(sleep(left))));
                ready!(until.as_mut().poll(cx));
                let why = "the client did not take its answer in time";
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)))
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.judge(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.judge(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    fn pair() -> (Patient<DuplexStream>, DuplexStream, Arc<AtomicBool>) {
        let (near, far) = duplex(1024);
        let is_socket = Arc::new(AtomicBool::new(false));
        (Patient::new(near, Arc::clone(&is_socket)), far, is_socket)
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_given_up() {
        let (mut near, _far, _) = pair();
        let began = Instant::now();
        let failed = near.write_all(&[0; 4096]).await.unwrap_err();
        assert_eq!((failed.kind(), began.elapsed().as_secs()), (io::ErrorKind::TimedOut, 30));
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_a_little_now_and_then_is_given_up_too() {
        let (mut near, mut far, _) = pair();
        let reader = tokio::spawn(async move {
            let mut taken = [0; 100];
            while far.read_exact(&mut taken).await.is_ok() {
                sleep(Duration::from_secs(1)).await;
            }
        });
        let began = Instant::now();
        let failed = near.write_all(&[0; 1 << 20]).await.unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() < PATIENCE * 2, "{:?}", began.elapsed());
        reader.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_slow_but_steady_gets_all_of_it() {
        let (mut near, mut far, _) = pair();
        let reader = tokio::spawn(async move {
            let mut taken = vec![0; 1024];
            let mut all = 0;
            while let Ok(count @ 1..) = far.read(&mut taken).await {
                all += count;
                sleep(Duration::from_millis(50)).await;
            }
            all
        });
        near.write_all(&vec![0; 2 << 20]).await.unwrap();
        drop(near);
        assert_eq!(reader.await.unwrap(), 2 << 20);
    }

    #[tokio::test(start_paused = true)]
    async fn a_websocket_is_left_to_its_own_rules() {
        let (mut near, _far, is_socket) = pair();
        is_socket.store(true, Ordering::Relaxed);
        let long = tokio::time::timeout(Duration::from_secs(3600), near.write_all(&[0; 4096])).await;
        assert!(long.is_err(), "it waits for ever");
    }
}
