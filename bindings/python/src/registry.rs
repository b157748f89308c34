//! The registry's client and its sockets.

use arcp_bridge::NextBatch;
use pyo3::prelude::*;

use crate::core::{Local, core};
use crate::error::OrRaise as _;
use crate::port::Port;

/// A client of one registry.
#[pyclass(frozen, module = "arcp._native")]
pub(crate) struct RegistryHttp(Local<arcp_bridge::Registry>);

#[pymethods]
impl RegistryHttp {
    /// Options are JSON text.
    #[new]
    fn new(py: Python<'_>, options: &str) -> PyResult<Self> {
        Ok(RegistryHttp(Local::new(arcp_bridge::Registry::new(&core(py)?, options).or_raise(py)?)))
    }

    #[getter]
    fn fingerprint(&self, py: Python<'_>) -> PyResult<&str> {
        Ok(self.0.get(py)?.fingerprint())
    }

    /// Completes with JSON text; `arguments` are JSON text. With `host`, each HTTP request is asked of that port.
    fn call(
        &self,
        py: Python<'_>,
        port: &Port,
        call: u64,
        operation: &str,
        arguments: &str,
        host: Option<&Bound<'_, Port>>,
    ) -> PyResult<bool> {
        let host = host.map(|host| host.get().bridge(py)).transpose()?;
        self.0.get(py)?.perform_soon(port.bridge(py)?, call, operation, arguments, host).or_raise(py)
    }

    /// The token held and the seconds it has left.
    fn token(&self, py: Python<'_>) -> PyResult<Option<(String, Option<f64>)>> {
        Ok(self.0.get(py)?.token())
    }

    fn set_token(&self, py: Python<'_>, token: Option<String>, expires_in: Option<f64>) -> PyResult<()> {
        self.0.get(py)?.set_token(token, expires_in).or_raise(py)
    }

    /// `options` is JSON text.
    fn open_socket(&self, py: Python<'_>, kind: &str, options: &str) -> PyResult<RegistrySocket> {
        Ok(RegistrySocket(Local::new(self.0.get(py)?.open_socket(kind, options).or_raise(py)?)))
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.0.get(py)?.close();
        Ok(())
    }
}

/// A live socket.
#[pyclass(frozen, module = "arcp._native")]
pub(crate) struct RegistrySocket(Local<arcp_bridge::RegistrySocket>);

#[pymethods]
impl RegistrySocket {
    /// Up to `max` messages; nothing, when there are none yet and the port will say `ready`; `None` at the end.
    fn next_batch(&self, py: Python<'_>, port: &Port, stream: u64, max: usize) -> PyResult<Option<Vec<String>>> {
        let mut batch = Vec::new();
        let found = self.0.get(py)?.next_batch(port.bridge(py)?, stream, max, &mut batch).or_raise(py)?;
        Ok((found != NextBatch::Ended).then_some(batch))
    }

    fn send(&self, py: Python<'_>, text: String) -> PyResult<()> {
        self.0.get(py)?.send(text).or_raise(py)
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.0.get(py)?.close();
        Ok(())
    }
}

/// A registry in this process.
#[pyclass(frozen, module = "arcp._native")]
pub(crate) struct RegistryServer(Local<arcp_bridge::RegistryServer>);

#[pymethods]
impl RegistryServer {
    /// Settings are JSON text.
    #[new]
    fn new(py: Python<'_>, settings: &str) -> PyResult<Self> {
        Ok(RegistryServer(Local::new(arcp_bridge::RegistryServer::new(&core(py)?, settings).or_raise(py)?)))
    }

    /// Completes with JSON text.
    fn start(&self, py: Python<'_>, port: &Port, call: u64) -> PyResult<()> {
        self.0.get(py)?.start(port.bridge(py)?, call).or_raise(py)
    }

    fn stop(&self, py: Python<'_>, port: &Port, call: u64) -> PyResult<()> {
        self.0.get(py)?.stop(port.bridge(py)?, call).or_raise(py)
    }
}

/// A value against a model of the contract: JSON text in, JSON text out.
#[pyfunction]
pub(crate) fn registry_check(py: Python<'_>, kind: &str, value: &str) -> PyResult<String> {
    arcp_bridge::registry_check(kind, value).or_raise(py)
}
