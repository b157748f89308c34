//! Transports and listeners, which JavaScript holds but never reads: sockets stay on the core's threads.

use std::sync::Arc;

use arcp_bridge::{ConnectOptions, ListenOptions, ListenerHandle, TransportHandle};
use napi_derive::napi;

use crate::core::core;
use crate::error::thrown;
use crate::port::{NativePort, number};

/// A transport that is not in use yet.
#[napi]
pub struct NativeTransport {
    pub(crate) transport: Arc<TransportHandle>,
}

#[napi]
impl NativeTransport {
    /// Ends the connection without a word, also while a client or runtime uses it.
    #[napi]
    pub fn close(&self) {
        self.transport.close();
    }

    /// Whether it is closed or in use.
    #[napi]
    pub fn is_used(&self) -> bool {
        self.transport.is_used()
    }
}

/// Completes with a [`NativeTransport`]; `options` is the JSON of [`ConnectOptions`].
#[napi]
pub(crate) fn connect_websocket(port: &NativePort, call: i64, url: String, options: String) -> napi::Result<()> {
    thrown(
        ConnectOptions::from_json(&options)
            .and_then(|options| TransportHandle::connect_websocket(&core()?, &port.port, number(call), url, options)),
    )
}

/// Two connected ends.
#[napi]
pub(crate) fn memory_pair() -> Vec<NativeTransport> {
    let (left, right) = TransportHandle::memory_pair();
    [left, right].map(|transport| NativeTransport { transport: Arc::new(transport) }).into()
}

/// A listening socket.
#[napi]
pub struct NativeListener {
    pub(crate) listener: Arc<ListenerHandle>,
}

#[napi]
impl NativeListener {
    /// Stops listening; accepted connections go on.
    #[napi]
    pub fn close(&self) {
        self.listener.close();
    }
}

/// Completes with a [`NativeListener`]; `options` is the JSON of [`ListenOptions`].
#[napi]
pub(crate) fn listen(port: &NativePort, call: i64, options: String) -> napi::Result<()> {
    thrown(
        ListenOptions::from_json(&options)
            .and_then(|options| ListenerHandle::bind(&core()?, &port.port, number(call), options)),
    )
}
