//! What carries one request and brings its answer.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};

/// One request. Headers and body may hold secrets, so nothing here has a `Debug`.
#[derive(Clone)]
pub struct HttpRequest {
    /// The method.
    pub method: Method,
    /// Scheme, host and port, without a slash at the end.
    pub origin: String,
    /// The path, encoded, with the prefix of the base URL (REG-014).
    pub path: String,
    /// Names and texts, not encoded; a list is a repeated name (REG-025).
    pub query: Vec<(String, String)>,
    /// Without `Host`, `Content-Length` and what belongs to a connection.
    pub headers: HeaderMap,
    /// JSON text.
    pub body: Option<Bytes>,
    /// How long the answer is waited for.
    pub timeout: Duration,
}

impl HttpRequest {
    /// Path and query as they stand in a request line.
    pub fn target(&self) -> String {
        if self.query.is_empty() {
            return self.path.clone();
        }
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(&self.query);
        format!("{}?{}", self.path, query.finish())
    }
}

/// One answer.
pub struct HttpResponse {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransportFault {
    /// No connection: surely nothing was sent.
    Connect(String),
    /// No answer in time.
    Timeout(String),
    /// The connection broke. `stale` when it had carried requests before and broke without a byte of this answer, as one
    /// does that the server closes while it lies idle.
    Lost {
        /// What is known of it.
        message: String,
        /// See above.
        stale: bool,
    },
    /// Anything else; trying again would not help.
    Other(String),
}

impl fmt::Display for TransportFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TransportFault::Connect(message) => write!(f, "Connection failed: {message}"),
            TransportFault::Timeout(message) => write!(f, "Request timed out: {message}"),
            TransportFault::Lost { message, .. } => write!(f, "Connection lost: {message}"),
            TransportFault::Other(message) => f.write_str(message),
        }
    }
}

/// What [`Transport::send`] returns.
pub type Sending<'a> = Pin<Box<dyn Future<Output = Result<HttpResponse, TransportFault>> + Send + 'a>>;

/// Carries requests: the client's own connections, or an object of a host (D-11). Retries, tokens and errors are the
/// client's, whatever carries.
pub trait Transport: Send + Sync {
    /// Sends a request once. Dropping the future gives the request up.
    fn send<'a>(&'a self, request: &'a HttpRequest) -> Sending<'a>;
}
