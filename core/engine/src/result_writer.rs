//! How an agent writes a result in parts.

use std::fmt;

use arcp_proto::Error;
use arcp_proto::json::RawJson;
use arcp_proto::machine::job::Outcome;
use arcp_proto::machine::runtime::OpenedResult;
use tokio::task::coop;

use crate::context::JobContext;

/// A part of a result, on its way in.
#[derive(Clone, Copy, Debug)]
pub enum ResultData<'a> {
    /// Sent as text, cut between code points.
    Text(&'a str),
    /// Sent as base64.
    Bytes(&'a [u8]),
}

impl<'a> ResultData<'a> {
    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.as_bytes().len()
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What follows the first `taken` bytes, as [`Written::taken`] counts them; nothing if text has no boundary there.
    #[must_use]
    pub fn skip(self, taken: usize) -> ResultData<'a> {
        match self {
            ResultData::Text(text) => ResultData::Text(text.get(taken..).unwrap_or_default()),
            ResultData::Bytes(data) => ResultData::Bytes(data.get(taken..).unwrap_or_default()),
        }
    }

    fn as_bytes(&self) -> &'a [u8] {
        match self {
            ResultData::Text(text) => text.as_bytes(),
            ResultData::Bytes(data) => data,
        }
    }
}

/// How far [`ResultWriter::write_now`] got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Bytes taken; the rest is to be written after the wait.
    pub taken: usize,
    /// Whether to await [`JobContext::drained`] before the next write.
    pub must_wait: bool,
}

/// Writes the result of one job, in chunks. Every write makes chunks of its own, so that a reader gets it soon: gather
/// small pieces first. The newest chunk is kept back until the next one, [`ResultWriter::flush`] or the end (D-91).
///
/// Dropped without [`ResultWriter::finish`], the stream ends with the agent, if that succeeds; after a failure
/// the chunks are no result. For a client that did not negotiate `result_chunk` everything is collected and
/// sent whole, up to the inline cap: as text, or, if it is not UTF-8, as `{"encoding":"base64","data":…}`.
pub struct ResultWriter {
    context: JobContext,
    opened: OpenedResult,
}

impl ResultWriter {
    pub(crate) fn new(context: JobContext, opened: OpenedResult) -> Self {
        ResultWriter { context, opened }
    }

    /// The id every chunk and the `job.result` carry.
    pub fn result_id(&self) -> &str {
        self.opened.cutter.result_id()
    }

    /// Writes text, and waits while the client lags behind (D-20).
    ///
    /// # Errors
    /// `INTERNAL_ERROR` with `details.cap` over the total cap (256 MiB) or, where the result is sent whole, the inline cap
    /// (1 MiB): the job then ends in it. `INTERNAL_ERROR` while events cannot be stored.
    pub async fn write_text(&mut self, text: &str) -> Result<(), Error> {
        self.write(ResultData::Text(text)).await
    }

    /// Writes bytes, and waits while the client lags behind (D-20).
    ///
    /// # Errors
    /// As [`ResultWriter::write_text`].
    pub async fn write_bytes(&mut self, data: &[u8]) -> Result<(), Error> {
        self.write(ResultData::Bytes(data)).await
    }

    async fn write(&mut self, mut data: ResultData<'_>) -> Result<(), Error> {
        while !data.is_empty() {
            let written = self.write_part(data)?;
            data = data.skip(written.taken);
            if written.must_wait {
                self.context.drained().await;
            }
            // As an emitter does (D-23).
            coop::consume_budget().await;
        }
        Ok(())
    }

    /// Writes as much as may be written at once, and returns.
    ///
    /// # Errors
    /// As [`ResultWriter::write_text`].
    pub fn write_now(&mut self, data: ResultData<'_>) -> Result<Written, Error> {
        let mut all = Written { taken: 0, must_wait: false };
        while all.taken < data.len() && !all.must_wait {
            let written = self.write_part(data.skip(all.taken))?;
            all = Written { taken: all.taken + written.taken, must_wait: written.must_wait };
        }
        Ok(all)
    }

    /// Writes one chunk. It is cut and serialised without the machine's lock.
    fn write_part(&mut self, data: ResultData<'_>) -> Result<Written, Error> {
        let (job, shared) = self.context.place();
        if self.opened.inline {
            shared.act(|machine, _| machine.collect_result(job, data.as_bytes()))?;
            return Ok(Written { taken: data.len(), must_wait: false });
        }
        let at = shared.now().wall;
        let (part, left) = match data {
            ResultData::Text(text) => {
                let (part, rest) = self.opened.cutter.next_text(at, text);
                (part, rest.len())
            }
            ResultData::Bytes(bytes) => {
                let (part, rest) = self.opened.cutter.next_bytes(at, bytes);
                (part, rest.len())
            }
        };
        let must_wait = shared.act(|machine, now| {
            machine.write_result(now, job, part)?;
            Ok::<_, Error>(machine.must_wait(job))
        })?;
        Ok(Written { taken: data.len() - left, must_wait })
    }

    /// Sends the chunk that is kept back, for a reader that should not wait for the next. An empty chunk may then be needed
    /// to end the stream.
    pub fn flush(&self) {
        let (job, shared) = self.context.place();
        shared.act(|machine, now| machine.flush_result(now, job));
    }

    /// Ends the result; `summary` is a sentence for the `job.result`, of at most 64 KiB. What the agent returns after this
    /// is not sent (R-8.4.3, D-95).
    ///
    /// # Errors
    /// `INVALID_REQUEST` for a longer summary; the cap the result went over.
    pub fn finish(self, summary: Option<&str>) -> Result<(), Error> {
        let (job, shared) = self.context.place();
        shared.act(|machine, now| machine.close_result(now, job, summary))
    }
}

impl fmt::Debug for ResultWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResultWriter").field("opened", &self.opened).finish_non_exhaustive()
    }
}

/// Writes a value that is too long to be sent whole, at the pace of its reader.
pub(crate) async fn write_value(context: &JobContext, value: &RawJson) -> Outcome {
    let written = async {
        let mut writer = context.stream_result()?;
        writer.write_text(value.get()).await?;
        writer.finish(None)
    };
    tokio::select! {
        written = written => match written {
            Ok(()) => Outcome::Success(RawJson::null()),
            Err(error) => Outcome::Failed(error),
        },
        _ = context.given_up() => Outcome::Cancelled,
    }
}
