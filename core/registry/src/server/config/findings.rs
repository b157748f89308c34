//! What is unwise about settings, and what production refuses.

use super::{Config, DEV_AGENT_KEYS, Database, Embeddings, Environment, Value};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The server does not start with it.
    Wrong,
    /// It starts, and somebody should know.
    Unwise,
}

/// One thing about the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// The setting's id.
    pub setting: &'static str,
    /// What, and the remedy.
    pub message: String,
}

/// HS256 keys below its hash's size are easier to guess than its signatures.
const LEAST_SECRET: usize = 32;
const LEAST_PASSWORD: usize = 12;

/// Everything to be said about understood settings.
pub(super) fn examine(config: &Config) -> Vec<Finding> {
    let mut list = Vec::new();
    let production = config.environment == Environment::Production;
    let waved = config.found.iter().any(|f| f.setting.id() == "ARCP_ALLOW_UNSAFE" && f.value == Value::Bool(true));
    let mut say = |severity: Severity, setting: &'static str, message: String| {
        let severity = if waved { Severity::Unwise } else { severity };
        list.push(Finding { severity, setting, message });
    };
    let strict = if production { Severity::Wrong } else { Severity::Unwise };
    if let Some(secret) = &config.jwt_secret
        && secret.reveal().len() < LEAST_SECRET
    {
        say(
            strict,
            "JWT_SECRET",
            format!(
                "JWT_SECRET has {} bytes, {LEAST_SECRET} are needed; make one with `openssl rand -base64 32`, or leave it \
                     out and one is generated and kept",
                secret.reveal().len()
            ),
        );
    }
    if let Some(admin) = &config.admin
        && !config.dev
    {
        let password = admin.password.reveal();
        if password.len() < LEAST_PASSWORD || password.eq_ignore_ascii_case(&admin.username) {
            say(
                strict,
                "ADMIN_PASSWORD",
                format!(
                    "ADMIN_PASSWORD is easy to guess; take {LEAST_PASSWORD} characters or more, or keep administrators in \
                         the database with `arcp registry user add`"
                ),
            );
        }
    }
    let known = config.agent_keys.iter().any(|key| DEV_AGENT_KEYS.contains(&key.reveal()));
    if known && !config.dev {
        say(
            strict,
            "AGENT_KEYS",
            "AGENT_KEYS holds a key of the documentation that everybody knows; make keys with `arcp \
                                   registry key generate`"
                .into(),
        );
    }
    if production {
        if config.trusted_hosts.is_empty() {
            say(
                Severity::Wrong,
                "TRUSTED_HOSTS",
                "TRUSTED_HOSTS is not set, so production would refuse every request; name \
                                                   the hosts clients use, such as registry.example.com"
                    .into(),
            );
        }
        if config.allowed_origins.iter().any(|origin| origin == "*") {
            say(
                Severity::Wrong,
                "ALLOWED_ORIGINS",
                "ALLOWED_ORIGINS takes every origin, with credentials; name the origins \
                                                     of your pages"
                    .into(),
            );
        }
        if config.db == Database::Memory {
            say(
                Severity::Unwise,
                "ARCP_REGISTRY_DB",
                "everything is kept in memory and is gone after a restart; name a file".into(),
            );
        }
    } else if !config.is_loopback() {
        say(
            Severity::Unwise,
            "ENVIRONMENT",
            format!(
                "the server listens on {} in {} mode, which takes any Host; set \
                                                      ENVIRONMENT=production and TRUSTED_HOSTS",
                config.host,
                config.environment.as_str()
            ),
        );
    }
    if config.ip_default_deny && config.allowed_ip_ranges.is_empty() {
        say(
            Severity::Unwise,
            "IP_DEFAULT_DENY",
            "IP_DEFAULT_DENY without ALLOWED_IP_RANGES refuses everybody; name the ranges".into(),
        );
    }
    if !config.ip_default_deny && !config.allowed_ip_ranges.is_empty() {
        say(
            Severity::Unwise,
            "ALLOWED_IP_RANGES",
            "ALLOWED_IP_RANGES has no effect without IP_DEFAULT_DENY=true".into(),
        );
    }
    if config.connect_private && production {
        say(
            Severity::Unwise,
            "ARCP_CONNECT_ALLOW",
            "anyone may make this server call private addresses; name the ranges your \
                                                     agents live in instead of \"private\""
                .into(),
        );
    }
    let azure = ["AZURE_API_KEY", "AZURE_API_BASE", "AZURE_API_VERSION", "AZURE_EMBEDDING_DEPLOYMENT"];
    let given = |id: &&&str| config.found.iter().any(|f| f.setting.id() == **id && f.value != Value::Absent);
    let count = azure.iter().filter(given).count();
    if count > 0 && !matches!(config.embeddings, Embeddings::Azure { .. }) {
        let missing: Vec<&str> = azure.iter().filter(|id| !given(id)).copied().collect();
        say(
            Severity::Unwise,
            "AZURE_API_KEY",
            format!("Azure embeddings are not used: {} missing", missing.join(", ")),
        );
    }
    for found in &config.found {
        if let Some(why) = found.setting.idle
            && found.value != Value::Absent
        {
            say(Severity::Unwise, found.setting.id(), format!("{} has no effect: {why}", found.setting.id()));
        }
    }
    list
}
