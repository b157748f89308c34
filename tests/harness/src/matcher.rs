//! Matching what arrived against what a case expects, and the values a case carries from step to step.
//!
//! An object matches when every member named matches; others are ignored. A list matches element by element. Numbers
//! compare as numbers (`5` is `5.0`). An object whose members begin with `$` is a matcher, all of which must hold:
//!
//! | member | matches |
//! | --- | --- |
//! | `$any` | a value of that form: see [`form`] |
//! | `$ref` | the value bound to that name |
//! | `$bind` | anything, and binds it to that name |
//! | `$amount` | a number, or decimal text with or without a currency, of that amount |
//! | `$contains` | a list with an element for each matcher of the list, in any order; or a text with that part |
//! | `$lacks` | a value whose JSON text does not have that part |
//! | `$one_of` | a value that one of the list matches |
//! | `$absent` | only the absence of the member |

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::Result;

/// The values bound so far.
pub type Scope = BTreeMap<String, Value>;

/// Matches `actual` against `expected`, binding names on the way.
///
/// # Errors
/// Says where and how they differ.
pub fn matches(expected: &Value, actual: &Value, scope: &mut Scope) -> Result<()> {
    at("", expected, Some(actual), scope)
}

fn at(path: &str, expected: &Value, actual: Option<&Value>, scope: &mut Scope) -> Result<()> {
    if let Some(matcher) = matcher(expected) {
        return special(path, matcher, actual, scope);
    }
    let Some(actual) = actual else {
        return Err(format!("{}: expected {expected}, found nothing", name(path)));
    };
    match (expected, actual) {
        (Value::Object(members), Value::Object(found)) => {
            members.iter().try_for_each(|(key, value)| at(&format!("{path}.{key}"), value, found.get(key), scope))
        }
        (Value::Array(items), Value::Array(found)) if items.len() == found.len() => items
            .iter()
            .zip(found)
            .enumerate()
            .try_for_each(|(i, (item, value))| at(&format!("{path}[{i}]"), item, Some(value), scope)),
        (Value::Number(a), Value::Number(b)) if same_number(&a.to_string(), &b.to_string()) => Ok(()),
        _ if expected == actual => Ok(()),
        _ => Err(differs(path, expected, actual)),
    }
}

fn special(path: &str, matcher: &Map<String, Value>, actual: Option<&Value>, scope: &mut Scope) -> Result<()> {
    if matcher.contains_key("$absent") {
        return match actual {
            None | Some(Value::Null) => Ok(()),
            Some(found) => Err(format!("{}: expected nothing, found {found}", name(path))),
        };
    }
    let Some(actual) = actual else {
        return Err(format!("{}: expected {}, found nothing", name(path), json!(matcher)));
    };
    for (key, want) in matcher {
        let holds = match key.as_str() {
            "$any" => form(want.as_str().unwrap_or_default(), actual)?,
            "$ref" => {
                let bound = resolve(&json!({ "$ref": want }), scope)?;
                bound == *actual
            }
            "$bind" => {
                scope.insert(want.as_str().unwrap_or_default().to_owned(), actual.clone());
                true
            }
            "$amount" => same_number(want.as_str().unwrap_or_default(), &amount(actual)),
            "$contains" => contains(want, actual, scope),
            "$lacks" => !actual.to_string().contains(want.as_str().unwrap_or_default()),
            "$one_of" => want
                .as_array()
                .is_some_and(|options| options.iter().any(|option| at(path, option, Some(actual), scope).is_ok())),
            other => return Err(format!("{}: the case uses an unknown matcher {other:?}", name(path))),
        };
        if !holds {
            return Err(differs(path, &json!({ key: want }), actual));
        }
    }
    Ok(())
}

fn contains(want: &Value, actual: &Value, scope: &mut Scope) -> bool {
    match (want, actual) {
        (Value::String(part), Value::String(text)) => text.contains(part.as_str()),
        (Value::Array(wanted), Value::Array(found)) => {
            wanted.iter().all(|item| found.iter().any(|value| at("", item, Some(value), scope).is_ok()))
        }
        _ => false,
    }
}

/// Whether a value has a form: `message_id`, `session_id`, `job_id`, `result_id` (prefix and ULID), `time`, `trace_id`,
/// `resume_token`, `text` (not empty), `integer`, `number`, `boolean`, `object`, `list`, `value`.
///
/// # Errors
/// The form is unknown.
pub fn form(form: &str, value: &Value) -> Result<bool> {
    let text = value.as_str().unwrap_or_default();
    Ok(match form {
        "message_id" => is_id("msg_", text),
        "session_id" => is_id("sess_", text),
        "job_id" => is_id("job_", text),
        "result_id" => is_id("res_", text),
        "time" => is_time(text),
        "trace_id" => is_trace_id(text),
        "resume_token" => text.strip_prefix("rt_").is_some_and(|rest| rest.len() >= 22),
        "text" => !text.is_empty(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "object" => value.is_object(),
        "list" => value.is_array(),
        "value" => true,
        other => return Err(format!("the case uses an unknown form {other:?}")),
    })
}

/// A prefix and 26 characters of Crockford's base 32.
#[must_use]
pub fn is_id(prefix: &str, text: &str) -> bool {
    text.strip_prefix(prefix)
        .is_some_and(|ulid| ulid.len() == 26 && ulid.bytes().all(|b| b"0123456789ABCDEFGHJKMNPQRSTVWXYZ".contains(&b)))
}

/// `YYYY-MM-DDThh:mm:ss.sssZ`.
#[must_use]
pub fn is_time(text: &str) -> bool {
    let shape = b"dddd-dd-ddTdd:dd:dd.dddZ";
    text.len() == shape.len()
        && text.bytes().zip(shape).all(|(b, &s)| if s == b'd' { b.is_ascii_digit() } else { b == s })
}

/// 32 lower-case hex digits, not all zero.
#[must_use]
pub fn is_trace_id(text: &str) -> bool {
    text.len() == 32
        && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        && text.bytes().any(|b| b != b'0')
}

/// Replaces every `{"$ref": name}` in what a case sends.
///
/// # Errors
/// A name is not bound.
pub fn resolve(value: &Value, scope: &Scope) -> Result<Value> {
    match value {
        Value::Object(members) => match members.get("$ref").and_then(Value::as_str) {
            Some(name) => scope.get(name).cloned().ok_or_else(|| format!("nothing is bound to {name:?}")),
            None => {
                let pairs = members.iter().map(|(key, value)| Ok((key.clone(), resolve(value, scope)?)));
                Ok(Value::Object(pairs.collect::<Result<_>>()?))
            }
        },
        Value::Array(items) => Ok(Value::Array(items.iter().map(|item| resolve(item, scope)).collect::<Result<_>>()?)),
        other => Ok(other.clone()),
    }
}

/// Decimal equality of two number texts, exponents included, without going through a float.
#[must_use]
pub fn same_number(a: &str, b: &str) -> bool {
    matches!((decimal(a), decimal(b)), (Some(a), Some(b)) if a == b)
}

/// Sign, significant digits and the power of ten of the last of them; zero is `(false, "", 0)`.
fn decimal(text: &str) -> Option<(bool, String, i64)> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (text, 0),
    };
    let (negative, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let kept = digits.trim_end_matches('0');
    let dropped = i64::try_from(digits.len() - kept.len()).ok()?;
    let places = i64::try_from(fraction.len()).ok()?;
    let kept = kept.trim_start_matches('0').to_owned();
    if kept.is_empty() {
        return Some((false, kept, 0));
    }
    Some((negative, kept, exponent.checked_add(dropped)?.checked_sub(places)?))
}

fn amount(value: &Value) -> String {
    match value {
        Value::String(text) => text.rsplit(':').next().unwrap_or_default().to_owned(),
        other => other.to_string(),
    }
}

fn matcher(value: &Value) -> Option<&Map<String, Value>> {
    value.as_object().filter(|members| members.keys().any(|key| key.starts_with('$')))
}

fn differs(path: &str, expected: &Value, actual: &Value) -> String {
    format!("{}: expected {expected}, found {actual}", name(path))
}

fn name(path: &str) -> &str {
    if path.is_empty() { "the answer" } else { path.trim_start_matches('.') }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(expected: Value, actual: Value) -> Result<()> {
        matches(&expected, &actual, &mut Scope::new())
    }

    #[test]
    fn objects_match_by_the_members_named() {
        assert!(check(json!({"a": 1}), json!({"a": 1, "b": 2})).is_ok());
        assert!(check(json!({"a": 1, "b": 2}), json!({"a": 1})).is_err());
        assert!(check(json!([1, 2]), json!([1])).is_err());
        assert!(check(json!({"a": {"$absent": true}}), json!({})).is_ok());
        assert!(check(json!({"a": {"$absent": true}}), json!({"a": null})).is_ok());
        assert!(check(json!({"a": {"$absent": true}}), json!({"a": false})).is_err());
    }

    #[test]
    fn differences_name_the_place() {
        let error = check(json!({"payload": {"list": [1, {"x": 2}]}}), json!({"payload": {"list": [1, {"x": 3}]}}));
        assert_eq!(error, Err("payload.list[1].x: expected 2, found 3".to_owned()));
    }

    #[test]
    fn numbers_compare_as_decimals() {
        for (a, b) in [("5", "5.00"), ("0", "-0.0"), ("1e2", "100"), ("0.10", "1e-1"), ("-1.5", "-15e-1")] {
            assert!(same_number(a, b), "{a} {b}");
        }
        for (a, b) in [("5", "-5"), ("1", "10"), ("0.1", "0.10000000000000000001"), ("x", "x"), ("", "")] {
            assert!(!same_number(a, b), "{a} {b}");
        }
        assert!(check(json!({"$amount": "5"}), json!("USD:5.00")).is_ok());
        assert!(check(json!({"$amount": "5"}), json!(5.0)).is_ok());
        assert!(check(json!({"$amount": "5"}), json!("5.01")).is_err());
    }

    #[test]
    fn names_are_bound_and_referred_to() {
        let mut scope = Scope::new();
        let expected = json!({"job_id": {"$any": "job_id", "$bind": "job"}});
        let id = "job_01JX3J00000000000000000001";
        assert!(matches(&expected, &json!({ "job_id": id }), &mut scope).is_ok());
        assert!(matches(&json!({"$ref": "job"}), &json!(id), &mut scope).is_ok());
        assert!(matches(&json!({"$ref": "job"}), &json!("other"), &mut scope).is_err());
        assert_eq!(resolve(&json!({"j": [{"$ref": "job"}]}), &scope), Ok(json!({"j": [id]})));
        assert!(resolve(&json!({"$ref": "nobody"}), &scope).is_err());
    }

    #[test]
    fn forms_are_whole() {
        assert_eq!(form("time", &json!("2026-05-13T19:30:01.000Z")), Ok(true));
        for odd in ["2026-05-13T19:30:01Z", "2026-05-13T19:30:01.000Z\n", "2026-05-13T19:30:01.000+00:00"] {
            assert_eq!(form("time", &json!(odd)), Ok(false), "{odd}");
        }
        assert_eq!(form("job_id", &json!("job_01JX3J0000000000000000000I")), Ok(false));
        assert_eq!(form("trace_id", &json!("0".repeat(32))), Ok(false));
        assert!(form("colour", &json!(1)).is_err());
    }

    #[test]
    fn parts_and_choices() {
        assert!(check(json!({"$contains": ["b", "a"]}), json!(["a", "b", "c"])).is_ok());
        assert!(check(json!({"$contains": ["d"]}), json!(["a"])).is_err());
        assert!(check(json!({"$lacks": "secret"}), json!({"message": "a secret"})).is_err());
        assert!(check(json!({"$one_of": [1, {"$any": "text"}]}), json!("x")).is_ok());
        assert!(check(json!({"$one_of": [1, 2]}), json!(3)).is_err());
        assert!(check(json!({"$sort": 1}), json!(1)).is_err());
    }
}
