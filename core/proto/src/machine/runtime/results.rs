//! Results: sent whole, or in chunks written by the agent or by the runtime itself (section 8.4).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::emission::ENVELOPE_ROOM;
use super::{JobKey, RuntimeMachine};
use crate::error::Error;
use crate::event::EventKind;
use crate::feature::Feature;
use crate::json::{Fields, RawJson};
use crate::machine::frame::RecordKind;
use crate::machine::result_stream::{Chunk, ResultCutter, ResultOptions, ResultPart, ResultStream, over};
use crate::message::{JobResult, JobStatus};
use crate::time::Now;

/// Bytes; a summary is a sentence.
const LONGEST_SUMMARY: usize = 64 << 10;

/// How an agent's result is to be written.
#[derive(Debug)]
pub struct OpenedResult {
    /// Cuts it into chunks for [`RuntimeMachine::write_result`].
    pub cutter: ResultCutter,
    /// The submitting session did not negotiate `result_chunk`: everything goes to [`RuntimeMachine::collect_result`], and
    /// is sent whole.
    pub inline: bool,
}

/// Bytes that are no text, sent whole.
#[derive(Serialize)]
struct InlineBytes<'a> {
    encoding: &'a str,
    data: &'a str,
}

impl RuntimeMachine {
    /// Opens the one result stream of a job.
    ///
    /// # Errors
    /// `INVALID_REQUEST` when the job has a result stream already, or an option is out of bounds.
    pub fn open_result(&mut self, now: Now, job: JobKey, options: ResultOptions) -> Result<OpenedResult, Error> {
        options.check(&self.config.results)?;
        let streamed = self.takes_chunks(job);
        let result_id = options.result_id.unwrap_or_else(|| self.ids.result_id(now.wall));
        let cutter = self.cutter(result_id.clone(), options.chunk_bytes);
        if let Some(entry) = self.jobs.get_mut(&job).filter(|job| !job.status.is_terminal()) {
            if entry.stream.is_some() {
                return Err(Error::invalid("the job has a result stream already: a job has one result"));
            }
            entry.stream = Some(Box::new(ResultStream::new(result_id, false, streamed)));
        }
        Ok(OpenedResult { cutter, inline: !streamed })
    }

    /// Takes the next chunk of an opened result, and sends the one before it. Chunks of a job that has ended are dropped.
    ///
    /// # Errors
    /// `INTERNAL_ERROR` with `details.cap` `result_chunk_bytes` or `result_bytes` over a cap, in which the job then ends
    /// and while the store cannot keep events; `INVALID_REQUEST` after the end or out of order.
    pub fn write_result(&mut self, now: Now, job: JobKey, part: ResultPart) -> Result<(), Error> {
        self.check_store()?;
        let caps = self.config.results;
        let Some(stream) = self.stream(job) else { return Ok(()) };
        if let Some(before) = stream.hold(&caps, part)? {
            self.append_part(now, job, before, true);
        }
        Ok(())
    }

    /// Adds to a result that is sent whole.
    ///
    /// # Errors
    /// `INTERNAL_ERROR` with `details.cap` `inline_result` over that cap, in which the job then ends; `INVALID_REQUEST`
    /// after the end.
    pub fn collect_result(&mut self, job: JobKey, data: &[u8]) -> Result<(), Error> {
        let caps = self.config.results;
        self.stream(job).map_or(Ok(()), |stream| stream.collect(&caps, data))
    }

    /// Sends the chunk that is kept back until it is known whether another follows (D-91).
    pub fn flush_result(&mut self, now: Now, job: JobKey) {
        if let Some(part) = self.stream(job).and_then(|stream| stream.release()) {
            self.append_part(now, job, part, true);
        }
    }

    /// Ends the result stream, if the agent has not ended it itself, and keeps `summary` for the `job.result`.
    ///
    /// # Errors
    /// `INVALID_REQUEST` without a stream, or for a summary of more than 64 KiB; the cap the result went over.
    pub fn close_result(&mut self, now: Now, job: JobKey, summary: Option<&str>) -> Result<(), Error> {
        if let Some(length) = summary.map(str::len).filter(|length| *length > LONGEST_SUMMARY) {
            let message = format!("summary may have at most {LONGEST_SUMMARY} bytes, got {length}; send a sentence");
            return Err(Error::invalid(message));
        }
        if self.jobs.get(&job).is_none_or(|job| job.status.is_terminal() || job.family.held.is_some()) {
            return Ok(());
        }
        let Some(stream) = self.stream(job) else {
            return Err(Error::invalid("the job has no result stream to end; write its result first"));
        };
        if let Some(fault) = &stream.fault {
            return Err(fault.clone());
        }
        stream.summary = summary.map(str::to_owned);
        if let Some(last) = stream.end(now.wall) {
            self.append_part(now, job, last, false);
        }
        Ok(())
    }

    /// Whether an agent that returns a value of this many bytes should write it as a stream instead, because it is too
    /// long to be sent whole. Left to [`RuntimeMachine::finish`], its chunks leave all at once.
    pub fn should_stream(&self, job: JobKey, bytes: usize) -> bool {
        let live = self.jobs.get(&job).is_some_and(|job| !job.status.is_terminal() && job.stream.is_none());
        live && bytes > self.inline_cap() && self.takes_chunks(job)
    }

    /// A chunk the agent made by hand. The body must have passed [`crate::event::check_emitted`].
    pub(super) fn emit_result_chunk(&mut self, now: Now, job: JobKey, body: &RawJson) -> Result<(), Error> {
        let fields = Fields::read("result_chunk.body", body.as_raw())?;
        let data = fields.str("data", "the part of the result")?;
        let base64 = fields.opt_str("encoding", "\"utf8\" or \"base64\"")?.is_some_and(|encoding| encoding == "base64");
        let result_id = fields.non_empty("result_id", "the id of the result")?;
        let chunk = Chunk {
            result_id: &result_id,
            chunk_seq: fields.u64("chunk_seq", 0)?,
            decoded: if base64 { decoded_length(&data) } else { data.len() },
            // Without the quotes.
            text: fields.raw("data").map_or(0, |raw| raw.get().len().saturating_sub(2)),
            more: fields.opt_bool("more")?.unwrap_or(true),
        };
        let streamed = self.takes_chunks(job);
        let caps = self.config.results;
        let Some(entry) = self.jobs.get_mut(&job) else { return Ok(()) };
        let stream =
            entry.stream.get_or_insert_with(|| Box::new(ResultStream::new(result_id.to_string(), true, streamed)));
        stream.take_by_hand(&caps, &chunk)?;
        if stream.inline.is_some() {
            return match base64 {
                true => stream.collect(&caps, &crate::event::ResultChunk::read(body.as_raw())?.data),
                false => stream.collect(&caps, data.as_bytes()),
            };
        }
        entry.chunked = true;
        self.append_event(now, job, EventKind::ResultChunk.as_str(), Some(Feature::ResultChunk), body);
        Ok(())
    }

    /// What the terminal of a job says of its result. After chunks that is their id and size: the stream is ended if the
    /// agent forgot to, and what the agent returned is not sent (R-8.4.3, D-95). After a failure the chunks that
    /// were sent are no result.
    pub(super) fn settle_result(
        &mut self,
        now: Now,
        job: JobKey,
        conclusion: Result<RawJson, (JobStatus, Error)>,
    ) -> Result<JobResult, (JobStatus, Error)> {
        let failed = |error| (JobStatus::Error, error);
        let mut payload = JobResult {
            final_status: JobStatus::Success,
            result: None,
            result_id: None,
            result_size: None,
            summary: None,
            completed_at: Some(now.wall),
        };
        let entry = self.jobs.get_mut(&job);
        let announced = entry.as_ref().is_some_and(|job| job.ending.is_some());
        let stream = entry.and_then(|job| job.stream.take());
        if let Some(fault) = stream.as_ref().and_then(|stream| stream.fault.clone()).filter(|_| !announced) {
            return Err(failed(fault));
        }
        let value = conclusion?;
        let Some(mut stream) = stream.filter(|stream| stream.has_begun()) else {
            return self.settle_value(now, job, value, payload).map_err(failed);
        };
        payload.summary = stream.summary.take();
        if let Some(data) = stream.inline.take() {
            payload.result = Some(inline_json(&data).map_err(failed)?);
            return self.whole(payload).map_err(failed);
        }
        if let Some(last) = stream.end(now.wall) {
            self.append_part(now, job, last, false);
        }
        payload.result_size = Some(stream.size);
        payload.result_id = Some(stream.result_id);
        Ok(payload)
    }

    /// A value is sent whole up to the inline cap, then as the chunks of its JSON text, if the client takes chunks.
    fn settle_value(
        &mut self,
        now: Now,
        job: JobKey,
        value: RawJson,
        mut payload: JobResult,
    ) -> Result<JobResult, Error> {
        let cap = self.inline_cap();
        let size = value.get().len();
        if size <= cap {
            payload.result = Some(value);
            return Ok(payload);
        }
        if !self.takes_chunks(job) {
            return Err(over("inline_result", "a result that is not streamed", cap as u64));
        }
        let result_id = self.ids.result_id(now.wall);
        let mut cutter = self.cutter(result_id.clone(), None);
        let mut stream = ResultStream::new(result_id, false, true);
        let mut rest = value.get();
        while !rest.is_empty() {
            let (part, left) = cutter.next_text(now.wall, rest);
            rest = left;
            if let Some(before) = stream.hold(&self.config.results, part)? {
                self.append_part(now, job, before, true);
            }
        }
        if let Some(last) = stream.end(now.wall) {
            self.append_part(now, job, last, false);
        }
        payload.result_size = Some(stream.size);
        payload.result_id = Some(stream.result_id);
        Ok(payload)
    }

    /// What was collected may still be too long for a message, once its characters are escaped.
    fn whole(&self, payload: JobResult) -> Result<JobResult, Error> {
        let cap = self.body_cap();
        match payload.result.as_ref().map(|result| result.get().len()) {
            Some(size) if size > cap => Err(over("inline_result", "a result that is not streamed", cap as u64)),
            _ => Ok(payload),
        }
    }

    /// Whether the session that submitted the job reads chunks. One that is gone does not hinder them.
    fn takes_chunks(&self, job: JobKey) -> bool {
        self.session_of_job(job).is_none_or(|(_, session)| session.sees(Some(Feature::ResultChunk)))
    }

    fn stream(&mut self, job: JobKey) -> Option<&mut ResultStream> {
        // What an agent writes after its own end is dropped.
        self.jobs.get_mut(&job).filter(|job| job.family.held.is_none())?.stream.as_deref_mut()
    }

    fn cutter(&self, result_id: String, chunk_bytes: Option<usize>) -> ResultCutter {
        let caps = &self.config.results;
        let cut = chunk_bytes.unwrap_or(caps.cut).min(caps.chunk);
        // Text that is mostly escapes is cut shorter, so that its frames stay as small as any.
        let text_cap = cut.saturating_mul(3).min(caps.chunk_text()).min(self.body_cap());
        ResultCutter::new(result_id, cut, text_cap)
    }

    /// A message may have less room than a result.
    pub(super) fn inline_cap(&self) -> usize {
        self.config.results.inline.min(self.body_cap())
    }

    /// The longest body or inline result that fits a message.
    pub(super) fn body_cap(&self) -> usize {
        self.config.limits.max_bytes.saturating_sub(ENVELOPE_ROOM)
    }

    fn append_part(&mut self, now: Now, job: JobKey, part: ResultPart, more: bool) {
        if let Some(job) = self.jobs.get_mut(&job) {
            job.chunked = true;
        }
        let payload = part.close(more).into();
        self.append(now, job, RecordKind::Event, Some(Feature::ResultChunk), payload);
    }
}

/// Text as a string, anything else as `{"encoding":"base64","data":"…"}`.
fn inline_json(data: &[u8]) -> Result<RawJson, Error> {
    match str::from_utf8(data) {
        Ok(text) => RawJson::from_serialize(text),
        Err(_) => {
            let data = STANDARD.encode(data);
            RawJson::from_serialize(&InlineBytes { encoding: "base64", data: &data })
        }
    }
}

/// Of base64 that has been checked.
fn decoded_length(base64: &str) -> usize {
    let padding = base64.bytes().rev().take_while(|byte| *byte == b'=').count();
    (base64.len() / 4 * 3).saturating_sub(padding)
}
