//! What operators and orchestrators ask over HTTP: `/metrics`, `/health`, `/ready` (D-39).

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arcp_proto::machine::stats::RuntimeStats;
use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::error::TransportError;
use crate::metrics::{self, CommitHistogram};
use crate::span::say;

/// What a [`Monitor`] looks at.
pub trait Observed: Send + Sync + 'static {
    /// The figures of this moment. Must not block for long.
    fn stats(&self) -> RuntimeStats;

    /// How long commits took so far.
    fn commits(&self) -> CommitHistogram {
        CommitHistogram::default()
    }

    /// Whether new work is taken.
    ///
    /// # Errors
    /// Why it is not, in words for an operator: no secret, no payload.
    fn ready(&self) -> Result<(), String>;
}

/// Serves `/metrics` (Prometheus), `/health` (200 while the process runs) and `/ready` (200, or 503 with a reason) over
/// plain HTTP. Dropping it stops it.
#[derive(Debug)]
pub struct Monitor {
    address: SocketAddr,
    task: AbortHandle,
}

/// What one peer may take.
#[derive(Clone, Copy)]
struct Bounds {
    /// Request line and headers, in bytes.
    header_bytes: usize,
    /// The whole connection, which carries one request.
    time: Duration,
    /// Connections at once; others wait to be accepted.
    connections: usize,
}

const BOUNDS: Bounds = Bounds { header_bytes: 8192, time: Duration::from_secs(10), connections: 32 };

impl Monitor {
    /// Listens at `HOST:PORT` (IPv6 in brackets; port 0 takes a free one), for whoever can reach it: nothing secret is
    /// shown, but an address of the outside world is seldom wanted.
    ///
    /// # Errors
    /// When the address cannot be bound; the sentence says why and what to do.
    pub async fn bind(address: &str, observed: Arc<dyn Observed>) -> Result<Self, TransportError> {
        Monitor::bind_within(BOUNDS, address, observed).await
    }

    async fn bind_within(bounds: Bounds, address: &str, observed: Arc<dyn Observed>) -> Result<Self, TransportError> {
        let cannot = |error: std::io::Error| {
            let remedy = match error.kind() {
                std::io::ErrorKind::AddrInUse => "; the port is in use: choose another, or 0 for a free one",
                std::io::ErrorKind::PermissionDenied => "; choose a port above 1023",
                _ => "",
            };
            TransportError(format!("cannot serve metrics on {address}: {error}{remedy}"))
        };
        let listener = TcpListener::bind(address).await.map_err(cannot)?;
        let bound = listener.local_addr().map_err(cannot)?;
        let task = tokio::spawn(accept_all(listener, observed, bounds)).abort_handle();
        Ok(Monitor { address: bound, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What Prometheus is told to scrape.
    pub fn metrics_url(&self) -> String {
        format!("http://{}/metrics", self.address)
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept_all(listener: TcpListener, observed: Arc<dyn Observed>, bounds: Bounds) {
    let places = Arc::new(Semaphore::new(bounds.connections));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((tcp, _)) => {
                let observed = Arc::clone(&observed);
                tokio::spawn(async move {
                    // Whatever goes wrong in here is the peer's own matter.
                    drop(timeout(bounds.time, serve(tcp, observed, bounds)).await);
                    drop(place);
                });
            }
            Err(error) => {
                // Out of descriptors, most often: others must close first.
                say(|| tracing::warn!(%error, "cannot accept a connection for metrics"));
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve(tcp: TcpStream, observed: Arc<dyn Observed>, bounds: Bounds) -> Result<(), hyper::Error> {
    let service = service_fn(|request| {
        let response = respond(&request, &*observed);
        async { Ok::<_, Infallible>(response) }
    });
    http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(bounds.header_bytes.max(8192))
        .max_header_size(bounds.header_bytes)
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.time)
        .serve_connection(TokioIo::new(tcp), service)
        .await
}

fn respond<B>(request: &Request<B>, observed: &dyn Observed) -> Response<Full<Bytes>> {
    const TEXT: &str = "text/plain; charset=utf-8";
    const JSON: &str = "application/json";
    let path = request.uri().path();
    let known = ["/metrics", "/health", "/ready"].contains(&path);
    let (status, kind, body) = match path {
        _ if !known => (StatusCode::NOT_FOUND, TEXT, "there are /metrics, /health and /ready\n".to_owned()),
        _ if !matches!(*request.method(), Method::GET | Method::HEAD) => {
            (StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n".to_owned())
        }
        "/metrics" => match metrics::render(observed.stats(), observed.commits()) {
            Ok(text) => (StatusCode::OK, metrics::CONTENT_TYPE, text),
            Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, TEXT, "the figures cannot be written\n".to_owned()),
        },
        "/health" => (StatusCode::OK, JSON, "{\"healthy\":true}\n".to_owned()),
        _ => match observed.ready() {
            Ok(()) => (StatusCode::OK, JSON, "{\"ready\":true}\n".to_owned()),
            Err(reason) => {
                let body = serde_json::json!({"ready": false, "reason": reason}).to_string() + "\n";
                (StatusCode::SERVICE_UNAVAILABLE, JSON, body)
            }
        },
    };
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// No wait of a test is longer.
    const BOUND: Duration = Duration::from_secs(20);

    #[derive(Default)]
    struct Fake {
        fault: Mutex<Option<String>>,
    }

    impl Observed for Fake {
        fn stats(&self) -> RuntimeStats {
            RuntimeStats { jobs_running: 7, ..RuntimeStats::default() }
        }

        fn ready(&self) -> Result<(), String> {
            self.fault.lock().clone().map_or(Ok(()), Err)
        }
    }

    async fn monitor(bounds: Bounds) -> (Monitor, Arc<Fake>) {
        let fake = Arc::new(Fake::default());
        (Monitor::bind_within(bounds, "127.0.0.1:0", fake.clone()).await.unwrap(), fake)
    }

    async fn whole(mut tcp: TcpStream) -> String {
        let mut text = Vec::new();
        // A peer that was cut off may see a reset.
        drop(timeout(BOUND, tcp.read_to_end(&mut text)).await.unwrap());
        String::from_utf8(text).unwrap()
    }

    async fn ask(monitor: &Monitor, request: &str) -> String {
        let mut tcp = TcpStream::connect(monitor.address()).await.unwrap();
        // The answer may come before all of it is taken.
        drop(tcp.write_all(request.as_bytes()).await);
        whole(tcp).await
    }

    async fn get(monitor: &Monitor, path: &str) -> String {
        ask(monitor, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await
    }

    #[tokio::test]
    async fn figures_health_and_readiness_are_served() {
        let (monitor, fake) = monitor(BOUNDS).await;
        let metrics = get(&monitor, "/metrics?x=1").await;
        assert!(metrics.starts_with("HTTP/1.1 200 ") && metrics.contains("application/openmetrics-text"), "{metrics}");
        assert!(metrics.contains("\narcp_jobs{state=\"running\"} 7\n") && metrics.ends_with("# EOF\n"), "{metrics}");
        assert!(get(&monitor, "/health").await.starts_with("HTTP/1.1 200 "));
        assert!(get(&monitor, "/ready").await.ends_with("\r\n\r\n{\"ready\":true}\n"));
        *fake.fault.lock() = Some("the disk is \"full\"".into());
        let ready = get(&monitor, "/ready").await;
        assert!(ready.starts_with("HTTP/1.1 503 "), "{ready}");
        assert!(ready.ends_with("{\"ready\":false,\"reason\":\"the disk is \\\"full\\\"\"}\n"), "{ready}");
        assert!(get(&monitor, "/health").await.starts_with("HTTP/1.1 200 "));
    }

    #[tokio::test]
    async fn other_paths_methods_and_texts_are_refused() {
        let (monitor, _) = monitor(BOUNDS).await;
        assert!(get(&monitor, "/").await.starts_with("HTTP/1.1 404 "));
        let post = ask(&monitor, "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello").await;
        assert!(post.starts_with("HTTP/1.1 405 ") && post.contains("allow: GET, HEAD"), "{post}");
        let head = ask(&monitor, "HEAD /health HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
        assert!(ask(&monitor, "what is this\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
    }

    #[tokio::test]
    async fn an_endless_header_is_cut_off() {
        let (monitor, _) = monitor(BOUNDS).await;
        for request in [
            format!("GET /metrics HTTP/1.1\r\nX: {}", "a".repeat(20_000)),
            format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(20_000)),
        ] {
            let answer = ask(&monitor, &request).await;
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
        }
        assert!(get(&monitor, "/health").await.starts_with("HTTP/1.1 200 "));
    }

    #[tokio::test]
    async fn a_silent_peer_is_cut_off_and_gives_its_place_to_the_next() {
        let bounds = Bounds { time: Duration::from_millis(200), connections: 1, ..BOUNDS };
        let (monitor, _) = monitor(bounds).await;
        let mut silent = TcpStream::connect(monitor.address()).await.unwrap();
        silent.write_all(b"GET /metrics HTTP/1.1\r\n").await.unwrap();
        // The only place is taken until then.
        assert!(get(&monitor, "/health").await.starts_with("HTTP/1.1 200 "));
        assert!(!whole(silent).await.contains(" 200 "));
    }

    #[tokio::test]
    async fn a_taken_address_is_refused_with_the_remedy() {
        let (first, _) = monitor(BOUNDS).await;
        let address = first.address().to_string();
        let error = Monitor::bind(&address, Arc::new(Fake::default())).await.unwrap_err();
        assert!(error.0.contains(&address) && error.0.contains("choose another"), "{error}");
    }
}
