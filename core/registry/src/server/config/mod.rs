//! The server's settings: one precedence (flags, environment, `.env`, file, defaults), typed and bounded (REG-500 to
//! REG-509, D-38).

mod findings;
mod secret;
mod settings;
mod sources;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use jiff::tz::TimeZone;

pub use findings::{Finding, Severity};
pub use secret::Secret;
pub use settings::{Kind, SETTINGS, Section, Setting, find as find_setting};
pub use sources::{Found, Source, Sources, Value};

/// Keys that `--dev` takes (D-38).
pub const DEV_AGENT_KEYS: [&str; 3] = ["test-agent-001", "test-agent-002", "test-agent-003"];
/// Name and password of the administrator of `--dev` on a loopback address.
pub const DEV_ADMIN: &str = "ARCP";

/// Why settings cannot be used: one sentence each, with the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigError(pub Vec<String>);

/// What the server is run for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Environment {
    /// The default.
    Development,
    /// Like development.
    Testing,
    /// Hosts are checked, more calls are limited, unsafe settings are refused.
    Production,
}

impl Environment {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Environment::Development => "development",
            Environment::Testing => "testing",
            Environment::Production => "production",
        }
    }
}

/// Where agents, sessions and users are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Database {
    /// For as long as the process lives.
    Memory,
    /// In this file.
    File(PathBuf),
}

/// The settings of one kind of socket (REG-504).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketSettings {
    /// Between updates.
    pub interval: Duration,
    /// To authenticate in, and to take a frame in.
    pub timeout: Duration,
    /// Silence before a ping.
    pub ping_interval: Duration,
    /// Most connections at once.
    pub max_connections: usize,
}

/// How texts are embedded for search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Embeddings {
    /// By the built-in table.
    Local,
    /// By an OpenAI-compatible service.
    OpenAi {
        /// Its base URL.
        url: String,
        /// The model.
        model: String,
        /// The key, if it asks for one.
        key: Option<Secret>,
    },
    /// By Azure OpenAI.
    Azure {
        /// The resource's URL.
        base: String,
        /// The version of the API.
        version: String,
        /// The deployment.
        deployment: String,
        /// The key.
        key: Secret,
    },
}

/// An administrator from the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// The name.
    pub username: String,
    /// The password.
    pub password: Secret,
}

/// What the server runs with.
#[derive(Clone, Debug)]
pub struct Config {
    /// What it is run for.
    pub environment: Environment,
    /// Whether this is `--dev`.
    pub dev: bool,
    /// Zone of times without one.
    pub timezone: TimeZone,
    /// Its name.
    pub timezone_name: String,
    /// Address or name to listen on.
    pub host: String,
    /// Port to listen on; 0 takes a free one.
    pub port: u16,
    /// Where things are kept.
    pub db: Database,
    /// Folder of the generated secret.
    pub data_dir: Option<PathBuf>,
    /// The published server's state file, for a hint.
    pub state_file: Option<PathBuf>,
    /// `trace`, `debug`, `info`, `warning`, `error`.
    pub log_level: String,
    /// What tokens are signed with; without one it is generated and kept.
    pub jwt_secret: Option<Secret>,
    /// `HS256`, `HS384` or `HS512`.
    pub jwt_algorithm: String,
    /// Life of an agent's token.
    pub agent_token_life: Duration,
    /// An administrator besides those in the database.
    pub admin: Option<Admin>,
    /// Keys besides those in the database.
    pub agent_keys: Vec<Secret>,
    /// Life of an administrator's token and session.
    pub session_life: Duration,
    /// Sessions a user may have.
    pub max_sessions: usize,
    /// RATE_LIMIT_RPM.
    pub rate_limit_rpm: u32,
    /// RATE_LIMIT_BURST.
    pub rate_limit_burst: u32,
    /// Origins a browser may call from.
    pub allowed_origins: Vec<String>,
    /// Hosts taken in production.
    pub trusted_hosts: Vec<String>,
    /// Whether pages may call `http:`.
    pub csp_connect_http: bool,
    /// Whether pages may call `https:`.
    pub csp_connect_https: bool,
    /// Largest body in bytes.
    pub max_json_size: usize,
    /// Most query values.
    pub max_query_params: usize,
    /// Most bytes of header names and values.
    pub max_header_size: usize,
    /// Whether refusals are logged.
    pub security_logging: bool,
    /// Whether only `allowed_ip_ranges` are taken.
    pub ip_default_deny: bool,
    /// Refused addresses.
    pub blocked_ips: Vec<IpNet>,
    /// Taken addresses.
    pub allowed_ip_ranges: Vec<IpNet>,
    /// Most connections at once.
    pub max_connections: usize,
    /// Types that may register, compared without case.
    pub allowed_agent_types: Vec<String>,
    /// An agent is dead after so much silence.
    pub heartbeat_timeout: Duration,
    /// Between clean-ups.
    pub cleanup_interval: Duration,
    /// Whether connection requests may go to loopback addresses.
    pub connect_loopback: bool,
    /// Whether they may go to private addresses.
    pub connect_private: bool,
    /// Other ranges they may go to.
    pub connect_ranges: Vec<IpNet>,
    /// `/public/ws`.
    pub public_ws: SocketSettings,
    /// `/agents/ws`.
    pub agent_ws: SocketSettings,
    /// `/dashboard/ws`.
    pub dashboard_ws: SocketSettings,
    /// Results of a search that names no number.
    pub search_top_k: u32,
    /// Least similarity of a search that names none.
    pub search_min_similarity: f32,
    /// How texts are embedded.
    pub embeddings: Embeddings,
    /// Opens `/metrics/scrape`.
    pub metrics_scrape_token: Option<Secret>,
    /// 100 percent of the network gauge.
    pub network_capacity_mbps: u32,
    /// Log entries kept for the dashboard.
    pub log_buffer_maxlen: usize,
    /// Longest message of a log entry.
    pub log_message_maxlen: usize,
    /// Every setting as it was found, for `config check`.
    pub found: Vec<Found>,
    /// What is unwise.
    pub findings: Vec<Finding>,
}

impl Config {
    /// Reads flags, environment, `.env` and file, and understands them.
    ///
    /// # Errors
    /// Every setting that is wrong, with its name, source and remedy; in production also those that are unsafe.
    pub fn load(sources: &Sources) -> Result<Config, ConfigError> {
        let (config, mut errors) = Config::examine(sources);
        let unsafe_settings = config.findings.iter().filter(|finding| finding.severity == Severity::Wrong);
        errors.extend(unsafe_settings.map(|finding| finding.message.clone()));
        if errors.is_empty() { Ok(config) } else { Err(ConfigError(errors)) }
    }

    /// Like [`Config::load`], with what is wrong beside it: a wrong setting has its default.
    pub fn examine(sources: &Sources) -> (Config, Vec<String>) {
        let mut errors = Vec::new();
        let found = sources::look_up(sources, &mut errors);
        let mut config = Reading { found, sources, errors: &mut errors }.config();
        config.findings = findings::examine(&config);
        (config, errors)
    }

    /// The settings of `--dev` on a free port, with everything in memory: for tests and embedders.
    pub fn dev() -> Config {
        let sources = Sources { dev: true, flags: vec![("ARCP_PORT", Secret::new("0"))], ..Sources::default() };
        Config::examine(&sources).0
    }

    /// Whether it listens on a loopback address only.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Makes a [`Config`] of what was found.
struct Reading<'a> {
    found: Vec<Found>,
    sources: &'a Sources,
    errors: &'a mut Vec<String>,
}

impl Reading<'_> {
    fn found(&self, id: &str) -> Option<&Found> {
        self.found.iter().find(|found| found.setting.id() == id)
    }

    fn value(&self, id: &str) -> &Value {
        self.found(id).map_or(&Value::Absent, |found| &found.value)
    }

    fn text(&self, id: &str) -> Option<String> {
        if let Value::Text(text) = self.value(id) { Some(text.clone()) } else { None }
    }

    fn secret(&self, id: &str) -> Option<Secret> {
        if let Value::Secret(secret) = self.value(id) { Some(secret.clone()) } else { None }
    }

    fn bool(&self, id: &str, default: bool) -> bool {
        if let Value::Bool(value) = self.value(id) { *value } else { default }
    }

    /// Its value, or the default of its table if what was given is wrong.
    fn int<T: TryFrom<i64> + Default>(&self, id: &str) -> T {
        let value = match self.value(id) {
            Value::Int(value) => *value,
            _ => settings::find(id).and_then(|setting| setting.default.parse().ok()).unwrap_or_default(),
        };
        T::try_from(value).unwrap_or_default()
    }

    fn seconds(&self, id: &str) -> Duration {
        Duration::from_secs(self.int(id))
    }

    fn minutes(&self, id: &str) -> Duration {
        Duration::from_secs(self.int::<u64>(id) * 60)
    }

    fn list(&self, id: &str) -> Vec<String> {
        if let Value::List(values) = self.value(id) { values.clone() } else { Vec::new() }
    }

    /// What a setting says about itself is wrong.
    fn complain(&mut self, id: &str, what: &str) {
        let Some(found) = self.found(id) else { return };
        self.errors.push(format!("{} from {}: {what}", found.setting.names(), found.source));
    }

    fn replace(&mut self, id: &str, value: Value) {
        if let Some(found) = self.found.iter_mut().find(|found| found.setting.id() == id) {
            found.value = value;
            found.source = Source::Dev;
        }
    }

    fn ranges(&mut self, id: &str) -> Vec<IpNet> {
        let mut ranges = Vec::new();
        for text in self.list(id) {
            match parse_range(&text) {
                Some(range) => ranges.push(range),
                None => self.complain(id, &format!("\"{text}\" is neither an address nor a range such as 10.0.0.0/8")),
            }
        }
        ranges
    }

    /// The specific variable, then the generic one if set, then the specific default (D-38).
    fn socket(&mut self, name: &str) -> SocketSettings {
        let pick = |reading: &mut Self, what: &str| -> u64 {
            let (specific, generic) = (format!("{name}_WS_{what}"), format!("WEBSOCKET_{what}"));
            let is_default = reading.found(&specific).is_none_or(|found| found.source == Source::Default);
            let given = reading.found(&generic).filter(|found| found.value != Value::Absent).cloned();
            if is_default && let Some(given) = given {
                if let Some(found) = reading.found.iter_mut().find(|found| found.setting.id() == specific) {
                    found.value = given.value.clone();
                    found.source = given.source;
                }
                return if let Value::Int(value) = given.value { u64::try_from(value).unwrap_or(1) } else { 1 };
            }
            reading.int(&specific)
        };
        SocketSettings {
            interval: Duration::from_secs(pick(self, "INTERVAL")),
            timeout: Duration::from_secs(pick(self, "TIMEOUT")),
            ping_interval: Duration::from_secs(pick(self, "PING_INTERVAL")),
            max_connections: usize::try_from(pick(self, "MAX_CONNECTIONS")).unwrap_or(usize::MAX),
        }
    }

    fn embeddings(&mut self) -> Embeddings {
        let azure = ["AZURE_API_BASE", "AZURE_API_VERSION", "AZURE_EMBEDDING_DEPLOYMENT"].map(|id| self.text(id));
        if let ([Some(base), Some(version), Some(deployment)], Some(key)) = (azure, self.secret("AZURE_API_KEY")) {
            return Embeddings::Azure { base, version, deployment, key };
        }
        match (self.text("ARCP_EMBEDDINGS_URL"), self.text("ARCP_EMBEDDINGS_MODEL")) {
            (Some(url), Some(model)) => {
                if !url.starts_with("http://") && !url.starts_with("https://") {
                    self.complain("ARCP_EMBEDDINGS_URL", "it must begin with http:// or https://");
                }
                Embeddings::OpenAi { url, model, key: self.secret("ARCP_EMBEDDINGS_KEY") }
            }
            (Some(_), None) => {
                self.complain("ARCP_EMBEDDINGS_URL", "ARCP_EMBEDDINGS_MODEL is needed with it");
                Embeddings::Local
            }
            _ => Embeddings::Local,
        }
    }

    fn admin(&mut self) -> Option<Admin> {
        match (self.text("ADMIN_USERNAME"), self.secret("ADMIN_PASSWORD")) {
            (Some(username), Some(password)) => {
                if username.len() > 255 || password.reveal().len() > 1024 {
                    self.complain("ADMIN_USERNAME", "at most 255 bytes for the name and 1024 for the password");
                }
                Some(Admin { username, password })
            }
            (Some(_), None) => {
                self.complain("ADMIN_USERNAME", "ADMIN_PASSWORD is needed with it");
                None
            }
            (None, Some(_)) => {
                self.complain("ADMIN_PASSWORD", "ADMIN_USERNAME is needed with it");
                None
            }
            (None, None) => None,
        }
    }

    fn agent_keys(&mut self) -> Vec<Secret> {
        let Value::Secrets(keys) = self.value("AGENT_KEYS") else { return Vec::new() };
        let keys = keys.clone();
        for (place, key) in keys.iter().enumerate() {
            let length = key.reveal().chars().count();
            if !(10..=200).contains(&length) {
                let what = format!("key {} has {length} characters; keys have 10 to 200", place + 1);
                self.complain("AGENT_KEYS", &what);
            }
        }
        keys
    }

    /// What `--dev` sets where nothing else does (D-38).
    fn apply_dev(&mut self) {
        let host = self.text("ARCP_HOST").unwrap_or_default();
        if self.value("AGENT_KEYS") == &Value::Absent {
            let keys = if is_loopback(&host) {
                DEV_AGENT_KEYS.map(Secret::new).to_vec()
            } else {
                (0..3).filter_map(|_| Secret::random().ok()).collect()
            };
            self.replace("AGENT_KEYS", Value::Secrets(keys));
        }
        if self.value("ADMIN_USERNAME") == &Value::Absent && self.value("ADMIN_PASSWORD") == &Value::Absent {
            // Known credentials are for this machine only.
            let password =
                if is_loopback(&host) { Secret::new(DEV_ADMIN) } else { Secret::random().unwrap_or_default() };
            self.replace("ADMIN_USERNAME", Value::Text(DEV_ADMIN.into()));
            self.replace("ADMIN_PASSWORD", Value::Secret(password));
        }
        if self.value("ARCP_CONNECT_ALLOW") == &Value::Absent {
            self.replace("ARCP_CONNECT_ALLOW", Value::List(vec!["loopback".into()]));
        }
        if self.value("ARCP_REGISTRY_DB") == &Value::Absent {
            self.replace("ARCP_REGISTRY_DB", Value::Text("memory".into()));
        }
        if self.value("JWT_SECRET") == &Value::Absent
            && let Ok(secret) = Secret::random()
        {
            self.replace("JWT_SECRET", Value::Secret(secret));
        }
    }

    fn config(mut self) -> Config {
        let environment = match self.text("ENVIRONMENT").as_deref() {
            Some("production") => Environment::Production,
            Some("testing") => Environment::Testing,
            _ => Environment::Development,
        };
        if self.sources.dev {
            if environment == Environment::Production {
                self.complain("ENVIRONMENT", "--dev is not for production; leave one of them out");
            }
            self.apply_dev();
        }
        let timezone_name = self.text("TZ").unwrap_or_else(|| "UTC".into());
        let timezone = TimeZone::get(timezone_name.trim_start_matches(':')).unwrap_or_else(|_| {
            self.complain(
                "TZ",
                &format!("there is no time zone \"{timezone_name}\"; take a name such as Europe/Berlin"),
            );
            TimeZone::UTC
        });
        let data_dir = self.text("ARCP_DATA_DIR").map(PathBuf::from).or_else(|| self.sources.default_data_dir.clone());
        let db = match (self.text("ARCP_REGISTRY_DB"), &data_dir) {
            (Some(word), _) if word == "memory" => Database::Memory,
            (Some(path), _) => {
                if path.contains("://") {
                    self.complain("ARCP_REGISTRY_DB", "it must be the path of a file, or memory; URLs are not taken");
                }
                Database::File(path.into())
            }
            (None, Some(folder)) => Database::File(folder.join("registry.db")),
            (None, None) => Database::Memory,
        };
        let port = self.int("ARCP_PORT");
        let types = self.list("ALLOWED_AGENT_TYPES");
        let well_formed = |name: &String| {
            (2..=50).contains(&name.len())
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
        };
        if types.is_empty() || types.len() > 100 || !types.iter().all(well_formed) {
            self.complain("ALLOWED_AGENT_TYPES", "1 to 100 names are needed, each of 2 to 50 letters, digits, _ and -");
        }
        let (mut connect_loopback, mut connect_private, mut connect_ranges) = (false, false, Vec::new());
        for text in self.list("ARCP_CONNECT_ALLOW") {
            match text.to_ascii_lowercase().as_str() {
                "loopback" => connect_loopback = true,
                "private" => connect_private = true,
                _ => match parse_range(&text) {
                    Some(range) => connect_ranges.push(range),
                    None => self.complain(
                        "ARCP_CONNECT_ALLOW",
                        &format!("\"{text}\" is not loopback, private, an address or a range"),
                    ),
                },
            }
        }
        let (admin, agent_keys, embeddings) = (self.admin(), self.agent_keys(), self.embeddings());
        let (blocked_ips, allowed_ip_ranges) = (self.ranges("BLOCKED_IPS"), self.ranges("ALLOWED_IP_RANGES"));
        let (public_ws, agent_ws, dashboard_ws) =
            (self.socket("PUBLIC"), self.socket("AGENT"), self.socket("DASHBOARD"));
        let allowed_origins = match self.list("ALLOWED_ORIGINS") {
            origins if origins.is_empty() && environment != Environment::Production => dev_origins(port),
            origins => origins.into_iter().map(|origin| origin.trim_end_matches('/').to_owned()).collect(),
        };
        let min_similarity =
            if let Value::Float(value) = self.value("VECTOR_SEARCH_MIN_SIMILARITY") { *value } else { 0.5 };
        #[expect(clippy::cast_possible_truncation, reason = "a similarity between 0 and 1")]
        let search_min_similarity = min_similarity as f32;
        Config {
            environment,
            dev: self.sources.dev,
            timezone,
            timezone_name,
            host: self.text("ARCP_HOST").unwrap_or_else(|| "127.0.0.1".into()),
            port,
            db,
            data_dir,
            state_file: self.text("STATE_FILE").map(PathBuf::from),
            log_level: self.text("LOG_LEVEL").unwrap_or_else(|| "info".into()),
            jwt_secret: self.secret("JWT_SECRET"),
            jwt_algorithm: self.text("JWT_ALGORITHM").unwrap_or_else(|| "HS256".into()),
            agent_token_life: self.minutes("JWT_EXPIRE_MINUTES"),
            admin,
            agent_keys,
            session_life: self.minutes("SESSION_TIMEOUT"),
            max_sessions: self.int("MAX_SESSIONS"),
            rate_limit_rpm: self.int("RATE_LIMIT_RPM"),
            rate_limit_burst: self.int("RATE_LIMIT_BURST"),
            allowed_origins,
            trusted_hosts: self.list("TRUSTED_HOSTS"),
            csp_connect_http: self.bool("CSP_ALLOW_CONNECT_HTTP", environment != Environment::Production),
            csp_connect_https: self.bool("CSP_ALLOW_CONNECT_HTTPS", true),
            max_json_size: self.int("MAX_JSON_SIZE"),
            max_query_params: self.int("MAX_QUERY_PARAMS"),
            max_header_size: self.int("MAX_HEADER_SIZE"),
            security_logging: self.bool("SECURITY_LOGGING", true),
            ip_default_deny: self.bool("IP_DEFAULT_DENY", false),
            blocked_ips,
            allowed_ip_ranges,
            max_connections: self.int("MAX_CONNECTIONS"),
            allowed_agent_types: types,
            heartbeat_timeout: self.seconds("AGENT_HEARTBEAT_TIMEOUT"),
            cleanup_interval: self.seconds("AGENT_CLEANUP_INTERVAL"),
            connect_loopback,
            connect_private,
            connect_ranges,
            public_ws,
            agent_ws,
            dashboard_ws,
            search_top_k: self.int("VECTOR_SEARCH_TOP_K"),
            search_min_similarity,
            embeddings,
            metrics_scrape_token: self.secret("METRICS_SCRAPE_TOKEN"),
            network_capacity_mbps: self.int("NETWORK_INTERFACE_CAPACITY_MBPS"),
            log_buffer_maxlen: self.int("DASHBOARD_LOG_BUFFER_MAXLEN"),
            log_message_maxlen: self.int("DASHBOARD_LOG_MESSAGE_MAXLEN"),
            found: self.found,
            findings: Vec::new(),
        }
    }
}

/// localhost and 127.0.0.1 on the usual ports and our own (REG-111).
fn dev_origins(port: u16) -> Vec<String> {
    let mut ports = vec![3000, 8000, 8080];
    if !ports.contains(&port) {
        ports.push(port);
    }
    let hosts = ["localhost", "127.0.0.1"];
    hosts.iter().flat_map(|host| ports.iter().map(move |port| format!("http://{host}:{port}"))).collect()
}

fn parse_range(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}
