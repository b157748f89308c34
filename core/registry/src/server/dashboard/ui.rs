//! What a dashboard remembers of its own looks, kept for all who look (REG-188, REG-189, REG-406).

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::server::config::Config;

/// Settings of a page, at most.
const MAX_SETTINGS: usize = 50;
/// The longest name or text among them.
const MAX_TEXT: usize = 200;
/// The fewest lines a page may show.
const FEWEST_LINES: u64 = 10;

/// What a dashboard is told of the server's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DashboardSettings {
    /// `Europe/Berlin`; the answer's `timezone` when none is asked for.
    pub timezone: String,
    /// DASHBOARD_WS_PING_INTERVAL.
    pub ping_interval: Duration,
    /// DASHBOARD_LOG_BUFFER_MAXLEN.
    pub log_buffer_maxlen: usize,
    /// DASHBOARD_LOG_MESSAGE_MAXLEN.
    pub log_message_maxlen: usize,
}

impl From<&Config> for DashboardSettings {
    fn from(config: &Config) -> Self {
        DashboardSettings {
            timezone: config.timezone_name.clone(),
            ping_interval: config.dashboard_ws.ping_interval,
            log_buffer_maxlen: config.log_buffer_maxlen,
            log_message_maxlen: config.log_message_maxlen,
        }
    }
}

/// The answer of `GET /dashboard/config` (REG-188). A time zone that does not exist is not shown.
pub(crate) fn shown(settings: &DashboardSettings, asked: Option<&str>, ui: &Map<String, Value>) -> Value {
    let known = asked.filter(|name| jiff::tz::TimeZone::get(name).is_ok());
    json!({
        "timezone": known.unwrap_or(&settings.timezone),
        "ws_ping_interval_ms": u64::try_from(settings.ping_interval.as_millis()).unwrap_or(u64::MAX),
        "log_buffer_maxlen": settings.log_buffer_maxlen,
        "log_message_maxlen": settings.log_message_maxlen,
        "ui": ui,
    })
}

/// Reads `{"ui": {...}}` (REG-189): texts, numbers, true and false; `maxLogEntries` is brought within 10 and the buffer's
/// length. The error says what is wrong.
pub(crate) fn read(settings: &DashboardSettings, body: &Value) -> Result<Map<String, Value>, String> {
    let Some(Value::Object(ui)) = body.get("ui") else {
        return Err("Invalid payload".into());
    };
    if ui.len() > MAX_SETTINGS {
        return Err(format!("Invalid payload: ui has {} settings; at most {MAX_SETTINGS} are kept", ui.len()));
    }
    let mut kept = Map::new();
    for (name, value) in ui {
        let long = |text: &str| text.chars().count() > MAX_TEXT;
        let fits = match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => true,
            Value::String(text) => !long(text),
            Value::Array(_) | Value::Object(_) => false,
        };
        if !fits || long(name) {
            let name: String = name.chars().take(40).collect();
            return Err(format!(
                "Invalid payload: ui.{name} must be a number, true, false or a text of at most {MAX_TEXT} characters"
            ));
        }
        let value = match value.as_f64() {
            Some(lines) if name == "maxLogEntries" => {
                json!(
                    (lines.max(0.0) as u64).clamp(FEWEST_LINES, (settings.log_buffer_maxlen as u64).max(FEWEST_LINES))
                )
            }
            _ => value.clone(),
        };
        kept.insert(name.clone(), value);
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> DashboardSettings {
        DashboardSettings {
            timezone: "UTC".into(),
            ping_interval: Duration::from_secs(30),
            log_buffer_maxlen: 10_000,
            log_message_maxlen: 2048,
        }
    }

    /// Rules: REG-188
    #[test]
    fn the_answer_of_the_published_server() {
        let expected = json!({"timezone": "UTC", "ws_ping_interval_ms": 30000, "log_buffer_maxlen": 10000,
            "log_message_maxlen": 2048, "ui": {}});
        assert_eq!(shown(&settings(), None, &Map::new()), expected);
        assert_eq!(shown(&settings(), Some("Asia/Tokyo"), &Map::new())["timezone"], "Asia/Tokyo");
        assert_eq!(shown(&settings(), Some("<script>"), &Map::new())["timezone"], "UTC");
    }

    /// Rules: REG-189
    #[test]
    fn the_number_of_lines_is_brought_within_bounds() {
        let kept = |lines: Value| {
            read(&settings(), &json!({"ui": {"maxLogEntries": lines}})).unwrap()["maxLogEntries"].clone()
        };
        assert_eq!(kept(json!(5)), 10);
        assert_eq!(kept(json!(99_999)), 10_000);
        assert_eq!(kept(json!(-3.5)), 10);
        assert_eq!(kept(json!(500)), 500);
    }

    /// Rules: REG-189
    #[test]
    fn what_cannot_be_kept_is_refused() {
        assert_eq!(read(&settings(), &json!({"ui": "x"})), Err("Invalid payload".into()));
        assert_eq!(read(&settings(), &json!([1])), Err("Invalid payload".into()));
        assert!(read(&settings(), &json!({"ui": {"deep": {"a": 1}}})).unwrap_err().contains("ui.deep"));
        assert!(read(&settings(), &json!({"ui": {"long": "x".repeat(201)}})).is_err());
        let many: Map<String, Value> = (0..51).map(|n| (n.to_string(), json!(n))).collect();
        assert!(read(&settings(), &json!({ "ui": many })).unwrap_err().contains("at most 50"));
    }
}
