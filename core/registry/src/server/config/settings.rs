//! Every setting of the server: its names, its kind, its bounds, its default, and what it does (REG-500 to REG-509).

/// What a setting's value may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Any text.
    Text,
    /// Text that is shown to nobody.
    Secret,
    /// One of these words; case does not matter.
    Word(&'static [&'static str]),
    /// Yes or no: true/false, yes/no, on/off, 1/0.
    Bool,
    /// A whole number within bounds, with the unit it counts.
    Int(i64, i64, &'static str),
    /// A number within bounds.
    Float(f64, f64),
    /// Texts: separated by commas, or a TOML array.
    List,
    /// Secrets: separated by commas, or a TOML array.
    Secrets,
    /// The path of a file or folder.
    Path,
}

impl Kind {
    /// Whether the value is kept from every output.
    pub fn is_secret(self) -> bool {
        matches!(self, Kind::Secret | Kind::Secrets)
    }

    /// What a value must look like, for an error.
    pub fn shape(self) -> String {
        match self {
            Kind::Text => "a text".into(),
            Kind::Secret => "a secret text".into(),
            Kind::Word(words) => format!("one of {}", words.join(", ")),
            Kind::Bool => "true or false".into(),
            Kind::Int(least, most, "") => format!("a whole number from {least} to {most}"),
            Kind::Int(least, most, unit) => format!("a whole number of {unit} from {least} to {most}"),
            Kind::Float(least, most) => format!("a number from {least} to {most}"),
            Kind::List => "texts separated by commas".into(),
            Kind::Secrets => "secret texts separated by commas".into(),
            Kind::Path => "a path".into(),
        }
    }
}

/// Where a setting shows in a help text and in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// The table of the TOML file.
    pub key: &'static str,
    /// The heading of a help text.
    pub title: &'static str,
}

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// The environment variable, first the one to use, then others that mean the same.
    pub env: &'static [&'static str],
    /// Its table.
    pub section: &'static Section,
    /// Its key within the table; with `-` for `_` the flag, after the section's name unless [`Setting::plain`].
    pub name: &'static str,
    /// Whether the flag is the name alone.
    pub plain: bool,
    /// What it may be.
    pub kind: Kind,
    /// As text, the way the environment would say it; empty for none.
    pub default: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// Why it changes nothing here, for one that only the published server or its compose file knows.
    pub idle: Option<&'static str>,
}

impl Setting {
    /// The environment variable, which also names the setting in this program.
    pub fn id(&self) -> &'static str {
        self.env[0]
    }

    /// The flag without its dashes.
    pub fn flag(&self) -> String {
        let name = self.name.replace('_', "-");
        if self.plain { name } else { format!("{}-{name}", self.section.key.replace(['_', '.'], "-")) }
    }

    /// The key in the file, such as `server.port`.
    pub fn key(&self) -> String {
        format!("{}.{}", self.section.key, self.name)
    }

    /// All three names, for an error.
    pub fn names(&self) -> String {
        format!("{} (--{}, {} in the file)", self.id(), self.flag(), self.key())
    }
}

/// The setting with this environment variable.
pub fn find(env: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.env.contains(&env))
}

macro_rules! section {
    ($id:ident, $key:literal, $title:literal) => {
        static $id: Section = Section { key: $key, title: $title };
    };
}

section!(SERVER, "server", "Server");
section!(AUTH, "auth", "Tokens, users and keys");
section!(SECURITY, "security", "Security");
section!(AGENTS, "agents", "Agents");
section!(CONNECT, "connect", "Connection requests");
section!(SOCKETS, "websocket", "WebSockets");
section!(PUBLIC_WS, "websocket.public", "WebSockets");
section!(AGENT_WS, "websocket.agent", "WebSockets");
section!(DASHBOARD_WS, "websocket.dashboard", "WebSockets");
section!(SEARCH, "search", "Search");
section!(MONITORING, "monitoring", "Monitoring");
section!(OTHER, "other", "Known, without effect here");

const ENVIRONMENTS: &[&str] = &["development", "testing", "production"];
const LEVELS: &[&str] = &["trace", "debug", "info", "warning", "warn", "error", "critical"];
const ALGORITHMS: &[&str] = &["HS256", "HS384", "HS512"];
const DAY: i64 = 86_400;

const fn setting(
    env: &'static [&'static str],
    section: &'static Section,
    name: &'static str,
    kind: Kind,
    default: &'static str,
    about: &'static str,
) -> Setting {
    Setting { env, section, name, plain: false, kind, default, about, idle: None }
}

/// One whose flag is its name alone.
const fn plain(
    env: &'static [&'static str],
    section: &'static Section,
    name: &'static str,
    kind: Kind,
    default: &'static str,
    about: &'static str,
) -> Setting {
    Setting { env, section, name, plain: true, kind, default, about, idle: None }
}

const NO_REDIS: &str = "the registry keeps its own database, see ARCP_REGISTRY_DB";
const COMPOSE: &str = "only the published server's compose file reads it";
const NO_EXPORT: &str = "traces are not exported by this version";
const NEVER: &str = "it has no effect in the published server either";

/// One without effect.
const fn idle(env: &'static [&'static str], name: &'static str, kind: Kind, why: &'static str) -> Setting {
    Setting { env, section: &OTHER, name, plain: false, kind, default: "", about: "", idle: Some(why) }
}

const SOCKET_SECONDS: Kind = Kind::Int(1, DAY, "seconds");
const SOCKET_COUNT: Kind = Kind::Int(1, 1_000_000, "");

/// All of them, in the order they are shown.
pub static SETTINGS: &[Setting] = &[
    plain(
        &["ENVIRONMENT"],
        &SERVER,
        "environment",
        Kind::Word(ENVIRONMENTS),
        "development",
        "development and testing take any Host; production refuses unsafe settings",
    ),
    plain(&["TZ", "TIMEZONE"], &SERVER, "timezone", Kind::Text, "UTC", "Time zone of times without one in answers"),
    plain(&["ARCP_HOST"], &SERVER, "host", Kind::Text, "127.0.0.1", "Address or name to listen on"),
    plain(&["ARCP_PORT"], &SERVER, "port", Kind::Int(0, 65_535, ""), "8001", "Port to listen on; 0 takes a free one"),
    plain(
        &["ARCP_REGISTRY_DB"],
        &SERVER,
        "db",
        Kind::Text,
        "",
        "SQLite file to keep agents, sessions and users in, or \"memory\" [default: registry.db in the data folder]",
    ),
    plain(
        &["ARCP_DATA_DIR"],
        &SERVER,
        "data_dir",
        Kind::Path,
        "",
        "Folder of the database and of the generated JWT secret [default: this user's state folder]",
    ),
    plain(
        &["STATE_FILE"],
        &SERVER,
        "state_file",
        Kind::Path,
        "",
        "State file of the published server; named in a hint while the database is empty (`arcp registry import`)",
    ),
    plain(&["LOG_LEVEL"], &SERVER, "log_level", Kind::Word(LEVELS), "info", "Least severe line of the server's log"),
    plain(
        &["ARCP_ALLOW_UNSAFE"],
        &SERVER,
        "allow_unsafe",
        Kind::Bool,
        "false",
        "Start in production although settings are unsafe",
    ),
    plain(
        &["JWT_SECRET"],
        &AUTH,
        "jwt_secret",
        Kind::Secret,
        "",
        "What tokens are signed with, 32 bytes or more [default: generated once and kept in the data folder]",
    ),
    plain(&["JWT_ALGORITHM"], &AUTH, "jwt_algorithm", Kind::Word(ALGORITHMS), "HS256", "How tokens are signed"),
    plain(
        &["JWT_EXPIRE_MINUTES"],
        &AUTH,
        "jwt_expire_minutes",
        Kind::Int(1, 5_256_000, "minutes"),
        "60",
        "How long a token of an agent lives",
    ),
    plain(
        &["ADMIN_USERNAME"],
        &AUTH,
        "admin_username",
        Kind::Text,
        "",
        "An administrator besides those of `arcp registry user`",
    ),
    plain(&["ADMIN_PASSWORD"], &AUTH, "admin_password", Kind::Secret, "", "The password of that administrator"),
    plain(
        &["AGENT_KEYS"],
        &AUTH,
        "agent_keys",
        Kind::Secrets,
        "",
        "Keys that let an agent register, besides those of `arcp registry key`; 10 to 200 characters each",
    ),
    plain(
        &["SESSION_TIMEOUT"],
        &AUTH,
        "session_timeout",
        Kind::Int(1, 525_600, "minutes"),
        "30",
        "How long an administrator stays logged in",
    ),
    plain(
        &["MAX_SESSIONS"],
        &AUTH,
        "max_sessions",
        Kind::Int(1, 10_000, ""),
        "5",
        "Sessions an administrator may have at once; the newest stay",
    ),
    plain(
        &["RATE_LIMIT_RPM"],
        &SECURITY,
        "rate_limit_rpm",
        Kind::Int(1, 1_000_000, "attempts"),
        "100",
        "A tenth of it, 5 at least, is how many token failures lock an address",
    ),
    plain(
        &["RATE_LIMIT_BURST"],
        &SECURITY,
        "rate_limit_burst",
        Kind::Int(2, 100_000, "attempts"),
        "20",
        "Failed logins that lock; half of it for a PIN",
    ),
    plain(
        &["ALLOWED_ORIGINS"],
        &SECURITY,
        "allowed_origins",
        Kind::List,
        "",
        "Origins a browser may call from [default in development: localhost on 3000, 8000, 8080 and the port]",
    ),
    plain(
        &["TRUSTED_HOSTS"],
        &SECURITY,
        "trusted_hosts",
        Kind::List,
        "",
        "Host names taken in production, without port; *.example.com takes its subdomains",
    ),
    plain(
        &["CSP_ALLOW_CONNECT_HTTP"],
        &SECURITY,
        "csp_allow_connect_http",
        Kind::Bool,
        "",
        "Whether pages of this server may call http: [default: true outside production]",
    ),
    plain(
        &["CSP_ALLOW_CONNECT_HTTPS"],
        &SECURITY,
        "csp_allow_connect_https",
        Kind::Bool,
        "true",
        "Whether pages of this server may call https:",
    ),
    plain(
        &["MAX_JSON_SIZE"],
        &SECURITY,
        "max_json_size",
        Kind::Int(1024, 1 << 30, "bytes"),
        "1048576",
        "Largest request body",
    ),
    plain(
        &["MAX_QUERY_PARAMS"],
        &SECURITY,
        "max_query_params",
        Kind::Int(1, 10_000, ""),
        "50",
        "Most values in a query string",
    ),
    plain(
        &["MAX_HEADER_SIZE"],
        &SECURITY,
        "max_header_size",
        Kind::Int(256, 65_536, "bytes"),
        "8192",
        "Most bytes in header names and values",
    ),
    plain(
        &["SECURITY_LOGGING"],
        &SECURITY,
        "security_logging",
        Kind::Bool,
        "true",
        "Log refused logins, tokens and addresses",
    ),
    plain(
        &["IP_DEFAULT_DENY"],
        &SECURITY,
        "ip_default_deny",
        Kind::Bool,
        "false",
        "Take only the addresses in allowed_ip_ranges",
    ),
    plain(&["BLOCKED_IPS"], &SECURITY, "blocked_ips", Kind::List, "", "Addresses or CIDR ranges that are refused"),
    plain(
        &["ALLOWED_IP_RANGES"],
        &SECURITY,
        "allowed_ip_ranges",
        Kind::List,
        "",
        "Addresses or CIDR ranges that are taken when others are not",
    ),
    plain(
        &["MAX_CONNECTIONS"],
        &SECURITY,
        "max_connections",
        Kind::Int(1, 1_000_000, ""),
        "20000",
        "Most connections at once; others wait",
    ),
    plain(
        &["ALLOWED_AGENT_TYPES"],
        &AGENTS,
        "allowed_agent_types",
        Kind::List,
        "security,monitoring,automation,networking,testing",
        "Agent types that may register, 1 to 100 of them",
    ),
    plain(
        &["AGENT_HEARTBEAT_TIMEOUT"],
        &AGENTS,
        "heartbeat_timeout",
        Kind::Int(1, DAY, "seconds"),
        "60",
        "An agent is dead when it was not heard for so long",
    ),
    plain(
        &["AGENT_CLEANUP_INTERVAL"],
        &AGENTS,
        "cleanup_interval",
        Kind::Int(1, DAY, "seconds"),
        "60",
        "How often agents that stay dead are removed",
    ),
    plain(
        &["ARCP_CONNECT_ALLOW"],
        &CONNECT,
        "connect_allow",
        Kind::List,
        "",
        "Besides public addresses, where connection requests may go: loopback, private, or CIDR ranges",
    ),
    setting(
        &["WEBSOCKET_INTERVAL"],
        &SOCKETS,
        "interval",
        SOCKET_SECONDS,
        "",
        "For every socket without its own: seconds between updates",
    ),
    setting(
        &["WEBSOCKET_TIMEOUT"],
        &SOCKETS,
        "timeout",
        SOCKET_SECONDS,
        "",
        "For every socket without its own: seconds to authenticate in, and to take a frame in",
    ),
    setting(
        &["WEBSOCKET_PING_INTERVAL"],
        &SOCKETS,
        "ping_interval",
        SOCKET_SECONDS,
        "",
        "For every socket without its own: seconds of silence before a ping",
    ),
    setting(
        &["WEBSOCKET_MAX_CONNECTIONS"],
        &SOCKETS,
        "max_connections",
        SOCKET_COUNT,
        "",
        "For every socket without its own: most connections at once",
    ),
    setting(
        &["PUBLIC_WS_INTERVAL"],
        &PUBLIC_WS,
        "interval",
        SOCKET_SECONDS,
        "30",
        "Seconds between updates of /public/ws",
    ),
    setting(
        &["PUBLIC_WS_TIMEOUT"],
        &PUBLIC_WS,
        "timeout",
        SOCKET_SECONDS,
        "30",
        "Seconds a client has to take a frame in",
    ),
    setting(
        &["PUBLIC_WS_PING_INTERVAL"],
        &PUBLIC_WS,
        "ping_interval",
        SOCKET_SECONDS,
        "30",
        "Seconds of silence before a ping",
    ),
    setting(
        &["PUBLIC_WS_MAX_CONNECTIONS"],
        &PUBLIC_WS,
        "max_connections",
        SOCKET_COUNT,
        "100",
        "Most connections at once",
    ),
    setting(
        &["AGENT_WS_INTERVAL"],
        &AGENT_WS,
        "interval",
        SOCKET_SECONDS,
        "5",
        "Seconds between updates of /agents/ws",
    ),
    setting(&["AGENT_WS_TIMEOUT"], &AGENT_WS, "timeout", SOCKET_SECONDS, "30", "Seconds to authenticate in"),
    setting(
        &["AGENT_WS_PING_INTERVAL"],
        &AGENT_WS,
        "ping_interval",
        SOCKET_SECONDS,
        "30",
        "Seconds of silence before a ping",
    ),
    setting(
        &["AGENT_WS_MAX_CONNECTIONS"],
        &AGENT_WS,
        "max_connections",
        SOCKET_COUNT,
        "100",
        "Most connections at once",
    ),
    setting(
        &["DASHBOARD_WS_INTERVAL"],
        &DASHBOARD_WS,
        "interval",
        SOCKET_SECONDS,
        "5",
        "Seconds between updates of /dashboard/ws",
    ),
    setting(&["DASHBOARD_WS_TIMEOUT"], &DASHBOARD_WS, "timeout", SOCKET_SECONDS, "30", "Seconds to authenticate in"),
    setting(
        &["DASHBOARD_WS_PING_INTERVAL"],
        &DASHBOARD_WS,
        "ping_interval",
        SOCKET_SECONDS,
        "30",
        "Seconds of silence before a ping",
    ),
    setting(
        &["DASHBOARD_WS_MAX_CONNECTIONS"],
        &DASHBOARD_WS,
        "max_connections",
        SOCKET_COUNT,
        "5",
        "Most connections at once",
    ),
    plain(
        &["VECTOR_SEARCH_TOP_K"],
        &SEARCH,
        "search_top_k",
        Kind::Int(1, 100, ""),
        "10",
        "Results of a search that names no number",
    ),
    plain(
        &["VECTOR_SEARCH_MIN_SIMILARITY"],
        &SEARCH,
        "search_min_similarity",
        Kind::Float(0.0, 1.0),
        "0.5",
        "Least similarity of a search that names none",
    ),
    plain(
        &["ARCP_EMBEDDINGS_URL"],
        &SEARCH,
        "embeddings_url",
        Kind::Text,
        "",
        "Base URL of an OpenAI-compatible embeddings service [default: the built-in table]",
    ),
    plain(&["ARCP_EMBEDDINGS_MODEL"], &SEARCH, "embeddings_model", Kind::Text, "", "The model of that service"),
    plain(&["ARCP_EMBEDDINGS_KEY"], &SEARCH, "embeddings_key", Kind::Secret, "", "The key of that service"),
    plain(
        &["AZURE_API_KEY"],
        &SEARCH,
        "azure_api_key",
        Kind::Secret,
        "",
        "Azure OpenAI: the key; all four AZURE settings are needed",
    ),
    plain(&["AZURE_API_BASE"], &SEARCH, "azure_api_base", Kind::Text, "", "Azure OpenAI: the resource's URL"),
    plain(&["AZURE_API_VERSION"], &SEARCH, "azure_api_version", Kind::Text, "", "Azure OpenAI: the version of the API"),
    plain(
        &["AZURE_EMBEDDING_DEPLOYMENT"],
        &SEARCH,
        "azure_embedding_deployment",
        Kind::Text,
        "",
        "Azure OpenAI: the deployment of an embedding model",
    ),
    plain(
        &["METRICS_SCRAPE_TOKEN"],
        &MONITORING,
        "metrics_scrape_token",
        Kind::Secret,
        "",
        "Token that opens /metrics/scrape [default: closed]",
    ),
    plain(
        &["NETWORK_INTERFACE_CAPACITY_MBPS"],
        &MONITORING,
        "network_capacity_mbps",
        Kind::Int(1, 1_000_000, "Mbit/s"),
        "1000",
        "What the network gauge calls 100 percent",
    ),
    plain(
        &["DASHBOARD_LOG_BUFFER_MAXLEN"],
        &MONITORING,
        "log_buffer_maxlen",
        Kind::Int(10, 1_000_000, "entries"),
        "10000",
        "Log entries the dashboard keeps",
    ),
    plain(
        &["DASHBOARD_LOG_MESSAGE_MAXLEN"],
        &MONITORING,
        "log_message_maxlen",
        Kind::Int(16, 65_536, "characters"),
        "2048",
        "Longest message of a log entry",
    ),
    idle(&["ARCP_DEBUG"], "debug", Kind::Text, "there is no reloading; use --verbose for a full log"),
    idle(&["ARCP_LOGS_DIR"], "logs_dir", Kind::Text, "the log goes to stderr, where a service manager keeps it"),
    idle(&["LOG_FORMAT"], "log_format", Kind::Text, "the log goes to stderr, one line per event"),
    idle(
        &["CONTENT_FILTERING"],
        "content_filtering",
        Kind::Text,
        "text is stored as it came and encoded where it is shown",
    ),
    idle(&["AGENT_REGISTRATION_TIMEOUT"], "registration_timeout", Kind::Text, NEVER),
    idle(&["REDIS_HOST"], "redis_host", Kind::Text, NO_REDIS),
    idle(&["REDIS_PORT"], "redis_port", Kind::Text, NO_REDIS),
    idle(&["REDIS_DB"], "redis_db", Kind::Text, NO_REDIS),
    idle(&["REDIS_PASSWORD"], "redis_password", Kind::Secret, NO_REDIS),
    idle(&["REDIS_HEALTH_CHECK_INTERVAL"], "redis_health_check_interval", Kind::Text, NO_REDIS),
    idle(&["REDIS_MAX_MEMORY"], "redis_max_memory", Kind::Text, COMPOSE),
    idle(&["REDIS_EXPORTER_PORT"], "redis_exporter_port", Kind::Text, COMPOSE),
    idle(&["REDIS_DATA_DIR"], "redis_data_dir", Kind::Text, COMPOSE),
    idle(&["PROMETHEUS_HOST"], "prometheus_host", Kind::Text, COMPOSE),
    idle(&["PROMETHEUS_PORT"], "prometheus_port", Kind::Text, COMPOSE),
    idle(&["PROMETHEUS_DATA_DIR"], "prometheus_data_dir", Kind::Text, COMPOSE),
    idle(&["GRAFANA_HOST"], "grafana_host", Kind::Text, COMPOSE),
    idle(&["GRAFANA_PORT"], "grafana_port", Kind::Text, COMPOSE),
    idle(&["GRAFANA_PASSWORD"], "grafana_password", Kind::Secret, COMPOSE),
    idle(&["GRAFANA_DATA_DIR"], "grafana_data_dir", Kind::Text, COMPOSE),
    idle(&["TRACING_ENABLED"], "tracing_enabled", Kind::Text, NO_EXPORT),
    idle(&["OTLP_ENDPOINT"], "otlp_endpoint", Kind::Text, NO_EXPORT),
    idle(&["JAEGER_ENDPOINT"], "jaeger_endpoint", Kind::Text, NO_EXPORT),
    idle(&["TRACE_SERVICE_NAME"], "trace_service_name", Kind::Text, NO_EXPORT),
    idle(&["TRACE_SERVICE_VERSION"], "trace_service_version", Kind::Text, NO_EXPORT),
    idle(&["TRACE_ENVIRONMENT"], "trace_environment", Kind::Text, NO_EXPORT),
    idle(&["TRACE_SAMPLE_RATE"], "trace_sample_rate", Kind::Text, NO_EXPORT),
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Rules: REG-500
    #[test]
    fn names_are_unique_in_all_three_forms() {
        let (mut env, mut flags, mut keys) = (HashSet::new(), HashSet::new(), HashSet::new());
        for setting in SETTINGS {
            assert!(setting.env.iter().all(|name| env.insert(*name)), "{}", setting.id());
            assert!(flags.insert(setting.flag()), "{}", setting.flag());
            assert!(keys.insert(setting.key()), "{}", setting.key());
        }
    }
}
