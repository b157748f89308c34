//! The pure functions every language offers, once: JSON arguments in, JSON answers out.

use std::collections::{BTreeMap, HashMap};

use arcp::lease::{self, Child, Parent};
use arcp::{AgentRef, Decimal, Envelope, Lease, ProtocolError, Timestamp, feature, parse_budget_amount};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::error::{ErrorInfo, read};

#[derive(Deserialize)]
struct Text {
    text: String,
}

#[derive(Deserialize)]
struct Message {
    text: String,
    /// Checks the payload as well, as this side would.
    #[serde(default)]
    receiver: Option<Receiver>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Receiver {
    Runtime,
    Client,
}

impl From<Receiver> for arcp::message::Receiver {
    fn from(receiver: Receiver) -> Self {
        match receiver {
            Receiver::Runtime => arcp::message::Receiver::Runtime,
            Receiver::Client => arcp::message::Receiver::Client,
        }
    }
}

#[derive(Deserialize)]
struct Operation<'a> {
    #[serde(borrow)]
    lease: &'a RawValue,
    namespace: String,
    target: String,
    #[serde(default)]
    expires_at: Option<String>,
    /// RFC 3339; the present when absent.
    #[serde(default)]
    now: Option<String>,
    /// Remaining amounts as decimal text.
    #[serde(default)]
    budget: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct SubsetQuestion<'a> {
    #[serde(borrow)]
    child: &'a RawValue,
    #[serde(borrow)]
    parent: &'a RawValue,
    #[serde(default)]
    child_expires_at: Option<String>,
    #[serde(default)]
    parent_expires_at: Option<String>,
    #[serde(default)]
    parent_remaining: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct FeatureLists {
    #[serde(default)]
    client: Option<Vec<String>>,
    #[serde(default)]
    runtime: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Payload<'a> {
    #[serde(borrow)]
    payload: &'a RawValue,
}

/// Calls a pure function by name. Arguments and answer are JSON objects:
///
/// | function | arguments | answer |
/// | --- | --- | --- |
/// | `parse_agent_ref` | `text` | `name`, `version` or null |
/// | `parse_budget_amount` | `text` | `currency`, `amount` as decimal text |
/// | `validate_lease` | `lease` | `{}` |
/// | `validate_expires_at` | `text` | `{}`; the instant must be in the future |
/// | `validate_lease_op` | `lease`, `namespace`, `target`, `expires_at?`, `now?`, `budget?` | `{}` |
/// | `initial_budget_from_lease` | `lease` | `budget`, currency to decimal text |
/// | `is_lease_subset` | `child`, `parent`, `child_expires_at?`, `parent_expires_at?`, `parent_remaining?` | `subset`, with `code` and `message` when it is not |
/// | `intersect_features` | `client`, `runtime` | `features` in the client's order |
/// | `error_from_payload` | `payload` | `code`, `message`, `retryable`, `details` or null |
/// | `envelope` | `text`, `receiver?` (`runtime` or `client`) | `text`, the same message printed |
///
/// # Errors
/// What the function refuses, with its protocol code; an argument error for an unknown function or a wrong shape.
pub fn call_function(function: &str, arguments: &str) -> Result<String, ErrorInfo> {
    let answer = match function {
        "parse_agent_ref" => {
            let reference = AgentRef::parse(&read::<Text>(function, arguments)?.text)?;
            json!({"name": reference.name, "version": reference.version})
        }
        "parse_budget_amount" => {
            let (currency, amount) = parse_budget_amount(&read::<Text>(function, arguments)?.text)?;
            json!({"currency": currency, "amount": amount.to_string()})
        }
        "validate_lease" => {
            let question: HashMap<String, &RawValue> = read(function, arguments)?;
            lease_of(function, question.get("lease").copied())?;
            json!({})
        }
        "validate_expires_at" => {
            lease::future_expires_at(&read::<Text>(function, arguments)?.text, present())?;
            json!({})
        }
        "validate_lease_op" => {
            validate_lease_op(&read(function, arguments)?)?;
            json!({})
        }
        "initial_budget_from_lease" => {
            let question: HashMap<String, &RawValue> = read(function, arguments)?;
            let budget = lease_of(function, question.get("lease").copied())?.budget();
            let counters = budget.iter().flat_map(arcp::Budget::remaining);
            let amounts: BTreeMap<_, _> = counters.map(|(unit, left)| (unit, left.to_string())).collect();
            json!({"budget": amounts})
        }
        "is_lease_subset" => match is_lease_subset(&read(function, arguments)?)? {
            Ok(()) => json!({"subset": true}),
            Err(error) => json!({"subset": false, "code": error.code, "message": error.message}),
        },
        "intersect_features" => {
            let lists: FeatureLists = read(function, arguments)?;
            let (client, runtime) = (lists.client.unwrap_or_default(), lists.runtime.unwrap_or_default());
            json!({"features": feature::intersect(&client, &runtime)})
        }
        "error_from_payload" => {
            let question: Payload<'_> = read(function, arguments)?;
            let error = arcp::message::error_from_payload(question.payload)?;
            json!({
                "code": error.code, "message": error.message, "retryable": error.retryable, "details": error.details,
            })
        }
        "envelope" => {
            let message: Message = read(function, arguments)?;
            if let Some(receiver) = message.receiver {
                arcp::message::check_message(&message.text, receiver.into())?;
            }
            json!({"text": Envelope::parse(&message.text)?.to_json()})
        }
        other => return Err(ErrorInfo::argument(format!("no function is named \"{other}\""))),
    };
    Ok(answer.to_string())
}

fn lease_of(function: &str, lease: Option<&RawValue>) -> Result<Lease, ErrorInfo> {
    let lease = lease.ok_or_else(|| ErrorInfo::argument(format!("{function}: lease is missing")))?;
    Ok(Lease::parse(lease.get())?)
}

fn validate_lease_op(operation: &Operation<'_>) -> Result<(), ErrorInfo> {
    let lease = Lease::parse(operation.lease.get())?;
    let expires_at = operation.expires_at.as_deref().map(lease::parse_expires_at).transpose()?;
    let now = match operation.now.as_deref() {
        Some(text) => Timestamp::parse(text).ok_or_else(|| ErrorInfo::argument("now must be an RFC 3339 time"))?,
        None => present(),
    };
    let budget = operation.budget.as_ref().map(amounts).transpose()?.map(arcp::Budget::from_remaining);
    Ok(lease::authorize(&lease, expires_at, budget.as_ref(), now, &operation.namespace, &operation.target)?)
}

fn is_lease_subset(question: &SubsetQuestion<'_>) -> Result<Result<(), ProtocolError>, ErrorInfo> {
    let end = |text: &Option<String>| text.as_deref().map(lease::parse_expires_at).transpose();
    let parent_lease = Lease::parse(question.parent.get())?;
    let remaining = question.parent_remaining.as_ref().map(amounts).transpose()?;
    // A child that cannot be read is within nothing.
    let child_lease = match Lease::parse(question.child.get()) {
        Ok(lease) => lease,
        Err(error) => return Ok(Err(error)),
    };
    let child = Child { lease: &child_lease, expires_at: end(&question.child_expires_at)? };
    let parent =
        Parent { lease: &parent_lease, expires_at: end(&question.parent_expires_at)?, remaining: remaining.as_ref() };
    Ok(lease::is_subset(child, parent))
}

fn amounts(texts: &BTreeMap<String, String>) -> Result<BTreeMap<String, Decimal>, ErrorInfo> {
    texts.iter().map(|(unit, text)| Ok((unit.clone(), Decimal::parse_json(text)?))).collect()
}

fn present() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_function_and_a_wrong_shape_are_named() {
        let error = call_function("nothing", "{}").unwrap_err();
        assert!(error.message.contains("nothing"), "{error}");
        let error = call_function("parse_agent_ref", "{}").unwrap_err();
        assert!(error.message.contains("parse_agent_ref") && error.message.contains("text"), "{error}");
    }

    #[test]
    fn functions_answer_as_documented() {
        assert_eq!(
            call_function("parse_agent_ref", r#"{"text":"echo@1.0"}"#).unwrap(),
            r#"{"name":"echo","version":"1.0"}"#
        );
        let denied = call_function(
            "validate_lease_op",
            r#"{"lease":{"fs.read":["/a/**"]},"namespace":"fs.read","target":"/a/../b"}"#,
        );
        assert_eq!(denied.unwrap_err().code, "PERMISSION_DENIED");
    }
}
