//! An event as a client's `async for` sees it.

use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyIterator, PyMapping, PyString};
use pyo3::{IntoPyObjectExt as _, intern};

use crate::json;

const KEYS: [&str; 3] = ["kind", "body", "ts"];

/// One event of a job: `kind`, `ts` and `body`, as attributes and as a read-only mapping. The body is parsed when it is
/// first asked for. `dict(event)` gives a plain dict.
#[pyclass(frozen, mapping, module = "arcp.client")]
pub(crate) struct JobEvent {
    event: arcp_bridge::JobEvent,
    body: PyOnceLock<Py<PyAny>>,
}

impl JobEvent {
    pub(crate) fn new(event: arcp_bridge::JobEvent) -> Self {
        JobEvent { event, body: PyOnceLock::new() }
    }

    pub(crate) fn bridge(&self) -> &arcp_bridge::JobEvent {
        &self.event
    }

    fn member<'py>(&self, py: Python<'py>, key: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
        Ok(Some(match key {
            "kind" => self.kind(py).into_any(),
            "body" => self.body(py)?.clone(),
            "ts" => self.ts(py).into_any(),
            _ => return Ok(None),
        }))
    }

    fn dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        for key in KEYS {
            dict.set_item(key, self.member(py, key)?)?;
        }
        Ok(dict)
    }
}

#[pymethods]
impl JobEvent {
    /// `log`, `progress`, ... or a vendor's kind.
    #[getter]
    fn kind<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        match self.event.kind() {
            "log" => intern!(py, "log").clone(),
            "progress" => intern!(py, "progress").clone(),
            "metric" => intern!(py, "metric").clone(),
            "status" => intern!(py, "status").clone(),
            "thought" => intern!(py, "thought").clone(),
            other => PyString::new(py, other),
        }
    }

    /// When the agent made it, RFC 3339 in UTC.
    #[getter]
    fn ts<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        PyString::new(py, self.event.ts())
    }

    /// What the kind carries, usually a dict. The same object every time.
    #[getter]
    fn body<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyAny>> {
        let body = self.body.get_or_try_init(py, || json::decode(py, self.event.body()).map(Bound::unbind))?;
        Ok(body.bind(py))
    }

    /// Its number in the session; not part of the mapping.
    #[getter]
    fn event_seq(&self) -> u64 {
        self.event.event_seq
    }

    fn __getitem__<'py>(&self, py: Python<'py>, key: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let name = key.cast::<PyString>().ok().and_then(|name| name.to_str().ok());
        let member = name.map_or(Ok(None), |name| self.member(py, name))?;
        member.ok_or_else(|| PyKeyError::new_err(key.unbind()))
    }

    #[pyo3(signature = (key, default = None))]
    fn get<'py>(
        &self,
        py: Python<'py>,
        key: &str,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        Ok(self.member(py, key)?.or(default))
    }

    fn __contains__(&self, key: &Bound<'_, PyAny>) -> bool {
        key.cast::<PyString>().is_ok_and(|key| key.to_str().is_ok_and(|key| KEYS.contains(&key)))
    }

    fn __len__(&self) -> usize {
        KEYS.len()
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        KEYS.into_bound_py_any(py)?.try_iter()
    }

    fn keys<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.dict(py)?.call_method0("keys")
    }

    fn values<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.dict(py)?.call_method0("values")
    }

    fn items<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.dict(py)?.call_method0("items")
    }

    fn __eq__<'py>(&self, py: Python<'py>, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let Ok(other) = other.cast::<PyMapping>() else {
            return Ok(py.NotImplemented().into_bound(py));
        };
        let theirs = PyDict::new(py);
        theirs.update(other)?;
        self.dict(py)?.eq(theirs)?.into_bound_py_any(py)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.dict(py)?.repr()?.to_string())
    }
}
