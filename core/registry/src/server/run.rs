//! Listening, serving and stopping.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arcp_store::registry::{MemoryRegistryStore, RegistrySqliteOptions, RegistryStore, SqliteRegistryStore};
use http::StatusCode;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, broadcast, watch};
use tokio::task::JoinSet;

use super::config::{Config, Database};
use super::http::router;
use super::patience::Patient;
use super::{App, AppState, TICK};
use crate::directory::ChangeKind;

/// A request's head must be there within this time, also the next one of a kept connection.
const HEAD_TIME: Duration = Duration::from_secs(75);
/// What is being answered at a stop has this long.
const GRACE: Duration = Duration::from_secs(10);
/// The machine is looked at this often.
const SAMPLE: Duration = Duration::from_secs(5);
/// Room for a request's head; MAX_HEADER_SIZE is checked after it.
const HEAD_BUFFER: usize = 128 * 1024;

/// Why the server does not run: one sentence with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {why}")]
    Listen {
        /// `host:port`.
        address: String,
        /// Why, and what to do.
        why: String,
    },
    /// What it needs cannot be opened.
    #[error("{0}")]
    Open(String),
}

/// A running server.
#[derive(Debug)]
pub struct Running {
    /// Where it listens.
    pub addr: SocketAddr,
    state: App,
    stop: watch::Sender<bool>,
    main: tokio::task::JoinHandle<()>,
}

impl Running {
    /// `http://host:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// What all requests share.
    pub fn state(&self) -> &App {
        &self.state
    }

    /// Stops: what is being answered is finished, sockets are closed, everything is kept.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        // It ends by itself, and a panic in it has been reported.
        drop(self.main.await);
    }
}

/// Serves until `shutdown` completes.
///
/// # Errors
/// When it cannot start.
pub async fn serve(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), ServeError> {
    let running = start(config).await?;
    shutdown.await;
    running.stop().await;
    Ok(())
}

/// Starts a server in tasks of its own.
///
/// # Errors
/// When the address is taken, or the database cannot be opened.
pub async fn start(config: Config) -> Result<Running, ServeError> {
    // The port first: a second server must not touch the first one's database.
    let listener = listen(&config).await?;
    let store = open_store(&config);
    start_with(config, listener, store).await
}

/// The store of the settings, not yet opened.
fn open_store(config: &Config) -> Arc<dyn RegistryStore> {
    match &config.db {
        Database::Memory => Arc::new(MemoryRegistryStore::new()),
        Database::File(path) => {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            Arc::new(SqliteRegistryStore::new(path, RegistrySqliteOptions::default()))
        }
    }
}

async fn listen(config: &Config) -> Result<TcpListener, ServeError> {
    let host = config.host.trim_start_matches('[').trim_end_matches(']');
    let address =
        if host.contains(':') { format!("[{host}]:{}", config.port) } else { format!("{host}:{}", config.port) };
    let why = |error: io::Error| ServeError::Listen {
        why: match error.kind() {
            io::ErrorKind::AddrInUse => {
                "another program listens there; stop it, or take another port with --port (0 takes a free one)".into()
            }
            io::ErrorKind::PermissionDenied => {
                "ports below 1024 are for administrators; take another with --port".into()
            }
            io::ErrorKind::AddrNotAvailable => "this machine does not have that address; see --host".into(),
            _ => format!("{error}; see --host and --port"),
        },
        address: address.clone(),
    };
    TcpListener::bind((host, config.port)).await.map_err(why)
}

async fn start_with(
    config: Config,
    listener: TcpListener,
    store: Arc<dyn RegistryStore>,
) -> Result<Running, ServeError> {
    let addr = listener.local_addr().map_err(|error| ServeError::Open(error.to_string()))?;
    let mut config = config;
    config.port = addr.port();
    let state = tokio::task::spawn_blocking(move || AppState::new(config, store)).await;
    let state = state.map_err(|error| ServeError::Open(error.to_string()))?.map_err(ServeError::Open)?;
    let state: App = Arc::new(state);
    let stop = watch::Sender::new(false);
    let main = tokio::spawn(run(state.clone(), listener, stop.subscribe()));
    Ok(Running { addr, state, stop, main })
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A handle that is gone stops it too.
    drop(stop.wait_for(|stop| *stop).await);
}

async fn run(state: App, listener: TcpListener, mut stop: watch::Receiver<bool>) {
    let mut helpers = JoinSet::new();
    helpers.spawn(tick(state.clone()));
    helpers.spawn(sample(state.clone()));
    helpers.spawn(count_changes(state.clone()));
    let sockets = state.sockets.clone();
    helpers.spawn(async move { sockets.run().await });
    let routes = router::routes(state.clone());
    let places = Arc::new(Semaphore::new(state.config.max_connections));
    let mut connections = JoinSet::new();
    loop {
        let place = tokio::select! {
            place = places.clone().acquire_owned() => place,
            () = stopped(&mut stop) => break,
        };
        let Ok(place) = place else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped(&mut stop) => break,
        };
        while connections.try_join_next().is_some() {}
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, mostly: others must end first.
                tracing::warn!("a connection cannot be accepted: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (state, routes, stop) = (state.clone(), routes.clone(), stop.clone());
        connections.spawn(async move {
            connection(state, routes, stream, peer, stop).await;
            drop(place);
        });
    }
    drop(listener);
    let closing = state.sockets.close(Duration::from_secs(2));
    let ending = async { while connections.join_next().await.is_some() {} };
    let both = async {
        tokio::join!(closing, ending);
    };
    if tokio::time::timeout(GRACE, both).await.is_err() {
        tracing::warn!("connections that were still busy were cut");
    }
    helpers.shutdown().await;
    state.dashboard.keep();
    let service = state.service.clone();
    // Blocks until everything is kept.
    drop(tokio::task::spawn_blocking(move || service.close()).await);
}

async fn connection(
    state: App,
    routes: axum::Router,
    stream: TcpStream,
    peer: SocketAddr,
    mut stop: watch::Receiver<bool>,
) {
    // Answers are written whole, so nothing is gained by waiting.
    drop(stream.set_nodelay(true));
    let is_socket = Arc::new(AtomicBool::new(false));
    let stream = Patient::new(stream, Arc::clone(&is_socket));
    let service = service_fn(move |request| {
        let (state, routes, is_socket) = (state.clone(), routes.clone(), Arc::clone(&is_socket));
        async move {
            let answer = router::answer(state, routes, peer, request).await;
            let upgrades = answer.as_ref().is_ok_and(|answer| answer.status() == StatusCode::SWITCHING_PROTOCOLS);
            is_socket.store(upgrades, Ordering::Relaxed);
            answer
        }
    });
    // Without `pipeline_flush`: it keeps an answer back while a part of the next request is there, and never sends the one
    // to a request that cannot be parsed.
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BUFFER)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("a connection from {peer} broke: {error}");
    }
}

async fn tick(state: App) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut count = 0_u32;
    loop {
        ticks.tick().await;
        state.tick();
        count = count.wrapping_add(1);
        if count.is_multiple_of(120) {
            state.auth.tidy();
        }
    }
}

async fn sample(state: App) {
    let mut ticks = tokio::time::interval(SAMPLE);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let metrics = state.metrics.clone();
        // Reads files of the system.
        drop(tokio::task::spawn_blocking(move || metrics.sample()).await);
    }
}

/// Counts agents that went.
async fn count_changes(state: App) {
    let mut changes = state.service.changes();
    loop {
        match changes.recv().await {
            Ok(change) => match change.kind {
                ChangeKind::Unregistered => state.metrics.unregistration("success", "request"),
                ChangeKind::Removed => state.metrics.unregistration("success", "silence"),
                _ => {}
            },
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}
