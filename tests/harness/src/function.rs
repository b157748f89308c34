//! Cases of `tests/corpus/wire` that a language's pure functions answer.

use std::path::Path;

use serde_json::{Value, json};

use crate::case::files;
use crate::matcher::{Scope, matches};
use crate::shim::{Answer, Shim};
use crate::{Result, read_json};

/// One call and what it must answer.
#[derive(Clone, Debug)]
pub struct Call {
    /// The case's id.
    pub id: String,
    /// The function, as `tests/shims/README.md` names it.
    pub function: &'static str,
    /// Its arguments.
    pub args: Value,
    /// Matches a success, where one will do.
    pub ok: Option<Value>,
    /// Matches an error, where one will do.
    pub error: Option<Value>,
}

/// Reads the calls out of the wire files; files and cases that no function answers are left to other tests.
///
/// # Errors
/// A file does not parse, or a case lacks its id.
pub fn load(wire: &Path) -> Result<Vec<Call>> {
    let mut calls = Vec::new();
    for path in files(wire)? {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let file: Value = read_json(&path)?;
        for case in file["cases"].as_array().into_iter().flatten() {
            let Some(id) = case["id"].as_str() else {
                return Err(format!("{}: a case without id: {case}", path.display()));
            };
            if let Some((function, args, ok, error)) = translate(&stem, case) {
                calls.push(Call { id: id.to_owned(), function, args, ok, error });
            }
        }
    }
    Ok(calls)
}

/// Answers with the text of a message, which is matched as a message.
const ENVELOPE: &str = "envelope";

type Parts = (&'static str, Value, Option<Value>, Option<Value>);

fn translate(file: &str, case: &Value) -> Option<Parts> {
    let (given, expect) = (&case["given"], &case["expect"]);
    let refusal = || json!({ "code": expect["code"] });
    let parts = match file {
        "agent-ref" => {
            let ok = json!({ "name": expect["name"], "version": or_absent(&expect["version"]) });
            ("parse_agent_ref", json!({ "text": given["agent"] }), ok, refusal(), expect["valid"] == true)
        }
        "budget" if given.get("amount").is_some() => {
            let ok = json!({ "currency": expect["currency"], "amount": { "$amount": expect["amount"] } });
            ("parse_budget_amount", json!({ "text": given["amount"] }), ok, refusal(), expect["valid"] == true)
        }
        "errors" => {
            // The flag opposite to the one to send: a pinned one is corrected, any other is kept.
            let pinned = expect["pinned"] == true;
            let sent = expect["retryable"] != true;
            let payload = json!({ "code": given["code"], "message": "no", "retryable": sent, "details": { "k": 1 } });
            let read = if pinned { expect["retryable"].clone() } else { json!(sent) };
            let ok = json!({ "code": expect["read_as"], "message": { "$contains": "no" }, "retryable": read, "details": { "k": 1 } });
            ("error_from_payload", json!({ "payload": payload }), ok, json!({}), true)
        }
        // What a message reads as may be printed in its own spelling or in the draft's.
        "envelopes-valid" => {
            let message = &given["message"];
            let ok = json!({
                "id": message["id"],
                "type": { "$one_of": [expect["type"], message["type"]] },
                "payload": { "$one_of": [expect["payload"], message["payload"]] },
            });
            (ENVELOPE, json!({ "text": message.to_string(), "receiver": given["receivers"][0] }), ok, json!({}), true)
        }
        // Cases with needs read well; it takes a machine to refuse them.
        "envelopes-invalid" if case.get("needs").is_none() => {
            let args = json!({ "text": given["message"].to_string(), "receiver": given["receiver"] });
            (ENVELOPE, args, json!({}), refusal(), false)
        }
        "features" if given.get("client").is_some() => {
            ("intersect_features", given.clone(), json!({ "features": expect["negotiated"] }), json!({}), true)
        }
        "lease-glob" => {
            let namespace = given["namespace"].as_str()?;
            let lease = json!({ namespace: [given["pattern"]] });
            let args = json!({ "lease": lease, "namespace": namespace, "target": given["target"] });
            let error = match expect.get("code") {
                Some(code) => json!({ "code": code }),
                None => json!({ "code": { "$one_of": ["PERMISSION_DENIED", "INVALID_REQUEST"] } }),
            };
            ("validate_lease_op", args, json!({}), error, expect["allowed"] == true)
        }
        // A lease that cannot be read is no subset, whether the function says so or refuses it.
        "lease-subset" if expect["subset"] == false => {
            let error = json!({ "code": "INVALID_REQUEST" });
            return Some(("is_lease_subset", given.clone(), Some(expect.clone()), Some(error)));
        }
        "lease-subset" => ("is_lease_subset", given.clone(), expect.clone(), json!({}), true),
        _ => return None,
    };
    let (function, args, ok, error, succeeds) = parts;
    Some((function, args, succeeds.then_some(ok), (!succeeds).then_some(error)))
}

fn or_absent(value: &Value) -> Value {
    if value.is_null() { json!({ "$absent": true }) } else { value.clone() }
}

/// Makes the call.
///
/// # Errors
/// The answer is not the expected one.
pub async fn call(call: &Call, shim: &Shim) -> Result<()> {
    let Value::Object(arguments) = json!({ "function": call.function, "args": call.args }) else {
        return Err("the arguments are no object".to_owned());
    };
    let answer = shim.ask("call", arguments).await?.answer().await?;
    let answer = match answer {
        Answer::Ok(value) if call.function == ENVELOPE => {
            let text = value["text"].as_str().unwrap_or_default();
            Answer::Ok(serde_json::from_str(text).map_err(|e| format!("envelope answered {value}: {e}"))?)
        }
        answer => answer,
    };
    let mut scope = Scope::new();
    match (&answer, &call.ok, &call.error) {
        (Answer::Ok(value), Some(expected), _) | (Answer::Error(value), _, Some(expected)) => {
            matches(expected, value, &mut scope)
        }
        (answer, ok, error) => Err(format!("answered {answer:?}, expected {ok:?} or the error {error:?}")),
    }
    .map_err(|e| format!("{}({}): {e}", call.function, call.args))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_become_answers_and_errors() {
        let case = json!({"given": {"agent": "x"}, "expect": {"valid": true, "name": "x", "version": null}});
        let (function, args, ok, error) = translate("agent-ref", &case).unwrap();
        assert_eq!((function, args), ("parse_agent_ref", json!({"text": "x"})));
        assert_eq!(ok, Some(json!({"name": "x", "version": {"$absent": true}})));
        assert_eq!(error, None);

        let given = json!({"namespace": "fs.read", "pattern": "/a", "target": "/b"});
        let (_, args, ok, error) =
            translate("lease-glob", &json!({"given": given, "expect": {"allowed": false}})).unwrap();
        assert_eq!(args, json!({"lease": {"fs.read": ["/a"]}, "namespace": "fs.read", "target": "/b"}));
        assert_eq!(ok, None);
        assert!(error.is_some());
    }

    #[test]
    fn a_pinned_flag_is_expected_corrected_and_any_other_kept() {
        let case = |pinned: bool| json!({"given": {"code": "X"}, "expect": {"read_as": "X", "retryable": true, "pinned": pinned}});
        for pinned in [true, false] {
            let (_, args, ok, _) = translate("errors", &case(pinned)).unwrap();
            assert_eq!(args["payload"]["retryable"], json!(false));
            assert_eq!(ok.unwrap()["retryable"], json!(pinned));
        }
    }

    #[test]
    fn what_no_function_answers_is_left_out() {
        assert!(translate("budget", &json!({"given": {"metrics": []}, "expect": {}})).is_none());
        assert!(translate("envelopes-invalid", &json!({"needs": ["machine"], "given": {}, "expect": {}})).is_none());
        assert!(translate("transcripts", &json!({})).is_none());
    }
}
