//! What is checked before it is sent: the bounds of the contract's models.

use serde::Serialize;
use serde_json::{Map, Value};

use super::error::{Area, FailureKind, RegistryError};
use super::operation::{ConnectionRequest, Search};
use crate::model::{self, AgentRequirements, Invalid, MetricsUpdate, Registration, SearchRequest};

/// Checks a value against a model by its name, `registration`, `requirements`, `metrics`, `search_request` or
/// `connection_request` (REG-070 to REG-077); the value as the registry takes it.
///
/// # Errors
/// Every fault found; one of the whole for a model that does not exist.
pub fn check_model(kind: &str, value: &Value) -> Result<Value, Vec<Invalid>> {
    match kind {
        "registration" => Registration::check(value).map(|found| written(&found)),
        "requirements" => AgentRequirements::check(value).map(|found| written(&found)),
        // What is not named stays as it is, so there is nothing to add.
        "metrics" => MetricsUpdate::check(value).map(|_| value.clone()),
        "search_request" => SearchRequest::check(value).map(|found| written(&found)),
        "connection_request" => model::ConnectionRequest::check(value).map(|found| written(&found)),
        _ => Err(vec![Invalid::whole("value_error", format!("there is no model {kind:?}"))]),
    }
}

fn written(found: &impl Serialize) -> Value {
    // Texts, numbers and maps with text keys: writing them does not fail.
    serde_json::to_value(found).unwrap_or_default()
}

pub(super) fn check_registration(fields: Map<String, Value>) -> Result<Value, RegistryError> {
    let checked = check_model("registration", &Value::Object(fields));
    let mut body =
        checked.map_err(|faults| refused(&faults).within(Area::Registration, "Invalid registration data: "))?;
    if let Some(requirements) = body.get_mut("requirements") {
        drop_nulls(requirements);
    }
    Ok(body)
}

/// Drops what stands for nothing, in requirements and in their config fields (REG-026).
fn drop_nulls(requirements: &mut Value) {
    let Some(members) = requirements.as_object_mut() else { return };
    members.retain(|_, value| !value.is_null());
    for name in ["required_fields", "optional_fields"] {
        for field in members.get_mut(name).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(field) = field.as_object_mut() {
                field.retain(|_, value| !value.is_null());
            }
        }
    }
}

/// The body of a search (REG-026).
pub(super) fn search_body(search: Search) -> Result<Value, RegistryError> {
    let Search { query, top_k, min_similarity, capabilities, weighted, agent_type, public_api: _ } = search;
    let body = serde_json::json!({
        "query": query,
        "top_k": top_k,
        "min_similarity": min_similarity,
        "capabilities": capabilities,
        "weighted": weighted,
        "agent_type": agent_type,
    });
    let checked = check_model("search_request", &body);
    checked.map_err(|faults| refused(&faults).within(Area::Search, "Invalid search parameters: "))
}

/// The body of a connection request: all four members (REG-077).
pub(super) fn connection_body(request: ConnectionRequest) -> Result<Value, RegistryError> {
    let ConnectionRequest { agent_id: _, user_id, user_endpoint, display_name, additional_info } = request;
    let body = serde_json::json!({
        "user_id": user_id,
        "user_endpoint": user_endpoint,
        "display_name": display_name,
        "additional_info": additional_info.unwrap_or_default(),
    });
    let checked = check_model("connection_request", &body);
    checked.map_err(|faults| refused(&faults).within(Area::General, "Invalid connection request: "))
}

fn refused(faults: &[Invalid]) -> RegistryError {
    let told: Vec<&str> = faults.iter().map(|fault| fault.message.as_str()).collect();
    let mut error = RegistryError::new(FailureKind::Invalid, told.join("; "));
    error.errors = Some(Box::new(written(&faults)));
    error
}
