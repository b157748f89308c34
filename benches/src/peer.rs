//! A peer that costs next to nothing: it frames by hand and looks at what it receives only as far as a measurement needs,
//! so that the runtime is measured and not its clients.

use std::fmt::Write;

use arcp::feature::CLIENT_DEFAULT;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What a peer understands that takes everything at once: it neither acknowledges nor answers heartbeats.
const BULK: [&str; 2] = ["subscribe", "result_chunk"];

/// One WebSocket to a runtime. The bytes of `buffer` from `start` to `end` were read and not taken yet.
pub(crate) struct Peer {
    socket: TcpStream,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    messages: u64,
}

/// Which session a hello names, to take it up again from its first event.
pub(crate) struct Ticket {
    pub(crate) session_id: String,
    pub(crate) resume_token: String,
}

impl Peer {
    /// Connects and upgrades; `buffer` is how many bytes are read at once at most.
    pub(crate) async fn connect(url: &str, buffer: usize) -> Self {
        let (host, path) = url.strip_prefix("ws://").unwrap().split_once('/').unwrap();
        let mut socket = TcpStream::connect(host).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let request = format!(
            "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut peer = Peer { socket, buffer: vec![0; buffer], start: 0, end: 0, messages: 0 };
        loop {
            let read = peer.fill().await;
            assert!(read > 0, "the runtime closed during the upgrade");
            let answer = &peer.buffer[..peer.end];
            if let Some(at) = answer.windows(4).position(|part| part == b"\r\n\r\n") {
                assert!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(answer));
                peer.start = at + 4;
                return peer;
            }
        }
    }

    /// Shakes hands as a peer that only reads; the ticket to take the session up again.
    pub(crate) async fn open(&mut self, token: &str, resume: Option<&Ticket>) -> Ticket {
        self.hello(token, &BULK, resume).await
    }

    /// Shakes hands with all a client understands.
    pub(crate) async fn open_whole(&mut self, token: &str) -> Ticket {
        self.hello(token, &CLIENT_DEFAULT.map(|feature| feature.as_str()), None).await
    }

    async fn hello(&mut self, token: &str, features: &[&str], resume: Option<&Ticket>) -> Ticket {
        let mut payload = format!(
            "{{\"client\":{{\"name\":\"bench\",\"version\":\"1\"}},\"auth\":{{\"scheme\":\"bearer\",\"token\":\"{token}\"}},\
             \"capabilities\":{{\"encodings\":[\"json\"],\"features\":{features:?}}}"
        );
        if let Some(Ticket { session_id, resume_token }) = resume {
            write!(
                payload,
                ",\"resume\":{{\"session_id\":\"{session_id}\",\"resume_token\":\"{resume_token}\",\"last_event_seq\":0}}"
            )
            .unwrap();
        }
        payload.push('}');
        self.send("session.hello", &payload).await;
        let welcome = self.await_type("session.welcome").await;
        Ticket { session_id: member(&welcome, "session_id"), resume_token: member(&welcome, "resume_token") }
    }

    /// Submits a job; its id.
    pub(crate) async fn submit(&mut self, agent: &str, input: &str) -> String {
        self.send("job.submit", &format!("{{\"agent\":\"{agent}\",\"input\":{input}}}")).await;
        let accepted = self.await_type("job.accepted").await;
        member(&accepted, "job_id")
    }

    /// Sends one message.
    pub(crate) async fn send(&mut self, kind: &str, payload: &str) {
        self.messages += 1;
        let id = self.messages;
        let text = format!("{{\"arcp\":\"1.1\",\"id\":\"msg_{id}\",\"type\":\"{kind}\",\"payload\":{payload}}}");
        let length = u16::try_from(text.len()).unwrap().to_be_bytes();
        // A mask of zeros leaves the text as it is.
        let mut frame = vec![0x81, 0x80 | 126, length[0], length[1], 0, 0, 0, 0];
        frame.extend_from_slice(text.as_bytes());
        self.socket.write_all(&frame).await.unwrap();
    }

    /// Reads up to a message of this type, and returns its text.
    pub(crate) async fn await_type(&mut self, kind: &str) -> String {
        loop {
            let frame = self.next().await;
            if is_type(frame, kind) {
                return String::from_utf8(frame.to_vec()).unwrap();
            }
            assert!(!is_type(frame, "session.error"), "{}", String::from_utf8_lossy(frame));
        }
    }

    /// The next message.
    pub(crate) async fn next(&mut self) -> &[u8] {
        loop {
            if let Some((from, to)) = self.whole_frame() {
                self.start = to;
                return &self.buffer[from..to];
            }
            assert!(self.fill().await > 0, "the runtime closed the connection");
        }
    }

    /// Where the payload of the next frame lies, once all of it was read.
    fn whole_frame(&mut self) -> Option<(usize, usize)> {
        let waiting = &self.buffer[self.start..self.end];
        let (head, length) = match *waiting {
            [_, length @ ..=125, ..] => (2, usize::from(length)),
            [_, 126, a, b, ..] => (4, usize::from(u16::from_be_bytes([a, b]))),
            [_, 127, a, b, c, d, e, f, g, h, ..] => (10, u64::from_be_bytes([a, b, c, d, e, f, g, h]) as usize),
            _ => return None,
        };
        if self.buffer.len() < head + length {
            self.buffer.resize(head + length, 0);
        }
        let from = self.start + head;
        (from + length <= self.end).then_some((from, from + length))
    }

    async fn fill(&mut self) -> usize {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let read = self.socket.read(&mut self.buffer[self.end..]).await.unwrap();
        self.end += read;
        read
    }
}

/// Whether a message is of this type: a runtime writes the type close to the front.
pub(crate) fn is_type(frame: &[u8], kind: &str) -> bool {
    let front = &frame[..frame.len().min(160)];
    let name = front.windows(8).position(|part| part == b"\"type\":\"").map(|at| &front[at + 8..]);
    name.is_some_and(|name| name.starts_with(kind.as_bytes()) && name.get(kind.len()) == Some(&b'"'))
}

/// The text of the last member of this name; ours are written without spaces.
fn member(text: &str, name: &str) -> String {
    let (_, rest) = text.rsplit_once(&format!("\"{name}\":\"")).unwrap();
    rest.split('"').next().unwrap().to_owned()
}
