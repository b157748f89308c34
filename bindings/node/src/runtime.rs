//! A runtime whose agents are JavaScript functions.

use std::sync::Arc;
use std::time::Duration;

use arcp_bridge::{
    ErrorInfo, Invocation, ResultData, Runtime, RuntimeOptions, TokenRequest, VerifierChoice, VerifyRequest,
};
use napi::Either;
use napi::bindgen_prelude::Uint8Array;
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
    /// `options` is the JSON of [`RuntimeOptions`]; `tokens` are (token, principal) pairs, or the JSON of
    /// [`arcp_bridge::JwtOptions`]; without them `port` is asked.
    #[napi(constructor)]
    pub fn new(
        port: &NativePort,
        options: String,
        tokens: Option<Either<Vec<(String, String)>, String>>,
    ) -> napi::Result<Self> {
        let verifier = match tokens {
            Some(Either::A(tokens)) => VerifierChoice::Static(tokens),
            Some(Either::B(options)) => VerifierChoice::Jwt(options),
            None => VerifierChoice::Host(port.port.clone()),
        };
        let runtime = RuntimeOptions::from_json(&options).and_then(|options| Runtime::new(&core()?, options, verifier));
        Ok(NativeRuntime { runtime: thrown(runtime)? })
    }

    /// Its invocations arrive on `port`.
    #[napi]
    pub fn register_agent(
        &self,
        port: &NativePort,
        name: String,
        version: Option<String>,
        restartable: bool,
    ) -> napi::Result<()> {
        thrown(self.runtime.register_agent(&port.port, &name, version.as_deref(), restartable))
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

/// How far a write got.
#[napi(object, object_from_js = false)]
pub struct WrittenPart {
    /// Bytes.
    pub taken: u32,
    /// Whether to wait with `drained` before the next.
    pub must_wait: bool,
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

    /// Opens the result to be written in parts; its id.
    #[napi]
    pub fn open_result(&self, result_id: Option<String>, chunk_bytes: Option<u32>) -> napi::Result<String> {
        thrown(self.invocation.open_result(result_id, chunk_bytes.map(|bytes| bytes as usize)))
    }

    /// Writes what may be written at once. `utf8` sends the bytes as text, which they must be. JavaScript writes long data
    /// piece by piece.
    #[napi]
    pub fn write_result(&self, data: Uint8Array, utf8: bool) -> napi::Result<WrittenPart> {
        let data = if utf8 {
            let text = std::str::from_utf8(&data).map_err(|error| ErrorInfo::argument(format!("data: {error}")));
            ResultData::Text(thrown(text)?)
        } else {
            ResultData::Bytes(&data)
        };
        let written = thrown(self.invocation.write_result(data))?;
        // A piece is some MiB.
        Ok(WrittenPart { taken: u32::try_from(written.taken).unwrap_or(u32::MAX), must_wait: written.must_wait })
    }

    /// Sends the part that is kept back.
    #[napi]
    pub fn flush_result(&self) -> napi::Result<()> {
        thrown(self.invocation.flush_result())
    }

    /// Ends the result.
    #[napi]
    pub fn finish_result(&self, summary: Option<String>) -> napi::Result<()> {
        thrown(self.invocation.finish_result(summary.as_deref()))
    }

    /// Completes with the payload of the child's `job.accepted`.
    #[napi]
    pub fn delegate(&self, port: &NativePort, call: i64, request: String) -> napi::Result<()> {
        thrown(self.invocation.delegate(&port.port, number(call), &request))
    }

    /// Completes with the child's result.
    #[napi]
    pub fn child_result(&self, port: &NativePort, call: i64, job_id: String) -> napi::Result<()> {
        thrown(self.invocation.child_result(&port.port, number(call), &job_id))
    }

    /// Returns at once.
    #[napi]
    pub fn cancel_child(&self, job_id: String, reason: String) -> napi::Result<()> {
        thrown(self.invocation.cancel_child(&job_id, &reason))
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
        self.request.answer(Err::<String, _>(from_json(&error)));
    }
}

/// A token a client is to show. Collected without an answer, the attempt to connect has failed.
#[napi]
pub struct NativeTokenRequest {
    request: TokenRequest,
}

#[napi]
impl NativeTokenRequest {
    pub(crate) fn new(request: TokenRequest) -> Self {
        NativeTokenRequest { request }
    }

    /// This is the token.
    #[napi]
    pub fn give(&mut self, token: String) {
        self.request.answer(Ok(token));
    }

    /// There is none; `error` is the JSON of an `ErrorInfo`.
    #[napi]
    pub fn refuse(&mut self, error: String) {
        self.request.answer(Err(from_json(&error)));
    }
}
