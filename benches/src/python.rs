//! Events of a runtime in this process into a Python client in another.

use std::process::Command;

use crate::{best, ours, single_threaded};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/into_python.py");

/// Events per second that `async for` takes, or why it was not measured.
pub(crate) fn events() -> Result<f64, String> {
    let server = single_threaded();
    let url = ours::serve(&server);
    let mut fault = None;
    let rate = best(|| {
        let output = Command::new("python3").arg(SCRIPT).arg(&url).output();
        let text = match &output {
            Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).into_owned(),
            Ok(output) => {
                fault = String::from_utf8_lossy(&output.stderr).lines().last().map(str::to_owned);
                String::new()
            }
            Err(error) => {
                fault = Some(format!("python3 cannot be started: {error}"));
                String::new()
            }
        };
        let mut parts = text.split_whitespace();
        match (parts.next().and_then(|count| count.parse().ok()), parts.next().and_then(|took| took.parse().ok())) {
            (Some(count), Some(took)) => (count, std::time::Duration::from_secs_f64(took)),
            _ => (0, std::time::Duration::from_secs(1)),
        }
    });
    fault.map_or(Ok(rate), Err)
}
