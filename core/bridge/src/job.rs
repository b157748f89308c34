//! A client's view of one job, read in batches.

use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake as TaskWake, Waker};

use arcp::message::JobResult;
use arcp::{Error, JobEvent, JobHandle, Subscription};

use crate::core::Core;
use crate::error::ErrorInfo;
use crate::port::{Item, Port, Value, Work};

/// A submitted or a followed job.
pub struct JobView {
    job: JobHandle,
    /// Written when it is first asked for.
    opening: OnceLock<String>,
}

/// What [`JobView::next_batch`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextBatch {
    /// At least one event was appended.
    Some,
    /// Nothing yet: an [`Item::Ready`] follows, once.
    Empty,
    /// Nothing, and nothing will come.
    Ended,
}

impl JobView {
    pub(crate) fn submitted(job: JobHandle) -> Self {
        JobView { job, opening: OnceLock::new() }
    }

    pub(crate) fn followed(subscription: &Subscription) -> Result<Self, ErrorInfo> {
        let opening = to_json(subscription.subscribed())?;
        Ok(JobView { job: subscription.handle().clone(), opening: OnceLock::from(opening) })
    }

    /// The job.
    pub fn job_id(&self) -> &str {
        self.job.job_id()
    }

    /// The payload of `job.accepted` or `job.subscribed` as JSON. May hold credentials, which are secret.
    pub fn opening(&self) -> &str {
        self.opening.get_or_init(|| to_json(&self.job.accepted()).unwrap_or_else(|_| "null".to_owned()))
    }

    /// Appends up to `max` events to `batch`. What is taken counts as processed; from the first call on nothing is lost.
    /// When there is nothing yet, the port gets one [`Item::Ready`] with this number. One reader at a time.
    pub fn next_batch(&self, port: &Port, stream: u64, max: usize, batch: &mut Vec<JobEvent>) -> NextBatch {
        let waker = Waker::from(Arc::new(Announce { port: port.clone(), stream }));
        let mut cx = Context::from_waker(&waker);
        match self.job.poll_events(&mut cx, max, batch) {
            Poll::Ready(true) => NextBatch::Some,
            Poll::Ready(false) => NextBatch::Ended,
            Poll::Pending => NextBatch::Empty,
        }
    }

    /// Tells that nobody reads the events any more, until the next [`JobView::next_batch`]: the job then waits for no
    /// reader, and only the newest events are kept.
    pub fn stop_reading(&self) {
        self.job.stop_reading();
    }

    /// From now on the chunks of a streamed result are taken from among the events, each to be handed to
    /// [`JobView::take_chunk`]; the result is not put together any more.
    pub fn leave_chunks(&self) {
        self.job.leave_chunks();
    }

    /// Checks that a `result_chunk` event is the next chunk.
    ///
    /// # Errors
    /// `INVALID_REQUEST` when a chunk is missing or comes again.
    pub fn take_chunk(&self, event: &JobEvent) -> Result<(), ErrorInfo> {
        self.job.take_chunk(event)?;
        Ok(())
    }

    /// After the last chunk: waits for the end, and completes when the chunks were the whole result.
    ///
    /// # Errors
    /// At once when the core is gone; else through the port: the job's error, `INVALID_REQUEST` when chunks are missing.
    pub fn finish_chunks(&self, core: &Core, port: &Port, call: u64) -> Result<(), ErrorInfo> {
        let handle = core.handle()?;
        let job = self.job.clone();
        port.spawn(&handle, call, async move {
            job.finish_chunks(&job.result().await?)?;
            Ok(Value::Nothing)
        });
        Ok(())
    }

    /// Waits for the end; completes with the payload of `job.result` as JSON, or with the job's error.
    ///
    /// # Errors
    /// At once when the core is gone.
    pub fn result(&self, core: &Core, port: &Port, call: u64) -> Result<(), ErrorInfo> {
        core.handle()?;
        self.tell_result(port, call);
        Ok(())
    }

    /// As [`JobView::result`], for hosts that see by themselves that their process was not forked.
    pub fn tell_result(&self, port: &Port, call: u64) {
        if port.begin(call) {
            let told = port.clone();
            let then = move |ended: Result<JobResult, Error>| told.complete(call, payload(ended).map(Value::Json));
            if let Some(wait) = self.job.result_then(Box::new(then)) {
                port.began(call, Work::Result(wait));
            }
        }
    }

    /// What [`JobView::result`] completes with, if the job has ended.
    ///
    /// # Errors
    /// The job's error.
    pub fn result_now(&self) -> Result<Option<String>, ErrorInfo> {
        self.job.result_now().map(payload).transpose()
    }
}

impl JobView {
    /// Waits for the end; completes with [`Value::Bytes`]: the whole of a streamed result, or the JSON text of an inline
    /// one.
    ///
    /// # Errors
    /// At once when the core is gone; else through the port, when a chunk is missing or the result is too long.
    pub fn result_bytes(&self, core: &Core, port: &Port, call: u64) -> Result<(), ErrorInfo> {
        let handle = core.handle()?;
        let job = self.job.clone();
        port.spawn(&handle, call, async move { Ok(Value::Bytes(job.result_bytes().await?)) });
        Ok(())
    }

    /// How many events were dropped before anybody read.
    pub fn dropped(&self) -> u64 {
        self.job.queue().dropped()
    }
}

/// Says that a stream has something.
pub(crate) struct Announce {
    pub(crate) port: Port,
    pub(crate) stream: u64,
}

impl TaskWake for Announce {
    fn wake(self: Arc<Self>) {
        self.port.push(Item::Ready { stream: self.stream });
    }
}

fn payload(ended: Result<JobResult, Error>) -> Result<String, ErrorInfo> {
    to_json(&ended?)
}

fn to_json(payload: &impl serde::Serialize) -> Result<String, ErrorInfo> {
    serde_json::to_string(payload).map_err(|error| ErrorInfo::argument(error.to_string()))
}
