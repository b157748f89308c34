//! Errors of the core as Python exceptions.

use arcp_bridge::{ErrorInfo, ErrorKind};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// Turns a failure of the core into the exception `arcp.errors` has for it.
pub(crate) trait OrRaise<T> {
    fn or_raise(self, py: Python<'_>) -> PyResult<T>;
}

impl<T> OrRaise<T> for Result<T, ErrorInfo> {
    fn or_raise(self, py: Python<'_>) -> PyResult<T> {
        self.map_err(|info| exception(py, info).map_or_else(|error| error, PyErr::from_value))
    }
}

/// The exception itself.
pub(crate) fn exception(py: Python<'_>, info: ErrorInfo) -> PyResult<Bound<'_, PyAny>> {
    static FROM_CORE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let ErrorInfo { kind, code, message, retryable, details } = info;
    FROM_CORE.import(py, "arcp.errors", "_from_core")?.call1((name(kind), code, message, retryable, details))
}

fn name(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Protocol => "protocol",
        ErrorKind::Closed => "closed",
        ErrorKind::Timeout => "timeout",
        ErrorKind::Transport => "transport",
        ErrorKind::Argument => "argument",
        ErrorKind::Forked => "forked",
        ErrorKind::Registry => "registry",
    }
}
