//! The scripted peers: raw WebSocket connections, as a client or as a runtime.

use std::collections::BTreeMap;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async, client_async};

use crate::witness::{Side, Witness};
use crate::{Result, WAIT};

/// One connection to the side under test.
pub struct Connection {
    socket: WebSocketStream<TcpStream>,
    witness: Witness,
}

/// What a connection brought.
#[derive(Debug)]
pub enum Arrival {
    /// A message, checked by the witness.
    Message(Value),
    /// The other side closed.
    Closed,
}

/// Opens a connection; `Ok(Err(status))` is an HTTP answer instead of the upgrade.
///
/// # Errors
/// The URL is not one of a loopback runtime, or nothing answers in time.
pub async fn open(
    url: &str,
    path: &str,
    headers: &BTreeMap<String, String>,
) -> Result<std::result::Result<Connection, u16>> {
    let authority = url
        .strip_prefix("ws://")
        .and_then(|rest| rest.split('/').next())
        .ok_or_else(|| format!("serve answered the url {url:?}, expected ws://host:port/arcp"))?;
    let mut request =
        format!("ws://{authority}{path}").into_client_request().map_err(|e| format!("{url}{path}: {e}"))?;
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|e| format!("header {name:?}: {e}"))?;
        let value = HeaderValue::from_str(value).map_err(|e| format!("header value {value:?}: {e}"))?;
        request.headers_mut().insert(name, value);
    }
    let connecting = async {
        let stream = TcpStream::connect(authority).await.map_err(|e| format!("connecting to {authority}: {e}"))?;
        match client_async(request, stream).await {
            Ok((socket, _)) => Ok(Ok(Connection { socket, witness: Witness::new(Side::Runtime) })),
            Err(Error::Http(response)) => Ok(Err(response.status().as_u16())),
            Err(error) => Err(format!("the upgrade at {authority}{path}: {error}")),
        }
    };
    timeout(WAIT, connecting).await.map_err(|_| format!("the upgrade at {authority}{path} took over {WAIT:?}"))?
}

/// A scripted runtime's door.
pub struct Door {
    listener: TcpListener,
}

impl Door {
    /// Listens on a free loopback port.
    ///
    /// # Errors
    /// There is none.
    pub async fn new() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|e| format!("listening: {e}"))?;
        Ok(Self { listener })
    }

    /// The URL clients are given.
    ///
    /// # Errors
    /// The socket has no address.
    pub fn url(&self) -> Result<String> {
        let address = self.listener.local_addr().map_err(|e| format!("listening: {e}"))?;
        Ok(format!("ws://{address}/arcp"))
    }

    /// Takes the next connection, which must ask for the path it was given.
    ///
    /// # Errors
    /// None comes in time, or it is no WebSocket on `/arcp`.
    pub async fn accept(&self) -> Result<Connection> {
        let mut asked = String::new();
        // The error type is the library's callback signature.
        #[allow(clippy::result_large_err)]
        let note = |request: &Request, response: Response| -> std::result::Result<Response, ErrorResponse> {
            asked = request.uri().path().to_owned();
            Ok(response)
        };
        let accepting = async {
            let (stream, _) = self.listener.accept().await.map_err(|e| format!("accepting: {e}"))?;
            accept_hdr_async(stream, note).await.map_err(|e| format!("the client's upgrade: {e}"))
        };
        let socket = timeout(WAIT, accepting).await.map_err(|_| format!("no client came within {WAIT:?}"))??;
        if asked != "/arcp" {
            return Err(format!("the client asked for the path {asked:?}, it was given /arcp"));
        }
        Ok(Connection { socket, witness: Witness::new(Side::Client) })
    }
}

impl Connection {
    /// Sends one frame. A connection that has ended shows at the next [`Self::receive`], where a case expects it.
    ///
    /// # Errors
    /// The other side does not take it in time.
    pub async fn send(&mut self, text: String, binary: bool) -> Result<()> {
        let frame = if binary { Message::binary(text.into_bytes()) } else { Message::text(text) };
        let sent = timeout(WAIT, self.socket.send(frame)).await;
        sent.map(|_| ()).map_err(|_| format!("the connection took no frame within {WAIT:?}"))
    }

    /// The other side goes on with a session of which this much was seen.
    pub fn resumes_after(&mut self, last_event_seq: u64) {
        self.witness.resume_after(last_event_seq);
    }

    /// Waits for the next message.
    ///
    /// # Errors
    /// Nothing comes in time, or what comes is not a message a library may send.
    pub async fn receive(&mut self) -> Result<Arrival> {
        loop {
            let frame = timeout(WAIT, self.socket.next()).await.map_err(|_| format!("nothing came within {WAIT:?}"))?;
            let text = match frame {
                Some(Ok(Message::Text(text))) => text,
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                Some(Ok(Message::Binary(_))) => return Err("a binary frame came".to_owned()),
                Some(Ok(Message::Close(_))) => {
                    // The answer to a close is only queued, and leaves with the next read; the other side may wait for it.
                    let _ = timeout(WAIT, self.socket.next()).await;
                    return Ok(Arrival::Closed);
                }
                // Ending without a close frame, as after a refused oversize frame, is an end as well.
                None | Some(Err(_)) => return Ok(Arrival::Closed),
            };
            let message = serde_json::from_str(&text).map_err(|e| format!("{e} in the frame {text}"))?;
            self.witness.check(&message)?;
            return Ok(Arrival::Message(message));
        }
    }

    /// Leaves the connection in good order.
    pub async fn leave(mut self) {
        // The other side may be gone already.
        let _ = timeout(WAIT, self.socket.close(None)).await;
    }
}
