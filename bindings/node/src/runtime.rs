//! A runtime whose agents are JavaScript functions.

use std::sync::Arc;
use std::time::Duration;

use arcp_bridge::{Invocation, Runtime, RuntimeOptions, VerifierChoice, VerifyRequest};
use napi_derive::napi;

use crate::core::core;
use crate::error::{from_json, thrown};
use crate::port::{NativePort, number, quoted};
use crate::transport::{NativeListener, NativeTransport};

/// Hosts agents and serves sessions.
#[napi]
pub struct NativeRuntime {
    runtime: Runtime,
}

#[napi]
impl NativeRuntime {
    /// `options` is the JSON of [`RuntimeOptions`]; `tokens` are (token, principal) pairs, without them `port` is asked.
    #[napi(constructor)]
    pub fn new(port: &NativePort, options: String, tokens: Option<Vec<(String, String)>>) -> napi::Result<Self> {
        let verifier = match tokens {
            Some(tokens) => VerifierChoice::Static(tokens),
            None => VerifierChoice::Host(port.port.clone()),
        };
        let runtime = RuntimeOptions::from_json(&options).and_then(|options| Runtime::new(&core()?, options, verifier));
        Ok(NativeRuntime { runtime: thrown(runtime)? })
    }

    /// Its invocations arrive on `port`.
    #[napi]
    pub fn register_agent(&self, port: &NativePort, name: String, version: Option<String>) -> napi::Result<()> {
        thrown(self.runtime.register_agent(&port.port, &name, version.as_deref(), false))
    }

    /// Sets the version a bare name means.
    #[napi]
    pub fn set_default_agent_version(&self, name: String, version: String) -> napi::Result<()> {
        thrown(self.runtime.set_default_agent_version(&name, &version))
    }

    /// JSON: a list of `{name, versions, default?}`.
    #[napi]
    pub fn agent_inventory(&self) -> String {
        self.runtime.agent_inventory()
    }

    /// Completes when the session has ended; uses the transport up.
    #[napi]
    pub fn accept(&self, port: &NativePort, call: i64, transport: &NativeTransport) -> napi::Result<()> {
        thrown(self.runtime.accept(&port.port, number(call), &transport.transport))
    }

    /// Completes when the listener is closed.
    #[napi]
    pub fn serve(&self, port: &NativePort, call: i64, listener: &NativeListener) -> napi::Result<()> {
        thrown(self.runtime.serve(&port.port, number(call), &listener.listener))
    }

    /// Completes when every session has ended, at the latest after `grace_ms`.
    #[napi]
    pub fn shutdown(&self, port: &NativePort, call: i64, reason: String, grace_ms: u32) -> napi::Result<()> {
        let grace = Duration::from_millis(grace_ms.into());
        thrown(self.runtime.shutdown(&port.port, number(call), reason, grace))
    }
}

/// One job for a JavaScript agent. Collected without an answer, it ends as `INTERNAL_ERROR`.
#[napi]
pub struct NativeInvocation {
    pub(crate) invocation: Arc<Invocation>,
}

#[napi]
impl NativeInvocation {
    /// JSON of what the job was started with.
    pub(crate) fn start(invocation: &Invocation) -> String {
        let start = invocation.start();
        let optional = |text: Option<&str>| text.map_or_else(|| "null".to_owned(), quoted);
        let expires_at = start.lease_constraints.as_ref().and_then(|constraints| constraints.expires_at.as_deref());
        format!(
            r#"{{"job_id":{},"session_id":{},"principal":{},"agent":{},"version":{},"trace_id":{},"lease":{},"expires_at":{}}}"#,
            quoted(&start.job_id),
            quoted(&start.session_id),
            quoted(&start.principal),
            quoted(&start.agent),
            optional(start.version.as_deref()),
            quoted(&start.trace_id),
            invocation.lease(),
            optional(expires_at),
        )
    }

    /// Current budget counters as JSON; `null` without a budget.
    #[napi]
    pub fn budget(&self) -> Option<String> {
        self.invocation.budget()
    }

    /// Emits an event; whether to wait with `drained` before the next.
    #[napi]
    pub fn emit(&self, kind: String, body: String) -> napi::Result<bool> {
        thrown(self.invocation.emit(&kind, &body))
    }

    /// Completes when the job may emit on.
    #[napi]
    pub fn drained(&self, port: &NativePort, call: i64) -> napi::Result<()> {
        thrown(self.invocation.drained(&port.port, number(call)))
    }

    /// Throws the refusal when the lease does not cover the operation.
    #[napi]
    pub fn authorize(&self, namespace: String, target: String) -> napi::Result<()> {
        thrown(self.invocation.authorize(&namespace, &target))
    }

    /// The agent returned this JSON text.
    #[napi]
    pub fn complete(&self, result: String) -> napi::Result<()> {
        thrown(self.invocation.complete(&result))
    }

    /// The agent failed; `error` is the JSON of an `ErrorInfo`.
    #[napi]
    pub fn fail(&self, error: String) {
        self.invocation.fail(from_json(&error));
    }

    /// The agent gave way to a cancellation.
    #[napi]
    pub fn cancelled(&self) {
        self.invocation.cancelled();
    }
}

/// A token to verify. Collected without an answer, the hello is refused with `INTERNAL_ERROR`.
#[napi]
pub struct NativeVerifyRequest {
    request: VerifyRequest,
}

#[napi]
impl NativeVerifyRequest {
    pub(crate) fn new(request: VerifyRequest) -> Self {
        NativeVerifyRequest { request }
    }

    /// The token belongs to this principal.
    #[napi]
    pub fn accept(&mut self, principal: String) {
        self.request.answer(Ok(principal));
    }

    /// The token is refused; `error` is the JSON of an `ErrorInfo`.
    #[napi]
    pub fn refuse(&mut self, error: String) {
        self.request.answer(Err(from_json(&error)));
    }
}
