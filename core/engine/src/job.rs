//! A client's jobs: their events and their ends.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use arcp_proto::machine::client::{HandleKey, JobEvent};
use arcp_proto::message::{Accepted, JobResult, Subscribed};

use crate::client::{Client, Owner, Shared};
use crate::error::Error;
use crate::events::EventQueue;

/// One view of a job; dropping it lets the client forget the job.
pub(crate) struct View {
    shared: Arc<Shared>,
    _owner: Arc<Owner>,
    key: HandleKey,
    queue: Arc<EventQueue>,
    job_id: String,
}

impl View {
    pub(crate) fn new(client: &Client, key: HandleKey, queue: Arc<EventQueue>, job_id: String) -> Self {
        View { shared: Arc::clone(&client.shared), _owner: Arc::clone(&client.owner), key, queue, job_id }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.shared.forget(self.key);
        let awaited = self.queue.stop_reading();
        self.shared.took(awaited.len(), awaited);
    }
}

/// A job this session submitted or follows. Cheap to clone; clones share the events.
#[derive(Clone)]
pub struct JobHandle {
    view: Arc<View>,
    accepted: Option<Arc<Accepted>>,
}

impl JobHandle {
    pub(crate) fn submitted(view: View, accepted: Accepted) -> Self {
        JobHandle { view: Arc::new(view), accepted: Some(Arc::new(accepted)) }
    }

    /// The job.
    pub fn job_id(&self) -> &str {
        &self.view.job_id
    }

    /// The answer to the submit; `None` for a job that is only followed.
    pub fn accepted(&self) -> Option<&Accepted> {
        self.accepted.as_deref()
    }

    /// The next event; `None` after the last. From the first call on no event is lost.
    pub async fn next_event(&self) -> Option<JobEvent> {
        let mut batch = Vec::with_capacity(1);
        poll_fn(|cx| self.poll_events(cx, 1, &mut batch)).await;
        batch.pop()
    }

    /// Moves up to `max` events into `batch`, waiting for at least one; `false` after the last.
    pub async fn next_events(&self, max: usize, batch: &mut Vec<JobEvent>) -> bool {
        poll_fn(|cx| self.poll_events(cx, max, batch)).await
    }

    /// Moves up to `max` events into `batch`: ready with `true` when there are some, with `false` once the job has ended
    /// and all were taken. What is taken counts as processed. One reader at a time is woken.
    pub fn poll_events(&self, cx: &mut Context<'_>, max: usize, batch: &mut Vec<JobEvent>) -> Poll<bool> {
        let before = batch.len();
        let mut awaited = 0;
        let polled = self.view.queue.poll_batch(cx, max, batch, &mut awaited);
        if batch.len() > before {
            self.view.shared.took(awaited, batch[before..].iter().map(|event| event.event_seq));
        }
        polled
    }

    /// Tells that nobody reads the events any more, until the next call that does. The job then waits for no reader:
    /// what is not read counts as processed, and only the newest events are kept.
    pub fn stop_reading(&self) {
        let awaited = self.view.queue.stop_reading();
        self.view.shared.took(awaited.len(), awaited);
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// The job's own error; `Closed` or `Transport` when the session ends first.
    pub async fn result(&self) -> Result<JobResult, Error> {
        self.view.queue.ended().await.map(|result| *result)
    }

    /// The events and the end, for hosts that poll.
    pub fn queue(&self) -> &Arc<EventQueue> {
        &self.view.queue
    }
}

/// A job this session follows.
#[derive(Clone)]
pub struct Subscription {
    handle: JobHandle,
    subscribed: Arc<Subscribed>,
}

impl Subscription {
    pub(crate) fn new(view: View, subscribed: Subscribed) -> Self {
        let handle = JobHandle { view: Arc::new(view), accepted: None };
        Subscription { handle, subscribed: Arc::new(subscribed) }
    }

    /// Its events and its end.
    pub fn handle(&self) -> &JobHandle {
        &self.handle
    }

    /// The answer to the subscribe.
    pub fn subscribed(&self) -> &Subscribed {
        &self.subscribed
    }
}
