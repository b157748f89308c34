//! Transports and listeners.

use std::sync::Arc;

use arcp_bridge::{ConnectOptions, ListenOptions};
use pyo3::prelude::*;

use crate::core::{Local, core};
use crate::error::OrRaise as _;
use crate::port::Port;

/// A transport nobody uses yet.
#[pyclass(frozen, module = "arcp._native")]
pub(crate) struct TransportHandle(Local<Arc<arcp_bridge::TransportHandle>>);

impl TransportHandle {
    pub(crate) fn new(transport: Arc<arcp_bridge::TransportHandle>) -> Self {
        TransportHandle(Local::new(transport))
    }

    pub(crate) fn bridge(&self, py: Python<'_>) -> PyResult<&arcp_bridge::TransportHandle> {
        self.0.get(py).map(AsRef::as_ref)
    }
}

#[pymethods]
impl TransportHandle {
    /// Options are JSON text.
    #[staticmethod]
    fn connect_websocket(py: Python<'_>, port: &Port, call: u64, url: String, options: &str) -> PyResult<()> {
        let options = ConnectOptions::from_json(options).or_raise(py)?;
        arcp_bridge::TransportHandle::connect_websocket(&core(py)?, port.bridge(py)?, call, url, options).or_raise(py)
    }

    #[staticmethod]
    fn memory_pair() -> (Self, Self) {
        let (left, right) = arcp_bridge::TransportHandle::memory_pair();
        (TransportHandle::new(Arc::new(left)), TransportHandle::new(Arc::new(right)))
    }

    #[staticmethod]
    fn std_streams(py: Python<'_>, max_line_bytes: usize) -> PyResult<Self> {
        let transport = arcp_bridge::TransportHandle::std_streams(&core(py)?, max_line_bytes).or_raise(py)?;
        Ok(TransportHandle::new(Arc::new(transport)))
    }

    /// A transport whose messages the caller carries itself; `private` where secrets may travel over it.
    #[staticmethod]
    fn foreign(private: bool) -> (Self, Frames) {
        let (transport, frames) = arcp_bridge::TransportHandle::foreign(private);
        (TransportHandle::new(Arc::new(transport)), Frames(Local::new(frames)))
    }

    #[getter]
    fn is_used(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.bridge(py)?.is_used())
    }

    /// Whether secrets may travel over it.
    #[getter]
    fn is_private(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.bridge(py)?.is_private())
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.bridge(py)?.close();
        Ok(())
    }

    /// Uses the transport up: from now on the caller sends and receives by itself.
    fn take_frames(&self, py: Python<'_>) -> PyResult<Frames> {
        Ok(Frames(Local::new(self.bridge(py)?.into_frames(&core(py)?).or_raise(py)?)))
    }
}

/// Messages as JSON text, in the caller's hands.
#[pyclass(frozen, module = "arcp._native")]
pub(crate) struct Frames(Local<arcp_bridge::Frames>);

#[pymethods]
impl Frames {
    /// `False` when there is no room; then use `send`.
    fn try_send(&self, py: Python<'_>, frame: &str) -> PyResult<bool> {
        self.0.get(py)?.try_send(frame).or_raise(py)
    }

    fn send(&self, py: Python<'_>, port: &Port, call: u64, frame: String) -> PyResult<()> {
        self.0.get(py)?.send(&core(py)?, port.bridge(py)?, call, frame).or_raise(py)
    }

    /// Completes with a list of messages, empty at the end.
    fn recv(&self, py: Python<'_>, port: &Port, call: u64, max: usize) -> PyResult<()> {
        self.0.get(py)?.recv(&core(py)?, port.bridge(py)?, call, max).or_raise(py)
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.0.get(py)?.close();
        Ok(())
    }
}

/// A bound listener.
#[pyclass(frozen, module = "arcp._native")]
pub(crate) struct Listener(Local<Arc<arcp_bridge::ListenerHandle>>);

impl Listener {
    pub(crate) fn new(listener: Arc<arcp_bridge::ListenerHandle>) -> Self {
        Listener(Local::new(listener))
    }

    pub(crate) fn bridge(&self, py: Python<'_>) -> PyResult<&arcp_bridge::ListenerHandle> {
        self.0.get(py).map(AsRef::as_ref)
    }
}

#[pymethods]
impl Listener {
    /// Options are JSON text.
    #[staticmethod]
    fn bind(py: Python<'_>, port: &Port, call: u64, options: &str) -> PyResult<()> {
        let options = ListenOptions::from_json(options).or_raise(py)?;
        arcp_bridge::ListenerHandle::bind(&core(py)?, port.bridge(py)?, call, options).or_raise(py)
    }

    /// Host and port.
    #[getter]
    fn address(&self, py: Python<'_>) -> PyResult<(String, u16)> {
        let address = self.bridge(py)?.address();
        Ok((address.ip().to_string(), address.port()))
    }

    #[getter]
    fn url(&self, py: Python<'_>) -> PyResult<&str> {
        Ok(self.bridge(py)?.url())
    }

    fn accept(&self, py: Python<'_>, port: &Port, call: u64) -> PyResult<()> {
        self.bridge(py)?.accept(&core(py)?, port.bridge(py)?, call).or_raise(py)
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.bridge(py)?.close();
        Ok(())
    }
}
