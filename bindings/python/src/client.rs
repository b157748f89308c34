//! The client and its view of a job.

use std::sync::Arc;

use arcp_bridge::{ClientOptions, ErrorInfo, ErrorKind, JobView, NextBatch, TokenChoice};
use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::core::{Local, core};
use crate::error::OrRaise as _;
use crate::event::{EventData, events};
use crate::json::write_value;
use crate::port::Port;
use crate::transport::TransportHandle;

/// One session with a runtime.
#[pyclass(frozen, module = "arcp._native")]
pub(crate) struct Client(Local<arcp_bridge::Client>);

#[pymethods]
impl Client {
    /// Options are JSON text.
    #[new]
    fn new(py: Python<'_>, options: &str) -> PyResult<Self> {
        let options = ClientOptions::from_json(options).or_raise(py)?;
        Ok(Client(Local::new(arcp_bridge::Client::new(&core(py)?, options).or_raise(py)?)))
    }

    /// `token` is a `str`, or a port that is asked for one at each connection. `resume` is JSON text.
    fn connect(
        &self,
        py: Python<'_>,
        port: &Port,
        call: u64,
        transport: &TransportHandle,
        token: &Bound<'_, PyAny>,
        resume: Option<&str>,
    ) -> PyResult<()> {
        let token = match token.cast::<Port>() {
            Ok(asked) => TokenChoice::Host(asked.get().bridge(py)?.clone()),
            Err(_) => TokenChoice::Fixed(token.extract()?),
        };
        self.0.get(py)?.connect(port.bridge(py)?, call, transport.bridge(py)?, token, resume).or_raise(py)
    }

    fn welcome(&self, py: Python<'_>) -> PyResult<Option<String>> {
        Ok(self.0.get(py)?.welcome())
    }

    fn has_feature(&self, py: Python<'_>, name: &str) -> PyResult<bool> {
        Ok(self.0.get(py)?.has_feature(name))
    }

    fn latest_event_seq(&self, py: Python<'_>) -> PyResult<u64> {
        Ok(self.0.get(py)?.latest_event_seq())
    }

    /// Leaves with the next `Port.flush`; whether it is the first thing that waits for one.
    fn submit(&self, py: Python<'_>, port: &Port, call: u64, request: &str) -> PyResult<bool> {
        self.0.get(py)?.submit_soon(port.bridge(py)?, call, request).or_raise(py)
    }

    /// As `submit`, for a job of nothing but an agent and an input, which is any value.
    fn submit_plain(
        &self,
        py: Python<'_>,
        port: &Port,
        call: u64,
        agent: &str,
        input: &Bound<'_, PyAny>,
    ) -> PyResult<bool> {
        let mut text = String::new();
        write_value(&mut text, "submit.input", input)?;
        self.0.get(py)?.submit_plain_soon(port.bridge(py)?, call, agent, &text).or_raise(py)
    }

    fn subscribe(&self, py: Python<'_>, port: &Port, call: u64, request: &str) -> PyResult<()> {
        self.0.get(py)?.subscribe(port.bridge(py)?, call, request).or_raise(py)
    }

    fn list_jobs(&self, py: Python<'_>, port: &Port, call: u64, request: &str) -> PyResult<()> {
        self.0.get(py)?.list_jobs(port.bridge(py)?, call, request).or_raise(py)
    }

    fn job(&self, py: Python<'_>, job_id: &str) -> PyResult<Job> {
        Ok(Job::new(self.0.get(py)?.job(job_id).or_raise(py)?))
    }

    fn jobs(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        Ok(self.0.get(py)?.jobs())
    }

    fn unsubscribe(&self, py: Python<'_>, job_id: &str) -> PyResult<()> {
        self.0.get(py)?.unsubscribe(job_id);
        Ok(())
    }

    fn cancel_job(&self, py: Python<'_>, job_id: &str, reason: &str) -> PyResult<()> {
        self.0.get(py)?.cancel_job(job_id, reason).or_raise(py)
    }

    fn ack(&self, py: Python<'_>, last_processed_seq: u64) -> PyResult<()> {
        self.0.get(py)?.ack(last_processed_seq);
        Ok(())
    }

    fn close(&self, py: Python<'_>, port: &Port, call: u64, reason: String) -> PyResult<()> {
        self.0.get(py)?.close(port.bridge(py)?, call, reason).or_raise(py)
    }
}

type Batch<'py> = (Bound<'py, PyList>, usize, Bound<'py, PyList>, usize);

fn list(py: Python<'_>, chunks: Vec<arcp_bridge::JobEvent>) -> PyResult<Bound<'_, PyList>> {
    let chunks = chunks.into_iter().map(|event| Bound::new(py, EventData::new(event)));
    PyList::new(py, chunks.collect::<PyResult<Vec<_>>>()?)
}

/// A submitted or followed job.
#[pyclass(frozen, module = "arcp._native")]
pub(crate) struct Job(Local<Arc<JobView>>);

impl Job {
    pub(crate) fn new(job: Arc<JobView>) -> Self {
        Job(Local::new(job))
    }
}

#[pymethods]
impl Job {
    #[getter]
    fn job_id(&self, py: Python<'_>) -> PyResult<&str> {
        Ok(self.0.get(py)?.job_id())
    }

    /// How many events were dropped before anybody read.
    #[getter]
    fn dropped(&self, py: Python<'_>) -> PyResult<u64> {
        Ok(self.0.get(py)?.dropped())
    }

    /// The payload of `job.accepted` or `job.subscribed`.
    #[getter]
    fn opening(&self, py: Python<'_>) -> PyResult<&str> {
        Ok(self.0.get(py)?.opening())
    }

    /// Up to `max` events: those that are no chunks and the size of their bodies, then those that are. Nothing, when there
    /// are none yet and the port will say `ready`; `None` after the last.
    fn next_batch<'py>(&self, py: Python<'py>, port: &Port, stream: u64, max: usize) -> PyResult<Option<Batch<'py>>> {
        let mut batch = Vec::with_capacity(max);
        let found = self.0.get(py)?.next_batch(port.bridge(py)?, stream, max, &mut batch);
        if found == NextBatch::Ended {
            return Ok(None);
        }
        let (chunks, others): (Vec<_>, Vec<_>) = batch.into_iter().partition(|event| event.kind() == "result_chunk");
        let size = |events: &[arcp_bridge::JobEvent]| events.iter().map(|event| event.body().len()).sum::<usize>();
        let (events_size, chunks_size) = (size(&others), size(&chunks));
        Ok(Some((events(py, others)?, events_size, list(py, chunks)?, chunks_size)))
    }

    /// Nobody reads the events any more, until the next `next_batch`.
    fn stop_reading(&self, py: Python<'_>) -> PyResult<()> {
        self.0.get(py)?.stop_reading();
        Ok(())
    }

    /// The chunks of a streamed result are taken from among the events, each to be handed to `take_chunk`.
    fn leave_chunks(&self, py: Python<'_>) -> PyResult<()> {
        self.0.get(py)?.leave_chunks();
        Ok(())
    }

    fn take_chunk(&self, py: Python<'_>, event: &EventData) -> PyResult<()> {
        self.0.get(py)?.take_chunk(event.bridge()).or_raise(py)
    }

    /// Completes when the chunks that were taken are the whole result.
    fn finish_chunks(&self, py: Python<'_>, port: &Port, call: u64) -> PyResult<()> {
        self.0.get(py)?.finish_chunks(&core(py)?, port.bridge(py)?, call).or_raise(py)
    }

    /// Completes with the whole result as bytes.
    fn result_bytes(&self, py: Python<'_>, port: &Port, call: u64) -> PyResult<()> {
        self.0.get(py)?.result_bytes(&core(py)?, port.bridge(py)?, call).or_raise(py)
    }

    /// What `result` completes with, if the job has ended.
    fn result_now(&self, py: Python<'_>) -> PyResult<Option<String>> {
        self.0.get(py)?.result_now().or_raise(py)
    }

    fn result(&self, py: Python<'_>, port: &Port, call: u64) -> PyResult<()> {
        self.0.get(py)?.tell_result(port.bridge(py)?, call);
        Ok(())
    }
}

/// A client waits for its token.
#[pyclass(frozen, module = "arcp._native")]
pub(crate) struct TokenRequest(Local<Mutex<arcp_bridge::TokenRequest>>);

impl TokenRequest {
    pub(crate) fn new(request: arcp_bridge::TokenRequest) -> Self {
        TokenRequest(Local::new(Mutex::new(request)))
    }
}

#[pymethods]
impl TokenRequest {
    fn give(&self, py: Python<'_>, token: String) -> PyResult<()> {
        self.0.get(py)?.lock().answer(Ok(token));
        Ok(())
    }

    fn refuse(&self, py: Python<'_>, message: String) -> PyResult<()> {
        self.0.get(py)?.lock().answer(Err(ErrorInfo::local(ErrorKind::Transport, message)));
        Ok(())
    }
}
