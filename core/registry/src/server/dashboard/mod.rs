//! What dashboards show: what happened, how the registry and its agents are, and what wants attention.

mod alerts;
mod event;
mod health;
mod journal;
pub mod page;
mod ui;

pub use alerts::{Figures, Suppression, judge};
pub use event::Event;
pub use health::{AgentHealth, AgentsPart, Components, Embedding, EmbeddingPart, Health, Storage, StoragePart};
pub use journal::{Alert, Level, Line, Severity, Written};
pub(crate) use journal::{Read, shown};
pub use ui::DashboardSettings;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arcp_store::registry::{Journal as KeptJournal, KeptLine, RegistryKept, RegistryOp};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use self::journal::{Journal, MAX_ALERTS};
use super::socket::{SharedFrame, write_json};
use crate::directory::time::{from_micros, micros};
use crate::service::Service;

/// What all dashboards share. Cheap to clone.
#[derive(Clone)]
pub struct Dashboard(Arc<Inner>);

struct Inner {
    settings: DashboardSettings,
    journal: Mutex<Journal>,
    /// The frame with the whole log, and how far it reads.
    whole_log: Mutex<Option<(Read, SharedFrame)>>,
    /// Counts what open dashboards are to see at once.
    told: watch::Sender<u64>,
    suppression: Mutex<Suppression>,
    ui: Mutex<Map<String, Value>>,
    /// Keeps all of it over a restart.
    keeper: Option<Service>,
    /// What is to be kept next.
    unkept: Mutex<VecDeque<RegistryOp>>,
}

/// The setting under which the page's looks are kept.
const UI_SETTING: &str = "dashboard.ui";

impl fmt::Debug for Dashboard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dashboard").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}

impl Dashboard {
    /// With an empty journal that lives as long as the process.
    pub fn new(settings: DashboardSettings) -> Self {
        let journal = Journal::new(settings.log_buffer_maxlen, settings.log_message_maxlen);
        Self::with(settings, journal, Map::new(), None)
    }

    /// With what an earlier process kept, and keeping what comes (see [`Service::take_kept`]). A line or setting that
    /// cannot be read is passed over.
    pub fn restored(settings: DashboardSettings, service: Service, kept: &RegistryKept) -> Self {
        let mut journal = Journal::new(settings.log_buffer_maxlen, settings.log_message_maxlen);
        for line in &kept.logs {
            if let Ok(read) = serde_json::from_str(&line.data) {
                journal.log(from_micros(line.at), read);
            }
        }
        for line in &kept.alerts {
            if let Ok(read) = serde_json::from_str(&line.data) {
                journal.alert(from_micros(line.at), read, false);
            }
        }
        let ui = kept.settings.iter().find(|(name, _)| name == UI_SETTING);
        let ui = ui.and_then(|(_, value)| serde_json::from_str(value).ok()).unwrap_or_default();
        Self::with(settings, journal, ui, Some(service))
    }

    fn with(settings: DashboardSettings, journal: Journal, ui: Map<String, Value>, keeper: Option<Service>) -> Self {
        Dashboard(Arc::new(Inner {
            journal: Mutex::new(journal),
            whole_log: Mutex::default(),
            told: watch::Sender::new(0),
            suppression: Mutex::default(),
            ui: Mutex::new(ui),
            keeper,
            unkept: Mutex::default(),
            settings,
        }))
    }

    /// Writes a line into the log; open dashboards see it at their next interval.
    pub fn log(&self, line: Line) {
        self.write(&mut self.0.journal.lock(), line);
    }

    fn write(&self, journal: &mut Journal, line: Line) {
        let at = Timestamp::now();
        if !journal.is_news(at, &line) {
            return;
        }
        let data = serde_json::to_string(journal.log(at, line));
        self.append(KeptJournal::Logs, at, data, self.0.settings.log_buffer_maxlen);
    }

    fn store_alert(&self, journal: &mut Journal, alert: Alert, news: bool) {
        let at = Timestamp::now();
        let data = serde_json::to_string(journal.alert(at, alert, news));
        self.append(KeptJournal::Alerts, at, data, MAX_ALERTS);
    }

    fn append(&self, journal: KeptJournal, at: Timestamp, data: serde_json::Result<String>, most: usize) {
        if let Ok(data) = data {
            let line = KeptLine { at: micros(at), data };
            self.will_keep(RegistryOp::Append { journal, line, most: most.max(1) });
        }
    }

    fn will_keep(&self, op: RegistryOp) {
        if self.0.keeper.is_some() {
            let mut unkept = self.0.unkept.lock();
            unkept.push_back(op);
            // More than fits into both journals would be cut there anyway.
            if unkept.len() > self.0.settings.log_buffer_maxlen + 2 * MAX_ALERTS {
                unkept.pop_front();
            }
        }
    }

    /// Hands what was logged, alerted, cleared or set since the last time to the store.
    pub fn keep(&self) {
        let Some(keeper) = &self.0.keeper else { return };
        let ops: Vec<RegistryOp> = std::mem::take(&mut *self.0.unkept.lock()).into();
        if !ops.is_empty() {
            // A log that cannot be kept must not stop what it tells of.
            drop(keeper.keep(ops));
        }
    }

    /// Writes what happened into the log.
    pub fn note(&self, event: Event<'_>) {
        self.log(event.line());
    }

    /// The answer of `GET /dashboard/config?tz=` (REG-188).
    pub fn config(&self, timezone: Option<&str>) -> Value {
        ui::shown(&self.0.settings, timezone, &self.0.ui.lock())
    }

    /// Takes the body of `POST /dashboard/config` and gives the answer, which is always status 200 (REG-189).
    pub fn set_config(&self, body: &Value) -> Value {
        match ui::read(&self.0.settings, body) {
            Ok(ui) => {
                *self.0.ui.lock() = ui.clone();
                if let Ok(value) = serde_json::to_string(&ui) {
                    self.will_keep(RegistryOp::PutSetting { name: UI_SETTING.into(), value });
                    self.keep();
                }
                json!({"status": "ok", "ui": ui})
            }
            Err(message) => json!({"status": "error", "message": message}),
        }
    }

    /// Stores the alerts that the figures are worth and that were not said lately, and logs the grave ones. `now` is a
    /// time that never goes back.
    pub fn judge(&self, now: Duration, figures: &Figures) {
        let alerts = judge(figures);
        let mut suppression = self.0.suppression.lock();
        let mut journal = self.0.journal.lock();
        for alert in alerts {
            if suppression.admit(now, &alert) {
                if alert.severity == Severity::Critical {
                    let source = if alert.kind == "storage" { "storage" } else { "monitoring" };
                    self.write(&mut journal, Line::new(Level::Critical, source, alert.message.clone()));
                }
                self.store_alert(&mut journal, alert, true);
            }
        }
    }

    /// A line from a dashboard (REG-348): true, and all open dashboards are told, when it is a valid one.
    pub(crate) fn page_logged(&self, data: &Map<String, Value>) -> bool {
        let text = |name: &str| data.get(name).and_then(Value::as_str);
        let Some(level) = text("level").and_then(Level::parse) else { return false };
        let Some(message) = text("message").filter(|message| !message.trim().is_empty()) else { return false };
        let mut line = Line::new(level, "dashboard", message);
        match data.get("timestamp") {
            None | Some(Value::Null) => {}
            Some(Value::String(time)) if is_time(time) => line = line.with("frontend_timestamp", time.as_str()),
            Some(_) => return false,
        }
        self.log(line);
        self.tell();
        true
    }

    /// An alert from a dashboard (REG-348): stored when it has a message.
    pub(crate) fn page_alerted(&self, data: &Map<String, Value>) {
        let text = |name: &str| data.get(name).and_then(Value::as_str).filter(|text| !text.trim().is_empty());
        let Some(message) = text("message") else { return };
        let severity = match text("severity").unwrap_or_default() {
            "critical" => Severity::Critical,
            "warning" => Severity::Warning,
            _ => Severity::Info,
        };
        let alert = Alert {
            title: text("title").unwrap_or("Dashboard alert").into(),
            message: message.into(),
            severity,
            kind: text("type").unwrap_or("dashboard").into(),
            details: Map::new(),
        };
        self.store_alert(&mut self.0.journal.lock(), alert, false);
    }

    /// Empties the log, what is kept of it too (REG-349), and says so in it.
    pub(crate) fn clear_logs(&self) {
        let mut journal = self.0.journal.lock();
        journal.clear_lines();
        self.will_keep(RegistryOp::Clear { journal: KeptJournal::Logs });
        self.write(&mut journal, Line::new(Level::Warning, "dashboard", "Dashboard logs cleared"));
        drop(journal);
        self.keep();
    }

    /// Empties the alerts, what is kept of them too, and says so in the log. What is still wrong is said again when its
    /// time comes.
    pub(crate) fn clear_alerts(&self) {
        let mut journal = self.0.journal.lock();
        journal.clear_alerts();
        self.will_keep(RegistryOp::Clear { journal: KeptJournal::Alerts });
        self.write(&mut journal, Line::new(Level::Warning, "dashboard", "Dashboard alerts cleared"));
        drop(journal);
        self.keep();
    }

    fn tell(&self) {
        self.0.told.send_modify(|count| *count += 1);
    }

    /// Changes when open dashboards are to show the log at once.
    pub(crate) fn told(&self) -> watch::Receiver<u64> {
        self.0.told.subscribe()
    }

    /// The frame with the whole log, made once for all who ask (REG-346), and how far it reads.
    pub(crate) fn whole_log(&self) -> (SharedFrame, Read) {
        let mut kept = self.0.whole_log.lock();
        let journal = self.0.journal.lock();
        if let Some((read, frame)) = &*kept
            && *read == journal.end()
        {
            return (frame.clone(), *read);
        }
        let frame = log_frame(journal.lines(), journal.lines().len(), false);
        *kept = Some((journal.end(), frame.clone()));
        (frame, journal.end())
    }

    /// The frame with the lines after `read`; `None` when there are none. The whole log where a part would lie.
    pub(crate) fn log_since(&self, read: Read) -> Option<(SharedFrame, Read)> {
        let journal = self.0.journal.lock();
        if journal.end() == read {
            return None;
        }
        let delta = journal.lines_since(read).map(|lines| log_frame(lines, journal.lines().len(), true));
        let end = journal.end();
        drop(journal);
        Some(match delta {
            Some(frame) => (frame, end),
            None => self.whole_log(),
        })
    }

    /// How far one has read who has read everything.
    pub(crate) fn log_end(&self) -> Read {
        self.0.journal.lock().end()
    }

    /// The frame with the alerts after number `seen` (0: all that are stored), and the number of the newest; no frame when
    /// there are none.
    pub(crate) fn alerts_since(&self, seen: u64) -> (Option<SharedFrame>, u64) {
        let journal = self.0.journal.lock();
        let (alerts, newest) = journal.alerts_since(seen);
        let frame = (!alerts.is_empty()).then(|| {
            data_frame("alert", |out| {
                out.extend_from_slice(b"{\"alerts\":");
                write_json(out, &alerts);
                out.push(b'}');
            })
        });
        (frame, newest)
    }
}

/// `{"type":...,"timestamp":...,"data":...}` (REG-341).
pub(crate) fn data_frame(kind: &str, data: impl FnOnce(&mut Vec<u8>)) -> SharedFrame {
    SharedFrame::build(|out| {
        let head = format!(r#"{{"type":"{kind}","timestamp":"{}","data":"#, shown(Timestamp::now()));
        out.extend_from_slice(head.as_bytes());
        data(out);
        out.push(b'}');
    })
}

fn log_frame<'a>(lines: impl Iterator<Item = &'a Written>, count: usize, delta: bool) -> SharedFrame {
    data_frame("logs", |out| {
        out.extend_from_slice(b"{\"logs\":[");
        for (place, line) in lines.enumerate() {
            if place > 0 {
                out.push(b',');
            }
            write_json(out, line);
        }
        let mark = if delta { ",\"delta\":true" } else { "" };
        let tail = format!(r#"],"count":{count},"last_updated":"{}"{mark}}}"#, shown(Timestamp::now()));
        out.extend_from_slice(tail.as_bytes());
    })
}

/// Whether a text is an ISO 8601 time, with or without a zone.
fn is_time(text: &str) -> bool {
    text.len() <= 64 && (text.parse::<Timestamp>().is_ok() || text.parse::<jiff::civil::DateTime>().is_ok())
}

/// So many digits after the point.
pub(crate) fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::metrics::Utilization;

    fn dashboard() -> Dashboard {
        Dashboard::new(DashboardSettings {
            timezone: "UTC".into(),
            ping_interval: Duration::from_secs(30),
            log_buffer_maxlen: 100,
            log_message_maxlen: 50,
        })
    }

    fn data(frame: &SharedFrame) -> Value {
        let value: Value = serde_json::from_slice(frame.payload()).unwrap();
        assert!(value["timestamp"].as_str().unwrap().ends_with("+00:00"));
        value["data"].clone()
    }

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    /// Rules: REG-346, REG-348
    #[test]
    fn a_page_logs_for_all_and_nonsense_is_dropped() {
        let dashboard = dashboard();
        let mut told = dashboard.told();
        for bad in [
            json!({"level": "BOGUS", "message": "x", "timestamp": "2025-01-07T10:30:00Z"}),
            json!({"level": "INFO", "message": " "}),
            json!({"level": "INFO", "message": "x", "timestamp": "soon"}),
            json!({"level": "INFO", "message": "x", "timestamp": 5}),
            json!({}),
        ] {
            assert!(!dashboard.page_logged(&object(bad)));
        }
        assert!(!told.has_changed().unwrap());
        let said = json!({"level": "SUCS", "message": "Security: PIN verification successful", "timestamp": "2025-01-07T10:30:00Z"});
        assert!(dashboard.page_logged(&object(said)));
        assert!(told.has_changed().unwrap());
        told.borrow_and_update();
        let logs = data(&dashboard.whole_log().0);
        assert_eq!(logs["count"], 1);
        assert_eq!(logs["logs"][0]["frontend_timestamp"], "2025-01-07T10:30:00Z");
        assert_eq!(logs["logs"][0]["level"], "SUCS");
    }

    /// Rules: REG-346
    #[test]
    fn the_whole_log_is_made_once_and_parts_say_so() {
        let dashboard = dashboard();
        dashboard.log(Line::new(Level::Info, "system", "one"));
        let (first, read) = dashboard.whole_log();
        let (again, _) = dashboard.whole_log();
        assert_eq!(first.bytes().as_ptr(), again.bytes().as_ptr(), "shared, not made anew");
        assert!(dashboard.log_since(read).is_none());
        dashboard.log(Line::new(Level::Info, "system", "two"));
        let (part, read) = dashboard.log_since(read).unwrap();
        let part = data(&part);
        assert_eq!((&part["delta"], &part["count"]), (&true.into(), &2.into()));
        assert_eq!(part["logs"].as_array().unwrap().len(), 1);
        dashboard.clear_logs();
        let (whole, _) = dashboard.log_since(read).unwrap();
        let whole = data(&whole);
        assert_eq!(whole["delta"], Value::Null);
        assert_eq!(whole["logs"][0]["message"], "Dashboard logs cleared");
    }

    /// Rules: REG-347, REG-348
    #[test]
    fn alerts_are_judged_stored_and_cleared() {
        let dashboard = dashboard();
        let figures = Figures {
            total_requests: 0,
            avg_response_time: 0.0,
            error_rate: 0.0,
            agents: 0,
            alive: 0,
            resources: Utilization { cpu: 100.0, ..Utilization::default() },
            storage: Storage::Working,
        };
        dashboard.judge(Duration::from_secs(1), &figures);
        dashboard.judge(Duration::from_secs(2), &figures);
        let (frame, newest) = dashboard.alerts_since(0);
        let alerts = data(&frame.unwrap());
        assert_eq!(alerts["alerts"].as_array().unwrap().len(), 2, "said once");
        assert_eq!(alerts["alerts"][1]["message"], "Critical CPU usage: 100.0% (threshold: 90%)");
        let log = data(&dashboard.whole_log().0);
        assert_eq!((&log["count"], &log["logs"][0]["level"]), (&1.into(), &"CRIT".into()));
        dashboard
            .page_alerted(&object(json!({"title": "T", "message": "M", "severity": "warning", "type": "performance"})));
        dashboard.page_alerted(&object(json!({"title": "no message"})));
        assert!(dashboard.alerts_since(newest).0.is_none(), "stored only");
        let stored = data(&dashboard.alerts_since(0).0.unwrap());
        assert_eq!(stored["alerts"][0]["title"], "T");
        assert_eq!(stored["alerts"].as_array().unwrap().len(), 3);
        dashboard.clear_alerts();
        assert!(dashboard.alerts_since(0).0.is_none());
    }

    /// Rules: REG-188, REG-189
    #[test]
    fn settings_of_the_page_are_kept() {
        let dashboard = dashboard();
        assert_eq!(dashboard.set_config(&json!({"ui": "x"})), json!({"status": "error", "message": "Invalid payload"}));
        let answer = dashboard.set_config(&json!({"ui": {"refreshInterval": 60, "maxLogEntries": 5}}));
        assert_eq!(answer, json!({"status": "ok", "ui": {"refreshInterval": 60, "maxLogEntries": 10}}));
        assert_eq!(dashboard.config(None)["ui"]["refreshInterval"], 60);
    }
}
