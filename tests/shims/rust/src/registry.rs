//! Agent registries (see ../../README.md).

use arcp::registry::{NewAgent, Operation, RegistryClient, RegistryError, RegistryOptions};
use serde_json::{Value, json};

use crate::{Answer, Failure, text};

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        let code = if error.code.is_empty() { "REGISTRY" } else { &error.code };
        let (message, retryable, details) = (error.to_string(), error.is_retryable(), error.details());
        Failure(json!({"code": code, "message": message, "retryable": retryable, "details": details}))
    }
}

async fn perform(command: &Value, operation: Operation) -> Answer {
    let mut options = RegistryOptions::new(text(command, "url")?);
    options.credentials = options.credentials.or_from_env();
    let answer = RegistryClient::new(options).perform(operation).await?;
    Ok(serde_json::from_str(&answer).unwrap_or_default())
}

pub(crate) async fn health(command: &Value) -> Answer {
    perform(command, Operation::HealthCheck {}).await
}

pub(crate) async fn register(command: &Value) -> Answer {
    let fields = command["agent"].as_object().cloned().unwrap_or_default();
    let agent_key = command["agent_key"].as_str().map(Into::into);
    perform(command, Operation::RegisterAgent(NewAgent { agent_key, fields })).await
}

pub(crate) async fn discover(command: &Value) -> Answer {
    let mut arguments = json!({"agent_type": command["agent_type"], "capabilities": command["capabilities"]});
    if let Some(limit) = command["limit"].as_i64() {
        arguments["limit"] = limit.into();
    }
    let found = perform(command, Operation::parse("discover_agents", &arguments.to_string())?).await?;
    Ok(json!({ "agents": found }))
}
