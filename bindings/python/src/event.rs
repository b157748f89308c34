//! An event as a client's `async for` sees it.

use pyo3::exceptions::{PyKeyError, PyRecursionError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyIterator, PyMapping, PyString, PyType};
use pyo3::{IntoPyObjectExt as _, intern};

use crate::json;

const KEYS: [&str; 3] = ["kind", "body", "ts"];

/// One event of a job: `kind`, `ts` and `body`, as attributes and as a read-only mapping. The body is parsed when it is
/// first asked for. `dict(event)` gives a plain dict.
///
/// A body that is an object is a dict of the class that `arcp.events` has for its kind.
#[pyclass(frozen, mapping, module = "arcp.events")]
pub(crate) struct JobEvent {
    event: arcp_bridge::JobEvent,
    body: PyOnceLock<Py<PyAny>>,
}

/// The class of each kind's body.
fn bodies(py: Python<'_>) -> PyResult<&Bound<'_, PyDict>> {
    static BODIES: PyOnceLock<Py<PyDict>> = PyOnceLock::new();
    BODIES.import(py, "arcp.events", "BODIES")
}

impl JobEvent {
    pub(crate) fn new(event: arcp_bridge::JobEvent) -> Self {
        JobEvent { event, body: PyOnceLock::new() }
    }

    pub(crate) fn bridge(&self) -> &arcp_bridge::JobEvent {
        &self.event
    }

    /// The body as it came. What Python cannot hold, such as a number of thousands of digits, stays text.
    fn value<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyAny>> {
        let read = || {
            let text = self.event.body();
            let value = match json::decode(py, text) {
                Ok(value) => value,
                Err(error) if error.is_instance_of::<PyValueError>(py) => PyString::new(py, text).into_any(),
                Err(error) if error.is_instance_of::<PyRecursionError>(py) => PyString::new(py, text).into_any(),
                Err(error) => return Err(error),
            };
            let Ok(plain) = value.cast::<PyDict>() else { return Ok(value.unbind()) };
            Ok(self.class(py)?.call1((plain,))?.unbind())
        };
        Ok(self.body.get_or_try_init(py, read)?.bind(py))
    }

    /// What a body of this kind is, if it is an object.
    fn class<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        static OTHER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        match bodies(py)?.get_item(self.kind(py))? {
            Some(class) => Ok(class),
            None => Ok(OTHER.import(py, "arcp.events", "VendorBody")?.clone()),
        }
    }

    fn member<'py>(&self, py: Python<'py>, key: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
        Ok(Some(match key {
            "kind" => self.kind(py).into_any(),
            "body" => self.value(py)?.clone(),
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
    /// One made by hand, for tests and for a copy from elsewhere.
    #[new]
    #[pyo3(signature = (kind, body, ts, event_seq = 0))]
    fn make(kind: String, body: &Bound<'_, PyAny>, ts: String, event_seq: u64) -> PyResult<Self> {
        let body = json::encode(body, "body")?;
        Ok(JobEvent::new(arcp_bridge::JobEvent {
            event_seq,
            position: event_seq,
            kind: kind.into(),
            ts: ts.into(),
            body: body.into(),
        }))
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyType>, Bound<'py, PyAny>)> {
        let (py, event) = (slf.py(), slf.get());
        let arguments = (event.kind(py), event.value(py)?, event.ts(py), event.event_seq());
        Ok((slf.get_type(), arguments.into_bound_py_any(py)?))
    }
    /// `log`, `progress`, ... or a vendor's kind.
    #[getter]
    fn kind<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        match self.event.kind() {
            "log" => intern!(py, "log").clone(),
            "progress" => intern!(py, "progress").clone(),
            "metric" => intern!(py, "metric").clone(),
            "status" => intern!(py, "status").clone(),
            "thought" => intern!(py, "thought").clone(),
            "tool_call" => intern!(py, "tool_call").clone(),
            "tool_result" => intern!(py, "tool_result").clone(),
            other => PyString::new(py, other),
        }
    }

    /// When the agent made it, RFC 3339 in UTC.
    #[getter]
    fn ts<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        PyString::new(py, self.event.ts())
    }

    /// What the kind carries. The same object every time; of a known kind always a dict with attributes, an empty one
    /// where a peer sent no object, so that looking into it never fails.
    #[getter]
    fn body<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let value = self.value(py)?;
        if value.is_instance_of::<PyDict>() {
            return Ok(value.clone());
        }
        match bodies(py)?.get_item(self.kind(py))? {
            Some(class) => class.call0(),
            None => Ok(value.clone()),
        }
    }

    /// The event as one JSON object, without a look into its body.
    fn to_json(&self, py: Python<'_>) -> PyResult<String> {
        let (kind, ts) = (json::encode(self.kind(py).as_any(), "kind")?, json::encode(self.ts(py).as_any(), "ts")?);
        Ok(format!("{{\"kind\":{kind},\"body\":{},\"ts\":{ts}}}", self.event.body()))
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

    /// As of a dict.
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

    /// As of a dict.
    fn keys<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.dict(py)?.call_method0("keys")
    }

    /// As of a dict.
    fn values<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.dict(py)?.call_method0("values")
    }

    /// As of a dict.
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
