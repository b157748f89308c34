//! What keeps the repository true to itself: generated files, the surface table and the shape of the house.
//!
//! The program (`cargo xtask`) and the tests beside it call the same functions. Sources are read as text: the checks
//! must also run while a language does not build.

pub mod generate;
pub mod house;
pub mod mutations;
pub mod source;
pub mod surface;

use std::path::{Path, PathBuf};

/// A failure to look, as opposed to a finding: an unreadable file, a tool that did not run.
pub type Result<T, E = String> = std::result::Result<T, E>;

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// The text of the file `path`, given relative to `root`; the error names the file.
pub fn read(root: &Path, path: &str) -> Result<String> {
    std::fs::read_to_string(root.join(path)).map_err(|error| format!("{path}: {error}"))
}
