//! The one core of a process, and what a fork does to it (D-13).

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use arcp_bridge::{Core, ErrorInfo, ErrorKind};
use pyo3::prelude::*;

use crate::error::OrRaise as _;

/// Only ever locked by a thread that holds the interpreter and keeps it, so that no fork happens meanwhile.
static CORE: Mutex<Option<Core>> = Mutex::new(None);

/// Counts the forks this process comes from.
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// The core, started on first use.
pub(crate) fn core(py: Python<'_>) -> PyResult<Core> {
    let mut core = CORE.lock().unwrap_or_else(PoisonError::into_inner);
    match &*core {
        Some(core) => Ok(core.clone()),
        None => Ok(core.insert(Core::new(0).or_raise(py)?).clone()),
    }
}

/// Stops the core's threads within `seconds`; whatever uses it later is told that it was shut down.
#[pyfunction]
pub(crate) fn shutdown(py: Python<'_>, seconds: f64) {
    let core = CORE.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some(core) = core {
        let bound = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        py.detach(|| core.shutdown(bound));
    }
}

/// Called in a forked child: the parent's threads are not here, so its core and objects are left alone.
#[pyfunction]
pub(crate) fn after_fork() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
    std::mem::forget(CORE.lock().unwrap_or_else(PoisonError::into_inner).take());
}

/// Something that belongs to the process that made it. A forked child can neither use nor drop it: a lock inside may be
/// held for ever by a thread that is not here.
pub(crate) struct Local<T> {
    value: Option<T>,
    generation: u32,
}

impl<T> Local<T> {
    pub(crate) fn new(value: T) -> Self {
        Local { value: Some(value), generation: GENERATION.load(Ordering::Relaxed) }
    }

    pub(crate) fn get(&self, py: Python<'_>) -> PyResult<&T> {
        if self.generation == GENERATION.load(Ordering::Relaxed)
            && let Some(value) = &self.value
        {
            return Ok(value);
        }
        let message = "this object belongs to the process that was forked; create clients and runtimes in the child";
        Err(ErrorInfo::local(ErrorKind::Forked, message)).or_raise(py)
    }
}

impl<T> Drop for Local<T> {
    fn drop(&mut self) {
        if self.generation != GENERATION.load(Ordering::Relaxed) {
            std::mem::forget(self.value.take());
        }
    }
}
