//! The threads, and what belongs to no other object.

use std::ffi::{CString, c_char};
use std::sync::OnceLock;
use std::time::Duration;

use arcp_bridge::{Core, ErrorInfo, LogLevel};

use crate::boundary::{Out, c_text, free, guard, quietly, reference};
use crate::error::{arcp_error, arcp_result};
use crate::port::arcp_port;

/// The threads everything runs on. One per process is enough.
pub struct arcp_core {
    pub(crate) core: Core,
}

/// How much a log line matters.
#[derive(Clone, Copy)]
#[repr(C)]
pub enum arcp_log_level {
    /// Everything.
    ARCP_LOG_TRACE = 5,
    /// For developers.
    ARCP_LOG_DEBUG = 10,
    /// For operators.
    ARCP_LOG_INFO = 20,
    /// Something to look at.
    ARCP_LOG_WARN = 30,
    /// Something failed.
    ARCP_LOG_ERROR = 40,
}

/// The version of this library, such as `0.1.0`. The string is static.
#[unsafe(no_mangle)]
pub extern "C" fn arcp_version() -> *const c_char {
    static TEXT: OnceLock<CString> = OnceLock::new();
    TEXT.get_or_init(|| c_text(arcp_bridge::IMPL_VERSION)).as_ptr()
}

/// The version of the protocol it speaks, such as `1.1`. The string is static.
#[unsafe(no_mangle)]
pub extern "C" fn arcp_protocol_version() -> *const c_char {
    static TEXT: OnceLock<CString> = OnceLock::new();
    TEXT.get_or_init(|| c_text(arcp_bridge::PROTOCOL_VERSION)).as_ptr()
}

/// Starts a core with this many threads; 0 takes one per processor, at most four. Fails with `ARCP_TRANSPORT` when the
/// system gives no threads.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_core_new(
    threads: usize,
    core: *mut *mut arcp_core,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            let out = Out::new(core, "core")?;
            out.give(arcp_core { core: Core::new(threads)? });
            Ok(())
        })
    }
}

/// Sends the core's own log lines from this `arcp_log_level` on to a port, as `ARCP_ITEM_LOG`; the last port set gets
/// them. At most 1024 lines wait; beyond that new ones are dropped. Without this call nothing is logged.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_core_log_to(
    core: *const arcp_core,
    port: *const arcp_port,
    level: i32,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            let level = match level {
                5 => LogLevel::Trace,
                10 => LogLevel::Debug,
                20 => LogLevel::Info,
                30 => LogLevel::Warn,
                40 => LogLevel::Error,
                other => {
                    let message = format!("level is {other}; it must be one of arcp_log_level: 5, 10, 20, 30, 40");
                    return Err(ErrorInfo::argument(message).into());
                }
            };
            reference(core, "core")?.core.log_to(reference(port, "port")?.bridge(), level);
            Ok(())
        })
    }
}

/// Stops every thread, waiting at most this long for work under way; sessions are cut, calls complete no more, and
/// later ones fail with `ARCP_CLOSED`. Doing it twice is fine. Not to be called from a port's callback.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_core_shutdown(core: *const arcp_core, timeout_ms: u32) {
    quietly((), || {
        // SAFETY: the header's rules.
        if let Some(core) = unsafe { core.as_ref() } {
            core.core.shutdown(Duration::from_millis(timeout_ms.into()));
        }
    });
}

/// Frees a core. Its threads go on for as long as another object uses them; `arcp_core_shutdown` stops them at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_core_free(core: *mut arcp_core) {
    // SAFETY: the header's rules.
    unsafe { free(core) };
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    #[test]
    fn versions_are_text() {
        // SAFETY: both are static strings.
        let (library, protocol) = unsafe { (CStr::from_ptr(arcp_version()), CStr::from_ptr(arcp_protocol_version())) };
        assert_eq!(library.to_str(), Ok(arcp_bridge::IMPL_VERSION));
        assert_eq!(protocol.to_str(), Ok(arcp_bridge::PROTOCOL_VERSION));
    }
}
