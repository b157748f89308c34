//! The three live sockets as streams of messages that connect again by themselves (REG-055, REG-056, REG-060).

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use http::header::USER_AGENT;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use super::connect::Stream;
use super::error::{Area, FailureKind, RegistryError};
use super::options::Secret;
use super::retry::{Ended, Retry};
use super::tokens::Subject;
use super::transport::TransportFault;
use super::{FINGERPRINT, RegistryClient};

/// Which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SocketKind {
    /// `/public/ws`: for everybody.
    Public,
    /// `/agents/ws`: for members; the first message is the list of all agents.
    Agent,
    /// `/dashboard/ws`: for administrators.
    Dashboard,
}

/// How a socket behaves.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SocketOptions {
    /// The token to show; the client's when absent.
    pub token: Option<Secret>,
    /// Whether to connect again when the connection is lost; true.
    pub reconnect: bool,
    /// How often in a row that is tried, once it was connected, before it is an error; 30. The waits are those between the
    /// tries of a request.
    pub reconnect_attempts: u32,
    /// Agents on the page a public socket asks for when it connects; 50.
    pub page_size: u32,
    /// Messages kept for the reader; 1024. While that many wait nothing more is read.
    pub queue: usize,
    /// Seconds of silence after which the registry is asked for a sign of life; three times that without one and the
    /// connection is taken as lost. 30.
    pub silence: f64,
}

impl Default for SocketOptions {
    fn default() -> Self {
        SocketOptions {
            token: None,
            reconnect: true,
            reconnect_attempts: 30,
            page_size: 50,
            queue: 1024,
            silence: 30.0,
        }
    }
}

/// No message may be longer: a list of all agents of a very large registry fits.
const MAX_MESSAGE: usize = 256 << 20;

/// Bytes kept for the reader.
const MAX_QUEUED: usize = 64 << 20;

/// Commands that may wait to be sent.
const MAX_COMMANDS: usize = 64;

/// A polite end takes no longer.
const GOODBYE: Duration = Duration::from_secs(1);

const PREFIX: &str = "WebSocket connection failed: ";

/// One socket. Dropping it closes it.
pub struct RegistrySocket {
    shared: Arc<Shared>,
    commands: mpsc::Sender<String>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// The reader made room.
    room: Notify,
    closing: Notify,
}

#[derive(Default)]
struct Queue {
    messages: VecDeque<String>,
    bytes: usize,
    reader: Option<Waker>,
    closing: bool,
    ended: bool,
    failure: Option<RegistryError>,
}

/// Why a connection ended.
enum Gone {
    /// The user closed it.
    Closed,
    /// Trying again may help.
    Lost(RegistryError),
    /// It would not; with another token it may.
    Refused(RegistryError),
}

type Socket = WebSocketStream<Box<dyn Stream>>;

impl RegistryClient {
    /// Opens a socket in the background: what fails is told to its reader.
    ///
    /// # Errors
    /// When an option is out of bounds, or there is no tokio runtime here.
    pub fn open_socket(&self, kind: SocketKind, options: SocketOptions) -> Result<RegistrySocket, RegistryError> {
        let wrong = |what: &str| Err(RegistryError::invalid(what));
        if options.queue == 0 || options.queue > 1_000_000 {
            return wrong("queue must be 1 to 1000000 messages");
        }
        if !(1..=100).contains(&options.page_size) {
            return wrong("page_size must be 1 to 100");
        }
        if !(0.01..=86_400.0).contains(&options.silence) {
            return wrong("silence must be 0.01 to 86400 seconds");
        }
        let Ok(tokio) = tokio::runtime::Handle::try_current() else {
            return wrong("a socket can be opened within a tokio runtime only");
        };
        let shared = Arc::new(Shared::default());
        let (sender, commands) = mpsc::channel(MAX_COMMANDS);
        let live = Live { client: self.clone(), kind, options, shared: Arc::clone(&shared), commands };
        tokio.spawn(live.run());
        Ok(RegistrySocket { shared, commands: sender })
    }
}

impl RegistrySocket {
    /// Appends up to `max` messages, each JSON text; `None` after the end. Fails once, when the socket cannot go on.
    pub fn poll_batch(
        &self,
        cx: &mut Context<'_>,
        max: usize,
        batch: &mut Vec<String>,
    ) -> Poll<Option<Result<(), RegistryError>>> {
        let mut queue = self.shared.queue.lock();
        if queue.closing {
            return Poll::Ready(None);
        }
        if queue.messages.is_empty() {
            if queue.ended {
                return Poll::Ready(queue.failure.take().map(Err));
            }
            queue.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let taken = queue.messages.len().min(max.max(1));
        let mut bytes = 0;
        batch.extend(queue.messages.drain(..taken).inspect(|message| bytes += message.len()));
        queue.bytes -= bytes;
        drop(queue);
        self.shared.room.notify_one();
        Poll::Ready(Some(Ok(())))
    }

    /// The next message; `None` after the end.
    pub async fn next(&self) -> Option<Result<String, RegistryError>> {
        let mut batch = Vec::with_capacity(1);
        let found = std::future::poll_fn(|cx| self.poll_batch(cx, 1, &mut batch)).await?;
        found.map(|()| batch.pop()).transpose()
    }

    /// Sends a text frame, such as `{"type":"get_discovery","page":2}`, once connected.
    ///
    /// # Errors
    /// When many wait already, or the socket is closed.
    pub fn send(&self, text: String) -> Result<(), RegistryError> {
        let failed = |message| RegistryError::new(FailureKind::Connection, message).within(Area::General, PREFIX);
        if self.shared.is_closing() {
            return Err(failed("the socket is closed"));
        }
        self.commands.try_send(text).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => failed("64 frames wait to be sent already; send more slowly"),
            mpsc::error::TrySendError::Closed(_) => failed("the socket is closed"),
        })
    }

    /// Closes it at once; what was not read is dropped.
    pub fn close(&self) {
        let (reader, messages) = {
            let mut queue = self.shared.queue.lock();
            queue.closing = true;
            queue.bytes = 0;
            (queue.reader.take(), std::mem::take(&mut queue.messages))
        };
        drop(messages);
        self.shared.closing.notify_one();
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

impl Drop for RegistrySocket {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn push(&self, message: String) {
        let mut queue = self.queue.lock();
        if queue.closing {
            return;
        }
        queue.bytes += message.len();
        queue.messages.push_back(message);
        let reader = queue.reader.take();
        drop(queue);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    fn end(&self, failure: Option<RegistryError>) {
        let reader = {
            let mut queue = self.queue.lock();
            queue.ended = true;
            queue.failure = failure;
            queue.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    fn is_full(&self, most: usize) -> bool {
        let queue = self.queue.lock();
        queue.messages.len() >= most || queue.bytes > MAX_QUEUED
    }

    fn is_closing(&self) -> bool {
        self.queue.lock().closing
    }
}

/// What runs for one socket.
struct Live {
    client: RegistryClient,
    kind: SocketKind,
    options: SocketOptions,
    shared: Arc<Shared>,
    commands: mpsc::Receiver<String>,
}

impl Live {
    async fn run(mut self) {
        let failure = self.keep_connected().await;
        self.shared.end(failure);
    }

    /// Returns when it is over, with the error if it is one.
    async fn keep_connected(&mut self) -> Option<RegistryError> {
        let shared = Arc::clone(&self.shared);
        let options = &self.client.inner.options;
        let mut retry =
            Retry { attempts: options.retry_attempts, delay: options.retry_delay, max_delay: options.max_retry_delay };
        let (mut connected, mut renewed, mut failures) = (false, false, 0);
        loop {
            let mut token = None;
            let gone = match unless_closed(&shared, self.connect(&mut token)).await? {
                Err(gone) => gone,
                Ok(socket) => {
                    let mut heard = false;
                    let gone = self.converse(socket, token.as_ref(), &mut heard).await;
                    if heard {
                        retry.attempts = self.options.reconnect_attempts;
                        (connected, renewed, failures) = (true, false, 0);
                    }
                    gone
                }
            };
            let error = match gone {
                Gone::Closed => return None,
                Gone::Refused(error) if renewed || self.options.token.is_some() || token.is_none() => {
                    return Some(error);
                }
                Gone::Refused(error) => {
                    renewed = true;
                    match unless_closed(&shared, self.client.renew(&self.subject(), token.as_ref())).await? {
                        Ok(Some(_)) => continue,
                        Ok(None) => return Some(error),
                        Err(failed) => return Some(failed.within(Area::Authentication, PREFIX)),
                    }
                }
                Gone::Lost(error) => error,
            };
            if connected && !self.options.reconnect {
                return Some(error);
            }
            failures += 1;
            let fault = TransportFault::Connect(String::new());
            let Some(wait) = retry.next(failures, true, &Ended::Fault(&fault), fastrand::f64()) else {
                return Some(error);
            };
            tracing::debug!(target: "arcp", "{error}; connecting again in {:.1} s", wait.as_secs_f64());
            unless_closed(&shared, tokio::time::sleep(wait)).await?;
        }
    }

    fn subject(&self) -> Subject {
        if self.kind == SocketKind::Dashboard { Subject::Admin } else { Subject::Any }
    }

    async fn connect(&self, token: &mut Option<Secret>) -> Result<Socket, Gone> {
        if self.kind != SocketKind::Public {
            *token = match &self.options.token {
                Some(given) => Some(given.clone()),
                None => self.token().await.map_err(Gone::Refused)?,
            };
        }
        let wait = self.client.inner.options.timeout;
        let late = |_| Gone::Lost(lost(format!("no answer within {} s", wait.as_secs_f64())));
        timeout(wait, self.upgrade()).await.map_err(late)?
    }

    async fn token(&self) -> Result<Option<Secret>, RegistryError> {
        let subject = self.subject();
        if let Some(token) = self.client.token_for(&subject).await {
            return Ok(Some(token));
        }
        let found = self.client.renew(&subject, None).await;
        match found.map_err(|error| error.within(Area::Authentication, PREFIX))? {
            Some(token) => Ok(Some(token)),
            None => Err(refused("no token: log in, register an agent, or give one")),
        }
    }

    async fn upgrade(&self) -> Result<Socket, Gone> {
        let invalid = |error: RegistryError| Gone::Refused(error.within(Area::General, PREFIX));
        let own = self.client.own().map_err(invalid)?;
        let address = own.connector().address();
        let path = match self.kind {
            SocketKind::Public => "/public/ws",
            SocketKind::Agent => "/agents/ws",
            SocketKind::Dashboard => "/dashboard/ws",
        };
        let scheme = if address.secure { "wss" } else { "ws" };
        let url = format!("{scheme}://{}{}{path}", address.authority, address.prefix);
        let mut request =
            url.into_client_request().map_err(|error| invalid(RegistryError::invalid(format!("base_url: {error}"))))?;
        let headers = self.client.headers().map_err(invalid)?;
        for name in [USER_AGENT, FINGERPRINT] {
            if let Some(value) = headers.get(&name) {
                request.headers_mut().insert(name, value.clone());
            }
        }
        let opened = own.connector().open(true).await;
        let opened = opened.map_err(|error| Gone::Lost(lost(format!("{}: {error}", address.origin))))?;
        let config = WebSocketConfig::default()
            .read_buffer_size(16 << 10)
            .write_buffer_size(4 << 10)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        match tokio_tungstenite::client_async_with_config(request, opened.stream, Some(config)).await {
            Ok((socket, _)) => Ok(socket),
            Err(WsError::Http(answer)) => Err(not_upgraded(answer.status().as_u16())),
            Err(error) => Err(Gone::Lost(lost(error))),
        }
    }

    /// Reads and writes until the connection ends. `heard` becomes true with the first message for the reader.
    async fn converse(&mut self, mut socket: Socket, token: Option<&Secret>, heard: &mut bool) -> Gone {
        let opening = match (self.kind, token) {
            (SocketKind::Public, _) => {
                let page_size = self.options.page_size;
                Some(serde_json::json!({"type": "get_discovery", "page": 1, "page_size": page_size}))
            }
            (SocketKind::Dashboard, Some(token)) => Some(serde_json::json!({"type": "auth", "token": token.expose()})),
            // Answers the registry's question.
            _ => None,
        };
        if let Some(opening) = opening
            && let Err(error) = socket.send(Message::text(opening.to_string())).await
        {
            return Gone::Lost(lost(error));
        }
        let mut authenticated = self.kind != SocketKind::Agent;
        let silence = Duration::from_secs_f64(self.options.silence);
        let mut last = Instant::now();
        let mut due = last + silence;
        loop {
            let is_full = self.shared.is_full(self.options.queue);
            let answer = tokio::select! {
                () = closed(&self.shared) => {
                    goodbye(&mut socket).await;
                    return Gone::Closed;
                }
                () = self.shared.room.notified(), if is_full => {
                    // Nobody listened meanwhile.
                    (last, due) = (Instant::now(), Instant::now() + silence);
                    continue;
                }
                received = socket.next(), if !is_full => {
                    (last, due) = (Instant::now(), Instant::now() + silence);
                    match self.take(received, token, &mut authenticated, heard) {
                        ControlFlow::Break(gone) => return gone,
                        ControlFlow::Continue(Some(answer)) => answer,
                        ControlFlow::Continue(None) => continue,
                    }
                }
                Some(command) = self.commands.recv(), if authenticated => Message::text(command),
                () = tokio::time::sleep_until(due), if !is_full => {
                    if last.elapsed() >= silence * 3 {
                        return Gone::Lost(lost("the registry gives no sign of life"));
                    }
                    due = Instant::now() + silence;
                    Message::Ping(bytes::Bytes::new())
                }
            };
            let sent = timeout(self.client.inner.options.timeout, socket.send(answer)).await;
            match sent {
                Ok(Ok(())) => {}
                // Why it was closed may stand in what was not read yet.
                Ok(Err(WsError::ConnectionClosed | WsError::AlreadyClosed)) => {}
                Ok(Err(error)) => return Gone::Lost(lost(error)),
                Err(_) => return Gone::Lost(lost("the registry takes nothing any more")),
            }
        }
    }

    /// What a frame means: an answer to send, the end, or neither.
    fn take(
        &self,
        received: Option<Result<Message, WsError>>,
        token: Option<&Secret>,
        authenticated: &mut bool,
        heard: &mut bool,
    ) -> ControlFlow<Gone, Option<Message>> {
        let text = match received {
            Some(Ok(Message::Text(text))) => text.as_str().to_owned(),
            Some(Ok(Message::Binary(bytes))) => String::from_utf8_lossy(&bytes).into_owned(),
            Some(Ok(Message::Close(frame))) => return ControlFlow::Break(closed_by_peer(frame)),
            Some(Ok(_)) => return ControlFlow::Continue(None),
            Some(Err(error)) => return ControlFlow::Break(Gone::Lost(lost(error))),
            None => return ControlFlow::Break(Gone::Lost(lost("the connection closed"))),
        };
        match text.trim() {
            text if text.eq_ignore_ascii_case("ping") => return ControlFlow::Continue(Some(Message::text("pong"))),
            text if text.eq_ignore_ascii_case("pong") => return ControlFlow::Continue(None),
            _ => {}
        }
        if !*authenticated {
            let frame: AuthFrame = serde_json::from_str(&text).unwrap_or_default();
            return match (frame.kind.as_str(), token) {
                ("auth_required", Some(token)) => {
                    let answer = serde_json::json!({"token": token.expose()});
                    ControlFlow::Continue(Some(Message::text(answer.to_string())))
                }
                ("auth_success", _) => {
                    *authenticated = true;
                    ControlFlow::Continue(None)
                }
                ("auth_error", _) => ControlFlow::Break(Gone::Refused(refused(&frame.message))),
                _ => ControlFlow::Continue(None),
            };
        }
        if serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok() {
            *heard = true;
            self.shared.push(text);
        } else {
            tracing::debug!(target: "arcp", "a frame that is not JSON was dropped");
        }
        ControlFlow::Continue(None)
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct AuthFrame {
    #[serde(rename = "type")]
    kind: String,
    message: String,
}

async fn closed(shared: &Shared) {
    while !shared.is_closing() {
        shared.closing.notified().await;
    }
}

/// What `work` gives, or `None` when the user closes the socket first.
async fn unless_closed<T>(shared: &Shared, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        () = closed(shared) => None,
        done = work => Some(done),
    }
}

/// Says goodbye and hears the answer, within bounded time.
async fn goodbye(socket: &mut Socket) {
    let polite = async {
        if socket.close(None).await.is_ok() {
            while let Some(Ok(_)) = socket.next().await {}
        }
    };
    // Who does not answer has had its time.
    drop(timeout(GOODBYE, polite).await);
}

fn lost(why: impl std::fmt::Display) -> RegistryError {
    RegistryError::new(FailureKind::Connection, why).within(Area::General, PREFIX)
}

fn refused(why: &str) -> RegistryError {
    RegistryError::new(FailureKind::Authentication, why).within(Area::Authentication, PREFIX)
}

fn not_upgraded(status: u16) -> Gone {
    let hint = match status {
        401 => ": log in first",
        403 => ": it has as many sockets as it takes, or does not serve this address",
        404 => ": there is no registry at this base_url",
        _ => "",
    };
    let mut error = lost(format!("the registry answered HTTP {status}{hint}"));
    error.status = Some(status);
    match status {
        // Room may come.
        403 | 429 | 500.. => Gone::Lost(error),
        401 => Gone::Refused(RegistryError { area: Area::Authentication, kind: FailureKind::Authentication, ..error }),
        _ => Gone::Refused(error),
    }
}

/// What a close of the registry means (REG-331, REG-340).
fn closed_by_peer(frame: Option<CloseFrame>) -> Gone {
    let Some(frame) = frame else { return Gone::Lost(lost("the registry closed the connection")) };
    let (code, reason) = (u16::from(frame.code), frame.reason.as_str());
    match code {
        1008 | 4001 | 4003 if reason != "Authentication timeout" => {
            Gone::Refused(refused(if reason.is_empty() { "the token was refused" } else { reason }))
        }
        _ => Gone::Lost(lost(format!("the registry closed the connection: {code} {reason}"))),
    }
}
