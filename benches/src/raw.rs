//! The limit: bare tokio-tungstenite with our buffers and TCP_NODELAY.

use std::time::Instant;

use arcp::transport::websocket_config;
use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, accept_async_with_config, client_async_with_config};

use crate::{rate, single_threaded};

/// The length of a typical event frame.
const FRAME: usize = 332;

async fn connect(address: std::net::SocketAddr) -> WebSocketStream<TcpStream> {
    let tcp = TcpStream::connect(address).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    client_async_with_config(format!("ws://{address}/"), tcp, Some(websocket_config(16 << 20))).await.unwrap().0
}

async fn accept(listener: TcpListener) -> WebSocketStream<TcpStream> {
    let (tcp, _) = listener.accept().await.unwrap();
    tcp.set_nodelay(true).unwrap();
    accept_async_with_config(tcp, Some(websocket_config(16 << 20))).await.unwrap()
}

/// Round trips per second of one frame between two threads.
pub(crate) fn ping_pong() -> f64 {
    let (server, client) = (single_threaded(), single_threaded());
    let listener = server.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    server.spawn(async move {
        let mut socket = accept(listener).await;
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() && socket.send(message).await.is_err() {
                return;
            }
        }
    });
    let task = client.spawn(async move {
        let mut socket = connect(address).await;
        let message = Message::text("x".repeat(FRAME));
        let start = Instant::now();
        let mut count = 0;
        while start.elapsed() < crate::RUN {
            socket.send(message.clone()).await.unwrap();
            socket.next().await.unwrap().unwrap();
            count += 1;
        }
        rate(count, start.elapsed())
    });
    client.block_on(task).unwrap()
}

/// Frames one way per second, as many as fit.
pub(crate) fn stream() -> f64 {
    let (server, client) = (single_threaded(), single_threaded());
    let listener = server.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    server.spawn(async move {
        let mut socket = accept(listener).await;
        let message = Message::text("x".repeat(FRAME));
        loop {
            for _ in 0..256 {
                if socket.feed(message.clone()).await.is_err() {
                    return;
                }
            }
            if socket.flush().await.is_err() {
                return;
            }
        }
    });
    let task = client.spawn(async move {
        let mut socket = connect(address).await;
        let start = Instant::now();
        let mut count = 0;
        while start.elapsed() < crate::RUN {
            socket.next().await.unwrap().unwrap();
            count += 1;
        }
        rate(count, start.elapsed())
    });
    client.block_on(task).unwrap()
}
