//! Events of a runtime in this process into a Python client in another.

use std::process::Command;
use std::time::Duration;

use crate::{ours, single_threaded};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/into_python.py");

/// How many events `async for` took and how long it took, or why that was not measured.
pub(crate) fn events() -> Result<(u64, Duration), String> {
    let server = single_threaded();
    let url = ours::serve(&server);
    let output = Command::new("python3").arg(SCRIPT).arg(&url).output();
    let output = output.map_err(|error| format!("python3 cannot be started: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or("no reason given").to_owned());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut parts = text.split_whitespace();
    let count = parts.next().and_then(|count| count.parse().ok()).ok_or("no count")?;
    let took = parts.next().and_then(|took| took.parse().ok()).ok_or("no time")?;
    Ok((count, Duration::from_secs_f64(took)))
}
