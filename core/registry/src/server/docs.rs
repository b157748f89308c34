//! The browsable HTTP reference: `/docs`, `/redoc` and their files, all from inside the program (REG-103).

use std::io::Read as _;

use axum::body::Body;
use flate2::read::GzDecoder;
use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, VARY};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::http::reply;

/// Nothing from elsewhere, and nothing inline but what Swagger UI styles by itself.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'self'; \
                      frame-ancestors 'none'";

const SCRIPT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/swagger-ui-bundle.js.gz"));
const STYLE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/swagger-ui.css.gz"));

/// `/docs` and `/redoc`.
pub(super) fn page() -> Response<Body> {
    with_policy(reply::text(StatusCode::OK, "text/html; charset=utf-8", include_str!("docs/index.html")))
}

/// A file of the page, `None` when there is none of this name.
pub(super) fn file(name: &str, headers: &HeaderMap) -> Option<Response<Body>> {
    let mut response = match name {
        "start.js" => reply::text(StatusCode::OK, JAVASCRIPT, include_str!("docs/start.js")),
        "swagger-ui-bundle.js" => packed(JAVASCRIPT, SCRIPT, headers),
        "swagger-ui.css" => packed("text/css; charset=utf-8", STYLE, headers),
        _ => return None,
    };
    // It changes with the program, which a browser may be asked about once an hour.
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    Some(with_policy(response))
}

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

fn with_policy(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}

/// As it is kept, or unpacked for those who do not take gzip.
fn packed(media_type: &'static str, gzip: &'static [u8], headers: &HeaderMap) -> Response<Body> {
    let takes = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let takes_gzip = takes.flat_map(|value| value.split(',')).any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        parts.next() == Some("gzip") && parts.next() != Some("q=0")
    });
    let mut response = if takes_gzip {
        let mut response = reply::text(StatusCode::OK, media_type, gzip);
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response
    } else {
        let mut plain = Vec::with_capacity(gzip.len() * 4);
        match GzDecoder::new(gzip).read_to_end(&mut plain) {
            Ok(_) => reply::text(StatusCode::OK, media_type, plain),
            Err(_) => reply::text(StatusCode::INTERNAL_SERVER_ERROR, media_type, ""),
        }
    };
    response.headers_mut().insert(VARY, HeaderValue::from_static("Origin, Accept-Encoding"));
    response
}
