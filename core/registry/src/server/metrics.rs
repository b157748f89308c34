//! Figures for Prometheus (REG-202). Every label set is bounded: paths are templates, and what is not ours is `unmatched`.

use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use sysinfo::{Disks, Networks, System};

use super::config::Config;

/// The media type of the text.
pub const MEDIA_TYPE: &str = "text/plain; version=1.0.0; charset=utf-8";
/// The label of a path that is no endpoint.
pub const UNMATCHED: &str = "unmatched";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    endpoint: &'static str,
    status_code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RegistrationLabels {
    status: &'static str,
    agent_type: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UnregistrationLabels {
    status: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabel {
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AuthLabels {
    status: &'static str,
    auth_type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TypeLabel {
    agent_type: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    arcp_service_health_status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InfoLabels {
    version: &'static str,
    name: &'static str,
    environment: &'static str,
}

type Float = Gauge<f64, std::sync::atomic::AtomicU64>;

/// How much of the machine is in use, in percent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Utilization {
    /// Processors.
    pub cpu: f64,
    /// Memory.
    pub memory: f64,
    /// The network, of NETWORK_INTERFACE_CAPACITY_MBPS.
    pub network: f64,
    /// The disk the database is on, or the fullest.
    pub storage: f64,
}

/// All figures.
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    durations: Family<RequestLabels, Histogram, fn() -> Histogram>,
    registrations: Family<RegistrationLabels, Counter>,
    unregistrations: Family<UnregistrationLabels, Counter>,
    heartbeats: Family<StatusLabel, Counter>,
    active: Family<TypeLabel, Gauge>,
    searches: Family<StatusLabel, Counter>,
    auth: Family<AuthLabels, Counter>,
    sockets: Gauge,
    cpu: Float,
    memory: Float,
    disk: Float,
    network: Float,
    resident: Gauge,
    sampler: Mutex<Sampler>,
    latest: Mutex<Utilization>,
}

const BUCKETS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

fn histogram() -> Histogram {
    Histogram::new(BUCKETS)
}

impl Metrics {
    /// None counted yet.
    pub fn new(config: &Config, version: &'static str) -> Metrics {
        let mut registry = Registry::default();
        let durations = Family::<RequestLabels, Histogram, fn() -> Histogram>::new_with_constructor(histogram);
        let metrics = Metrics {
            requests: Family::default(),
            durations,
            registrations: Family::default(),
            unregistrations: Family::default(),
            heartbeats: Family::default(),
            active: Family::default(),
            searches: Family::default(),
            auth: Family::default(),
            sockets: Gauge::default(),
            cpu: Float::default(),
            memory: Float::default(),
            disk: Float::default(),
            network: Float::default(),
            resident: Gauge::default(),
            sampler: Mutex::new(Sampler::new(config.network_capacity_mbps)),
            latest: Mutex::default(),
            registry: Registry::default(),
        };
        registry.register("arcp_requests", "Requests", metrics.requests.clone());
        registry.register("arcp_request_duration_seconds", "Time to answer a request", metrics.durations.clone());
        registry.register("arcp_agent_registrations", "Registrations", metrics.registrations.clone());
        registry.register("arcp_agent_unregistrations", "Agents that went", metrics.unregistrations.clone());
        registry.register("arcp_agent_heartbeats", "Heartbeats", metrics.heartbeats.clone());
        registry.register("arcp_active_agents", "Agents alive", metrics.active.clone());
        registry.register("arcp_vector_search_operations", "Searches", metrics.searches.clone());
        registry.register("arcp_auth_attempts", "Logins, temporary tokens and PINs", metrics.auth.clone());
        registry.register("arcp_websocket_connections", "WebSockets open", metrics.sockets.clone());
        registry.register("arcp_system_cpu_utilization_percent", "Processors in use", metrics.cpu.clone());
        registry.register("arcp_system_memory_utilization_percent", "Memory in use", metrics.memory.clone());
        registry.register("arcp_system_disk_utilization_percent", "Disk in use", metrics.disk.clone());
        registry.register("arcp_system_network_utilization_percent", "Network in use", metrics.network.clone());
        registry.register("process_resident_memory_bytes", "Memory of this process", metrics.resident.clone());
        let info = Family::<InfoLabels, Gauge>::default();
        let environment = config.environment.as_str();
        info.get_or_create(&InfoLabels { version, name: "arcp", environment }).set(1);
        registry.register("arcp_service_info", "What this is", info);
        let state = Family::<StateLabel, Gauge>::default();
        for (word, on) in [("healthy", 1), ("degraded", 0), ("unhealthy", 0)] {
            state.get_or_create(&StateLabel { arcp_service_health_status: word }).set(on);
        }
        registry.register("arcp_service_health_status", "Health", state);
        Metrics { registry, ..metrics }
    }

    /// Counts an answered request.
    pub fn request(&self, method: &'static str, endpoint: &'static str, status_code: u16, took: Duration) {
        let labels = RequestLabels { method, endpoint, status_code };
        self.requests.get_or_create(&labels).inc();
        self.durations.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// Counts a registration; the type is one that may register, or `unknown`.
    pub fn registration(&self, status: &'static str, agent_type: &str) {
        let agent_type = agent_type.to_ascii_lowercase();
        self.registrations.get_or_create(&RegistrationLabels { status, agent_type }).inc();
    }

    /// Counts an agent that went.
    pub fn unregistration(&self, status: &'static str, reason: &'static str) {
        self.unregistrations.get_or_create(&UnregistrationLabels { status, reason }).inc();
    }

    /// Counts a heartbeat.
    pub fn heartbeat(&self, status: &'static str) {
        self.heartbeats.get_or_create(&StatusLabel { status }).inc();
    }

    /// Counts a search.
    pub fn search(&self, status: &'static str) {
        self.searches.get_or_create(&StatusLabel { status }).inc();
    }

    /// Counts a login, a temporary token or a PIN.
    pub fn auth(&self, status: &'static str, auth_type: &'static str) {
        self.auth.get_or_create(&AuthLabels { status, auth_type }).inc();
    }

    /// Sets how many agents of each type are alive.
    pub fn active_agents<'a>(&self, types: impl IntoIterator<Item = (&'a str, usize)>) {
        self.active.clear();
        for (name, count) in types {
            let label = TypeLabel { agent_type: name.to_ascii_lowercase() };
            self.active.get_or_create(&label).inc_by(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// One more socket.
    pub fn socket_opened(&self) {
        self.sockets.inc();
    }

    /// One socket less.
    pub fn socket_closed(&self) {
        self.sockets.dec();
    }

    /// Sockets open now.
    pub fn sockets(&self) -> i64 {
        self.sockets.get()
    }

    /// Looks at the machine; some milliseconds of work.
    pub fn sample(&self) {
        let (now, resident) = self.sampler.lock().sample();
        self.cpu.set(now.cpu);
        self.memory.set(now.memory);
        self.disk.set(now.storage);
        self.network.set(now.network);
        self.resident.set(resident);
        *self.latest.lock() = now;
    }

    /// What the machine did when it was last looked at.
    pub fn utilization(&self) -> Utilization {
        *self.latest.lock()
    }

    /// The text of `/metrics`.
    pub fn text(&self) -> String {
        let mut out = String::with_capacity(16 * 1024);
        // Writing to a String does not fail.
        let _ = text::encode(&mut out, &self.registry);
        out
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// What is needed to look at the machine; each part is absent where the system does not tell.
struct Sampler {
    system: Option<System>,
    disks: Option<Disks>,
    networks: Option<Networks>,
    capacity_mbps: u32,
    last: std::time::Instant,
}

impl Sampler {
    fn new(capacity_mbps: u32) -> Sampler {
        Sampler {
            system: System::new().ok(),
            disks: Disks::new_with_refreshed_list().ok(),
            networks: Networks::new_with_refreshed_list().ok(),
            capacity_mbps: capacity_mbps.max(1),
            last: std::time::Instant::now(),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "percent of what is in use")]
    fn sample(&mut self) -> (Utilization, i64) {
        let seconds = self.last.elapsed().as_secs_f64().max(0.001);
        self.last = std::time::Instant::now();
        let percent = |used: f64, all: f64| if all > 0.0 { round(100.0 * used / all) } else { 0.0 };
        let mut now = Utilization::default();
        let mut resident = 0;
        if let Some(system) = &mut self.system {
            system.refresh_cpu_usage();
            system.refresh_memory();
            now.cpu = round(f64::from(system.global_cpu_usage()));
            now.memory = percent(system.used_memory() as f64, system.total_memory() as f64);
            if let Ok(pid) = sysinfo::get_current_pid() {
                system.refresh_processes(sysinfo::ProcessesToUpdate::Some(&[pid]), true);
                resident = system.process(pid).map_or(0, |own| i64::try_from(own.memory()).unwrap_or(i64::MAX));
            }
        }
        if let Some(disks) = &mut self.disks {
            disks.refresh(false);
            let used = disks.iter().map(|disk| {
                percent((disk.total_space().saturating_sub(disk.available_space())) as f64, disk.total_space() as f64)
            });
            now.storage = used.fold(0.0, f64::max);
        }
        if let Some(networks) = &mut self.networks {
            networks.refresh(false);
            let outside = networks.iter().filter(|(name, _)| !name.to_string_lossy().starts_with("lo"));
            let bytes: u64 = outside.map(|(_, data)| data.received() + data.transmitted()).sum();
            let capacity = f64::from(self.capacity_mbps) * 125_000.0 * seconds;
            now.network = percent(bytes as f64, capacity).min(100.0);
        }
        (now, resident)
    }
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// The template of a path, or [`UNMATCHED`].
pub fn template(path: &str) -> &'static str {
    let mut parts = path.strip_prefix('/').unwrap_or(path).split('/');
    let (a, b, c, d, more) = (parts.next(), parts.next(), parts.next(), parts.next(), parts.next().is_some());
    if more {
        return UNMATCHED;
    }
    match (a.unwrap_or_default(), b, c, d) {
        ("", None, None, None) => "/",
        ("health", None, None, None) => "/health",
        ("health", Some("detailed"), None, None) => "/health/detailed",
        ("health", Some("config"), None, None) => "/health/config",
        ("health", Some("redis"), None, None) => "/health/redis",
        ("health", Some("azure"), None, None) => "/health/azure",
        ("metrics", None, None, None) => "/metrics",
        ("metrics", Some("scrape"), None, None) => "/metrics/scrape",
        ("docs", None, None, None) => "/docs",
        ("redoc", None, None, None) => "/redoc",
        ("openapi.json", None, None, None) => "/openapi.json",
        ("dashboard", None, None, None) => "/dashboard",
        ("dashboard", Some("config"), None, None) => "/dashboard/config",
        ("dashboard", Some("ws"), None, None) => "/dashboard/ws",
        ("static", Some(_), _, _) => "/static/{path}",
        ("auth", Some("login"), None, None) => "/auth/login",
        ("auth", Some("logout"), None, None) => "/auth/logout",
        ("auth", Some("set_pin"), None, None) => "/auth/set_pin",
        ("auth", Some("verify_pin"), None, None) => "/auth/verify_pin",
        ("auth", Some("pin_status"), None, None) => "/auth/pin_status",
        ("auth", Some("session_status"), None, None) => "/auth/session_status",
        ("auth", Some("agent"), Some("request_temp_token"), None) => "/auth/agent/request_temp_token",
        ("auth", Some("agent"), Some("validate_compliance"), None) => "/auth/agent/validate_compliance",
        ("tokens", Some("mint"), None, None) => "/tokens/mint",
        ("tokens", Some("validate"), None, None) => "/tokens/validate",
        ("tokens", Some("refresh"), None, None) => "/tokens/refresh",
        ("agents", None, None, None) => "/agents",
        ("agents", Some("register"), None, None) => "/agents/register",
        ("agents", Some("stats"), None, None) => "/agents/stats",
        ("agents", Some("search"), None, None) => "/agents/search",
        ("agents", Some("ws"), None, None) => "/agents/ws",
        ("agents", Some("report-metrics"), Some(_), None) => "/agents/report-metrics/{agent_id}",
        ("agents", Some(_), None, None) => "/agents/{agent_id}",
        ("agents", Some(_), Some("heartbeat"), None) => "/agents/{agent_id}/heartbeat",
        ("agents", Some(_), Some("metrics"), None) => "/agents/{agent_id}/metrics",
        ("agents", Some(_), Some("metrics"), Some("compat")) => "/agents/{agent_id}/metrics/compat",
        ("agents", Some(_), Some("connection"), Some("notify")) => "/agents/{agent_id}/connection/notify",
        ("public", Some("discover"), None, None) => "/public/discover",
        ("public", Some("search"), None, None) => "/public/search",
        ("public", Some("agent"), Some(_), None) => "/public/agent/{agent_id}",
        ("public", Some("connect"), Some(_), None) => "/public/connect/{agent_id}",
        ("public", Some("info"), None, None) => "/public/info",
        ("public", Some("stats"), None, None) => "/public/stats",
        ("public", Some("agent_types"), None, None) => "/public/agent_types",
        ("public", Some("ws"), None, None) => "/public/ws",
        _ => UNMATCHED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules: REG-117, REG-202
    #[test]
    fn unknown_paths_make_no_new_series() {
        let metrics = Metrics::new(&Config::dev(), "0");
        for n in 0..100 {
            metrics.request("GET", template(&format!("/nope/{n}")), 404, Duration::from_millis(1));
            metrics.request("GET", template(&format!("/agents/a-{n}")), 200, Duration::from_millis(1));
        }
        let text = metrics.text();
        assert!(
            text.contains(r#"arcp_requests_total{method="GET",endpoint="unmatched",status_code="404"} 100"#),
            "{text}"
        );
        assert!(text.contains(r#"endpoint="/agents/{agent_id}",status_code="200"} 100"#), "{text}");
        assert_eq!(text.lines().filter(|line| line.starts_with("arcp_requests_total{")).count(), 2);
    }

    /// Rules: REG-202
    #[test]
    fn the_machine_is_looked_at() {
        let metrics = Metrics::new(&Config::dev(), "0");
        metrics.sample();
        let now = metrics.utilization();
        assert!(now.memory > 0.0 && now.memory <= 100.0, "{now:?}");
        assert!(metrics.text().contains("arcp_system_memory_utilization_percent "));
    }
}
