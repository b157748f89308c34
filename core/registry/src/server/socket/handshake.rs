//! The answer to a request that wants to become a WebSocket (RFC 6455, 4.2).

use axum::body::Body;
use http::header::{
    CONNECTION, CONTENT_TYPE, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// The answer that accepts, or the one that refuses.
pub(super) fn answer<B>(request: &Request<B>) -> Result<Response<Body>, Box<Response<Body>>> {
    let headers = request.headers();
    if !names(headers, &CONNECTION, "upgrade") || !names(headers, &UPGRADE, "websocket") {
        let text = "This address speaks WebSocket: connect with ws:// or wss://.";
        let mut refused = refusal(StatusCode::UPGRADE_REQUIRED, text);
        refused.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
        refused.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        return Err(refused.into());
    }
    if request.method() != Method::GET {
        return Err(refusal(StatusCode::METHOD_NOT_ALLOWED, "A WebSocket handshake is a GET request.").into());
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let mut refused = refusal(StatusCode::UPGRADE_REQUIRED, "Sec-WebSocket-Version must be 13.");
        refused.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return Err(refused.into());
    }
    let Some(key) = headers.get(SEC_WEBSOCKET_KEY).filter(|key| is_key(key.as_bytes())) else {
        return Err(refusal(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key must be 16 bytes in base64.").into());
    };
    let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) else {
        return Err(refusal(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key must be 16 bytes in base64.").into());
    };
    let mut accepted = Response::new(Body::empty());
    *accepted.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let set = accepted.headers_mut();
    set.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    set.insert(UPGRADE, HeaderValue::from_static("websocket"));
    set.insert(SEC_WEBSOCKET_ACCEPT, accept);
    Ok(accepted)
}

/// HTTP 403 without a body: all places are taken (REG-300).
pub(super) fn full() -> Response<Body> {
    let mut refused = refusal(StatusCode::FORBIDDEN, "");
    refused.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    refused
}

fn refusal(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut refused = Response::new(if text.is_empty() { Body::empty() } else { Body::from(text) });
    *refused.status_mut() = status;
    refused.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    refused
}

/// Whether a comma-separated header has this word.
fn names(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(word))
}

fn is_key(key: &[u8]) -> bool {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(headers: &[(&str, &str)]) -> StatusCode {
        let mut request = Request::builder().uri("/public/ws");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        match answer(&request.body(()).unwrap()) {
            Ok(response) => response.status(),
            Err(response) => response.status(),
        }
    }

    #[test]
    fn the_guides_curl_command_is_accepted() {
        let request = Request::builder()
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Key", "x3JJHMbDL1EzLkh9GBhXDw==")
            .header("Sec-WebSocket-Version", "13")
            .body(())
            .unwrap();
        let accepted = answer(&request).unwrap();
        assert_eq!(accepted.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(accepted.headers()[SEC_WEBSOCKET_ACCEPT], "HSmrc0sMlYUkAGmm5OPpG2HaGWk=");
    }

    #[test]
    fn other_requests_hear_what_is_missing() {
        let (connection, upgrade) = (("Connection", "keep-alive, Upgrade"), ("Upgrade", "WebSocket"));
        let (version, key) = (("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Key", "x3JJHMbDL1EzLkh9GBhXDw=="));
        assert_eq!(status(&[connection, upgrade, version, key]), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(status(&[]), StatusCode::UPGRADE_REQUIRED);
        assert_eq!(status(&[connection, upgrade, ("Sec-WebSocket-Version", "8"), key]), StatusCode::UPGRADE_REQUIRED);
        assert_eq!(status(&[connection, upgrade, version]), StatusCode::BAD_REQUEST);
        assert_eq!(status(&[connection, upgrade, version, ("Sec-WebSocket-Key", "abc")]), StatusCode::BAD_REQUEST);
    }

    /// Rules: REG-300
    #[test]
    fn over_capacity_is_403() {
        let refused = full();
        assert_eq!(refused.status(), StatusCode::FORBIDDEN);
        assert_eq!(refused.headers()[CONTENT_TYPE], "text/plain; charset=utf-8");
        assert_eq!(refused.headers()[CONNECTION], "close");
    }
}
