//! Transports and listeners.

use std::ffi::{CString, c_char};
use std::ptr::null;
use std::sync::Arc;

use arcp_bridge::{ConnectOptions, Core, ListenOptions, ListenerHandle, TransportHandle};

use crate::boundary::{Out, c_text, free, guard, optional_text, quietly, reference, text};
use crate::core::arcp_core;
use crate::error::{arcp_error, arcp_result};
use crate::port::arcp_port;

/// A connection that is not in use yet. The client or runtime that takes it uses it up.
pub struct arcp_transport {
    pub(crate) transport: Arc<TransportHandle>,
}

/// Accepts WebSocket connections.
pub struct arcp_listener {
    core: Core,
    pub(crate) listener: Arc<ListenerHandle>,
    url: CString,
}

impl arcp_transport {
    pub(crate) fn new(transport: Arc<TransportHandle>) -> Self {
        arcp_transport { transport }
    }
}

impl arcp_listener {
    pub(crate) fn new(core: Core, listener: Arc<ListenerHandle>) -> Self {
        arcp_listener { core, url: c_text(listener.url()), listener }
    }
}

/// Two connected ends in this process: give one to a client and one to a runtime.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_transport_pair_new(
    left: *mut *mut arcp_transport,
    right: *mut *mut arcp_transport,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            let (left, right) = (Out::new(left, "left")?, Out::new(right, "right")?);
            let (one, other) = TransportHandle::memory_pair();
            left.give(arcp_transport::new(Arc::new(one)));
            right.give(arcp_transport::new(Arc::new(other)));
            Ok(())
        })
    }
}

/// Connects to `ws://` or `wss://`; completes with `transport`. `options` is a JSON object or NULL: `headers` (list of
/// name and value pairs), `ca_pem` (certificates to trust besides the platform's), `max_message_bytes` (16 MiB),
/// `timeout_sec` (10), `allow_cleartext` (`warn`, `refuse` or `silent`, about `ws://` to another machine; `warn`).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_transport_connect(
    core: *const arcp_core,
    port: *const arcp_port,
    call: u64,
    url: *const c_char,
    options: *const c_char,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            let (core, port) = (reference(core, "core")?, reference(port, "port")?);
            let url = text(url, "url")?.to_owned();
            let options = ConnectOptions::from_json(optional_text(options, "options")?.unwrap_or("{}"))?;
            Ok(TransportHandle::connect_websocket(&core.core, port.bridge(), call, url, options)?)
        })
    }
}

/// This process's standard input and output as a transport; lines beyond `max_line_bytes` are refused. Neither may be
/// used otherwise from here on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_transport_stdio_new(
    core: *const arcp_core,
    max_line_bytes: usize,
    transport: *mut *mut arcp_transport,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            let out = Out::new(transport, "transport")?;
            let streams = TransportHandle::std_streams(&reference(core, "core")?.core, max_line_bytes)?;
            out.give(arcp_transport::new(Arc::new(streams)));
            Ok(())
        })
    }
}

/// Frees a transport; one that nobody has taken is closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_transport_free(transport: *mut arcp_transport) {
    // SAFETY: the header's rules.
    unsafe { free(transport) };
}

/// Listens for WebSocket connections; completes with `listener`. `options` is a JSON object or NULL: `host`
/// (`127.0.0.1`), `port` (7777; 0 takes a free one), `path` (`/arcp`), `allowed_hosts` (list), `cert_pem` and `key_pem`
/// (together they make it `wss://`), `max_message_bytes` (16 MiB).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_listener_bind(
    core: *const arcp_core,
    port: *const arcp_port,
    call: u64,
    options: *const c_char,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            let (core, port) = (reference(core, "core")?, reference(port, "port")?);
            let options = ListenOptions::from_json(optional_text(options, "options")?.unwrap_or("{}"))?;
            Ok(ListenerHandle::bind(&core.core, port.bridge(), call, options)?)
        })
    }
}

/// What a client connects to, with the real port.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_listener_url(listener: *const arcp_listener) -> *const c_char {
    // SAFETY: the header's rules.
    quietly(null(), || unsafe { listener.as_ref() }.map_or(null(), |listener| listener.url.as_ptr()))
}

/// Takes one connection; completes with `transport`, or with `ARCP_CLOSED` when the listener is closed. To have every
/// connection served by a runtime, use `arcp_runtime_serve` instead.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_listener_accept(
    listener: *const arcp_listener,
    port: *const arcp_port,
    call: u64,
    error: *mut *mut arcp_error,
) -> arcp_result {
    // SAFETY: the header's rules.
    unsafe {
        guard(error, || {
            let (listener, port) = (reference(listener, "listener")?, reference(port, "port")?);
            Ok(listener.listener.accept(&listener.core, port.bridge(), call)?)
        })
    }
}

/// Stops listening; accepted connections go on. Closing twice is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_listener_close(listener: *const arcp_listener) {
    quietly((), || {
        // SAFETY: the header's rules.
        if let Some(listener) = unsafe { listener.as_ref() } {
            listener.listener.close();
        }
    });
}

/// Frees a listener. One that serves goes on until `arcp_runtime_shutdown` or the core's; close it to stop it before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn arcp_listener_free(listener: *mut arcp_listener) {
    // SAFETY: the header's rules.
    unsafe { free(listener) };
}
