//! What an agent is given. The emitters with plain arguments are here; `arcp.runtime.JobContext` adds the rest.

use std::sync::Arc;

use arcp_bridge::{ErrorInfo, ErrorKind, ResultData};
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyMapping, PyString, PyTuple};

use crate::core::Local;
use crate::error::OrRaise as _;
use crate::fairness::Turn;
use crate::json::{encode, write_number, write_text, write_value};
use crate::port::Port;

/// One job an agent runs, for the code that runs it.
#[pyclass(frozen, module = "arcp._native")]
pub(crate) struct Invocation(Local<Arc<arcp_bridge::Invocation>>);

impl Invocation {
    pub(crate) fn new(invocation: Arc<arcp_bridge::Invocation>) -> Self {
        Invocation(Local::new(invocation))
    }
}

#[pymethods]
impl Invocation {
    #[getter]
    fn id(&self, py: Python<'_>) -> PyResult<u64> {
        Ok(self.0.get(py)?.id())
    }

    #[getter]
    fn job_id(&self, py: Python<'_>) -> PyResult<&str> {
        Ok(&self.0.get(py)?.start().job_id)
    }

    #[getter]
    fn session_id(&self, py: Python<'_>) -> PyResult<&str> {
        Ok(&self.0.get(py)?.start().session_id)
    }

    #[getter]
    fn principal(&self, py: Python<'_>) -> PyResult<&str> {
        Ok(&self.0.get(py)?.start().principal)
    }

    #[getter]
    fn agent(&self, py: Python<'_>) -> PyResult<&str> {
        Ok(&self.0.get(py)?.start().agent)
    }

    #[getter]
    fn agent_version(&self, py: Python<'_>) -> PyResult<Option<&str>> {
        Ok(self.0.get(py)?.start().version.as_deref())
    }

    #[getter]
    fn agent_ref(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.0.get(py)?.start().agent_ref())
    }

    #[getter]
    fn trace_id(&self, py: Python<'_>) -> PyResult<&str> {
        Ok(&self.0.get(py)?.start().trace_id)
    }

    /// `traceparent` and `tracestate` of the submit, if it had them.
    #[getter]
    fn trace_context(&self, py: Python<'_>) -> PyResult<Option<(String, Option<&str>)>> {
        let context = self.0.get(py)?.start().trace_context.as_ref();
        Ok(context.map(|context| (context.traceparent(), context.tracestate())))
    }

    #[getter]
    fn parent_job_id(&self, py: Python<'_>) -> PyResult<Option<&str>> {
        Ok(self.0.get(py)?.start().parent_job_id.as_deref())
    }

    #[getter]
    fn max_runtime_sec(&self, py: Python<'_>) -> PyResult<Option<u64>> {
        Ok(self.0.get(py)?.start().max_runtime_sec)
    }

    #[getter]
    fn expires_at(&self, py: Python<'_>) -> PyResult<Option<&str>> {
        let constraints = self.0.get(py)?.start().lease_constraints.as_ref();
        Ok(constraints.and_then(|constraints| constraints.expires_at.as_deref()))
    }

    #[getter]
    fn input(&self, py: Python<'_>) -> PyResult<&str> {
        Ok(self.0.get(py)?.input())
    }

    #[getter]
    fn lease(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.0.get(py)?.lease())
    }

    #[getter]
    fn budget(&self, py: Python<'_>) -> PyResult<Option<String>> {
        Ok(self.0.get(py)?.budget())
    }

    /// Highest `event_seq` of the submitting session, and the highest acknowledged.
    #[getter]
    fn session_progress(&self, py: Python<'_>) -> PyResult<Option<(u64, u64)>> {
        Ok(self.0.get(py)?.session_progress())
    }

    /// The submitting session as JSON text, while there is one.
    #[getter]
    fn session(&self, py: Python<'_>) -> PyResult<Option<String>> {
        Ok(self.0.get(py)?.session())
    }

    /// The job's credentials as JSON text, with their values.
    #[getter]
    fn credentials(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.0.get(py)?.credentials())
    }

    fn rotate_credential(&self, py: Python<'_>, id: &str, value: String) -> PyResult<()> {
        self.0.get(py)?.rotate_credential(id, value).or_raise(py)
    }

    /// Opens the result to be written in parts; its id.
    fn open_result(&self, py: Python<'_>, result_id: Option<String>, chunk_bytes: Option<usize>) -> PyResult<String> {
        self.0.get(py)?.open_result(result_id, chunk_bytes).or_raise(py)
    }

    /// Writes what follows the first `start` bytes of a `str` or `bytes`: where to go on, or `None` when all is written,
    /// and whether to wait now.
    fn write_result(&self, py: Python<'_>, data: &Bound<'_, PyAny>, start: usize) -> PyResult<(Option<usize>, bool)> {
        let invocation = self.0.get(py)?;
        let data = match data.cast::<PyString>() {
            Ok(text) => ResultData::Text(text.to_str()?),
            Err(_) => ResultData::Bytes(data.cast::<PyBytes>()?.as_bytes()),
        };
        let left = data.skip(start);
        // Cutting and serialising take their time; both kinds of data never change.
        let written = py.detach(|| invocation.write_result(left)).or_raise(py)?;
        let next = (written.taken < left.len()).then_some(start + written.taken);
        Ok((next, written.must_wait))
    }

    fn flush_result(&self, py: Python<'_>) -> PyResult<()> {
        self.0.get(py)?.flush_result().or_raise(py)
    }

    fn finish_result(&self, py: Python<'_>, summary: Option<&str>) -> PyResult<()> {
        self.0.get(py)?.finish_result(summary).or_raise(py)
    }

    fn drained(&self, py: Python<'_>, port: &Port, call: u64) -> PyResult<()> {
        self.0.get(py)?.drained(port.bridge(py)?, call).or_raise(py)
    }

    /// Delegates at once; completes with the child's acceptance. `request` is JSON text.
    fn delegate(&self, py: Python<'_>, port: &Port, call: u64, request: &str) -> PyResult<()> {
        self.0.get(py)?.delegate(port.bridge(py)?, call, request).or_raise(py)
    }

    fn child_result(&self, py: Python<'_>, port: &Port, call: u64, job_id: &str) -> PyResult<()> {
        self.0.get(py)?.child_result(port.bridge(py)?, call, job_id).or_raise(py)
    }

    fn cancel_child(&self, py: Python<'_>, job_id: &str, reason: &str) -> PyResult<()> {
        self.0.get(py)?.cancel_child(job_id, reason).or_raise(py)
    }

    fn authorize(&self, py: Python<'_>, namespace: &str, target: &str) -> PyResult<()> {
        self.0.get(py)?.authorize(namespace, target).or_raise(py)
    }

    /// The core hears of it with the next `Port.flush`; whether this is the first thing that waits for one.
    fn complete(&self, py: Python<'_>, result: &str) -> PyResult<bool> {
        self.0.get(py)?.complete_soon(result).or_raise(py)
    }

    fn fail(
        &self,
        py: Python<'_>,
        code: String,
        message: String,
        retryable: bool,
        details: Option<String>,
    ) -> PyResult<()> {
        self.0.get(py)?.fail(ErrorInfo { kind: ErrorKind::Protocol, code, message, retryable, details });
        Ok(())
    }

    fn cancelled(&self, py: Python<'_>) -> PyResult<()> {
        self.0.get(py)?.cancelled();
        Ok(())
    }
}

/// The emitters. Each sends its event before it returns; what it returns is to be awaited and is done already, unless
/// the submitting client lags behind or the loop is due to others.
#[pyclass(frozen, subclass, module = "arcp._native")]
pub(crate) struct JobContext {
    invocation: Local<Arc<arcp_bridge::Invocation>>,
    turn: Arc<Turn>,
}

impl JobContext {
    fn emit(this: &Bound<'_, Self>, kind: &str, body: &str) -> PyResult<Py<PyAny>> {
        let py = this.py();
        let wait = this.get().invocation.get(py)?.emit(kind, body).or_raise(py)?;
        Self::emitted(this, wait)
    }

    fn emitted(this: &Bound<'_, Self>, wait: bool) -> PyResult<Py<PyAny>> {
        let py = this.py();
        if wait {
            return Ok(this.call_method0(intern!(py, "_drained"))?.unbind());
        }
        this.get().turn.awaitable(py)
    }
}

#[pymethods]
impl JobContext {
    /// A subclass may be made of more.
    #[new]
    #[pyo3(signature = (invocation, *_more))]
    fn new(py: Python<'_>, invocation: &Invocation, _more: &Bound<'_, PyTuple>) -> PyResult<Self> {
        Ok(JobContext { invocation: Local::new(Arc::clone(invocation.0.get(py)?)), turn: Turn::new() })
    }

    /// A `log` event. `level` is `trace`, `debug`, `info`, `warn`, `error` or `critical`; `attributes` a dict, to which
    /// `fields` are added.
    #[pyo3(signature = (level, message, attributes = None, **fields))]
    fn log(
        this: &Bound<'_, Self>,
        level: &Bound<'_, PyAny>,
        message: &Bound<'_, PyAny>,
        attributes: Option<&Bound<'_, PyAny>>,
        fields: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Py<PyAny>> {
        if attributes.is_none()
            && fields.is_none()
            && let Some(level) = plain_text(level).filter(|level| LEVELS.contains(level))
            && let Some(message) = plain_text(message)
        {
            // What nearly all are, and nothing in it needs a second look.
            let wait = this.get().invocation.get(this.py())?.log(level, message).or_raise(this.py())?;
            return Self::emitted(this, wait);
        }
        let mut body = Body::new();
        body.text("level", Some(level))?;
        body.text("message", Some(message))?;
        match (attributes, fields) {
            (Some(attributes), Some(fields)) => {
                let Ok(attributes) = attributes.cast::<PyMapping>() else {
                    return Err(PyTypeError::new_err("attributes must be a dict"));
                };
                let all = PyDict::new(this.py());
                all.update(attributes)?;
                all.update(fields.as_mapping())?;
                body.object("attributes", Some(all.as_any()))?;
            }
            (None, Some(fields)) => body.object("attributes", Some(fields.as_any()))?,
            (attributes, None) => body.object("attributes", attributes)?,
        }
        Self::emit(this, "log", body.finish())
    }

    /// A `thought` event.
    fn thought(this: &Bound<'_, Self>, text: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let mut body = Body::new();
        body.text("text", Some(text))?;
        Self::emit(this, "thought", body.finish())
    }

    /// A `status` event.
    #[pyo3(signature = (phase, message = None))]
    fn status(
        this: &Bound<'_, Self>,
        phase: &Bound<'_, PyAny>,
        message: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let mut body = Body::new();
        body.text("phase", Some(phase))?;
        body.text("message", message)?;
        Self::emit(this, "status", body.finish())
    }

    /// A `metric` event, from a name and a number or from a whole body. Every digit of an `int` or a `Decimal` counts.
    #[pyo3(signature = (name, value = None, unit = None, *, dimensions = None))]
    fn metric(
        this: &Bound<'_, Self>,
        name: &Bound<'_, PyAny>,
        value: Option<&Bound<'_, PyAny>>,
        unit: Option<&Bound<'_, PyAny>>,
        dimensions: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        if !name.is_instance_of::<PyString>() && name.cast::<PyMapping>().is_ok() {
            if value.is_some() || unit.is_some() || dimensions.is_some() {
                return Err(PyTypeError::new_err("metric takes either a whole body or name, value, unit, dimensions"));
            }
            return Self::emit(this, "metric", &encode(name, "metric")?);
        }
        let mut body = Body::new();
        body.text("name", Some(name))?;
        let value = value.ok_or_else(|| PyTypeError::new_err("metric needs a value: an int, float or Decimal"))?;
        body.number("value", Some(value))?;
        body.text("unit", unit)?;
        body.object("dimensions", dimensions)?;
        Self::emit(this, "metric", body.finish())
    }

    /// A `progress` event. `current` and `total` are numbers of at least 0.
    #[pyo3(signature = (current, *, total = None, units = None, message = None))]
    fn progress(
        this: &Bound<'_, Self>,
        current: &Bound<'_, PyAny>,
        total: Option<&Bound<'_, PyAny>>,
        units: Option<&Bound<'_, PyAny>>,
        message: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let mut body = Body::new();
        body.number("current", Some(current))?;
        body.number("total", total)?;
        body.text("units", units)?;
        body.text("message", message)?;
        Self::emit(this, "progress", body.finish())
    }

    /// What to await after a call that need not wait.
    fn _turn(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.turn.awaitable(py)
    }

    /// An event of any kind an agent may emit: one of the protocol's, or `x-vendor.<vendor>.<name>` with any body.
    fn emit_event(this: &Bound<'_, Self>, kind: &str, body: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        Self::emit(this, kind, &encode(body, kind)?)
    }
}

const LEVELS: [&str; 6] = ["trace", "debug", "info", "warn", "error", "critical"];

/// A text that UTF-8 can carry.
fn plain_text<'a>(value: &'a Bound<'_, PyAny>) -> Option<&'a str> {
    value.cast::<PyString>().ok().and_then(|text| text.to_str().ok())
}

/// A body in the making; members that are `None` are left out.
struct Body(String);

impl Body {
    fn new() -> Self {
        Body(String::with_capacity(128))
    }

    fn name(&mut self, name: &str) {
        self.0.push_str(if self.0.is_empty() { "{\"" } else { ",\"" });
        self.0.push_str(name);
        self.0.push_str("\":");
    }

    fn text(&mut self, name: &str, value: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let Some(value) = value else { return Ok(()) };
        self.name(name);
        write_text(&mut self.0, name, value)
    }

    fn number(&mut self, name: &str, value: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let Some(value) = value else { return Ok(()) };
        self.name(name);
        write_number(&mut self.0, name, value)
    }

    fn object(&mut self, name: &str, value: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let Some(value) = value else { return Ok(()) };
        self.name(name);
        write_value(&mut self.0, name, value)
    }

    fn finish(&mut self) -> &str {
        self.0.push('}');
        &self.0
    }
}
