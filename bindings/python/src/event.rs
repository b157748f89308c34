//! An event as a client's `async for` sees it.

use pyo3::exceptions::{PyRecursionError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList, PyString};

use crate::json;

/// What an event holds until somebody looks into it: its body as text.
///
/// A body that is an object is a dict of the class that `arcp.events` has for its kind.
#[pyclass(frozen, module = "arcp._native")]
pub(crate) struct EventData {
    event: arcp_bridge::JobEvent,
    value: PyOnceLock<Py<PyAny>>,
}

/// The class of each kind's body.
fn bodies(py: Python<'_>) -> PyResult<&Bound<'_, PyDict>> {
    static BODIES: PyOnceLock<Py<PyDict>> = PyOnceLock::new();
    BODIES.import(py, "arcp.events", "BODIES")
}

/// The events as objects of `arcp.events.JobEvent`: dicts whose body is read when it is first asked for.
pub(crate) fn events(py: Python<'_>, events: Vec<arcp_bridge::JobEvent>) -> PyResult<Bound<'_, PyList>> {
    static CLASS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static NEW: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let class = CLASS.import(py, "arcp.events", "JobEvent")?;
    // Past `__init__`, which is for events that are made by hand.
    let new = NEW.get_or_try_init(py, || class.getattr("__new__").map(Bound::unbind))?.bind(py);
    let (kind, body, ts) = (intern!(py, "kind"), intern!(py, "body"), intern!(py, "ts"));
    let made = events.into_iter().map(|event| {
        let data = Bound::new(py, EventData::new(event))?;
        let made = new.call1((class,))?;
        let members = made.cast::<PyDict>()?;
        members.set_item(kind, data.get().kind(py))?;
        members.set_item(body, &data)?;
        members.set_item(ts, data.get().ts(py))?;
        made.setattr(intern!(py, "_data"), data)?;
        Ok(made)
    });
    PyList::new(py, made.collect::<PyResult<Vec<_>>>()?)
}

impl EventData {
    pub(crate) fn new(event: arcp_bridge::JobEvent) -> Self {
        EventData { event, value: PyOnceLock::new() }
    }

    pub(crate) fn bridge(&self) -> &arcp_bridge::JobEvent {
        &self.event
    }

    /// What a body of this kind is, if it is an object.
    fn class<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        static OTHER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        match bodies(py)?.get_item(self.kind(py))? {
            Some(class) => Ok(class),
            None => Ok(OTHER.import(py, "arcp.events", "VendorBody")?.clone()),
        }
    }
}

#[pymethods]
impl EventData {
    #[new]
    fn make(kind: String, body: &Bound<'_, PyAny>, ts: String, event_seq: u64) -> PyResult<Self> {
        let body = json::encode(body, "body")?;
        Ok(EventData::new(arcp_bridge::JobEvent {
            event_seq,
            position: event_seq,
            kind: kind.into(),
            ts: ts.into(),
            body: body.into(),
        }))
    }

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

    #[getter]
    fn ts<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        PyString::new(py, self.event.ts())
    }

    /// The body as it came, the same object every time. What Python cannot hold, such as a number of thousands of digits,
    /// stays text.
    #[getter]
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
        Ok(self.value.get_or_try_init(py, read)?.bind(py))
    }

    /// The event as one JSON object, without a look into its body.
    fn to_json(&self, py: Python<'_>) -> PyResult<String> {
        let (kind, ts) = (json::encode(self.kind(py).as_any(), "kind")?, json::encode(self.ts(py).as_any(), "ts")?);
        Ok(format!("{{\"kind\":{kind},\"body\":{},\"ts\":{ts}}}", self.event.body()))
    }

    #[getter]
    fn event_seq(&self) -> u64 {
        self.event.event_seq
    }
}
