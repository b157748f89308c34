//! The client's session that `submit`, `tail` and `cancel` open.

use std::sync::Arc;
use std::time::Duration;

use arcp::message::Welcome;
use arcp::transport::tls;
use arcp::{Backoff, Client, ClientConfig, ClientInfo, ConnectOptions, Error, IMPL_VERSION, WebSocketTransport};

use crate::args::{SessionArgs, read_file};
use crate::exit::Failure;
use crate::signals::Interrupts;

/// How long a lost runtime may take to come back.
const LOST: Duration = Duration::from_secs(10);

/// Connects and shakes hands, unless it is interrupted.
pub(crate) async fn open(args: &SessionArgs, interrupts: &mut Interrupts) -> Result<(Client, Arc<Welcome>), Failure> {
    tokio::select! {
        opened = connect(args) => opened,
        () = interrupts.next() => Err(Failure::Interrupted(None)),
    }
}

async fn connect(args: &SessionArgs) -> Result<(Client, Arc<Welcome>), Failure> {
    let token = args.token.read()?;
    let tls = match &args.ca_file {
        None => None,
        Some(path) => {
            let pem = read_file("--ca-file", path)?;
            let config = tls::client_config(Some(pem.as_bytes()));
            Some(config.map_err(|error| Failure::Usage(format!("--ca-file: {error}")))?)
        }
    };
    let options = ConnectOptions { tls, ..ConnectOptions::default() };
    let transport = WebSocketTransport::connect(&args.url, options).await.map_err(|error| {
        Failure::NoConnection(format!("{error}; check --url, and that a runtime listens there (arcp serve)"))
    })?;
    let mut config = ClientConfig::new(ClientInfo { name: "arcp".into(), version: IMPL_VERSION.into() });
    // Whoever waits at a terminal is told sooner than a program would be.
    config.reconnect = Some(Backoff { give_up_after: Some(LOST), ..Backoff::default() });
    let client = Client::new(config);
    match client.connect(transport, &token).await {
        Ok(welcome) => Ok((client, welcome)),
        Err(Error::Protocol(error)) => Err(Failure::Refused(error)),
        Err(error) => Err(Failure::NoConnection(format!("{} did not begin a session: {error}", args.url))),
    }
}

/// Says goodbye, unless the user has no more time.
pub(crate) async fn close(client: &Client, interrupts: &mut Interrupts) {
    tokio::select! {
        () = client.close("done") => {}
        () = interrupts.next() => {}
    }
}
