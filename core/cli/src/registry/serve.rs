//! `arcp registry serve`.

use std::path::Path;

use arcp::registry::server::config::{Config, Database, Severity};
use arcp::registry::server::{Running, ServeError, start};
use serde_json::json;

use super::RegistryServeArgs;
use crate::args::OutputForm;
use crate::exit::Failure;
use crate::output::{member, note, print, shown};
use crate::signals::Interrupts;

/// Starts it and says where it is.
pub(crate) async fn begin(config: Config, output: OutputForm) -> Result<Running, Failure> {
    let kept = config.clone();
    let running = start(config).await.map_err(|error| match error {
        ServeError::Listen { .. } | ServeError::Open(_) => Failure::Other(error.to_string()),
    })?;
    say(&kept, &running, output)?;
    Ok(running)
}

fn say(config: &Config, running: &Running, output: OutputForm) -> Result<(), Failure> {
    let db: Option<&Path> = match &config.db {
        Database::Memory => None,
        Database::File(path) => Some(path),
    };
    let url = running.url();
    if output == OutputForm::Json {
        let line = json!({"url": url, "db": db.map(Path::to_string_lossy), "dev": config.dev});
        return print(&member("registry", &line.to_string()));
    }
    note(&format!("arcp registry listening on {url}"));
    match db {
        Some(path) => note(&format!("arcp registry keeps agents in {}", shown(&path.to_string_lossy()))),
        None => note("arcp registry keeps agents in memory; they are gone when it stops"),
    }
    if config.dev {
        if let Some(admin) = &config.admin {
            note(&format!("arcp registry administrator {} with password {}", admin.username, admin.password.reveal()));
        }
        let keys: Vec<&str> = config.agent_keys.iter().map(|key| key.reveal()).collect();
        note(&format!("arcp registry agent keys {}", keys.join(", ")));
        return Ok(());
    }
    if let Some(old) = config.state_file.as_ref().filter(|file| file.exists())
        && running.state().service.stats().total == 0
    {
        let old = old.to_string_lossy();
        note(&format!(
            "arcp registry has no agents yet; `arcp registry import {}` takes those of the published server",
            shown(&old)
        ));
    }
    let auth = &running.state().auth;
    // What a command adds is kept in a file, and this one may have none.
    let (user, key) = match db {
        Some(_) => ("add one with `arcp registry user add NAME`", "make one with `arcp registry key generate`"),
        None => ("set ADMIN_USERNAME and ADMIN_PASSWORD", "set AGENT_KEYS"),
    };
    if !auth.has_users() {
        note(&format!("arcp registry has no administrator yet; {user}"));
    }
    if !auth.has_keys() {
        note(&format!("arcp registry has no agent key yet, so no agent can register; {key}"));
    }
    for finding in config.findings.iter().filter(|finding| finding.severity == Severity::Unwise) {
        note(&format!("arcp registry: {}", shown(&finding.message)));
    }
    Ok(())
}

pub(super) async fn run(args: RegistryServeArgs) -> Result<(), Failure> {
    let config = args.settings.config()?;
    let mut interrupts = Interrupts::new().map_err(|error| Failure::Other(error.to_string()))?;
    let running = begin(config, args.output).await?;
    interrupts.next().await;
    tokio::select! {
        () = running.stop() => Ok(()),
        () = interrupts.next() => Err(Failure::Interrupted(None)),
    }
}
