//! Logging in, temporary tokens, sessions and their PINs (REG-150 to REG-157, REG-608).

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use http::request::Parts;
use serde_json::json;
use tokio::time::Instant;

use super::access::{busy, peer};
use super::input::{self, FINGERPRINT, body_faults, header};
use super::reply::{self, Refused, Reply, internal};
use crate::model::Invalid;
use crate::model::check::{Fields, Text, is_identifier};
use crate::problem::{Kind, Problem};
use crate::server::auth::{Attempt, Auth, Claims, TEMPORARY_LIFE};
use crate::server::dashboard::Event;
use crate::server::{App, AppState};

/// A refused credential is answered no sooner, so that guessing is slow and the time tells nothing.
const REFUSED_AFTER: Duration = Duration::from_millis(400);
/// All agent keys count as one account: who guesses may name any agent.
const KEYS: &str = "agent-key";

/// PINs everybody tries first.
const COMMON_PINS: [&str; 15] = [
    "0000", "1111", "1234", "4321", "1212", "2222", "3333", "4444", "5555", "6666", "7777", "8888", "9999", "12345",
    "123456",
];

fn wrong(parts: &Parts, why: &str) -> Problem {
    Problem::new(Kind::AuthenticationFailed, format!("Authentication failed: {why}")).at(parts.uri.path())
}

async fn body(state: &AppState, parts: &Parts, body: Body) -> Result<serde_json::Value, Problem> {
    let read = input::read_json(&parts.headers, body, state.config.max_json_size).await;
    read.map_err(|problem| problem.at(parts.uri.path()))
}

/// `POST /auth/login`
pub(crate) async fn login(State(state): State<App>, request: Request) -> Reply {
    let (parts, raw) = request.into_parts();
    let value = body(&state, &parts, raw).await?;
    let faults = |faults: Vec<Invalid>| body_faults(faults).at(parts.uri.path());
    let mut fields = Fields::of(&value).map_err(faults)?;
    let asks_as_agent = ["agent_id", "agent_type", "agent_key"].iter().any(|name| fields.present(name).is_some());
    let username = fields.text_opt("username", Text::of(0, 255));
    let password = fields.text_opt("password", Text::of(1, 1024).verbatim());
    let (username, password) = fields.done((username, password)).map_err(faults)?;
    let (Some(username), Some(password)) = (username.filter(|name| !name.is_empty()), password) else {
        let why = if asks_as_agent {
            "Direct agent login not allowed. Use agent registration flow with valid agent key"
        } else {
            "Invalid credentials - provide either agent_id/agent_type or username/password"
        };
        return Err(wrong(&parts, why).into());
    };
    let Some(fingerprint) = header(&parts.headers, FINGERPRINT).filter(|text| !text.is_empty()) else {
        let detail = "X-Client-Fingerprint header is required";
        let problem = Problem::new(Kind::RequiredHeaderMissing, detail).with("header", "X-Client-Fingerprint");
        return Err(problem.at(parts.uri.path()).into());
    };
    let began = Instant::now();
    state.admit(&parts, Attempt::Login, &username)?;
    let turn = state.auth.passwords.turn().await.map_err(|_| busy(&parts))?;
    // Others may have failed while this one waited for its turn.
    state.admit(&parts, Attempt::Login, &username)?;
    let hash = state.auth.user(&username);
    let right = turn.verify(&password, hash.as_deref()).await.map_err(|_| busy(&parts))?;
    if !right {
        state.auth.failed(Attempt::Login, &username, peer(&parts));
        state.metrics.auth("failed", "login");
        state.note(&parts, |client_ip| Event::AdminLoginFailed { user_id: &username, client_ip }.line());
        if state.config.security_logging {
            tracing::warn!("a login from {} was refused", peer(&parts));
        }
        tokio::time::sleep_until(began + REFUSED_AFTER).await;
        return Err(wrong(&parts, "Invalid admin credentials").into());
    }
    state.auth.passed(Attempt::Login, &username, peer(&parts));
    state.metrics.auth("success", "login");
    state.note(&parts, |client_ip| Event::AdminLogin { user_id: &username, client_ip }.line());
    let token = state
        .auth
        .begin_session(&username, fingerprint)
        .map_err(|error| internal("The token could not be made", &error))?;
    Ok(reply::json(&json!({
        "access_token": token,
        "token_type": "bearer",
        "expires_in": state.auth.session_life.as_secs(),
        "agent_id": format!("user_{username}"),
    })))
}

/// `POST /auth/agent/request_temp_token`
pub(crate) async fn request_temp_token(State(state): State<App>, request: Request) -> Reply {
    let (parts, raw) = request.into_parts();
    let value = body(&state, &parts, raw).await?;
    let faults = |faults: Vec<Invalid>| body_faults(faults).at(parts.uri.path());
    let mut fields = Fields::of(&value).map_err(faults)?;
    let identifier =
        Text::of(0, 100).form(|text| text.is_empty() || is_identifier(text), "may hold letters, digits, _ and - only");
    let agent_id = fields.text_opt("agent_id", identifier);
    let agent_type = fields.text_opt("agent_type", Text { max: 50, ..identifier });
    let agent_key = fields.text_opt("agent_key", Text::of(0, 200).verbatim());
    let given = fields.done((agent_id, agent_type, agent_key)).map_err(faults)?;
    let given =
        (given.0.filter(|t| !t.is_empty()), given.1.filter(|t| !t.is_empty()), given.2.filter(|t| !t.is_empty()));
    let (Some(agent_id), Some(agent_type), Some(agent_key)) = given else {
        let detail = "Invalid agent credentials: agent_id, agent_type, and agent_key are required for temporary token \
                      request";
        let problem = Problem::new(Kind::InvalidInput, detail).with("field", "agent credentials");
        return Err(problem.at(parts.uri.path()).into());
    };
    if agent_key.chars().count() < 10 {
        let detail = "Invalid agent_key: agent_key too short (minimum 10 characters required)";
        return Err(Problem::new(Kind::InvalidInput, detail).with("field", "agent_key").at(parts.uri.path()).into());
    }
    for (name, text, least) in [("agent_id", &agent_id, 3), ("agent_type", &agent_type, 2)] {
        if text.chars().count() < least {
            let message = format!("{name} must be at least {least} characters");
            return Err(faults(vec![Invalid::new(name, "value_error", message)]).into());
        }
    }
    let began = Instant::now();
    state.admit(&parts, Attempt::Login, KEYS)?;
    if !state.auth.is_agent_key(&agent_key) {
        state.auth.failed(Attempt::Login, KEYS, peer(&parts));
        state.metrics.auth("failed", "temp_token");
        state.note(&parts, |client_ip| Event::AgentLoginFailed { agent_id: &agent_id, client_ip }.line());
        if !state.auth.has_keys() {
            tracing::warn!(
                "no agent key is known, so no agent can register; make one with `arcp registry key generate`"
            );
        } else if state.config.security_logging {
            tracing::warn!("an agent key from {} was refused", peer(&parts));
        }
        tokio::time::sleep_until(began + REFUSED_AFTER).await;
        return Err(wrong(&parts, "Invalid agent registration key").into());
    }
    state.auth.passed(Attempt::Login, KEYS, peer(&parts));
    state.metrics.auth("success", "temp_token");
    state
        .note(&parts, |client_ip| Event::AgentLogin { agent_id: &agent_id, agent_type: &agent_type, client_ip }.line());
    let claims = Claims::temporary(&agent_id, &agent_type, &agent_key);
    let token = state.auth.tokens.issue(&claims, Auth::now(), TEMPORARY_LIFE);
    let token = token.map_err(|error| internal("The token could not be made", &error))?;
    Ok(reply::json(&json!({
        "temp_token": token,
        "token_type": "bearer",
        "expires_in": TEMPORARY_LIFE.as_secs(),
        "message": "Temporary token issued. Use this token to complete agent registration.",
    })))
}

/// `POST /auth/agent/validate_compliance`: newer clients fall back to plain registration when they hear this (REG-608).
pub(crate) async fn validate_compliance(request: Request) -> Reply {
    let detail = "Three-phase registration is not enabled on this server; register with POST /agents/register";
    Err(Problem::new(Kind::RequestError, detail).at(request.uri().path()).into())
}

/// `POST /auth/logout`
pub(crate) async fn logout(State(state): State<App>, request: Request) -> Reply {
    let (parts, _) = request.into_parts();
    let (_, session) = state.for_admins(&parts)?;
    state.auth.end_session(&session.id);
    state.note(&parts, |client_ip| Event::AdminLogout { user_id: &session.user, client_ip }.line());
    Ok(reply::json(&json!({"status": "success", "message": "Logged out and session PIN cleared"})))
}

async fn pin(state: &AppState, parts: &Parts, raw: Body, least: usize) -> Result<String, Refused> {
    let value = body(state, parts, raw).await?;
    let faults = |faults: Vec<Invalid>| body_faults(faults).at(parts.uri.path());
    let mut fields = Fields::of(&value).map_err(faults)?;
    let pin = fields.text("pin", Text::of(least, 32).verbatim());
    Ok(fields.done(pin).map_err(faults)?)
}

/// `POST /auth/set_pin`
pub(crate) async fn set_pin(State(state): State<App>, request: Request) -> Reply {
    let (parts, raw) = request.into_parts();
    let (_, session) = state.for_admins(&parts)?;
    state.admit(&parts, Attempt::Pin, &session.id)?;
    let pin = pin(&state, &parts, raw, 4).await?;
    if COMMON_PINS.contains(&pin.as_str()) {
        let message = "the PIN is too weak, since everybody tries it; take another";
        return Err(body_faults(vec![Invalid::new("pin", "value_error", message)]).at(parts.uri.path()).into());
    }
    let already = || Problem::new(Kind::PinAlreadySet, "PIN already set for this session").at(parts.uri.path());
    if session.pin.is_some() {
        return Err(already().into());
    }
    let turn = state.auth.passwords.turn().await.map_err(|_| busy(&parts))?;
    let hash = turn.hash(&pin).await.map_err(|_| busy(&parts))?;
    if !state.auth.set_pin(&session.id, hash) {
        return Err(already().into());
    }
    state.note(&parts, |client_ip| Event::PinSet { user_id: &session.user, client_ip }.line());
    Ok(reply::json(&json!({"status": "success", "message": "PIN set for session"})))
}

/// `POST /auth/verify_pin`
pub(crate) async fn verify_pin(State(state): State<App>, request: Request) -> Reply {
    let (parts, raw) = request.into_parts();
    let (_, session) = state.for_admins(&parts)?;
    state.admit(&parts, Attempt::Pin, &session.id)?;
    let pin = pin(&state, &parts, raw, 1).await?;
    if session.pin.is_none() {
        return Err(Problem::new(Kind::PinNotSet, "PIN not set for session").at(parts.uri.path()).into());
    }
    let began = Instant::now();
    let verified = state.verify_pin(&parts, &session, &pin).await;
    if verified.is_err() {
        tokio::time::sleep_until(began + REFUSED_AFTER).await;
    }
    verified?;
    Ok(reply::json(&json!({"status": "success", "message": "PIN verified"})))
}

/// `GET /auth/pin_status`
pub(crate) async fn pin_status(State(state): State<App>, request: Request) -> Reply {
    let (parts, _) = request.into_parts();
    let (_, session) = state.for_admins(&parts)?;
    Ok(reply::json(&json!({"pin_set": session.pin.is_some()})))
}

/// `GET /auth/session_status`
pub(crate) async fn session_status(State(state): State<App>, request: Request) -> Reply {
    let (parts, _) = request.into_parts();
    let (verified, session) = state.for_admins(&parts)?;
    let claims = &verified.claims;
    Ok(reply::json(&json!({
        "valid": true,
        "user_id": claims.sub,
        "role": claims.role.as_str(),
        "agent_id": claims.agent_id,
        "expires": claims.exp,
        "is_admin": true,
        "session_exists": true,
        "pin_set": session.pin.is_some(),
    })))
}
