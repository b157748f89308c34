//! One change to many public sockets: the time until the last one has it.
//!
//! Frames are read as far as they must be to know what they are; the rest is thrown away as it comes.

use std::error::Error;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

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

/// Between changes: each is one of its own, not part of a burst that is told together.
const QUIET: Duration = Duration::from_millis(500);
/// The longest anyone waits.
const PATIENCE: Duration = Duration::from_secs(60);
/// So much of a frame tells what it is.
const TELLING: usize = 48;

/// A public socket of which only the kinds of its frames are of interest.
struct Socket {
    stream: TcpStream,
    held: Vec<u8>,
}

impl Socket {
    async fn open(address: &str) -> Result<Self, Box<dyn Error>> {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!(
            "GET /public/ws HTTP/1.1\r\nhost: {address}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: x3JJHMbDL1EzLkh9GBhXDw==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut socket = Self { stream, held: Vec::with_capacity(64 * 1024) };
        let end = loop {
            if let Some(at) = find(&socket.held, b"\r\n\r\n") {
                break at + 4;
            }
            socket.more().await?;
        };
        if !socket.held.starts_with(b"HTTP/1.1 101") {
            return Err("a socket was refused".into());
        }
        socket.held.drain(..end);
        Ok(socket)
    }

    async fn more(&mut self) -> Result<(), Box<dyn Error>> {
        if self.stream.read_buf(&mut self.held).await? == 0 {
            return Err("a socket was closed".into());
        }
        Ok(())
    }

    /// Reads a frame to its end; whether it tells of a change.
    async fn frame(&mut self) -> Result<bool, Box<dyn Error>> {
        let (start, length) = loop {
            match head(&self.held) {
                Some(found) => break found,
                None => self.more().await?,
            }
        };
        while self.held.len() < start + length.min(TELLING) {
            self.more().await?;
        }
        let telling = self.held.get(start..start + length.min(TELLING)).unwrap_or_default();
        let is_change = find(telling, b"agents_update").is_some();
        let mut left = start + length;
        while self.held.len() < left {
            left -= self.held.len();
            self.held.clear();
            self.more().await?;
        }
        self.held.drain(..left);
        Ok(is_change)
    }

    async fn change(&mut self) -> Result<(), Box<dyn Error>> {
        while !self.frame().await? {}
        Ok(())
    }
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

/// Where the payload of the frame in front begins, and its length; a server's frames are not masked.
fn head(held: &[u8]) -> Option<(usize, usize)> {
    let bytes = |count: usize| -> Option<usize> {
        held.get(2..2 + count).map(|bytes| bytes.iter().fold(0, |sum, byte| (sum << 8) | usize::from(*byte)))
    };
    match held.get(1)? & 0x7f {
        126 => Some((4, bytes(2)?)),
        127 => Some((10, bytes(8)?)),
        short => Some((2, usize::from(short))),
    }
}

/// Opens the sockets, makes the changes, and says when the last socket had each.
pub(crate) async fn run(task: Task) -> Result<String, Box<dyn Error>> {
    let mut sockets = Vec::with_capacity(task.sockets);
    for _ in 0..task.sockets {
        sockets.push(Socket::open(&task.address).await?);
    }
    for socket in &mut sockets {
        // The greeting.
        socket.frame().await?;
    }
    let mut link = Link::open(&task.address).await?;
    let mut took = Vec::new();
    for change in &task.changes {
        tokio::time::sleep(QUIET).await;
        let request = change.bytes(&task.address);
        let started = Instant::now();
        let mut waiting: FuturesUnordered<_> = sockets.iter_mut().map(Socket::change).collect();
        let told = async {
            while let Some(each) = waiting.next().await {
                each?;
            }
            Ok::<_, Box<dyn Error>>(started.elapsed())
        };
        let (status, told) = tokio::time::timeout(PATIENCE, async { tokio::join!(link.ask(&request), told) }).await?;
        match status? {
            200 => took.push(told?.as_secs_f64() * 1000.0),
            other => return Err(format!("a registration was answered with {other}").into()),
        }
    }
    Ok(json!({ "last_ms": took }).to_string())
}
