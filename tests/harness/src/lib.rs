//! Plays the shared corpus (`tests/corpus`) against every language.
//!
//! Each language is driven through its shim (`tests/shims/README.md`), which only translates; the assertions, the
//! scripted peers and the record of what is excused (`tests/known-gaps.json`) are all here. The harness uses none of
//! the project's crates, so a fault of the core cannot hide itself.

pub mod case;
pub mod evidence;
pub mod function;
pub mod gaps;
pub mod matcher;
pub mod peer;
pub mod play;
pub mod relay;
pub mod rules;
pub mod shim;
pub mod witness;

use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest any single wait of a case may take.
pub const WAIT: Duration = Duration::from_secs(5);

/// A failure, as the text a person reads.
pub type Result<T> = std::result::Result<T, String>;

/// The repository's root.
#[must_use]
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

/// Reads a JSON file, naming it in every error.
///
/// # Errors
/// The file is missing, unreadable, or not what `T` expects.
pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))
}
