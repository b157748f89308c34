//! The way back into a host: completions, invocations, logs, in batches, with one wake-up per batch.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::task::AbortHandle;

use crate::client::TokenRequest;
use crate::error::ErrorInfo;
use crate::host_request::HostRequest;
use crate::invocation::{Invocation, VerifyRequest};
use crate::job::JobView;
use crate::log::LogRecord;
use crate::transport::{ListenerHandle, TransportHandle};

/// Wakes a host's loop; called from any thread, never with a lock of the core held.
pub trait Wake: Send + Sync + 'static {
    /// Makes the host drain the port soon. Must not block.
    fn wake(&self);
}

/// What a call completes with.
pub enum Value {
    /// Done.
    Nothing,
    /// JSON text.
    Json(String),
    /// Bytes.
    Bytes(Bytes),
    /// A submitted or followed job.
    Job(Arc<JobView>),
    /// An open transport.
    Transport(Arc<TransportHandle>),
    /// A running listener.
    Listener(Arc<ListenerHandle>),
    /// Received messages as JSON text, at least one; empty at the end.
    Frames(Vec<String>),
}

/// One thing for the host to do.
pub enum Item {
    /// A call is done.
    Completed {
        /// The number the host gave.
        call: u64,
        /// What came of it.
        outcome: Result<Value, ErrorInfo>,
    },
    /// A job view has events, or has ended: take them with `next_batch`.
    Ready {
        /// The number the host gave.
        stream: u64,
    },
    /// Run an agent, then answer with [`Invocation::complete`].
    Invoke(Arc<Invocation>),
    /// Make that agent give way; it still answers with [`Invocation::complete`].
    Cancel {
        /// The [`Invocation::id`].
        invocation: u64,
        /// `cancelled`, `timed_out` or `lease_expired`.
        cause: &'static str,
        /// The reason given for a cancellation, else empty.
        reason: String,
    },
    /// The job has its terminal; nothing its agent does counts any more.
    Abandoned {
        /// The [`Invocation::id`].
        invocation: u64,
    },
    /// Say who a token belongs to.
    Verify(VerifyRequest),
    /// Ask something the host has plugged into a runtime. Dropped unanswered, the safe side is taken: a policy lets nobody
    /// in, nothing is issued, what could not be revoked is tried again.
    Ask(HostRequest),
    /// Give a client's token.
    Token(TokenRequest),
    /// For the host's own logging.
    Log(LogRecord),
}

/// A host loop's queue. Cheap to clone; all clones are one port.
#[derive(Clone)]
pub struct Port {
    inner: Arc<Inner>,
}

struct Inner {
    wake: Box<dyn Wake>,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    items: VecDeque<Item>,
    calls: HashMap<u64, AbortHandle>,
    closed: bool,
    logs: usize,
}

/// Log records that may wait; beyond it new ones are dropped.
const MAX_LOGS: usize = 1024;

impl Port {
    /// A port that wakes its host through `wake`.
    pub fn new(wake: impl Wake) -> Self {
        Port { inner: Arc::new(Inner { wake: Box::new(wake), queue: Mutex::default() }) }
    }

    /// Moves up to `max` items into `batch`; whether more wait. Until this has returned `false` no further wake-up comes,
    /// so a host that stops early must come back by itself.
    pub fn drain(&self, max: usize, batch: &mut Vec<Item>) -> bool {
        let mut queue = self.inner.queue.lock();
        let taken = queue.items.len().min(max);
        for _ in 0..taken {
            let Some(item) = queue.items.pop_front() else { break };
            match &item {
                Item::Completed { call, .. } => {
                    queue.calls.remove(call);
                }
                Item::Log(_) => queue.logs -= 1,
                _ => {}
            }
            batch.push(item);
        }
        !queue.items.is_empty()
    }

    /// Drops the work of a call; it completes no more.
    pub fn cancel_call(&self, call: u64) {
        let task = self.inner.queue.lock().calls.remove(&call);
        if let Some(task) = task {
            task.abort();
        }
    }

    /// Takes nothing more, drops what waits and the work of every call. The host's loop is gone.
    pub fn close(&self) {
        let (items, calls) = {
            let mut queue = self.inner.queue.lock();
            queue.closed = true;
            (std::mem::take(&mut queue.items), std::mem::take(&mut queue.calls))
        };
        for task in calls.into_values() {
            task.abort();
        }
        // Outside the lock: dropping an invocation reports back.
        drop(items);
    }

    /// Whether the port takes anything.
    pub fn is_closed(&self) -> bool {
        self.inner.queue.lock().closed
    }

    /// Queues an item; `false`, with the item dropped, when the port is closed.
    pub(crate) fn push(&self, item: Item) -> bool {
        let mut queue = self.inner.queue.lock();
        if queue.closed {
            drop(queue);
            drop(item);
            return false;
        }
        if matches!(item, Item::Log(_)) {
            if queue.logs >= MAX_LOGS {
                return true;
            }
            queue.logs += 1;
        }
        let was_empty = queue.items.is_empty();
        queue.items.push_back(item);
        drop(queue);
        if was_empty {
            self.inner.wake.wake();
        }
        true
    }

    /// Runs `work` on the core's threads and completes `call` with what comes of it.
    pub(crate) fn spawn(
        &self,
        tokio: &tokio::runtime::Handle,
        call: u64,
        work: impl Future<Output = Result<Value, ErrorInfo>> + Send + 'static,
    ) {
        let port = self.clone();
        // Held until the task is registered, so that it cannot complete before.
        let mut queue = self.inner.queue.lock();
        if queue.closed {
            return;
        }
        let task = tokio.spawn(async move {
            let outcome = work.await;
            port.push(Item::Completed { call, outcome });
        });
        queue.calls.insert(call, task.abort_handle());
    }
}
