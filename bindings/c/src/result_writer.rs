//! The result of an agent of the program, written in parts.

use std::ffi::c_char;
use std::slice;

use arcp_bridge::{ErrorInfo, ResultData};

use crate::boundary::{Out, guard, optional_text, reference};
use crate::error::{arcp_error, arcp_result};
use crate::invocation::arcp_invocation;

/// Opens the result of the job, to be written in parts instead of whole with `arcp_invocation_complete`; once per job.
/// `result_id` is one of yours, or NULL for a fresh one; `opened` (may be NULL) gets the one in use, for
/// `arcp_string_free`. The result is sent in chunks of `chunk_bytes` (0 means 256 KiB). Fails with `ARCP_INVALID_REQUEST`
/// when it was opened before or an argument is out of bounds.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_invocation_open_result(
    invocation: *const arcp_invocation,
    result_id: *const c_char,
    chunk_bytes: usize,
    opened: *mut *mut c_char,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            let out = if opened.is_null() { None } else { Some(Out::new(opened, "opened")?) };
            let own = optional_text(result_id, "result_id")?.map(str::to_owned);
            let chunk_bytes = Some(chunk_bytes).filter(|bytes| *bytes > 0);
            let used = reference(invocation, "invocation")?.invocation.open_result(own, chunk_bytes)?;
            if let Some(out) = out {
                out.give_text(used);
            }
            Ok(())
        })
    }
}

/// Writes to the open result as much of `length` bytes as may be written at once, and returns at once. `*taken` says how
/// many that were; `*must_wait`, whether to wait for `arcp_invocation_drained` before writing the rest, or more: the client
/// lags. `is_text` promises UTF-8, which is sent as text and taken up to the end of a character; other bytes are sent as
/// base64. `data` may be NULL when `length` is 0. Fails with `ARCP_INVALID_REQUEST` when no result is open, and with
/// `ARCP_INTERNAL_ERROR` over one of the runtime's caps, in which the job then ends.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_invocation_write_result(
    invocation: *const arcp_invocation,
    data: *const u8,
    length: usize,
    is_text: bool,
    taken: *mut usize,
    must_wait: *mut bool,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules; `data` is an array of `length`.
    unsafe {
        guard(error, || {
            let (taken, must_wait) = (place(taken, "taken")?, place(must_wait, "must_wait")?);
            (*taken, *must_wait) = (0, false);
            let invocation = reference(invocation, "invocation")?;
            let data = bytes(data, length)?;
            let data = if is_text {
                let utf8 = std::str::from_utf8(data);
                ResultData::Text(utf8.map_err(|error| arcp_error::of_bad_text("data", error))?)
            } else {
                ResultData::Bytes(data)
            };
            let written = invocation.invocation.write_result(data)?;
            (*taken, *must_wait) = (written.taken, written.must_wait);
            Ok(())
        })
    }
}

/// Sends the newest chunk of the open result, which is kept back until the next one is written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_invocation_flush_result(
    invocation: *const arcp_invocation,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe { guard(error, || Ok(reference(invocation, "invocation")?.invocation.flush_result()?)) }
}

/// Ends the open result; `summary` is a sentence for people, or NULL. Then answer with `arcp_invocation_complete`, whose
/// result is not sent.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_invocation_finish_result(
    invocation: *const arcp_invocation,
    summary: *const c_char,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            let summary = optional_text(summary, "summary")?;
            Ok(reference(invocation, "invocation")?.invocation.finish_result(summary)?)
        })
    }
}

/// Where an answer is written.
///
/// # Safety
/// `pointer` is NULL or may be written.
unsafe fn place<'a, T>(pointer: *mut T, name: &str) -> Result<&'a mut T, arcp_error> {
    // SAFETY: the caller's promise.
    unsafe { pointer.as_mut() }.ok_or_else(|| arcp_error::of_null(name))
}

/// An array of bytes.
///
/// # Safety
/// `data` is NULL or points to `length` bytes.
unsafe fn bytes<'a>(data: *const u8, length: usize) -> Result<&'a [u8], arcp_error> {
    if length == 0 {
        return Ok(&[]);
    }
    if data.is_null() {
        return Err(arcp_error::of_null("data"));
    }
    // No object is longer, so this is a negative number turned around.
    if isize::try_from(length).is_err() {
        return Err(ErrorInfo::argument(format!("length is {length}; it must be the bytes of data")).into());
    }
    // SAFETY: not NULL, and not too long; the rest is the caller's promise.
    Ok(unsafe { slice::from_raw_parts(data, length) })
}
