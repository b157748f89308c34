//! A runtime whose agents run in Python.

use std::time::Duration;

use arcp_bridge::{ErrorInfo, ErrorKind, Identity, RuntimeOptions, VerifierChoice};
use parking_lot::Mutex;
use pyo3::prelude::*;

use crate::core::{Local, core};
use crate::error::OrRaise as _;
use crate::port::Port;
use crate::transport::{Listener, TransportHandle};

/// Hosts agents and serves sessions.
#[pyclass(frozen, module = "arcp._native")]
pub(crate) struct Runtime(Local<arcp_bridge::Runtime>);

#[pymethods]
impl Runtime {
    /// Options are JSON text. `tokens` are (token, principal) pairs and `jwt` is JSON text; without both `port` is asked
    /// about each token.
    #[new]
    fn new(
        py: Python<'_>,
        options: &str,
        port: &Port,
        tokens: Option<Vec<(String, String)>>,
        jwt: Option<String>,
    ) -> PyResult<Self> {
        let options = RuntimeOptions::from_json(options).or_raise(py)?;
        let verifier = match (tokens, jwt) {
            (Some(tokens), _) => VerifierChoice::Static(tokens),
            (None, Some(jwt)) => VerifierChoice::Jwt(jwt),
            (None, None) => VerifierChoice::Host(port.bridge(py)?.clone()),
        };
        let core = core(py)?;
        // Opening a database reads a file.
        let made = py.detach(|| arcp_bridge::Runtime::new(&core, options, verifier));
        Ok(Runtime(Local::new(made.or_raise(py)?)))
    }

    /// The agent's invocations arrive at `port`.
    fn register_agent(
        &self,
        py: Python<'_>,
        port: &Port,
        name: &str,
        version: Option<&str>,
        restartable: bool,
    ) -> PyResult<()> {
        self.0.get(py)?.register_agent(port.bridge(py)?, name, version, restartable).or_raise(py)
    }

    fn set_default_agent_version(&self, py: Python<'_>, name: &str, version: &str) -> PyResult<()> {
        self.0.get(py)?.set_default_agent_version(name, version).or_raise(py)
    }

    /// From now on `port` is asked who may list and follow which job.
    fn set_policy(&self, py: Python<'_>, port: &Port) -> PyResult<()> {
        self.0.get(py)?.set_policy(port.bridge(py)?).or_raise(py)
    }

    fn policy_changed(&self, py: Python<'_>) -> PyResult<()> {
        self.0.get(py)?.policy_changed().or_raise(py)
    }

    /// `port` issues and revokes credentials, and with `revocation_log` writes down what it issued.
    fn set_provisioner(&self, py: Python<'_>, port: &Port, revocation_log: bool) -> PyResult<()> {
        self.0.get(py)?.set_provisioner(port.bridge(py)?, revocation_log).or_raise(py)
    }

    /// `port` is told of every numbered message.
    fn set_event_log(&self, py: Python<'_>, port: &Port) -> PyResult<()> {
        self.0.get(py)?.set_event_log(port.bridge(py)?).or_raise(py)
    }

    fn flush_event_log(&self, py: Python<'_>, port: &Port, call: u64, patience_sec: f64) -> PyResult<()> {
        let patience = Duration::try_from_secs_f64(patience_sec).unwrap_or_default();
        self.0.get(py)?.flush_event_log(port.bridge(py)?, call, patience).or_raise(py)
    }

    fn set_audit(&self, py: Python<'_>, path: &str) -> PyResult<()> {
        let runtime = self.0.get(py)?;
        py.detach(|| runtime.set_audit(path)).or_raise(py)
    }

    /// Completes with the URL of the metrics.
    fn serve_metrics(&self, py: Python<'_>, port: &Port, call: u64, address: String) -> PyResult<()> {
        self.0.get(py)?.serve_metrics(port.bridge(py)?, call, address).or_raise(py)
    }

    fn agent_inventory(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.0.get(py)?.agent_inventory())
    }

    fn accept(&self, py: Python<'_>, port: &Port, call: u64, transport: &TransportHandle) -> PyResult<()> {
        self.0.get(py)?.accept(port.bridge(py)?, call, transport.bridge(py)?).or_raise(py)
    }

    fn serve(&self, py: Python<'_>, port: &Port, call: u64, listener: &Listener) -> PyResult<()> {
        self.0.get(py)?.serve(port.bridge(py)?, call, listener.bridge(py)?).or_raise(py)
    }

    fn shutdown(&self, py: Python<'_>, port: &Port, call: u64, reason: String, grace_sec: f64) -> PyResult<()> {
        let grace = Duration::try_from_secs_f64(grace_sec)
            .map_err(|_| ErrorInfo::argument(format!("grace_sec must be seconds from 0 on, got {grace_sec}")))
            .or_raise(py)?;
        self.0.get(py)?.shutdown(port.bridge(py)?, call, reason, grace).or_raise(py)
    }
}

/// A token to be verified.
#[pyclass(frozen, module = "arcp._native")]
pub(crate) struct VerifyRequest(Local<Mutex<arcp_bridge::VerifyRequest>>);

impl VerifyRequest {
    pub(crate) fn new(request: arcp_bridge::VerifyRequest) -> Self {
        VerifyRequest(Local::new(Mutex::new(request)))
    }
}

#[pymethods]
impl VerifyRequest {
    /// The secret.
    #[getter]
    fn token(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.0.get(py)?.lock().token().to_owned())
    }

    fn accept(&self, py: Python<'_>, principal: String, scopes: Vec<String>) -> PyResult<()> {
        self.0.get(py)?.lock().answer(Ok(Identity { principal, scopes }));
        Ok(())
    }

    fn refuse(&self, py: Python<'_>, code: String, message: String, retryable: bool) -> PyResult<()> {
        let info = ErrorInfo { kind: ErrorKind::Protocol, code, message, retryable, details: None };
        self.0.get(py)?.lock().answer(Err::<Identity, _>(info));
        Ok(())
    }
}

/// A question to something plugged into a runtime.
#[pyclass(frozen, module = "arcp._native")]
pub(crate) struct HostRequest(Local<Mutex<arcp_bridge::HostRequest>>);

impl HostRequest {
    pub(crate) fn new(request: arcp_bridge::HostRequest) -> Self {
        HostRequest(Local::new(Mutex::new(request)))
    }
}

#[pymethods]
impl HostRequest {
    /// `policy`, `issue`, `revoke`, `record`, `forget`, `outstanding` or `event_log`.
    #[getter]
    fn about(&self, py: Python<'_>) -> PyResult<&'static str> {
        Ok(self.0.get(py)?.lock().about().as_str())
    }

    /// JSON text.
    #[getter]
    fn arguments(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.0.get(py)?.lock().arguments().to_owned())
    }

    /// Answers with JSON text.
    fn answer(&self, py: Python<'_>, answer: String) -> PyResult<()> {
        self.0.get(py)?.lock().answer(Ok(answer));
        Ok(())
    }

    fn fail(&self, py: Python<'_>, message: String) -> PyResult<()> {
        let info = ErrorInfo::local(ErrorKind::Argument, message);
        self.0.get(py)?.lock().answer(Err(ErrorInfo { retryable: true, ..info }));
        Ok(())
    }
}

/// Verifies signed tokens outside any runtime.
#[pyclass(frozen, module = "arcp._native")]
pub(crate) struct TokenVerifier(Local<arcp_bridge::TokenVerifier>);

#[pymethods]
impl TokenVerifier {
    /// Options are JSON text.
    #[new]
    fn new(py: Python<'_>, options: &str) -> PyResult<Self> {
        Ok(TokenVerifier(Local::new(arcp_bridge::TokenVerifier::new(&core(py)?, options).or_raise(py)?)))
    }

    /// Completes with JSON text: `principal` and `scopes`.
    fn verify(&self, py: Python<'_>, port: &Port, call: u64, token: String) -> PyResult<()> {
        self.0.get(py)?.verify(port.bridge(py)?, call, token).or_raise(py)
    }
}
