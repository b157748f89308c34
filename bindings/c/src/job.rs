//! A client's view of one job.

use std::ffi::{CString, c_char};
use std::ptr::null;
use std::sync::Arc;

use arcp_bridge::{Core, JobEvent, JobView, NextBatch};

use crate::boundary::{Out, c_text, free, guard, quietly, reference};
use crate::error::{arcp_error, arcp_result};
use crate::port::arcp_port;

/// A job this client submitted or follows.
pub struct arcp_job {
    core: Core,
    view: Arc<JobView>,
    id: CString,
    opening: CString,
}

impl arcp_job {
    pub(crate) fn new(core: Core, view: Arc<JobView>) -> Self {
        arcp_job { core, id: c_text(view.job_id()), opening: c_text(view.opening()), view }
    }
}

/// One event. Each text ends with NUL; lengths do not count it.
#[repr(C)]
pub struct arcp_event {
    /// Its number in this session.
    pub event_seq: u64,
    /// `log`, `progress`, ... or any kind the agent sends.
    pub kind: *const c_char,
    /// Bytes of `kind`.
    pub kind_length: usize,
    /// When the agent made it.
    pub ts: *const c_char,
    /// Bytes of `ts`.
    pub ts_length: usize,
    /// The body's JSON text.
    pub body: *const c_char,
    /// Bytes of `body`.
    pub body_length: usize,
}

/// Some events, in order.
pub struct arcp_event_batch {
    events: Vec<arcp_event>,
    /// What the events point into; never changed.
    _text: Vec<u8>,
}

impl arcp_event_batch {
    fn new(events: &[JobEvent]) -> Self {
        let size = events.iter().map(|event| event.kind.len() + event.ts.len() + event.body.len() + 3).sum();
        let mut text = Vec::with_capacity(size);
        for event in events {
            for part in [&event.kind, &event.ts, &event.body] {
                text.extend_from_slice(part);
                text.push(0);
            }
        }
        let mut at = 0;
        let mut next = |length: usize| {
            let part = text[at..].as_ptr().cast::<c_char>();
            at += length + 1;
            part
        };
        let events = events
            .iter()
            .map(|event| arcp_event {
                event_seq: event.event_seq,
                kind: next(event.kind.len()),
                kind_length: event.kind.len(),
                ts: next(event.ts.len()),
                ts_length: event.ts.len(),
                body: next(event.body.len()),
                body_length: event.body.len(),
            })
            .collect();
        arcp_event_batch { events, _text: text }
    }
}

/// The job's id.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_job_id(job: *const arcp_job) -> *const c_char {
    // SAFETY: the header's rules.
    quietly(null(), || unsafe { job.as_ref() }.map_or(null(), |job| job.id.as_ptr()))
}

/// The payload of `job.accepted` (`job_id`, `agent`, `lease`, `budget`, ...) or of `job.subscribed` as JSON. May hold
/// credentials, which are secret.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_job_opening(job: *const arcp_job) -> *const c_char {
    // SAFETY: the header's rules.
    quietly(null(), || unsafe { job.as_ref() }.map_or(null(), |job| job.opening.as_ptr()))
}

/// Takes up to `max` events (0 counts as 1), without blocking. Three answers: a batch of at least one event; no batch and
/// `*ended`: nothing will come; no batch and not `*ended`: nothing yet, and exactly one `ARCP_ITEM_READY` with the number
/// `stream` follows on the port. What is taken counts as processed; from the first call on no event is lost. Read a job
/// from one place at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_job_next_batch(
    job: *const arcp_job,
    port: *const arcp_port,
    stream: u64,
    max: usize,
    batch: *mut *mut arcp_event_batch,
    ended: *mut bool,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            let out = Out::new(batch, "batch")?;
            if ended.is_null() {
                return Err(arcp_error::of_null("ended"));
            }
            ended.write(false);
            let (job, port) = (reference(job, "job")?, reference(port, "port")?);
            let mut events = Vec::new();
            match job.view.next_batch(port.bridge(), stream, max.max(1), &mut events) {
                NextBatch::Some => out.give(arcp_event_batch::new(&events)),
                NextBatch::Empty => {}
                NextBatch::Ended => ended.write(true),
            }
            Ok(())
        })
    }
}

/// The events of a batch as an array of `*count`, which lives until the batch is freed. `count` must not be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_event_batch_events(
    batch: *const arcp_event_batch,
    count: *mut usize,
) -> *const arcp_event {
    quietly(null(), || {
        if count.is_null() {
            return null();
        }
        // SAFETY: the header's rules.
        let events = unsafe { batch.as_ref() }.map_or(&[][..], |batch| &batch.events);
        // SAFETY: not NULL; the header's rules.
        unsafe { count.write(events.len()) };
        if events.is_empty() { null() } else { events.as_ptr() }
    })
}

/// Frees a batch, its events and their texts.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_event_batch_free(batch: *mut arcp_event_batch) {
    // SAFETY: the header's rules.
    unsafe { free(batch) };
}

/// Waits for the job's end; completes with the payload of `job.result` as JSON (`final_status`, `result`, `summary`), or
/// with the job's error: `ARCP_CANCELLED`, `ARCP_TIMEOUT`, what the agent failed with, or `ARCP_CLOSED` when the session
/// ended first. May be asked again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_job_result(
    job: *const arcp_job,
    port: *const arcp_port,
    call: u64,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            let (job, port) = (reference(job, "job")?, reference(port, "port")?);
            Ok(job.view.result(&job.core, port.bridge(), call)?)
        })
    }
}

/// Waits for the job's end; completes with `data`: the whole of a streamed result, or the JSON text of an inline one. Fails
/// as `arcp_job_result`, and when a chunk is missing or the result is longer than the client's `max_result_bytes`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_job_result_bytes(
    job: *const arcp_job,
    port: *const arcp_port,
    call: u64,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            let (job, port) = (reference(job, "job")?, reference(port, "port")?);
            Ok(job.view.result_bytes(&job.core, port.bridge(), call)?)
        })
    }
}

/// Frees this view of a job. The job itself goes on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_job_free(job: *mut arcp_job) {
    // SAFETY: the header's rules.
    unsafe { free(job) };
}
