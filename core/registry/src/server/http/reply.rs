//! Answers.

use axum::body::Body;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;

use crate::problem::{self, Kind, Problem};

/// What a handler gives.
pub(crate) type Reply = Result<Response<Body>, Refused>;

/// An answer that is no success; boxed, since most are.
#[derive(Debug)]
pub(crate) struct Refused(Box<Response<Body>>);

impl axum::response::IntoResponse for Refused {
    fn into_response(self) -> Response<Body> {
        *self.0
    }
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Refused {
        Refused(Box::new(of_problem(&problem)))
    }
}

impl From<Response<Body>> for Refused {
    fn from(response: Response<Body>) -> Refused {
        Refused(Box::new(response))
    }
}

/// Something on our side that nobody can act on: told without its inside, which goes to the log.
pub(crate) fn internal(what: &str, error: &dyn std::fmt::Display) -> Problem {
    tracing::error!("{what}: {error}");
    Problem::new(Kind::InternalError, format!("{what}; the server's log says why"))
}

fn with_type(status: StatusCode, media_type: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// JSON that is already text.
pub(crate) fn json_bytes(body: impl Into<Bytes>) -> Response<Body> {
    with_type(StatusCode::OK, "application/json", body.into())
}

/// A value as JSON.
pub(crate) fn json(value: &impl Serialize) -> Response<Body> {
    json_bytes(serde_json::to_vec(value).unwrap_or_default())
}

/// A value as JSON with a status.
pub(crate) fn json_status(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    let mut response = json(value);
    *response.status_mut() = status;
    response
}

/// Text.
pub(crate) fn text(status: StatusCode, media_type: &'static str, body: impl Into<Body>) -> Response<Body> {
    with_type(status, media_type, body)
}

/// A problem document.
pub(crate) fn of_problem(problem: &Problem) -> Response<Body> {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = with_type(status, problem::MEDIA_TYPE, problem.to_json());
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(http::header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}
