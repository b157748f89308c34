//! A runtime whose agents and verifier may run in the host.

use std::sync::Arc;
use std::time::Duration;

use arcp::{Agent, AgentFuture, JobContext, ProtocolError, RawJson, StaticBearerVerifier, Verifier, VerifyFuture};

use crate::core::Core;
use crate::error::ErrorInfo;
use crate::invocation::{VerifyRequest, run_in_host};
use crate::options::{JwtOptions, RuntimeOptions};
use crate::port::{Item, Port, Value};
use crate::transport::{ListenerHandle, TransportHandle};

/// Hosts agents and serves sessions. Cheap to clone; all clones are one runtime.
#[derive(Clone)]
pub struct Runtime {
    core: Core,
    runtime: arcp::Runtime,
}

/// Who verifies tokens.
pub enum VerifierChoice {
    /// A fixed table of (token, principal) pairs.
    Static(Vec<(String, String)>),
    /// The host, through [`Item::Verify`].
    Host(Port),
    /// Signed tokens: the JSON text of [`JwtOptions`].
    Jwt(String),
}

impl Runtime {
    /// A runtime without agents.
    ///
    /// # Errors
    /// Names the option that is wrong.
    pub fn new(core: &Core, options: RuntimeOptions, verifier: VerifierChoice) -> Result<Self, ErrorInfo> {
        core.handle()?;
        let store = options.store()?;
        let config = options.into_config()?;
        let verifier: Arc<dyn Verifier> = match verifier {
            VerifierChoice::Static(tokens) => Arc::new(StaticBearerVerifier::new(tokens)),
            VerifierChoice::Host(port) => Arc::new(HostVerifier { port }),
            VerifierChoice::Jwt(options) => Arc::new(JwtOptions::from_json(&options)?.into_verifier()?),
        };
        // The store has threads of its own, and a full disk must be heard of.
        let runtime = core.reporting(|| arcp::Runtime::with_store(config, verifier, store))?;
        Ok(Runtime { core: core.clone(), runtime })
    }

    /// The runtime itself, for a program that serves it without a host.
    pub fn inner(&self) -> &arcp::Runtime {
        &self.runtime
    }

    /// Adds an agent that runs behind `port`, or replaces it. A `restartable` one is run again, under the same job id, for
    /// a job that died with an earlier process over the same database (D-26).
    ///
    /// # Errors
    /// `INVALID_REQUEST` when name or version is outside the grammar.
    pub fn register_agent(
        &self,
        port: &Port,
        name: &str,
        version: Option<&str>,
        restartable: bool,
    ) -> Result<(), ErrorInfo> {
        let agent = HostAgent { core: self.core.clone(), port: port.clone() };
        Ok(self.runtime.register(name, version, Arc::new(agent), restartable)?)
    }

    /// Sets the version a bare name means.
    ///
    /// # Errors
    /// `AGENT_NOT_AVAILABLE`, `AGENT_VERSION_NOT_AVAILABLE`.
    pub fn set_default_agent_version(&self, name: &str, version: &str) -> Result<(), ErrorInfo> {
        Ok(self.runtime.set_default_agent_version(name, version)?)
    }

    /// Agents as JSON: a list of `{name, versions, default?}`.
    pub fn agent_inventory(&self) -> String {
        serde_json::to_string(&self.runtime.agent_inventory()).unwrap_or_else(|_| "[]".to_owned())
    }

    /// Runs one whole session; completes when it has ended. The transport is used up.
    ///
    /// # Errors
    /// At once when the transport is used already or the core is gone.
    pub fn accept(&self, port: &Port, call: u64, transport: &TransportHandle) -> Result<(), ErrorInfo> {
        let handle = self.core.handle()?;
        let transport = transport.take()?;
        let runtime = self.runtime.clone();
        port.spawn(&handle, call, async move {
            runtime.accept(transport).await;
            Ok(Value::Nothing)
        });
        Ok(())
    }

    /// Serves every connection of a listener on the core's own threads; completes when the listener is closed. Jobs that
    /// died with an earlier process are settled now, so agents must be registered before (D-26).
    ///
    /// # Errors
    /// At once when the listener serves already or the core is gone.
    pub fn serve(&self, port: &Port, call: u64, listener: &ListenerHandle) -> Result<(), ErrorInfo> {
        let handle = self.core.handle()?;
        let serving = listener.serve(self.runtime.clone())?;
        {
            let _inside = handle.enter();
            self.runtime.begin();
        }
        port.spawn(&handle, call, async move {
            serving.await;
            Ok(Value::Nothing)
        });
        Ok(())
    }

    /// Cancels every job, gives them up to `grace`, ends every session; completes then.
    ///
    /// # Errors
    /// At once when the core is gone.
    pub fn shutdown(&self, port: &Port, call: u64, reason: String, grace: Duration) -> Result<(), ErrorInfo> {
        let handle = self.core.handle()?;
        let runtime = self.runtime.clone();
        port.spawn(&handle, call, async move {
            runtime.shutdown(&reason, grace).await;
            Ok(Value::Nothing)
        });
        Ok(())
    }
}

struct HostAgent {
    core: Core,
    port: Port,
}

impl Agent for HostAgent {
    fn run(&self, input: RawJson, ctx: JobContext) -> AgentFuture {
        Box::pin(run_in_host(self.core.clone(), self.port.clone(), input, ctx))
    }
}

struct HostVerifier {
    port: Port,
}

impl Verifier for HostVerifier {
    fn verify(&self, token: &str) -> VerifyFuture {
        let (request, answer) = VerifyRequest::new(token.to_owned());
        self.port.push(Item::Verify(request));
        Box::pin(async move {
            answer.await.unwrap_or_else(|_| Err(ProtocolError::internal("the token could not be verified")))
        })
    }
}
