//! One change to many public sockets: the time until the last one has it.

use std::error::Error;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpStream;
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::http::{Link, Request};

/// What to do.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Task {
    /// Host and port.
    address: String,
    sockets: usize,
    /// Registrations, one change each.
    changes: Vec<Request>,
}

/// How a told change begins.
const CHANGE: &[u8] = br#"{"type":"agents_update""#;
/// Between changes: each is one of its own, not part of a burst that is told together.
const QUIET: Duration = Duration::from_millis(500);
/// The longest anyone waits.
const PATIENCE: Duration = Duration::from_secs(60);

/// Opens the sockets, makes the changes, and says when the last socket had each.
pub(crate) async fn run(task: Task) -> Result<String, Box<dyn Error>> {
    let config = WebSocketConfig::default().read_buffer_size(64 * 1024).write_buffer_size(4096).max_message_size(None);
    let mut sockets = Vec::with_capacity(task.sockets);
    for _ in 0..task.sockets {
        let stream = TcpStream::connect(&task.address).await?;
        let url = format!("ws://{}/public/ws", task.address);
        let (socket, _) = client_async_with_config(url, stream, Some(config)).await?;
        sockets.push(socket);
    }
    for socket in &mut sockets {
        // The greeting.
        socket.next().await.ok_or("a socket was closed")??;
    }
    let mut link = Link::open(&task.address).await?;
    let mut took = Vec::new();
    for change in &task.changes {
        tokio::time::sleep(QUIET).await;
        let request = change.bytes(&task.address);
        let started = Instant::now();
        let mut waiting: FuturesUnordered<_> = sockets
            .iter_mut()
            .map(|socket| async move {
                loop {
                    match socket.next().await {
                        // Its type stands first; to look through the whole list would be most of the work.
                        Some(Ok(Message::Text(text))) if text.as_bytes().starts_with(CHANGE) => return Ok(()),
                        Some(Ok(_)) => {}
                        Some(Err(error)) => return Err(error.to_string()),
                        None => return Err("a socket was closed".to_owned()),
                    }
                }
            })
            .collect();
        let asked = async { link.ask(&request).await.map(|status| (status, started.elapsed())) };
        let told = async {
            while let Some(each) = waiting.next().await {
                each?;
            }
            Ok::<_, String>(started.elapsed())
        };
        let (asked, told) = tokio::time::timeout(PATIENCE, async { tokio::join!(asked, told) }).await?;
        let (status, _) = asked?;
        if status != 200 {
            return Err(format!("a registration was answered with {status}").into());
        }
        took.push(told?.as_secs_f64() * 1000.0);
    }
    Ok(json!({ "last_ms": took }).to_string())
}
