//! What is counted of an agent's work (REG-074, REG-176, REG-178, REG-194).

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::time::{TimeForm, write_time};
use crate::model::metrics::MOST_CUSTOM;
use crate::model::{AgentMetrics, Invalid, MetricsUpdate};

/// The metrics of one agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// 0 to 1.
    pub success_rate: f64,
    /// Seconds.
    pub avg_response_time: f64,
    /// Requests answered.
    pub total_requests: i64,
    /// When it last reported, or registered.
    pub last_active: Timestamp,
    /// 0 to 10 as set, 0 to 1 as computed.
    pub reputation_score: f64,
    /// Requests worked on.
    pub requests_processed: i64,
    /// Seconds.
    pub average_response_time: f64,
    /// 0 to 1.
    pub error_rate: f64,
    /// Members of the agent's own making.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom: Option<Box<Map<String, Value>>>,
}

impl Figures {
    /// Those of an agent that has reported nothing yet.
    pub fn fresh(registered_at: Timestamp) -> Figures {
        Figures {
            success_rate: 0.0,
            avg_response_time: 0.0,
            total_requests: 0,
            last_active: registered_at,
            reputation_score: 0.0,
            requests_processed: 0,
            average_response_time: 0.0,
            error_rate: 0.0,
            custom: None,
        }
    }

    /// Takes over what an update names (REG-176).
    ///
    /// # Errors
    /// When too many members of the agent's own making would be kept; nothing is changed then.
    pub fn set(&mut self, update: &MetricsUpdate, now: Timestamp) -> Result<(), Vec<Invalid>> {
        let kept = self.custom.as_deref();
        let fresh = update
            .custom
            .iter()
            .filter(|(name, value)| !value.is_null() && kept.is_none_or(|kept| !kept.contains_key(name.as_str())));
        let gone = update
            .custom
            .iter()
            .filter(|(name, value)| value.is_null() && kept.is_some_and(|kept| kept.contains_key(name.as_str())));
        let count = kept.map_or(0, Map::len) + fresh.count() - gone.count();
        if count > MOST_CUSTOM {
            return Err(vec![Invalid::whole(
                "value_error",
                format!(
                    "at most {MOST_CUSTOM} members of your own are kept, and there would be {count}; send null for \
                     those to be forgotten"
                ),
            )]);
        }
        let set = |place: &mut f64, value: Option<f64>| *place = value.unwrap_or(*place);
        let set_count = |place: &mut i64, value: Option<i64>| *place = value.unwrap_or(*place);
        set(&mut self.success_rate, update.success_rate);
        set(&mut self.avg_response_time, update.avg_response_time);
        set_count(&mut self.total_requests, update.total_requests);
        set(&mut self.reputation_score, update.reputation_score);
        set_count(&mut self.requests_processed, update.requests_processed);
        set(&mut self.average_response_time, update.average_response_time);
        set(&mut self.error_rate, update.error_rate);
        self.last_active = now;
        if !update.custom.is_empty() {
            let custom = self.custom.get_or_insert_default();
            for (name, value) in &update.custom {
                if value.is_null() {
                    custom.remove(name);
                } else {
                    custom.insert(name.clone(), value.clone());
                }
            }
            if custom.is_empty() {
                self.custom = None;
            }
        }
        Ok(())
    }

    /// Counts one answered request (REG-194): the success rate is a running mean, the response time a moving one, and
    /// reputation follows from both.
    pub fn count(&mut self, response_time: f64, success: bool, now: Timestamp) {
        let before = self.total_requests as f64;
        self.total_requests = self.total_requests.saturating_add(1);
        let hit = f64::from(u8::from(success));
        self.success_rate = ((self.success_rate * before + hit) / (before + 1.0)).clamp(0.0, 1.0);
        self.avg_response_time = if self.avg_response_time == 0.0 {
            response_time
        } else {
            0.9 * self.avg_response_time + 0.1 * response_time
        };
        self.average_response_time = self.avg_response_time;
        self.reputation_score = 0.7 * self.success_rate + 0.3 * (1.0 / self.avg_response_time.max(0.1)).min(1.0);
        self.last_active = now;
    }

    /// The reputation as a share: a score above 1 counts in tenths (REG-198).
    pub fn reputation(&self) -> f64 {
        let score = self.reputation_score;
        (if score > 1.0 { score / 10.0 } else { score }).clamp(0.0, 1.0)
    }

    /// The model a client reads.
    pub fn model(&self, agent_id: &str, zone: &TimeZone, form: TimeForm) -> AgentMetrics {
        AgentMetrics {
            agent_id: agent_id.to_owned(),
            success_rate: self.success_rate,
            avg_response_time: self.avg_response_time,
            total_requests: self.total_requests,
            last_active: Some(super::time::time_text(self.last_active, zone, form)),
            reputation_score: self.reputation_score,
            requests_processed: self.requests_processed,
            average_response_time: self.average_response_time,
            error_rate: self.error_rate,
            custom: self.custom.as_deref().cloned().unwrap_or_default(),
        }
    }

    /// Writes the same as JSON; `agent_id` must be an identifier.
    pub fn write_json(&self, out: &mut Vec<u8>, agent_id: &str, zone: &TimeZone, form: TimeForm) {
        out.extend_from_slice(b"{\"agent_id\":\"");
        out.extend_from_slice(agent_id.as_bytes());
        out.extend_from_slice(b"\",\"success_rate\":");
        write_float(out, self.success_rate);
        out.extend_from_slice(b",\"avg_response_time\":");
        write_float(out, self.avg_response_time);
        out.extend_from_slice(b",\"total_requests\":");
        write_int(out, self.total_requests);
        out.extend_from_slice(b",\"last_active\":\"");
        write_time(out, self.last_active, zone, form);
        out.extend_from_slice(b"\",\"reputation_score\":");
        write_float(out, self.reputation_score);
        out.extend_from_slice(b",\"requests_processed\":");
        write_int(out, self.requests_processed);
        out.extend_from_slice(b",\"average_response_time\":");
        write_float(out, self.average_response_time);
        out.extend_from_slice(b",\"error_rate\":");
        write_float(out, self.error_rate);
        for (name, value) in self.custom.iter().flat_map(|custom| custom.iter()) {
            out.push(b',');
            write_value(out, name);
            out.push(b':');
            write_value(out, value);
        }
        out.push(b'}');
    }
}

/// Writes a value as JSON; into memory that cannot fail.
pub(crate) fn write_value<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    let _ = serde_json::to_writer(out, value);
}

fn write_float(out: &mut Vec<u8>, value: f64) {
    write_value(out, &value);
}

fn write_int(out: &mut Vec<u8>, value: i64) {
    if value == 0 {
        out.push(b'0');
    } else {
        write_value(out, &value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// Rules: REG-178, REG-194
    #[test]
    fn requests_are_counted_as_recorded() {
        let mut figures =
            Figures { success_rate: 0.98, avg_response_time: 0.25, total_requests: 150, ..Figures::fresh(at(0)) };
        figures.count(0.2, true, at(1));
        let rounded = |value: f64| (value * 1000.0).round() / 1000.0;
        assert_eq!(rounded(figures.success_rate), 0.98);
        assert_eq!(rounded(figures.avg_response_time), 0.245);
        assert_eq!(figures.total_requests, 151);
        assert_eq!(rounded(figures.reputation_score), 0.986);
        figures.count(2.5, false, at(2));
        assert_eq!(rounded(figures.success_rate), 0.974);
        assert_eq!(rounded(figures.avg_response_time), 0.471);
        assert_eq!(rounded(figures.reputation_score), 0.982);
        assert_eq!(figures.last_active, at(2));

        let mut other = Figures { success_rate: 0.5, total_requests: 4, ..Figures::fresh(at(0)) };
        other.count(0.2, false, at(1));
        assert_eq!((rounded(other.success_rate), rounded(other.avg_response_time)), (0.4, 0.2));
        assert_eq!(rounded(other.reputation_score), 0.58);
    }

    /// Rules: REG-176
    #[test]
    fn members_of_an_agents_own_come_back() {
        let mut figures = Figures::fresh(at(0));
        let update = |json| MetricsUpdate::check(&json).unwrap();
        let body = serde_json::json!({"total_requests": 150, "success_rate": 0.98, "avg_response_time": 0.25,
            "last_active": "2025-01-XX...", "custom_metric": "value"});
        figures.set(&update(body), at(5)).unwrap();
        let mut out = Vec::new();
        figures.write_json(&mut out, "a-1", &TimeZone::UTC, TimeForm::Http);
        let json: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(json["custom_metric"], "value");
        assert_eq!(json["total_requests"], 150);
        assert_eq!(json["last_active"], "1970-01-01T00:00:05.000000");
        let model = serde_json::from_slice::<AgentMetrics>(&out).unwrap();
        assert_eq!(model, figures.model("a-1", &TimeZone::UTC, TimeForm::Http));

        figures.set(&update(serde_json::json!({"custom_metric": null})), at(6)).unwrap();
        assert_eq!(figures.custom, None);
        for half in 0..2 {
            let many = (0..30).map(|n| (format!("m{half}-{n}"), Value::from(n))).collect::<Map<_, _>>();
            let outcome = figures.set(&update(Value::Object(many)), at(7));
            assert_eq!(outcome.is_ok(), half == 0);
        }
        assert_eq!(figures.custom.map(|custom| custom.len()), Some(30));
    }
}
