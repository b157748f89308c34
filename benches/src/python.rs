//! Events of a runtime in this process into a Python client in another.

use std::process::Command;

use crate::Measured;
use crate::server::{Kept, Server};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/into_python.py");

/// How many events per second `async for` took, or why that was not measured.
pub(crate) fn events() -> Measured {
    let server = Server::start(Kept::InMemory);
    let output = Command::new("python3").arg(SCRIPT).arg(&server.url).output();
    let output = output.map_err(|error| format!("python3 cannot be started: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or("no reason given").to_owned());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut parts = text.split_whitespace();
    let count: f64 = parts.next().and_then(|count| count.parse().ok()).ok_or("no count")?;
    let took: f64 = parts.next().and_then(|took| took.parse().ok()).ok_or("no time")?;
    Ok(vec![count / took])
}
