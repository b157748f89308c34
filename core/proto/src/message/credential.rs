//! Provisioned credentials as they travel (runtime-protocol section 9.8).

use serde::{Serialize, Serializer};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::error::Error;

/// A secret text: shown nowhere, compared in constant time, wiped when it is dropped (R-9.8.2.10, R-9.8.2.12).
#[derive(Clone)]
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    /// Takes the text over.
    pub fn new(text: impl Into<String>) -> Self {
        SecretText(Zeroizing::new(text.into()))
    }

    /// The text itself: for the wire and for whoever presents it, never for a log.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for SecretText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

impl PartialEq for SecretText {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl Serialize for SecretText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// One entry of `credentials` in `job.accepted` and `job.subscribed`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Credential {
    /// Its name within the job; a rotation keeps it.
    pub id: String,
    /// `bearer`.
    pub scheme: String,
    /// The secret.
    pub value: SecretText,
    /// Where it may be presented: an absolute https URL (R-9.8.1.3), or http on this machine itself.
    pub endpoint: String,
    /// The dialect spoken there, such as `openai`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// What it is limited to; nothing follows from one that is absent (R-9.8.3.2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub constraints: Option<CredentialConstraints>,
}

/// What a credential is limited to, as far as its issuer says so (D-125).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CredentialConstraints {
    /// Amounts such as `USD:5.00`.
    #[serde(rename = "cost.budget", skip_serializing_if = "Option::is_none")]
    pub cost_budget: Option<Vec<String>>,
    /// Patterns of models.
    #[serde(rename = "model.use", skip_serializing_if = "Option::is_none")]
    pub model_use: Option<Vec<String>>,
    /// RFC 3339 ending in `Z`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

impl Credential {
    /// Whether this can be handed out at all.
    ///
    /// # Errors
    /// `INTERNAL_ERROR`, which names the member and not its value.
    pub fn check(&self) -> Result<(), Error> {
        let bad = |why: &str| Err(Error::internal(format!("the provisioner gave a credential {why}")));
        if self.id.is_empty() {
            return bad("without id; give each one a name");
        }
        if self.scheme != "bearer" {
            return bad("whose scheme is not bearer, the only one this version knows");
        }
        if self.value.expose().is_empty() {
            return bad("without value");
        }
        if !is_private_endpoint(&self.endpoint) {
            return bad("whose endpoint is not an absolute https URL, nor http on this machine");
        }
        Ok(())
    }
}

/// Whether what is sent to this URL is encrypted, or stays on this machine.
fn is_private_endpoint(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.is_empty() || authority.contains(['@', '\\']) || url.contains(char::is_whitespace) {
        return false;
    }
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    match scheme.to_ascii_lowercase().as_str() {
        "https" => !host.is_empty(),
        "http" => {
            let is_loopback = |ip: core::net::IpAddr| ip.is_loopback();
            host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(is_loopback)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential(endpoint: &str) -> Credential {
        Credential {
            id: "cred_1".into(),
            scheme: "bearer".into(),
            value: SecretText::new("sk-hidden"),
            endpoint: endpoint.into(),
            profile: None,
            constraints: None,
        }
    }

    #[test]
    fn a_value_is_sent_but_not_shown() {
        let credential = credential("https://gate.example/v1");
        assert!(!format!("{credential:?}").contains("sk-hidden"));
        let text = serde_json::to_string(&credential).unwrap();
        assert_eq!(
            text,
            r#"{"id":"cred_1","scheme":"bearer","value":"sk-hidden","endpoint":"https://gate.example/v1"}"#
        );
    }

    #[test]
    fn constraints_are_written_in_the_drafts_form() {
        let constraints = CredentialConstraints {
            cost_budget: Some(vec!["USD:5.00".into()]),
            model_use: Some(vec!["gpt-4o".into()]),
            expires_at: None,
        };
        let text = serde_json::to_string(&constraints).unwrap();
        assert_eq!(text, r#"{"cost.budget":["USD:5.00"],"model.use":["gpt-4o"]}"#);
    }

    #[test]
    fn only_encrypted_or_local_endpoints_are_handed_out() {
        for good in ["https://gate.example", "HTTPS://gate.example:8443/v1", "http://127.0.0.1:4000", "http://[::1]:1/"]
        {
            assert_eq!(credential(good).check(), Ok(()), "{good}");
        }
        for bad in [
            "",
            "gate.example",
            "https://",
            "http://gate.example",
            "http://localhost@gate.example",
            "http://127.0.0.1.gate.example",
            "ftp://gate.example",
            "https://gate.example/a b",
            "https://user:pw@gate.example",
        ] {
            let error = credential(bad).check().unwrap_err();
            assert!(!error.message.contains("sk-hidden"), "{bad}");
        }
    }
}
