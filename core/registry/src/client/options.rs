//! Settings of a client, and where its credentials come from (D-9).

use std::fmt;
use std::time::Duration;

use zeroize::Zeroizing;

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl<T: Into<String>> From<T> for Secret {
    fn from(text: T) -> Self {
        Secret(Zeroizing::new(text.into()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// What a client may log in with.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// A token to begin with.
    pub token: Option<Secret>,
    /// The key agents are registered with.
    pub agent_key: Option<Secret>,
    /// An administrator's name and password.
    pub admin: Option<(String, Secret)>,
}

impl Credentials {
    /// Fills what is absent from `ARCP_TOKEN`, `ARCP_AGENT_KEY`, and `ARCP_ADMIN_USERNAME` with `ARCP_ADMIN_PASSWORD`. Set
    /// but empty is absent.
    #[must_use]
    pub fn or_from_env(self) -> Self {
        self.or_from(|name| std::env::var(name).ok())
    }

    fn or_from(self, variable: impl Fn(&str) -> Option<String>) -> Self {
        let read = |name| variable(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        let admin = || Some((read("ARCP_ADMIN_USERNAME")?, read("ARCP_ADMIN_PASSWORD")?.into()));
        Credentials {
            token: self.token.or_else(|| read("ARCP_TOKEN").map(Secret::from)),
            agent_key: self.agent_key.or_else(|| read("ARCP_AGENT_KEY").map(Secret::from)),
            admin: self.admin.or_else(admin),
        }
    }
}

/// How a client behaves (REG-010).
#[derive(Clone, Debug)]
pub struct RegistryOptions {
    /// `http://host:port`, and a path when the registry is served under one. Not looked at before the first call.
    pub base_url: String,
    /// For one try of one request; 30 s.
    pub timeout: Duration,
    /// Tries after the first; 3.
    pub retry_attempts: u32,
    /// The longest wait before the second try, doubled from try to try; 1 s. The wait is random up to that.
    pub retry_delay: Duration,
    /// No wait is longer; 60 s.
    pub max_retry_delay: Duration,
    /// The header `User-Agent`.
    pub user_agent: String,
    /// The header `X-Client-Fingerprint`; a random UUID when absent.
    pub fingerprint: Option<String>,
    /// What to log in with. Nothing is read from the environment here: see [`Credentials::or_from_env`].
    pub credentials: Credentials,
    /// The owner of agents registered without one; `unknown`.
    pub owner: Option<String>,
    /// Certificates (PEM) trusted besides the platform's, for `https`.
    pub ca: Option<Vec<u8>>,
}

impl RegistryOptions {
    /// The defaults, for the registry at `base_url`.
    pub fn new(base_url: impl Into<String>) -> Self {
        RegistryOptions {
            base_url: base_url.into(),
            timeout: Duration::from_secs(30),
            retry_attempts: 3,
            retry_delay: Duration::from_secs(1),
            max_retry_delay: Duration::from_secs(60),
            user_agent: USER_AGENT.to_owned(),
            fingerprint: None,
            credentials: Credentials::default(),
            owner: None,
            ca: None,
        }
    }
}

/// What the published client calls itself, which servers may look for (REG-010).
const USER_AGENT: &str = "ARCPClient/2.0.3";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_fills_what_is_absent() {
        let variable = |name: &str| match name {
            "ARCP_TOKEN" => Some("from-environment".to_owned()),
            "ARCP_AGENT_KEY" => Some("  ".to_owned()),
            "ARCP_ADMIN_USERNAME" => Some("ARCP".to_owned()),
            _ => None,
        };
        let given = Credentials { token: Some("given".into()), ..Credentials::default() };
        assert_eq!(given.or_from(variable).token.unwrap().expose(), "given");
        let found = Credentials::default().or_from(variable);
        assert_eq!(found.token.unwrap().expose(), "from-environment");
        assert!(found.agent_key.is_none());
        assert!(found.admin.is_none(), "a name without a password is no login");
    }

    #[test]
    fn secrets_are_not_shown() {
        let options = RegistryOptions {
            credentials: Credentials {
                token: Some("s3cret-token".into()),
                agent_key: Some("s3cret-key".into()),
                admin: Some(("ARCP".into(), "s3cret-password".into())),
            },
            ..RegistryOptions::new("http://localhost:8001")
        };
        assert!(!format!("{options:?}").contains("s3cret"));
    }
}
