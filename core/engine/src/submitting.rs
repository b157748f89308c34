//! Submits and ends that are told to a callback: a host's loop sends many at once, and no task waits for any of them.

use std::sync::{Arc, Weak};

use arcp_proto::machine::client::Ticket;
use arcp_proto::message::{JobResult, Submit};
use arcp_proto::trace::TraceContext;

use crate::client::{Client, too_many};
use crate::error::Error;
use crate::events::EventQueue;
use crate::job::JobHandle;
use crate::session::{Answer, Asker, Shared};

/// Called once, without a lock, from any thread.
pub type Told<T> = Box<dyn FnOnce(Result<T, Error>) + Send>;

/// One submit of many.
pub struct SubmitCall {
    /// What is submitted.
    pub submit: Submit,
    /// The trace it is to be a part of; a new one when `None`.
    pub trace: Option<SubmitTrace>,
    /// Told what [`Client::submit`] gives.
    pub then: Told<JobHandle>,
}

/// The trace of a submit.
pub enum SubmitTrace {
    /// 32 hex digits or a whole `traceparent`, as for [`Client::submit`].
    Id(String),
    /// It rides along for the agent, as for [`Client::submit_traced`].
    Context(TraceContext),
}

/// A submit that was sent and not answered yet. Dropped, it goes on.
pub struct PendingSubmit {
    shared: Weak<Shared>,
    ticket: Ticket,
    /// A retry under the same key finds the job again, so it is left to run.
    abandon: bool,
}

impl PendingSubmit {
    /// Nobody waits for the answer any more: undoes the submit as dropping [`Client::submit`] does.
    pub fn cancel(self) {
        let Some(shared) = self.shared.upgrade() else { return };
        let asker = shared.act_on_core(|core, _| {
            let asker = core.requests.remove(&self.ticket);
            if asker.is_some() && self.abandon {
                core.machine.abandon_submit(self.ticket);
            }
            asker
        });
        // It may hold the last handle of the client.
        drop(asker);
    }
}

impl Client {
    /// Sends these submits together, in order, and returns at once. `None` for those that were told already.
    pub fn submit_all(&self, calls: Vec<SubmitCall>) -> Vec<Option<PendingSubmit>> {
        let mut failed = Vec::new();
        let sent = self.shared.act_on_core(|core, now| {
            let mut sent = Vec::with_capacity(calls.len());
            for SubmitCall { submit, trace, then } in calls {
                // Under the lock: whoever ends the session answers what is registered by then.
                let refused = match self.shared.open() {
                    Ok(()) if core.machine.has_room() => None,
                    Ok(()) => Some(too_many()),
                    Err(error) => Some(error),
                };
                if let Some(error) = refused {
                    failed.push((then, error));
                    sent.push(None);
                    continue;
                }
                let ticket = match &trace {
                    Some(SubmitTrace::Context(context)) => core.machine.submit_traced(now, &submit, context),
                    Some(SubmitTrace::Id(id)) => core.machine.submit(now, &submit, Some(id)),
                    None => core.machine.submit(now, &submit, None),
                };
                let client = self.clone();
                let answered = move |answer| match answer {
                    Answer::Failed(error) => then(Err(error)),
                    answer => then(client.submitted(answer)),
                };
                core.requests.insert(ticket, Asker::Told(Box::new(answered)));
                let abandon = submit.idempotency_key.is_none();
                sent.push(Some(PendingSubmit { shared: Arc::downgrade(&self.shared), ticket, abandon }));
            }
            sent
        });
        for (then, error) in failed {
            then(Err(error));
        }
        sent
    }

    /// Whether both are one session.
    pub fn is_same(&self, other: &Client) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

/// Somebody is to be told of a job's end. Dropped, it goes on.
pub struct ResultWait {
    queue: Arc<EventQueue>,
    number: u64,
}

impl ResultWait {
    /// Nobody waits any more.
    pub fn cancel(self) {
        self.queue.stop_listening(self.number);
    }
}

impl JobHandle {
    /// What [`JobHandle::result`] gives, if the job has ended.
    pub fn result_now(&self) -> Option<Result<JobResult, Error>> {
        self.queue().end_now().map(|ended| ended.map(|result| *result))
    }

    /// Tells `then` what [`JobHandle::result`] gives, at once if the job has ended; it then gives `None`.
    pub fn result_then(&self, then: Told<JobResult>) -> Option<ResultWait> {
        let queue = Arc::clone(self.queue());
        let number = queue.when_ended(Box::new(move |ended| then(ended.map(|result| *result))))?;
        Some(ResultWait { queue, number })
    }
}
