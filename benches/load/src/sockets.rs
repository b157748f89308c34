//! One change to many public sockets: the time until the last one has it.

use std::error::Error;
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;

use crate::http::{Link, Request, head};

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

/// A socket after its handshake, of which only the beginnings of messages are looked at: to decode a thousand lists would
/// take longer than to be sent them.
struct Feed {
    stream: TcpStream,
    held: BytesMut,
}

impl Feed {
    async fn open(address: &str) -> Result<Self, Box<dyn Error>> {
        let mut feed = Self { stream: TcpStream::connect(address).await?, held: BytesMut::with_capacity(64 * 1024) };
        let ask = format!(
            "GET /public/ws HTTP/1.1\r\nhost: {address}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: {}\r\n\r\n",
            generate_key()
        );
        feed.stream.write_all(ask.as_bytes()).await?;
        loop {
            if let Some((end, status, _)) = head(&feed.held)? {
                if status != 101 {
                    return Err(format!("a socket was answered with {status}").into());
                }
                feed.held.advance(end);
                return Ok(feed);
            }
            feed.more().await?;
        }
    }

    /// The next message has come whole; whether it tells a change.
    async fn next(&mut self) -> Result<bool, String> {
        self.hold(2).await?;
        let short = u64::from(self.held.get(1).copied().unwrap_or_default() & 0x7f);
        let head = match short {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        self.hold(head).await?;
        let mut frame = self.held.split_to(head);
        frame.advance(2);
        let mut left = match short {
            126 => u64::from(frame.get_u16()),
            127 => frame.get_u64(),
            short => short,
        };
        self.hold(usize::try_from(left).unwrap_or(usize::MAX).min(CHANGE.len())).await?;
        let tells = self.held.starts_with(CHANGE);
        loop {
            let here = usize::try_from(left).unwrap_or(usize::MAX).min(self.held.len());
            self.held.advance(here);
            left -= here as u64;
            if left == 0 {
                return Ok(tells);
            }
            self.held.clear();
            self.more().await?;
        }
    }

    async fn hold(&mut self, count: usize) -> Result<(), String> {
        while self.held.len() < count {
            self.more().await?;
        }
        Ok(())
    }

    async fn more(&mut self) -> Result<(), String> {
        self.held.reserve(64 * 1024);
        match self.stream.read_buf(&mut self.held).await {
            Ok(0) => Err("a socket was closed".to_owned()),
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Opens the sockets, makes the changes, and says when the last socket had each.
pub(crate) async fn run(task: Task) -> Result<String, Box<dyn Error>> {
    let mut sockets = Vec::with_capacity(task.sockets);
    for _ in 0..task.sockets {
        sockets.push(Feed::open(&task.address).await?);
    }
    for socket in &mut sockets {
        // The greeting.
        socket.next().await?;
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
                while !socket.next().await? {}
                Ok::<_, String>(())
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
