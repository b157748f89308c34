//! What happened, for the dashboards: a log and alerts, both bounded (REG-346, REG-347, REG-507).

use std::borrow::Cow;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

use jiff::{SignedDuration, Timestamp};
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

/// Alerts kept.
pub(crate) const MAX_ALERTS: usize = 500;

/// A refusal that repeats is written again after this time.
const KNOCK: SignedDuration = SignedDuration::from_secs(60);

/// Refusals that are remembered for it.
const MAX_KNOCKS: usize = 1024;

/// The longest text of a value beside a message.
const MAX_CONTEXT: usize = 200;

/// How grave a line of the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Level {
    /// `INFO`.
    #[serde(rename = "INFO")]
    Info,
    /// `SUCS`.
    #[serde(rename = "SUCS")]
    Success,
    /// `WARN`.
    #[serde(rename = "WARN")]
    Warning,
    /// `CRIT`.
    #[serde(rename = "CRIT")]
    Critical,
    /// `ERR`.
    #[serde(rename = "ERR")]
    Error,
}

impl Level {
    /// As a dashboard shows it: `INFO`, `SUCS`, `WARN`, `CRIT`, `ERR`.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Info => "INFO",
            Level::Success => "SUCS",
            Level::Warning => "WARN",
            Level::Critical => "CRIT",
            Level::Error => "ERR",
        }
    }

    /// Reads the short or the long name, in any case.
    pub fn parse(name: &str) -> Option<Self> {
        let known = [
            (Level::Info, ["INFO", "INFORMATION"]),
            (Level::Success, ["SUCS", "SUCCESS"]),
            (Level::Warning, ["WARN", "WARNING"]),
            (Level::Critical, ["CRIT", "CRITICAL"]),
            (Level::Error, ["ERR", "ERROR"]),
        ];
        known.into_iter().find(|(_, names)| names.iter().any(|n| n.eq_ignore_ascii_case(name))).map(|(level, _)| level)
    }
}

/// A line to be logged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// How grave it is.
    pub level: Level,
    /// One sentence; cut at the longest length.
    pub message: String,
    /// The part that says it: `auth`, `registry`, `dashboard`, `monitoring`, `storage`, `system`.
    pub source: Cow<'static, str>,
    /// What a program reads: `event_type`, `client_ip`, `user_id`, `agent_id`, ... Never a secret.
    pub context: Map<String, Value>,
}

impl Line {
    /// A line without context.
    pub fn new(level: Level, source: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Line { level, message: message.into(), source: source.into(), context: Map::new() }
    }

    /// Adds a value beside the message.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.context.insert(name.into(), value.into());
        self
    }
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    sequence: u64,
    timestamp: Timestamp,
    line: Line,
}

impl Serialize for Written {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(4 + self.line.context.len()))?;
        map.serialize_entry("timestamp", &shown(self.timestamp))?;
        map.serialize_entry("level", self.line.level.as_str())?;
        map.serialize_entry("message", &self.line.message)?;
        map.serialize_entry("source", &self.line.source)?;
        for (name, value) in &self.line.context {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// A time as dashboards get it: ISO with the offset (REG-203).
pub(crate) fn shown(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00").to_string()
}

/// How grave an alert is, and how long it is not repeated (REG-347).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Repeated after 300 s.
    Critical,
    /// Repeated after 900 s.
    Warning,
    /// Repeated after 3600 s.
    Info,
}

/// Something that wants attention.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// `High response time`.
    pub title: String,
    /// One sentence.
    pub message: String,
    /// How grave it is.
    pub severity: Severity,
    /// `resource_cpu`, `agent_connectivity`, `performance`, `storage`, ...
    #[serde(rename = "type")]
    pub kind: String,
    /// The numbers behind it.
    pub details: Map<String, Value>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct StoredAlert {
    #[serde(skip)]
    sequence: u64,
    /// Told to sockets that are open already, not only to those that come.
    #[serde(skip)]
    news: bool,
    id: String,
    timestamp: String,
    #[serde(flatten)]
    alert: Alert,
}

/// How far a socket has read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Read {
    /// Of the last line read.
    sequence: u64,
    /// Clearings seen.
    clearings: u64,
}

/// The log and the alerts.
#[derive(Debug)]
pub(crate) struct Journal {
    max_lines: usize,
    max_message: usize,
    lines: VecDeque<Written>,
    alerts: VecDeque<StoredAlert>,
    line_sequence: u64,
    alert_sequence: u64,
    clearings: u64,
    /// When refusals of one kind and address were last written.
    knocks: HashMap<String, Timestamp>,
}

impl Journal {
    /// Keeps `max_lines` lines, each with a message of at most `max_message` characters.
    pub(crate) fn new(max_lines: usize, max_message: usize) -> Self {
        Journal {
            max_lines: max_lines.max(1),
            max_message: max_message.max(1),
            lines: VecDeque::new(),
            alerts: VecDeque::new(),
            line_sequence: 0,
            alert_sequence: 0,
            clearings: 0,
            knocks: HashMap::new(),
        }
    }

    /// Writes a line, and gives it back as it was written.
    pub(crate) fn log(&mut self, timestamp: Timestamp, mut line: Line) -> &Line {
        cut(&mut line.message, self.max_message);
        for value in line.context.values_mut() {
            if let Value::String(text) = value {
                cut(text, MAX_CONTEXT);
            }
        }
        self.line_sequence += 1;
        self.lines.push_back(Written { sequence: self.line_sequence, timestamp, line });
        if self.lines.len() > self.max_lines {
            self.lines.pop_front();
        }
        let newest = self.lines.len() - 1;
        &self.lines[newest].line
    }

    /// Stores an alert; `news` tells it to open sockets too. Gives it back as it was stored.
    pub(crate) fn alert(&mut self, timestamp: Timestamp, mut alert: Alert, news: bool) -> &Alert {
        cut(&mut alert.message, self.max_message);
        cut(&mut alert.title, MAX_CONTEXT);
        cut(&mut alert.kind, MAX_CONTEXT);
        self.alert_sequence += 1;
        let (sequence, timestamp) = (self.alert_sequence, shown(timestamp));
        self.alerts.push_back(StoredAlert { sequence, news, id: format!("alert-{sequence:03}"), timestamp, alert });
        if self.alerts.len() > MAX_ALERTS {
            self.alerts.pop_front();
        }
        let newest = self.alerts.len() - 1;
        &self.alerts[newest].alert
    }

    /// Whether a line is worth writing: who is locked out or refused may knock a thousand times a second, and must not push
    /// the rest out of the log. Such a line is written once a minute for each address.
    pub(crate) fn is_news(&mut self, now: Timestamp, line: &Line) -> bool {
        let text = |name: &str| line.context.get(name).and_then(Value::as_str).unwrap_or_default();
        let kind = text("event_type");
        if !matches!(kind, "lockout" | "access_denied") {
            return true;
        }
        let key = format!("{kind} {} {} {}", text("client_ip"), text("attempt_type"), text("user_id"));
        if self.knocks.len() >= MAX_KNOCKS {
            self.knocks.retain(|_, at| now.duration_since(*at) < KNOCK);
        }
        if self.knocks.len() >= MAX_KNOCKS {
            return false;
        }
        match self.knocks.entry(key) {
            Entry::Occupied(mut last) if now.duration_since(*last.get()) >= KNOCK => {
                last.insert(now);
                true
            }
            Entry::Occupied(_) => false,
            Entry::Vacant(free) => {
                free.insert(now);
                true
            }
        }
    }

    pub(crate) fn clear_lines(&mut self) {
        self.lines.clear();
        self.clearings += 1;
    }

    pub(crate) fn clear_alerts(&mut self) {
        self.alerts.clear();
    }

    /// How far one has read who has read everything.
    pub(crate) fn end(&self) -> Read {
        Read { sequence: self.line_sequence, clearings: self.clearings }
    }

    /// All lines, newest first.
    pub(crate) fn lines(&self) -> impl ExactSizeIterator<Item = &Written> {
        self.lines.iter().rev()
    }

    /// Lines written after `read`, newest first; `None` when the log was cleared or cut since, so that only the whole log
    /// tells the truth.
    pub(crate) fn lines_since(&self, read: Read) -> Option<impl Iterator<Item = &Written>> {
        let oldest = self.lines.front().map_or(self.line_sequence + 1, |entry| entry.sequence);
        let whole = read.clearings == self.clearings && read.sequence + 1 >= oldest;
        whole.then(|| self.lines.iter().rev().take_while(move |entry| entry.sequence > read.sequence))
    }

    /// Alerts after the one numbered `seen`, newest first, and the number of the newest. From 0: all; else the news.
    pub(crate) fn alerts_since(&self, seen: u64) -> (Vec<&StoredAlert>, u64) {
        let fresh = self.alerts.iter().rev().take_while(|alert| alert.sequence > seen);
        (fresh.filter(|alert| seen == 0 || alert.news).collect(), self.alert_sequence)
    }
}

/// Cuts a text to so many characters, the last one an ellipsis.
fn cut(text: &mut String, most: usize) {
    if let Some((at, _)) = text.char_indices().nth(most) {
        text.truncate(at);
        text.pop();
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal() -> Journal {
        Journal::new(3, 10)
    }

    fn line(text: &str) -> Line {
        Line::new(Level::Info, "system", text)
    }

    fn messages<'a>(lines: impl Iterator<Item = &'a Written>) -> Vec<&'a str> {
        lines.map(|entry| entry.line.message.as_str()).collect()
    }

    fn alert(title: &str) -> Alert {
        Alert {
            title: title.into(),
            message: "m".into(),
            severity: Severity::Info,
            kind: "performance".into(),
            details: Map::new(),
        }
    }

    /// Rules: REG-346, REG-507
    #[test]
    fn the_log_is_bounded_and_newest_first() {
        let mut journal = journal();
        for text in ["one", "two", "three", "a message that is too long"] {
            journal.log(Timestamp::UNIX_EPOCH, line(text));
        }
        assert_eq!(messages(journal.lines()), ["a message…", "three", "two"]);
    }

    /// Rules: REG-346
    #[test]
    fn an_entry_has_its_context_beside_it() {
        let mut journal = Journal::new(5, 100);
        let said = Line::new(Level::Success, "auth", "Admin login successful: ARCP").with("user_id", "ARCP");
        journal.log(Timestamp::from_microsecond(1_795_188_969_753_291).unwrap(), said);
        let shown = serde_json::to_string(journal.lines().next().unwrap()).unwrap();
        let expected = r#"{"timestamp":"2026-11-20T15:36:09.753291+00:00","level":"SUCS","message":"Admin login successful: ARCP","source":"auth","user_id":"ARCP"}"#;
        assert_eq!(shown, expected);
    }

    /// Rules: REG-346
    #[test]
    fn deltas_hold_what_is_new_unless_something_is_missing_between() {
        let mut journal = journal();
        let start = journal.end();
        journal.log(Timestamp::UNIX_EPOCH, line("one"));
        let one = journal.end();
        journal.log(Timestamp::UNIX_EPOCH, line("two"));
        assert_eq!(messages(journal.lines_since(start).unwrap()), ["two", "one"]);
        assert_eq!(messages(journal.lines_since(one).unwrap()), ["two"]);
        assert_eq!(messages(journal.lines_since(journal.end()).unwrap()), [""; 0]);
        for text in ["three", "four", "five"] {
            journal.log(Timestamp::UNIX_EPOCH, line(text));
        }
        assert!(journal.lines_since(one).is_none(), "two fell out");
        let five = journal.end();
        journal.clear_lines();
        assert!(journal.lines_since(five).is_none(), "cleared");
        assert_ne!(journal.end(), five);
    }

    /// Rules: REG-346
    #[test]
    fn who_is_locked_out_and_knocks_on_fills_no_log() {
        let mut journal = journal();
        let knock = |ip: &str| line("Locked out").with("event_type", "lockout").with("client_ip", ip);
        let at = |second: i64| Timestamp::from_second(1_795_188_969 + second).unwrap();
        assert!(journal.is_news(at(0), &knock("10.0.0.1")));
        assert!(!journal.is_news(at(59), &knock("10.0.0.1")));
        assert!(journal.is_news(at(59), &knock("10.0.0.2")), "another address");
        assert!(journal.is_news(at(60), &knock("10.0.0.1")));
        assert!(journal.is_news(at(60), &line("else")) && journal.is_news(at(60), &line("else")));
        for n in 0..5000 {
            journal.is_news(at(60), &knock(&n.to_string()));
        }
        assert!(journal.knocks.len() <= MAX_KNOCKS);
        assert!(journal.is_news(at(200), &knock("10.0.0.3")), "the old ones make room");
    }

    /// Rules: REG-347
    #[test]
    fn alerts_are_told_once_and_all_to_who_comes() {
        let mut journal = journal();
        journal.alert(Timestamp::UNIX_EPOCH, alert("a"), true);
        journal.alert(Timestamp::UNIX_EPOCH, alert("of a page"), false);
        let titles = |seen| journal.alerts_since(seen).0.iter().map(|a| a.alert.title.clone()).collect::<Vec<_>>();
        assert_eq!(titles(0), ["of a page", "a"]);
        assert_eq!(titles(1), [""; 0], "what a page alerted is stored only");
        assert_eq!(journal.alerts_since(0).1, 2);
        let shown = serde_json::to_value(journal.alerts_since(0).0[0]).unwrap();
        let mut names: Vec<_> = shown.as_object().unwrap().keys().cloned().collect();
        names.sort();
        assert_eq!(names, ["details", "id", "message", "severity", "timestamp", "title", "type"]);
        for _ in 0..600 {
            journal.alert(Timestamp::UNIX_EPOCH, alert("flood"), true);
        }
        assert_eq!(journal.alerts_since(0).0.len(), MAX_ALERTS);
        journal.clear_alerts();
        assert_eq!(journal.alerts_since(0).0.len(), 0);
    }

    /// Rules: REG-348
    #[test]
    fn levels_have_two_names() {
        assert_eq!(Level::parse("SUCS"), Some(Level::Success));
        assert_eq!(Level::parse("success"), Some(Level::Success));
        assert_eq!(Level::parse("ERROR"), Some(Level::Error));
        assert_eq!(Level::parse("BOGUS"), None);
    }
}
