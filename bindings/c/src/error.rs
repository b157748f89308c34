//! Results and errors.

use std::any::Any;
use std::ffi::{CStr, CString, c_char};
use std::ptr::null;
use std::str::Utf8Error;

use arcp_bridge::{ErrorInfo, ErrorKind};

use crate::boundary::{c_text, free, quietly};

/// How a call went. Numbers are never changed and never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum arcp_result {
    /// It worked, or was begun.
    ARCP_OK = 0,
    /// The lease or policy forbids it.
    ARCP_PERMISSION_DENIED = 1,
    /// A delegated lease asks for more than its parent has.
    ARCP_LEASE_SUBSET_VIOLATION = 2,
    /// No such job, or not yours.
    ARCP_JOB_NOT_FOUND = 3,
    /// The idempotency key was used for another request.
    ARCP_DUPLICATE_KEY = 4,
    /// No such agent.
    ARCP_AGENT_NOT_AVAILABLE = 5,
    /// The agent exists, this version does not.
    ARCP_AGENT_VERSION_NOT_AVAILABLE = 6,
    /// The job was cancelled.
    ARCP_CANCELLED = 7,
    /// The job passed its time.
    ARCP_TIMEOUT = 8,
    /// The session can no longer be resumed.
    ARCP_RESUME_WINDOW_EXPIRED = 9,
    /// The peer fell silent.
    ARCP_HEARTBEAT_LOST = 10,
    /// The lease has ended.
    ARCP_LEASE_EXPIRED = 11,
    /// The lease's money is spent.
    ARCP_BUDGET_EXHAUSTED = 12,
    /// The request breaks the protocol's rules.
    ARCP_INVALID_REQUEST = 13,
    /// The token was refused.
    ARCP_UNAUTHENTICATED = 14,
    /// The peer or its agent failed.
    ARCP_INTERNAL_ERROR = 15,
    /// A code outside the protocol's fifteen: see `arcp_error_code`.
    ARCP_OTHER_CODE = 16,
    /// Closed on this side, or ended with its session.
    ARCP_CLOSED = 101,
    /// A bounded wait on this side ran out.
    ARCP_WAIT_TIMEOUT = 102,
    /// No connection, or it was lost.
    ARCP_TRANSPORT = 103,
    /// An argument was refused before anything was sent.
    ARCP_BAD_ARGUMENT = 104,
    /// The process was forked after the core was started.
    ARCP_FORKED = 105,
    /// A required pointer is NULL.
    ARCP_NULL_ARGUMENT = 106,
    /// A fault of this library was caught; please report it.
    ARCP_PANIC = 107,
    /// A registry refused, or could not be reached; the details say more.
    ARCP_REGISTRY = 108,
}

use arcp_result::*;

/// Every result with its name.
const NAMES: [(arcp_result, &CStr); 25] = [
    (ARCP_OK, c"ARCP_OK"),
    (ARCP_PERMISSION_DENIED, c"ARCP_PERMISSION_DENIED"),
    (ARCP_LEASE_SUBSET_VIOLATION, c"ARCP_LEASE_SUBSET_VIOLATION"),
    (ARCP_JOB_NOT_FOUND, c"ARCP_JOB_NOT_FOUND"),
    (ARCP_DUPLICATE_KEY, c"ARCP_DUPLICATE_KEY"),
    (ARCP_AGENT_NOT_AVAILABLE, c"ARCP_AGENT_NOT_AVAILABLE"),
    (ARCP_AGENT_VERSION_NOT_AVAILABLE, c"ARCP_AGENT_VERSION_NOT_AVAILABLE"),
    (ARCP_CANCELLED, c"ARCP_CANCELLED"),
    (ARCP_TIMEOUT, c"ARCP_TIMEOUT"),
    (ARCP_RESUME_WINDOW_EXPIRED, c"ARCP_RESUME_WINDOW_EXPIRED"),
    (ARCP_HEARTBEAT_LOST, c"ARCP_HEARTBEAT_LOST"),
    (ARCP_LEASE_EXPIRED, c"ARCP_LEASE_EXPIRED"),
    (ARCP_BUDGET_EXHAUSTED, c"ARCP_BUDGET_EXHAUSTED"),
    (ARCP_INVALID_REQUEST, c"ARCP_INVALID_REQUEST"),
    (ARCP_UNAUTHENTICATED, c"ARCP_UNAUTHENTICATED"),
    (ARCP_INTERNAL_ERROR, c"ARCP_INTERNAL_ERROR"),
    (ARCP_OTHER_CODE, c"ARCP_OTHER_CODE"),
    (ARCP_CLOSED, c"ARCP_CLOSED"),
    (ARCP_WAIT_TIMEOUT, c"ARCP_WAIT_TIMEOUT"),
    (ARCP_TRANSPORT, c"ARCP_TRANSPORT"),
    (ARCP_BAD_ARGUMENT, c"ARCP_BAD_ARGUMENT"),
    (ARCP_FORKED, c"ARCP_FORKED"),
    (ARCP_REGISTRY, c"ARCP_REGISTRY"),
    (ARCP_NULL_ARGUMENT, c"ARCP_NULL_ARGUMENT"),
    (ARCP_PANIC, c"ARCP_PANIC"),
];

/// The result for a protocol code: the fifteen are `ARCP_` and the code.
fn of_code(code: &str) -> arcp_result {
    let protocol = &NAMES[ARCP_PERMISSION_DENIED as usize..=ARCP_INTERNAL_ERROR as usize];
    let named = protocol.iter().find(|(_, name)| name.to_bytes().strip_prefix(b"ARCP_") == Some(code.as_bytes()));
    named.map_or(ARCP_OTHER_CODE, |(result, _)| *result)
}

/// Why a call failed.
pub struct arcp_error {
    result: arcp_result,
    code: CString,
    message: CString,
    retryable: bool,
    details: Option<CString>,
}

impl arcp_error {
    pub(crate) fn result(&self) -> arcp_result {
        self.result
    }

    fn local(result: arcp_result, message: String) -> Self {
        arcp_error { result, code: CString::default(), message: c_text(message), retryable: false, details: None }
    }

    pub(crate) fn of_null(name: &str) -> Self {
        arcp_error::local(ARCP_NULL_ARGUMENT, format!("{name} is NULL"))
    }

    pub(crate) fn of_bad_text(name: &str, error: Utf8Error) -> Self {
        let at = error.valid_up_to();
        arcp_error::local(ARCP_BAD_ARGUMENT, format!("{name} is not UTF-8: it stops being so at byte {at}"))
    }

    pub(crate) fn of_panic(panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
        arcp_error::local(ARCP_PANIC, format!("a fault of this library: {text}"))
    }
}

impl From<ErrorInfo> for arcp_error {
    fn from(error: ErrorInfo) -> Self {
        let result = match error.kind {
            ErrorKind::Protocol => of_code(&error.code),
            ErrorKind::Closed => ARCP_CLOSED,
            ErrorKind::Timeout => ARCP_WAIT_TIMEOUT,
            ErrorKind::Transport => ARCP_TRANSPORT,
            ErrorKind::Argument => ARCP_BAD_ARGUMENT,
            ErrorKind::Forked => ARCP_FORKED,
            ErrorKind::Registry => ARCP_REGISTRY,
        };
        arcp_error {
            result,
            code: c_text(error.code),
            message: c_text(error.message),
            retryable: error.retryable,
            details: error.details.map(c_text),
        }
    }
}

/// The name of a result as written here, such as `ARCP_CLOSED`; never NULL. The string is static.
#[unsafe(no_mangle)]
pub extern "C" fn arcp_result_name(result: i32) -> *const c_char {
    let named = NAMES.iter().find(|(known, _)| *known as i32 == result);
    named.map_or(c"an unknown result", |(_, name)| name).as_ptr()
}

/// The result the failed call returned; `ARCP_OK` for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_error_result(error: *const arcp_error) -> arcp_result {
    // SAFETY: the header's rules.
    quietly(ARCP_PANIC, || unsafe { error.as_ref() }.map_or(ARCP_OK, |error| error.result))
}

/// The protocol's code as text, such as `PERMISSION_DENIED`; empty for a failure on this side.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_error_code(error: *const arcp_error) -> *const c_char {
    // SAFETY: the header's rules.
    quietly(null(), || unsafe { error.as_ref() }.map_or(null(), |error| error.code.as_ptr()))
}

/// A sentence for people.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_error_message(error: *const arcp_error) -> *const c_char {
    // SAFETY: the header's rules.
    quietly(null(), || unsafe { error.as_ref() }.map_or(null(), |error| error.message.as_ptr()))
}

/// Whether the same request may succeed later.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_error_retryable(error: *const arcp_error) -> bool {
    // SAFETY: the header's rules.
    quietly(false, || unsafe { error.as_ref() }.is_some_and(|error| error.retryable))
}

/// The details as the JSON text of an object, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_error_details(error: *const arcp_error) -> *const c_char {
    quietly(null(), || {
        // SAFETY: the header's rules.
        let details = unsafe { error.as_ref() }.and_then(|error| error.details.as_ref());
        details.map_or(null(), |details| details.as_ptr())
    })
}

/// Frees an error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_error_free(error: *mut arcp_error) {
    // SAFETY: the header's rules.
    unsafe { free(error) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_result_has_the_name_it_is_written_with() {
        for (result, name) in NAMES {
            assert_eq!(format!("{result:?}").as_bytes(), name.to_bytes());
        }
    }

    #[test]
    fn the_fifteen_codes_are_found_and_others_are_kept() {
        assert_eq!(of_code("PERMISSION_DENIED"), ARCP_PERMISSION_DENIED);
        assert_eq!(of_code("INTERNAL_ERROR"), ARCP_INTERNAL_ERROR);
        for other in ["OK", "OTHER_CODE", "CLOSED", "PANIC", "X_FOREIGN", ""] {
            assert_eq!(of_code(other), ARCP_OTHER_CODE, "{other}");
        }
    }
}
