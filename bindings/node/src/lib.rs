//! The addon behind the npm package `arcp`. It translates `arcp-bridge` and decides nothing; the TypeScript in `node/src`
//! is its only caller.
//!
//! Conventions: payloads cross as JSON text and are parsed in JavaScript, which is several times faster than building
//! objects through Node-API; a call that takes time gets a number from JavaScript and completes as an item of its
//! [`port::NativePort`]; an error is thrown with the JSON of an `ErrorInfo` as its message.

mod client;
mod core;
mod error;
mod job;
mod port;
mod registry;
mod runtime;
mod transport;

use napi_derive::napi;

/// The protocol's version.
#[napi]
pub(crate) fn protocol_version() -> &'static str {
    arcp_bridge::PROTOCOL_VERSION
}

/// The version of the core.
#[napi]
pub(crate) fn impl_version() -> &'static str {
    arcp_bridge::IMPL_VERSION
}

/// Calls a pure function; arguments and answer as in [`arcp_bridge::call_function`].
#[napi]
pub(crate) fn call_function(name: String, arguments: String) -> napi::Result<String> {
    error::thrown(arcp_bridge::call_function(&name, &arguments))
}
