//! The pure functions of the library, by name (see ../../README.md).

use std::collections::BTreeMap;

use arcp::lease::{self, Child, Parent};
use arcp::message::{Receiver, check_message};
use arcp::{AgentRef, Decimal, Envelope, Lease, RawJson, Timestamp, feature, parse_budget_amount};
use serde_json::{Value, json};

use crate::{Failure, strings, text};

/// What can be called.
pub(crate) const NAMES: [&str; 7] = [
    "parse_agent_ref",
    "parse_budget_amount",
    "validate_lease_op",
    "is_lease_subset",
    "intersect_features",
    "error_from_payload",
    "envelope",
];

pub(crate) fn call(function: &str, args: &Value) -> Result<Value, Failure> {
    Ok(match function {
        "parse_agent_ref" => {
            let reference = AgentRef::parse(&text(args, "text")?)?;
            json!({"name": reference.name, "version": reference.version})
        }
        "parse_budget_amount" => {
            let (currency, amount) = parse_budget_amount(&text(args, "text")?)?;
            json!({"currency": currency, "amount": amount.to_string()})
        }
        "validate_lease_op" => {
            let lease = Lease::parse(&args["lease"].to_string())?;
            let (namespace, target) = (text(args, "namespace")?, text(args, "target")?);
            lease::authorize(&lease, None, None, Timestamp(0), &namespace, &target)?;
            json!({})
        }
        "is_lease_subset" => {
            let (child, parent) = match (Lease::parse(&args["child"].to_string()), &args["parent"]) {
                (Ok(child), parent) => (child, Lease::parse(&parent.to_string())?),
                (Err(error), _) => return Ok(json!({"subset": false, "code": error.code})),
            };
            let end = |name: &str| args[name].as_str().map(lease::parse_expires_at).transpose();
            let remaining = match args["parent_remaining"].as_object() {
                Some(amounts) => Some(
                    amounts
                        .iter()
                        .map(|(unit, amount)| Ok((unit.clone(), Decimal::parse_json(amount.as_str().unwrap_or(""))?)))
                        .collect::<Result<BTreeMap<_, _>, arcp::ProtocolError>>()?,
                ),
                None => None,
            };
            let child = Child { lease: &child, expires_at: end("child_expires_at")? };
            let parent =
                Parent { lease: &parent, expires_at: end("parent_expires_at")?, remaining: remaining.as_ref() };
            match lease::is_subset(child, parent) {
                Ok(()) => json!({"subset": true}),
                Err(error) => json!({"subset": false, "code": error.code}),
            }
        }
        "intersect_features" => {
            let list = |name: &str| strings(&args[name]).unwrap_or_default();
            json!({"features": feature::intersect(&list("client"), &list("runtime"))})
        }
        "error_from_payload" => {
            let payload = RawJson::parse(&args["payload"].to_string())?;
            let error = arcp::message::error_from_payload(payload.as_raw())?;
            json!({
                "code": error.code, "message": error.message, "retryable": error.retryable, "details": error.details,
            })
        }
        "envelope" => {
            let message = text(args, "text")?;
            let receiver = match args["receiver"].as_str() {
                Some("runtime") => Receiver::Runtime,
                _ => Receiver::Client,
            };
            check_message(&message, receiver)?;
            json!({"text": Envelope::parse(&message)?.to_json()})
        }
        other => return Err(Failure::local("UNSUPPORTED", format!("no function \"{other}\""))),
    })
}
