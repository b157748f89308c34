//! Where `arcp serve` keeps sessions and jobs, and where the commands that look into such a file find it.

use std::path::PathBuf;
use std::sync::Arc;

use arcp::{AesGcmSealer, Runtime, RuntimeConfig, Sealer, SqliteOptions, SqliteStore, Synchronous, Verifier};
use clap::{Args, ValueEnum};

use crate::exit::Failure;

/// What `arcp serve` keeps (D-8, D-27).
#[derive(Args)]
#[group(id = "store")]
pub(crate) struct StoreArgs {
    /// Keep sessions and jobs in this SQLite file, or in "memory" for as long as the process lives [default: arcp.db in
    /// this user's state folder; with --app, where the app says]
    #[arg(long, value_name = "PATH", value_parser = database)]
    db: Option<Database>,
    /// When what was said counts as kept: "normal" survives the end of the process, however it comes; "full" a power loss
    /// too, and is slower [default: normal]
    #[arg(long, value_enum)]
    synchronous: Option<SynchronousArg>,
    /// How large the database may become, 1M at least; a warning comes at 80 %, and at the bound nothing more is kept
    /// until something is forgotten [default: no bound]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    db_quota: Option<u64>,
    #[command(flatten)]
    key: KeyArgs,
}

/// The key file is also taken from the environment variable ARCP_DB_KEY_FILE.
#[derive(Args)]
#[group(id = "key")]
pub(crate) struct KeyArgs {
    /// Encrypt what the database keeps of inputs, events and results with the key in this file, which no other user may
    /// read: 32 bytes as they are, in hexadecimal or in Base64, as "arcp db key" makes it. A database is made with a key or
    /// without [default: the file the environment variable ARCP_DB_KEY_FILE names]
    #[arg(long, value_name = "FILE")]
    db_key_file: Option<PathBuf>,
}

const KEY_VARIABLE: &str = "ARCP_DB_KEY_FILE";

impl KeyArgs {
    /// The file, and what named it.
    fn path(&self) -> Option<(&'static str, PathBuf)> {
        match &self.db_key_file {
            Some(path) => Some(("--db-key-file", path.clone())),
            None => {
                std::env::var_os(KEY_VARIABLE).filter(|path| !path.is_empty()).map(|path| (KEY_VARIABLE, path.into()))
            }
        }
    }

    /// What encrypts the database, if anything does.
    pub(crate) fn sealer(&self) -> Result<Option<Arc<dyn Sealer>>, Failure> {
        let Some((source, path)) = self.path() else { return Ok(None) };
        let sealer = AesGcmSealer::from_key_file(path);
        sealer
            .map(|sealer| Some(Arc::new(sealer) as Arc<dyn Sealer>))
            .map_err(|error| Failure::Usage(format!("{source}: {error}")))
    }
}

/// What `--db` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Database {
    Memory,
    File(PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SynchronousArg {
    Normal,
    Full,
}

impl SynchronousArg {
    fn word(self) -> &'static str {
        match self {
            SynchronousArg::Normal => "normal",
            SynchronousArg::Full => "full",
        }
    }
}

impl StoreArgs {
    /// A runtime over the store, and the file it is in.
    pub(crate) fn runtime(
        &self,
        config: RuntimeConfig,
        verifier: impl Verifier,
    ) -> Result<(Runtime, Option<PathBuf>), Failure> {
        let path = match &self.db {
            Some(Database::Memory) => {
                self.only_with_a_file("name a file with --db")?;
                return Ok((Runtime::new(config, verifier), None));
            }
            Some(Database::File(path)) => path.clone(),
            None => default_database()?,
        };
        let path = std::path::absolute(&path).unwrap_or(path);
        let options = SqliteOptions {
            synchronous: match self.synchronous {
                Some(SynchronousArg::Full) => Synchronous::Full,
                Some(SynchronousArg::Normal) | None => Synchronous::Normal,
            },
            quota_bytes: self.db_quota,
            sealer: self.key.sealer()?,
            ..SqliteOptions::default()
        };
        let store = Box::new(SqliteStore::new(&path, options));
        let runtime = Runtime::with_store(config, Arc::new(verifier), store);
        let runtime = runtime.map_err(|error| Failure::Other(format!("--db: {error}")))?;
        Ok((runtime, Some(path)))
    }

    /// Whether nothing is to be left on the disk.
    pub(crate) fn is_memory(&self) -> bool {
        self.db == Some(Database::Memory)
    }

    /// What an app is told of it: nothing where nothing was given, since it may have chosen for itself.
    pub(crate) fn tell_app(&self, options: &mut serde_json::Value) -> Result<(), Failure> {
        match &self.db {
            None => return self.only_with_a_file("with --app, give --db with it"),
            Some(Database::Memory) => {
                self.only_with_a_file("name a file with --db")?;
                options["db"] = "memory".into();
            }
            Some(Database::File(path)) => {
                let Some(text) = path.to_str() else {
                    return Err(Failure::Usage(format!("--db: with --app, {} must be Unicode", path.display())));
                };
                options["db"] = text.into();
            }
        }
        if let Some(synchronous) = self.synchronous {
            options["synchronous"] = synchronous.word().into();
        }
        if let Some((source, path)) = self.key.path().filter(|_| self.db != Some(Database::Memory)) {
            let Some(text) = path.to_str() else {
                return Err(Failure::Usage(format!("{source}: with --app, {} must be Unicode", path.display())));
            };
            options["db_key_file"] = text.into();
        }
        Ok(())
    }

    fn only_with_a_file(&self, remedy: &str) -> Result<(), Failure> {
        let given = [
            ("--synchronous", self.synchronous.is_some()),
            ("--db-quota", self.db_quota.is_some()),
            ("--db-key-file", self.key.db_key_file.is_some()),
        ];
        match given.iter().find(|(_, given)| *given) {
            Some((option, _)) => Err(Failure::Usage(format!("{option} is about a database file: {remedy}"))),
            None => Ok(()),
        }
    }
}

/// `arcp.db` in the folder where this platform keeps what a program of this user remembers.
pub(crate) fn default_database() -> Result<PathBuf, Failure> {
    let folder = state_folder()
        .map_err(|error| Failure::Usage(format!("there is no folder to keep a database in ({error}); give --db")))?;
    Ok(folder.join("arcp").join("arcp.db"))
}

#[cfg(windows)]
pub(crate) fn state_folder() -> Result<PathBuf, etcetera::HomeDirError> {
    use etcetera::BaseStrategy;
    // %LOCALAPPDATA%: what does not roam with the user.
    Ok(etcetera::base_strategy::Windows::new()?.cache_dir())
}

#[cfg(target_vendor = "apple")]
pub(crate) fn state_folder() -> Result<PathBuf, etcetera::HomeDirError> {
    use etcetera::BaseStrategy;
    Ok(etcetera::base_strategy::Apple::new()?.data_dir())
}

#[cfg(not(any(windows, target_vendor = "apple")))]
pub(crate) fn state_folder() -> Result<PathBuf, etcetera::HomeDirError> {
    use etcetera::BaseStrategy;
    let folders = etcetera::base_strategy::Xdg::new()?;
    Ok(folders.state_dir().unwrap_or_else(|| folders.data_dir()))
}

fn database(text: &str) -> Result<Database, String> {
    match text {
        "" => Err("it must name a file, or be memory".into()),
        "memory" => Ok(Database::Memory),
        _ if text.contains("://") => Err("it must be the path of a file, or memory; URLs are not taken".into()),
        _ => Ok(Database::File(text.into())),
    }
}

/// An empty database is a good part of this.
const LEAST_QUOTA: u64 = 1 << 20;

/// A number of bytes, with a suffix for powers of 1024.
fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || "it must be a number of bytes, 1M at least, such as 1048576, 2048K, 500M or 2G".to_owned();
    let (number, unit) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 1 << 10),
        Some((at, 'm' | 'M')) => (&text[..at], 1 << 20),
        Some((at, 'g' | 'G')) => (&text[..at], 1 << 30),
        _ => (text, 1),
    };
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit))
        .filter(|size| *size >= LEAST_QUOTA)
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_suffix_or_none() {
        for (text, size) in [("1048576", 1 << 20), ("2048K", 2 << 20), ("500m", 500 << 20), ("2G", 2 << 30)] {
            assert_eq!(bytes(text), Ok(size), "{text}");
        }
        for bad in [
            "",
            "0",
            "1048575",
            "1023K",
            "K",
            "0G",
            "-1",
            "+1",
            "1.5G",
            "2T",
            "1 G",
            "99999999999999999999",
            "18446744073709551615G",
        ] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_database_is_a_file_or_memory() {
        assert_eq!(database("memory"), Ok(Database::Memory));
        assert_eq!(database("./memory"), Ok(Database::File("./memory".into())));
        assert!(database("").is_err() && database("redis://localhost").is_err());
    }
}
