//! A client of an agent registry.

use arcp_bridge::Registry;
use napi_derive::napi;

use crate::core::core;
use crate::error::thrown;
use crate::port::{NativePort, number};

/// A client of one registry.
#[napi]
pub struct NativeRegistry {
    registry: Registry,
}

#[napi]
impl NativeRegistry {
    /// `options` is JSON; see [`Registry::new`].
    #[napi(constructor)]
    pub fn new(options: String) -> napi::Result<Self> {
        Ok(NativeRegistry { registry: thrown(core().and_then(|core| Registry::new(&core, &options)))? })
    }

    /// Completes with the answer of the registry; `arguments` is JSON.
    #[napi]
    pub fn call(&self, port: &NativePort, call: i64, operation: String, arguments: String) -> napi::Result<()> {
        thrown(self.registry.perform(&port.port, number(call), &operation, &arguments, None))
    }

    /// Closes idle connections.
    #[napi]
    pub fn close(&self) {
        self.registry.close();
    }
}
