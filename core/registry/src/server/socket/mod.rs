//! The three WebSockets (contract section C): what each does is decided by a machine without a socket or a clock, and
//! driven by one loop. A list goes out as one shared frame, however many sockets take it; a socket that has not taken the
//! last list gets only the newest, and one that takes nothing is dropped.

mod agents;
mod board;
mod dashboard;
mod drive;
mod frame;
mod handshake;
mod ledger;
mod message;
mod pace;
mod places;
mod public;
mod sessions;
mod wire;

pub use board::EmbeddingState;
pub use frame::SharedFrame;
pub(crate) use frame::write_json;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, broadcast, watch};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, timeout};

use self::board::Board;
use self::drive::{Clock, End, Session, drive, stopped};
use self::ledger::Ledger;
use self::places::{Place, Places};
use self::sessions::{AgentSession, DashboardSession, PublicSession};
use self::wire::Wire;
use super::auth::Auth;
use super::config::{Config, SocketSettings};
use super::dashboard::{Dashboard, Event, Level, Line};
use super::metrics::Metrics;
use crate::directory::{Change, ChangeKind};
use crate::model::AgentStatus;
use crate::service::Service;

/// The connection must have changed its protocol by then.
const UPGRADE: Duration = Duration::from_secs(10);

/// The limits of all three kinds (REG-504).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `/public/ws`.
    pub public: SocketSettings,
    /// `/agents/ws`.
    pub agents: SocketSettings,
    /// `/dashboard/ws`.
    pub dashboard: SocketSettings,
}

impl Default for Limits {
    fn default() -> Self {
        let limits = |interval, max_connections| SocketSettings {
            interval: Duration::from_secs(interval),
            timeout: Duration::from_secs(30),
            ping_interval: Duration::from_secs(30),
            max_connections,
        };
        Limits { public: limits(30, 100), agents: limits(5, 100), dashboard: limits(5, 5) }
    }
}

impl From<&Config> for Limits {
    fn from(config: &Config) -> Self {
        Limits { public: config.public_ws, agents: config.agent_ws, dashboard: config.dashboard_ws }
    }
}

/// Which socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `/public/ws`.
    Public,
    /// `/agents/ws`.
    Agents,
    /// `/dashboard/ws`.
    Dashboard,
}

/// All sockets of a server. Cheap to clone.
#[derive(Clone)]
pub struct Sockets(Arc<Inner>);

struct Inner {
    limits: Limits,
    clock: Clock,
    board: Arc<Board>,
    auth: Arc<Auth>,
    public: Places,
    agents: Places,
    dashboard: Places,
    ledger: Ledger,
    /// From the beginning, so that none is missed; [`Sockets::run`] takes them.
    changes: Mutex<Option<broadcast::Receiver<Arc<Change>>>>,
    stop: watch::Sender<bool>,
    left: Notify,
}

impl fmt::Debug for Sockets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sockets").field("limits", &self.0.limits).field("live", &self.live()).finish_non_exhaustive()
    }
}

impl Sockets {
    /// None open yet. [`Sockets::run`] must be polled for changes to go out.
    pub fn new(
        limits: Limits,
        service: Service,
        auth: Arc<Auth>,
        metrics: Arc<Metrics>,
        dashboard: Dashboard,
        embedding: EmbeddingState,
    ) -> Self {
        Sockets(Arc::new(Inner {
            limits,
            clock: Clock::start(),
            auth,
            public: Places::new(limits.public.max_connections),
            agents: Places::new(limits.agents.max_connections),
            dashboard: Places::new(limits.dashboard.max_connections),
            ledger: Ledger::default(),
            changes: Mutex::new(Some(service.changes())),
            board: Arc::new(Board::new(service, dashboard, metrics, embedding)),
            stop: watch::Sender::new(false),
            left: Notify::new(),
        }))
    }

    /// Follows the registry until [`Sockets::close`]: sends lists after changes, writes them into the log, judges figures
    /// for alerts.
    pub async fn run(&self) {
        let mut stop = self.0.stop.subscribe();
        tokio::select! {
            () = Arc::clone(&self.0.board).broadcast() => {}
            () = self.follow_changes() => {}
            () = self.watch_figures() => {}
            () = self.keep_log() => {}
            () = stopped(&mut stop) => {}
        }
        self.0.board.dashboard.keep();
    }

    async fn follow_changes(&self) {
        let board = &self.0.board;
        let mut changes = self.0.changes.lock().take().unwrap_or_else(|| board.service.changes());
        loop {
            match changes.recv().await {
                Ok(change) => {
                    board.changed();
                    board.dashboard.note(told(&change));
                }
                Err(RecvError::Lagged(_)) => board.changed(),
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }

    /// What happened is kept a second later at most; lines of a crowd of agents are kept together.
    async fn keep_log(&self) {
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.0.board.dashboard.keep();
        }
    }

    /// Every DASHBOARD_WS_INTERVAL, whether a dashboard is open or not (REG-347).
    async fn watch_figures(&self) {
        let dashboard = &self.0.board.dashboard;
        dashboard.log(Line::new(
            Level::Info,
            "system",
            "Dashboard producer task started - real-time monitoring active",
        ));
        let mut ticks = tokio::time::interval(self.0.limits.dashboard.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let board = Arc::clone(&self.0.board);
            if let Ok(figures) = spawn_blocking(move || board.figures()).await {
                dashboard.judge(self.0.clock.now().mono, &figures);
            }
        }
    }

    /// Answers a handshake and, when it is accepted, serves the socket in a task of its own. `peer` is the address the
    /// connection comes from. The place is taken here, by sockets that have yet to authenticate too (REG-300). The
    /// connection must have been made with `TCP_NODELAY`, and be served with upgrades.
    pub fn accept<B>(&self, kind: Kind, peer: IpAddr, mut request: Request<B>) -> Response<Body> {
        let accepted = match handshake::answer(&request) {
            Ok(accepted) => accepted,
            Err(refused) => return *refused,
        };
        let inner = &self.0;
        let place = match kind {
            _ if *inner.stop.borrow() => None,
            Kind::Public => inner.public.seat(),
            Kind::Agents => inner.agents.wait(peer),
            Kind::Dashboard => inner.dashboard.wait(peer),
        };
        let Some(place) = place else { return handshake::full() };
        let (open, upgrade) = (Open::new(self.clone()), hyper::upgrade::on(&mut request));
        tokio::spawn(open.serve(kind, place, upgrade));
        accepted
    }

    /// Sockets open now, authenticated or not.
    pub fn live(&self) -> usize {
        self.0.public.live() + self.0.agents.live() + self.0.dashboard.live()
    }

    /// Closes all sockets with 1001 and waits until they are gone, at most for `patience`. New ones are refused.
    pub async fn close(&self, patience: Duration) {
        self.0.stop.send_replace(true);
        let gone = async {
            loop {
                let left = self.0.left.notified();
                if self.live() == 0 {
                    return;
                }
                left.await;
            }
        };
        // What is still open then ends with the process.
        timeout(patience, gone).await.ok();
    }
}

/// An open socket, as the figures count it.
struct Open(Sockets);

impl Open {
    fn new(sockets: Sockets) -> Self {
        sockets.0.board.metrics.socket_opened();
        Open(sockets)
    }

    async fn serve(self, kind: Kind, place: Place, upgrade: OnUpgrade) {
        let Ok(Ok(connection)) = timeout(UPGRADE, upgrade).await else { return };
        let inner = &self.0.0;
        let (now, board, auth) = (inner.clock.now(), Arc::clone(&inner.board), Arc::clone(&inner.auth));
        let limits = match kind {
            Kind::Public => inner.limits.public,
            Kind::Agents => inner.limits.agents,
            Kind::Dashboard => inner.limits.dashboard,
        };
        let wire = Wire::new(TokioIo::new(connection), limits.timeout).await;
        match kind {
            Kind::Public => self.run(wire, PublicSession::new(now, limits, board, place)).await,
            Kind::Agents => self.run(wire, AgentSession::new(now, limits, board, auth, place)).await,
            Kind::Dashboard => self.run(wire, DashboardSession::new(now, limits, board, auth, place)).await,
        }
    }

    async fn run<M: Session>(&self, wire: Wire<TokioIo<hyper::upgrade::Upgraded>>, mut session: M) {
        let inner = &self.0.0;
        let end = drive(wire, &mut session, inner.clock, &inner.ledger, inner.stop.subscribe()).await;
        if end == End::TooSlow {
            tracing::info!("a socket was dropped: it did not take what was sent in time");
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.0.board.metrics.socket_closed();
        // The place was given back before: it is a part of what ran.
        self.0.0.left.notify_waiters();
    }
}

/// A change as the log tells it.
fn told(change: &Change) -> Event<'_> {
    let agent_id = &*change.agent_id;
    match change.kind {
        ChangeKind::Registered => Event::AgentRegistered { agent_id, agent_type: change.agent.agent_type() },
        ChangeKind::Unregistered => Event::AgentUnregistered { agent_id },
        ChangeKind::StatusChanged(AgentStatus::Dead) => Event::AgentDead { agent_id },
        ChangeKind::StatusChanged(AgentStatus::Alive) => Event::AgentAlive { agent_id },
        ChangeKind::Removed => Event::AgentRemoved { agent_id },
    }
}
