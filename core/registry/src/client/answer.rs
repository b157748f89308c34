//! What an answer means (REG-021, REG-022).

use serde_json::Value;

use super::error::{FailureKind, RegistryError};
use super::retry::retry_after;
use super::transport::HttpResponse;

/// The most of a registry's sentence that is shown.
const MAX_DETAIL: usize = 2000;

/// The success body as JSON text: JSON as it is, other text as `{"message": text}`, nothing as `{}`.
///
/// # Errors
/// What the status stands for. `endpoint` names the path, without the prefix of the base URL.
pub(crate) fn read(endpoint: &str, response: &HttpResponse) -> Result<String, RegistryError> {
    let text = text(endpoint, response)?;
    if text.trim_ascii().is_empty() {
        return Ok("{}".into());
    }
    if serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok() {
        return Ok(text);
    }
    Ok(serde_json::json!({ "message": text }).to_string())
}

/// The success body as text, whatever it holds.
///
/// # Errors
/// As [`read`].
pub(crate) fn text(endpoint: &str, response: &HttpResponse) -> Result<String, RegistryError> {
    if (200..300).contains(&response.status) {
        return Ok(String::from_utf8_lossy(&response.body).into_owned());
    }
    Err(failure(endpoint, response))
}

fn failure(endpoint: &str, response: &HttpResponse) -> RegistryError {
    let status = response.status;
    let problem = serde_json::from_slice::<Value>(&response.body).ok().filter(Value::is_object);
    let member = |name| problem.as_ref().and_then(|problem| problem.get(name));
    let detail = member("detail").map(shown).unwrap_or_default();
    // Only a problem document's sentence adds something to the words of the contract.
    let is_problem = member("type").is_some() && member("title").is_some() && !detail.is_empty();
    let more = if is_problem { format!(" ({detail})") } else { String::new() };
    let (kind, message) = match status {
        401 => (FailureKind::Authentication, format!("Authentication failed - invalid or expired token{more}")),
        403 => (FailureKind::Forbidden, format!("Access forbidden - insufficient permissions{more}")),
        404 => (FailureKind::NotFound, format!("Endpoint not found: {endpoint}{more}")),
        429 => (FailureKind::RateLimit, format!("Rate limit exceeded{more}")),
        500.. => (FailureKind::Server, format!("Server error: {status}{more}")),
        300..=399 => {
            let to = response.headers.get(http::header::LOCATION).map(|to| String::from_utf8_lossy(to.as_bytes()));
            let to = to.map(|to| format!(" to {}", cut(&to, 200))).unwrap_or_default();
            let message = format!("Request failed: HTTP {status}{to}; redirects are not followed, so correct base_url");
            (FailureKind::Request, message)
        }
        _ if detail.is_empty() => (FailureKind::Request, format!("Request failed: HTTP {status}")),
        _ => (FailureKind::Request, format!("Request failed: {detail}")),
    };
    let mut error = RegistryError::new(kind, message);
    error.status = Some(status);
    error.code = member("type").and_then(Value::as_str).map(slug).unwrap_or_default();
    error.errors = member("errors").filter(|errors| errors.is_array()).cloned().map(Box::new);
    let header = response.headers.get(http::header::RETRY_AFTER).and_then(|text| text.to_str().ok());
    error.retry_after = header.and_then(|text| retry_after(text, jiff::Timestamp::now()));
    error.problem = problem.map(Box::new);
    error
}

/// The last part of a problem's type.
fn slug(kind: &str) -> String {
    kind.rsplit('/').next().unwrap_or_default().to_owned()
}

fn shown(detail: &Value) -> String {
    match detail {
        Value::String(text) => cut(text, MAX_DETAIL),
        Value::Null => String::new(),
        other => cut(&other.to_string(), MAX_DETAIL),
    }
}

/// At most `most` characters.
fn cut(text: &str, most: usize) -> String {
    text.char_indices().nth(most).map_or_else(|| text.to_owned(), |(end, _)| format!("{}...", &text[..end]))
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;

    fn answer(status: u16, body: &str) -> HttpResponse {
        HttpResponse { status, headers: HeaderMap::new(), body: body.to_owned().into() }
    }

    /// Rules: REG-022
    #[test]
    fn success_bodies_are_json_whatever_came() {
        assert_eq!(read("/health", &answer(200, r#"{"a":1}"#)).unwrap(), r#"{"a":1}"#);
        assert_eq!(read("/health", &answer(200, "[1]")).unwrap(), "[1]");
        assert_eq!(read("/health", &answer(204, "")).unwrap(), "{}");
        assert_eq!(read("/health", &answer(200, "plain words")).unwrap(), r#"{"message":"plain words"}"#);
        assert_eq!(read("/health", &answer(200, r#"{"cut":"#)).unwrap(), r#"{"message":"{\"cut\":"}"#);
    }

    /// Rules: REG-021
    #[test]
    fn each_status_has_its_words() {
        let told = |status, body| read("/agents/zz", &answer(status, body)).unwrap_err().to_string();
        assert_eq!(told(401, "{}"), "Authentication failed - invalid or expired token");
        assert_eq!(told(403, r#"{"detail":"x"}"#), "Access forbidden - insufficient permissions");
        assert_eq!(told(404, ""), "Endpoint not found: /agents/zz");
        assert_eq!(told(429, ""), "Rate limit exceeded");
        assert_eq!(told(503, "down"), "Server error: 503");
        assert_eq!(told(422, r#"{"detail":"nope"}"#), "Request failed: nope");
        assert_eq!(told(400, "text"), "Request failed: HTTP 400");
        assert_eq!(told(400, r#"{"detail":[{"loc":["a"]}]}"#), r#"Request failed: [{"loc":["a"]}]"#);
    }

    /// Rules: REG-021, REG-023
    #[test]
    fn a_problem_document_is_kept_and_told() {
        let body = r#"{"type":"https://arcp.0x001.tech/docs/problems/agent-not-found","title":"Agent Not Found",
                       "status":404,"detail":"Agent 'zz' is not registered","errors":[{"loc":["a"]}]}"#;
        let mut response = answer(404, body);
        response.headers.insert(http::header::RETRY_AFTER, HeaderValue::from_static("7"));
        let error = read("/agents/zz", &response).unwrap_err();
        assert_eq!(error.to_string(), "Endpoint not found: /agents/zz (Agent 'zz' is not registered)");
        assert_eq!((error.code.as_str(), error.status), ("agent-not-found", Some(404)));
        assert_eq!(error.retry_after, Some(std::time::Duration::from_secs(7)));
        assert_eq!(error.details()["errors"][0]["loc"][0], "a");
    }

    #[test]
    fn a_redirect_is_told_not_followed() {
        let mut response = answer(307, "");
        response.headers.insert(http::header::LOCATION, HeaderValue::from_static("http://h/x/"));
        let told = read("/x", &response).unwrap_err().to_string();
        assert!(told.contains("307 to http://h/x/") && told.contains("base_url"), "{told}");
    }

    #[test]
    fn a_long_sentence_is_cut_between_characters() {
        assert_eq!(cut("äöü", 2), "äö...");
        assert_eq!(cut("äö", 2), "äö");
    }
}
