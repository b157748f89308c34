//! What `arcp login` and `arcp agents register` remember: tokens by registry, readable by the user alone.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::exit::Failure;

/// The whole file. Tokens are secret, so it has no `Debug`.
#[derive(Default, Deserialize, Serialize)]
pub(crate) struct Logins {
    /// What this user's program is known by: an administrator's session belongs to it (REG-134).
    #[serde(default)]
    pub(crate) fingerprint: Option<String>,
    /// By URL.
    #[serde(default)]
    pub(crate) registries: BTreeMap<String, Login>,
}

/// What is known of one registry.
#[derive(Default, Deserialize, Serialize)]
pub(crate) struct Login {
    /// An administrator's token.
    #[serde(default)]
    pub(crate) token: Option<String>,
    /// Tokens of agents by their ids.
    #[serde(default)]
    pub(crate) agents: BTreeMap<String, String>,
}

/// Where it is kept.
pub(crate) fn path() -> Result<PathBuf, Failure> {
    use etcetera::BaseStrategy as _;
    let folders = etcetera::choose_base_strategy()
        .map_err(|error| Failure::Other(format!("there is no folder to keep tokens in: {error}")))?;
    Ok(folders.config_dir().join("arcp").join("registries.json"))
}

impl Logins {
    /// What is stored; nothing when there is no file.
    pub(crate) fn load(path: &Path) -> Result<Logins, Failure> {
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Logins::default()),
            // A part of the way is a file: there is no folder, so there is nothing in it.
            Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => return Ok(Logins::default()),
            Err(error) => return Err(Failure::Other(format!("cannot read {}: {error}", path.display()))),
        };
        serde_json::from_slice(&text).map_err(|_| {
            let path = path.display();
            Failure::Other(format!("{path} is damaged; delete it and log in again with arcp login"))
        })
    }

    /// Changes what is stored, one program after the other: two that register agents at once must not forget each other's
    /// tokens. Nothing is stored when `change` says that nothing changed.
    pub(crate) fn change<T>(path: &Path, change: impl FnOnce(&mut Logins) -> (bool, T)) -> Result<T, Failure> {
        let folder = path.parent().unwrap_or(Path::new("."));
        let failed = |error: std::io::Error| Failure::Other(format!("cannot write {}: {error}", path.display()));
        std::fs::create_dir_all(folder).map_err(failed)?;
        let turn = File::options().create(true).append(true).open(path.with_extension("lock")).map_err(failed)?;
        match turn.lock() {
            // Some network drives know no locks.
            Err(error) if error.kind() != std::io::ErrorKind::Unsupported => return Err(failed(error)),
            _ => {}
        }
        let mut logins = Logins::load(path)?;
        let (changed, outcome) = change(&mut logins);
        if changed {
            logins.store(path)?;
        }
        Ok(outcome)
    }

    /// Stores it whole or not at all.
    fn store(&self, path: &Path) -> Result<(), Failure> {
        let failed = |error: std::io::Error| Failure::Other(format!("cannot write {}: {error}", path.display()));
        let text = serde_json::to_vec_pretty(self).map_err(|error| Failure::Other(error.to_string()))?;
        let fresh = path.with_extension(format!("{}.new", std::process::id()));
        let written = private_file(&fresh).and_then(|mut file| {
            file.write_all(&text)?;
            file.sync_all()?;
            std::fs::rename(&fresh, path)
        });
        if written.is_err() {
            // What was begun is of no use.
            drop(std::fs::remove_file(&fresh));
        }
        written.map_err(failed)
    }
}

/// A new file nobody else can open.
fn private_file(path: &Path) -> std::io::Result<File> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    // Left by a process of the same number that was killed.
    if path.exists() {
        std::fs::remove_file(path)?;
    }
    options.open(path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails where it fails")]

    use super::*;

    #[test]
    fn programs_that_store_at_once_do_not_forget_each_others_tokens() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("arcp/registries.json");
        std::thread::scope(|scope| {
            for number in 0..16 {
                let path = &path;
                scope.spawn(move || {
                    let put = |logins: &mut Logins| {
                        let login = logins.registries.entry("http://h".into()).or_default();
                        (true, login.agents.insert(format!("agent-{number}"), "t".into()))
                    };
                    assert!(Logins::change(path, put).is_ok());
                });
            }
        });
        assert_eq!(Logins::load(&path).ok().unwrap().registries["http://h"].agents.len(), 16);
    }
}
