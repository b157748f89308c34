//! Where a credential may be presented (R-9.8.1.3).

use arcp_proto::message::Credential;
use reqwest::Url;

/// Whether a request to `url` may carry this credential: same scheme, host and port as its endpoint, and a path at or
/// below the endpoint's. Both are compared as they would be requested, so that `..`, case and default ports mean nothing.
pub fn is_for_endpoint(credential: &Credential, url: &str) -> bool {
    let (Ok(endpoint), Ok(url)) = (Url::parse(&credential.endpoint), Url::parse(url)) else { return false };
    // An opaque origin equals none, not even its own.
    if !endpoint.origin().is_tuple() || endpoint.origin() != url.origin() || !url.username().is_empty() {
        return false;
    }
    // A server may take an escaped dot or slash for a plain one.
    let lower = url.path().to_ascii_lowercase();
    if ["%2e", "%2f", "%5c"].iter().any(|escape| lower.contains(escape)) && endpoint.path() != "/" {
        return false;
    }
    let prefix = endpoint.path().trim_end_matches('/');
    url.path().strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use arcp_proto::message::SecretText;

    use super::*;

    fn fits(endpoint: &str, url: &str) -> bool {
        let credential = Credential {
            id: "cred_1".into(),
            scheme: "bearer".into(),
            value: SecretText::new("sk-hidden"),
            endpoint: endpoint.into(),
            profile: None,
            constraints: None,
        };
        is_for_endpoint(&credential, url)
    }

    #[test]
    fn a_credential_goes_to_its_endpoint_and_below() {
        for (endpoint, url) in [
            ("https://gate.example", "https://gate.example/v1/chat"),
            ("https://gate.example/", "https://GATE.example:443"),
            ("https://gate.example/v1", "https://gate.example/v1"),
            ("https://gate.example/v1", "https://gate.example/v1?model=a"),
            ("https://gate.example/v1/", "https://gate.example/v1/chat/completions"),
            ("https://gate.example/v1", "https://gate.example/x/../v1/chat"),
            ("http://127.0.0.1:4000", "http://127.0.0.1:4000/v1"),
        ] {
            assert!(fits(endpoint, url), "{endpoint} {url}");
        }
    }

    /// Rules: R-9.8.1.3
    #[test]
    fn a_credential_goes_nowhere_else() {
        for (endpoint, url) in [
            ("https://gate.example/v1", "http://gate.example/v1"),
            ("https://gate.example/v1", "https://gate.example:8443/v1"),
            ("https://gate.example/v1", "https://gate.example.evil/v1"),
            ("https://gate.example/v1", "https://evil/https://gate.example/v1"),
            ("https://gate.example/v1", "https://gate.example@evil/v1"),
            ("https://gate.example/v1", "https://me@gate.example/v1"),
            ("https://gate.example/v1", "https://gate.example/v1x"),
            ("https://gate.example/v1", "https://gate.example/v1/../admin"),
            ("https://gate.example/v1", "https://gate.example/v1/%2e%2e/admin"),
            ("https://gate.example/v1", "https://gate.example/v1/%2E%2E%2fadmin"),
            ("https://gate.example/v1", "https://gate.example/V1"),
            ("https://gate.example/v1", "https://gate.example/"),
            ("https://gate.example/v1", "gate.example/v1"),
            ("data:text/plain,a", "data:text/plain,a"),
            ("", ""),
        ] {
            assert!(!fits(endpoint, url), "{endpoint} {url}");
        }
    }
}
