//! The core's threads, owned by an explicit object.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::runtime::{Builder, Handle, Runtime};

use crate::error::{ErrorInfo, ErrorKind};
use crate::log::{LogFilter, Logs};
use crate::port::Port;

/// The threads everything runs on. Cheap to clone.
///
/// A core belongs to the process that made it: after a fork every call fails with [`ErrorKind::Forked`].
#[derive(Clone)]
pub struct Core {
    inner: Arc<Inner>,
}

struct Inner {
    tokio: Mutex<Option<Runtime>>,
    handle: Handle,
    process: u32,
    next: AtomicU64,
    logs: Logs,
}

impl Core {
    /// Starts `threads` worker threads; 0 takes one per processor, at most four.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub fn new(threads: usize) -> Result<Core, ErrorInfo> {
        let available = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if threads == 0 { available.min(4) } else { threads };
        let logs: Logs = Arc::new(RwLock::new(LogFilter::off()));
        let for_threads = Arc::clone(&logs);
        let tokio = Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("arcp")
            .enable_all()
            .on_thread_start(move || crate::log::install(&for_threads))
            .build()
            .map_err(|error| ErrorInfo::local(ErrorKind::Transport, format!("cannot start threads: {error}")))?;
        let handle = tokio.handle().clone();
        let inner = Inner {
            tokio: Mutex::new(Some(tokio)),
            handle,
            process: std::process::id(),
            next: AtomicU64::new(1),
            logs,
        };
        Ok(Core { inner: Arc::new(inner) })
    }

    /// Sends the core's logs of this level and above to a port; the last port set gets them.
    pub fn log_to(&self, port: &Port, level: crate::log::LogLevel) {
        *self.inner.logs.write() = LogFilter::to(port.clone(), level);
    }

    /// Stops every thread within `bound`, whatever still runs. Idempotent.
    pub fn shutdown(&self, bound: Duration) {
        if self.inner.process != std::process::id() {
            // The threads stayed in the parent: waiting for them would hang.
            std::mem::forget(self.inner.tokio.lock().take());
            return;
        }
        *self.inner.logs.write() = LogFilter::off();
        let tokio = self.inner.tokio.lock().take();
        if let Some(tokio) = tokio {
            tokio.shutdown_timeout(bound);
        }
    }

    /// The way onto the core's threads.
    ///
    /// # Errors
    /// [`ErrorKind::Forked`] in a child process, [`ErrorKind::Closed`] after [`Core::shutdown`].
    pub(crate) fn handle(&self) -> Result<Handle, ErrorInfo> {
        if self.inner.process != std::process::id() {
            let message = "arcp was started before this process was forked; create clients and runtimes in the child";
            return Err(ErrorInfo::local(ErrorKind::Forked, message));
        }
        if self.inner.tokio.lock().is_none() {
            return Err(ErrorInfo::local(ErrorKind::Closed, "the core was shut down"));
        }
        Ok(self.inner.handle.clone())
    }

    /// Has what this call starts report where the core's threads do.
    pub(crate) fn reporting<R>(&self, call: impl FnOnce() -> R) -> R {
        crate::log::reporting(&self.inner.logs, call)
    }

    /// A number no other object of this core has.
    pub(crate) fn number(&self) -> u64 {
        self.inner.next.fetch_add(1, Ordering::Relaxed)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(tokio) = self.tokio.get_mut().take() {
            if self.process == std::process::id() {
                // The last handle may be dropped on one of the core's own threads, which must not wait for itself.
                tokio.shutdown_background();
            } else {
                std::mem::forget(tokio);
            }
        }
    }
}
