//! The pure functions of the protocol.

use std::ffi::c_char;

use arcp_bridge::call_function;

use crate::boundary::{Out, guard, text};
use crate::error::{arcp_error, arcp_result};

/// Calls a function of the protocol by name, without any session. Arguments and answer (for `arcp_string_free`) are
/// JSON objects:
///
/// - `parse_agent_ref`: `text`; gives `name`, `version` (or null)
/// - `parse_budget_amount`: `text`; gives `currency`, `amount` (decimal text)
/// - `validate_lease`: `lease`
/// - `validate_expires_at`: `text`, which must be a time to come
/// - `validate_lease_op`: `lease`, `namespace`, `target`, and optionally `expires_at`, `now`, `budget`
/// - `initial_budget_from_lease`: `lease`; gives `budget` (currency to decimal text)
/// - `is_lease_subset`: `child`, `parent`, and optionally `child_expires_at`, `parent_expires_at`, `parent_remaining`;
///   gives `subset`, and `error` when it is none
/// - `intersect_features`: `client`, `runtime` (lists); gives `features`
/// - `error_from_payload`: `payload`; gives `code`, `message`, `retryable`, `details` (or null)
/// - `envelope`: `text`, and optionally `receiver` (`client` or `runtime`); gives `text`, the same message printed
///
/// Fails with what the function refuses, or `ARCP_BAD_ARGUMENT` for an unknown function or a wrong shape.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_call_function(
    function: *const c_char,
    arguments: *const c_char,
    answer: *mut *mut c_char,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            let out = Out::new(answer, "answer")?;
            out.give_text(call_function(text(function, "function")?, text(arguments, "arguments")?)?);
            Ok(())
        })
    }
}
