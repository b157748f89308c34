//! The way back into a host: completions, invocations, logs, in batches, with one wake-up per batch.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;

use arcp::{JobContext, Outcome, PendingSubmit, ResultWait, SubmitCall};
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
    calls: HashMap<u64, Work>,
    /// What leaves with the next flush.
    deferred: Vec<Deferred>,
    closed: bool,
    logs: usize,
}

/// What goes on for a call.
pub(crate) enum Work {
    /// Nothing that can be dropped yet.
    Begun,
    Task(AbortHandle),
    Submit(PendingSubmit),
    Result(ResultWait),
}

impl Work {
    fn drop_it(self) {
        match self {
            Work::Begun => {}
            Work::Task(task) => task.abort(),
            Work::Submit(submit) => submit.cancel(),
            Work::Result(wait) => wait.cancel(),
        }
    }
}

/// What a host says many times in one turn of its loop, and the core hears at once.
pub(crate) enum Deferred {
    Submit { call: u64, client: arcp::Client, submit: Box<SubmitCall> },
    Finish(Box<(JobContext, Outcome)>),
    Request { call: u64, handle: tokio::runtime::Handle, request: Request },
}

/// A request to a registry and what it completes with.
pub(crate) type Request = Pin<Box<dyn Future<Output = Result<Value, ErrorInfo>> + Send>>;

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
        let work = self.inner.queue.lock().calls.remove(&call);
        if let Some(work) = work {
            work.drop_it();
        }
    }

    /// Keeps this for the next [`Port::flush`]; whether it is the first, so that the host has to flush soon.
    pub(crate) fn defer(&self, deferred: Deferred) -> bool {
        let mut queue = self.inner.queue.lock();
        if queue.closed {
            drop(queue);
            // The loop that would flush is gone: nobody waits for a submit, and an answer counts nevertheless.
            send(self, vec![deferred], |_| false, |_, _| {});
            return false;
        }
        if let Deferred::Submit { call, .. } | Deferred::Request { call, .. } = &deferred {
            queue.calls.insert(*call, Work::Begun);
        }
        queue.deferred.push(deferred);
        queue.deferred.len() == 1
    }

    /// Sends what was deferred since the last flush: one turn of the host's loop makes one batch of it.
    pub fn flush(&self) {
        let deferred = std::mem::take(&mut self.inner.queue.lock().deferred);
        if !deferred.is_empty() {
            send(self, deferred, |call| self.is_wanted(call), |call, work| self.began(call, work));
        }
    }

    /// Whether the call was not dropped meanwhile.
    fn is_wanted(&self, call: u64) -> bool {
        self.inner.queue.lock().calls.contains_key(&call)
    }

    /// Whether this call may begin: the port is open.
    pub(crate) fn begin(&self, call: u64) -> bool {
        let mut queue = self.inner.queue.lock();
        if !queue.closed {
            queue.calls.insert(call, Work::Begun);
        }
        !queue.closed
    }

    /// What [`Port::cancel_call`] has to drop from now on; dropped at once when it was called already.
    pub(crate) fn began(&self, call: u64, work: Work) {
        let mut queue = self.inner.queue.lock();
        match queue.calls.get_mut(&call) {
            Some(place) => *place = work,
            None => {
                drop(queue);
                // Also when the call has completed: there is nothing left to drop then.
                work.drop_it();
            }
        }
    }

    /// Completes a call.
    pub(crate) fn complete(&self, call: u64, outcome: Result<Value, ErrorInfo>) {
        self.push(Item::Completed { call, outcome });
    }

    /// Takes nothing more, drops what waits and the work of every call. The host's loop is gone.
    pub fn close(&self) {
        let deferred;
        let (items, calls) = {
            let mut queue = self.inner.queue.lock();
            queue.closed = true;
            deferred = std::mem::take(&mut queue.deferred);
            (std::mem::take(&mut queue.items), std::mem::take(&mut queue.calls))
        };
        send(self, deferred, |_| false, |_, _| {});
        for work in calls.into_values() {
            work.drop_it();
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
        queue.calls.insert(call, Work::Task(task.abort_handle()));
    }
}

/// Hands over what was deferred: submits of one client in one step, and the ends of all jobs of a runtime.
fn send(port: &Port, deferred: Vec<Deferred>, wanted: impl Fn(u64) -> bool, began: impl Fn(u64, Work)) {
    let mut submits: Vec<(arcp::Client, Vec<u64>, Vec<SubmitCall>)> = Vec::new();
    let mut finished = Vec::new();
    for item in deferred {
        match item {
            Deferred::Finish(answer) => finished.push(*answer),
            Deferred::Submit { call, client, submit } if wanted(call) => {
                let place = submits.iter().position(|(known, ..)| known.is_same(&client)).unwrap_or_else(|| {
                    submits.push((client, Vec::new(), Vec::new()));
                    submits.len() - 1
                });
                submits[place].1.push(call);
                submits[place].2.push(*submit);
            }
            Deferred::Request { call, handle, request } if wanted(call) => {
                let told = port.clone();
                let task = handle.spawn(async move { told.complete(call, request.await) });
                began(call, Work::Task(task.abort_handle()));
            }
            Deferred::Submit { .. } | Deferred::Request { .. } => {}
        }
    }
    JobContext::finish_all(finished);
    for (client, calls, submits) in submits {
        for (call, pending) in calls.into_iter().zip(client.submit_all(submits)) {
            if let Some(pending) = pending {
                began(call, Work::Submit(pending));
            }
        }
    }
}
