//! Agents: registration, lists, heartbeats, metrics, notifications (REG-170 to REG-182).

use axum::body::Body;
use axum::extract::{Path, Request, State};
use http::request::Parts;
use http::{Response, StatusCode};
use serde_json::json;

use super::input::{self, Query, body_faults};
use super::reply::{self, Refused, Reply, internal};
use crate::directory::time::time_text;
use crate::directory::{AgentView, Caller, Figures, ListFilter, Refusal, TimeForm};
use crate::model::{Invalid, MetricsUpdate, Registration, SearchDefaults, SearchRequest};
use crate::problem::{Kind, Problem};
use crate::server::outbound::CallError;
use crate::server::{App, AppState};

/// What a refusal of the directory is over HTTP; faults of an input are faults of the body.
pub(super) fn refused(refusal: Refusal) -> Refused {
    match refusal {
        Refusal::Invalid(faults) => body_faults(faults).into(),
        Refusal::NotKept(why) => internal("The change could not be kept", &why).into(),
        other => Problem::from(other).into(),
    }
}

/// The body, if it can be taken, with the path in what is wrong.
pub(super) async fn body(state: &AppState, parts: &Parts, body: Body) -> Result<serde_json::Value, Problem> {
    let read = input::read_json(&parts.headers, body, state.config.max_json_size).await;
    read.map_err(|problem| problem.at(parts.uri.path()))
}

pub(super) fn faults(parts: &Parts, faults: Vec<Invalid>) -> Problem {
    body_faults(faults).at(parts.uri.path())
}

fn write_list(agents: &[AgentView], with_metrics: bool) -> Response<Body> {
    let mut out = Vec::with_capacity(64 + agents.len() * 1200);
    AgentView::write_list(agents, &mut out, TimeForm::Http, with_metrics, true);
    reply::json_bytes(out)
}

/// `POST /agents/register`
pub(crate) async fn register(State(state): State<App>, request: Request) -> Reply {
    let (parts, raw) = request.into_parts();
    state.admit_token(&parts)?;
    let bearer = match state.for_registering(&parts) {
        Ok(bearer) => bearer,
        Err(problem) => {
            state.count_token(&parts, false);
            return Err(problem.into());
        }
    };
    state.count_token(&parts, true);
    let value = body(&state, &parts, raw).await?;
    let registration = Registration::check(&value).map_err(|found| faults(&parts, found))?;
    let (name, agent_type) = (registration.name.clone(), registration.agent_type.clone());
    let registered = match state.service.register(&bearer.caller, registration).await {
        Ok(registered) => registered,
        Err(refusal) => {
            state.metrics.registration("failed", "unknown");
            return Err(match refusal {
                Refusal::Invalid(found) => faults(&parts, found).into(),
                other => refused(other),
            });
        }
    };
    state.metrics.registration("success", &agent_type);
    let agent_id = registered.agent.agent_id();
    let token = state.auth.agent_token(agent_id, registered.key_hash.as_deref());
    let token = token.map_err(|error| internal("The token could not be made", &error))?;
    Ok(reply::json(&json!({
        "status": "success",
        "message": format!("Agent '{name}' registered successfully"),
        "agent_id": &**agent_id,
        "access_token": token,
    })))
}

/// `GET /agents`
pub(crate) async fn list(State(state): State<App>, request: Request) -> Reply {
    let (parts, _) = request.into_parts();
    state.for_agents(&parts)?;
    let mut query = Query::of(&parts.uri);
    let filter = ListFilter {
        agent_type: query.get("agent_type").map(str::to_owned),
        status: query.get("status").map(str::to_owned),
        capabilities: query.all("capabilities"),
    };
    let with_metrics = query.bool("include_metrics", false);
    query.done().map_err(|problem| problem.at(parts.uri.path()))?;
    Ok(write_list(&state.service.list(&filter), with_metrics))
}

/// `POST /agents/search`
pub(crate) async fn search(State(state): State<App>, request: Request) -> Reply {
    let (parts, raw) = request.into_parts();
    state.for_agents(&parts)?;
    let value = body(&state, &parts, raw).await?;
    answer_search(&state, &value).await.map_err(|found| faults(&parts, found).into())
}

/// `GET /agents/search`
pub(crate) async fn search_query(State(state): State<App>, request: Request) -> Reply {
    let (parts, _) = request.into_parts();
    state.for_agents(&parts)?;
    let names = ["query", "top_k", "min_similarity", "weighted", "agent_type"];
    let value = Query::of(&parts.uri).object(&names, &["capabilities"]);
    answer_search(&state, &value).await.map_err(|found| {
        let found = found.into_iter().map(|fault| fault.below("query")).collect();
        Problem::validation(found).at(parts.uri.path()).into()
    })
}

/// The agents that answer a question best (REG-179, REG-184).
pub(super) async fn answer_search(state: &AppState, value: &serde_json::Value) -> Result<Response<Body>, Vec<Invalid>> {
    let defaults = SearchDefaults {
        top_k: usize::try_from(state.config.search_top_k).unwrap_or(10),
        min_similarity: f64::from(state.config.search_min_similarity),
    };
    let wanted = match SearchRequest::check_with(value, defaults) {
        Ok(wanted) => wanted,
        Err(found) => {
            state.metrics.search("invalid");
            return Err(found);
        }
    };
    let found = state.service.search(&wanted).await;
    state.metrics.search("success");
    Ok(reply::json(&found))
}

/// `GET /agents/stats`
pub(crate) async fn stats(State(state): State<App>, request: Request) -> Reply {
    let (parts, _) = request.into_parts();
    state.for_admins(&parts)?;
    let stats = state.service.stats();
    Ok(reply::json(&json!({
        "registry_statistics": {
            "total_agents": stats.total,
            "alive_agents": stats.alive,
            "dead_agents": stats.dead,
            "agent_types": stats.types,
            "embeddings_available": stats.total,
            "redis_connected": false,
            "ai_client_available": true,
        },
        "features": {
            "vector_search_enabled": true,
            "redis_storage_enabled": false,
            "metrics_tracking_enabled": true,
            "websocket_broadcasts_enabled": true,
        },
        "performance": {
            "active_websocket_connections": state.metrics.sockets(),
            "vector_embeddings_stored": stats.total,
        },
    })))
}

/// `GET /agents/{agent_id}`
pub(crate) async fn get(State(state): State<App>, Path(id): Path<String>, request: Request) -> Reply {
    let (parts, _) = request.into_parts();
    state.for_agents(&parts)?;
    let mut query = Query::of(&parts.uri);
    let with_metrics = query.bool("include_metrics", true);
    query.done().map_err(|problem| problem.at(parts.uri.path()))?;
    let Some(agent) = state.service.agent(&id) else { return Ok(missing()) };
    Ok(one(&agent, with_metrics))
}

pub(super) fn one(agent: &AgentView, with_metrics: bool) -> Response<Body> {
    let mut out = Vec::with_capacity(2048);
    agent.write_json(&mut out, TimeForm::Http, with_metrics, true);
    reply::json_bytes(out)
}

/// The plain form of a miss (REG-102).
fn missing() -> Response<Body> {
    reply::json_status(StatusCode::NOT_FOUND, &json!({"status": "error", "message": "Agent not found"}))
}

/// `DELETE /agents/{agent_id}`
pub(crate) async fn unregister(State(state): State<App>, Path(id): Path<String>, request: Request) -> Reply {
    let (parts, _) = request.into_parts();
    let bearer = state.for_registering(&parts)?;
    let by = match &bearer.caller {
        Caller::Admin { user } => {
            let (_, session) = state.for_admins(&parts)?;
            state.require_pin(&parts, &session).await?;
            format!("admin ({user})")
        }
        _ => "agent (self)".to_owned(),
    };
    let caller = as_owner(&state, bearer.caller, &id);
    if let Err(refusal) = state.service.unregister(&caller, &id).await {
        state.metrics.unregistration("failed", "request");
        return Err(refused(refusal));
    }
    Ok(reply::json(&json!({
        "status": "success",
        "message": format!("Agent {id} unregistered successfully"),
        "unregistered_by": by,
    })))
}

/// Published clients unregister with a new temporary token (REG-039): who has the key an agent registered with may let that
/// agent go, as the agent itself may.
fn as_owner(state: &AppState, caller: Caller, id: &str) -> Caller {
    match caller {
        Caller::Temporary { agent_id, key_hash, .. } if *agent_id == *id && state.service.is_bound(id, &key_hash) => {
            Caller::Agent { agent_id, key_hash: Some(key_hash) }
        }
        other => other,
    }
}

/// `POST /agents/{agent_id}/heartbeat`
pub(crate) async fn heartbeat(State(state): State<App>, Path(id): Path<String>, request: Request) -> Reply {
    let (parts, _) = request.into_parts();
    let bearer = state.for_agents(&parts)?;
    match state.service.heartbeat(&bearer.caller, &id) {
        Ok(seen) => {
            state.metrics.heartbeat("success");
            // The id is one that registered, so it needs no escaping.
            let mut out = Vec::with_capacity(160);
            out.extend_from_slice(b"{\"agent_id\":\"");
            out.extend_from_slice(id.as_bytes());
            out.extend_from_slice(b"\",\"status\":\"success\",\"last_seen\":\"");
            crate::directory::time::write_time(&mut out, seen, &state.config.timezone, TimeForm::Http);
            out.extend_from_slice(b"\",\"metrics\":null}");
            Ok(reply::json_bytes(out))
        }
        Err(refusal) => {
            state.metrics.heartbeat("failed");
            Err(refused(refusal))
        }
    }
}

fn write_metrics(agent: &AgentView) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    agent.write_metrics(&mut out, TimeForm::Http);
    out
}

/// `GET /agents/{agent_id}/metrics`
pub(crate) async fn metrics(State(state): State<App>, Path(id): Path<String>, request: Request) -> Reply {
    let (parts, _) = request.into_parts();
    let bearer = state.for_agents(&parts)?;
    match state.service.metrics(&bearer.caller, &id) {
        Ok(agent) => Ok(reply::json_bytes(write_metrics(&agent))),
        Err(Refusal::NotFound(_)) => Ok(missing()),
        Err(refusal) => Err(refused(refusal)),
    }
}

/// `POST /agents/{agent_id}/metrics`
pub(crate) async fn set_metrics(State(state): State<App>, Path(id): Path<String>, request: Request) -> Reply {
    let (parts, raw) = request.into_parts();
    let bearer = state.for_agents(&parts)?;
    let value = body(&state, &parts, raw).await?;
    let update = MetricsUpdate::check(&value).map_err(|found| faults(&parts, found))?;
    let agent = state.service.set_metrics(&bearer.caller, &id, &update).await.map_err(refused)?;
    let mut out = br#"{"status":"success","message":"Metrics updated successfully","metrics":"#.to_vec();
    out.extend_from_slice(&write_metrics(&agent));
    out.push(b'}');
    Ok(reply::json_bytes(out))
}

/// `POST /agents/report-metrics/{agent_id}` and `POST /agents/{agent_id}/metrics/compat`
pub(crate) async fn report_metrics(State(state): State<App>, Path(id): Path<String>, request: Request) -> Reply {
    let (parts, _) = request.into_parts();
    if !parts.headers.contains_key(http::header::AUTHORIZATION) {
        let fault = Invalid::missing("Authorization", "Bearer and a token").below("header");
        return Err(Problem::validation(vec![fault]).at(parts.uri.path()).into());
    }
    let bearer = state.for_agents(&parts)?;
    let mut query = Query::of(&parts.uri);
    let response_time = query.float("response_time", 0.0, 3600.0);
    let success = query.bool("success", true);
    query.done().map_err(|problem| problem.at(parts.uri.path()))?;
    let agent = state.service.report_metrics(&bearer.caller, &id, response_time, success).await.map_err(refused)?;
    let figures: Figures = agent.figures();
    let round = |value: f64| (value * 1000.0).round() / 1000.0;
    Ok(reply::json(&json!({
        "status": "success",
        "message": "Metrics updated successfully",
        "current_metrics": {
            "success_rate": round(figures.success_rate),
            "avg_response_time": round(figures.avg_response_time),
            "total_requests": figures.total_requests,
            "reputation_score": round(figures.reputation_score),
            "last_active": time_text(figures.last_active, &state.config.timezone, TimeForm::Http),
        },
    })))
}

/// `POST /agents/{agent_id}/connection/notify`
pub(crate) async fn notify(State(state): State<App>, Path(id): Path<String>, request: Request) -> Reply {
    let (parts, raw) = request.into_parts();
    state.for_agents(&parts)?;
    let value = body(&state, &parts, raw).await?;
    let mut wrong = Vec::new();
    let mut text = |name: &'static str, most: usize| match value.get(name).and_then(serde_json::Value::as_str) {
        Some(text) if !text.is_empty() && text.chars().count() <= most => text.to_owned(),
        Some(_) => {
            wrong.push((name, format!("{name} must have 1 to {most} characters")));
            String::new()
        }
        None => {
            wrong.push((name, format!("{name} must be given, as text")));
            String::new()
        }
    };
    let (from, endpoint) = (text("agent_id", 100), text("agent_endpoint", 2048));
    if let Some((field, _)) = wrong.first() {
        let all: Vec<&str> = wrong.iter().map(|(_, what)| what.as_str()).collect();
        let problem = Problem::new(Kind::InvalidInput, format!("Invalid notification: {}", all.join("; ")));
        return Err(problem.with("field", *field).with("agent_id", id.as_str()).at(parts.uri.path()).into());
    }
    let info = value.get("agent_info").cloned().unwrap_or_else(|| json!({}));
    let agent = state.service.agent(&id).ok_or_else(|| refused(Refusal::NotFound(id.as_str().into())))?;
    let sent = json!({"agent_id": from, "agent_endpoint": endpoint, "agent_info": info});
    let target = agent.registration().endpoint;
    let agent_string = concat!("ARCP-Registry/", env!("CARGO_PKG_VERSION"));
    match state.outbound.post(&target, "/connection/notify", agent_string, &sent).await {
        Ok(()) => Ok(reply::json(&json!({
            "status": "notified",
            "message": "Agent notified successfully",
            "agent_endpoint": target,
            "next_step": "Agent will contact agent directly with requirements",
        }))),
        Err(error) => Err(unreached(&error, &id, "Agent").at(parts.uri.path()).into()),
    }
}

/// 502 or 504, and why.
pub(super) fn unreached(error: &CallError, id: &str, what: &str) -> Problem {
    let problem = match error {
        CallError::Timeout => Problem::new(Kind::ConnectionTimeout, format!("{what} {id}: {error}")),
        CallError::Status(status) => {
            Problem::new(Kind::EndpointUnreachable, format!("{what} returned error: {status}"))
                .with("status_code", status.to_string())
        }
        _ => Problem::new(Kind::EndpointUnreachable, format!("{what} {id} could not be reached: {error}")),
    };
    problem.with("agent_id", id)
}
