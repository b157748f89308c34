//! The registry's client for any host: one call per method of the contract, and live sockets.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use arcp::registry::{
    Credentials, Operation, RegistryClient, RegistryError, RegistryOptions, RegistrySocket as Socket, Secret,
    SocketKind, SocketOptions,
};
use serde::Deserialize;

use crate::core::Core;
use crate::error::{ErrorInfo, ErrorKind, read};
use crate::job::{Announce, NextBatch};
use crate::port::{Deferred, Port, Request, Value};
use crate::registry_transport::HostTransport;

/// A client of one registry.
pub struct Registry {
    core: Core,
    client: RegistryClient,
}

/// Options as hosts write them; `null` is absent. Secrets, so no `Debug`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    base_url: String,
    #[serde(default)]
    timeout: Option<f64>,
    #[serde(default)]
    retry_attempts: Option<u32>,
    #[serde(default)]
    retry_delay: Option<f64>,
    #[serde(default)]
    max_retry_delay: Option<f64>,
    #[serde(default)]
    user_agent: Option<String>,
    #[serde(default)]
    fingerprint: Option<String>,
    #[serde(default)]
    token: Option<Secret>,
    #[serde(default)]
    agent_key: Option<Secret>,
    #[serde(default)]
    admin_username: Option<String>,
    #[serde(default)]
    admin_password: Option<Secret>,
    #[serde(default)]
    owner: Option<String>,
    #[serde(default)]
    ca_file: Option<std::path::PathBuf>,
}

impl Settings {
    fn into_options(self) -> Result<RegistryOptions, ErrorInfo> {
        let mut options = RegistryOptions::new(self.base_url);
        let seconds = |name: &str, value: Option<f64>, least: f64, default: Duration| match value {
            None => Ok(default),
            Some(value) => Duration::try_from_secs_f64(value)
                .ok()
                .filter(|_| value >= least)
                .ok_or_else(|| ErrorInfo::argument(format!("{name} must be {least} or more seconds, got {value}"))),
        };
        options.timeout = seconds("timeout", self.timeout, 0.001, options.timeout)?;
        options.retry_delay = seconds("retry_delay", self.retry_delay, 0.0, options.retry_delay)?;
        options.max_retry_delay = seconds("max_retry_delay", self.max_retry_delay, 0.0, options.max_retry_delay)?;
        options.retry_attempts = self.retry_attempts.unwrap_or(options.retry_attempts);
        options.user_agent = self.user_agent.unwrap_or(options.user_agent);
        options.fingerprint = self.fingerprint;
        let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        options.owner = self.owner.or_else(|| variable("ARCP_OWNER"));
        let admin = self.admin_username.zip(self.admin_password);
        options.credentials = Credentials { token: self.token, agent_key: self.agent_key, admin }.or_from_env();
        options.ca = self
            .ca_file
            .map(|path| {
                let unread = |error| ErrorInfo::argument(format!("ca_file {}: {error}", path.display()));
                std::fs::read(&path).map_err(unread)
            })
            .transpose()?;
        Ok(options)
    }
}

impl Registry {
    /// A client that has done nothing yet. `options` is JSON: `base_url`, and, all optional, `timeout` (30),
    /// `retry_attempts` (3), `retry_delay` (1), `max_retry_delay` (60), `user_agent`, `fingerprint`, `token`, `agent_key`,
    /// `admin_username` with `admin_password`, `owner`, `ca_file`. Credentials that are absent come from the environment
    /// (D-9).
    ///
    /// # Errors
    /// Names the option that is wrong.
    pub fn new(core: &Core, options: &str) -> Result<Self, ErrorInfo> {
        core.handle()?;
        let options = read::<Settings>("registry", options)?.into_options()?;
        Ok(Registry { core: core.clone(), client: RegistryClient::new(options) })
    }

    /// As [`Registry::perform`], but it leaves with the next [`Port::flush`], together with others; whether it is the first
    /// thing that waits for one. For hosts that see by themselves that their process was not forked.
    ///
    /// # Errors
    /// As [`Registry::perform`].
    pub fn perform_soon(
        &self,
        port: &Port,
        call: u64,
        operation: &str,
        arguments: &str,
        host: Option<&Port>,
    ) -> Result<bool, ErrorInfo> {
        let request = self.request(operation, arguments, host)?;
        let handle = self.core.handle()?;
        Ok(port.defer(Deferred::Request { call, handle, request }))
    }

    fn request(&self, operation: &str, arguments: &str, host: Option<&Port>) -> Result<Request, ErrorInfo> {
        let operation = Operation::parse(operation, arguments)?;
        let client = match host {
            Some(host) => self.client.over(Arc::new(HostTransport::new(host.clone()))),
            None => self.client.clone(),
        };
        Ok(Box::pin(async move { Ok(Value::Json(client.perform(operation).await?)) }))
    }

    /// Does one operation; completes with its body as JSON text. `operation` names a method of the contract, `arguments` is
    /// JSON of its arguments. With `host`, each HTTP request is asked of that port (`http_request`).
    ///
    /// # Errors
    /// At once when the core is gone; else through the port, arguments that cannot be read too.
    pub fn perform(
        &self,
        port: &Port,
        call: u64,
        operation: &str,
        arguments: &str,
        host: Option<&Port>,
    ) -> Result<(), ErrorInfo> {
        let handle = self.core.handle()?;
        port.spawn(&handle, call, self.request(operation, arguments, host)?);
        Ok(())
    }

    /// The header `X-Client-Fingerprint`.
    pub fn fingerprint(&self) -> &str {
        self.client.fingerprint()
    }

    /// The token held, a secret, and the seconds it still lives if that is known.
    pub fn token(&self) -> Option<(String, Option<f64>)> {
        let (token, left) = self.client.token()?;
        Some((token.expose().to_owned(), left.map(|left| left.as_secs_f64())))
    }

    /// Holds another token, or none.
    ///
    /// # Errors
    /// When the seconds are none.
    pub fn set_token(&self, token: Option<String>, expires_in: Option<f64>) -> Result<(), ErrorInfo> {
        let wrong = |_| ErrorInfo::argument("expires_in must be 0 or more seconds");
        let life = expires_in.map(Duration::try_from_secs_f64).transpose().map_err(wrong)?;
        self.client.set_token(token.map(Secret::from), life);
        Ok(())
    }

    /// Opens the socket `public`, `agent` or `dashboard` in the background. `options` is JSON, all optional: `token`,
    /// `reconnect` (true), `reconnect_attempts` (30), `page_size` (50), `queue` (1024), `silence` (30).
    ///
    /// # Errors
    /// Names the option that is wrong; what fails later is told by [`RegistrySocket::next_batch`].
    pub fn open_socket(&self, kind: &str, options: &str) -> Result<RegistrySocket, ErrorInfo> {
        let handle = self.core.handle()?;
        let kind = match kind {
            "public" => SocketKind::Public,
            "agent" => SocketKind::Agent,
            "dashboard" => SocketKind::Dashboard,
            other => {
                return Err(ErrorInfo::argument(format!("there is no socket {other:?}; public, agent or dashboard")));
            }
        };
        let options: SocketOptions = read("socket", options)?;
        let _guard = handle.enter();
        Ok(RegistrySocket { socket: self.client.open_socket(kind, options)? })
    }

    /// Closes idle connections; the next call opens new ones.
    pub fn close(&self) {
        self.client.close();
    }
}

/// A live socket, read in batches. Dropping it closes it.
pub struct RegistrySocket {
    socket: Socket,
}

impl RegistrySocket {
    /// Appends up to `max` messages, each JSON text. When there is nothing yet, the port gets one
    /// [`crate::Item::Ready`] with this number. One reader at a time.
    ///
    /// # Errors
    /// Once, when the socket cannot go on.
    pub fn next_batch(
        &self,
        port: &Port,
        stream: u64,
        max: usize,
        batch: &mut Vec<String>,
    ) -> Result<NextBatch, ErrorInfo> {
        let waker = Waker::from(Arc::new(Announce { port: port.clone(), stream }));
        let mut cx = Context::from_waker(&waker);
        match self.socket.poll_batch(&mut cx, max, batch) {
            Poll::Ready(Some(found)) => Ok(found.map(|()| NextBatch::Some)?),
            Poll::Ready(None) => Ok(NextBatch::Ended),
            Poll::Pending => Ok(NextBatch::Empty),
        }
    }

    /// Sends a text frame, once connected.
    ///
    /// # Errors
    /// When many wait already, or it is closed.
    pub fn send(&self, text: String) -> Result<(), ErrorInfo> {
        Ok(self.socket.send(text)?)
    }

    /// Closes it at once. Idempotent.
    pub fn close(&self) {
        self.socket.close();
    }
}

/// Checks JSON text against a model of the contract (REG-070 to REG-077): JSON text of `{"value"}`, or of `{"errors"}`, a
/// list of `{loc, type, msg, input}`.
///
/// # Errors
/// When the text is not JSON.
pub fn registry_check(kind: &str, value: &str) -> Result<String, ErrorInfo> {
    let value = read::<serde_json::Value>(kind, value)?;
    let answer = match arcp::registry::check_model(kind, &value) {
        Ok(value) => serde_json::json!({ "value": value }),
        Err(errors) => serde_json::json!({ "errors": errors }),
    };
    Ok(answer.to_string())
}

impl From<RegistryError> for ErrorInfo {
    fn from(error: RegistryError) -> Self {
        ErrorInfo {
            kind: ErrorKind::Registry,
            code: error.code.clone(),
            message: error.to_string(),
            retryable: error.is_retryable(),
            details: Some(error.details().to_string()),
        }
    }
}
