//! A registry in the host's process, for its tests: what `arcp registry serve --dev` serves.

use std::collections::BTreeMap;
use std::sync::Arc;

use arcp::registry::server::config::{Config, Secret, Sources, find_setting};
use arcp::registry::server::{Running, ServeError, start};
use parking_lot::Mutex;

use crate::core::Core;
use crate::error::{ErrorInfo, ErrorKind, read};
use crate::port::{Port, Value};

/// A registry's server, which [`RegistryServer::start`] starts. What it keeps is in memory.
pub struct RegistryServer {
    core: Core,
    state: Arc<Mutex<State>>,
}

enum State {
    Ready(Box<Config>),
    Starting,
    Running(Running),
    Stopped,
}

impl RegistryServer {
    /// A server that does not run yet. `settings` is JSON of an object: texts by the names of environment variables
    /// (REG-501 to REG-507); neither the environment nor a file is read.
    ///
    /// # Errors
    /// Names the settings that are unknown or wrong.
    pub fn new(core: &Core, settings: &str) -> Result<Self, ErrorInfo> {
        core.handle()?;
        let settings: BTreeMap<String, String> = read("settings", settings)?;
        let mut flags = Vec::new();
        for (name, text) in settings {
            let Some(setting) = find_setting(&name) else {
                return Err(ErrorInfo::argument(format!(
                    "settings: there is no {name}; `arcp registry config check` lists the names"
                )));
            };
            flags.push((setting.id(), Secret::new(text)));
        }
        let sources = Sources { dev: true, flags, ..Sources::default() };
        let config = Config::load(&sources).map_err(|error| ErrorInfo::argument(error.to_string()))?;
        let state = Arc::new(Mutex::new(State::Ready(Box::new(config))));
        Ok(RegistryServer { core: core.clone(), state })
    }

    /// Starts it; completes with JSON of `url`.
    ///
    /// # Errors
    /// At once when it was started before; else through the port, such as for a port that is taken.
    pub fn start(&self, port: &Port, call: u64) -> Result<(), ErrorInfo> {
        let handle = self.core.handle()?;
        let mut state = self.state.lock();
        let config = match std::mem::replace(&mut *state, State::Starting) {
            State::Ready(config) => config,
            other => {
                *state = other;
                return Err(ErrorInfo::argument("this registry was started before; make another"));
            }
        };
        drop(state);
        let place = Arc::clone(&self.state);
        port.spawn(&handle, call, async move {
            match start(*config).await {
                Ok(running) => {
                    let url = running.url();
                    *place.lock() = State::Running(running);
                    Ok(Value::Json(serde_json::json!({ "url": url }).to_string()))
                }
                Err(error) => {
                    *place.lock() = State::Stopped;
                    Err(failed(&error))
                }
            }
        });
        Ok(())
    }

    /// Stops it, when what is being answered is done. Idempotent.
    ///
    /// # Errors
    /// When the core is gone.
    pub fn stop(&self, port: &Port, call: u64) -> Result<(), ErrorInfo> {
        let handle = self.core.handle()?;
        let state = std::mem::replace(&mut *self.state.lock(), State::Stopped);
        port.spawn(&handle, call, async move {
            if let State::Running(running) = state {
                running.stop().await;
            }
            Ok(Value::Nothing)
        });
        Ok(())
    }
}

fn failed(error: &ServeError) -> ErrorInfo {
    ErrorInfo::local(ErrorKind::Transport, error.to_string())
}
