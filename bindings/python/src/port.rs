//! A loop's queue: what completes calls, starts agents and asks for tokens to be verified.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
#[cfg(unix)]
use std::{
    io::{Read, Write},
    os::fd::AsRawFd,
    os::unix::net::UnixStream,
};

use arcp_bridge::{Item, Value, Wake};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};

use crate::client::{Job, TokenRequest};
use crate::context::Invocation;
use crate::core::Local;
use crate::error::exception;
use crate::runtime::{HostRequest, VerifyRequest};
use crate::transport::{Listener, TransportHandle};

/// Wakes a loop through a descriptor it watches, or, where a loop can watch none, through a callable.
struct Waker {
    #[cfg(unix)]
    pipe: (UnixStream, UnixStream),
    callback: Py<PyAny>,
    through_callback: AtomicBool,
}

impl Wake for Waker {
    fn wake(&self) {
        #[cfg(unix)]
        if !self.through_callback.load(Ordering::Relaxed) {
            // Full means that a wake-up waits already.
            let _ = (&self.pipe.1).write(&[1]);
            return;
        }
        // A finished interpreter cannot be entered, and then nobody is there to wake.
        let called = Python::try_attach(|py| self.callback.call0(py).map(drop));
        if let Some(Err(error)) = called {
            Python::try_attach(|py| error.write_unraisable(py, None));
        }
    }
}

/// One event loop's way to the core.
#[pyclass(frozen, module = "arcp._native")]
pub(crate) struct Port {
    port: Local<arcp_bridge::Port>,
    waker: Arc<Waker>,
}

struct Shared(Arc<Waker>);

impl Wake for Shared {
    fn wake(&self) {
        self.0.wake();
    }
}

impl Port {
    pub(crate) fn bridge(&self, py: Python<'_>) -> PyResult<&arcp_bridge::Port> {
        self.port.get(py)
    }
}

#[pymethods]
impl Port {
    /// `callback` wakes the loop, from any thread, unless the loop watches `fileno()`.
    #[new]
    fn new(callback: Py<PyAny>) -> PyResult<Self> {
        #[cfg(unix)]
        let pipe = UnixStream::pair()?;
        #[cfg(unix)]
        for end in [&pipe.0, &pipe.1] {
            end.set_nonblocking(true)?;
        }
        let waker = Arc::new(Waker {
            #[cfg(unix)]
            pipe,
            callback,
            through_callback: AtomicBool::new(!cfg!(unix)),
        });
        let port = Local::new(arcp_bridge::Port::new(Shared(Arc::clone(&waker))));
        Ok(Port { port, waker })
    }

    /// Readable when there is something to drain; `None` where only the callback wakes.
    fn fileno(&self) -> Option<i32> {
        #[cfg(unix)]
        return (!self.waker.through_callback.load(Ordering::Relaxed)).then(|| self.waker.pipe.0.as_raw_fd());
        #[cfg(not(unix))]
        None
    }

    /// From now on only the callback wakes.
    fn use_callback(&self) {
        self.waker.through_callback.store(true, Ordering::Relaxed);
    }

    /// Takes up to `max` items, each a tuple that begins with its name, and says whether more wait.
    fn drain<'py>(&self, py: Python<'py>, max: usize) -> PyResult<(Bound<'py, PyList>, bool)> {
        let port = self.port.get(py)?;
        #[cfg(unix)]
        {
            // Before the items are taken, so that no later wake-up is swallowed.
            let _ = (&self.waker.pipe.0).read(&mut [0; 64]);
        }
        let mut batch = Vec::new();
        let more = port.drain(max, &mut batch);
        let items = batch.into_iter().map(|item| tuple(py, item)).collect::<PyResult<Vec<_>>>()?;
        Ok((PyList::new(py, items)?, more))
    }

    /// Sends what waits for this: one turn of a loop makes one batch of it.
    fn flush(&self, py: Python<'_>) -> PyResult<()> {
        self.port.get(py)?.flush();
        Ok(())
    }

    /// Drops the work of a call; it completes no more.
    fn cancel_call(&self, py: Python<'_>, call: u64) -> PyResult<()> {
        self.port.get(py)?.cancel_call(call);
        Ok(())
    }

    /// Drops what waits and takes nothing more.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.port.get(py)?.close();
        Ok(())
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        Python::try_attach(|py| {
            if let Ok(port) = self.port.get(py) {
                port.close();
            }
        });
    }
}

fn tuple(py: Python<'_>, item: Item) -> PyResult<Bound<'_, PyTuple>> {
    match item {
        Item::Completed { call, outcome: Ok(value) } => {
            (intern!(py, "completed"), call, object(py, value)?).into_pyobject(py)
        }
        Item::Completed { call, outcome: Err(info) } => {
            (intern!(py, "failed"), call, exception(py, info)?).into_pyobject(py)
        }
        Item::Ready { stream } => (intern!(py, "ready"), stream).into_pyobject(py),
        Item::Invoke(invocation) => (intern!(py, "invoke"), Invocation::new(invocation)).into_pyobject(py),
        Item::Cancel { invocation, cause, reason } => {
            (intern!(py, "cancel"), invocation, cause, reason).into_pyobject(py)
        }
        Item::Abandoned { invocation } => (intern!(py, "abandoned"), invocation).into_pyobject(py),
        Item::Verify(request) => (intern!(py, "verify"), VerifyRequest::new(request)).into_pyobject(py),
        Item::Ask(request) => (intern!(py, "ask"), HostRequest::new(request)).into_pyobject(py),
        Item::Token(request) => (intern!(py, "token"), TokenRequest::new(request)).into_pyobject(py),
        Item::Log(record) => (intern!(py, "log"), record.level as u8, record.message).into_pyobject(py),
    }
}

fn object(py: Python<'_>, value: Value) -> PyResult<Bound<'_, PyAny>> {
    Ok(match value {
        Value::Nothing => py.None().into_bound(py),
        Value::Bytes(bytes) => PyBytes::new(py, &bytes).into_any(),
        Value::Json(text) => text.into_pyobject(py)?.into_any(),
        Value::Job(job) => Bound::new(py, Job::new(job))?.into_any(),
        Value::Transport(transport) => Bound::new(py, TransportHandle::new(transport))?.into_any(),
        Value::Listener(listener) => Bound::new(py, Listener::new(listener))?.into_any(),
        Value::Frames(frames) => frames.into_pyobject(py)?.into_any(),
    })
}
