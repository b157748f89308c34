//! The files of `tests/corpus`, and one verdict over all their cases.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::Result;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/corpus").join(name)
}

/// The cases of one file under `tests/corpus`.
pub(crate) fn cases(file: &str) -> Vec<Value> {
    let path = folder(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    file["cases"].as_array().unwrap().clone()
}

/// Plays every case of `tests/corpus/machine` for one side.
pub(crate) fn play(side: &str, play: fn(&Value) -> Result<()>) {
    let mut files: Vec<String> = fs::read_dir(folder("machine"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with(side))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no machine/{side}*.json");
    let all = files.iter().flat_map(|name| cases(&format!("machine/{name}")));
    judge(all.map(|case| (case["id"].as_str().unwrap().to_owned(), play(&case))));
}

/// Fails with every case that failed, not only the first.
pub(crate) fn judge(verdicts: impl Iterator<Item = (String, Result<()>)>) {
    let mut played = 0;
    let failed: Vec<String> = verdicts
        .inspect(|_| played += 1)
        .filter_map(|(id, verdict)| verdict.err().map(|error| format!("{id}: {error}")))
        .collect();
    assert!(failed.is_empty(), "{} of {played} cases failed:\n{}", failed.len(), failed.join("\n"));
    assert!(played > 0, "no case was played");
}
