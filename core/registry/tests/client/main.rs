//! The client against servers that answer as each test says.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

mod calls;
mod faults;
mod real;
mod secure;
mod server;
mod sockets;
mod tokens;

use std::time::Duration;

use arcp_registry::client::{Operation, RegistryClient, RegistryError, RegistryOptions};
use serde_json::Value;

/// Waits short enough for a test, with a time-out that a busy machine keeps.
fn options(url: &str) -> RegistryOptions {
    RegistryOptions {
        timeout: Duration::from_secs(5),
        retry_delay: Duration::from_millis(1),
        max_retry_delay: Duration::from_millis(20),
        ..RegistryOptions::new(url)
    }
}

fn client(url: &str) -> RegistryClient {
    RegistryClient::new(options(url))
}

/// With the token `TOKEN`, as one is after a login elsewhere.
fn member(url: &str) -> RegistryClient {
    let client = client(url);
    client.set_token(Some("TOKEN".into()), None);
    client
}

async fn perform(client: &RegistryClient, name: &str, arguments: Value) -> Result<Value, RegistryError> {
    let text = client.perform(Operation::parse(name, &arguments.to_string())?).await?;
    Ok(serde_json::from_str(&text).unwrap())
}
