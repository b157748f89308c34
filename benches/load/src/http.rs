//! Requests over keep-alive connections.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

/// What to ask.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Task {
    /// Host and port.
    address: String,
    connections: usize,
    /// How long, once everything was asked for `warm` seconds; without it, each request once.
    seconds: Option<f64>,
    #[serde(default)]
    warm: f64,
    requests: Vec<Request>,
}

/// One request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Request {
    method: String,
    path: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: String,
}

impl Request {
    /// As it is sent.
    pub(crate) fn bytes(&self, address: &str) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\nhost: {address}\r\n", self.method, self.path);
        for (name, value) in &self.headers {
            // Writing to a string cannot fail.
            let _ = write!(text, "{name}: {value}\r\n");
        }
        let _ = write!(text, "content-length: {}\r\n\r\n{}", self.body.len(), self.body);
        text.into_bytes()
    }
}

/// A connection and what is left in it.
pub(crate) struct Link {
    stream: TcpStream,
    held: Vec<u8>,
}

impl Link {
    pub(crate) async fn open(address: &str) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, held: Vec::with_capacity(64 * 1024) })
    }

    /// Sends a request; the status of its answer.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> Result<u16, Box<dyn Error>> {
        self.stream.write_all(request).await?;
        self.held.clear();
        let (end, status, length) = loop {
            match head(&self.held)? {
                Some(head) => break head,
                None => self.more().await?,
            }
        };
        match length {
            Some(length) => {
                while self.held.len() < end + length {
                    self.more().await?;
                }
            }
            None => {
                while !self.held.ends_with(b"0\r\n\r\n") {
                    self.more().await?;
                }
            }
        }
        Ok(status)
    }

    async fn more(&mut self) -> Result<(), Box<dyn Error>> {
        if self.stream.read_buf(&mut self.held).await? == 0 {
            return Err("the registry closed the connection".into());
        }
        Ok(())
    }
}

/// Where a head ends, its status, and the length of the body unless it comes in chunks.
type Head = (usize, u16, Option<usize>);

/// The head of an answer; nothing while it is not whole.
fn head(text: &[u8]) -> Result<Option<Head>, Box<dyn Error>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(end) = response.parse(text)? else { return Ok(None) };
    let status = response.code.ok_or("no status line")?;
    let named = |name: &str| response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
    if named("transfer-encoding").is_some() {
        return Ok(Some((end, status, None)));
    }
    let length = named("content-length").map(|header| std::str::from_utf8(header.value)).transpose()?.unwrap_or("0");
    Ok(Some((end, status, Some(length.parse()?))))
}

/// Asks, and says how often per second and how long it took.
pub(crate) async fn run(task: Task) -> Result<String, Box<dyn Error>> {
    let requests: Rc<Vec<Vec<u8>>> = Rc::new(task.requests.iter().map(|each| each.bytes(&task.address)).collect());
    if requests.is_empty() {
        return Err("no requests".into());
    }
    let next = Rc::new(Cell::new(0_usize));
    let set = LocalSet::new();
    let begun = Instant::now();
    let counted = begun + Duration::from_secs_f64(task.warm);
    let until = task.seconds.map(|seconds| counted + Duration::from_secs_f64(seconds));
    let workers: Vec<_> = (0..task.connections)
        .map(|_| {
            let (requests, next, address) = (requests.clone(), next.clone(), task.address.clone());
            set.spawn_local(async move {
                worker(&address, &requests, &next, counted, until).await.map_err(|e| e.to_string())
            })
        })
        .collect();
    let mut took = Vec::new();
    let mut statuses: BTreeMap<u16, usize> = BTreeMap::new();
    set.run_until(async {
        for worker in workers {
            let (times, seen) = worker.await??;
            took.extend(times);
            for (status, count) in seen {
                *statuses.entry(status).or_default() += count;
            }
        }
        Ok::<_, Box<dyn Error>>(())
    })
    .await?;
    let seconds = begun.max(counted).elapsed().as_secs_f64();
    took.sort_unstable();
    let at = |part: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index"
        )]
        let index = (part * (took.len().saturating_sub(1)) as f64) as usize;
        took.get(index).map(|time: &Duration| time.as_secs_f64() * 1000.0)
    };
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let rate = took.len() as f64 / seconds;
    Ok(json!({
        "count": took.len(),
        "seconds": seconds,
        "per_second": rate,
        "p50_ms": at(0.5),
        "p99_ms": at(0.99),
        "statuses": statuses,
    })
    .to_string())
}

type Seen = (Vec<Duration>, BTreeMap<u16, usize>);

async fn worker(
    address: &str,
    requests: &[Vec<u8>],
    next: &Cell<usize>,
    counted: Instant,
    until: Option<Instant>,
) -> Result<Seen, Box<dyn Error>> {
    let mut link = Link::open(address).await?;
    let (mut took, mut statuses) = (Vec::new(), BTreeMap::new());
    loop {
        let at = next.get();
        next.set(at + 1);
        let started = Instant::now();
        let request = match until {
            Some(end) if started >= end => break,
            Some(_) => requests.get(at % requests.len()),
            None => requests.get(at),
        };
        let Some(request) = request else { break };
        let status = link.ask(request).await?;
        if started >= counted {
            took.push(started.elapsed());
            *statuses.entry(status).or_default() += 1;
        }
    }
    Ok((took, statuses))
}
