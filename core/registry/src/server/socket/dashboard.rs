//! `/dashboard/ws`, decided without a socket or a clock (REG-340 to REG-349).

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::{Map, Value};

use super::message::{self, Now, Said};
use super::pace::Pace;
use super::public::next_tick;
use crate::server::auth::{Guard, Role};
use crate::server::config::SocketSettings;
use crate::server::dashboard::Level;

/// What a frame shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// Figures (REG-343).
    Monitoring,
    /// Parts and their state (REG-344).
    Health,
    /// All agents (REG-345).
    Agents,
    /// The log (REG-346).
    Logs(Logs),
    /// Alerts this socket has not seen (REG-347); nothing when there are none.
    Alerts,
}

/// Which log entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Logs {
    /// All of them, changed or not.
    All,
    /// All of them, if they changed since this socket's last logs frame (D-37).
    AllIfChanged,
    /// Those since this socket's last logs frame.
    Delta,
}

/// What is to be remembered for all dashboards.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Record {
    /// A line of the log about this dashboard.
    Line(Level, &'static str),
    /// What the page logs.
    Log(Map<String, Value>),
    /// What the page alerts.
    Alert(Map<String, Value>),
    /// Empty the log.
    ClearLogs,
    /// Empty the alerts.
    ClearAlerts,
}

/// Commands for which the page asks the session's PIN (REG-404, REG-405).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guarded {
    Pause,
    Resume,
    ClearLogs,
    ClearAlerts,
}

/// What the socket is to do next.
#[derive(Debug, PartialEq)]
pub(crate) enum Act {
    /// Send this text.
    Text(String),
    /// Ask who the token is, and call [`DashboardSocket::identified`].
    Identify(String),
    /// Take a place among the authenticated; call [`DashboardSocket::full`] when there is none.
    Enter,
    /// See whether the session may do this now, and call [`DashboardSocket::allowed`] or [`DashboardSocket::refused`].
    Guard(Guarded),
    /// Send a frame.
    Show(View),
    /// Remember.
    Record(Record),
    /// Send `{"type": ..., "timestamp": ..., "data": {"status": ..., "message": ...}}`.
    Acknowledge(&'static str, &'static str, Option<&'static str>),
    /// Close with this code and reason.
    Close(u16, &'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The authentication frame is to come until then.
    Asked(Duration),
    /// A token is being looked at.
    Checked,
    Open,
    Closed,
}

/// One dashboard socket.
#[derive(Debug)]
pub(crate) struct DashboardSocket {
    limits: SocketSettings,
    state: State,
    paused: bool,
    deltas: bool,
    next_frames: Duration,
    next_ping: Duration,
    pace: Pace,
    acts: VecDeque<Act>,
}

impl DashboardSocket {
    pub(crate) fn open(now: Now, limits: SocketSettings) -> Self {
        DashboardSocket {
            limits,
            state: State::Asked(now.mono + limits.timeout),
            paused: false,
            deltas: false,
            next_frames: Duration::MAX,
            next_ping: Duration::MAX,
            pace: Pace::default(),
            acts: VecDeque::new(),
        }
    }

    pub(crate) fn text(&mut self, now: Now, text: &str) {
        match self.state {
            State::Asked(_) => self.credentials(text),
            State::Open => self.message(now, text),
            State::Checked | State::Closed => {}
        }
    }

    fn credentials(&mut self, text: &str) {
        let object = match message::read(text) {
            Said::Object(object) => object,
            Said::Other => return self.close(4001, "Auth frame required"),
            Said::NotJson | Said::Ping | Said::Pong => return self.close(4000, "Internal server error"),
        };
        if object.get("type").and_then(Value::as_str) != Some("auth") {
            return self.close(4001, "Auth frame required");
        }
        self.deltas = object.get("logs").and_then(Value::as_str) == Some("delta");
        match object.get("token") {
            Some(Value::String(token)) if !token.is_empty() => {
                self.state = State::Checked;
                self.acts.push_back(Act::Identify(token.clone()));
            }
            None | Some(Value::Null | Value::String(_)) => self.close(4001, "Authentication token required"),
            Some(_) => self.close(4001, "Invalid token"),
        }
    }

    /// Who the token was; `None` for a token that is not valid.
    pub(crate) fn identified(&mut self, now: Now, role: Option<Role>) {
        match role {
            None => self.close(4001, "Invalid token"),
            Some(Role::User | Role::Agent) => self.close(4003, "Admin role required"),
            Some(Role::Admin) => {
                self.state = State::Open;
                self.next_frames = now.mono + self.limits.interval;
                self.heard(now);
                self.acts.push_back(Act::Enter);
                self.show([View::Monitoring, View::Health, View::Agents, View::Logs(Logs::All), View::Alerts]);
            }
        }
    }

    /// All places were taken while this socket said who it is.
    pub(crate) fn full(&mut self) {
        self.acts.clear();
        self.close(1013, "Too many connections");
    }

    fn close(&mut self, code: u16, reason: &'static str) {
        self.state = State::Closed;
        self.acts.push_back(Act::Close(code, reason));
    }

    fn show<const N: usize>(&mut self, views: [View; N]) {
        self.acts.extend(views.map(Act::Show));
    }

    fn changed_logs(&self) -> View {
        View::Logs(if self.deltas { Logs::Delta } else { Logs::AllIfChanged })
    }

    fn heard(&mut self, now: Now) {
        self.next_ping = now.mono + Duration::from_secs(60).max(self.limits.ping_interval * 2);
    }

    fn message(&mut self, now: Now, text: &str) {
        self.heard(now);
        match message::read(text) {
            Said::Ping => self.acts.push_back(Act::Text("pong".into())),
            Said::Pong => {}
            Said::NotJson | Said::Other => self.pace.count(now.mono),
            Said::Object(object) => {
                self.pace.count(now.mono);
                self.command(now, object);
            }
        }
    }

    fn command(&mut self, now: Now, mut object: Map<String, Value>) {
        let data = match object.remove("data") {
            Some(Value::Object(data)) => data,
            _ => Map::new(),
        };
        match object.get("type").and_then(Value::as_str).unwrap_or_default() {
            // The guide promises both forms everywhere.
            "ping" => self.acts.push_back(Act::Text(message::pong(now))),
            "pause_monitoring" => self.acts.push_back(Act::Guard(Guarded::Pause)),
            "resume_monitoring" => self.acts.push_back(Act::Guard(Guarded::Resume)),
            "clear_logs" => self.acts.push_back(Act::Guard(Guarded::ClearLogs)),
            "clear_alerts" => self.acts.push_back(Act::Guard(Guarded::ClearAlerts)),
            "refresh_request" => {
                self.acts.push_back(Act::Record(Record::Line(Level::Info, "Manual refresh requested")));
                self.show([View::Monitoring, View::Health, View::Agents, View::Logs(Logs::All), View::Alerts]);
                self.acts.push_back(Act::Acknowledge("refresh_ack", "completed", Some("Fresh data sent")));
            }
            "agents_request" => {
                self.show([View::Agents]);
                self.acts.push_back(Act::Acknowledge("agents_ack", "completed", Some("Agents data sent")));
            }
            "dashboard_log" => self.acts.push_back(Act::Record(Record::Log(data))),
            "dashboard_alert" => self.acts.push_back(Act::Record(Record::Alert(data))),
            _ => {}
        }
    }

    /// A guarded command may be done; nothing else has been done since it was asked for.
    pub(crate) fn allowed(&mut self, command: Guarded) {
        let line = |level, text| Act::Record(Record::Line(level, text));
        let done = |ack, text| Act::Acknowledge(ack, "completed", Some(text));
        let acts = match command {
            Guarded::Pause => {
                self.paused = true;
                let told = line(Level::Warning, "Dashboard monitoring paused");
                vec![told, Act::Acknowledge("pause_ack", "paused", None)]
            }
            Guarded::Resume => {
                self.paused = false;
                let told = line(Level::Info, "Dashboard monitoring resumed");
                let (monitoring, health) = (Act::Show(View::Monitoring), Act::Show(View::Health));
                vec![told, monitoring, health, Act::Acknowledge("resume_ack", "resumed", None)]
            }
            Guarded::ClearLogs => {
                vec![Act::Record(Record::ClearLogs), done("clear_logs_ack", "Backend logs cleared successfully")]
            }
            Guarded::ClearAlerts => {
                vec![Act::Record(Record::ClearAlerts), done("clear_alerts_ack", "Backend alerts cleared successfully")]
            }
        };
        // Before what else was decided meanwhile.
        for act in acts.into_iter().rev() {
            self.acts.push_front(act);
        }
    }

    /// A guarded command waits for the PIN, or for a login.
    pub(crate) fn refused(&mut self, guard: Guard) {
        let (status, text) = match guard {
            Guard::NoSession => {
                ("session_required", "This token has no session: log in, and open the dashboard with the login's token")
            }
            Guard::Open | Guard::PinDue => (
                "pin_required",
                "This session has a PIN: verify it with POST /auth/verify_pin, then repeat the command within a minute",
            ),
        };
        self.acts.push_front(Act::Acknowledge("error", status, Some(text)));
    }

    /// A dashboard logged something that all are to see now.
    pub(crate) fn changed(&mut self) {
        if self.state == State::Open {
            let logs = self.changed_logs();
            self.show([logs]);
        }
    }

    /// Does what is due.
    pub(crate) fn timeout(&mut self, now: Now) {
        match self.state {
            State::Asked(until) if now.mono >= until => self.close(4000, "Internal server error"),
            State::Open => {
                if now.mono >= self.next_frames {
                    self.next_frames = next_tick(self.next_frames, self.limits.interval, now.mono);
                    let logs = self.changed_logs();
                    if self.paused {
                        self.show([View::Agents, logs]);
                    } else {
                        self.show([View::Monitoring, View::Health, View::Agents, logs, View::Alerts]);
                    }
                }
                if now.mono >= self.next_ping {
                    self.heard(now);
                    self.acts.push_back(Act::Text("ping".into()));
                }
            }
            _ => {}
        }
    }

    /// When `timeout` is to be called.
    pub(crate) fn next_timeout(&self) -> Duration {
        match self.state {
            State::Asked(until) => until,
            State::Open => self.next_frames.min(self.next_ping),
            State::Checked | State::Closed => Duration::MAX,
        }
    }

    /// When the next message may be read, if not now.
    pub(crate) fn held_until(&self, now: Duration) -> Option<Duration> {
        self.pace.held_until(now)
    }

    pub(crate) fn next_act(&mut self) -> Option<Act> {
        self.acts.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Act; 5] = [
        Act::Show(View::Monitoring),
        Act::Show(View::Health),
        Act::Show(View::Agents),
        Act::Show(View::Logs(Logs::All)),
        Act::Show(View::Alerts),
    ];

    fn at(seconds: f64) -> Now {
        Now { mono: Duration::from_secs_f64(seconds), unix: 1_795_188_917.5 + seconds }
    }

    fn asked() -> DashboardSocket {
        let mut socket = DashboardSocket::open(at(0.0), super::super::Limits::default().dashboard);
        assert_eq!(acts(&mut socket), [], "no greeting");
        socket
    }

    fn opened(auth: &str) -> DashboardSocket {
        let mut socket = asked();
        socket.text(at(0.0), auth);
        assert_eq!(acts(&mut socket), [Act::Identify("t".into())]);
        socket.identified(at(0.0), Some(Role::Admin));
        assert_eq!(socket.next_act(), Some(Act::Enter));
        assert_eq!(acts(&mut socket), ALL);
        socket
    }

    fn plain() -> DashboardSocket {
        opened(r#"{"type":"auth","token":"t"}"#)
    }

    fn acts(socket: &mut DashboardSocket) -> Vec<Act> {
        std::iter::from_fn(|| socket.next_act()).collect()
    }

    fn ask(socket: &mut DashboardSocket, kind: &str) -> Vec<Act> {
        socket.text(at(1.0), &serde_json::json!({ "type": kind }).to_string());
        let mut all = acts(socket);
        if let [Act::Guard(command)] = all[..] {
            socket.allowed(command);
            all = acts(socket);
        }
        all
    }

    /// Rules: REG-340
    #[test]
    fn refusals_close_without_a_frame() {
        let table = [
            (r#"{"type":"hello"}"#, 4001, "Auth frame required"),
            ("{}", 4001, "Auth frame required"),
            ("[1]", 4001, "Auth frame required"),
            (r#"{"type":"auth"}"#, 4001, "Authentication token required"),
            (r#"{"type":"auth","token":""}"#, 4001, "Authentication token required"),
            (r#"{"type":"auth","token":[]}"#, 4001, "Invalid token"),
            ("{bad", 4000, "Internal server error"),
        ];
        for (text, code, reason) in table {
            let mut socket = asked();
            socket.text(at(1.0), text);
            assert_eq!(acts(&mut socket), [Act::Close(code, reason)], "{text}");
        }
        let table = [
            (None, 4001, "Invalid token"),
            (Some(Role::Agent), 4003, "Admin role required"),
            (Some(Role::User), 4003, "Admin role required"),
        ];
        for (role, code, reason) in table {
            let mut socket = asked();
            socket.text(at(1.0), r#"{"type":"auth","token":"t"}"#);
            acts(&mut socket);
            socket.identified(at(1.0), role);
            assert_eq!(acts(&mut socket), [Act::Close(code, reason)]);
        }
    }

    /// Rules: REG-340, REG-504
    #[test]
    fn silence_closes() {
        let mut socket = asked();
        assert_eq!(socket.next_timeout(), Duration::from_secs(30));
        socket.timeout(at(30.0));
        assert_eq!(acts(&mut socket), [Act::Close(4000, "Internal server error")]);
    }

    /// Rules: REG-341, REG-342, REG-504
    #[test]
    fn all_frames_on_entry_and_at_each_interval() {
        let mut socket = plain();
        assert_eq!(socket.next_timeout(), Duration::from_secs(5));
        socket.timeout(at(5.0));
        let mut expected = ALL;
        expected[3] = Act::Show(View::Logs(Logs::AllIfChanged));
        assert_eq!(acts(&mut socket), expected);
        assert_eq!(socket.next_timeout(), Duration::from_secs(10));
    }

    /// Rules: REG-346
    #[test]
    fn deltas_for_who_asks() {
        let mut socket = opened(r#"{"type":"auth","token":"t","logs":"delta"}"#);
        socket.timeout(at(5.0));
        assert!(acts(&mut socket).contains(&Act::Show(View::Logs(Logs::Delta))));
        socket.changed();
        assert_eq!(acts(&mut socket), [Act::Show(View::Logs(Logs::Delta))]);
    }

    /// Rules: REG-348
    #[test]
    fn paused_shows_agents_and_logs_only() {
        let mut socket = plain();
        let paused = ask(&mut socket, "pause_monitoring");
        assert_eq!(paused[1], Act::Acknowledge("pause_ack", "paused", None));
        socket.timeout(at(5.0));
        let shown = [Act::Show(View::Agents), Act::Show(View::Logs(Logs::AllIfChanged))];
        assert_eq!(acts(&mut socket), shown);
        let resumed = ask(&mut socket, "resume_monitoring");
        assert_eq!(resumed[1..3], ALL[..2]);
        assert_eq!(resumed[3], Act::Acknowledge("resume_ack", "resumed", None));
    }

    /// Rules: REG-348
    #[test]
    fn commands_are_acknowledged() {
        let mut socket = plain();
        let refreshed = ask(&mut socket, "refresh_request");
        assert_eq!(refreshed[1..6], ALL);
        assert_eq!(refreshed[6], Act::Acknowledge("refresh_ack", "completed", Some("Fresh data sent")));
        let agents = ask(&mut socket, "agents_request");
        assert_eq!(agents[0], Act::Show(View::Agents));
        assert_eq!(agents[1], Act::Acknowledge("agents_ack", "completed", Some("Agents data sent")));
        for (command, record, ack, text) in [
            ("clear_logs", Record::ClearLogs, "clear_logs_ack", "Backend logs cleared successfully"),
            ("clear_alerts", Record::ClearAlerts, "clear_alerts_ack", "Backend alerts cleared successfully"),
        ] {
            let expected = [Act::Record(record), Act::Acknowledge(ack, "completed", Some(text))];
            assert_eq!(ask(&mut socket, command), expected);
        }
        socket.text(at(1.0), r#"{"type":"dashboard_log","data":{"level":"SUCS"}}"#);
        assert!(matches!(acts(&mut socket)[..], [Act::Record(Record::Log(_))]));
        assert_eq!(ask(&mut socket, "dashboard_alert"), [Act::Record(Record::Alert(Map::new()))]);
    }

    /// Rules: REG-408, REG-348
    #[test]
    fn what_the_page_asks_a_pin_for_waits_for_it() {
        let mut socket = plain();
        for command in ["pause_monitoring", "resume_monitoring", "clear_logs", "clear_alerts"] {
            socket.text(at(1.0), &serde_json::json!({ "type": command }).to_string());
            assert!(matches!(acts(&mut socket)[..], [Act::Guard(_)]), "{command}");
            socket.refused(Guard::PinDue);
            assert!(matches!(acts(&mut socket)[..], [Act::Acknowledge("error", "pin_required", Some(_))]));
        }
        socket.timeout(at(5.0));
        assert_eq!(socket.next_act(), Some(Act::Show(View::Monitoring)), "not paused");
    }

    /// Rules: REG-348
    #[test]
    fn what_is_not_understood_is_ignored_and_pings_are_answered() {
        let mut socket = plain();
        for text in ["{bad", "[1]", "{}", r#"{"type":"bogus"}"#, "pong", r#"{"type":3,"data":5}"#] {
            socket.text(at(1.0), text);
            assert_eq!(acts(&mut socket), [], "{text}");
        }
        socket.text(at(1.0), " Ping ");
        assert_eq!(acts(&mut socket), [Act::Text("pong".into())]);
        assert!(matches!(&ask(&mut socket, "ping")[..], [Act::Text(pong)] if pong.contains("\"pong\"")));
    }

    /// Rules: REG-349, REG-504
    #[test]
    fn a_ping_after_a_minute_or_twice_the_interval() {
        for (interval, after) in [(30, 60), (5, 60), (50, 100)] {
            let limits = SocketSettings {
                ping_interval: Duration::from_secs(interval),
                interval: Duration::from_secs(1000),
                ..super::super::Limits::default().dashboard
            };
            let mut socket = DashboardSocket::open(at(0.0), limits);
            socket.text(at(0.0), r#"{"type":"auth","token":"t"}"#);
            socket.identified(at(0.0), Some(Role::Admin));
            acts(&mut socket);
            assert_eq!(socket.next_timeout(), Duration::from_secs(after));
            socket.timeout(at(after as f64));
            assert_eq!(acts(&mut socket), [Act::Text("ping".into())]);
        }
    }
}
