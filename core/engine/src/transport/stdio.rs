//! One message per line over a pair of byte streams.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, Join, join};
use tokio_util::codec::{Framed, LinesCodec, LinesCodecError};

use super::{Received, Transport, TransportError};

type Io = Join<Box<dyn AsyncRead + Send + Unpin>, Box<dyn AsyncWrite + Send + Unpin>>;

/// Lines of JSON over any reader and writer: a child's pipes, or this process's own standard streams.
pub struct StdioTransport {
    lines: Framed<Io, LinesCodec>,
}

impl StdioTransport {
    /// A transport over these streams that takes lines of up to `max_bytes`.
    pub fn new(
        reader: impl AsyncRead + Send + Unpin + 'static,
        writer: impl AsyncWrite + Send + Unpin + 'static,
        max_bytes: usize,
    ) -> Self {
        let io = join(Box::new(reader) as Box<_>, Box::new(writer) as Box<_>);
        StdioTransport { lines: Framed::new(io, LinesCodec::new_with_max_length(max_bytes)) }
    }

    /// A transport over this process's standard input and output. What the process or its children print from then on
    /// goes to standard error, so that nothing but messages reaches the peer; where that cannot be arranged, as
    /// beside Unix, nothing else may print.
    pub fn from_std_streams(max_bytes: usize) -> Self {
        match take_standard_output() {
            Some(output) => StdioTransport::new(tokio::io::stdin(), output, max_bytes),
            None => StdioTransport::new(tokio::io::stdin(), tokio::io::stdout(), max_bytes),
        }
    }
}

/// Standard output as it was, for one owner; its number stands for standard error from now on.
#[cfg(unix)]
fn take_standard_output() -> Option<tokio::fs::File> {
    use std::io::Write;
    std::io::stdout().flush().ok()?;
    let taken = rustix::io::fcntl_dupfd_cloexec(std::io::stdout(), 3).ok()?;
    rustix::stdio::dup2_stdout(std::io::stderr()).ok()?;
    Some(std::fs::File::from(taken).into())
}

#[cfg(not(unix))]
fn take_standard_output() -> Option<tokio::io::Stdout> {
    None
}

impl Transport for StdioTransport {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Received, TransportError>>> {
        loop {
            return Poll::Ready(match ready!(Pin::new(&mut self.lines).poll_next(cx)) {
                // Blank lines are tolerated; the codec has taken a trailing `\r` already.
                Some(Ok(line)) if line.trim().is_empty() => continue,
                Some(Ok(line)) => Some(Ok(Received::Frame(line.into()))),
                Some(Err(LinesCodecError::MaxLineLengthExceeded)) => Some(Ok(Received::Oversize)),
                Some(Err(error)) => Some(Err(TransportError::new(error))),
                None => None,
            });
        }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Sink::<&str>::poll_ready(Pin::new(&mut self.lines), cx).map_err(TransportError::new)
    }

    fn start_send(&mut self, frame: Bytes) -> Result<(), TransportError> {
        let line = std::str::from_utf8(&frame).map_err(TransportError::new)?;
        Pin::new(&mut self.lines).start_send(line).map_err(TransportError::new)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Sink::<&str>::poll_flush(Pin::new(&mut self.lines), cx).map_err(TransportError::new)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Sink::<&str>::poll_close(Pin::new(&mut self.lines), cx).map(|_| ())
    }

    fn is_private(&self) -> bool {
        true
    }
}
