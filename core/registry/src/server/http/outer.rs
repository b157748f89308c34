//! What is around every answer, in one place: bounds, addresses, hosts, CORS, headers, figures (REG-110 to REG-118).

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD,
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, EXPIRES, HOST, HeaderName, LOCATION, ORIGIN, PRAGMA,
    REFERRER_POLICY, SERVER, STRICT_TRANSPORT_SECURITY, VARY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
    X_XSS_PROTECTION,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};

use super::input::{Query, too_large};
use super::reply;
use crate::problem::{Kind, Problem};
use crate::server::auth::AddressFilter;
use crate::server::config::{Config, Environment};
use crate::server::metrics::{UNMATCHED, template};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const RESPONSE_TIME: HeaderName = HeaderName::from_static("x-response-time");
const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");
const METHODS: &str = "GET, POST, PUT, DELETE, OPTIONS, PATCH";
const REQUEST_HEADERS: &str = "Accept, Accept-Language, Authorization, Content-Language, Content-Type, X-CSRF-Token, \
                               X-Client-Fingerprint, X-Requested-With, X-Session-Pin";
const EXPOSED: &str = "X-Response-Time, X-Request-ID, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset";

/// What is decided once.
#[derive(Debug)]
pub(crate) struct Outer {
    fixed: Vec<(HeaderName, HeaderValue)>,
    origins: Vec<HeaderValue>,
    any_origin: bool,
    hosts: Option<Vec<String>>,
    addresses: AddressFilter,
    max_query_params: usize,
    max_header_size: usize,
    max_body: usize,
    security_logging: bool,
}

impl Outer {
    pub(crate) fn new(config: &Config, version: &str) -> Outer {
        let server = HeaderValue::from_str(&format!("ARCP/{version}"));
        let policy = HeaderValue::from_str(&content_policy(config));
        let unset = HeaderValue::from_static("ARCP");
        let fixed = vec![
            (SERVER, server.unwrap_or(unset)),
            (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
            (X_XSS_PROTECTION, HeaderValue::from_static("1; mode=block")),
            (CONTENT_SECURITY_POLICY, policy.unwrap_or(HeaderValue::from_static("default-src 'self'"))),
            (REFERRER_POLICY, HeaderValue::from_static("strict-origin-when-cross-origin")),
            (
                PERMISSIONS_POLICY,
                HeaderValue::from_static(
                    "geolocation=(), microphone=(), camera=(), payment=(), usb=(), magnetometer=(), gyroscope=(), \
                     accelerometer=()",
                ),
            ),
        ];
        let production = config.environment == Environment::Production;
        Outer {
            fixed,
            any_origin: config.allowed_origins.iter().any(|origin| origin == "*"),
            origins: config.allowed_origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect(),
            hosts: production.then(|| config.trusted_hosts.iter().map(|host| host.to_ascii_lowercase()).collect()),
            addresses: AddressFilter::new(
                config.ip_default_deny,
                config.blocked_ips.clone(),
                config.allowed_ip_ranges.clone(),
            ),
            max_query_params: config.max_query_params,
            max_header_size: config.max_header_size,
            max_body: config.max_json_size,
            security_logging: config.security_logging,
        }
    }

    /// An answer that comes before any endpoint.
    pub(crate) fn gate(&self, parts: &Parts, peer: SocketAddr) -> Option<Response<Body>> {
        if parts.method == Method::OPTIONS
            && parts.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
            && let Some(origin) = parts.headers.get(ORIGIN)
        {
            return Some(self.preflight(origin));
        }
        match self.check(parts, peer) {
            Ok(None) => None,
            Ok(Some(refused)) => Some(refused),
            Err(problem) => Some(reply::of_problem(&problem.at(parts.uri.path()))),
        }
    }

    fn check(&self, parts: &Parts, peer: SocketAddr) -> Result<Option<Response<Body>>, Problem> {
        if !is_text(parts.uri.path()) {
            return Ok(Some(plain(StatusCode::NOT_FOUND, "Not Found")));
        }
        if let Some(query) = parts.uri.query() {
            let count = Query::count(query);
            if count > self.max_query_params {
                let detail = format!("Too many query parameters: {count} exceeds limit of {}", self.max_query_params);
                return Err(Problem::new(Kind::RequestError, detail)
                    .with("query_param_count", count.to_string())
                    .with("max_query_params", self.max_query_params.to_string()));
            }
        }
        if let Err(detail) = self.addresses.check(peer.ip()) {
            if self.security_logging {
                tracing::warn!("{detail}: {}", peer.ip());
            }
            let shown: String = peer.ip().to_canonical().to_string().chars().take(8).collect();
            return Err(Problem::new(Kind::InsufficientPermissions, detail).with("client_ip", shown + "..."));
        }
        if let Some(length) = parts.headers.get(CONTENT_LENGTH)
            && let Some(length) = length.to_str().ok().and_then(|text| text.parse::<u64>().ok())
            && length > self.max_body as u64
        {
            return Err(too_large(Some(length), self.max_body));
        }
        let size: usize = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if size > self.max_header_size {
            let most = self.max_header_size;
            let detail = format!("Request headers size {size} bytes exceeds maximum limit of {most} bytes");
            return Err(Problem::new(Kind::HeadersTooLarge, detail)
                .with("header_size", size.to_string())
                .with("max_header_size", most.to_string()));
        }
        if let Some(hosts) = &self.hosts {
            let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
            if !is_trusted(hosts, host) {
                let media_type = "text/plain; charset=utf-8";
                return Ok(Some(reply::text(StatusCode::BAD_REQUEST, media_type, "Invalid host header")));
            }
        }
        Ok(None)
    }

    fn is_allowed(&self, origin: &HeaderValue) -> bool {
        self.any_origin || self.origins.contains(origin)
    }

    fn preflight(&self, origin: &HeaderValue) -> Response<Body> {
        let allowed = self.is_allowed(origin);
        let (status, text) =
            if allowed { (StatusCode::OK, "OK") } else { (StatusCode::BAD_REQUEST, "Disallowed CORS origin") };
        let mut response = reply::text(status, "text/plain; charset=utf-8", text);
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(REQUEST_HEADERS));
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        headers.insert(
            VARY,
            HeaderValue::from_static(
                "Origin, Access-Control-Request-Method, Access-Control-Request-Headers, \
                 Access-Control-Request-Private-Network",
            ),
        );
        if allowed {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        }
        response
    }

    /// Adds what every answer carries.
    pub(crate) fn finish(&self, asked: &Asked, response: &mut Response<Body>, took: Duration) {
        let headers = response.headers_mut();
        headers.reserve(20);
        // A page of ours may be stricter than what holds for all.
        let own_policy = headers.remove(CONTENT_SECURITY_POLICY);
        for (name, value) in &self.fixed {
            // A page may have a policy of its own.
            if *name != CONTENT_SECURITY_POLICY || !headers.contains_key(name) {
                headers.insert(name.clone(), value.clone());
            }
        }
        if let Some(policy) = own_policy {
            headers.insert(CONTENT_SECURITY_POLICY, policy);
        }
        if !headers.contains_key(CACHE_CONTROL) {
            headers.insert(
                CACHE_CONTROL,
                HeaderValue::from_static("no-store, no-cache, must-revalidate, proxy-revalidate"),
            );
            headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
            headers.insert(EXPIRES, HeaderValue::from_static("0"));
        }
        if !headers.contains_key(VARY) {
            headers.insert(VARY, HeaderValue::from_static("Origin"));
        }
        if asked.is_https {
            headers.insert(
                STRICT_TRANSPORT_SECURITY,
                HeaderValue::from_static("max-age=31536000; includeSubDomains; preload"),
            );
        }
        if let Some(origin) = &asked.origin
            && !headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN)
            && self.is_allowed(origin)
        {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
        }
        let (id, time) = id_and_time(took);
        headers.insert(REQUEST_ID, id);
        headers.insert(RESPONSE_TIME, time);
    }
}

/// What of a request is needed when its answer is there.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) method: &'static str,
    pub(crate) endpoint: &'static str,
    origin: Option<HeaderValue>,
    is_https: bool,
}

impl Asked {
    pub(crate) fn of(parts: &Parts) -> Asked {
        Asked {
            method: method_label(&parts.method),
            endpoint: template(parts.uri.path()),
            origin: parts.headers.get(ORIGIN).cloned(),
            is_https: parts.headers.get("x-forwarded-proto").is_some_and(|proto| proto == "https"),
        }
    }
}

fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::OPTIONS => "OPTIONS",
        Method::HEAD => "HEAD",
        _ => "OTHER",
    }
}

/// `default-src 'self'` and little more: all assets are our own. Pages may call what the settings let them.
fn content_policy(config: &Config) -> String {
    let http = if config.csp_connect_http { " ws: http:" } else { "" };
    let https = if config.csp_connect_https { " wss: https:" } else { "" };
    format!(
        "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; font-src 'self' data:; img-src 'self' \
         data:; connect-src 'self'{http}{https}; object-src 'none'; frame-ancestors 'none'; base-uri 'self'; \
         form-action 'self'"
    )
}

/// Whether a Host header, without its port, is one of ours.
fn is_trusted(hosts: &[String], host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let name = name.to_ascii_lowercase();
    hosts.iter().any(|trusted| match trusted.strip_prefix("*.") {
        Some(domain) => name.strip_suffix(domain).is_some_and(|front| front.ends_with('.') && front.len() > 1),
        None => trusted == "*" || trusted.trim_start_matches('[').trim_end_matches(']') == name,
    })
}

/// Whether a path is UTF-8 when its `%` are read; nothing is found at another.
fn is_text(path: &str) -> bool {
    if !path.contains('%') {
        return true;
    }
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let (bytes, mut at) = (path.as_bytes(), 0);
    let mut decoded = Vec::with_capacity(bytes.len());
    while let Some(byte) = bytes.get(at) {
        let pair = digit(bytes.get(at + 1)).zip(digit(bytes.get(at + 2))).filter(|_| *byte == b'%');
        let (byte, taken) = pair.map_or((*byte, 1), |(high, low)| ((high << 4 | low) as u8, 3));
        decoded.push(byte);
        at += taken;
    }
    std::str::from_utf8(&decoded).is_ok()
}

/// A random UUID (version 4) and the time as seconds with three digits, cut from one buffer.
fn id_and_time(took: Duration) -> (HeaderValue, HeaderValue) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bits = fastrand::u128(..) & !(0xf000 << 64) & !(0xc << 60) | (0x4000 << 64) | (0x8 << 60);
    let mut buffer = BytesMut::with_capacity(64);
    for (at, byte) in bits.to_be_bytes().into_iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            buffer.put_u8(b'-');
        }
        buffer.put_u8(HEX[usize::from(byte >> 4)]);
        buffer.put_u8(HEX[usize::from(byte & 15)]);
    }
    let id = buffer.split().freeze();
    let millis = took.as_millis();
    if millis < 10 {
        buffer.put_slice(b"0.00");
        buffer.put_u8(b'0' + u8::try_from(millis).unwrap_or(9));
        buffer.put_u8(b's');
    } else {
        buffer.put_slice(format!("{}.{:03}s", millis / 1000, millis % 1000).as_bytes());
    }
    let value = |bytes: Bytes| HeaderValue::from_maybe_shared(bytes).unwrap_or(HeaderValue::from_static("-"));
    (value(id), value(buffer.freeze()))
}

/// No such path: a trailing slash too many is sent away without it (REG-103), anything else is not found (REG-102).
pub(crate) fn not_found(parts: &Parts) -> Response<Body> {
    let path = parts.uri.path();
    let shorter = path.trim_end_matches('/');
    let known = !shorter.is_empty() && !shorter.starts_with("//") && template(shorter) != UNMATCHED;
    if shorter.len() < path.len() && known {
        let is_https = parts.headers.get("x-forwarded-proto").is_some_and(|proto| proto == "https");
        let scheme = if is_https { "https" } else { "http" };
        let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
        let query = parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        let location = match host {
            Some(host) => format!("{scheme}://{host}{shorter}{query}"),
            None => format!("{shorter}{query}"),
        };
        if let Ok(location) = HeaderValue::from_str(&location) {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
            response.headers_mut().insert(LOCATION, location);
            return response;
        }
    }
    plain(StatusCode::NOT_FOUND, "Not Found")
}

/// `{"detail": …}`, the form of the exceptions (REG-102).
pub(crate) fn plain(status: StatusCode, detail: &'static str) -> Response<Body> {
    reply::json_status(status, &serde_json::json!({"detail": detail}))
}

/// Headers that say nothing may be asked for too often (REG-125).
pub(crate) fn rate_limit_headers(headers: &mut HeaderMap, limit: u32, retry_after: u64) {
    let reset = jiff::Timestamp::now().as_second().saturating_add(i64::try_from(retry_after).unwrap_or(0));
    headers.insert(http::header::RETRY_AFTER, HeaderValue::from(retry_after));
    headers.insert(HeaderName::from_static("x-ratelimit-limit"), HeaderValue::from(limit));
    headers.insert(HeaderName::from_static("x-ratelimit-remaining"), HeaderValue::from(0_u16));
    headers.insert(HeaderName::from_static("x-ratelimit-reset"), HeaderValue::from(reset));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules: REG-110
    #[test]
    fn ids_are_uuid4_and_times_have_three_digits() {
        for (took, time) in [(0, "0.000s"), (7, "0.007s"), (12, "0.012s"), (12_345, "12.345s")] {
            let (id, shown) = id_and_time(Duration::from_millis(took));
            assert_eq!(shown, time);
            let id = id.to_str().unwrap();
            let parts: Vec<usize> = id.split('-').map(str::len).collect();
            assert_eq!(parts, [8, 4, 4, 4, 12], "{id}");
            assert!(id.as_bytes()[14] == b'4' && b"89ab".contains(&id.as_bytes()[19]), "{id}");
        }
    }

    /// Rules: REG-118
    #[test]
    fn trusted_hosts_are_names_and_subdomains() {
        let hosts = ["registry.example.com".to_owned(), "*.agents.example".to_owned(), "::1".to_owned()];
        for good in ["registry.example.com", "REGISTRY.example.com:8001", "a.agents.example", "[::1]:8001"] {
            assert!(is_trusted(&hosts, good), "{good}");
        }
        for bad in
            ["", "example.com", "agents.example", "evilagents.example", "registry.example.com.evil", ".agents.example"]
        {
            assert!(!is_trusted(&hosts, bad), "{bad}");
        }
    }
}
