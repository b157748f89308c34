//! WebSocket: one text frame per message.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Sink, Stream};
use http::{HeaderName, HeaderValue, Uri};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{TlsConnector, TlsStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WsError, Message, Utf8Bytes};

use super::{AllowCleartext, Received, Reopen, Reopening, Transport, TransportError, tls};

/// What a WebSocket runs over.
pub(crate) enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// How to connect.
#[derive(Clone, Default)]
pub struct ConnectOptions {
    /// Sent with the upgrade request.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// For `wss`; default [`tls::client_config`] without extra certificates.
    pub tls: Option<Arc<ClientConfig>>,
    /// The largest message taken; 16 MiB.
    pub max_message_bytes: Option<usize>,
    /// For the whole of name lookup, connection, TLS and upgrade; 10 s.
    pub timeout: Option<Duration>,
    /// For `ws` to another machine; a warning.
    pub allow_cleartext: AllowCleartext,
}

/// One WebSocket, client or server side.
pub struct WebSocketTransport {
    socket: WebSocketStream<Wire>,
    /// On the client's side, how it was made.
    address: Option<Arc<Address>>,
}

/// All it takes to connect again (D-24). Headers and URL may hold secrets, so it is not shown.
struct Address {
    url: String,
    options: ConnectOptions,
}

impl Reopen for Address {
    fn reopen(&self) -> Reopening<'_> {
        Box::pin(async {
            let transport = WebSocketTransport::connect(&self.url, self.options.clone()).await?;
            Ok(Box::new(transport) as Box<dyn Transport>)
        })
    }
}

/// Small buffers: an idle session costs little, and batching happens before the socket.
pub fn websocket_config(max_message_bytes: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(8 << 10)
        .write_buffer_size(8 << 10)
        .max_message_size(Some(max_message_bytes))
        .max_frame_size(Some(max_message_bytes))
}

impl WebSocketTransport {
    /// Connects to a `ws://` or `wss://` address.
    ///
    /// # Errors
    /// One sentence that names the address and what is wrong with it or with the answer.
    pub async fn connect(url: &str, options: ConnectOptions) -> Result<Self, TransportError> {
        let wait = options.timeout.unwrap_or(Duration::from_secs(10));
        let why = match timeout(wait, open(url, &options)).await {
            Ok(Ok(socket)) => {
                let address = Some(Arc::new(Address { url: url.to_owned(), options }));
                return Ok(WebSocketTransport { socket, address });
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", wait.as_secs()),
        };
        Err(TransportError(format!("cannot connect to {}: {why}", without_secrets(url))))
    }

    /// Wraps a socket whose upgrade is done.
    pub(crate) fn new(socket: WebSocketStream<Wire>) -> Self {
        WebSocketTransport { socket, address: None }
    }
}

/// A URL as it may be shown: what stands before the host or behind the path can be a secret.
fn without_secrets(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
    let rest = rest.rsplit('@').next().unwrap_or_default();
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    if scheme.is_empty() { rest.to_owned() } else { format!("{scheme}://{rest}") }
}

async fn open(url: &str, options: &ConnectOptions) -> Result<WebSocketStream<Wire>, TransportError> {
    let uri: Uri =
        url.parse().map_err(|error| TransportError(format!("not a URL ({error}); use ws://host:port/arcp")))?;
    let secure = match uri.scheme_str() {
        Some("ws") => false,
        Some("wss") => true,
        _ => return Err(TransportError::new("the URL must begin with ws:// or wss://")),
    };
    let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| TransportError::new("the URL has no host"))?;
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    if !secure {
        options.allow_cleartext.check(name)?;
    }
    let mut request = url.into_client_request().map_err(TransportError::new)?;
    request.headers_mut().extend(options.headers.iter().cloned());
    let tcp = TcpStream::connect((name, port)).await.map_err(TransportError::new)?;
    tcp.set_nodelay(true).map_err(TransportError::new)?;
    let wire = if secure {
        let config = options.tls.clone().map_or_else(|| tls::client_config(None), Ok)?;
        let name = ServerName::try_from(name.to_owned()).map_err(TransportError::new)?;
        let stream = TlsConnector::from(config).connect(name, tcp).await.map_err(TransportError::new)?;
        Wire::Tls(Box::new(TlsStream::Client(stream)))
    } else {
        Wire::Plain(tcp)
    };
    let config = websocket_config(options.max_message_bytes.unwrap_or(16 << 20));
    let (socket, _) = tokio_tungstenite::client_async_with_config(request, wire, Some(config)).await.map_err(
        |error| match error {
            WsError::Http(answer) => TransportError(format!("the server answered HTTP {}", answer.status())),
            other => TransportError::new(other),
        },
    )?;
    Ok(socket)
}

impl Transport for WebSocketTransport {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Received, TransportError>>> {
        loop {
            return Poll::Ready(match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(Message::Text(text))) => Some(Ok(Received::Frame(text.into()))),
                // Read as text if it is UTF-8; the codec refuses it otherwise.
                Some(Ok(Message::Binary(bytes))) => Some(Ok(Received::Frame(bytes))),
                Some(Ok(Message::Close(_))) | None => None,
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                Some(Err(WsError::Capacity(_))) => Some(Ok(Received::Oversize)),
                Some(Err(WsError::ConnectionClosed | WsError::AlreadyClosed)) => None,
                Some(Err(error)) => Some(Err(TransportError::new(error))),
            });
        }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Pin::new(&mut self.socket).poll_ready(cx).map_err(TransportError::new)
    }

    fn start_send(&mut self, frame: Bytes) -> Result<(), TransportError> {
        let text = Utf8Bytes::try_from(frame).map_err(TransportError::new)?;
        Pin::new(&mut self.socket).start_send(Message::Text(text)).map_err(TransportError::new)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(TransportError::new)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.socket).poll_close(cx).map(|_| ())
    }

    fn is_private(&self) -> bool {
        match self.socket.get_ref() {
            Wire::Tls(_) => true,
            Wire::Plain(stream) => stream.peer_addr().is_ok_and(|peer| peer.ip().to_canonical().is_loopback()),
        }
    }

    fn reopener(&self) -> Option<Arc<dyn Reopen>> {
        let address = self.address.as_ref()?;
        Some(Arc::clone(address) as Arc<dyn Reopen>)
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Wire::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Wire::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Wire::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Wire::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::without_secrets;

    #[test]
    fn an_address_is_shown_without_what_may_be_secret() {
        assert_eq!(without_secrets("ws://user:pass@host:1/arcp?token=x#y"), "ws://host:1/arcp");
        assert_eq!(without_secrets("wss://[::1]:7777/arcp"), "wss://[::1]:7777/arcp");
        assert_eq!(without_secrets("not a url?x"), "not a url");
        assert_eq!(without_secrets("me:secret@host/arcp"), "host/arcp");
        assert_eq!(without_secrets("ws://me:sec?ret@host/arcp"), "ws://host/arcp");
    }
}
