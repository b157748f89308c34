//! Settings: where they come from, what they may be, what production refuses.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test says so when it fails")]

use arcp_registry::server::config::{Config, Database, Environment, Secret, Severity, Source, Sources};

fn texts(given: &[(&str, &str)]) -> Vec<(String, Secret)> {
    given.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(*value))).collect()
}

fn from_env(given: &[(&str, &str)]) -> Sources {
    Sources { env: texts(given), ..Sources::default() }
}

fn from_file(text: &str) -> Sources {
    Sources { file: Some(("registry.toml".into(), text.parse().unwrap())), ..Sources::default() }
}

/// Rules: REG-500, REG-501
#[test]
fn flags_win_over_environment_dotenv_and_file() {
    let file = || {
        Some((
            "registry.toml".into(),
            "[server]\nport = 4\nhost = \"127.0.0.4\"\ntimezone = \"Asia/Tokyo\"\n[security]\nmax_query_params = 44\n"
                .parse()
                .unwrap(),
        ))
    };
    let sources = Sources {
        flags: vec![("ARCP_PORT", Secret::new("1"))],
        env: texts(&[("ARCP_PORT", "2"), ("ARCP_HOST", "127.0.0.2"), ("TZ", "")]),
        dotenv: Some((
            ".env".into(),
            texts(&[("ARCP_PORT", "3"), ("ARCP_HOST", "127.0.0.3"), ("TIMEZONE", "Europe/Berlin")]),
        )),
        file: file(),
        ..Sources::default()
    };
    let config = Config::load(&sources).unwrap();
    assert_eq!((config.port, config.host.as_str(), config.timezone_name.as_str()), (1, "127.0.0.2", "Europe/Berlin"));
    assert_eq!((config.max_query_params, config.max_sessions), (44, 5));
    let source = |id: &str| config.found.iter().find(|found| found.setting.id() == id).unwrap().source.clone();
    assert_eq!(source("ARCP_PORT"), Source::Flag);
    assert_eq!(source("ARCP_HOST"), Source::Environment("ARCP_HOST".into()));
    assert_eq!(source("TZ"), Source::DotEnv(".env".into(), "TIMEZONE".into()));
    assert_eq!(source("MAX_QUERY_PARAMS"), Source::File("registry.toml".into()));
    assert_eq!(source("MAX_SESSIONS"), Source::Default);
}

/// Rules: REG-504
#[test]
fn a_sockets_own_setting_wins_over_the_generic_one_which_wins_over_its_default() {
    let config = Config::load(&from_env(&[("WEBSOCKET_INTERVAL", "9"), ("AGENT_WS_INTERVAL", "7")])).unwrap();
    let seconds = |settings: arcp_registry::server::config::SocketSettings| settings.interval.as_secs();
    assert_eq!((seconds(config.public_ws), seconds(config.agent_ws), seconds(config.dashboard_ws)), (9, 7, 9));
    let config = Config::load(&Sources::default()).unwrap();
    assert_eq!((seconds(config.public_ws), seconds(config.agent_ws), seconds(config.dashboard_ws)), (30, 5, 5));
    assert_eq!((config.dashboard_ws.max_connections, config.agent_ws.max_connections), (5, 100));
}

/// Rules: REG-502, REG-503
#[test]
fn a_wrong_setting_is_told_with_its_names_source_and_shape_but_never_a_secret() {
    let error = Config::load(&from_env(&[
        ("ARCP_PORT", "none"),
        ("MAX_SESSIONS", "0"),
        ("ENVIRONMENT", "prod"),
        ("TZ", "Nowhere/City"),
        ("BLOCKED_IPS", "10.0.0.0/99"),
        ("AGENT_KEYS", "short,a-good-agent-key"),
        ("ADMIN_PASSWORD", "hush-hush-hush"),
        ("ALLOWED_AGENT_TYPES", "x"),
    ]))
    .unwrap_err()
    .to_string();
    for part in [
        "ARCP_PORT (--port, server.port in the file) from environment ARCP_PORT: \"none\" is no whole number; it must be a whole number from 0 to 65535",
        "MAX_SESSIONS (--max-sessions, auth.max_sessions in the file)",
        "it must be one of development, testing, production",
        "there is no time zone",
        "10.0.0.0/99",
        "key 1 has 5 characters",
        "ADMIN_USERNAME is needed",
        "1 to 100 names are needed",
    ] {
        assert!(error.contains(part), "{part}\n{error}");
    }
    assert!(!error.contains("short") && !error.contains("hush"), "{error}");
}

/// Rules: REG-501
#[test]
fn an_unknown_key_of_the_file_is_told_with_a_near_one() {
    let error = Config::load(&from_file("[server]\nARCP_PORT = 1\n[securiti]\nx = 1\n")).unwrap_err().to_string();
    assert!(error.contains("server.ARCP_PORT; did you mean server.port?"), "{error}");
    assert!(error.contains("there is no setting securiti"), "{error}");
    let lists = from_file("[agents]\nallowed_agent_types = [\"one\", \"two\"]\n");
    assert_eq!(Config::load(&lists).unwrap().allowed_agent_types, ["one", "two"]);
}

/// Rules: REG-118
#[test]
fn production_refuses_unsafe_settings_unless_told_otherwise() {
    let unsafe_ones = [
        ("ENVIRONMENT", "production"),
        ("JWT_SECRET", "short"),
        ("ADMIN_USERNAME", "ARCP"),
        ("ADMIN_PASSWORD", "ARCP"),
        ("AGENT_KEYS", "test-agent-001"),
    ];
    let error = Config::load(&from_env(&unsafe_ones)).unwrap_err();
    assert_eq!(error.0.len(), 4, "{error}");
    for remedy in ["openssl rand", "user add", "key generate", "TRUSTED_HOSTS is not set"] {
        assert!(error.to_string().contains(remedy), "{remedy}\n{error}");
    }
    let mut waved = unsafe_ones.to_vec();
    waved.push(("ARCP_ALLOW_UNSAFE", "true"));
    let config = Config::load(&from_env(&waved)).unwrap();
    assert_eq!(config.environment, Environment::Production);
    assert!(config.findings.iter().all(|finding| finding.severity == Severity::Unwise));
    let dev = Sources {
        dev: true,
        env: texts(&[("ENVIRONMENT", "production"), ("TRUSTED_HOSTS", "x")]),
        ..Sources::default()
    };
    assert!(Config::load(&dev).unwrap_err().to_string().contains("--dev is not for production"));
}

/// Rules: REG-509
#[test]
fn development_has_known_credentials_on_loopback_only() {
    let config = Config::load(&Sources { dev: true, ..Sources::default() }).unwrap();
    let admin = config.admin.unwrap();
    assert_eq!((admin.username.as_str(), admin.password.reveal()), ("ARCP", "ARCP"));
    assert_eq!(config.agent_keys.len(), 3);
    assert!(config.connect_loopback && !config.connect_private && config.db == Database::Memory);
    let open = Sources { dev: true, flags: vec![("ARCP_HOST", Secret::new("0.0.0.0"))], ..Sources::default() };
    let config = Config::load(&open).unwrap();
    assert_ne!(config.admin.unwrap().password.reveal(), "ARCP");
    assert!(config.agent_keys.iter().all(|key| key.reveal() != "test-agent-001"));
    let plain = Config::load(&Sources::default()).unwrap();
    assert!(plain.admin.is_none() && plain.agent_keys.is_empty() && !plain.connect_loopback);
}

#[test]
fn secrets_show_nothing() {
    let config = Config::load(&from_env(&[
        ("JWT_SECRET", "a-secret-of-enough-length-to-be-taken"),
        ("AGENT_KEYS", "a-key-that-nobody-sees"),
        ("METRICS_SCRAPE_TOKEN", "a-token-that-nobody-sees"),
        ("ADMIN_USERNAME", "ann"),
        ("ADMIN_PASSWORD", "a-password-that-nobody-sees"),
    ]))
    .unwrap();
    let shown = format!("{config:?}");
    let listed: String = config.found.iter().map(|found| found.value.shown()).collect();
    for secret in ["a-secret-of", "nobody-sees"] {
        assert!(!shown.contains(secret) && !listed.contains(secret), "{secret}");
    }
}
