//! A server that answers as a test says, and remembers what it was asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// One request as it came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

/// What to do with a request.
pub(crate) enum Reply {
    /// A status and a JSON body.
    Json(u16, Value),
    /// A status, further header lines and a body.
    Raw(u16, &'static str, String),
    /// An answer that breaks off within its body.
    Cut,
    /// The connection closes without a byte.
    Drop,
    /// A good answer, after which the connection closes although it was said to stay.
    ThenClose(Value),
    /// Nothing, for longer than any test waits.
    Silence,
}

pub(crate) fn ok(body: Value) -> Reply {
    Reply::Json(200, body)
}

/// The server.
pub(crate) struct Server {
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    connections: Arc<AtomicUsize>,
}

impl Server {
    /// `answer` is told each request and how many came before it.
    pub(crate) async fn start(answer: impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let connections: Arc<AtomicUsize> = Arc::default();
        let (seen, counted, answer) = (Arc::clone(&asked), Arc::clone(&connections), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                tokio::spawn(serve(stream, seen, answer));
            }
        });
        Server { url, asked, connections }
    }

    /// Answers the requests in turn, and the last one again and again.
    pub(crate) async fn script(replies: Vec<fn() -> Reply>) -> Server {
        Server::start(move |_, count| replies[count.min(replies.len() - 1)]()).await
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().clone()
    }

    /// Method and target of each request.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.asked().iter().map(|asked| format!("{} {}", asked.method, asked.target)).collect()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

async fn serve<F: Fn(&Asked, usize) -> Reply>(stream: TcpStream, seen: Arc<Mutex<Vec<Asked>>>, answer: Arc<F>) {
    let mut stream = BufReader::new(stream);
    while let Some(asked) = read(&mut stream).await {
        let count = {
            let mut seen = seen.lock();
            seen.push(asked.clone());
            seen.len() - 1
        };
        let written = match answer(&asked, count) {
            Reply::Json(status, body) => write(&mut stream, status, "", &body.to_string()).await,
            Reply::Raw(status, headers, body) => write(&mut stream, status, headers, &body).await,
            Reply::ThenClose(body) => {
                drop(write(&mut stream, 200, "", &body.to_string()).await);
                return;
            }
            Reply::Cut => {
                let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{\"a\":";
                drop(stream.write_all(head.as_bytes()).await);
                return;
            }
            Reply::Drop => return,
            Reply::Silence => {
                tokio::time::sleep(Duration::from_secs(60)).await;
                return;
            }
        };
        if written.is_err() {
            return;
        }
    }
}

async fn write(stream: &mut BufReader<TcpStream>, status: u16, headers: &str, body: &str) -> std::io::Result<()> {
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{headers}content-length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await
}

async fn read(stream: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
    let mut words = line.split_ascii_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut asked = Asked { method, target, headers, body: String::new() };
    let length = asked.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    asked.body = String::from_utf8(body).ok()?;
    Some(asked)
}
