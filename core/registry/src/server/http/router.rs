//! Which path leads where, and the layer around it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::routing::{any, delete, get, post};
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, EXPECT};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use hyper::body::{Body as _, Incoming};
use tower::Service as _;

use super::access::{Peer, peer};
use super::input::discard;
use super::outer::{Asked, not_found, plain};
use super::{agents, login, public, reply, system, tokens};
use crate::server::dashboard::page;
use crate::server::socket::Kind;
use crate::server::{App, docs};

/// All endpoints.
pub(crate) fn routes(state: App) -> Router {
    Router::new()
        .route("/", get(system::root).options(system::root_options))
        .route("/health", get(system::health))
        .route("/health/detailed", get(system::health_detailed))
        .route("/health/config", get(system::health_config))
        .route("/health/redis", get(system::health_redis))
        .route("/health/azure", get(system::health_azure))
        .route("/metrics", get(system::metrics))
        .route("/metrics/scrape", get(system::metrics_scrape))
        .route("/dashboard", get(dashboard_page))
        .route("/static/dashboard.css", get(dashboard_page))
        .route("/static/dashboard.js", get(dashboard_page))
        .route("/docs", get(async || docs::page()))
        .route("/redoc", get(async || docs::page()))
        .route("/openapi.json", get(document))
        .route("/static/docs/{name}", get(docs_file))
        .route("/dashboard/config", get(system::dashboard_config).post(system::set_dashboard_config))
        .route("/auth/login", post(login::login))
        .route("/auth/logout", post(login::logout))
        .route("/auth/set_pin", post(login::set_pin))
        .route("/auth/verify_pin", post(login::verify_pin))
        .route("/auth/pin_status", get(login::pin_status))
        .route("/auth/session_status", get(login::session_status))
        .route("/auth/agent/request_temp_token", post(login::request_temp_token))
        .route("/auth/agent/validate_compliance", post(login::validate_compliance))
        .route("/tokens/mint", post(tokens::mint))
        .route("/tokens/validate", get(tokens::validate).post(tokens::validate_query))
        .route("/tokens/refresh", post(tokens::refresh))
        .route("/agents", get(agents::list))
        .route("/agents/register", post(agents::register))
        .route("/agents/stats", get(agents::stats))
        .route("/agents/search", get(agents::search_query).post(agents::search))
        .route("/agents/report-metrics/{agent_id}", post(agents::report_metrics))
        .route("/agents/{agent_id}", delete(agents::unregister).get(agents::get))
        .route("/agents/{agent_id}/heartbeat", post(agents::heartbeat))
        .route("/agents/{agent_id}/metrics", get(agents::metrics).post(agents::set_metrics))
        .route("/agents/{agent_id}/metrics/compat", post(agents::report_metrics))
        .route("/agents/{agent_id}/connection/notify", post(agents::notify))
        .route("/public/discover", get(public::discover))
        .route("/public/search", post(public::search))
        .route("/public/agent/{agent_id}", get(public::agent))
        .route("/public/connect/{agent_id}", post(public::connect))
        .route("/public/info", get(public::info))
        .route("/public/stats", get(public::stats))
        .route("/public/agent_types", get(public::agent_types))
        .route("/public/ws", any(public_socket))
        .route("/agents/ws", any(agent_socket))
        .route("/dashboard/ws", any(dashboard_socket))
        .fallback(async |request: Request| not_found(&request.into_parts().0))
        .method_not_allowed_fallback(async || plain(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed"))
        .with_state(state)
}

/// The live status page and its files (REG-142).
async fn dashboard_page(request: Request) -> Response<Body> {
    let Some(asset) = page::asset(request.uri().path()) else { return not_found(&request.into_parts().0) };
    let mut response = Response::new(Body::from(asset.body));
    let policy = HeaderValue::from_static(page::CONTENT_SECURITY_POLICY);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(asset.content_type));
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    response
}

async fn document(State(state): State<App>) -> Response<Body> {
    reply::json_bytes(state.document.clone())
}

async fn docs_file(Path(name): Path<String>, headers: HeaderMap) -> Response<Body> {
    docs::file(&name, &headers).unwrap_or_else(|| plain(StatusCode::NOT_FOUND, "Not Found"))
}

async fn public_socket(State(state): State<App>, request: Request) -> Response<Body> {
    socket(&state, Kind::Public, request)
}

async fn agent_socket(State(state): State<App>, request: Request) -> Response<Body> {
    socket(&state, Kind::Agents, request)
}

async fn dashboard_socket(State(state): State<App>, request: Request) -> Response<Body> {
    socket(&state, Kind::Dashboard, request)
}

fn socket(state: &App, kind: Kind, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let address = peer(&parts);
    state.sockets.accept(kind, address, Request::from_parts(parts, body))
}

/// Answers one request: bounds, the endpoint, and what every answer carries.
pub(crate) async fn answer(
    state: App,
    mut router: Router,
    peer: SocketAddr,
    request: hyper::Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let (mut parts, body) = request.into_parts();
    let asked = Asked::of(&parts);
    let began = Instant::now();
    let mut response = match state.outer.gate(&parts, peer) {
        Some(early) => {
            // Who waits to be told to go on has sent nothing.
            if !body.is_end_stream() && !parts.headers.contains_key(EXPECT) {
                discard(Body::new(body)).await;
            }
            early
        }
        // What is asked most often needs no router.
        None if asked.endpoint == "/health" && parts.method == Method::GET => state.health(),
        None => {
            parts.extensions.insert(Peer(peer));
            match router.call(hyper::Request::from_parts(parts, Body::new(body))).await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        }
    };
    let took = began.elapsed();
    state.outer.finish(&asked, &mut response, took);
    state.metrics.request(asked.method, asked.endpoint, response.status().as_u16(), took);
    Ok(response)
}
