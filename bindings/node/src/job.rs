//! A client's job, read in batches.

use std::fmt::Write as _;
use std::sync::Arc;

use arcp_bridge::{JobEvent, JobView, NextBatch};
use napi_derive::napi;

use crate::core::core;
use crate::error::thrown;
use crate::port::{NativePort, number, quoted};

/// A submitted or followed job.
#[napi]
pub struct NativeJob {
    pub(crate) job: Arc<JobView>,
}

#[napi]
impl NativeJob {
    /// Up to `max` events as one JSON list; `null` when there are none yet, then a `ready` item for `stream` follows; the
    /// empty text after the last.
    #[napi]
    pub fn next_batch(&self, port: &NativePort, stream: i64, max: u32) -> Option<String> {
        let mut batch = Vec::new();
        match self.job.next_batch(&port.port, number(stream), max as usize, &mut batch) {
            NextBatch::Some => Some(joined(&batch)),
            NextBatch::Empty => None,
            NextBatch::Ended => Some(String::new()),
        }
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
        let _ = write!(
            text,
            r#"{{"event_seq":{},"kind":{},"ts":{},"body":{}}}"#,
            event.event_seq,
            quoted(event.kind()),
            quoted(event.ts()),
            event.body()
        );
    }
    text.push(']');
    text
}
