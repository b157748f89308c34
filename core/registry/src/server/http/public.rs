//! What anybody may ask (REG-183 to REG-187).

use axum::extract::{Path, Request, State};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::json;

use super::agents::{answer_search, body, faults, one, refused, unreached};
use super::input::Query;
use super::reply::{self, Reply};
use crate::directory::time::time_text;
use crate::directory::{AgentView, DiscoverFilter, TimeForm};
use crate::model::ConnectionRequest;
use crate::server::{App, VERSION};

/// Now, in UTC and with its offset.
fn utc_now() -> String {
    time_text(Timestamp::now(), &TimeZone::UTC, TimeForm::Http) + "+00:00"
}

/// `GET /public/discover`
pub(crate) async fn discover(State(state): State<App>, request: Request) -> Reply {
    let mut query = Query::of(request.uri());
    let filter = DiscoverFilter {
        agent_type: query.get("agent_type").map(str::to_owned),
        capabilities: query.all("capabilities"),
    };
    let limit = query.int("limit", 0, 100, 50);
    let offset = query.int("offset", 0, i64::MAX, 0);
    query.done().map_err(|problem| problem.at(request.uri().path()))?;
    let number = |n: i64| usize::try_from(n).unwrap_or(0);
    let page = state.service.discover(&filter, number(limit), number(offset));
    let mut out = Vec::with_capacity(64 + page.agents.len() * 1200);
    AgentView::write_list(&page.agents, &mut out, TimeForm::Http, true, true);
    Ok(reply::json_bytes(out))
}

/// `POST /public/search`
pub(crate) async fn search(State(state): State<App>, request: Request) -> Reply {
    let (parts, raw) = request.into_parts();
    let value = body(&state, &parts, raw).await?;
    answer_search(&state, &value).await.map_err(|found| faults(&parts, found).into())
}

/// `GET /public/agent/{agent_id}`
pub(crate) async fn agent(State(state): State<App>, Path(id): Path<String>) -> Reply {
    let agent = state.service.available(&id).map_err(refused)?;
    Ok(one(&agent, true))
}

/// Of a request id at most so many characters are told.
const LONGEST_REQUEST_ID: usize = 50;

/// `POST /public/connect/{agent_id}`
pub(crate) async fn connect(State(state): State<App>, Path(id): Path<String>, request: Request) -> Reply {
    let (parts, raw) = request.into_parts();
    let value = body(&state, &parts, raw).await?;
    let wish = ConnectionRequest::check(&value).map_err(|found| faults(&parts, found))?;
    let agent = state.service.available(&id).map_err(refused)?;
    let about = agent.registration();
    let stamp = utc_now();
    let sent = json!({
        "user_id": wish.user_id,
        "user_endpoint": wish.user_endpoint,
        "user_display_name": wish.display_name,
        "connection_type": "external_app",
        "user_info": wish.additional_info,
        "timestamp": stamp,
        "request_source": "arcp_public_api",
    });
    if let Err(error) = state.outbound.post(&about.endpoint, "/connection/request", "ARCP-Public-API/1.0", &sent).await
    {
        let problem = unreached(&error, &id, "Agent").with("endpoint", about.endpoint).at(parts.uri.path());
        return Err(problem.into());
    }
    // Letters, digits, - and _ only, whatever the user's id holds.
    let safe = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '-' };
    let request_id: String = format!("pub_{id}_{}", wish.user_id).chars().map(safe).take(LONGEST_REQUEST_ID).collect();
    Ok(reply::json(&json!({
        "status": "connection_requested",
        "message": format!("Connection request sent to {}", about.name),
        "next_steps": "Agent will contact you directly with connection details",
        "agent_info": {
            "name": about.name,
            "agent_type": about.agent_type,
            "capabilities": about.capabilities,
            "requirements": about.requirements,
        },
        "request_id": request_id,
        "timestamp": stamp,
    })))
}

/// `GET /public/info`
pub(crate) async fn info() -> Reply {
    Ok(reply::json(&json!({
        "service": "ARCP (Agent Registry & Control Protocol)",
        "version": VERSION,
        "public_api": {
            "available": true,
            "endpoints": {
                "discover": "/public/discover - Discover available agents",
                "search": "/public/search - Search agents with semantic queries",
                "agent_details": "/public/agent/{agent_id} - Get detailed agent information",
                "connect": "/public/connect/{agent_id} - Request connection to an agent",
            },
            "features": [
                "Agent discovery and browsing",
                "Semantic agent search",
                "Public agent profiles",
                "User-agent connection facilitation",
            ],
        },
        "capabilities": {
            "vector_search": true,
            "real_time_updates": true,
            "agent_filtering": true,
            "pagination": true,
            "websocket_pagination": true,
        },
        "limits": {
            "discover_max_limit": 100,
            "search_max_limit": 100,
            "rate_limiting": "Failed logins only, per account and address",
        },
        "documentation": "/docs",
    })))
}

/// `GET /public/stats`
pub(crate) async fn stats(State(state): State<App>) -> Reply {
    let stats = state.service.stats();
    let mut answer = json!({
        "alive_agents": stats.alive,
        "dead_agents": stats.dead,
        "total_agents": stats.total,
        "agent_types": stats.types.len(),
        "system_status": "operational",
        "last_updated": utc_now(),
        "features": {"semantic_search": true, "real_time_discovery": true, "connection_facilitation": true},
    });
    if !stats.types.is_empty() {
        answer["available_types"] = stats.types.keys().cloned().collect();
    }
    Ok(reply::json(&answer))
}

/// `GET /public/agent_types`
pub(crate) async fn agent_types(State(state): State<App>) -> Reply {
    Ok(reply::json(&json!({"allowed_agent_types": state.config.allowed_agent_types})))
}
