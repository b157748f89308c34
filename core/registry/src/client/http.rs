//! The client's own connections: HTTP/1.1 with keep-alive, a bounded number at once.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::connect::Connector;
use super::transport::{HttpRequest, HttpResponse, Sending, Transport, TransportFault};

/// Connections at once; more requests wait.
const MAX_CONNECTIONS: usize = 100;

/// A connection idle for longer is not used again.
const IDLE: Duration = Duration::from_secs(60);

/// No answer may be longer: the whole list of a very large registry fits.
const MAX_BODY: usize = 256 << 20;

/// Connections to one registry.
pub(crate) struct HttpTransport {
    connector: Connector,
    idle: Mutex<Vec<Connection>>,
    slots: Semaphore,
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// As [`super::connect::Opened::through`].
    through: Option<Option<http::HeaderValue>>,
    since: Instant,
    used: bool,
}

impl HttpTransport {
    pub(crate) fn new(connector: Connector) -> Self {
        HttpTransport { connector, idle: Mutex::default(), slots: Semaphore::new(MAX_CONNECTIONS) }
    }

    pub(crate) fn connector(&self) -> &Connector {
        &self.connector
    }

    /// Closes the connections nobody uses.
    pub(crate) fn close_idle(&self) {
        drop(std::mem::take(&mut *self.idle.lock()));
    }

    async fn exchange(&self, request: &HttpRequest) -> Result<HttpResponse, TransportFault> {
        let late = |_| TransportFault::Timeout(format!("no answer within {} s", request.timeout.as_secs_f64()));
        tokio::time::timeout(request.timeout, async {
            // Closed never: the semaphore lives as long as this.
            let _slot = self.slots.acquire().await;
            let mut connection = self.connection().await?;
            let answer = self.ask(&mut connection, request).await?;
            if !connection.sender.is_closed() {
                connection.since = Instant::now();
                connection.used = true;
                self.idle.lock().push(connection);
            }
            Ok(answer)
        })
        .await
        .map_err(late)?
    }

    /// An idle connection that still stands, or a new one.
    async fn connection(&self) -> Result<Connection, TransportFault> {
        loop {
            let Some(mut idle) = self.idle.lock().pop() else { break };
            if idle.since.elapsed() < IDLE && idle.sender.ready().await.is_ok() {
                return Ok(idle);
            }
        }
        let opened = self.connector.open(false).await.map_err(|error| self.unreachable(&error))?;
        let (sender, connection) = http1::handshake(TokioIo::new(opened.stream))
            .await
            .map_err(|error| self.unreachable(&error.to_string()))?;
        tokio::spawn(async move {
            // What ends it is told to the request that runs over it.
            drop(connection.await);
        });
        Ok(Connection { sender, through: opened.through, since: Instant::now(), used: false })
    }

    fn unreachable(&self, error: &str) -> TransportFault {
        let origin = &self.connector.address().origin;
        TransportFault::Connect(format!("{origin}: {error}"))
    }

    async fn ask(&self, connection: &mut Connection, request: &HttpRequest) -> Result<HttpResponse, TransportFault> {
        let mut target = request.target();
        if connection.through.is_some() {
            target.insert_str(0, &request.origin);
        }
        let address = self.connector.address();
        let other =
            |error: &dyn std::fmt::Display| TransportFault::Other(format!("the request cannot be sent: {error}"));
        let mut message = http::Request::new(Full::new(request.body.clone().unwrap_or_default()));
        *message.method_mut() = request.method.clone();
        *message.uri_mut() = target.parse().map_err(|error| other(&error))?;
        *message.headers_mut() = request.headers.clone();
        let host = http::HeaderValue::from_str(&address.authority).map_err(|error| other(&error))?;
        message.headers_mut().insert(http::header::HOST, host);
        if let Some(Some(auth)) = &connection.through {
            message.headers_mut().insert(http::header::PROXY_AUTHORIZATION, auth.clone());
        }
        let answer = connection.sender.try_send_request(message).await.map_err(|mut failed| {
            if failed.take_message().is_some() {
                return TransportFault::Connect(format!("{}: the connection closed", address.origin));
            }
            let error = failed.into_error();
            TransportFault::Lost { message: reason(&error), stale: connection.used && error.is_incomplete_message() }
        })?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, MAX_BODY).collect().await.map_err(|error| {
            let lost = |error: &hyper::Error| TransportFault::Lost { message: reason(error), stale: false };
            error.downcast_ref::<hyper::Error>().map_or_else(
                || TransportFault::Other(format!("the answer is longer than {} MiB", MAX_BODY >> 20)),
                lost,
            )
        })?;
        Ok(HttpResponse { status: head.status.as_u16(), headers: head.headers, body: body.to_bytes() })
    }
}

/// A sentence for what broke a connection.
fn reason(error: &hyper::Error) -> String {
    let cut = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<std::io::Error>());
    let is_cut = cut.is_some_and(|cause| cause.kind() == std::io::ErrorKind::UnexpectedEof);
    if error.is_incomplete_message() || is_cut {
        return "the registry closed the connection before its answer was complete".into();
    }
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{error}{cause}")
}

impl Transport for HttpTransport {
    fn send<'a>(&'a self, request: &'a HttpRequest) -> Sending<'a> {
        Box::pin(self.exchange(request))
    }
}
