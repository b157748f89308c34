//! A WebSocket listener: path, host and TLS are settled before a transport is handed on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsStream};
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

use crate::error::TransportError;
use crate::span::say;
use crate::transport::Wire;
use crate::transport::{Transport, WebSocketTransport, websocket_config};

/// How to listen.
#[derive(Clone)]
pub struct ListenOptions {
    /// `127.0.0.1`.
    pub host: String,
    /// 7777; 0 takes a free one.
    pub port: u16,
    /// `/arcp`.
    pub path: String,
    /// Names a `Host` header may carry, without port. `None`: the loopback names on a loopback address, else any.
    pub allowed_hosts: Option<Vec<String>>,
    /// Serves `wss://`.
    pub tls: Option<Arc<ServerConfig>>,
    /// The largest message taken; 16 MiB.
    pub max_message_bytes: usize,
}

impl Default for ListenOptions {
    fn default() -> Self {
        ListenOptions {
            host: "127.0.0.1".into(),
            port: 7777,
            path: "/arcp".into(),
            allowed_hosts: None,
            tls: None,
            max_message_bytes: 16 << 20,
        }
    }
}

/// A running listener. Dropping it stops listening; accepted connections go on.
#[derive(Debug)]
pub struct Listener {
    address: SocketAddr,
    url: String,
    incoming: mpsc::Receiver<WebSocketTransport>,
    task: AbortHandle,
}

/// The TLS and upgrade handshakes of one connection have this long.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);

/// Accepted connections that wait to be taken.
const WAITING: usize = 128;

impl Listener {
    /// Binds and begins to accept.
    ///
    /// # Errors
    /// When the address cannot be bound; the sentence says why and what to do.
    pub async fn bind(options: ListenOptions) -> Result<Self, TransportError> {
        let ListenOptions { host, port, .. } = &options;
        let name = host.trim_start_matches('[').trim_end_matches(']');
        let listener = TcpListener::bind((name, *port)).await.map_err(|error| {
            let remedy = match error.kind() {
                std::io::ErrorKind::AddrInUse => "; the port is in use: choose another, or 0 for a free one",
                std::io::ErrorKind::PermissionDenied => "; choose a port above 1023",
                _ => "",
            };
            TransportError(format!("cannot listen on {host}:{port}: {error}{remedy}"))
        })?;
        let address = listener.local_addr().map_err(TransportError::new)?;
        let scheme = if options.tls.is_some() { "wss" } else { "ws" };
        let shown = if name.contains(':') { format!("[{name}]") } else { name.to_owned() };
        let url = format!("{scheme}://{shown}:{}{}", address.port(), options.path);
        let (sender, incoming) = mpsc::channel(WAITING);
        let gate = Arc::new(Gate::new(&options, name, address));
        let task = tokio::spawn(accept_all(listener, gate, sender)).abort_handle();
        Ok(Listener { address, url, incoming, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What a client connects to.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The next connection; `None` once the listener is closed.
    pub async fn accept(&mut self) -> Option<impl Transport + use<>> {
        self.incoming.recv().await
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept_all(listener: TcpListener, gate: Arc<Gate>, sender: mpsc::Sender<WebSocketTransport>) {
    loop {
        match listener.accept().await {
            Ok((tcp, _)) => {
                let (gate, sender) = (Arc::clone(&gate), sender.clone());
                tokio::spawn(async move {
                    match timeout(UPGRADE_TIMEOUT, gate.upgrade(tcp)).await {
                        Ok(Ok(transport)) => drop(sender.send(transport).await),
                        Ok(Err(error)) => say(|| tracing::debug!(%error, "a connection was not upgraded")),
                        Err(_) => say(|| tracing::debug!("a connection did not upgrade in time")),
                    }
                });
            }
            Err(error) => {
                // Out of descriptors, most often: others must close first.
                say(|| tracing::warn!(%error, "cannot accept a connection"));
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        if sender.is_closed() {
            return;
        }
    }
}

/// What a connection must show before it is upgraded.
struct Gate {
    path: String,
    hosts: Option<Vec<String>>,
    tls: Option<TlsAcceptor>,
    max_message_bytes: usize,
}

impl Gate {
    fn new(options: &ListenOptions, name: &str, address: SocketAddr) -> Self {
        let loopback = || ["localhost", "127.0.0.1", "::1", name].map(str::to_owned).to_vec();
        Gate {
            path: options.path.clone(),
            hosts: options.allowed_hosts.clone().or_else(|| address.ip().is_loopback().then(loopback)),
            tls: options.tls.clone().map(TlsAcceptor::from),
            max_message_bytes: options.max_message_bytes,
        }
    }

    async fn upgrade(&self, tcp: TcpStream) -> Result<WebSocketTransport, TransportError> {
        tcp.set_nodelay(true).map_err(TransportError::new)?;
        let wire = match &self.tls {
            None => Wire::Plain(tcp),
            Some(acceptor) => {
                let stream = acceptor.accept(tcp).await.map_err(TransportError::new)?;
                Wire::Tls(Box::new(TlsStream::Server(stream)))
            }
        };
        let config = websocket_config(self.max_message_bytes);
        #[allow(clippy::result_large_err, reason = "the type is the library's")]
        let check = |request: &Request, response: Response| self.check(request, response);
        let socket = tokio_tungstenite::accept_hdr_async_with_config(wire, check, Some(config))
            .await
            .map_err(TransportError::new)?;
        Ok(WebSocketTransport::new(socket))
    }

    #[allow(clippy::result_large_err, reason = "the type is the library's")]
    fn check(&self, request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
        if request.uri().path() != self.path {
            return Err(refusal(StatusCode::NOT_FOUND, "no ARCP endpoint at this path"));
        }
        let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
        let host = host_name(header("host").unwrap_or_default());
        if self.hosts.as_ref().is_some_and(|hosts| !hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(host))) {
            return Err(refusal(StatusCode::FORBIDDEN, "this Host is not allowed"));
        }
        let offered = header("sec-websocket-protocol").unwrap_or_default();
        if let Some(known) =
            ["arcp.v1.1", "arcp"].into_iter().find(|known| offered.split(',').any(|o| o.trim() == *known))
        {
            response.headers_mut().insert("sec-websocket-protocol", http::HeaderValue::from_static(known));
        }
        Ok(response)
    }
}

/// The name in a `Host` header: without port, and without the brackets of an IPv6 literal.
fn host_name(header: &str) -> &str {
    match header.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => header.split(':').next().unwrap_or_default(),
    }
}

fn refusal(status: StatusCode, text: &str) -> ErrorResponse {
    let mut response = ErrorResponse::new(Some(text.to_owned()));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::host_name;

    #[test]
    fn a_host_is_read_without_port_and_brackets() {
        assert_eq!(host_name("localhost:7777"), "localhost");
        assert_eq!(host_name("[::1]:7777"), "::1");
        assert_eq!(host_name("example.com"), "example.com");
    }
}
