//! The server itself: what it is, its health, its figures, the dashboard's settings (REG-140 to REG-146, REG-180, REG-188).

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Request, State};
use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN,
};
use http::{HeaderValue, Response, StatusCode};
use parking_lot::Mutex;
use serde_json::{Value, json};
use subtle::ConstantTimeEq;

use super::input::{self, Query, bearer};
use super::reply::{self, Reply};
use crate::directory::time::time_text;
use crate::directory::{DiscoverFilter, Stats, TimeForm};
use crate::problem::{Kind, Problem};
use crate::server::config::{Embeddings, Value as Setting};
use crate::server::metrics::MEDIA_TYPE;
use crate::server::{App, AppState, VERSION};

/// An answer of `/health` is good for so long, if no agent came, went or changed its status.
const HEALTH_LASTS: Duration = Duration::from_millis(100);

/// The last answer of `/health`.
#[derive(Debug, Default)]
pub(crate) struct HealthCache(Mutex<Option<(Instant, u64, Bytes)>>);

/// `GET /`
pub(crate) async fn root() -> Reply {
    Ok(reply::json(&json!({
        "service": "ARCP", "version": VERSION, "status": "healthy", "dashboard": "/dashboard", "docs": "/docs",
    })))
}

/// `OPTIONS /`
pub(crate) async fn root_options() -> Reply {
    let mut response = reply::json(&json!({"message": "CORS preflight OK"}));
    let headers = response.headers_mut();
    for name in [ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_HEADERS] {
        headers.insert(name, HeaderValue::from_static("*"));
    }
    headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    Ok(response)
}

fn now(state: &AppState) -> String {
    time_text(jiff::Timestamp::now(), &state.config.timezone, TimeForm::Http)
}

fn agents(stats: &Stats) -> Value {
    json!({
        "total_registered": stats.total,
        "alive_agents": stats.alive,
        "dead_agents": stats.dead,
        "agent_types": stats.types,
        "embeddings_stored": stats.total,
    })
}

/// How texts are embedded, in the words of the published server (D-37).
fn embedder(state: &AppState) -> &'static str {
    let health = state.service.search_engine().health();
    match (health.remote, health.failing) {
        (false, _) => "local",
        (true, None) => "available",
        // The table stands in for it.
        (true, Some(_)) => "unavailable",
    }
}

fn storage_word(state: &AppState) -> &'static str {
    if state.service.store_stats().failing { "failing" } else { "available" }
}

impl AppState {
    /// The answer of `/health`, made anew when it is old or the agents changed.
    pub(crate) fn health(&self) -> Response<Body> {
        let revision = self.service.revision();
        let began = Instant::now();
        let mut cached = self.health.0.lock();
        if let Some((made, of, body)) = &*cached
            && *of == revision
            && began.duration_since(*made) < HEALTH_LASTS
        {
            return reply::json_bytes(body.clone());
        }
        let body = Bytes::from(serde_json::to_vec(&self.health_now()).unwrap_or_default());
        *cached = Some((began, revision, body.clone()));
        reply::json_bytes(body)
    }

    fn health_now(&self) -> Value {
        let stats = self.service.stats();
        let failing = self.service.store_stats().failing;
        json!({
            "status": if failing { "degraded" } else { "healthy" },
            "timestamp": now(self),
            "version": VERSION,
            "uptime": "operational",
            "service": "ARCP Registry",
            "features": {
                "vector_search": true,
                "redis_storage": false,
                "metrics_tracking": true,
                "jwt_authentication": true,
                "websocket_broadcasts": true,
            },
            "storage": {"redis": "not_configured", "backup_storage": storage_word(self)},
            "ai_services": {"azure_openai": embedder(self), "embeddings": true},
            "agents": agents(&stats),
            "performance": {"redis_connected": false, "ai_client_available": true},
        })
    }
}

/// `GET /health`
pub(crate) async fn health(State(state): State<App>) -> Reply {
    Ok(state.health())
}

/// `GET /health/detailed`
pub(crate) async fn health_detailed(State(state): State<App>, request: Request) -> Reply {
    let (parts, _) = request.into_parts();
    state.for_admins(&parts)?;
    let stats = state.service.stats();
    let kind = if state.service.is_durable() { "sqlite" } else { "memory" };
    let store = state.service.store_stats();
    Ok(reply::json(&json!({
        "status": if store.failing { "degraded" } else { "healthy" },
        "timestamp": now(&state),
        "version": VERSION,
        "service": "ARCP Registry",
        "uptime": "operational",
        "components": {
            "registry": {"status": "healthy", "agents_total": stats.total, "agents_alive": stats.alive},
            "storage": {"status": if store.failing { "failing" } else { "connected" }, "redis": "not_configured"},
            "ai_services": {"status": "healthy", "azure_openai": embedder(&state)},
        },
        "detailed": {
            "database": {
                "status": if store.failing { "failing" } else { "operational" },
                "type": kind,
                "commits": store.commits,
                "failures": store.failures,
                "waiting": store.waiting,
                "used_bytes": store.used_bytes,
            },
            "storage": {"redis": "not_configured", "backup_storage": storage_word(&state)},
            "ai_services": {"azure_openai": embedder(&state), "embeddings": true, "vector_search": true},
            "features": {
                "agent_registration": true,
                "heartbeat_monitoring": true,
                "metrics_collection": true,
                "websocket_broadcasts": true,
                "jwt_authentication": true,
            },
            "agents": agents(&stats),
            "performance": {"redis_connected": false, "ai_client_available": true},
        },
    })))
}

/// `GET /health/config`
pub(crate) async fn health_config(State(state): State<App>, request: Request) -> Reply {
    let (parts, _) = request.into_parts();
    state.for_admins(&parts)?;
    let unset = |ids: &[&'static str]| -> Vec<&'static str> {
        let absent = |id: &&str| {
            let found = state.config.found.iter().find(|found| found.setting.id() == *id);
            found.is_none_or(|found| match &found.value {
                Setting::Absent => true,
                Setting::List(values) => values.is_empty(),
                _ => false,
            })
        };
        ids.iter().copied().filter(|id| absent(id)).collect()
    };
    let findings: Vec<&str> = state.config.findings.iter().map(|finding| finding.message.as_str()).collect();
    Ok(reply::json(&json!({
        "status": "ok",
        "timestamp": now(&state),
        "version": VERSION,
        "required_config": [],
        "optional_config": {
            "azure": unset(&["AZURE_API_KEY", "AZURE_API_BASE", "AZURE_API_VERSION", "AZURE_EMBEDDING_DEPLOYMENT"]),
            "redis": [],
            "security": unset(&["ALLOWED_ORIGINS", "TRUSTED_HOSTS"]),
            "agent": unset(&["AGENT_KEYS"]),
        },
        "findings": findings,
    })))
}

/// `GET /health/redis`
pub(crate) async fn health_redis(State(state): State<App>, request: Request) -> Reply {
    let (parts, _) = request.into_parts();
    state.for_admins(&parts)?;
    Ok(reply::json(&json!({
        "status": "not_configured", "redis": "not_configured", "timestamp": now(&state), "version": VERSION,
    })))
}

/// `GET /health/azure`
pub(crate) async fn health_azure(State(state): State<App>, request: Request) -> Reply {
    let (parts, _) = request.into_parts();
    state.for_admins(&parts)?;
    let (status, reason) = match state.config.embeddings {
        Embeddings::Azure { .. } => ("configured", "settings_complete"),
        Embeddings::OpenAi { .. } => ("not_configured", "another_service_is_used"),
        Embeddings::Local => ("not_configured", "the_built_in_table_is_used"),
    };
    Ok(reply::json(&json!({
        "status": status,
        "details": {"status": status, "reason": reason},
        "timestamp": now(&state),
        "version": VERSION,
    })))
}

fn figures(state: &AppState) -> Response<Body> {
    let alive = state.service.discover(&DiscoverFilter::default(), usize::MAX, 0).agents;
    state.metrics.active_agents(alive.iter().map(|agent| (&**agent.agent_type(), 1)));
    reply::text(StatusCode::OK, MEDIA_TYPE, state.metrics.text())
}

/// `GET /metrics`
pub(crate) async fn metrics(State(state): State<App>, request: Request) -> Reply {
    let (parts, _) = request.into_parts();
    state.for_admins(&parts)?;
    Ok(figures(&state))
}

/// `GET /metrics/scrape`
pub(crate) async fn metrics_scrape(State(state): State<App>, request: Request) -> Reply {
    let (parts, _) = request.into_parts();
    let path = parts.uri.path();
    let Some(given) = bearer(&parts.headers) else {
        return Err(Problem::new(Kind::AuthenticationFailed, "Authentication required").at(path).into());
    };
    let right = match &state.config.metrics_scrape_token {
        Some(token) => bool::from(token.reveal().as_bytes().ct_eq(given.as_bytes())),
        None => false,
    };
    if !right {
        return Err(Problem::new(Kind::InsufficientPermissions, "Invalid scrape token").at(path).into());
    }
    Ok(figures(&state))
}

/// `GET /dashboard/config`
pub(crate) async fn dashboard_config(State(state): State<App>, request: Request) -> Reply {
    let (parts, _) = request.into_parts();
    state.for_admins(&parts)?;
    Ok(reply::json(&state.dashboard.config(Query::of(&parts.uri).get("tz"))))
}

/// `POST /dashboard/config`
pub(crate) async fn set_dashboard_config(State(state): State<App>, request: Request) -> Reply {
    let (parts, raw) = request.into_parts();
    let (_, session) = state.for_admins(&parts)?;
    state.require_pin(&parts, &session).await?;
    let read = input::read_json(&parts.headers, raw, state.config.max_json_size).await;
    let answer = state.dashboard.set_config(&read.map_err(|problem| problem.at(parts.uri.path()))?);
    Ok(reply::json(&answer))
}
