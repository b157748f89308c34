//! `/public/ws`, decided without a socket or a clock (REG-310 to REG-320).

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::{Map, Value};

use super::message::{self, Now, Said};
use super::pace::Pace;
use crate::server::config::SocketSettings;

/// The greeting (REG-310).
pub(crate) const WELCOME: &str = concat!(
    r#"{"type":"welcome","message":"Connected to ARCP Public API WebSocket","#,
    r#""features":["agent_updates","public_stats","discovery_events","paginated_discovery"],"#,
    r#""commands":{"ping":"Send ping to check connection","get_discovery":"Get agent discovery data with pagination"},"#,
    r#""pagination":{"default_page_size":30,"max_page_size":100,"#,
    r#""usage":"Send {type: 'get_discovery', page: 1, page_size: 30, agent_type: 'optional'}"}}"#
);

const DEFAULT_PAGE_SIZE: u64 = 30;
const MAX_PAGE_SIZE: u64 = 100;

/// What the socket is to do next.
#[derive(Debug, PartialEq)]
pub(crate) enum Act {
    /// Send this text.
    Text(String),
    /// Send `stats_update` with the figures of now.
    Stats,
    /// Send `discovery_data`.
    Discovery(PageWanted),
    /// Send the newest `agents_update`.
    Update,
}

/// A page of the alive agents that a client asked for, within bounds (REG-317).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PageWanted {
    /// From 1.
    pub(crate) page: u64,
    /// 1 to 100.
    pub(crate) page_size: u64,
    /// Exact; `None` for all.
    pub(crate) agent_type: Option<String>,
}

impl PageWanted {
    fn read(command: &Map<String, Value>) -> Option<Self> {
        let number = |name: &str, default: u64| match command.get(name) {
            None | Some(Value::Null) => Some(default),
            Some(Value::Number(n)) => n.as_u64().or_else(|| n.as_f64().map(|f| f.max(0.0) as u64)),
            Some(Value::String(text)) => text.trim().parse::<i64>().ok().map(|n| n.max(0).cast_unsigned()),
            Some(_) => None,
        };
        let agent_type = match command.get("agent_type") {
            None | Some(Value::Null) => None,
            Some(Value::String(name)) => Some(name.clone()).filter(|name| !name.is_empty()),
            Some(_) => return None,
        };
        Some(PageWanted {
            page: number("page", 1)?.max(1),
            page_size: number("page_size", DEFAULT_PAGE_SIZE)?.clamp(1, MAX_PAGE_SIZE),
            agent_type,
        })
    }

    /// Agents before this page.
    pub(crate) fn offset(&self) -> u64 {
        (self.page - 1).saturating_mul(self.page_size)
    }

    /// `pagination` and `filters` of the answer.
    pub(crate) fn pagination(&self, total: u64) -> (Value, Value) {
        let pages = total.div_ceil(self.page_size);
        let next = (self.page < pages).then(|| self.page + 1);
        let previous = (self.page > 1).then(|| self.page - 1);
        let pagination = serde_json::json!({
            "current_page": self.page,
            "page_size": self.page_size,
            "total_agents": total,
            "total_pages": pages,
            "has_next": next.is_some(),
            "has_previous": previous.is_some(),
            "next_page": next,
            "previous_page": previous,
        });
        (pagination, serde_json::json!({ "agent_type": self.agent_type }))
    }
}

/// One public socket.
#[derive(Debug)]
pub(crate) struct PublicSocket {
    limits: SocketSettings,
    next_stats: Duration,
    next_ping: Duration,
    pace: Pace,
    acts: VecDeque<Act>,
}

impl PublicSocket {
    pub(crate) fn open(now: Now, limits: SocketSettings) -> Self {
        PublicSocket {
            limits,
            next_stats: now.mono + limits.interval,
            next_ping: now.mono + limits.ping_interval,
            pace: Pace::default(),
            acts: VecDeque::from([Act::Text(WELCOME.into())]),
        }
    }

    pub(crate) fn text(&mut self, now: Now, text: &str) {
        self.next_ping = now.mono + self.limits.ping_interval;
        let answer = match message::read(text) {
            Said::Ping => Act::Text("pong".into()),
            Said::Pong => return,
            Said::NotJson => self.error(now, "Invalid JSON format"),
            Said::Other => {
                self.error(now, "The message must be a JSON object with a type, such as {\"type\": \"ping\"}")
            }
            Said::Object(command) => match command.get("type") {
                Some(Value::String(kind)) if kind == "ping" => {
                    self.pace.count(now.mono);
                    Act::Text(message::pong(now))
                }
                Some(Value::String(kind)) if kind == "pong" => return,
                Some(Value::String(kind)) if kind == "get_discovery" => match PageWanted::read(&command) {
                    Some(page) => {
                        self.pace.count(now.mono);
                        Act::Discovery(page)
                    }
                    None => self.error(now, "Failed to get discovery data"),
                },
                kind => self.error(now, &format!("Unknown message type: {}", shown(kind))),
            },
        };
        self.acts.push_back(answer);
    }

    fn error(&mut self, now: Now, text: &str) -> Act {
        self.pace.count(now.mono);
        Act::Text(message::typed("error", text))
    }

    /// The list of agents changed (REG-313).
    pub(crate) fn changed(&mut self) {
        self.acts.push_back(Act::Update);
    }

    /// Does what is due.
    pub(crate) fn timeout(&mut self, now: Now) {
        if now.mono >= self.next_stats {
            // Always whole intervals after the beginning, however late this one is.
            self.next_stats = next_tick(self.next_stats, self.limits.interval, now.mono);
            self.acts.push_back(Act::Stats);
        }
        if now.mono >= self.next_ping {
            self.next_ping = now.mono + self.limits.ping_interval;
            self.acts.push_back(Act::Text("ping".into()));
        }
    }

    /// When `timeout` is to be called.
    pub(crate) fn next_timeout(&self) -> Duration {
        self.next_stats.min(self.next_ping)
    }

    /// When the next message may be read, if not now (REG-320).
    pub(crate) fn held_until(&self, now: Duration) -> Option<Duration> {
        self.pace.held_until(now)
    }

    pub(crate) fn next_act(&mut self) -> Option<Act> {
        self.acts.pop_front()
    }
}

/// The first tick after `now` on the grid that `last` stands on.
pub(super) fn next_tick(last: Duration, every: Duration, now: Duration) -> Duration {
    let missed = now.saturating_sub(last).as_nanos() / every.as_nanos().max(1);
    last + every.saturating_mul(u32::try_from(missed).unwrap_or(u32::MAX - 1) + 1)
}

/// A type that is unknown, as the published server shows it: text bare, nothing as `None`.
fn shown(kind: Option<&Value>) -> String {
    match kind {
        None | Some(Value::Null) => "None".into(),
        Some(Value::Bool(true)) => "True".into(),
        Some(Value::Bool(false)) => "False".into(),
        Some(Value::String(text)) => text.chars().take(100).collect(),
        Some(other) => other.to_string().chars().take(100).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> Now {
        Now { mono: Duration::from_secs_f64(seconds), unix: 1_795_188_917.5 + seconds }
    }

    fn limits() -> SocketSettings {
        super::super::Limits::default().public
    }

    fn opened() -> PublicSocket {
        let mut socket = PublicSocket::open(at(0.0), limits());
        assert_eq!(socket.next_act(), Some(Act::Text(WELCOME.into())));
        socket
    }

    fn answer(text: &str) -> Option<Act> {
        let mut socket = opened();
        socket.text(at(1.0), text);
        let act = socket.next_act();
        assert_eq!(socket.next_act(), None);
        act
    }

    fn frame(text: &str) -> Option<Act> {
        Some(Act::Text(text.into()))
    }

    /// Rules: REG-310
    #[test]
    fn the_greeting_comes_at_once() {
        let mut socket = PublicSocket::open(at(0.0), limits());
        let Some(Act::Text(text)) = socket.next_act() else { panic!("no greeting") };
        let greeting: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(greeting["message"], "Connected to ARCP Public API WebSocket");
        assert_eq!(greeting["pagination"]["max_page_size"], 100);
        assert_eq!(greeting["features"].as_array().unwrap().len(), 4);
    }

    /// Rules: REG-311, REG-504
    #[test]
    fn stats_come_at_each_interval_whatever_the_client_does() {
        let mut socket = opened();
        assert_eq!(socket.next_timeout(), Duration::from_secs(30));
        for tick in 1..4 {
            let now = f64::from(tick) * 30.0;
            socket.text(at(now - 1.0), "ping");
            assert_eq!(socket.next_act(), Some(Act::Text("pong".into())));
            // A little late each time: the ticks do not drift.
            socket.timeout(at(now + 0.4));
            assert_eq!(socket.next_act(), Some(Act::Stats));
            assert_eq!(socket.next_act(), None);
        }
        socket.timeout(at(301.0));
        assert_eq!(socket.next_act(), Some(Act::Stats));
        assert_eq!(socket.next_act(), Some(Act::Text("ping".into())));
        assert_eq!(socket.next_act(), None, "missed ticks are not made up for");
        assert_eq!(socket.next_timeout(), Duration::from_secs(330));
    }

    /// Rules: REG-312, REG-504
    #[test]
    fn a_ping_after_silence_and_none_after_a_message() {
        let limits = SocketSettings { interval: Duration::from_secs(1000), ..limits() };
        let mut socket = PublicSocket::open(at(0.0), limits);
        socket.next_act();
        socket.timeout(at(30.0));
        assert_eq!(socket.next_act(), Some(Act::Text("ping".into())));
        socket.text(at(50.0), "pong");
        assert_eq!(socket.next_act(), None);
        socket.timeout(at(60.0));
        assert_eq!(socket.next_act(), None);
        assert_eq!(socket.next_timeout(), Duration::from_secs(80));
    }

    /// Rules: REG-314, REG-315, REG-316
    #[test]
    fn pings_of_both_forms_are_answered_and_pongs_ignored() {
        assert_eq!(answer(" PING "), Some(Act::Text("pong".into())));
        assert_eq!(answer(r#"{"type":"ping"}"#), frame(r#"{"type":"pong","timestamp":1795188918.5}"#));
        assert_eq!(answer("pong"), None);
        assert_eq!(answer(r#"{"type":"pong"}"#), None);
    }

    /// Rules: REG-317
    #[test]
    fn a_page_is_clamped_and_a_non_number_is_an_error() {
        let page = |page, page_size, agent_type: Option<&str>| {
            Some(Act::Discovery(PageWanted { page, page_size, agent_type: agent_type.map(str::to_owned) }))
        };
        assert_eq!(answer(r#"{"type":"get_discovery"}"#), page(1, 30, None));
        assert_eq!(answer(r#"{"type":"get_discovery","page":-3,"page_size":0}"#), page(1, 1, None));
        assert_eq!(
            answer(r#"{"type":"get_discovery","page":9,"page_size":1000,"agent_type":"x"}"#),
            page(9, 100, Some("x"))
        );
        let failed = frame(r#"{"type":"error","message":"Failed to get discovery data"}"#);
        for bad in [r#""page":"x""#, r#""page":[1]"#, r#""page_size":{}"#, r#""agent_type":5"#, r#""page":true"#] {
            assert_eq!(answer(&format!(r#"{{"type":"get_discovery",{bad}}}"#)), failed, "{bad}");
        }
        assert!(matches!(answer(r#"{"type":"get_discovery","page":1e300}"#), Some(Act::Discovery(_))));
    }

    /// Rules: REG-317
    #[test]
    fn pagination_of_no_agents_of_the_last_page_and_beyond_it() {
        let wanted = |page, page_size| PageWanted { page, page_size, agent_type: None };
        let (none, filters) = wanted(1, 30).pagination(0);
        assert_eq!((&none["total_pages"], &none["has_next"]), (&0.into(), &false.into()));
        assert_eq!(filters, serde_json::json!({"agent_type": null}));
        let (beyond, _) = wanted(9, 100).pagination(2);
        assert_eq!(
            (&beyond["total_pages"], &beyond["previous_page"], &beyond["next_page"]),
            (&1.into(), &8.into(), &Value::Null)
        );
        let (first, _) = wanted(1, 1).pagination(2);
        assert_eq!((&first["next_page"], &first["previous_page"]), (&2.into(), &Value::Null));
        assert_eq!(wanted(u64::MAX, 100).offset(), u64::MAX);
    }

    /// Rules: REG-318, REG-319
    #[test]
    fn what_is_not_understood_is_said() {
        let error = |text: &str| frame(&format!(r#"{{"type":"error","message":"{text}"}}"#));
        assert_eq!(answer(r#"{"type":"bogus"}"#), error("Unknown message type: bogus"));
        assert_eq!(answer("{}"), error("Unknown message type: None"));
        assert_eq!(answer(r#"{"type":5}"#), error("Unknown message type: 5"));
        assert_eq!(answer("{bad"), error("Invalid JSON format"));
        assert_eq!(answer(""), error("Invalid JSON format"));
        let Some(Act::Text(text)) = answer("[1, 2]") else { panic!("no error frame") };
        assert!(text.contains("must be a JSON object"), "{text}");
    }

    /// Rules: REG-313
    #[test]
    fn a_change_is_told() {
        let mut socket = opened();
        socket.changed();
        assert_eq!(socket.next_act(), Some(Act::Update));
    }

    /// Rules: REG-320
    #[test]
    fn a_flood_of_commands_waits() {
        let mut socket = opened();
        for _ in 0..25 {
            socket.text(at(1.0), r#"{"type":"get_discovery"}"#);
        }
        assert!(socket.held_until(Duration::from_secs(1)).is_some());
        assert_eq!(socket.held_until(Duration::from_secs(2)), None);
    }
}
