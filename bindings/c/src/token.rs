//! A token a client of the program is asked for.

use std::ffi::c_char;

use arcp_bridge::TokenRequest;
use parking_lot::Mutex;

use crate::boundary::{free, guard, reference, text};
use crate::error::{arcp_error, arcp_result};
use crate::invocation::failure;

/// A client needs its token: at its first connection and again at each one that heals a lost link. The first answer
/// counts; freed without one, the attempt to connect has failed.
pub struct arcp_token_request {
    request: Mutex<TokenRequest>,
}

impl arcp_token_request {
    pub(crate) fn new(request: TokenRequest) -> Self {
        arcp_token_request { request: Mutex::new(request) }
    }
}

/// This is the token.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_token_answer(
    request: *const arcp_token_request,
    token: *const c_char,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            let token = text(token, "token")?.to_owned();
            reference(request, "request")?.request.lock().answer(Ok(token));
            Ok(())
        })
    }
}

/// There is no token: the client fails with `code` (NULL means `UNAUTHENTICATED`) and `message`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_token_refuse(
    request: *const arcp_token_request,
    code: *const c_char,
    message: *const c_char,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            let code = if code.is_null() { c"UNAUTHENTICATED".as_ptr() } else { code };
            let refusal = failure(code, message, false, std::ptr::null())?;
            reference(request, "request")?.request.lock().answer(Err(refusal));
            Ok(())
        })
    }
}

/// Frees a token request.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_token_request_free(request: *mut arcp_token_request) {
    // SAFETY: the header's rules.
    unsafe { free(request) };
}
