//! What an agent and a verifier of the program are given.

use std::ffi::{CString, c_char};
use std::ptr::null;
use std::sync::Arc;

use arcp_bridge::{ErrorInfo, ErrorKind, Invocation, VerifyRequest};
use parking_lot::Mutex;

use crate::boundary::{Out, c_text, free, guard, optional_text, quietly, reference, text};
use crate::error::{arcp_error, arcp_result};
use crate::port::arcp_port;

/// One job for an agent of yours. It ends with the first of `arcp_invocation_complete`, `_fail` and `_cancelled`; freed
/// before that, it ends as `INTERNAL_ERROR`. A worker thread may run the agent and answer from there.
pub struct arcp_invocation {
    pub(crate) invocation: Arc<Invocation>,
    job_id: CString,
    session_id: CString,
    principal: CString,
    agent: CString,
    trace_id: CString,
    input: CString,
    lease: CString,
}

impl arcp_invocation {
    pub(crate) fn new(invocation: Arc<Invocation>) -> Self {
        let start = invocation.start();
        arcp_invocation {
            job_id: c_text(&*start.job_id),
            session_id: c_text(&*start.session_id),
            principal: c_text(&*start.principal),
            agent: c_text(start.agent_ref()),
            trace_id: c_text(&*start.trace_id),
            input: c_text(invocation.input()),
            lease: c_text(invocation.lease()),
            invocation,
        }
    }
}

/// The number later items name this invocation by; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_invocation_id(invocation: *const arcp_invocation) -> u64 {
    // SAFETY: the header's rules.
    quietly(0, || unsafe { invocation.as_ref() }.map_or(0, |invocation| invocation.invocation.id()))
}

/// The job's id.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_invocation_job_id(invocation: *const arcp_invocation) -> *const c_char {
    // SAFETY: the header's rules.
    unsafe { member(invocation, |invocation| &invocation.job_id) }
}

/// The id of the session that submitted the job.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_invocation_session_id(invocation: *const arcp_invocation) -> *const c_char {
    // SAFETY: the header's rules.
    unsafe { member(invocation, |invocation| &invocation.session_id) }
}

/// Who submitted the job.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_invocation_principal(invocation: *const arcp_invocation) -> *const c_char {
    // SAFETY: the header's rules.
    unsafe { member(invocation, |invocation| &invocation.principal) }
}

/// Which agent to run: `name@version`, or the bare name of one without versions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_invocation_agent(invocation: *const arcp_invocation) -> *const c_char {
    // SAFETY: the header's rules.
    unsafe { member(invocation, |invocation| &invocation.agent) }
}

/// The job's trace, 32 hex digits.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_invocation_trace_id(invocation: *const arcp_invocation) -> *const c_char {
    // SAFETY: the header's rules.
    unsafe { member(invocation, |invocation| &invocation.trace_id) }
}

/// The input's JSON text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_invocation_input(invocation: *const arcp_invocation) -> *const c_char {
    // SAFETY: the header's rules.
    unsafe { member(invocation, |invocation| &invocation.input) }
}

/// The effective lease as a JSON object.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_invocation_lease(invocation: *const arcp_invocation) -> *const c_char {
    // SAFETY: the header's rules.
    unsafe { member(invocation, |invocation| &invocation.lease) }
}

/// # Safety
/// `invocation` is NULL or points to a live one.
unsafe fn member(
    invocation: *const arcp_invocation,
    which: impl FnOnce(&arcp_invocation) -> &CString,
) -> *const c_char {
    // SAFETY: the caller's promise.
    quietly(null(), || unsafe { invocation.as_ref() }.map_or(null(), |invocation| which(invocation).as_ptr()))
}

/// The budget's counters of this moment as a JSON object, for `arcp_string_free`; NULL without a budget.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_invocation_budget(
    invocation: *const arcp_invocation,
    budget: *mut *mut c_char,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            let out = Out::new(budget, "budget")?;
            if let Some(counters) = reference(invocation, "invocation")?.invocation.budget() {
                out.give_text(counters);
            }
            Ok(())
        })
    }
}

/// Emits an event whose body is JSON and returns at once. `*full` (may be NULL) says whether to wait for
/// `arcp_invocation_drained` before the next: the client lags. Fails with `ARCP_INVALID_REQUEST` for a bad kind or body,
/// and with the lease's word for a refused `tool_call`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_invocation_emit(
    invocation: *const arcp_invocation,
    kind: *const c_char,
    body: *const c_char,
    full: *mut bool,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            if !full.is_null() {
                full.write(false);
            }
            let (kind, body) = (text(kind, "kind")?, text(body, "body")?);
            let is_full = reference(invocation, "invocation")?.invocation.emit(kind, body)?;
            if !full.is_null() {
                full.write(is_full);
            }
            Ok(())
        })
    }
}

/// Completes with nothing when the client has caught up enough for this job to emit on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_invocation_drained(
    invocation: *const arcp_invocation,
    port: *const arcp_port,
    call: u64,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            let port = reference(port, "port")?;
            Ok(reference(invocation, "invocation")?.invocation.drained(port.bridge(), call)?)
        })
    }
}

/// Checks one operation against the lease, before it is done. `ARCP_OK` allows it; `ARCP_PERMISSION_DENIED`,
/// `ARCP_LEASE_EXPIRED` and `ARCP_BUDGET_EXHAUSTED` refuse it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_invocation_authorize(
    invocation: *const arcp_invocation,
    capability: *const c_char,
    target: *const c_char,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            let (capability, target) = (text(capability, "capability")?, text(target, "target")?);
            Ok(reference(invocation, "invocation")?.invocation.authorize(capability, target)?)
        })
    }
}

/// The agent is done: its result as JSON. A text that is not JSON is refused, and the job ends as `INTERNAL_ERROR`.
/// The first answer counts.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_invocation_complete(
    invocation: *const arcp_invocation,
    result: *const c_char,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            let result = text(result, "result")?;
            Ok(reference(invocation, "invocation")?.invocation.complete(result)?)
        })
    }
}

/// The agent failed. `code` is a protocol code or one of yours; NULL means `INTERNAL_ERROR`. `retryable` counts where the
/// protocol does not fix it. `details` is the JSON text of an object, or NULL. The first answer counts.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_invocation_fail(
    invocation: *const arcp_invocation,
    code: *const c_char,
    message: *const c_char,
    retryable: bool,
    details: *const c_char,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            let failure = failure(code, message, retryable, details)?;
            reference(invocation, "invocation")?.invocation.fail(failure);
            Ok(())
        })
    }
}

/// # Safety
/// The header's rules.
pub(crate) unsafe fn failure(
    code: *const c_char,
    message: *const c_char,
    retryable: bool,
    details: *const c_char,
) -> Result<ErrorInfo, arcp_error> {
    // SAFETY: the caller's promise.
    let (code, message, details) =
        unsafe { (optional_text(code, "code")?, text(message, "message")?, optional_text(details, "details")?) };
    Ok(ErrorInfo {
        kind: ErrorKind::Protocol,
        code: code.unwrap_or_default().to_owned(),
        message: message.to_owned(),
        retryable,
        details: details.map(str::to_owned),
    })
}

/// The agent gave way, as `ARCP_ITEM_CANCEL` asked. The first answer counts.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_invocation_cancelled(
    invocation: *const arcp_invocation,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            reference(invocation, "invocation")?.invocation.cancelled();
            Ok(())
        })
    }
}

/// Frees an invocation.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_invocation_free(invocation: *mut arcp_invocation) {
    // SAFETY: the header's rules.
    unsafe { free(invocation) };
}

/// A token you are asked about. The first answer counts; freed without one, the client is refused with
/// `INTERNAL_ERROR`.
pub struct arcp_verification {
    token: CString,
    request: Mutex<VerifyRequest>,
}

impl arcp_verification {
    pub(crate) fn new(request: VerifyRequest) -> Self {
        arcp_verification { token: c_text(request.token()), request: Mutex::new(request) }
    }
}

/// The token, a secret.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_verification_token(verification: *const arcp_verification) -> *const c_char {
    // SAFETY: the header's rules.
    quietly(null(), || unsafe { verification.as_ref() }.map_or(null(), |asked| asked.token.as_ptr()))
}

/// The token belongs to this principal.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_verification_accept(
    verification: *const arcp_verification,
    principal: *const c_char,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            let principal = text(principal, "principal")?.to_owned();
            reference(verification, "verification")?.request.lock().answer(Ok(principal));
            Ok(())
        })
    }
}

/// The token is refused; `code` is usually `UNAUTHENTICATED`, which NULL means. The client sees `message`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_verification_refuse(
    verification: *const arcp_verification,
    code: *const c_char,
    message: *const c_char,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            let code = if code.is_null() { c"UNAUTHENTICATED".as_ptr() } else { code };
            let refusal = failure(code, message, false, null())?;
            reference(verification, "verification")?.request.lock().answer(Err::<String, _>(refusal));
            Ok(())
        })
    }
}

/// Frees a verification.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_verification_free(verification: *mut arcp_verification) {
    // SAFETY: the header's rules.
    unsafe { free(verification) };
}
