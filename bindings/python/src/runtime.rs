//! A runtime whose agents run in Python.

use std::time::Duration;

use arcp_bridge::{ErrorInfo, ErrorKind, RuntimeOptions, VerifierChoice};
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
    /// Options are JSON text. `tokens` are (token, principal) pairs; without them `port` is asked about each token.
    #[new]
    #[pyo3(signature = (options, port, tokens = None))]
    fn new(py: Python<'_>, options: &str, port: &Port, tokens: Option<Vec<(String, String)>>) -> PyResult<Self> {
        let options = RuntimeOptions::from_json(options).or_raise(py)?;
        let verifier = match tokens {
            Some(tokens) => VerifierChoice::Static(tokens),
            None => VerifierChoice::Host(port.bridge(py)?.clone()),
        };
        Ok(Runtime(Local::new(arcp_bridge::Runtime::new(&core(py)?, options, verifier).or_raise(py)?)))
    }

    /// The agent's invocations arrive at `port`.
    #[pyo3(signature = (port, name, version = None))]
    fn register_agent(&self, py: Python<'_>, port: &Port, name: &str, version: Option<&str>) -> PyResult<()> {
        self.0.get(py)?.register_agent(port.bridge(py)?, name, version, false).or_raise(py)
    }

    fn set_default_agent_version(&self, py: Python<'_>, name: &str, version: &str) -> PyResult<()> {
        self.0.get(py)?.set_default_agent_version(name, version).or_raise(py)
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

    fn accept(&self, py: Python<'_>, principal: String) -> PyResult<()> {
        self.0.get(py)?.lock().answer(Ok(principal));
        Ok(())
    }

    fn refuse(&self, py: Python<'_>, code: String, message: String, retryable: bool) -> PyResult<()> {
        let info = ErrorInfo { kind: ErrorKind::Protocol, code, message, retryable, details: None };
        self.0.get(py)?.lock().answer(Err(info));
        Ok(())
    }
}
