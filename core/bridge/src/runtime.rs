//! A runtime whose agents and verifier may run in the host.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arcp::{AuditFile, Mirror, Monitor, ProtocolError, Provisioner, StaticBearerVerifier, Verifier, VerifyFuture};
use parking_lot::Mutex;

use crate::core::Core;
use crate::error::ErrorInfo;
use crate::event_log::HostMirror;
use crate::invocation::{HostAgent, VerifyRequest};
use crate::options::{JwtOptions, RuntimeOptions};
use crate::policy::HostPolicy;
use crate::port::{Item, Port, Value};
use crate::provision::HostProvisioner;
use crate::transport::{ListenerHandle, TransportHandle};

/// Hosts agents and serves sessions. Cheap to clone; all clones are one runtime.
#[derive(Clone)]
pub struct Runtime {
    core: Core,
    runtime: arcp::Runtime,
    plugged: Arc<Plugged>,
}

/// What the host has plugged in, and what it has asked to be served beside.
#[derive(Default)]
pub(crate) struct Plugged {
    pub(crate) provisioner: OnceLock<Arc<HostProvisioner>>,
    mirror: OnceLock<Arc<HostMirror>>,
    monitor: Mutex<Option<Monitor>>,
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
        Ok(Runtime { core: core.clone(), runtime, plugged: Arc::default() })
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
        let (core, plugged) = (self.core.clone(), Arc::clone(&self.plugged));
        let agent = HostAgent { core, port: port.clone(), plugged };
        Ok(self.runtime.register_hosted(name, version, Arc::new(agent), restartable)?)
    }

    /// Has the policy behind `port` asked who may list and follow which job ([`About::Policy`]); by default a principal
    /// sees its own jobs. It is never asked about a cancel. To be called once, before the first session.
    ///
    /// # Errors
    /// When there is one already, or the core is gone.
    pub fn set_policy(&self, port: &Port) -> Result<(), ErrorInfo> {
        let handle = self.core.handle()?;
        let _inside = handle.enter();
        Ok(self.runtime.set_asked_policy(Arc::new(HostPolicy { port: port.clone() }))?)
    }

    /// The policy's answers may have changed: it is asked anew about every subscription, and those it refuses end
    ///
    ///
    /// # Errors
    /// When the core is gone.
    pub fn policy_changed(&self) -> Result<(), ErrorInfo> {
        let handle = self.core.handle()?;
        let _inside = handle.enter();
        self.runtime.policy_changed();
        Ok(())
    }

    /// Has credentials made and revoked behind `port` ([`About::Issue`], [`About::Revoke`]). With `revocation_log` the
    /// host also writes down what is issued ([`About::Record`], [`About::Forget`]), and what it wrote down and did not
    /// revoke ([`About::Outstanding`]) is revoked first. They are offered only with that or over a database. To be called
    /// once, before the first session.
    ///
    /// # Errors
    /// When there is one already, or the core is gone.
    pub fn set_provisioner(&self, port: &Port, revocation_log: bool) -> Result<(), ErrorInfo> {
        let handle = self.core.handle()?;
        if revocation_log {
            self.runtime.set_revocations_kept();
        }
        let provisioner = HostProvisioner::new(handle.clone(), port.clone(), revocation_log);
        self.core.reporting(|| self.runtime.set_provisioner(Arc::clone(&provisioner) as Arc<dyn Provisioner>))?;
        drop(self.plugged.provisioner.set(Arc::clone(&provisioner)));
        if revocation_log {
            let runtime = self.runtime.clone();
            handle.spawn(async move { provisioner.settle_outstanding(&runtime).await });
        }
        Ok(())
    }

    /// Tells the event log behind `port` of every numbered message once it is stored ([`About::EventLog`]), in batches
    /// and without ever waiting for it. To be called once, before the first session.
    ///
    /// # Errors
    /// When there is one already, or the core is gone.
    pub fn set_event_log(&self, port: &Port) -> Result<(), ErrorInfo> {
        let handle = self.core.handle()?;
        let mirror = self.core.reporting(|| HostMirror::start(&handle, port.clone()));
        self.runtime.set_mirror(Arc::clone(&mirror) as Arc<dyn Mirror>)?;
        drop(self.plugged.mirror.set(mirror));
        Ok(())
    }

    /// Completes once the event log was told of everything so far, or after `patience`.
    ///
    /// # Errors
    /// At once when the core is gone.
    pub fn flush_event_log(&self, port: &Port, call: u64, patience: Duration) -> Result<(), ErrorInfo> {
        let handle = self.core.handle()?;
        let mirror = self.plugged.mirror.get().map(Arc::clone);
        port.spawn(&handle, call, async move {
            if let Some(mirror) = mirror {
                mirror.flushed(patience).await;
            }
            Ok(Value::Nothing)
        });
        Ok(())
    }

    /// Appends an audit entry per line to this file from now on.
    ///
    /// # Errors
    /// When the file cannot be appended to.
    pub fn set_audit(&self, path: &str) -> Result<(), ErrorInfo> {
        let file = self.core.reporting(|| AuditFile::open(Path::new(path)));
        let file = file.map_err(|error| ErrorInfo::argument(format!("cannot append to {path}: {error}")))?;
        self.runtime.set_audit(Arc::new(file));
        Ok(())
    }

    /// Serves `/metrics`, `/health` and `/ready` at `HOST:PORT` for as long as the runtime lives; completes with the URL
    /// of the metrics as JSON text.
    ///
    /// # Errors
    /// At once when the core is gone; through the port when the address cannot be had.
    pub fn serve_metrics(&self, port: &Port, call: u64, address: String) -> Result<(), ErrorInfo> {
        let handle = self.core.handle()?;
        let (runtime, plugged) = (self.runtime.clone(), Arc::clone(&self.plugged));
        port.spawn(&handle, call, async move {
            let monitor = Monitor::bind(&address, Arc::new(runtime)).await?;
            let url = monitor.metrics_url();
            *plugged.monitor.lock() = Some(monitor);
            Ok(Value::Json(serde_json::Value::from(url).to_string()))
        });
        Ok(())
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
