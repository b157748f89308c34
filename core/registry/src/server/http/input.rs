//! What a request says: its query, its body, its bearer; all within bounds.

use std::borrow::Cow;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, Uri};
use http_body_util::BodyExt as _;
use serde_json::{Map, Value};
use url::form_urlencoded;

use crate::model::Invalid;
use crate::model::check::{lax_bool, lax_float, lax_int};
use crate::problem::{Kind, Problem};

/// A body must be there within this time.
const BODY_TIME: Duration = Duration::from_secs(30);
/// So much of a refused body is taken, within this time.
const MOST_DISCARDED: usize = 8 << 20;
const DISCARD_TIME: Duration = Duration::from_secs(2);
/// JSON is nested no deeper.
const DEEPEST: usize = 64;

/// The client's name for itself, by which sessions are bound.
pub(crate) const FINGERPRINT: &str = "x-client-fingerprint";
/// The PIN of a session.
pub(crate) const SESSION_PIN: &str = "x-session-pin";

/// The text of a header, if it is there and is text.
pub(crate) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The token in `Authorization: Bearer …`.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// The values of a query string, and what was wrong with those that were asked for.
#[derive(Debug)]
pub(crate) struct Query<'a> {
    values: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    faults: Vec<Invalid>,
}

impl<'a> Query<'a> {
    pub(crate) fn of(uri: &'a Uri) -> Query<'a> {
        let values = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).collect();
        Query { values, faults: Vec::new() }
    }

    /// How many values a query string has.
    pub(crate) fn count(query: &str) -> usize {
        query.split('&').filter(|part| !part.is_empty()).count()
    }

    /// The last value of a name.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.values.iter().rev().find(|(found, _)| found == name).map(|(_, value)| &**value)
    }

    /// All values of a name.
    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        self.values.iter().filter(|(found, _)| found == name).map(|(_, value)| value.to_string()).collect()
    }

    fn fault(&mut self, name: &'static str, kind: &'static str, message: String) {
        self.faults.push(Invalid::new(name, kind, message).below("query"));
    }

    pub(crate) fn int(&mut self, name: &'static str, least: i64, most: i64, default: i64) -> i64 {
        let Some(text) = self.get(name) else { return default };
        match lax_int(&Value::from(text)) {
            Ok(value) if value < least => {
                self.fault(name, "greater_than_equal", format!("{name} must be at least {least}"));
                default
            }
            Ok(value) if value > most => {
                self.fault(name, "less_than_equal", format!("{name} must be at most {most}"));
                default
            }
            Ok(value) => value,
            Err(_) => {
                self.fault(name, "int_parsing", format!("{name} must be a whole number"));
                default
            }
        }
    }

    pub(crate) fn bool(&mut self, name: &'static str, default: bool) -> bool {
        let Some(text) = self.get(name) else { return default };
        match lax_bool(&Value::from(text)) {
            Ok(value) => value,
            Err(_) => {
                self.fault(name, "bool_parsing", format!("{name} must be true or false"));
                default
            }
        }
    }

    /// A number that must be there.
    pub(crate) fn float(&mut self, name: &'static str, least: f64, most: f64) -> f64 {
        match self.get(name).map(|text| lax_float(&Value::from(text))) {
            None => {
                self.faults.push(Invalid::missing(name, "a number").below("query"));
                least
            }
            Some(Ok(value)) if (least..=most).contains(&value) => value,
            Some(Ok(_)) => {
                self.fault(name, "value_error", format!("{name} must be from {least} to {most}"));
                least
            }
            Some(Err(_)) => {
                self.fault(name, "float_parsing", format!("{name} must be a number"));
                least
            }
        }
    }

    /// A text that must be there.
    pub(crate) fn text(&mut self, name: &'static str) -> String {
        match self.get(name) {
            Some(text) => text.to_owned(),
            None => {
                self.faults.push(Invalid::missing(name, "text").below("query"));
                String::new()
            }
        }
    }

    /// An object of these names, as a body would say it; `lists` become lists.
    pub(crate) fn object(&self, names: &[&str], lists: &[&str]) -> Value {
        let mut object = Map::new();
        for name in names {
            if let Some(value) = self.get(name) {
                object.insert((*name).to_owned(), value.into());
            }
        }
        for name in lists {
            let values = self.all(name);
            if !values.is_empty() {
                object.insert((*name).to_owned(), values.into());
            }
        }
        Value::Object(object)
    }

    /// What was wrong, if anything.
    pub(crate) fn done(self) -> Result<(), Problem> {
        if self.faults.is_empty() { Ok(()) } else { Err(Problem::validation(self.faults)) }
    }
}

/// What was wrong with a body: 422, each fault placed under `body`.
pub(crate) fn body_faults(faults: Vec<Invalid>) -> Problem {
    Problem::validation(faults.into_iter().map(|fault| fault.below("body")).collect())
}

fn whole_body_fault(kind: &'static str, message: String) -> Problem {
    body_faults(vec![Invalid::whole(kind, message)])
}

/// All of a body.
pub(crate) async fn read(mut body: Body, most: usize) -> Result<Bytes, Problem> {
    let collect = async {
        let mut first = Bytes::new();
        let mut all = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Problem::new(Kind::RequestError, "The request body ended early"))?;
            let Ok(data) = frame.into_data() else { continue };
            if first.len() + all.len() + data.len() > most {
                return Err(too_large(None, most));
            }
            // Most bodies come in one piece, which needs no copy.
            if first.is_empty() && all.is_empty() {
                first = data;
                continue;
            }
            if all.is_empty() {
                all.extend_from_slice(&std::mem::take(&mut first));
            }
            all.extend_from_slice(&data);
        }
        Ok(if all.is_empty() { first } else { all.freeze() })
    };
    let late = || {
        let detail = format!("The request body was not complete after {} seconds", BODY_TIME.as_secs());
        Problem::new(Kind::RequestError, detail)
    };
    let read = tokio::time::timeout(BODY_TIME, collect).await.unwrap_or_else(|_| Err(late()));
    if read.is_err() {
        discard(body).await;
    }
    read
}

/// Takes what is left of a refused body for a moment: who still sends would lose the answer with the connection.
pub(crate) async fn discard(mut body: Body) {
    let drain = async {
        let mut left = MOST_DISCARDED;
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                break;
            }
        }
    };
    // Whoever needs longer sees the connection end.
    drop(tokio::time::timeout(DISCARD_TIME, drain).await);
}

/// 413, with the size when it was announced.
pub(crate) fn too_large(size: Option<u64>, most: usize) -> Problem {
    let size_text = size.map(|size| size.to_string());
    let told = size_text.as_deref().map_or_else(|| "more than the limit".to_owned(), |size| format!("{size} bytes"));
    let detail = match size {
        Some(_) => format!("Request body size {told} exceeds maximum limit of {most} bytes"),
        None => format!("Request body exceeds maximum limit of {most} bytes"),
    };
    let problem = Problem::new(Kind::RequestTooLarge, detail).with("max_size", most.to_string());
    match size_text {
        Some(size) => problem.with("content_length", size),
        None => problem,
    }
}

/// A JSON body (REG-104); a request without a type is taken for JSON.
pub(crate) async fn read_json(headers: &HeaderMap, body: Body, most: usize) -> Result<Value, Problem> {
    if let Some(media_type) = headers.get(CONTENT_TYPE) {
        let media_type = media_type.to_str().unwrap_or_default();
        let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if essence != "application/json" && !(essence.starts_with("application/") && essence.ends_with("+json")) {
            let message = "the body must be JSON, sent with Content-Type: application/json".to_owned();
            return Err(whole_body_fault("model_attributes_type", message));
        }
    }
    let bytes = read(body, most).await?;
    if bytes.is_empty() {
        return Err(body_faults(vec![Invalid::whole("missing", "a JSON body is needed")]));
    }
    if is_deep(&bytes) {
        return Err(whole_body_fault("json_invalid", format!("the JSON is nested more than {DEEPEST} deep")));
    }
    serde_json::from_slice(&bytes).map_err(|error| {
        let message = format!("the body is not JSON: line {} column {}", error.line(), error.column());
        whole_body_fault("json_invalid", message)
    })
}

/// Looked at before parsing, which would recurse.
fn is_deep(json: &[u8]) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in json {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > DEEPEST {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_brackets_outside_of_texts() {
        assert!(is_deep("[".repeat(65).as_bytes()) && !is_deep("[".repeat(64).as_bytes()));
        assert!(!is_deep(format!("\"{}\"", "[".repeat(100)).as_bytes()));
        assert!(!is_deep(format!("\"\\\"{}\"", "{".repeat(100)).as_bytes()));
    }

    /// Rules: REG-183
    #[test]
    fn a_query_is_checked_value_by_value() {
        let uri: Uri = "/x?limit=-1&offset=abc&flag=maybe&capabilities=a%20b&capabilities=c".parse().unwrap();
        let mut query = Query::of(&uri);
        assert_eq!(query.all("capabilities"), ["a b", "c"]);
        query.int("limit", 0, 100, 50);
        query.int("offset", 0, i64::MAX, 0);
        query.bool("flag", false);
        query.float("time", 0.0, 1.0);
        let problem = query.done().unwrap_err();
        let places: Vec<String> = problem.errors.iter().map(Invalid::place).collect();
        assert_eq!(places, ["query.limit", "query.offset", "query.flag", "query.time"]);
    }

    /// Rules: REG-131
    #[test]
    fn a_bearer_is_a_scheme_and_a_token() {
        let with = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, http::HeaderValue::from_static(value));
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(with("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(with("bearer abc").as_deref(), Some("abc"));
        assert_eq!(with("garbage"), None);
        assert_eq!(with("Bearer "), None);
        assert_eq!(with("Basic abc"), None);
    }
}
