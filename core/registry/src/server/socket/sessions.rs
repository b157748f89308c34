//! The three machines joined to the registry, the tokens and the dashboard.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::agents::{self, AgentSocket};
use super::board::{Board, FRESH, RECENT};
use super::dashboard::{self, DashboardSocket, Logs, Record, View};
use super::drive::{Session, Step};
use super::frame::SharedFrame;
use super::message::Now;
use super::places::Place;
use super::public::{self, PublicSocket};
use crate::server::auth::{Auth, Guard, Role, TokenHash};
use crate::server::config::SocketSettings;
use crate::server::dashboard::{Level, Line, Read, data_frame};

/// Waits for a newer value; for ever when there will be none.
async fn newer<T>(receiver: &mut watch::Receiver<T>) {
    if receiver.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn text(text: &str) -> Step {
    Step::Send(SharedFrame::text(text))
}

fn role(auth: &Auth, token: &str) -> Option<Role> {
    auth.verify(token).ok().map(|verified| verified.claims.role)
}

pub(super) struct PublicSession {
    machine: PublicSocket,
    board: Arc<Board>,
    updates: watch::Receiver<Option<SharedFrame>>,
    _place: Place,
}

impl PublicSession {
    pub(super) fn new(now: Now, limits: SocketSettings, board: Arc<Board>, place: Place) -> Self {
        let updates = board.updates();
        PublicSession { machine: PublicSocket::open(now, limits), board, updates, _place: place }
    }
}

impl Session for PublicSession {
    fn text(&mut self, now: Now, text: &str) {
        self.machine.text(now, text);
    }

    fn timeout(&mut self, now: Now) {
        self.machine.timeout(now);
    }

    fn next_timeout(&self) -> Duration {
        self.machine.next_timeout()
    }

    fn held_until(&self, now: Duration) -> Option<Duration> {
        self.machine.held_until(now)
    }

    async fn news(&mut self) {
        newer(&mut self.updates).await;
    }

    fn told(&mut self, _now: Now) {
        self.machine.changed();
    }

    async fn next(&mut self, _now: Now) -> Option<Step> {
        Some(match self.machine.next_act()? {
            public::Act::Text(said) => text(&said),
            public::Act::Stats => Step::Send(self.board.stats()),
            public::Act::Discovery(page) => Step::Send(self.board.discovery(&page)),
            public::Act::Update => self.updates.borrow_and_update().clone().map_or(Step::Quiet, Step::Send),
        })
    }
}

pub(super) struct AgentSession {
    machine: AgentSocket,
    board: Arc<Board>,
    auth: Arc<Auth>,
    /// From the moment it is authenticated.
    lists: Option<watch::Receiver<Option<SharedFrame>>>,
    place: Place,
}

impl AgentSession {
    pub(super) fn new(now: Now, limits: SocketSettings, board: Arc<Board>, auth: Arc<Auth>, place: Place) -> Self {
        AgentSession { machine: AgentSocket::open(now, limits), board, auth, lists: None, place }
    }
}

impl Session for AgentSession {
    fn text(&mut self, now: Now, text: &str) {
        self.machine.text(now, text);
    }

    fn timeout(&mut self, now: Now) {
        self.machine.timeout(now);
    }

    fn next_timeout(&self) -> Duration {
        self.machine.next_timeout()
    }

    fn held_until(&self, now: Duration) -> Option<Duration> {
        self.machine.held_until(now)
    }

    async fn news(&mut self) {
        match &mut self.lists {
            Some(lists) => newer(lists).await,
            None => std::future::pending().await,
        }
    }

    fn told(&mut self, now: Now) {
        self.machine.changed(now);
    }

    async fn next(&mut self, now: Now) -> Option<Step> {
        Some(match self.machine.next_act()? {
            agents::Act::Text(said) => text(&said),
            agents::Act::Identify(token) => {
                self.machine.identified(now, role(&self.auth, &token));
                Step::Quiet
            }
            agents::Act::Enter => {
                if self.place.take_seat() {
                    self.lists = Some(self.board.lists());
                } else {
                    self.machine.full();
                }
                Step::Quiet
            }
            agents::Act::List => Step::Send(self.board.list(RECENT).await),
            agents::Act::Close(code, reason) => Step::Close(code, reason),
        })
    }
}

pub(super) struct DashboardSession {
    machine: DashboardSocket,
    board: Arc<Board>,
    auth: Arc<Auth>,
    told: watch::Receiver<u64>,
    /// The hash of the token that opened it.
    token: Option<TokenHash>,
    place: Place,
    /// How far its log reads.
    read: Read,
    /// The number of the newest alert it has.
    alerts: u64,
    entered: bool,
}

impl DashboardSession {
    pub(super) fn new(now: Now, limits: SocketSettings, board: Arc<Board>, auth: Arc<Auth>, place: Place) -> Self {
        DashboardSession {
            machine: DashboardSocket::open(now, limits),
            told: board.dashboard.told(),
            board,
            auth,
            token: None,
            place,
            read: Read::default(),
            alerts: 0,
            entered: false,
        }
    }

    fn log(&self, level: Level, message: impl Into<String>) {
        self.board.dashboard.log(Line::new(level, "dashboard", message));
    }

    fn enter(&mut self) {
        if self.place.take_seat() {
            self.entered = true;
            let total = self.place.seated();
            self.log(Level::Info, format!("New dashboard connection established ({total} total)"));
        } else {
            self.machine.full();
        }
    }

    fn record(&self, record: &Record) {
        match record {
            Record::Line(level, message) => self.log(*level, *message),
            Record::Log(data) => {
                self.board.dashboard.page_logged(data);
            }
            Record::Alert(data) => self.board.dashboard.page_alerted(data),
            Record::ClearLogs => self.board.dashboard.clear_logs(),
            Record::ClearAlerts => self.board.dashboard.clear_alerts(),
        }
    }

    async fn show(&mut self, view: View) -> Step {
        match view {
            View::Monitoring => Step::Send(self.board.monitoring(FRESH).await),
            View::Health => Step::Send(self.board.health(FRESH).await),
            View::Agents => Step::Send(self.board.agents(FRESH).await),
            View::Logs(logs) => self.logs(logs),
            View::Alerts => {
                let (frame, newest) = self.board.dashboard.alerts_since(self.alerts);
                self.alerts = newest;
                frame.map_or(Step::Quiet, Step::Send)
            }
        }
    }

    fn logs(&mut self, logs: Logs) -> Step {
        let dashboard = &self.board.dashboard;
        let frame = match logs {
            Logs::AllIfChanged if dashboard.log_end() == self.read => None,
            Logs::All | Logs::AllIfChanged => Some(dashboard.whole_log()),
            Logs::Delta => dashboard.log_since(self.read),
        };
        let Some((frame, read)) = frame else { return Step::Quiet };
        self.read = read;
        Step::Send(frame)
    }
}

impl Session for DashboardSession {
    fn text(&mut self, now: Now, text: &str) {
        self.machine.text(now, text);
    }

    fn timeout(&mut self, now: Now) {
        self.machine.timeout(now);
    }

    fn next_timeout(&self) -> Duration {
        self.machine.next_timeout()
    }

    fn held_until(&self, now: Duration) -> Option<Duration> {
        self.machine.held_until(now)
    }

    async fn news(&mut self) {
        newer(&mut self.told).await;
    }

    fn told(&mut self, _now: Now) {
        self.machine.changed();
    }

    async fn next(&mut self, now: Now) -> Option<Step> {
        Some(match self.machine.next_act()? {
            dashboard::Act::Text(said) => text(&said),
            dashboard::Act::Identify(token) => {
                let verified = self.auth.verify(&token).ok();
                self.token = verified.as_ref().map(|verified| verified.hash);
                self.machine.identified(now, verified.map(|verified| verified.claims.role));
                Step::Quiet
            }
            dashboard::Act::Enter => {
                self.enter();
                Step::Quiet
            }
            dashboard::Act::Guard(command) => {
                match self.token.as_ref().map_or(Guard::NoSession, |token| self.auth.guard(token)) {
                    Guard::Open => self.machine.allowed(command),
                    refused => self.machine.refused(refused),
                }
                Step::Quiet
            }
            dashboard::Act::Show(view) => self.show(view).await,
            dashboard::Act::Record(record) => {
                self.record(&record);
                Step::Quiet
            }
            dashboard::Act::Acknowledge(kind, status, message) => Step::Send(acknowledgement(kind, status, message)),
            dashboard::Act::Close(code, reason) => Step::Close(code, reason),
        })
    }
}

impl Drop for DashboardSession {
    fn drop(&mut self) {
        if self.entered {
            let left = self.place.seated().saturating_sub(1);
            self.log(Level::Info, format!("Dashboard connection disconnected ({left} remaining)"));
        }
    }
}

/// `{"type": ..., "timestamp": ..., "data": {"status": ..., "message": ...}}` (REG-348).
fn acknowledgement(kind: &str, status: &str, message: Option<&str>) -> SharedFrame {
    data_frame(kind, |out| {
        let message = message.map_or_else(String::new, |message| format!(r#","message":"{message}""#));
        out.extend_from_slice(format!(r#"{{"status":"{status}"{message}}}"#).as_bytes());
    })
}
