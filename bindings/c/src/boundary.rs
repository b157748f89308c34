//! What every exported function goes through: no panic passes, no pointer is used unchecked.

use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;

use crate::error::{arcp_error, arcp_result};

/// Runs the body of a function that can fail and hands its error to the caller.
///
/// # Safety
/// `error` is NULL or may be written.
pub(crate) unsafe fn guard(error: *mut *mut arcp_error, body: impl FnOnce() -> Result<(), arcp_error>) -> arcp_result {
    let outcome = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| Err(arcp_error::of_panic(&*panic)));
    let (result, given) = match outcome {
        Ok(()) => (arcp_result::ARCP_OK, null_mut()),
        Err(failure) => (failure.result(), Box::into_raw(Box::new(failure))),
    };
    if error.is_null() {
        // SAFETY: made by `Box::into_raw` above, or NULL.
        unsafe { free(given) };
    } else {
        // SAFETY: the caller's promise.
        unsafe { error.write(given) };
    }
    result
}

/// Runs the body of a function that cannot fail; `default` stands in for a panic.
pub(crate) fn quietly<T>(default: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(default)
}

/// Drops an object of the caller's.
///
/// # Safety
/// `object` is NULL or came from [`give`] or `Box::into_raw`, and is not used again.
pub(crate) unsafe fn free<T>(object: *mut T) {
    if !object.is_null() {
        // SAFETY: the caller's promise.
        quietly((), || drop(unsafe { Box::from_raw(object) }));
    }
}

/// What `object` points to.
///
/// # Safety
/// `object` is NULL or points to a live `T`.
pub(crate) unsafe fn reference<'a, T>(object: *const T, name: &str) -> Result<&'a T, arcp_error> {
    // SAFETY: the caller's promise.
    unsafe { object.as_ref() }.ok_or_else(|| arcp_error::of_null(name))
}

/// A string argument.
///
/// # Safety
/// `text` is NULL or ends with NUL.
pub(crate) unsafe fn text<'a>(text: *const c_char, name: &str) -> Result<&'a str, arcp_error> {
    if text.is_null() {
        return Err(arcp_error::of_null(name));
    }
    // SAFETY: not NULL; the rest is the caller's promise.
    unsafe { CStr::from_ptr(text) }.to_str().map_err(|error| arcp_error::of_bad_text(name, error))
}

/// A string argument that may be NULL.
///
/// # Safety
/// As [`text`].
pub(crate) unsafe fn optional_text<'a>(pointer: *const c_char, name: &str) -> Result<Option<&'a str>, arcp_error> {
    // SAFETY: the caller's promise.
    if pointer.is_null() { Ok(None) } else { unsafe { text(pointer, name) }.map(Some) }
}

/// Where an object or string is given out: NULL until [`Out::give`].
pub(crate) struct Out<T>(*mut *mut T);

impl<T> Out<T> {
    /// # Safety
    /// `out` is NULL or may be written for as long as this lives.
    pub(crate) unsafe fn new(out: *mut *mut T, name: &str) -> Result<Self, arcp_error> {
        if out.is_null() {
            return Err(arcp_error::of_null(name));
        }
        // SAFETY: not NULL; the rest is the caller's promise.
        unsafe { out.write(null_mut()) };
        Ok(Out(out))
    }

    pub(crate) fn give(self, object: T) {
        // SAFETY: `new` was promised that it may be written.
        unsafe { self.0.write(give(object)) };
    }
}

impl Out<c_char> {
    pub(crate) fn give_text(self, text: String) {
        // SAFETY: `new` was promised that it may be written.
        unsafe { self.0.write(c_text(text).into_raw()) };
    }
}

/// Makes an object the caller's, to be freed with [`free`].
pub(crate) fn give<T>(object: T) -> *mut T {
    Box::into_raw(Box::new(object))
}

/// Text as C reads it.
pub(crate) fn c_text(text: impl Into<String>) -> CString {
    CString::new(text.into()).unwrap_or_else(|error| {
        let text = String::from_utf8_lossy(&error.into_vec()).replace('\0', "\u{fffd}");
        CString::new(text).unwrap_or_default()
    })
}

/// Frees a string that was given out through a `char **`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_string_free(string: *mut c_char) {
    if !string.is_null() {
        // SAFETY: made by `CString::into_raw`; the header's rules.
        drop(unsafe { CString::from_raw(string) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error() {
        let mut error = null_mut();
        // SAFETY: `error` is a local.
        let result = unsafe { guard(&raw mut error, || panic!("broken {}", 1)) };
        assert_eq!(result, arcp_result::ARCP_PANIC);
        // SAFETY: set by `guard`.
        unsafe {
            assert!(CStr::from_ptr(crate::error::arcp_error_message(error)).to_str().unwrap().contains("broken 1"));
            free(error);
        }
        assert_eq!(quietly(7, || panic!("broken")), 7);
    }

    #[test]
    fn a_nul_inside_a_text_is_replaced() {
        assert_eq!(c_text("a\0b"), c"a\u{fffd}b".to_owned());
    }
}
