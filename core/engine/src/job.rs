//! A client's jobs: their events and their ends.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use arcp_proto::Error as ProtocolError;
use arcp_proto::event::ResultChunk;
use arcp_proto::json::RawJson;
use arcp_proto::machine::client::{HandleKey, JobEvent, ResultParts};
use arcp_proto::message::{Accepted, JobResult, Subscribed};
use bytes::Bytes;
use parking_lot::Mutex;

use crate::client::Client;
use crate::error::Error;
use crate::events::{EventQueue, Load};
use crate::session::{Owner, Shared};

/// One view of a job; dropping it lets the client forget the job.
pub(crate) struct View {
    shared: Arc<Shared>,
    _owner: Arc<Owner>,
    key: HandleKey,
    queue: Arc<EventQueue>,
    job_id: String,
    /// What was seen of a result that is taken chunk by chunk.
    parts: Mutex<Option<ResultParts>>,
}

impl View {
    pub(crate) fn new(client: &Client, key: HandleKey, queue: Arc<EventQueue>, job_id: String) -> Self {
        View {
            shared: Arc::clone(&client.shared),
            _owner: Arc::clone(&client.owner),
            key,
            queue,
            job_id,
            parts: Mutex::default(),
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.shared.forget(self.key);
        let (awaited, positions) = self.queue.stop_reading();
        self.shared.took(awaited, positions);
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

    pub(crate) fn found(view: View) -> Self {
        JobHandle { view: Arc::new(view), accepted: None }
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
        let mut awaited = Load::default();
        let polled = self.view.queue.poll_batch(cx, max, batch, &mut awaited);
        if batch.len() > before {
            self.view.shared.took(awaited, batch[before..].iter().map(|event| event.position));
        }
        polled
    }

    /// Tells that nobody reads the events any more, until the next call that does. The job then waits for no reader:
    /// what is not read counts as processed, and only the newest events are kept.
    pub fn stop_reading(&self) {
        let (awaited, positions) = self.view.queue.stop_reading();
        self.view.shared.took(awaited, positions);
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// The job's own error; `Closed` or `Transport` when the session ends first.
    pub async fn result(&self) -> Result<JobResult, Error> {
        self.view.queue.ended().await.map(|result| *result)
    }

    /// Waits for the end; the whole of a streamed result, or the JSON text of an inline one.
    ///
    /// # Errors
    /// As [`JobHandle::result`], which also fails when a streamed result is not whole or longer than
    /// `max_result_bytes`; `INVALID_REQUEST` when the chunks were taken with [`JobHandle::next_chunk`].
    pub async fn result_bytes(&self) -> Result<Bytes, Error> {
        let result = self.result().await?;
        if let Some(bytes) = self.view.queue.result_bytes() {
            return Ok(bytes);
        }
        match (result.result, result.result_id) {
            (Some(inline), _) => Ok(Bytes::copy_from_slice(inline.get().as_bytes())),
            (None, None) => Ok(Bytes::from_static(b"null")),
            (None, Some(_)) => {
                Err(ProtocolError::invalid("the result was taken chunk by chunk, so it is not held as a whole").into())
            }
        }
    }

    /// Waits for the end; the result as JSON, streamed or inline.
    ///
    /// # Errors
    /// As [`JobHandle::result_bytes`]; `INVALID_REQUEST` when a streamed result is not JSON.
    pub async fn result_value(&self) -> Result<RawJson, Error> {
        let bytes = self.result_bytes().await?;
        let text = std::str::from_utf8(&bytes)
            .map_err(|_| ProtocolError::invalid("the streamed result is not text; take it with result_bytes"))?;
        Ok(RawJson::parse(text)?)
    }

    /// The next chunk of a streamed result, for one that is too long to hold in memory; `None` after the last.
    /// From the first call on the result is not put together any more, and other events are passed over: call it before
    /// the job has sent more than a handle that nobody reads keeps (100 000 events or 16 MiB).
    ///
    /// # Errors
    /// `INVALID_REQUEST` when a chunk is missing or comes again; the job's own error.
    pub async fn next_chunk(&self) -> Result<Option<ResultChunk>, Error> {
        self.leave_chunks();
        while let Some(event) = self.next_event().await {
            if event.kind() == "result_chunk" {
                return self.take_chunk(&event).map(Some);
            }
        }
        self.finish_chunks(&self.result().await?)?;
        Ok(None)
    }

    /// From now on the chunks of a streamed result are taken from among the events, each to be handed to
    /// [`JobHandle::take_chunk`], and the result is not put together any more. For hosts that read both.
    pub fn leave_chunks(&self) {
        let first = {
            let mut parts = self.view.parts.lock();
            let first = parts.is_none();
            parts.get_or_insert_default();
            first
        };
        if first {
            self.view.shared.leave_chunks(self.view.key);
        }
    }

    /// Reads a `result_chunk` event as the next chunk.
    ///
    /// # Errors
    /// `INVALID_REQUEST` when a chunk is missing or comes again.
    pub fn take_chunk(&self, event: &JobEvent) -> Result<ResultChunk, Error> {
        let chunk = ResultChunk::read(RawJson::parse(event.body())?.as_raw())?;
        if let Some(parts) = &mut *self.view.parts.lock() {
            parts.take(&chunk)?;
        }
        Ok(chunk)
    }

    /// After the last chunk: whether they are the whole result.
    ///
    /// # Errors
    /// `INVALID_REQUEST` when they are not.
    pub fn finish_chunks(&self, result: &JobResult) -> Result<(), Error> {
        if let (Some(_), Some(parts)) = (&result.result_id, &*self.view.parts.lock()) {
            parts.finish(result)?;
        }
        Ok(())
    }

    /// How many events were dropped before anybody read, the oldest first.
    pub fn dropped(&self) -> u64 {
        self.view.queue.dropped()
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
