//! The client's session that `submit`, `tail`, `cancel` and `jobs` open.

use std::future::pending;
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use arcp::message::Welcome;
use arcp::transport::tls;
use arcp::{
    Backoff, Client, ClientConfig, ClientInfo, ConnectOptions, ConnectionState, Error, IMPL_VERSION, WebSocketTransport,
};
use tokio::sync::watch;

use crate::args::{SessionArgs, read_file};
use crate::exit::Failure;
use crate::output::shown;
use crate::signals::Interrupts;

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
    let give_up_after = Some(Duration::from_secs(args.reconnect));
    config.reconnect = (args.reconnect > 0).then(|| Backoff { give_up_after, ..Backoff::default() });
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

/// Tells a person at a terminal that the connection was lost, and that there is one again.
pub(crate) struct Cuts {
    state: Option<watch::Receiver<ConnectionState>>,
    lost: bool,
}

impl Cuts {
    pub(crate) fn of(client: &Client, quiet: bool) -> Cuts {
        let shows = !quiet && std::io::stderr().is_terminal();
        Cuts { state: shows.then(|| client.connection_state()), lost: false }
    }

    /// The next line to show; never when nobody is there to read it, or the session is over.
    pub(crate) async fn next(&mut self) -> String {
        while let Some(state) = &mut self.state {
            if state.changed().await.is_err() {
                self.state = None;
                break;
            }
            let line = line(&state.borrow_and_update(), &mut self.lost);
            if let Some(line) = line {
                return line;
            }
        }
        pending().await
    }
}

fn line(state: &ConnectionState, lost: &mut bool) -> Option<String> {
    match state {
        ConnectionState::Reconnecting { reason, .. } if !*lost => {
            *lost = true;
            Some(format!("the connection was lost ({}); reconnecting…", shown(reason)))
        }
        ConnectionState::Open(_) if *lost => {
            *lost = false;
            Some("connected again".to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_is_told_once_however_often_it_is_tried() {
        let mut lost = false;
        let cut = |attempt| ConnectionState::Reconnecting { reason: "reset\nby peer".into(), attempt };
        let told = line(&cut(0), &mut lost);
        assert_eq!(told.as_deref(), Some("the connection was lost (reset\\nby peer); reconnecting…"));
        assert_eq!(line(&cut(1), &mut lost), None);
        assert_eq!(line(&ConnectionState::Connecting, &mut lost), None);
        assert!(lost);
        let over = ConnectionState::Closed(Error::Closed("done".into()));
        assert_eq!(line(&over, &mut lost), None);
    }
}
