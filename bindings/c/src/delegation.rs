//! Children of an agent of the program.

use std::ffi::c_char;

use crate::boundary::{guard, optional_text, reference, text};
use crate::error::{arcp_error, arcp_result};
use crate::invocation::arcp_invocation;
use crate::port::arcp_port;

/// Delegates to another agent of the runtime, in the order of what this job emits; completes with the payload of the
/// child's `job.accepted` as JSON (`job_id`, `delegate_id`, `agent`, `lease`, ...) once this job may emit on. `request` is a
/// JSON object: `agent` (required), `input` (any JSON), `lease_request` (object, within this job's lease), `expires_at`
/// (RFC 3339), `delegate_id`, `detached` (false; true lets the child outlive this job). Completes with
/// `ARCP_PERMISSION_DENIED`, `ARCP_LEASE_SUBSET_VIOLATION` and other errors when it is refused.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_invocation_delegate(
    invocation: *const arcp_invocation,
    port: *const arcp_port,
    call: u64,
    request: *const c_char,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            let (invocation, port) = (reference(invocation, "invocation")?, reference(port, "port")?);
            Ok(invocation.invocation.delegate(port.bridge(), call, text(request, "request")?)?)
        })
    }
}

/// Waits for the end of a child of this job; completes with its result as JSON, or with its error. May be asked again.
/// Fails with `ARCP_BAD_ARGUMENT` when `job_id` is no child of this job.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_invocation_child_result(
    invocation: *const arcp_invocation,
    port: *const arcp_port,
    call: u64,
    job_id: *const c_char,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            let (invocation, port) = (reference(invocation, "invocation")?, reference(port, "port")?);
            Ok(invocation.invocation.child_result(port.bridge(), call, text(job_id, "job_id")?)?)
        })
    }
}

/// Makes a child of this job give way; `reason` may be NULL (`parent.cancel`). Nothing happens when the child has ended.
/// Fails with `ARCP_BAD_ARGUMENT` when `job_id` is no child of this job.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_invocation_cancel_child(
    invocation: *const arcp_invocation,
    job_id: *const c_char,
    reason: *const c_char,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            let (job_id, reason) = (text(job_id, "job_id")?, optional_text(reason, "reason")?);
            let invocation = reference(invocation, "invocation")?;
            Ok(invocation.invocation.cancel_child(job_id, reason.unwrap_or("parent.cancel"))?)
        })
    }
}
