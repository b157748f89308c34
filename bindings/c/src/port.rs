//! The way back into a C program: one queue, three ways to wait for it.

use std::cell::Cell;
use std::collections::VecDeque;
use std::ffi::c_void;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arcp_bridge::{Core, ErrorInfo, ErrorKind, Item, Port, Wake};
use parking_lot::{Condvar, Mutex, ReentrantMutex};

use crate::boundary::{Out, free, guard, quietly, reference};
use crate::core::arcp_core;
use crate::error::{arcp_error, arcp_result};
use crate::item::arcp_item;

/// Called when items have come to an empty port, from any thread (one of yours inside a call included), never from two at
/// once. It must not block; let it only wake your loop.
pub type arcp_wake = Option<unsafe extern "C" fn(user_data: *mut c_void)>;

/// A queue of things for you to do.
pub struct arcp_port {
    core: Core,
    port: Port,
    shared: Arc<Shared>,
    process: u32,
}

/// What the port and the core's threads share.
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Held while the callback runs, so that whoever takes the callback away knows that it is over. Reentrant, because
    /// the callback itself may do so.
    callback: ReentrantMutex<Cell<Option<Callback>>>,
}

#[derive(Default)]
struct State {
    items: VecDeque<Item>,
    /// Whether something waits here or in the core's queue; the descriptor shows the same.
    signalled: bool,
    closed: bool,
    #[cfg(unix)]
    descriptor: Option<Descriptor>,
}

#[derive(Clone, Copy)]
struct Callback {
    function: unsafe extern "C" fn(*mut c_void),
    user_data: *mut c_void,
}

// SAFETY: the program said that its callback may be called from any thread; the pointer is only handed back to it.
unsafe impl Send for Callback {}

/// A pipe that holds one byte while items wait.
#[cfg(unix)]
struct Descriptor {
    reader: std::io::PipeReader,
    writer: std::io::PipeWriter,
}

/// Items moved from the core's queue at once.
const BATCH: usize = 256;

impl State {
    fn signal(&mut self, signalled: bool) {
        if self.signalled == signalled {
            return;
        }
        self.signalled = signalled;
        #[cfg(unix)]
        if let Some(descriptor) = &mut self.descriptor {
            descriptor.show(signalled);
        }
    }
}

#[cfg(unix)]
impl Descriptor {
    /// Called with the other value each time: the pipe holds one byte or none, so neither call waits.
    fn show(&mut self, signalled: bool) {
        use std::io::{Read, Write};
        let done = if signalled { self.writer.write_all(&[1]) } else { self.reader.read_exact(&mut [0]) };
        // Both ends are ours and open.
        debug_assert!(done.is_ok(), "{done:?}");
    }
}

struct Signal(Arc<Shared>);

impl Wake for Signal {
    fn wake(&self) {
        self.0.state.lock().signal(true);
        self.0.changed.notify_all();
        let callback = self.0.callback.lock();
        if let Some(Callback { function, user_data }) = callback.get() {
            // SAFETY: the program keeps both valid until the port is closed, which takes the callback away.
            unsafe { function(user_data) };
        }
    }
}

impl arcp_port {
    fn new(core: Core, callback: Option<Callback>) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            callback: ReentrantMutex::new(Cell::new(callback)),
        });
        arcp_port { core, port: Port::new(Signal(Arc::clone(&shared))), shared, process: std::process::id() }
    }

    pub(crate) fn bridge(&self) -> &Port {
        &self.port
    }

    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    /// Takes over all that waits in the core's queue. An item that comes later wakes us again, and [`Signal::wake`] needs
    /// the lock we hold: no signal is lost.
    fn refill(&self, state: &mut State) {
        let mut batch = Vec::new();
        while self.port.drain(BATCH, &mut batch) {}
        state.items.extend(batch);
        state.signal(!state.items.is_empty());
    }

    /// After a fork the locks may be held for ever, and the descriptor is shared with the parent.
    fn is_forked(&self) -> bool {
        self.process != std::process::id()
    }

    fn check_process(&self) -> Result<(), ErrorInfo> {
        if self.is_forked() {
            let message = "this port was made before the process was forked; make cores and ports in the child";
            return Err(ErrorInfo::local(ErrorKind::Forked, message));
        }
        Ok(())
    }

    fn next(&self) -> Result<Option<Item>, ErrorInfo> {
        self.check_process()?;
        let mut state = self.shared.state.lock();
        if state.items.is_empty() {
            self.refill(&mut state);
        }
        let item = state.items.pop_front();
        if state.items.is_empty() {
            self.refill(&mut state);
        }
        Ok(item)
    }

    /// Waits until `take` finds what it wants among the items; below 0 for as long as the port is open.
    fn wait<T>(&self, timeout_ms: i64, mut take: impl FnMut(&mut VecDeque<Item>) -> Option<T>) -> Result<T, ErrorInfo> {
        self.check_process()?;
        let timeout = u64::try_from(timeout_ms).ok().map(Duration::from_millis);
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut state = self.shared.state.lock();
        loop {
            self.refill(&mut state);
            let found = take(&mut state.items);
            let anything_left = !state.items.is_empty();
            state.signal(anything_left);
            if let Some(found) = found {
                return Ok(found);
            }
            if state.closed {
                return Err(ErrorInfo::local(ErrorKind::Closed, "the port is closed"));
            }
            match deadline {
                None => self.shared.changed.wait(&mut state),
                Some(deadline) if Instant::now() >= deadline => {
                    return Err(ErrorInfo::local(ErrorKind::Timeout, format!("nothing came within {timeout_ms} ms")));
                }
                Some(deadline) => drop(self.shared.changed.wait_until(&mut state, deadline)),
            }
        }
    }

    fn close(&self) {
        if self.is_forked() {
            return;
        }
        self.port.close();
        let items = {
            let mut state = self.shared.state.lock();
            state.closed = true;
            std::mem::take(&mut state.items)
        };
        self.shared.changed.notify_all();
        drop(items);
        self.shared.callback.lock().set(None);
    }

    #[cfg(unix)]
    fn descriptor(&self) -> std::io::Result<i32> {
        use std::os::fd::AsRawFd;
        let mut state = self.shared.state.lock();
        let state = &mut *state;
        if let Some(descriptor) = &state.descriptor {
            return Ok(descriptor.reader.as_raw_fd());
        }
        let (reader, writer) = std::io::pipe()?;
        let number = reader.as_raw_fd();
        let mut descriptor = Descriptor { reader, writer };
        if state.signalled {
            descriptor.show(true);
        }
        state.descriptor = Some(descriptor);
        Ok(number)
    }
}

/// Makes a port. `wake` may be NULL; if it is not, `user_data` must stay valid until the port is closed or freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_port_new(
    core: *const arcp_core,
    wake: arcp_wake,
    user_data: *mut c_void,
    port: *mut *mut arcp_port,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            let out = Out::new(port, "port")?;
            let callback = wake.map(|function| Callback { function, user_data });
            out.give(arcp_port::new(reference(core, "core")?.core.clone(), callback));
            Ok(())
        })
    }
}

/// Takes the next item, or `ARCP_ITEM_NONE` when none waits; never blocks. What `item` held before is overwritten, not
/// freed: give each item to `arcp_item_clear`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_port_next(
    port: *const arcp_port,
    item: *mut arcp_item,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            arcp_item::prepare(item)?;
            let port = reference(port, "port")?;
            if let Some(next) = port.next()? {
                item.write(arcp_item::of(port, next));
            }
            Ok(())
        })
    }
}

/// Blocks until an item waits. Fails with `ARCP_WAIT_TIMEOUT` when none has come after `timeout_ms` (below 0: no limit)
/// and with `ARCP_CLOSED` when the port is closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_port_wait(
    port: *const arcp_port,
    timeout_ms: i64,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            let port = reference(port, "port")?;
            Ok(port.wait(timeout_ms, |items| (!items.is_empty()).then_some(()))?)
        })
    }
}

/// Blocks until this call completes and takes its item out of the port; all others stay, in order. A call that failed
/// fails this function with its error, and `item` is `ARCP_ITEM_NONE`. Fails with `ARCP_WAIT_TIMEOUT` (the call goes on
/// and can be waited for again) and `ARCP_CLOSED` as `arcp_port_wait`; with neither, a call whose number is in use
/// nowhere is waited for in vain. `item` may be NULL when only success matters.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_port_wait_call(
    port: *const arcp_port,
    call: u64,
    timeout_ms: i64,
    item: *mut arcp_item,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            if !item.is_null() {
                arcp_item::prepare(item)?;
            }
            let port = reference(port, "port")?;
            let outcome = port.wait(timeout_ms, |items| {
                let at = items.iter().position(|item| matches!(item, Item::Completed { call: c, .. } if *c == call))?;
                match items.remove(at) {
                    Some(Item::Completed { outcome, .. }) => Some(outcome),
                    _ => None,
                }
            })?;
            let outcome = Ok(outcome?);
            if !item.is_null() {
                item.write(arcp_item::of(port, Item::Completed { call, outcome }));
            }
            Ok(())
        })
    }
}

/// Blocks until this stream is ready (`arcp_job_next_batch` said that nothing waits) and takes its item out of the port;
/// all others stay, in order. Fails as `arcp_port_wait`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_port_wait_stream(
    port: *const arcp_port,
    stream: u64,
    timeout_ms: i64,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            reference(port, "port")?.wait(timeout_ms, |items| {
                let at = items.iter().position(|item| matches!(item, Item::Ready { stream: s } if *s == stream))?;
                items.remove(at).map(drop)
            })?;
            Ok(())
        })
    }
}

/// A descriptor that is readable while items wait, for `poll` and its like. Only wait for it: it is read, written and
/// closed by the port, at the latest by `arcp_port_free`. -1 when the system has none left, and on Windows.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_port_fd(port: *const arcp_port) -> i32 {
    quietly(-1, || {
        // SAFETY: the header's rules.
        let Some(port) = (unsafe { port.as_ref() }) else { return -1 };
        #[cfg(unix)]
        return port.descriptor().unwrap_or(-1);
        #[cfg(not(unix))]
        return -1;
    })
}

/// Drops the work of a call. It completes no more, unless its item is on its way already.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_port_cancel_call(port: *const arcp_port, call: u64) {
    quietly((), || {
        // SAFETY: the header's rules.
        if let Some(port) = unsafe { port.as_ref() } {
            port.port.cancel_call(call);
        }
    });
}

/// Closes a port: what waits is dropped, the work of its calls too, jobs of agents behind it end as `INTERNAL_ERROR`,
/// blocked waits end with `ARCP_CLOSED`. When it returns, the callback has returned and is not called again; called
/// from inside the callback, the running call is the last. Closing twice is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_port_close(port: *const arcp_port) {
    quietly((), || {
        // SAFETY: the header's rules.
        if let Some(port) = unsafe { port.as_ref() } {
            port.close();
        }
    });
}

/// Closes and frees a port, and its descriptor with it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_port_free(port: *mut arcp_port) {
    // SAFETY: the header's rules.
    unsafe {
        let Some(closing) = port.as_ref().filter(|port| !port.is_forked()) else { return };
        quietly((), || {
            closing.close();
            // Agents of a runtime may keep the shared half alive.
            #[cfg(unix)]
            drop(closing.shared.state.lock().descriptor.take());
        });
        free(port);
    }
}
