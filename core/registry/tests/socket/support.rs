//! A server that has nothing but sockets, and a client that says what it saw.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arcp_registry::directory::{Caller, Moment};
use arcp_registry::model::Registration;
use arcp_registry::search::SearchEngine;
use arcp_registry::server::auth::{Auth, Claims, Role};
use arcp_registry::server::config::{Config, Secret, SocketSettings, Sources};
use arcp_registry::server::dashboard::{Dashboard, Embedding};
use arcp_registry::server::metrics::Metrics;
use arcp_registry::server::socket::{Kind, Limits, Sockets};
use arcp_registry::service::{Clock, Service, ServiceConfig};
use arcp_store::registry::{MemoryRegistryStore, RegistryStore};
use futures_util::{SinkExt, StreamExt};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::Role as WireRole;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// Nothing takes longer unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A clock that tests move.
#[derive(Clone)]
pub(crate) struct HandClock(Arc<Mutex<Moment>>);

impl HandClock {
    fn new() -> Self {
        let start = Moment { mono: Duration::from_secs(1000), wall: "2026-11-20T15:35:10.945067Z".parse().unwrap() };
        HandClock(Arc::new(Mutex::new(start)))
    }

    pub(crate) fn forward(&self, by: Duration) {
        let mut now = self.0.lock();
        now.mono += by;
        now.wall += by;
    }
}

impl Clock for HandClock {
    fn now(&self) -> Moment {
        *self.0.lock()
    }
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) sockets: Sockets,
    pub(crate) service: Service,
    pub(crate) auth: Arc<Auth>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) dashboard: Dashboard,
    pub(crate) clock: HandClock,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

fn config() -> Config {
    let mut config = Config::dev();
    // Nobody logs in here, and hashing takes its time.
    config.admin = None;
    config
}

/// All far away, so that a test sees only what it shortens.
pub(crate) fn calm() -> Limits {
    let calm = SocketSettings {
        interval: Duration::from_secs(600),
        timeout: Duration::from_secs(30),
        ping_interval: Duration::from_secs(600),
        max_connections: 100,
    };
    Limits { public: calm, agents: calm, dashboard: calm }
}

/// Limits as the settings of the environment make them (REG-504).
pub(crate) fn from_environment(variables: &[(&str, &str)]) -> Limits {
    let env = variables.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(*value))).collect();
    let (config, errors) = Config::examine(&Sources { env, dev: true, ..Sources::default() });
    assert_eq!(errors, Vec::<String>::new());
    Limits::from(&config)
}

impl Server {
    pub(crate) async fn start(limits: Limits) -> Server {
        Self::with_store(limits, Arc::new(MemoryRegistryStore::new())).await
    }

    pub(crate) async fn with_store(limits: Limits, store: Arc<dyn RegistryStore>) -> Server {
        let (config, clock) = (config(), HandClock::new());
        let (settings, search) = (ServiceConfig::default(), SearchEngine::new());
        let service = Service::open_with_clock(settings, store, search, Box::new(clock.clone())).unwrap();
        let kept = service.take_kept();
        let auth = Arc::new(Auth::new(&config, &service, &kept).unwrap());
        let metrics = Arc::new(Metrics::new(&config, "0.0.0"));
        let dashboard = Dashboard::restored((&config).into(), service.clone(), &kept);
        let embedding = Arc::new(|| Embedding::Local);
        let sockets = Sockets::new(
            limits,
            service.clone(),
            Arc::clone(&auth),
            Arc::clone(&metrics),
            dashboard.clone(),
            embedding,
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let follower = sockets.clone();
        let tasks =
            vec![tokio::spawn(async move { follower.run().await }), tokio::spawn(listen(listener, sockets.clone()))];
        Server { address, sockets, service, auth, metrics, dashboard, clock, tasks }
    }

    pub(crate) async fn register(&self, agent_id: &str, agent_type: &str) {
        self.register_with(agent_id, agent_type, json!({"framework": "fastapi"})).await;
    }

    pub(crate) async fn register_with(&self, agent_id: &str, agent_type: &str, metadata: Value) {
        let registration = json!({
            "agent_id": agent_id, "name": agent_id, "agent_type": agent_type,
            "endpoint": "http://127.0.0.1:9978/ok", "capabilities": ["echo", "compute"],
            "context_brief": "An agent of the tests", "version": "1.0.0", "owner": "Tests",
            "public_key": "test-public-key-0123456789abcdef-ok", "metadata": metadata, "communication_mode": "remote",
        });
        self.service.register(&admin(), Registration::check(&registration).unwrap()).await.unwrap();
    }

    pub(crate) async fn unregister(&self, agent_id: &str) {
        self.service.unregister(&admin(), agent_id).await.unwrap();
    }

    pub(crate) fn token(&self, claims: &Claims) -> String {
        self.auth.tokens.issue(claims, Auth::now(), Duration::from_secs(600)).unwrap()
    }

    pub(crate) fn admin_token(&self) -> String {
        self.auth.begin_session("ARCP", "fingerprint").unwrap()
    }

    pub(crate) fn user_token(&self) -> String {
        self.token(&Claims::new("somebody", "user_somebody", Role::User))
    }

    pub(crate) async fn connect(&self, path: &str) -> Client {
        self.try_connect(path).await.unwrap()
    }

    /// The status of a refusal.
    pub(crate) async fn try_connect(&self, path: &str) -> Result<Client, u16> {
        match tokio_tungstenite::connect_async(format!("ws://{}{path}", self.address)).await {
            Ok((socket, _)) => Ok(Client { socket }),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    /// An authenticated agent socket that has its first list.
    pub(crate) async fn agent(&self) -> Client {
        let mut client = self.connect("/agents/ws").await;
        assert_eq!(client.json().await["type"], "auth_required");
        client.say(&json!({"token": self.token(&Claims::of_agent("a-1"))}).to_string()).await;
        assert_eq!(client.json().await["type"], "auth_success");
        assert!(client.json().await.is_array());
        client
    }

    /// An authenticated dashboard socket whose first frames were read, up to the logs.
    pub(crate) async fn dashboard(&self) -> Client {
        let mut client = self.connect("/dashboard/ws").await;
        client.say(&json!({"type": "auth", "token": self.admin_token()}).to_string()).await;
        client.until("logs").await;
        client
    }

    /// Waits until so many sockets are open.
    pub(crate) async fn settled(&self, live: usize) {
        let all = async {
            while self.sockets.live() != live || self.metrics.sockets() != live as i64 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = timeout(PATIENCE, all).await;
        assert!(waited.is_ok(), "{} sockets are open, not {live}", self.sockets.live());
    }
}

pub(crate) fn admin() -> Caller {
    Caller::Admin { user: "ARCP".into() }
}

async fn listen(listener: TcpListener, sockets: Sockets) {
    loop {
        let (tcp, peer) = listener.accept().await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let sockets = sockets.clone();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let kind = match request.uri().path() {
                    "/public/ws" => Kind::Public,
                    "/agents/ws" => Kind::Agents,
                    _ => Kind::Dashboard,
                };
                let answer = sockets.accept(kind, peer.ip(), request);
                async move { Ok::<_, std::convert::Infallible>(answer) }
            });
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tcp), service);
            connection.with_upgrades().await.ok();
        });
    }
}

pub(crate) struct Client {
    pub(crate) socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

/// What a client saw.
#[derive(Debug, PartialEq)]
pub(crate) enum Seen {
    Text(String),
    Pong(Vec<u8>),
    Closed(Option<(u16, String)>),
}

impl Client {
    pub(crate) async fn say(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    pub(crate) async fn see(&mut self) -> Seen {
        let next = timeout(PATIENCE, self.socket.next()).await.unwrap_or_else(|_| panic!("nothing came"));
        match next {
            Some(Ok(Message::Text(text))) => Seen::Text(text.to_string()),
            Some(Ok(Message::Pong(bytes))) => Seen::Pong(bytes.to_vec()),
            Some(Ok(Message::Close(frame))) => {
                Seen::Closed(frame.map(|frame| (frame.code.into(), frame.reason.to_string())))
            }
            None | Some(Err(_)) => Seen::Closed(None),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn text(&mut self) -> String {
        match self.see().await {
            Seen::Text(text) => text,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn json(&mut self) -> Value {
        let text = self.text().await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    pub(crate) async fn close_code(&mut self) -> (u16, String) {
        match self.see().await {
            Seen::Closed(Some(close)) => close,
            other => panic!("{other:?}"),
        }
    }

    /// Skips messages up to one of a type, texts too.
    pub(crate) async fn until(&mut self, kind: &str) -> Value {
        loop {
            let text = self.text().await;
            if let Ok(value) = serde_json::from_str::<Value>(&text)
                && value["type"] == kind
            {
                return value;
            }
        }
    }

    /// The next message, or nothing within a time.
    pub(crate) async fn quiet(&mut self, time: Duration) -> Option<String> {
        match timeout(time, self.see()).await {
            Err(_) => None,
            Ok(Seen::Text(text)) => Some(text),
            Ok(other) => panic!("{other:?}"),
        }
    }
}

/// So many agents with long descriptions: about 50 KiB of list for each ten.
pub(crate) async fn fill(server: &Server, agents: usize) {
    for n in 0..agents {
        let metadata: Map<String, Value> = (0..6).map(|k| (format!("k{k}"), json!("x".repeat(900)))).collect();
        server.register_with(&format!("agent-{n}"), "testing", Value::Object(metadata)).await;
    }
}

/// One more change of the list.
pub(crate) async fn change(server: &Server) {
    server.register("changing", "testing").await;
    server.unregister("changing").await;
}

/// A connection that was upgraded by hand, so that a test decides when it reads, into a buffer so small that it is a slow
/// reader soon.
pub(crate) async fn raw(address: SocketAddr, path: &str) -> WebSocketStream<TcpStream> {
    let tcp = upgraded(address, path, Some(4096)).await;
    WebSocketStream::from_raw_socket(tcp, WireRole::Client, None).await
}

/// A connection after its handshake.
pub(crate) async fn upgraded(address: SocketAddr, path: &str, buffer: Option<u32>) -> TcpStream {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    if let Some(size) = buffer {
        socket.set_recv_buffer_size(size).unwrap();
    }
    let mut tcp = socket.connect(address).await.unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n\r\n"
    );
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tcp.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    tcp
}
