//! One thing that came through a port.

use std::ffi::{CString, c_char};
use std::ptr::{null_mut, slice_from_raw_parts_mut};

use arcp_bridge::{Item, Value};

use crate::boundary::{arcp_string_free, c_text, give, quietly};
use crate::error::{arcp_error, arcp_error_free};
use crate::invocation::{arcp_invocation, arcp_invocation_free, arcp_verification, arcp_verification_free};
use crate::job::{arcp_job, arcp_job_free};
use crate::port::arcp_port;
use crate::token::{arcp_token_request, arcp_token_request_free};
use crate::transport::{arcp_listener, arcp_listener_free, arcp_transport, arcp_transport_free};

/// What an item is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum arcp_item_kind {
    /// No item waits.
    ARCP_ITEM_NONE = 0,
    /// A call is done. `number` is the call's; `error` is set if it failed, else what it gives: `text`, `job`,
    /// `transport`, `listener`, `data` or nothing.
    ARCP_ITEM_COMPLETED = 1,
    /// Take events with `arcp_job_next_batch`. `number` is the stream's.
    ARCP_ITEM_READY = 2,
    /// Run an agent, then answer. `number` is the invocation's, `invocation` is set.
    ARCP_ITEM_INVOKE = 3,
    /// Make an agent give way; it may clean up and emit, and still has to answer. `number` is the invocation's, `cause`
    /// is `cancelled`, `timed_out` or `lease_expired`, `text` the reason given for a cancellation.
    ARCP_ITEM_CANCEL = 4,
    /// The job has ended: nothing its agent does counts any more. `number` is the invocation's.
    ARCP_ITEM_ABANDONED = 5,
    /// Say who a token belongs to. `verification` is set.
    ARCP_ITEM_VERIFY = 6,
    /// A log line. `level` is an `arcp_log_level`, `cause` the module, `text` the line.
    ARCP_ITEM_LOG = 7,
    /// Give a client's token (`arcp_client_connect_asking`). `token_request` is set.
    ARCP_ITEM_TOKEN = 8,
}

/// One thing that came through a port. It owns what its pointers point to, until `arcp_item_clear`; to keep an object,
/// copy its pointer, set the member to NULL, and free the object yourself. Members an item does not use are 0 and NULL.
#[repr(C)]
pub struct arcp_item {
    /// Which members count.
    pub kind: arcp_item_kind,
    /// An `arcp_log_level`.
    pub level: i32,
    /// The number of the call, stream or invocation.
    pub number: u64,
    /// JSON, or a sentence.
    pub text: *mut c_char,
    /// Why, or whence.
    pub cause: *mut c_char,
    /// Why a call failed.
    pub error: *mut arcp_error,
    /// A submitted or followed job.
    pub job: *mut arcp_job,
    /// An open transport.
    pub transport: *mut arcp_transport,
    /// A bound listener.
    pub listener: *mut arcp_listener,
    /// A job for an agent of yours.
    pub invocation: *mut arcp_invocation,
    /// A token for your verifier.
    pub verification: *mut arcp_verification,
    /// A token your client needs.
    pub token_request: *mut arcp_token_request,
    /// Bytes, for `arcp_data_free` if you keep them; NULL when there are none.
    pub data: *mut u8,
    /// How many.
    pub data_length: usize,
}

impl arcp_item {
    fn empty(kind: arcp_item_kind, number: u64) -> Self {
        arcp_item {
            kind,
            level: 0,
            number,
            text: null_mut(),
            cause: null_mut(),
            error: null_mut(),
            job: null_mut(),
            transport: null_mut(),
            listener: null_mut(),
            invocation: null_mut(),
            verification: null_mut(),
            token_request: null_mut(),
            data: null_mut(),
            data_length: 0,
        }
    }

    /// Writes `ARCP_ITEM_NONE`.
    ///
    /// # Safety
    /// `item` is NULL or may be written.
    pub(crate) unsafe fn prepare(item: *mut arcp_item) -> Result<(), arcp_error> {
        if item.is_null() {
            return Err(arcp_error::of_null("item"));
        }
        // SAFETY: not NULL; the rest is the caller's promise.
        unsafe { item.write(arcp_item::empty(arcp_item_kind::ARCP_ITEM_NONE, 0)) };
        Ok(())
    }

    pub(crate) fn of(port: &arcp_port, item: Item) -> Self {
        use arcp_item_kind::*;
        match item {
            Item::Completed { call, outcome } => {
                let mut item = arcp_item::empty(ARCP_ITEM_COMPLETED, call);
                match outcome {
                    Ok(value) => item.set_value(port, value),
                    Err(failure) => item.error = give(failure.into()),
                }
                item
            }
            Item::Ready { stream } => arcp_item::empty(ARCP_ITEM_READY, stream),
            Item::Invoke(invocation) => arcp_item {
                invocation: give(arcp_invocation::new(invocation.clone())),
                ..arcp_item::empty(ARCP_ITEM_INVOKE, invocation.id())
            },
            Item::Cancel { invocation, cause, reason } => {
                arcp_item { text: owned(reason), cause: owned(cause), ..arcp_item::empty(ARCP_ITEM_CANCEL, invocation) }
            }
            Item::Abandoned { invocation } => arcp_item::empty(ARCP_ITEM_ABANDONED, invocation),
            Item::Verify(request) => arcp_item {
                verification: give(arcp_verification::new(request)),
                ..arcp_item::empty(ARCP_ITEM_VERIFY, 0)
            },
            // Nothing can be plugged into a runtime here; dropped, the safe side is taken.
            Item::Ask(_) => arcp_item::empty(ARCP_ITEM_NONE, 0),
            Item::Token(request) => arcp_item {
                token_request: give(arcp_token_request::new(request)),
                ..arcp_item::empty(ARCP_ITEM_TOKEN, 0)
            },
            Item::Log(record) => arcp_item {
                level: record.level as i32,
                text: owned(record.message),
                cause: owned(record.target),
                ..arcp_item::empty(ARCP_ITEM_LOG, 0)
            },
        }
    }

    fn set_value(&mut self, port: &arcp_port, value: Value) {
        match value {
            Value::Nothing => {}
            Value::Bytes(bytes) => self.set_data(bytes.into()),
            Value::Json(text) => self.text = owned(text),
            Value::Job(job) => self.job = give(arcp_job::new(port.core().clone(), job)),
            Value::Transport(transport) => self.transport = give(arcp_transport::new(transport)),
            Value::Listener(listener) => self.listener = give(arcp_listener::new(port.core().clone(), listener)),
            // No call of this library asks for frames.
            Value::Frames(frames) => self.text = owned(format!("[{}]", frames.join(","))),
        }
    }
}

impl arcp_item {
    fn set_data(&mut self, data: Vec<u8>) {
        if data.is_empty() {
            return;
        }
        self.data_length = data.len();
        self.data = Box::into_raw(data.into_boxed_slice()).cast();
    }
}

fn owned(text: impl Into<String>) -> *mut c_char {
    CString::into_raw(c_text(text))
}

/// Frees what an item still owns and makes it `ARCP_ITEM_NONE`. An invocation freed without an answer ends its job as
/// `INTERNAL_ERROR`, a verification refuses its client, a token request fails the attempt to connect. Clearing twice is
/// fine; so is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_item_clear(item: *mut arcp_item) {
    if item.is_null() {
        return;
    }
    quietly((), || {
        // SAFETY: the header's rules; members are read one by one, since C may have written any number as `kind`.
        unsafe {
            arcp_string_free((*item).text);
            arcp_string_free((*item).cause);
            arcp_error_free((*item).error);
            arcp_job_free((*item).job);
            arcp_transport_free((*item).transport);
            arcp_listener_free((*item).listener);
            arcp_invocation_free((*item).invocation);
            arcp_verification_free((*item).verification);
            arcp_token_request_free((*item).token_request);
            arcp_data_free((*item).data, (*item).data_length);
            item.write(arcp_item::empty(arcp_item_kind::ARCP_ITEM_NONE, 0));
        }
    });
}

/// Frees bytes an item gave, with the length it gave; NULL does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_data_free(data: *mut u8, length: usize) {
    if data.is_null() {
        return;
    }
    // SAFETY: made by `Box::into_raw` of as many bytes; the header's rules.
    quietly((), || drop(unsafe { Box::from_raw(slice_from_raw_parts_mut(data, length)) }));
}
