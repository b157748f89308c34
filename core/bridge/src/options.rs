//! Settings as hosts write them: every member optional, absent means the core's default.

use std::sync::Arc;
use std::time::Duration;

use arcp::message::PeerInfo;
use arcp::{
    AesGcmSealer, AllowCleartext, Backoff, CancelPolicy, ClientConfig, CloseStyle, JwksOptions, JwtKey, JwtVerifier,
    MemoryStore, ProfileChoice, RuntimeConfig, SqliteOptions, SqliteStore, Store, Synchronous,
};
use serde::Deserialize;

use crate::error::{ErrorInfo, read};

/// Settings of a client. JSON members have the same names.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientOptions {
    /// Shown in the hello.
    pub name: String,
    /// Shown in the hello.
    pub version: String,
    /// What is asked for, in this order.
    #[serde(default)]
    pub features: Option<Vec<String>>,
    /// Seconds to wait for the welcome; 5.
    #[serde(default)]
    pub handshake_timeout_sec: Option<f64>,
    /// Seconds to wait for an answer; 30.
    #[serde(default)]
    pub request_timeout_sec: Option<f64>,
    /// Whether what the application took is acknowledged by itself; true.
    #[serde(default)]
    pub auto_ack: Option<bool>,
    /// `bye` or `close`; `bye`.
    #[serde(default)]
    pub close_style: Option<String>,
    /// Whether a lost link is healed where the transport can be opened again (D-7), or how; true.
    #[serde(default)]
    pub reconnect: Option<ReconnectOptions>,
    /// The longest streamed result that is put together in memory; 64 MiB.
    #[serde(default)]
    pub max_result_bytes: Option<usize>,
}

/// Whether and how a lost link is healed: `true`, `false`, or an object with the waits.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum ReconnectOptions {
    /// With the defaults, or not at all.
    Switch(bool),
    /// With these waits.
    Waits(ReconnectWaits),
}

/// How a lost link is healed.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReconnectWaits {
    /// Seconds before the first attempt, at most; 0.1. Doubles with each attempt.
    #[serde(default)]
    pub initial_sec: Option<f64>,
    /// Seconds between attempts, at most; 5.
    #[serde(default)]
    pub max_sec: Option<f64>,
    /// Seconds after which the session is given up; 900. 0 never gives up.
    #[serde(default)]
    pub give_up_after_sec: Option<f64>,
}

/// Settings of a runtime. JSON members have the same names.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuntimeOptions {
    /// Shown in the welcome.
    pub name: String,
    /// Shown in the welcome.
    pub version: String,
    /// What is offered.
    #[serde(default)]
    pub features: Option<Vec<String>>,
    /// Seconds; 30. 0 turns heartbeats off.
    #[serde(default)]
    pub heartbeat_interval_sec: Option<f64>,
    /// Seconds; 600.
    #[serde(default)]
    pub resume_window_sec: Option<f64>,
    /// Seconds; 600.
    #[serde(default)]
    pub retention_sec: Option<f64>,
    /// Seconds; 86 400.
    #[serde(default)]
    pub idempotency_ttl_sec: Option<f64>,
    /// Seconds; 30.
    #[serde(default)]
    pub cancel_grace_sec: Option<f64>,
    /// Seconds; 1.
    #[serde(default)]
    pub lease_expiry_grace_sec: Option<f64>,
    /// 100.
    #[serde(default)]
    pub max_concurrent_jobs: Option<usize>,
    /// 1000.
    #[serde(default)]
    pub max_waiting_jobs: Option<usize>,
    /// Decoded bytes in one chunk of a result; 1 MiB.
    #[serde(default)]
    pub result_chunk_cap: Option<usize>,
    /// Decoded bytes in all chunks of a result; 256 MiB.
    #[serde(default)]
    pub result_cap: Option<u64>,
    /// Bytes of a result that is sent whole; 1 MiB.
    #[serde(default)]
    pub inline_result_cap: Option<usize>,
    /// `session` or `principal`; `session`.
    #[serde(default)]
    pub cancel_policy: Option<String>,
    /// `auto`, `draft` or `py-1.1`; `auto`.
    #[serde(default)]
    pub wire_profile: Option<String>,
    /// Path of a SQLite file that sessions, jobs and events are kept in; absent or `memory`: kept in memory.
    #[serde(default)]
    pub db: Option<String>,
    /// `normal` (survives the process) or `full` (survives a power loss too); `normal`.
    #[serde(default)]
    pub synchronous: Option<String>,
    /// Path of a file with the key that encrypts what is kept in `db`: 32 bytes as they are, in hexadecimal or in Base64.
    #[serde(default)]
    pub db_key_file: Option<String>,
}

/// Settings of one agent. JSON members have the same names.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentOptions {
    /// Whether a job that died with its process runs again (D-26); false.
    #[serde(default)]
    pub restartable: bool,
}

/// How to connect a WebSocket. JSON members have the same names. Headers may be secret, so there is no `Debug`.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectOptions {
    /// Name and value pairs, sent with the upgrade request.
    #[serde(default, deserialize_with = "pairs")]
    pub headers: Vec<(String, String)>,
    /// PEM text of certificates to trust besides the platform's.
    #[serde(default)]
    pub ca_pem: Option<String>,
    /// 16 MiB.
    #[serde(default)]
    pub max_message_bytes: Option<usize>,
    /// Seconds; 10.
    #[serde(default)]
    pub timeout_sec: Option<f64>,
    /// What to do about `ws://` to another machine: `warn`, `refuse` or `silent`; `warn` (R-6.1.10).
    #[serde(default)]
    pub allow_cleartext: Option<String>,
}

/// Which signed tokens a runtime takes. JSON members have the same names; exactly one of `secret`, `public_key_pem`,
/// `jwks` and `jwks_url` is given. The secret is one, so there is no `Debug`.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwtOptions {
    /// Shared with the issuer, at least 32 bytes of UTF-8.
    #[serde(default, deserialize_with = "secret")]
    pub secret: Option<String>,
    /// PEM text.
    #[serde(default)]
    pub public_key_pem: Option<String>,
    /// `https`, or `http` on this machine.
    #[serde(default)]
    pub jwks_url: Option<String>,
    /// JSON text of a key set that never changes, with public keys or secrets.
    #[serde(default, deserialize_with = "secret")]
    pub jwks: Option<String>,
    /// PEM text of certificates to trust for `jwks_url` besides the platform's.
    #[serde(default)]
    pub ca_pem: Option<String>,
    /// One or a list; the token must name one of them. Absent: it must name none.
    #[serde(default, deserialize_with = "one_or_more")]
    pub audience: Vec<String>,
    /// Any.
    #[serde(default)]
    pub issuer: Option<String>,
    /// Seconds, up to 3600; 30.
    #[serde(default)]
    pub leeway_sec: Option<f64>,
    /// `sub`.
    #[serde(default)]
    pub principal_claim: Option<String>,
    /// `scope`.
    #[serde(default)]
    pub scopes_claim: Option<String>,
    /// Names such as `RS256`; all the keys allow.
    #[serde(default)]
    pub algorithms: Option<Vec<String>>,
}

/// How to listen. JSON members have the same names. The key is secret, so there is no `Debug`.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenOptions {
    /// `127.0.0.1`.
    #[serde(default)]
    pub host: Option<String>,
    /// 7777; 0 takes a free one.
    #[serde(default)]
    pub port: Option<u16>,
    /// `/arcp`.
    #[serde(default)]
    pub path: Option<String>,
    /// Names a `Host` header may carry.
    #[serde(default)]
    pub allowed_hosts: Option<Vec<String>>,
    /// PEM text; with `key_pem` serves `wss://`.
    #[serde(default)]
    pub cert_pem: Option<String>,
    /// PEM text.
    #[serde(default)]
    pub key_pem: Option<String>,
    /// 16 MiB.
    #[serde(default)]
    pub max_message_bytes: Option<usize>,
}

macro_rules! from_json {
    ($($name:ident),*) => {$(
        impl $name {
            /// Reads the settings from JSON text.
            ///
            /// # Errors
            /// Names the member that is wrong or unknown.
            pub fn from_json(text: &str) -> Result<Self, ErrorInfo> {
                read("options", text)
            }
        }
    )*};
}

from_json!(ClientOptions, RuntimeOptions, AgentOptions, ConnectOptions, JwtOptions, ListenOptions);

impl ClientOptions {
    pub(crate) fn into_config(self) -> Result<ClientConfig, ErrorInfo> {
        let mut config = ClientConfig::new(peer(self.name, self.version)?);
        set(&mut config.features, self.features);
        set(&mut config.handshake_timeout, seconds("handshake_timeout_sec", self.handshake_timeout_sec)?);
        set(&mut config.request_timeout, seconds("request_timeout_sec", self.request_timeout_sec)?);
        set(&mut config.auto_ack, self.auto_ack);
        config.close_style = match self.close_style.as_deref() {
            None | Some("bye") => CloseStyle::Bye,
            Some("close") => CloseStyle::Close,
            Some(other) => return Err(choice("close_style", other, "bye, close")),
        };
        match self.reconnect {
            None | Some(ReconnectOptions::Switch(true)) => {}
            Some(ReconnectOptions::Switch(false)) => config.reconnect = None,
            Some(ReconnectOptions::Waits(waits)) => config.reconnect = Some(waits.into_backoff()?),
        }
        set(&mut config.max_result_bytes, self.max_result_bytes);
        Ok(config)
    }
}

impl ReconnectWaits {
    fn into_backoff(self) -> Result<Backoff, ErrorInfo> {
        let mut backoff = Backoff::default();
        set(&mut backoff.initial, seconds("reconnect.initial_sec", self.initial_sec)?);
        set(&mut backoff.max, seconds("reconnect.max_sec", self.max_sec)?);
        if let Some(limit) = seconds("reconnect.give_up_after_sec", self.give_up_after_sec)? {
            backoff.give_up_after = Some(limit).filter(|limit| !limit.is_zero());
        }
        Ok(backoff)
    }
}

impl RuntimeOptions {
    /// Where the runtime keeps what it keeps.
    pub(crate) fn store(&self) -> Result<Box<dyn Store>, ErrorInfo> {
        let synchronous = match self.synchronous.as_deref() {
            None | Some("normal") => Synchronous::Normal,
            Some("full") => Synchronous::Full,
            Some(other) => return Err(choice("synchronous", other, "normal, full")),
        };
        let path = match self.db.as_deref() {
            None | Some("memory") if self.db_key_file.is_some() => {
                return Err(ErrorInfo::argument("db_key_file is about a database file: name one with db"));
            }
            None | Some("memory") => return Ok(Box::new(MemoryStore::default())),
            Some("") => return Err(ErrorInfo::argument("db must be a path or \"memory\"")),
            Some(path) => path,
        };
        let mut options = SqliteOptions { synchronous, ..SqliteOptions::default() };
        if let Some(file) = &self.db_key_file {
            options.sealer = Some(Arc::new(AesGcmSealer::from_key_file(file)?));
        }
        Ok(Box::new(SqliteStore::new(path, options)))
    }

    pub(crate) fn into_config(self) -> Result<RuntimeConfig, ErrorInfo> {
        let mut config = RuntimeConfig::new(peer(self.name, self.version)?);
        set(&mut config.features, self.features);
        if let Some(interval) = seconds("heartbeat_interval_sec", self.heartbeat_interval_sec)? {
            config.heartbeat_interval = Some(interval).filter(|interval| !interval.is_zero());
        }
        set(&mut config.resume_window, seconds("resume_window_sec", self.resume_window_sec)?);
        set(&mut config.retention, seconds("retention_sec", self.retention_sec)?);
        set(&mut config.idempotency_ttl, seconds("idempotency_ttl_sec", self.idempotency_ttl_sec)?);
        set(&mut config.cancel_grace, seconds("cancel_grace_sec", self.cancel_grace_sec)?);
        set(&mut config.lease_grace, seconds("lease_expiry_grace_sec", self.lease_expiry_grace_sec)?);
        set(&mut config.max_concurrent_jobs, self.max_concurrent_jobs);
        set(&mut config.max_waiting_jobs, self.max_waiting_jobs);
        if config.max_concurrent_jobs == 0 {
            return Err(ErrorInfo::argument("max_concurrent_jobs must be at least 1"));
        }
        set(&mut config.results.chunk, self.result_chunk_cap);
        set(&mut config.results.total, self.result_cap);
        set(&mut config.results.inline, self.inline_result_cap);
        if config.results.chunk == 0 {
            return Err(ErrorInfo::argument("result_chunk_cap must be at least 1"));
        }
        config.cancel_policy = match self.cancel_policy.as_deref() {
            None | Some("session") => CancelPolicy::Session,
            Some("principal") => CancelPolicy::Principal,
            Some(other) => return Err(choice("cancel_policy", other, "session, principal")),
        };
        config.profile = match self.wire_profile.as_deref() {
            None | Some("auto") => ProfileChoice::Auto,
            Some("draft") => ProfileChoice::Draft,
            Some("py-1.1") => ProfileChoice::Py11,
            Some(other) => return Err(choice("wire_profile", other, "auto, draft, py-1.1")),
        };
        Ok(config)
    }
}

impl ConnectOptions {
    pub(crate) fn into_options(self) -> Result<arcp::ConnectOptions, ErrorInfo> {
        let headers = self
            .headers
            .into_iter()
            .map(|(name, value)| match (name.parse(), value.parse()) {
                (Ok(name), Ok(value)) => Ok((name, value)),
                // The value may be a secret.
                _ => Err(ErrorInfo::argument(format!("header \"{name}\" has a name or value HTTP does not allow"))),
            })
            .collect::<Result<_, _>>()?;
        let tls = match self.ca_pem {
            Some(pem) => Some(arcp::transport::tls::client_config(Some(pem.as_bytes()))?),
            None => None,
        };
        Ok(arcp::ConnectOptions {
            headers,
            tls,
            max_message_bytes: self.max_message_bytes,
            timeout: seconds("timeout_sec", self.timeout_sec)?,
            allow_cleartext: match self.allow_cleartext.as_deref() {
                None | Some("warn") => AllowCleartext::Warn,
                Some("refuse") => AllowCleartext::Refuse,
                Some("silent") => AllowCleartext::Silent,
                Some(other) => return Err(choice("allow_cleartext", other, "warn, refuse, silent")),
            },
        })
    }
}

impl JwtOptions {
    pub(crate) fn into_verifier(self) -> Result<JwtVerifier, ErrorInfo> {
        if self.ca_pem.is_some() && self.jwks_url.is_none() {
            return Err(ErrorInfo::argument("ca_pem goes with jwks_url"));
        }
        let key = match (self.secret, self.public_key_pem, self.jwks, self.jwks_url) {
            (Some(secret), None, None, None) => JwtKey::Secret(secret.into_bytes()),
            (None, Some(pem), None, None) => JwtKey::PublicKeyPem(pem.into_bytes()),
            (None, None, Some(document), None) => JwtKey::JwksDocument(document),
            (None, None, None, Some(url)) => {
                JwtKey::Jwks(JwksOptions { url, ca_pem: self.ca_pem.map(String::into_bytes) })
            }
            _ => return Err(ErrorInfo::argument("give exactly one of secret, public_key_pem, jwks and jwks_url")),
        };
        let mut options = arcp::JwtOptions::new(key);
        options.algorithms = self.algorithms;
        options.audience = self.audience;
        options.issuer = self.issuer;
        set(&mut options.leeway, seconds("leeway_sec", self.leeway_sec)?);
        set(&mut options.principal_claim, self.principal_claim);
        set(&mut options.scopes_claim, self.scopes_claim);
        JwtVerifier::new(options).map_err(|error| ErrorInfo::argument(error.to_string()))
    }
}

impl ListenOptions {
    pub(crate) fn into_options(self) -> Result<arcp::ListenOptions, ErrorInfo> {
        let mut options = arcp::ListenOptions::default();
        set(&mut options.host, self.host);
        set(&mut options.port, self.port);
        set(&mut options.path, self.path);
        set(&mut options.max_message_bytes, self.max_message_bytes);
        options.allowed_hosts = self.allowed_hosts;
        options.tls = match (self.cert_pem, self.key_pem) {
            (Some(cert), Some(key)) => Some(arcp::transport::tls::server_config(cert.as_bytes(), key.as_bytes())?),
            (None, None) => None,
            _ => return Err(ErrorInfo::argument("cert_pem and key_pem go together")),
        };
        if !options.path.starts_with('/') {
            return Err(ErrorInfo::argument(format!("path \"{}\" must begin with /", options.path)));
        }
        Ok(options)
    }
}

/// Reads headers; the error does not repeat what may be a secret.
fn pairs<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, String)>, D::Error> {
    Vec::deserialize(deserializer)
        .map_err(|_| serde::de::Error::custom("must be a list of [name, value] pairs of text"))
}

/// Reads a secret; the error does not repeat what stands in its place.
fn secret<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Option::deserialize(deserializer).map_err(|_| serde::de::Error::custom("must be text"))
}

fn one_or_more<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        None(()),
        One(String),
        More(Vec<String>),
    }
    Ok(
        match Form::deserialize(deserializer)
            .map_err(|_| serde::de::Error::custom("must be text or a list of texts"))?
        {
            Form::None(()) => Vec::new(),
            Form::One(one) => vec![one],
            Form::More(more) => more,
        },
    )
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

fn peer(name: String, version: String) -> Result<PeerInfo, ErrorInfo> {
    if name.is_empty() || version.is_empty() {
        return Err(ErrorInfo::argument("name and version must not be empty"));
    }
    Ok(PeerInfo { name, version })
}

fn seconds(name: &str, value: Option<f64>) -> Result<Option<Duration>, ErrorInfo> {
    value
        .map(|value| {
            // Above it only overflow is left to gain.
            Duration::try_from_secs_f64(value).ok().filter(|duration| *duration <= LONGEST).ok_or_else(|| {
                ErrorInfo::argument(format!("{name} must be seconds from 0 to {}, got {value}", LONGEST.as_secs()))
            })
        })
        .transpose()
}

/// A hundred years.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

fn choice(name: &str, got: &str, known: &str) -> ErrorInfo {
    ErrorInfo::argument(format!("{name} \"{got}\" is not one of: {known}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_option_is_named() {
        let wrong = RuntimeOptions::from_json(r#"{"name":"x","version":"1","max_concurrent_jobs":"many"}"#);
        let message = wrong.unwrap_err().message;
        assert!(message.contains("max_concurrent_jobs") && message.contains("many"), "{message}");
        let unknown = ClientOptions::from_json(r#"{"name":"x","version":"1","colour":"red"}"#).unwrap_err().message;
        assert!(unknown.contains("colour"), "{unknown}");
        let endless = ClientOptions::from_json(r#"{"name":"x","version":"1","request_timeout_sec":1e18}"#).unwrap();
        assert!(endless.into_config().is_err());
        let negative = ClientOptions::from_json(r#"{"name":"x","version":"1","request_timeout_sec":-1}"#).unwrap();
        assert!(negative.into_config().unwrap_err().message.contains("request_timeout_sec"));
    }

    #[test]
    fn signed_tokens_have_one_source_of_keys_and_no_option_shows_a_secret() {
        let wrong = |text: &str| JwtOptions::from_json(text).and_then(JwtOptions::into_verifier).unwrap_err().message;
        let long = "0123456789abcdef0123456789abcdef";
        for (text, expected) in [
            ("{}".to_owned(), "exactly one"),
            (format!(r#"{{"secret":"{long}","jwks_url":"https://x/"}}"#), "exactly one"),
            (r#"{"secret":"s3cret"}"#.to_owned(), "at least 32"),
            (r#"{"secret":["s3cret"]}"#.to_owned(), "secret"),
            (r#"{"jwks_url":"http://issuer.example/"}"#.to_owned(), "https"),
            (r#"{"public_key_pem":"x"}"#.to_owned(), "public_key_pem"),
            (format!(r#"{{"secret":"{long}","audience":7}}"#), "audience"),
            (format!(r#"{{"secret":"{long}","leeway_sec":-1}}"#), "leeway_sec"),
            (format!(r#"{{"secret":"{long}","ca_pem":"x"}}"#), "jwks_url"),
            (format!(r#"{{"secret":"{long}","algorithms":["none"]}}"#), "none"),
        ] {
            let told = wrong(&text);
            assert!(told.contains(expected) && !told.contains("s3cret") && !told.contains(long), "{told}");
        }
        for audience in [r#""a""#, r#"["a","b"]"#, "null"] {
            let text = format!(r#"{{"secret":"{long}","audience":{audience},"issuer":"i","leeway_sec":5}}"#);
            assert!(JwtOptions::from_json(&text).unwrap().into_verifier().is_ok(), "{text}");
        }
    }

    #[test]
    fn cleartext_is_warned_of_refused_or_let_be() {
        let read = |text: &str| ConnectOptions::from_json(text).unwrap().into_options().map(|o| o.allow_cleartext);
        assert_eq!(read("{}"), Ok(AllowCleartext::Warn));
        assert_eq!(read(r#"{"allow_cleartext":"refuse"}"#), Ok(AllowCleartext::Refuse));
        assert_eq!(read(r#"{"allow_cleartext":"silent"}"#), Ok(AllowCleartext::Silent));
        assert!(read(r#"{"allow_cleartext":"no"}"#).unwrap_err().message.contains("refuse"));
    }
}
