//! A client of the registry, with the credentials there are (D-9, D-39).

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use arcp::registry::{Credentials, FailureKind, Operation, RegistryClient, RegistryError, RegistryOptions, Secret};
use serde_json::Value;

use super::args::{KeyArgs, RegistryArgs};
use super::logins::{self, Logins};
use crate::args::read_file;
use crate::exit::Failure;

/// A client, and where what it obtains may be stored.
pub(crate) struct Access {
    pub(crate) client: RegistryClient,
    pub(crate) url: String,
}

impl RegistryArgs {
    /// A client; for an agent's own calls, with the token stored for that agent.
    pub(crate) fn open(&self, agent_id: Option<&str>) -> Result<Access, Failure> {
        let given = self.token.read_if_any()?;
        let logins = logins::path().and_then(|path| Logins::load(&path));
        // Without the folder there is nothing stored; with a damaged file the user has to know.
        let logins = match logins {
            Err(failure) if given.is_none() && logins::path().is_ok() => return Err(failure),
            logins => logins.unwrap_or_default(),
        };
        let stored = logins.registries.get(&self.url);
        let own = agent_id.and_then(|id| stored?.agents.get(id)).cloned();
        let token = given.or(own).or_else(|| stored?.token.clone());
        let credentials = Credentials { token: token.map(Secret::from), ..Credentials::default() }.or_from_env();
        let ca = self.ca_file.as_deref().map(|path| read_file("--ca-file", path)).transpose()?;
        let client = client(&self.url, ca, self.timeout, credentials, logins.fingerprint);
        Ok(Access { client, url: self.url.clone() })
    }
}

pub(crate) fn client(
    url: &str,
    ca: Option<String>,
    timeout: u64,
    credentials: Credentials,
    fingerprint: Option<String>,
) -> RegistryClient {
    RegistryClient::new(RegistryOptions {
        timeout: Duration::from_secs(timeout),
        // A person waits.
        retry_delay: Duration::from_millis(250),
        max_retry_delay: Duration::from_secs(5),
        user_agent: concat!("arcp/", env!("CARGO_PKG_VERSION")).to_owned(),
        fingerprint,
        credentials,
        owner: std::env::var("ARCP_OWNER").ok().filter(|owner| !owner.is_empty()),
        ca: ca.map(String::into_bytes),
        ..RegistryOptions::new(url)
    })
}

impl KeyArgs {
    /// The key; `None` leaves it to the environment.
    pub(crate) fn read(&self) -> Result<Option<Secret>, Failure> {
        match (&self.agent_key, &self.agent_key_file) {
            (Some(key), _) => Ok(Some(key.clone().into())),
            (None, Some(path)) => secret_file("--agent-key-file", path).map(Some),
            (None, None) => Ok(None),
        }
    }
}

/// The first line of a file.
pub(crate) fn secret_file(option: &str, path: &Path) -> Result<Secret, Failure> {
    let text = read_file(option, path)?;
    let secret = text.trim_end_matches(['\r', '\n']);
    match secret {
        "" => Err(Failure::Usage(format!("{option}: {} is empty", path.display()))),
        secret => Ok(secret.into()),
    }
}

/// The password of a login.
pub(crate) fn password(file: Option<&PathBuf>) -> Result<Secret, Failure> {
    if let Some(path) = file {
        return secret_file("--password-file", path);
    }
    if let Some(password) = std::env::var("ARCP_ADMIN_PASSWORD").ok().filter(|password| !password.is_empty()) {
        return Ok(password.into());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Usage("no password: give --password-file, or set ARCP_ADMIN_PASSWORD".into()));
    }
    let typed = rpassword::prompt_password("Password: ");
    typed.map(Secret::from).map_err(|error| Failure::Other(format!("no password could be read: {error}")))
}

impl Access {
    /// Does one operation; its body.
    pub(crate) async fn perform(&self, operation: Operation) -> Result<Value, Failure> {
        let text = self.client.perform(operation).await?;
        serde_json::from_str(&text).map_err(|error| Failure::Other(format!("the answer is not JSON: {error}")))
    }

    /// Changes what is stored for this registry.
    pub(crate) fn remember(&self, change: impl FnOnce(&mut logins::Login)) -> Result<(), Failure> {
        let path = logins::path()?;
        Logins::change(&path, |logins| {
            logins.fingerprint.get_or_insert_with(|| self.client.fingerprint().to_owned());
            change(logins.registries.entry(self.url.clone()).or_default());
            logins.registries.retain(|_, login| login.token.is_some() || !login.agents.is_empty());
            (true, ())
        })
    }
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        match error.kind {
            FailureKind::Invalid => Failure::Usage(error.to_string()),
            FailureKind::Connection => {
                Failure::NoConnection(format!("{error}; check --url, and that a registry listens there"))
            }
            FailureKind::Timeout => Failure::NoAnswer(error.to_string()),
            FailureKind::Answer => Failure::Other(error.to_string()),
            _ => Failure::Registry(Box::new(error)),
        }
    }
}
