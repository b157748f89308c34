//! Keys of an OpenAI-compatible gateway with virtual keys, by the key API of LiteLLM.

use std::sync::Arc;
use std::time::Duration;

use arcp_proto::Error;
use arcp_proto::json::RawJson;
use arcp_proto::lease::glob::Glob;
use arcp_proto::machine::provision::{IssueRequest, Issued, Revocation};
use arcp_proto::message::{Credential, CredentialConstraints, SecretText};
use reqwest::{Client, StatusCode, Url, redirect};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::{IssueFuture, Provisioner, RevokeFuture};
use crate::transport::tls;

/// The currency a gateway counts in.
const CURRENCY: &str = "USD";

/// Largest answer read.
const LARGEST: usize = 256 << 10;

/// What every key's alias begins with.
const ALIAS: &str = "arcp-";

/// Names in a key's model list that stand for other models than themselves.
const SPECIAL_NAMES: [&str; 4] = ["all-proxy-models", "all-team-models", "all-org-models", "no-default-models"];

/// How to reach a gateway.
#[derive(Clone)]
pub struct LiteLlmOptions {
    /// Where its key API is: `https://host[/path]`, or `http://` on this machine.
    pub base_url: String,
    /// A key that may make and delete keys.
    pub admin_key: SecretText,
    /// Where the keys are used; `base_url` when `None`. Same schemes.
    pub endpoint: Option<String>,
    /// A gateway that takes longer has failed; 10 s.
    pub timeout: Duration,
    /// Certificates (PEM) trusted besides those of the platform.
    pub ca_pem: Option<Vec<u8>>,
    /// The gateway's models. A pattern that a gateway cannot express is replaced by those of them it matches; with none
    /// given, such a pattern refuses the submit.
    pub known_models: Vec<String>,
}

impl LiteLlmOptions {
    /// The defaults for this gateway.
    pub fn new(base_url: impl Into<String>, admin_key: SecretText) -> Self {
        LiteLlmOptions {
            base_url: base_url.into(),
            admin_key,
            endpoint: None,
            timeout: Duration::from_secs(10),
            ca_pem: None,
            known_models: Vec::new(),
        }
    }
}

/// Makes a virtual key for each job, limited as its lease is, and deletes it by its alias, so that nothing secret has
/// to be kept for that.
///
/// Budgets map when they are in USD, other currencies stay with the runtime. Names in `model.use` map as they are: a
/// gateway that calls a group of models by one of these names grants the group.
pub struct LiteLlmProvisioner {
    gateway: Arc<Gateway>,
    known_models: Vec<String>,
}

struct Gateway {
    client: Client,
    generate: Url,
    delete: Url,
    admin_key: SecretText,
    endpoint: String,
    /// Scheme, host and port, for errors.
    shown: String,
}

impl std::fmt::Debug for LiteLlmProvisioner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiteLlmProvisioner").field("gateway", &self.gateway.shown).finish_non_exhaustive()
    }
}

impl LiteLlmProvisioner {
    /// A provisioner for this gateway, which is not asked yet.
    ///
    /// # Errors
    /// A URL that is none or sends secrets in clear, an empty admin key, unusable certificates.
    pub fn new(options: LiteLlmOptions) -> Result<Self, Error> {
        let wrong = |why: String| Error::invalid(why);
        let base = secret_safe("base_url", &options.base_url).map_err(wrong)?;
        let endpoint = match &options.endpoint {
            Some(endpoint) => secret_safe("endpoint", endpoint).map_err(wrong)?,
            None => base.clone(),
        };
        if options.admin_key.expose().is_empty() {
            return Err(wrong("admin_key is empty; give a key that may make and delete keys".into()));
        }
        let at = |path: &str| {
            let mut url = base.clone();
            url.set_path(&format!("{}/{path}", base.path().trim_end_matches('/')));
            url
        };
        let tls = tls::client_config(options.ca_pem.as_deref())
            .map_err(|error| wrong(format!("ca_pem cannot be used: {error}")))?;
        let mut builder = Client::builder()
            .tls_backend_preconfigured((*tls).clone())
            // Elsewhere might be cleartext, or somebody else.
            .redirect(redirect::Policy::none())
            .timeout(options.timeout)
            .user_agent(concat!("arcp/", env!("CARGO_PKG_VERSION")));
        if base.scheme() == "http" {
            // No proxy stands between this machine and itself.
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(|error| wrong(format!("no HTTP client: {}", reason(error))))?;
        let gateway = Gateway {
            client,
            generate: at("key/generate"),
            delete: at("key/delete"),
            admin_key: options.admin_key,
            endpoint: endpoint.to_string().trim_end_matches('/').to_owned(),
            shown: base.origin().ascii_serialization(),
        };
        Ok(LiteLlmProvisioner { gateway: Arc::new(gateway), known_models: options.known_models })
    }

    /// The key's model list; `None` for no restriction.
    fn models(&self, patterns: &[String]) -> Result<Vec<String>, Error> {
        let mut models: Vec<String> = Vec::new();
        for pattern in patterns {
            match gateway_form(pattern) {
                Some(model) => models.push(model),
                None => models.extend(self.expand(pattern)?),
            }
        }
        models.sort();
        models.dedup();
        Ok(models)
    }

    /// The known models a pattern matches, where the gateway has no form of its own for it.
    fn expand(&self, pattern: &str) -> Result<Vec<String>, Error> {
        let glob = Glob::new(pattern);
        let matching: Vec<String> =
            self.known_models.iter().filter(|model| glob.matches(model)).filter_map(|model| literal(model)).collect();
        if matching.is_empty() {
            return Err(Error::internal(format!(
                "model.use \"{}\" has no form the gateway knows; use names or name/**, or list the gateway's models",
                pattern.escape_debug()
            )));
        }
        Ok(matching)
    }

    fn generate_body(&self, request: &IssueRequest) -> Result<Option<Vec<u8>>, Error> {
        let models = request.models.as_deref().map(|patterns| self.models(patterns)).transpose()?;
        if models.as_ref().is_some_and(Vec::is_empty) {
            // An empty list would allow every model.
            return Ok(None);
        }
        let duration = match request.expires_at {
            None => None,
            Some(end) => match end.0.saturating_sub(request.asked_at.0) / 1000 {
                seconds @ 1.. => Some(format!("{seconds}s")),
                _ => return Err(Error::internal("the lease ends within a second; too soon to make a key for")),
            },
        };
        let budget = request.budget.as_ref().and_then(|budget| {
            let left = budget.remaining().find(|(currency, _)| *currency == CURRENCY)?.1;
            RawValue::from_string(left.to_string()).ok()
        });
        let body = Generate {
            key_alias: alias(&request.intent),
            models: models.as_deref(),
            max_budget: budget.as_deref(),
            duration,
            metadata: Metadata {
                arcp_job_id: &request.job_id,
                arcp_principal: &request.principal,
                arcp_agent: &request.agent,
            },
        };
        serde_json::to_vec(&body).map(Some).map_err(|error| Error::internal(format!("no request: {error}")))
    }
}

impl Gateway {
    fn issued(&self, request: &IssueRequest, answer: &[u8]) -> Result<Issued, Error> {
        // The parser's own words could quote the key.
        let answer: Generated = serde_json::from_slice(answer)
            .map_err(|_| self.failed("answered /key/generate with something else than a key"))?;
        let usd = request.budget.as_ref().and_then(|budget| budget.remaining().find(|(name, _)| *name == CURRENCY));
        let constraints = CredentialConstraints {
            cost_budget: usd.map(|(currency, left)| vec![format!("{currency}:{left}")]),
            model_use: request.models.clone(),
            expires_at: request.expires_at.map(|end| end.to_string()),
        };
        let credential = Credential {
            id: request.intent.to_string(),
            scheme: "bearer".into(),
            value: answer.key,
            endpoint: self.endpoint.clone(),
            profile: Some("openai".into()),
            constraints: (constraints != CredentialConstraints::default()).then_some(constraints),
        };
        let handle = RawJson::from_serialize(&Handle::Alias { key_alias: alias(&request.intent) })?;
        Ok(Issued { credential, handle })
    }

    fn failed(&self, how: &str) -> Error {
        Error::internal(format!("the gateway at {} {how}", self.shown))
    }

    /// Sends one request once.
    async fn post(&self, url: &Url, body: Vec<u8>) -> Result<(StatusCode, Vec<u8>), Error> {
        let failed = |error| self.failed(&reason(error));
        let request = self.client.post(url.clone()).bearer_auth(self.admin_key.expose());
        let request = request.header("content-type", "application/json").body(body);
        let mut answer = request.send().await.map_err(failed)?;
        let status = answer.status();
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > LARGEST {
                return Err(self.failed(&format!("gave an answer of more than {LARGEST} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok((status, body))
    }
}

impl Provisioner for LiteLlmProvisioner {
    fn issue(&self, request: IssueRequest) -> IssueFuture {
        let body = match self.generate_body(&request) {
            Ok(Some(body)) => body,
            Ok(None) => return Box::pin(std::future::ready(Ok(Vec::new()))),
            Err(error) => return Box::pin(std::future::ready(Err(error))),
        };
        let gateway = Arc::clone(&self.gateway);
        Box::pin(async move {
            let (status, answer) = gateway.post(&gateway.generate, body).await?;
            // Its body may quote what it was sent, and more.
            match status {
                status if status.is_success() => Ok(vec![gateway.issued(&request, &answer)?]),
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    Err(gateway.failed(&format!("answered HTTP {status}; check admin_key")))
                }
                status => Err(gateway.failed(&format!("answered HTTP {status} when asked for a key"))),
            }
        })
    }

    /// By the hash under which the gateway itself keeps a key.
    fn handle_for(&self, value: &SecretText) -> Option<RawJson> {
        let digest = Sha256::digest(value.expose().as_bytes());
        let key_hash = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        RawJson::from_serialize(&Handle::Hash { key_hash }).ok()
    }

    fn revoke(&self, what: Revocation) -> RevokeFuture {
        let handle = match what {
            Revocation::Intent(intent) => Some(Handle::Alias { key_alias: alias(&intent) }),
            Revocation::Handle(handle) => serde_json::from_str(handle.get()).ok(),
        };
        let Some(handle) = handle.filter(Handle::is_ours) else {
            let error = Error::internal("the handle of this credential is not one of the LiteLLM provisioner");
            return Box::pin(std::future::ready(Err(error)));
        };
        let body = match handle {
            Handle::Alias { key_alias } => serde_json::to_vec(&DeleteAlias { key_aliases: [key_alias] }),
            Handle::Hash { key_hash } => serde_json::to_vec(&DeleteKey { keys: [key_hash] }),
        };
        // Lists of texts always serialise.
        let body = body.unwrap_or_default();
        let gateway = Arc::clone(&self.gateway);
        Box::pin(async move {
            let (status, _) = gateway.post(&gateway.delete, body).await?;
            match status {
                // There is no such key (any more).
                StatusCode::NOT_FOUND => Ok(()),
                status if status.is_success() => Ok(()),
                status => Err(gateway.failed(&format!("answered HTTP {status} when asked to delete a key"))),
            }
        })
    }
}

fn alias(intent: &str) -> String {
    format!("{ALIAS}{intent}")
}

/// A URL that keeps secrets: https, or http that does not leave this machine.
fn secret_safe(name: &str, text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("{name} is not a URL ({error}); use https://host/path"))?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let local = host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    match url.scheme() {
        _ if !url.username().is_empty() || url.password().is_some() => {
            Err(format!("{name} carries a user name or password; give the key as admin_key"))
        }
        _ if url.query().is_some() || url.fragment().is_some() => {
            Err(format!("{name} has a query or fragment; give scheme, host and path only"))
        }
        "https" => Ok(url),
        "http" if local => Ok(url),
        "http" => Err(format!("{name} must be https: keys would travel in clear")),
        _ => Err(format!("{name} must begin with https://")),
    }
}

/// A pattern as a key's model list says it, when that grants no more than the pattern does.
fn gateway_form(pattern: &str) -> Option<String> {
    if !pattern.contains('*') {
        return literal(pattern);
    }
    if pattern == "**" {
        return Some("*".into());
    }
    // The gateway's `*` also matches `/`, and what stands before it is read as a regular expression there.
    let prefix = pattern.strip_suffix("/**")?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_');
    (!prefix.is_empty() && prefix.chars().all(plain)).then(|| format!("{prefix}/*"))
}

fn literal(name: &str) -> Option<String> {
    let is_plain = !name.is_empty() && !name.contains('*') && !SPECIAL_NAMES.contains(&name);
    is_plain.then(|| name.to_owned())
}

/// The chain of causes, without the URL.
fn reason(error: reqwest::Error) -> String {
    let error = error.without_url();
    if error.is_timeout() {
        return "did not answer in time".into();
    }
    let mut text = format!("cannot be reached: {error}");
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[derive(Serialize)]
struct Generate<'a> {
    key_alias: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    models: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_budget: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration: Option<String>,
    metadata: Metadata<'a>,
}

#[derive(Serialize)]
struct Metadata<'a> {
    arcp_job_id: &'a str,
    arcp_principal: &'a str,
    arcp_agent: &'a str,
}

#[derive(Deserialize)]
struct Generated {
    #[serde(deserialize_with = "secret")]
    key: SecretText,
}

fn secret<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<SecretText, D::Error> {
    String::deserialize(deserializer).map(SecretText::new)
}

#[derive(Serialize)]
struct DeleteAlias {
    key_aliases: [String; 1],
}

#[derive(Serialize)]
struct DeleteKey {
    keys: [String; 1],
}

/// How a key is named to the gateway. Neither is a secret.
#[derive(Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Handle {
    Alias { key_alias: String },
    Hash { key_hash: String },
}

impl Handle {
    /// Another alias would be somebody else's key.
    fn is_ours(&self) -> bool {
        match self {
            Handle::Alias { key_alias } => key_alias.len() > ALIAS.len() && key_alias.starts_with(ALIAS),
            Handle::Hash { key_hash } => key_hash.len() == 64 && key_hash.bytes().all(|byte| byte.is_ascii_hexdigit()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_maps_only_to_what_grants_no_more() {
        for (pattern, form) in [
            ("gpt-4o", Some("gpt-4o")),
            ("openai/gpt-4.1", Some("openai/gpt-4.1")),
            ("**", Some("*")),
            ("openai/**", Some("openai/*")),
            ("bedrock/eu/**", Some("bedrock/eu/*")),
            // One segment only, where the gateway's star runs on.
            ("openai/*", None),
            ("*", None),
            ("gpt-*", None),
            ("**/mini", None),
            // A dot would match any character there.
            ("gpt-4.1/**", None),
            ("a*b/**", None),
            ("all-proxy-models", None),
            ("all-team-models", None),
            ("no-default-models", None),
            ("", None),
        ] {
            assert_eq!(gateway_form(pattern).as_deref(), form, "{pattern}");
        }
    }

    #[test]
    fn only_urls_that_keep_secrets_are_taken() {
        for url in ["https://gate.example", "https://gate.example/llm", "http://127.0.0.1:4000", "http://[::1]:4000"] {
            assert!(LiteLlmProvisioner::new(LiteLlmOptions::new(url, SecretText::new("sk-admin"))).is_ok(), "{url}");
        }
        for url in [
            "http://gate.example",
            "gate.example",
            "ws://gate.example",
            "https://u:sk-admin@gate.example",
            "https://g/?a=b",
        ] {
            let error = LiteLlmProvisioner::new(LiteLlmOptions::new(url, SecretText::new("sk-admin"))).unwrap_err();
            assert!(error.to_string().contains("base_url") && !error.to_string().contains("sk-admin"), "{error}");
        }
        let error = LiteLlmProvisioner::new(LiteLlmOptions::new("https://g", SecretText::new(""))).unwrap_err();
        assert!(error.to_string().contains("admin_key"), "{error}");
    }

    /// Rules: R-9.8.2.12
    #[test]
    fn a_provisioner_does_not_show_its_key() {
        let provisioner =
            LiteLlmProvisioner::new(LiteLlmOptions::new("https://gate.example", SecretText::new("sk-admin"))).unwrap();
        assert_eq!(format!("{provisioner:?}"), r#"LiteLlmProvisioner { gateway: "https://gate.example", .. }"#);
    }
}
