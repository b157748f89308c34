//! The client and its view of a job.

use std::sync::Arc;

use arcp_bridge::{ClientOptions, JobView, NextBatch, TokenChoice};
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::core::{Local, core};
use crate::error::OrRaise as _;
use crate::event::JobEvent;
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

    fn connect(
        &self,
        py: Python<'_>,
        port: &Port,
        call: u64,
        transport: &TransportHandle,
        token: String,
    ) -> PyResult<()> {
        self.0
            .get(py)?
            .connect(port.bridge(py)?, call, transport.bridge(py)?, TokenChoice::Fixed(token), None)
            .or_raise(py)
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

    fn submit(&self, py: Python<'_>, port: &Port, call: u64, request: &str) -> PyResult<()> {
        self.0.get(py)?.submit(port.bridge(py)?, call, request).or_raise(py)
    }

    fn subscribe(&self, py: Python<'_>, port: &Port, call: u64, request: &str) -> PyResult<()> {
        self.0.get(py)?.subscribe(port.bridge(py)?, call, request).or_raise(py)
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

    /// The payload of `job.accepted` or `job.subscribed`.
    #[getter]
    fn opening(&self, py: Python<'_>) -> PyResult<&str> {
        Ok(self.0.get(py)?.opening())
    }

    /// Up to `max` events; an empty list when there are none yet and the port will say `ready`; `None` after the last.
    fn next_batch<'py>(
        &self,
        py: Python<'py>,
        port: &Port,
        stream: u64,
        max: usize,
    ) -> PyResult<Option<Bound<'py, PyList>>> {
        let mut batch = Vec::with_capacity(max);
        let found = self.0.get(py)?.next_batch(port.bridge(py)?, stream, max, &mut batch);
        if found == NextBatch::Ended {
            return Ok(None);
        }
        let events = batch.into_iter().map(|event| Bound::new(py, JobEvent::new(event)));
        Ok(Some(PyList::new(py, events.collect::<PyResult<Vec<_>>>()?)?))
    }

    /// Nobody reads the events any more, until the next `next_batch`.
    fn stop_reading(&self, py: Python<'_>) -> PyResult<()> {
        self.0.get(py)?.stop_reading();
        Ok(())
    }

    fn result(&self, py: Python<'_>, port: &Port, call: u64) -> PyResult<()> {
        self.0.get(py)?.result(&core(py)?, port.bridge(py)?, call).or_raise(py)
    }
}
