//! A client's job, read in batches.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arcp_bridge::{JobEvent, JobView, NextBatch};
use napi_derive::napi;

use crate::core::core;
use crate::error::thrown;
use crate::port::{NativePort, is_wide, number, quoted};

/// Events on their way to JavaScript.
#[napi(object, object_from_js = false)]
pub struct EventBatch {
    /// JSON: a list of events; empty after the last.
    pub text: String,
    /// Whether `text` may hold integers that a JavaScript number cannot.
    pub wide: bool,
}

/// A submitted or followed job.
#[napi]
pub struct NativeJob {
    job: Arc<JobView>,
    /// Whether JavaScript puts a streamed result together.
    chunked: AtomicBool,
}

impl NativeJob {
    pub(crate) fn new(job: Arc<JobView>) -> Self {
        NativeJob { job, chunked: AtomicBool::new(false) }
    }
}

#[napi]
impl NativeJob {
    /// Up to `max` events; `null` when there are none yet, then a `ready` item for `stream` follows. After `take_chunks` it
    /// throws where a chunk is missing or comes again.
    #[napi]
    pub fn next_batch(&self, port: &NativePort, stream: i64, max: u32) -> napi::Result<Option<EventBatch>> {
        let mut batch = Vec::new();
        Ok(match self.job.next_batch(&port.port, number(stream), max as usize, &mut batch) {
            NextBatch::Some => {
                if self.chunked.load(Ordering::Relaxed) {
                    for event in batch.iter().filter(|event| event.kind() == "result_chunk") {
                        thrown(self.job.take_chunk(event))?;
                    }
                }
                let text = joined(&batch);
                Some(EventBatch { wide: is_wide(&text), text })
            }
            NextBatch::Empty => None,
            NextBatch::Ended => Some(EventBatch { text: String::new(), wide: false }),
        })
    }

    /// From now on the chunks of a streamed result are taken from among the events; the core holds them no more.
    #[napi]
    pub fn take_chunks(&self) {
        self.chunked.store(true, Ordering::Relaxed);
        self.job.leave_chunks();
    }

    /// Completes at the job's end, with an error when the chunks taken were not the whole result.
    #[napi]
    pub fn finish_chunks(&self, port: &NativePort, call: i64) -> napi::Result<()> {
        thrown(core().and_then(|core| self.job.finish_chunks(&core, &port.port, number(call))))
    }

    /// Completes with the bytes of the result.
    #[napi]
    pub fn result_bytes(&self, port: &NativePort, call: i64) -> napi::Result<()> {
        thrown(core().and_then(|core| self.job.result_bytes(&core, &port.port, number(call))))
    }

    /// Nobody reads the events any more, until the next batch is asked for.
    #[napi]
    pub fn stop_reading(&self) {
        self.job.stop_reading();
    }

    /// Completes with the payload of `job.result`.
    #[napi]
    pub fn result(&self, port: &NativePort, call: i64) -> napi::Result<()> {
        thrown(core().and_then(|core| self.job.result(&core, &port.port, number(call))))
    }
}

fn joined(batch: &[JobEvent]) -> String {
    let size: usize = batch.iter().map(|event| event.body.len() + event.kind.len() + event.ts.len() + 64).sum();
    let mut text = String::with_capacity(size);
    for event in batch {
        text.push(if text.is_empty() { '[' } else { ',' });
        // Writing to a String does not fail.
        let _ = write!(text, r#"{{"event_seq":{},"kind":"#, event.event_seq);
        push_quoted(&mut text, event.kind());
        text.push_str(r#","ts":"#);
        push_quoted(&mut text, event.ts());
        text.push_str(r#","body":"#);
        text.push_str(event.body());
        text.push('}');
    }
    text.push(']');
    text
}

fn push_quoted(text: &mut String, value: &str) {
    // Kinds and times are plain, all but always.
    if value.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
        text.extend(["\"", value, "\""]);
    } else {
        text.push_str(&quoted(value));
    }
}
