//! The live sockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arcp_registry::client::{FailureKind, RegistryClient, RegistryOptions, RegistrySocket, SocketKind, SocketOptions};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use super::server::{Reply, Server, ok};
use super::{client, member, options};

type Peer = WebSocketStream<TcpStream>;

/// Serves each connection with `serve`, which is told how many came before; gives the base URL and the frames received.
async fn peer<F, T>(serve: F) -> (String, mpsc::UnboundedReceiver<Message>)
where
    F: Fn(Peer, usize, mpsc::UnboundedSender<Message>) -> T + Send + Sync + 'static,
    T: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (seen, frames) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let count = AtomicUsize::new(0);
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(socket) = tokio_tungstenite::accept_async(stream).await else { continue };
            tokio::spawn(serve(socket, count.fetch_add(1, Ordering::Relaxed), seen.clone()));
        }
    });
    (url, frames)
}

/// Passes on every frame until the end.
async fn listen(mut socket: Peer, seen: &mpsc::UnboundedSender<Message>) {
    while let Some(Ok(message)) = socket.next().await {
        drop(seen.send(message));
    }
}

async fn say(socket: &mut Peer, text: &str) {
    // Tests that end early close the other side.
    drop(socket.send(Message::text(text)).await);
}

async fn hear(frames: &mut mpsc::UnboundedReceiver<Message>) -> Message {
    tokio::time::timeout(Duration::from_secs(5), frames.recv()).await.unwrap().unwrap()
}

async fn next(socket: &RegistrySocket) -> Option<Result<Value, arcp_registry::client::RegistryError>> {
    let next = tokio::time::timeout(Duration::from_secs(5), socket.next()).await.unwrap()?;
    Some(next.map(|text| serde_json::from_str(&text).unwrap()))
}

fn open(client: &RegistryClient, kind: SocketKind) -> RegistrySocket {
    client.open_socket(kind, SocketOptions::default()).unwrap()
}

/// Rules: REG-055
#[tokio::test]
async fn a_public_socket_asks_for_the_first_page_and_answers_pings() {
    let (url, mut frames) = peer(async |mut socket, _, seen| {
        for text in ["ping", " PING ", "pong", "no json", r#"{"type":"welcome"}"#, "[1]"] {
            say(&mut socket, text).await;
        }
        listen(socket, &seen).await;
    })
    .await;
    let socket = open(&client(&url), SocketKind::Public);
    assert_eq!(next(&socket).await.unwrap().unwrap(), json!({"type": "welcome"}));
    assert_eq!(next(&socket).await.unwrap().unwrap(), json!([1]));
    let asked: Value = serde_json::from_str(hear(&mut frames).await.to_text().unwrap()).unwrap();
    assert_eq!(asked, json!({"type": "get_discovery", "page": 1, "page_size": 50}));
    assert_eq!(hear(&mut frames).await, Message::text("pong"));
    assert_eq!(hear(&mut frames).await, Message::text("pong"));
    socket.send(r#"{"type":"ping"}"#.to_owned()).unwrap();
    assert_eq!(hear(&mut frames).await, Message::text(r#"{"type":"ping"}"#));
}

/// Rules: REG-056, REG-330
#[tokio::test]
async fn an_agent_s_socket_shows_its_token_and_begins_with_the_list() {
    let (url, mut frames) = peer(async |mut socket, _, seen| {
        say(&mut socket, r#"{"type":"auth_required","message":"Send your authentication token"}"#).await;
        drop(seen.send(socket.next().await.unwrap().unwrap()));
        say(&mut socket, r#"{"type":"auth_success","message":"Authentication successful"}"#).await;
        say(&mut socket, r#"[{"agent_id":"a-1"}]"#).await;
        listen(socket, &seen).await;
    })
    .await;
    let socket = open(&member(&url), SocketKind::Agent);
    assert_eq!(next(&socket).await.unwrap().unwrap(), json!([{"agent_id": "a-1"}]));
    assert_eq!(hear(&mut frames).await, Message::text(r#"{"token":"TOKEN"}"#));
}

/// Rules: REG-056, REG-331
#[tokio::test]
async fn a_refused_token_is_an_error_of_authentication() {
    let (url, _frames) = peer(async |mut socket, _, seen| {
        say(&mut socket, r#"{"type":"auth_required"}"#).await;
        say(&mut socket, r#"{"type":"auth_error","message":"Invalid token"}"#).await;
        listen(socket, &seen).await;
    })
    .await;
    let socket = open(&member(&url), SocketKind::Agent);
    let error = next(&socket).await.unwrap().unwrap_err();
    assert_eq!(error.kind, FailureKind::Authentication);
    assert_eq!(error.to_string(), "WebSocket connection failed: Invalid token");
    assert!(next(&socket).await.is_none(), "told once");
    let error = next(&open(&client(&url), SocketKind::Agent)).await.unwrap().unwrap_err();
    assert_eq!(error.kind, FailureKind::Authentication);
    assert!(error.to_string().contains("no token"), "{error}");
}

/// Rules: REG-340
#[tokio::test]
async fn a_dashboard_shows_its_token_first_and_hears_why_it_is_refused() {
    let (url, mut frames) = peer(async |mut socket, _, seen| {
        drop(seen.send(socket.next().await.unwrap().unwrap()));
        let reason = CloseFrame { code: 4003.into(), reason: "Admin role required".into() };
        drop(socket.close(Some(reason)).await);
    })
    .await;
    let socket = open(&member(&url), SocketKind::Dashboard);
    let error = next(&socket).await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "WebSocket connection failed: Admin role required");
    let shown: Value = serde_json::from_str(hear(&mut frames).await.to_text().unwrap()).unwrap();
    assert_eq!(shown, json!({"type": "auth", "token": "TOKEN"}));
}

/// Rules: REG-055
#[tokio::test]
async fn a_lost_socket_connects_again() {
    let (url, mut frames) = peer(async |mut socket, count, seen| {
        say(&mut socket, &json!({ "connection": count }).to_string()).await;
        let asked = socket.next().await.unwrap().unwrap();
        drop(seen.send(asked));
        // Each way of being lost: without a word, by a restart, over capacity.
        let code = [None, Some(1001), Some(1013)].get(count).copied().unwrap_or(None);
        match code {
            Some(code) => drop(socket.close(Some(CloseFrame { code: code.into(), reason: "".into() })).await),
            None if count == 0 => {}
            None => listen(socket, &seen).await,
        }
    })
    .await;
    let socket = open(&client(&url), SocketKind::Public);
    for connection in 0..4 {
        assert_eq!(next(&socket).await.unwrap().unwrap(), json!({ "connection": connection }));
        assert!(hear(&mut frames).await.to_text().unwrap().contains("get_discovery"));
    }
    let once = SocketOptions { reconnect: false, ..SocketOptions::default() };
    let (url, _frames) = peer(async |mut socket, _, _| say(&mut socket, "{}").await).await;
    let socket = client(&url).open_socket(SocketKind::Public, once).unwrap();
    next(&socket).await.unwrap().unwrap();
    assert_eq!(next(&socket).await.unwrap().unwrap_err().kind, FailureKind::Connection);
}

/// Rules: REG-055, REG-300
#[tokio::test]
async fn an_upgrade_that_is_refused_is_told() {
    let full = Server::script(vec![|| Reply::Json(403, json!({}))]).await;
    let error = next(&open(&client(&full.url), SocketKind::Public)).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("HTTP 403") && error.to_string().contains("as many sockets"), "{error}");
    assert_eq!((error.kind, full.asked().len()), (FailureKind::Connection, 4));
    let other = Server::script(vec![|| Reply::Json(404, json!({}))]).await;
    let error = next(&open(&client(&other.url), SocketKind::Public)).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("base_url"), "{error}");
    assert_eq!(other.lines(), ["GET /public/ws"]);
    let plain = Server::script(vec![|| ok(json!({}))]).await;
    let error = next(&open(&client(&plain.url), SocketKind::Public)).await.unwrap().unwrap_err();
    assert!(error.to_string().starts_with("WebSocket connection failed: the registry answered HTTP 200"), "{error}");
}

/// Rules: REG-060
#[tokio::test]
async fn closing_and_dropping_close_at_once() {
    let (url, mut frames) = peer(async |mut socket, _, seen| {
        say(&mut socket, "{}").await;
        listen(socket, &seen).await;
        // What ends the connection.
        drop(seen.send(Message::text("gone")));
    })
    .await;
    let client = client(&url);
    for dropped in [false, true] {
        let socket = open(&client, SocketKind::Public);
        next(&socket).await.unwrap().unwrap();
        hear(&mut frames).await;
        if dropped {
            drop(socket);
        } else {
            socket.close();
            assert!(next(&socket).await.is_none());
            assert!(socket.send("{}".into()).is_err() || next(&socket).await.is_none());
        }
        assert!(matches!(hear(&mut frames).await, Message::Close(_)));
        assert_eq!(hear(&mut frames).await, Message::text("gone"));
    }
}

#[tokio::test]
async fn a_reader_that_waits_is_told_when_the_socket_is_closed() {
    let (url, _frames) = peer(async |socket, _, seen| listen(socket, &seen).await).await;
    let socket = Arc::new(open(&client(&url), SocketKind::Public));
    let reader = {
        let socket = Arc::clone(&socket);
        tokio::spawn(async move { next(&socket).await })
    };
    tokio::task::yield_now().await;
    socket.close();
    assert!(reader.await.unwrap().is_none());
}

/// Rules: REG-060
#[tokio::test]
async fn a_slow_reader_loses_nothing_and_holds_little() {
    const MESSAGES: usize = 400;
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    let (url, _frames) = peer(move |mut socket, _, seen| {
        let counted = Arc::clone(&counted);
        async move {
            for number in 0..MESSAGES {
                say(&mut socket, &json!({"n": number, "filling": "x".repeat(100_000)}).to_string()).await;
                counted.fetch_add(1, Ordering::Relaxed);
            }
            listen(socket, &seen).await;
        }
    })
    .await;
    let few = SocketOptions { queue: 4, ..SocketOptions::default() };
    let socket = client(&url).open_socket(SocketKind::Public, few).unwrap();
    let mut before = usize::MAX;
    // Until the sender stands still.
    while before != sent.load(Ordering::Relaxed) || before == 0 {
        before = sent.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(before < MESSAGES, "{before}");
    for number in 0..MESSAGES {
        assert_eq!(next(&socket).await.unwrap().unwrap()["n"], number);
    }
}

#[tokio::test]
async fn a_registry_that_gives_no_sign_of_life_is_left() {
    let (url, _frames) = peer(async |mut socket, count, seen| {
        say(&mut socket, &json!({ "connection": count }).to_string()).await;
        if count == 0 {
            // Reads nothing, so it answers no ping either.
            std::future::pending::<()>().await;
        }
        listen(socket, &seen).await;
    })
    .await;
    let impatient = SocketOptions { silence: 0.05, ..SocketOptions::default() };
    let socket = client(&url).open_socket(SocketKind::Public, impatient).unwrap();
    assert_eq!(next(&socket).await.unwrap().unwrap(), json!({"connection": 0}));
    assert_eq!(next(&socket).await.unwrap().unwrap(), json!({"connection": 1}));
}

#[tokio::test]
async fn wrong_options_are_told() {
    let client = RegistryClient::new(RegistryOptions { ..options("http://localhost:1") });
    for (wrong, name) in [
        (SocketOptions { queue: 0, ..SocketOptions::default() }, "queue"),
        (SocketOptions { page_size: 101, ..SocketOptions::default() }, "page_size"),
        (SocketOptions { silence: f64::NAN, ..SocketOptions::default() }, "silence"),
    ] {
        let error = client.open_socket(SocketKind::Public, wrong).err().unwrap();
        assert!(error.to_string().contains(name), "{error}");
    }
}
