//! One connection after its handshake: frames out with a time limit, messages in.

use std::borrow::Cow;
use std::future::Future;
use std::time::Duration;

use bytes::Buf;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use super::frame::SharedFrame;

/// The largest message a client may send; the largest sensible one is a token.
pub(super) const MAX_MESSAGE: usize = 64 << 10;

/// Small, since most sockets are idle most of the time.
const BUFFER: usize = 4 << 10;

/// What answers to pings may pile up to when the client reads nothing.
const MAX_WRITE_BUFFER: usize = 64 << 10;

/// A socket that takes a long frame has a second more for each of these.
const SLOWEST_BYTES_PER_SECOND: u64 = 64 << 10;

/// How long a close frame may take to be sent and answered.
const CLOSING: Duration = Duration::from_secs(2);

/// What came in.
#[derive(Debug)]
pub(super) enum Received {
    /// A message; a binary one counts as text.
    Text(Utf8Bytes),
    /// A ping or pong of the protocol; the library has answered it.
    Control,
    /// The connection is over, or was closed by the client.
    Closed,
    /// The client broke the protocol: close with this.
    Broken(u16, &'static str),
}

/// Why nothing more can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    /// The connection broke.
    Lost,
    /// The client did not take a frame in time.
    TooSlow,
}

#[derive(Debug)]
pub(super) struct Wire<S> {
    socket: WebSocketStream<S>,
    patience: Duration,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Wire<S> {
    /// `patience`: how long a frame of ordinary size may take to be taken.
    pub(super) async fn new(stream: S, patience: Duration) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER)
            .write_buffer_size(BUFFER)
            .max_write_buffer_size(MAX_WRITE_BUFFER)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        Wire { socket: WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await, patience }
    }

    /// Sends a frame. The bytes go to the connection as they are, so a list of megabytes is held once for all sockets.
    pub(super) async fn send(&mut self, frame: &SharedFrame) -> Result<(), Gone> {
        let mut rest = frame.bytes().clone();
        let patience = self.patience + Duration::from_secs(rest.len() as u64 / SLOWEST_BYTES_PER_SECOND);
        match timeout(patience, self.write(&mut rest)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Gone::Lost),
            // A close frame can only follow a whole frame, so the rest has one last chance.
            Err(_) => match timeout(CLOSING, self.write(&mut rest)).await {
                Ok(Err(_)) => Err(Gone::Lost),
                _ if rest.has_remaining() => Err(Gone::Lost),
                _ => Err(Gone::TooSlow),
            },
        }
    }

    /// Writes what is left in `rest`; after a cancellation `rest` holds what was not written.
    async fn write(&mut self, rest: &mut bytes::Bytes) -> Result<(), Error> {
        // Pongs that wait in the library's buffer go first.
        self.socket.flush().await?;
        let stream = self.socket.get_mut();
        while rest.has_remaining() {
            if stream.write_buf(rest).await? == 0 {
                return Err(Error::ConnectionClosed);
            }
        }
        stream.flush().await?;
        Ok(())
    }

    /// The next message. Safe to cancel.
    pub(super) async fn receive(&mut self) -> Received {
        match self.socket.next().await {
            Some(Ok(Message::Text(text))) => Received::Text(text),
            Some(Ok(Message::Binary(bytes))) => match Utf8Bytes::try_from(bytes) {
                Ok(text) => Received::Text(text),
                Err(_) => Received::Broken(1007, "The message is not UTF-8"),
            },
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Received::Control,
            Some(Ok(Message::Close(_))) | None => Received::Closed,
            Some(Err(Error::Capacity(CapacityError::MessageTooLong { .. }))) => {
                Received::Broken(1009, "The message is longer than 64 KiB")
            }
            Some(Err(Error::Utf8(_))) => Received::Broken(1007, "The message is not UTF-8"),
            Some(Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake))) => Received::Closed,
            Some(Err(Error::Protocol(_))) => Received::Broken(1002, "Protocol error"),
            Some(Err(_)) => Received::Closed,
        }
    }

    /// Says why, and waits a little for the client's goodbye.
    pub(super) async fn close(mut self, code: u16, reason: Cow<'static, str>) {
        let frame = CloseFrame { code: CloseCode::from(code), reason: Utf8Bytes::from(reason.as_ref()) };
        within(CLOSING, async {
            if self.socket.close(Some(frame)).await.is_ok() {
                self.drain().await;
            }
        })
        .await;
    }

    /// Finishes a close that the client began: its answer is sent, then the connection ends.
    pub(super) async fn finish(mut self) {
        within(CLOSING, self.drain()).await;
    }

    async fn drain(&mut self) {
        while let Some(Ok(_)) = self.socket.next().await {}
    }
}

async fn within(limit: Duration, work: impl Future<Output = ()>) {
    // Over in time or not, nothing is left to do with the connection.
    timeout(limit, work).await.ok();
}
