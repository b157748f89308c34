//! `arcp serve`: hosts the agent `echo`, or leaves a Python runtime to a host that can run it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arcp::transport::tls;
use arcp::{
    AuditFile, CancelPolicy, IMPL_VERSION, JobContext, ListenOptions, Listener, Monitor, ProtocolError, RawJson,
    Runtime, RuntimeConfig, RuntimeInfo,
};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::ServeApp;
use crate::args::{CancelPolicyArg, OutputForm, ServeArgs, read_file};
use crate::exit::Failure;
use crate::output::{member, note, print, shown};
use crate::registry;
use crate::signals::Interrupts;

/// Agents have so long to end at a stop, then connections have so long to take the goodbye.
const GRACE: Duration = Duration::from_secs(10);
const GOODBYE: Duration = Duration::from_secs(2);

impl ServeArgs {
    /// What the caller is to host instead, if `--app` names it.
    pub(crate) fn hosted_app(&self) -> Result<Option<ServeApp>, Failure> {
        let Some(app) = &self.app else { return Ok(None) };
        let mut options = json!({"host": self.host, "port": self.port, "path": self.path});
        if !self.allowed_host.is_empty() {
            options["allowed_hosts"] = self.allowed_host.as_slice().into();
        }
        if let Some((cert, key)) = self.tls_pem()? {
            options["cert_pem"] = cert.into();
            options["key_pem"] = key.into();
        }
        if let Some(address) = &self.metrics {
            options["metrics"] = address.as_str().into();
        }
        if let Some(path) = &self.audit {
            let path = path.to_str().ok_or_else(|| Failure::Usage("--audit: the path must be UTF-8".into()))?;
            options["audit"] = path.into();
        }
        self.store.tell_app(&mut options)?;
        Ok(Some(ServeApp {
            app: app.clone(),
            options_json: options.to_string(),
            output_json: self.output == OutputForm::Json,
        }))
    }

    fn tls_pem(&self) -> Result<Option<(String, String)>, Failure> {
        match (&self.tls_cert, &self.tls_key) {
            (Some(cert), Some(key)) => Ok(Some((read_file("--tls-cert", cert)?, read_file("--tls-key", key)?))),
            _ => Ok(None),
        }
    }

    fn listen_options(&self) -> Result<ListenOptions, Failure> {
        let tls = match self.tls_pem()? {
            None => None,
            Some((cert, key)) => {
                let config = tls::server_config(cert.as_bytes(), key.as_bytes());
                Some(config.map_err(|error| Failure::Usage(format!("--tls-cert and --tls-key: {error}")))?)
            }
        };
        Ok(ListenOptions {
            host: self.host.clone(),
            port: self.port,
            path: self.path.clone(),
            allowed_hosts: (!self.allowed_host.is_empty()).then(|| self.allowed_host.clone()),
            tls,
            ..ListenOptions::default()
        })
    }

    /// The runtime, and the file it keeps things in.
    fn runtime(&self) -> Result<(Runtime, Option<PathBuf>), Failure> {
        let mut config = RuntimeConfig::new(RuntimeInfo { name: "arcp serve".into(), version: IMPL_VERSION.into() });
        config.cancel_policy = match self.cancel_policy {
            CancelPolicyArg::Principal => CancelPolicy::Principal,
            CancelPolicyArg::Session => CancelPolicy::Session,
        };
        self.limits.apply(&mut config);
        let verifier = self.verifier()?;
        let audit = self.audit.as_deref().map(|path| {
            AuditFile::open(path)
                .map_err(|error| Failure::Usage(format!("--audit: cannot append to {}: {error}", path.display())))
        });
        let audit = audit.transpose()?;
        let (runtime, db) = self.store.runtime(config, verifier)?;
        runtime.register_agent("echo", echo).map_err(|error| Failure::Other(error.to_string()))?;
        if let Some(audit) = audit {
            runtime.set_audit(Arc::new(audit));
        }
        Ok((runtime, db))
    }

    async fn monitor(&self, runtime: &Runtime) -> Result<Option<Monitor>, Failure> {
        let Some(address) = &self.metrics else { return Ok(None) };
        let monitor = Monitor::bind(address, Arc::new(runtime.clone())).await;
        monitor.map(Some).map_err(|error| Failure::Other(format!("--metrics: {error}")))
    }

    fn say_listening(&self, url: &str, db: Option<&Path>, metrics: Option<String>) -> Result<(), Failure> {
        match self.output {
            OutputForm::Text => {
                note(&format!("arcp serve listening on {url}"));
                metrics.iter().for_each(|metrics| note(&format!("arcp serve metrics on {metrics}")));
                if let Some(db) = db {
                    note(&format!("arcp serve keeps sessions and jobs in {}", shown(&db.to_string_lossy())));
                }
            }
            OutputForm::Json => {
                let mut listening = json!({"url": url, "db": db.map(Path::to_string_lossy)});
                metrics.into_iter().for_each(|metrics| listening["metrics"] = metrics.into());
                print(&member("listening", &listening.to_string()))?;
            }
        }
        Ok(())
    }
}

async fn echo(input: RawJson, ctx: JobContext) -> Result<RawJson, ProtocolError> {
    ctx.log("info", "echo started").await?;
    RawJson::parse(&member("echoed", input.get()))
}

pub(crate) async fn run(args: ServeArgs) -> Result<(), Failure> {
    // Wrong arguments are told before anything is opened.
    let options = args.listen_options()?;
    let registry =
        args.registry_port.map(|port| registry::beside(&args.host, port, args.store.is_memory())).transpose()?;
    let (runtime, db) = args.runtime()?;
    let mut interrupts = Interrupts::new().map_err(|error| Failure::Other(error.to_string()))?;
    let mut listener = Listener::bind(options).await.map_err(|error| Failure::Other(error.to_string()))?;
    let monitor = args.monitor(&runtime).await?;
    args.say_listening(listener.url(), db.as_deref(), monitor.as_ref().map(Monitor::metrics_url))?;
    let registry = match registry {
        Some(config) => Some(registry::serve::begin(config, args.output).await?),
        None => None,
    };
    // Jobs that died with an earlier process end now, not when somebody comes to ask.
    runtime.begin();
    args.warn_of_open_files();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Some(transport) = accepted else { break };
                let runtime = runtime.clone();
                connections.spawn(async move { runtime.accept(transport).await });
            }
            Some(_) = connections.join_next() => {}
            () = interrupts.next() => break,
        }
    }
    drop(listener);
    let stop = async {
        if let Some(registry) = registry {
            registry.stop().await;
        }
        runtime.shutdown("the runtime is stopping", GRACE).await;
        // Connections that do not take the goodbye in time are cut.
        drop(timeout(GOODBYE, async { while connections.join_next().await.is_some() {} }).await);
    };
    tokio::select! {
        () = stop => Ok(()),
        () = interrupts.next() => Err(Failure::Interrupted(None)),
    }
}
