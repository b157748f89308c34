//! When figures are worth an alert, and when it was said often enough (REG-347).

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Map, Value};

use super::health::{AgentHealth, Storage};
use super::journal::{Alert, Severity};
use crate::server::metrics::Utilization;

/// What is judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    /// Requests that agents counted.
    pub total_requests: u64,
    /// Mean of the agents, in **seconds** (REG-194).
    pub avg_response_time: f64,
    /// Mean of the agents, 0 to 1.
    pub error_rate: f64,
    /// Registered agents.
    pub agents: usize,
    /// Of these alive.
    pub alive: usize,
    /// Of this machine.
    pub resources: Utilization,
    /// The store.
    pub storage: Storage,
}

/// One scale: thresholds from the mildest to the gravest.
struct Scale {
    kind: &'static str,
    title: &'static str,
    what: &'static str,
    unit: &'static str,
    field: &'static str,
    steps: &'static [(f64, Severity)],
}

use Severity::{Critical, Info, Warning};

/// In **milliseconds**: the agents' times are seconds and are converted.
const RESPONSE_TIME: Scale = Scale {
    kind: "performance",
    title: "High response time",
    what: "response time",
    unit: "ms",
    field: "response_time_ms",
    steps: &[(1000.0, Info), (1500.0, Warning), (2000.0, Critical)],
};
const ERROR_RATE: Scale = Scale {
    kind: "error_rate",
    title: "High error rate",
    what: "error rate",
    unit: "%",
    field: "error_rate_percent",
    steps: &[(5.0, Info), (10.0, Warning), (15.0, Warning), (20.0, Critical)],
};
const CPU: Scale = Scale {
    kind: "resource_cpu",
    title: "Resource cpu",
    what: "CPU usage",
    unit: "%",
    field: "cpu_percent",
    steps: &[(70.0, Info), (80.0, Warning), (90.0, Critical)],
};
const MEMORY: Scale = Scale {
    kind: "resource_memory",
    title: "Resource memory",
    what: "memory usage",
    unit: "%",
    field: "memory_percent",
    steps: &[(75.0, Info), (85.0, Warning), (95.0, Critical)],
};
const DISK: Scale = Scale {
    kind: "resource_storage",
    title: "Resource storage",
    what: "disk usage",
    unit: "%",
    field: "storage_percent",
    steps: &[(80.0, Info), (85.0, Warning), (95.0, Critical)],
};
const NETWORK: Scale = Scale {
    kind: "resource_network",
    title: "Resource network",
    what: "network usage",
    unit: "%",
    field: "network_percent",
    steps: &[(60.0, Info), (80.0, Warning)],
};

/// Fewer requests say nothing about a rate of errors.
const FEW_REQUESTS: u64 = 10;

impl Scale {
    fn judge(&self, value: f64) -> Option<Alert> {
        let (threshold, severity) = *self.steps.iter().rev().find(|(threshold, _)| value >= *threshold)?;
        let value = super::rounded(value, 2);
        let grade = match severity {
            Critical => "Critical",
            Warning => "High",
            Info => "Elevated",
        };
        Some(Alert {
            title: self.title.into(),
            message: format!("{grade} {}: {value:?}{unit} (threshold: {threshold}{unit})", self.what, unit = self.unit),
            severity,
            kind: self.kind.into(),
            details: details([(self.field, value.into()), ("threshold", threshold.into())]),
        })
    }
}

fn details<const N: usize>(values: [(&str, Value); N]) -> Map<String, Value> {
    values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Everything in the figures that is worth an alert, however often it was said.
pub fn judge(figures: &Figures) -> Vec<Alert> {
    let errors = if figures.total_requests > FEW_REQUESTS { figures.error_rate * 100.0 } else { 0.0 };
    let scales = [
        (RESPONSE_TIME, figures.avg_response_time * 1000.0),
        (ERROR_RATE, errors),
        (CPU, figures.resources.cpu),
        (MEMORY, figures.resources.memory),
        (DISK, figures.resources.storage),
        (NETWORK, figures.resources.network),
    ];
    let mut alerts: Vec<Alert> = scales.iter().filter_map(|(scale, value)| scale.judge(*value)).collect();
    alerts.extend(connectivity(figures.agents, figures.alive));
    if figures.storage == Storage::Failing {
        alerts.push(Alert {
            title: "Storage".into(),
            message: "Storage failed - changes are refused until it works again; check the disk".into(),
            severity: Critical,
            kind: "storage".into(),
            details: Map::new(),
        });
    }
    alerts
}

fn connectivity(total: usize, alive: usize) -> Option<Alert> {
    let (severity, message) = match AgentHealth::of(total, alive) {
        AgentHealth::Healthy => return None,
        AgentHealth::NoAgents => (Warning, "No agents registered in the system".to_owned()),
        AgentHealth::Degraded => (Warning, format!("Only {alive} of {total} agents are alive")),
        AgentHealth::Critical => (Critical, format!("Only {alive} of {total} agents are alive")),
    };
    Some(Alert {
        title: "Agent connectivity".into(),
        message,
        severity,
        kind: "agent_connectivity".into(),
        details: details([("total", total.into()), ("active", alive.into())]),
    })
}

/// When which alert was last said.
#[derive(Debug, Default)]
pub struct Suppression {
    said: HashMap<(String, Severity), Duration>,
}

impl Suppression {
    /// Whether an alert is to be said now: not when its like was said 300 s (critical), 900 s (warning), 3600 s (info)
    /// ago. `now` never goes back.
    pub fn admit(&mut self, now: Duration, alert: &Alert) -> bool {
        let quiet = Duration::from_secs(match alert.severity {
            Critical => 300,
            Warning => 900,
            Info => 3600,
        });
        let key = (alert.kind.clone(), alert.severity);
        if self.said.get(&key).is_some_and(|last| now < *last + quiet) {
            return false;
        }
        self.said.insert(key, now);
        true
    }

    /// All may be said again.
    pub fn clear(&mut self) {
        self.said.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calm() -> Figures {
        Figures {
            total_requests: 100,
            avg_response_time: 0.2,
            error_rate: 0.0,
            agents: 1,
            alive: 1,
            resources: Utilization::default(),
            storage: Storage::Working,
        }
    }

    fn severities(figures: Figures) -> Vec<(String, Severity)> {
        judge(&figures).into_iter().map(|alert| (alert.kind, alert.severity)).collect()
    }

    /// Rules: REG-347
    #[test]
    fn thresholds() {
        assert_eq!(severities(calm()), []);
        let one = |kind: &str, severity| vec![(kind.to_owned(), severity)];
        let cpu = |cpu| severities(Figures { resources: Utilization { cpu, ..Utilization::default() }, ..calm() });
        assert_eq!(cpu(69.9), []);
        assert_eq!(cpu(70.0), one("resource_cpu", Info));
        assert_eq!(cpu(85.0), one("resource_cpu", Warning));
        assert_eq!(cpu(90.0), one("resource_cpu", Critical));
        let memory =
            |memory| severities(Figures { resources: Utilization { memory, ..Utilization::default() }, ..calm() });
        assert_eq!((memory(74.0), memory(95.0)), (vec![], one("resource_memory", Critical)));
        let disk =
            |storage| severities(Figures { resources: Utilization { storage, ..Utilization::default() }, ..calm() });
        assert_eq!((disk(80.0), disk(85.0)), (one("resource_storage", Info), one("resource_storage", Warning)));
        let network =
            |network| severities(Figures { resources: Utilization { network, ..Utilization::default() }, ..calm() });
        assert_eq!((network(59.0), network(99.0)), (vec![], one("resource_network", Warning)));
    }

    /// Rules: REG-347, REG-194
    #[test]
    fn response_times_are_seconds_and_thresholds_milliseconds() {
        let of = |avg_response_time| judge(&Figures { avg_response_time, ..calm() });
        assert_eq!(of(0.999), []);
        assert_eq!(of(1.0)[0].severity, Info);
        assert_eq!(of(1.7)[0].severity, Warning);
        assert_eq!(of(2.0)[0].severity, Critical);
        assert_eq!(of(1.7)[0].message, "High response time: 1700.0ms (threshold: 1500ms)");
    }

    /// Rules: REG-347
    #[test]
    fn errors_count_only_with_more_than_ten_requests() {
        let of = |total_requests, error_rate| severities(Figures { total_requests, error_rate, ..calm() });
        assert_eq!(of(10, 1.0), []);
        assert_eq!(of(11, 0.2), [("error_rate".to_owned(), Critical)]);
        assert_eq!(of(11, 0.15), [("error_rate".to_owned(), Warning)]);
        assert_eq!(of(11, 0.05), [("error_rate".to_owned(), Info)]);
        assert_eq!(of(11, 0.04), []);
    }

    /// Rules: REG-347
    #[test]
    fn the_words_of_the_published_server() {
        let resources = Utilization { cpu: 99.954, ..Utilization::default() };
        let alert = &judge(&Figures { resources, ..calm() })[0];
        assert_eq!(alert.message, "Critical CPU usage: 99.95% (threshold: 90%)");
        assert_eq!(Value::Object(alert.details.clone()), serde_json::json!({"cpu_percent": 99.95, "threshold": 90.0}));
        let none = &judge(&Figures { agents: 0, alive: 0, ..calm() })[0];
        assert_eq!((none.message.as_str(), none.severity), ("No agents registered in the system", Warning));
        assert_eq!((none.title.as_str(), none.kind.as_str()), ("Agent connectivity", "agent_connectivity"));
    }

    /// Rules: REG-347
    #[test]
    fn agents_and_storage() {
        let kinds = severities(Figures { agents: 3, alive: 1, storage: Storage::Failing, ..calm() });
        assert_eq!(kinds, [("agent_connectivity".to_owned(), Critical), ("storage".to_owned(), Critical)]);
    }

    /// Rules: REG-347
    #[test]
    fn repeats_are_suppressed_by_severity() {
        let mut suppression = Suppression::default();
        let alert = |severity| Alert {
            title: String::new(),
            message: String::new(),
            severity,
            kind: "resource_cpu".into(),
            details: Map::new(),
        };
        for (severity, quiet) in [(Critical, 300), (Warning, 900), (Info, 3600)] {
            let start = Duration::from_secs(50);
            assert!(suppression.admit(start, &alert(severity)));
            assert!(!suppression.admit(start + Duration::from_secs(quiet - 1), &alert(severity)));
            assert!(suppression.admit(start + Duration::from_secs(quiet), &alert(severity)));
        }
        assert!(!suppression.admit(Duration::from_secs(60), &alert(Critical)), "time of the clock that measures");
        suppression.clear();
        assert!(suppression.admit(Duration::from_secs(60), &alert(Critical)));
    }
}
