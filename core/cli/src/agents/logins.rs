//! What `arcp login` and `arcp agents register` remember: tokens by registry, readable by the user alone.

use std::collections::BTreeMap;
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

    /// Stores it whole or not at all.
    pub(crate) fn store(&self, path: &Path) -> Result<(), Failure> {
        let failed = |error: std::io::Error| Failure::Other(format!("cannot write {}: {error}", path.display()));
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(failed)?;
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
fn private_file(path: &Path) -> std::io::Result<std::fs::File> {
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
