//! `/agents/ws`, decided without a socket or a clock (REG-330 to REG-336).

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::Value;

use super::message::{self, Now, Said};
use super::pace::Pace;
use crate::server::auth::Role;
use crate::server::config::SocketSettings;

const AUTH_REQUIRED: &str = r#"{"type":"auth_required","message":"Send your authentication token"}"#;
const AUTH_SUCCESS: &str = r#"{"type":"auth_success","message":"Authentication successful"}"#;

/// The close code of every refusal (REG-331).
const POLICY: u16 = 1008;

/// What the socket is to do next.
#[derive(Debug, PartialEq)]
pub(crate) enum Act {
    /// Send this text.
    Text(String),
    /// Ask who the token is, and call [`AgentSocket::identified`].
    Identify(String),
    /// Take a place among the authenticated; call [`AgentSocket::full`] when there is none.
    Enter,
    /// Send the array of all agents.
    List,
    /// Close with this code and reason.
    Close(u16, &'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A token is to come until then.
    Asked(Duration),
    /// A token is being looked at.
    Checked,
    Open,
    Closed,
}

/// One agent socket.
#[derive(Debug)]
pub(crate) struct AgentSocket {
    limits: SocketSettings,
    state: State,
    next_list: Duration,
    next_ping: Duration,
    pace: Pace,
    acts: VecDeque<Act>,
}

impl AgentSocket {
    pub(crate) fn open(now: Now, limits: SocketSettings) -> Self {
        AgentSocket {
            limits,
            state: State::Asked(now.mono + limits.timeout),
            next_list: Duration::MAX,
            next_ping: Duration::MAX,
            pace: Pace::default(),
            acts: VecDeque::from([Act::Text(AUTH_REQUIRED.into())]),
        }
    }

    pub(crate) fn text(&mut self, now: Now, text: &str) {
        match self.state {
            State::Asked(_) => self.credentials(text),
            State::Open => self.command(now, text),
            State::Checked | State::Closed => {}
        }
    }

    fn credentials(&mut self, text: &str) {
        let token = match message::read(text) {
            Said::Object(mut object) => object.remove("token").unwrap_or_default(),
            Said::Other => return self.refuse("Authentication failed", "Authentication failed"),
            Said::NotJson | Said::Ping | Said::Pong => return self.refuse("Invalid JSON", "Invalid JSON"),
        };
        match token {
            Value::String(token) if !token.is_empty() => {
                self.state = State::Checked;
                self.acts.push_back(Act::Identify(token));
            }
            Value::Null | Value::String(_) => self.refuse("Token required", "Authentication required"),
            _ => self.refuse("Invalid token", "Invalid token"),
        }
    }

    /// Who the token was; `None` for a token that is not valid. All roles but `user` are let in, temporary tokens
    /// included (REG-332).
    pub(crate) fn identified(&mut self, now: Now, role: Option<Role>) {
        match role {
            None => self.refuse("Invalid token", "Invalid token"),
            Some(Role::User) => self.refuse("Insufficient permissions", "Insufficient permissions"),
            Some(Role::Agent | Role::Admin) => {
                self.state = State::Open;
                self.next_list = now.mono + self.limits.interval;
                self.next_ping = now.mono + self.limits.ping_interval;
                self.acts.extend([Act::Enter, Act::Text(AUTH_SUCCESS.into()), Act::List]);
            }
        }
    }

    /// All places were taken while this socket said who it is.
    pub(crate) fn full(&mut self) {
        self.acts.clear();
        self.close(1013, "Too many connections");
    }

    fn refuse(&mut self, text: &str, reason: &'static str) {
        self.acts.push_back(Act::Text(message::typed("auth_error", text)));
        self.close(POLICY, reason);
    }

    fn close(&mut self, code: u16, reason: &'static str) {
        self.state = State::Closed;
        self.acts.push_back(Act::Close(code, reason));
    }

    fn command(&mut self, now: Now, text: &str) {
        self.next_ping = now.mono + self.limits.ping_interval;
        match message::read(text) {
            Said::Ping => self.acts.push_back(Act::Text("pong".into())),
            Said::Object(object) if object.get("type").and_then(Value::as_str) == Some("ping") => {
                self.pace.count(now.mono);
                self.acts.push_back(Act::Text(message::pong(now)));
            }
            // Ignored, and without deafness (REG-334).
            _ => self.pace.count(now.mono),
        }
    }

    /// The list of agents changed (REG-333).
    pub(crate) fn changed(&mut self, now: Now) {
        if self.state == State::Open {
            self.next_list = now.mono + self.limits.interval;
            self.acts.push_back(Act::List);
        }
    }

    /// Does what is due.
    pub(crate) fn timeout(&mut self, now: Now) {
        match self.state {
            State::Asked(until) if now.mono >= until => self.close(POLICY, "Authentication timeout"),
            State::Open => {
                if now.mono >= self.next_list {
                    self.next_list = now.mono + self.limits.interval;
                    self.acts.push_back(Act::List);
                }
                if now.mono >= self.next_ping {
                    self.next_ping = now.mono + self.limits.ping_interval;
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
            State::Open => self.next_list.min(self.next_ping),
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

    fn at(seconds: f64) -> Now {
        Now { mono: Duration::from_secs_f64(seconds), unix: 1_795_188_917.5 + seconds }
    }

    fn asked() -> AgentSocket {
        let limits = super::super::Limits::default().agents;
        let mut socket = AgentSocket::open(at(0.0), limits);
        assert_eq!(acts(&mut socket), [Act::Text(AUTH_REQUIRED.into())]);
        socket
    }

    fn opened() -> AgentSocket {
        let mut socket = asked();
        socket.text(at(0.0), r#"{"token":"t"}"#);
        assert_eq!(acts(&mut socket), [Act::Identify("t".into())]);
        socket.identified(at(0.0), Some(Role::Agent));
        acts(&mut socket);
        socket
    }

    fn acts(socket: &mut AgentSocket) -> Vec<Act> {
        std::iter::from_fn(|| socket.next_act()).collect()
    }

    fn error(text: &str, reason: &'static str) -> Vec<Act> {
        let frame = format!(r#"{{"type":"auth_error","message":"{text}"}}"#);
        vec![Act::Text(frame), Act::Close(1008, reason)]
    }

    /// Rules: REG-330, REG-332
    #[test]
    fn a_valid_token_opens_the_list() {
        for role in [Role::Agent, Role::Admin] {
            let mut socket = asked();
            socket.text(at(1.0), r#"{"token":"t"}"#);
            assert_eq!(acts(&mut socket), [Act::Identify("t".into())]);
            socket.identified(at(1.0), Some(role));
            assert_eq!(acts(&mut socket), [Act::Enter, Act::Text(AUTH_SUCCESS.into()), Act::List]);
        }
    }

    /// Rules: REG-331
    #[test]
    fn refusals_say_why_and_close_with_1008() {
        let table = [
            (r#"{"foo":1}"#, "Token required", "Authentication required"),
            (r#"{"token":""}"#, "Token required", "Authentication required"),
            (r#"{"token":7}"#, "Invalid token", "Invalid token"),
            ("{bad", "Invalid JSON", "Invalid JSON"),
            ("ping", "Invalid JSON", "Invalid JSON"),
            ("[1]", "Authentication failed", "Authentication failed"),
        ];
        for (text, said, reason) in table {
            let mut socket = asked();
            socket.text(at(1.0), text);
            assert_eq!(acts(&mut socket), error(said, reason), "{text}");
            socket.text(at(1.0), r#"{"token":"t"}"#);
            assert_eq!(acts(&mut socket), [], "nothing is heard after a refusal");
        }
        for (role, said) in [(None, "Invalid token"), (Some(Role::User), "Insufficient permissions")] {
            let mut socket = asked();
            socket.text(at(1.0), r#"{"token":"t"}"#);
            acts(&mut socket);
            socket.identified(at(1.0), role);
            assert_eq!(
                acts(&mut socket),
                error(said, if role.is_none() { "Invalid token" } else { "Insufficient permissions" })
            );
        }
    }

    /// Rules: REG-331, REG-504
    #[test]
    fn silence_is_closed_without_a_frame() {
        let mut socket = asked();
        assert_eq!(socket.next_timeout(), Duration::from_secs(30));
        socket.timeout(at(30.0));
        assert_eq!(acts(&mut socket), [Act::Close(1008, "Authentication timeout")]);
    }

    /// Rules: REG-333, REG-336, REG-504
    #[test]
    fn the_list_comes_at_changes_and_at_intervals() {
        let mut socket = opened();
        assert_eq!(socket.next_timeout(), Duration::from_secs(5));
        socket.timeout(at(5.0));
        assert_eq!(acts(&mut socket), [Act::List]);
        socket.changed(at(7.0));
        assert_eq!(acts(&mut socket), [Act::List]);
        assert_eq!(socket.next_timeout(), Duration::from_secs(12));
        let mut stranger = asked();
        stranger.changed(at(1.0));
        assert_eq!(acts(&mut stranger), [], "nothing before the token");
    }

    /// Rules: REG-334
    #[test]
    fn pings_of_both_forms_are_answered_and_the_rest_ignored() {
        let mut socket = opened();
        for text in ["PING", "pong", "{bad", "[1]", "{}", r#"{"type":"bogus"}"#, r#"{"type":"ping"}"#] {
            socket.text(at(1.0), text);
        }
        let expected = [Act::Text("pong".into()), Act::Text(r#"{"type":"pong","timestamp":1795188918.5}"#.into())];
        assert_eq!(acts(&mut socket), expected);
    }

    /// Rules: REG-335, REG-504
    #[test]
    fn a_ping_after_silence() {
        let mut socket = opened();
        socket.text(at(20.0), "pong");
        socket.timeout(at(30.0));
        assert_eq!(acts(&mut socket), [Act::List]);
        socket.timeout(at(50.0));
        assert_eq!(acts(&mut socket), [Act::List, Act::Text("ping".into())]);
    }

    /// Rules: REG-300
    #[test]
    fn a_place_lost_meanwhile_closes() {
        let mut socket = asked();
        socket.text(at(1.0), r#"{"token":"t"}"#);
        acts(&mut socket);
        socket.identified(at(1.0), Some(Role::Agent));
        assert_eq!(socket.next_act(), Some(Act::Enter));
        socket.full();
        assert_eq!(acts(&mut socket), [Act::Close(1013, "Too many connections")]);
    }
}
