//! What emitters return: an awaitable that is already done, or one that lets the loop go round once (D-23).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyTuple;

/// An agent gives the loop back after this many calls, or this much time, without a pause.
const MAX_CALLS: u32 = 256;
const MAX_MICROS: u64 = 1000;

/// How long one agent has kept its loop.
pub(crate) struct Turn {
    calls: AtomicU32,
    began: AtomicU64,
}

impl Turn {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Turn { calls: AtomicU32::new(0), began: AtomicU64::new(micros()) })
    }

    fn begin(&self) {
        self.calls.store(0, Ordering::Relaxed);
        self.began.store(micros(), Ordering::Relaxed);
    }

    /// What to return after a call that need not wait.
    pub(crate) fn awaitable(self: &Arc<Self>, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let calls = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        if calls < MAX_CALLS && micros().saturating_sub(self.began.load(Ordering::Relaxed)) < MAX_MICROS {
            static DONE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
            return Ok(DONE.get_or_try_init(py, || Done::shared(py))?.clone_ref(py));
        }
        // Also when nobody awaits the pause.
        self.begin();
        Ok(Py::new(py, Pause(Arc::clone(self)))?.into_any())
    }
}

/// On one clock for all turns.
fn micros() -> u64 {
    static STARTED: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    u64::try_from(STARTED.get_or_init(Instant::now).elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// An awaitable that is done; one for all.
#[pyclass(frozen, module = "arcp._native")]
struct Done(Py<PyAny>);

impl Done {
    fn shared(py: Python<'_>) -> PyResult<Py<PyAny>> {
        let exhausted = PyTuple::empty(py).try_iter()?;
        Ok(Py::new(py, Done(exhausted.into_any().unbind()))?.into_any())
    }
}

#[pymethods]
impl Done {
    fn __await__(&self, py: Python<'_>) -> Py<PyAny> {
        self.0.clone_ref(py)
    }
}

/// An awaitable that suspends its task once.
#[pyclass(frozen, module = "arcp._native")]
struct Pause(Arc<Turn>);

#[pymethods]
impl Pause {
    fn __await__(&self) -> Suspension {
        Suspension { turn: Arc::clone(&self.0), suspended: AtomicBool::new(false) }
    }
}

#[pyclass(frozen, module = "arcp._native")]
struct Suspension {
    turn: Arc<Turn>,
    suspended: AtomicBool,
}

#[pymethods]
impl Suspension {
    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    /// The bare `None` is how a task is told to come back on the next turn.
    fn __next__(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        if !self.suspended.swap(true, Ordering::Relaxed) {
            return Some(py.None());
        }
        self.turn.begin();
        None
    }
}
