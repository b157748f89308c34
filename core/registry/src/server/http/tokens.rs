//! Making, checking and renewing tokens (REG-160 to REG-163).

use axum::extract::{Request, State};
use http::StatusCode;
use serde_json::json;

use super::access::{caller_of, refused_token};
use super::input::{self, FINGERPRINT, Query, bearer, body_faults, header};
use super::reply::{self, Reply, internal};
use crate::model::Invalid;
use crate::model::check::{Fields, Text, is_user_id};
use crate::problem::{Kind, Problem};
use crate::server::App;
use crate::server::auth::{Auth, Claims, Role};

/// Scopes of a minted token, and characters of each.
const MOST_SCOPES: usize = 50;
const LONGEST_SCOPE: usize = 100;

/// `POST /tokens/mint`
pub(crate) async fn mint(State(state): State<App>, request: Request) -> Reply {
    let (parts, raw) = request.into_parts();
    state.for_admins(&parts)?;
    let path = parts.uri.path();
    let value = input::read_json(&parts.headers, raw, state.config.max_json_size).await.map_err(|p| p.at(path))?;
    let faults = |faults: Vec<Invalid>| body_faults(faults).at(path);
    let mut fields = Fields::of(&value).map_err(faults)?;
    let user_id =
        fields.text("user_id", Text::of(2, 100).form(is_user_id, "may hold letters, digits, _ @ . and - only"));
    let agent_id = fields.text("agent_id", Text::identifier(3, 100));
    let scopes: Vec<String> =
        fields.texts_opt("scopes", MOST_SCOPES).unwrap_or_default().into_iter().map(str::to_owned).collect();
    if scopes.iter().any(|scope| scope.is_empty() || scope.chars().count() > LONGEST_SCOPE) {
        let message = format!("each scope must be text of 1 to {LONGEST_SCOPE} characters");
        fields.fault(Invalid::new("scopes", "value_error", message));
    }
    let role = match fields.text_opt("role", Text::of(0, 50)).as_deref() {
        None | Some("user") => Role::User,
        Some("agent") => Role::Agent,
        Some("admin") => Role::Admin,
        Some(_) => {
            fields.fault(Invalid::new("role", "value_error", "role must be one of: admin, agent, user"));
            Role::User
        }
    };
    let claims = Claims { scopes, ..Claims::new(&user_id, &agent_id, role) };
    let claims = fields.done(claims).map_err(faults)?;
    let token = state.auth.tokens.issue(&claims, Auth::now(), state.auth.agent_life);
    let token = token.map_err(|error| internal("The token could not be made", &error))?;
    let life = state.auth.agent_life.as_secs();
    Ok(reply::json(&json!({"access_token": token, "token_type": "bearer", "expires_in": life})))
}

/// `GET /tokens/validate`
pub(crate) async fn validate(State(state): State<App>, request: Request) -> Reply {
    let (parts, _) = request.into_parts();
    state.admit_token(&parts)?;
    let refused =
        |error: &str| Ok(reply::json_status(StatusCode::UNAUTHORIZED, &json!({"valid": false, "error": error})));
    let Some(token) = bearer(&parts.headers) else { return refused("No token provided") };
    match state.auth.verify(token) {
        Ok(verified) => {
            state.count_token(&parts, true);
            let claims = &verified.claims;
            Ok(reply::json(&json!({"valid": true, "agent_id": claims.sub, "payload": claims})))
        }
        Err(error) => {
            state.count_token(&parts, false);
            refused(&format!("Invalid token: {error}"))
        }
    }
}

/// `POST /tokens/validate?token=`
pub(crate) async fn validate_query(State(state): State<App>, request: Request) -> Reply {
    let (parts, _) = request.into_parts();
    state.admit_token(&parts)?;
    let mut query = Query::of(&parts.uri);
    let token = query.text("token");
    query.done().map_err(|problem| problem.at(parts.uri.path()))?;
    match state.auth.verify(&token) {
        Ok(verified) => {
            state.count_token(&parts, true);
            Ok(reply::json(&json!({"valid": true, "payload": verified.claims})))
        }
        Err(error) => {
            state.count_token(&parts, false);
            Ok(reply::json(&json!({"valid": false, "error": error.to_string()})))
        }
    }
}

/// `POST /tokens/refresh`
pub(crate) async fn refresh(State(state): State<App>, request: Request) -> Reply {
    let (parts, _) = request.into_parts();
    let path = parts.uri.path();
    state.admit_token(&parts)?;
    let Some(token) = bearer(&parts.headers) else {
        let detail = "No token provided in Authorization header";
        return Err(Problem::new(Kind::AuthenticationFailed, detail).at(path).into());
    };
    let verified = match state.auth.verify(token) {
        Ok(verified) => verified,
        Err(error) => {
            state.count_token(&parts, false);
            return Err(refused_token(error, "Token refresh failed").at(path).into());
        }
    };
    state.count_token(&parts, true);
    if verified.claims.temp_registration {
        let detail = "A temporary token cannot be refreshed; register with it, or request another";
        return Err(Problem::new(Kind::InsufficientPermissions, detail).at(path).into());
    }
    let token = if verified.claims.role == Role::Admin {
        // The session goes on with the new token.
        state
            .auth
            .check_session(&verified.hash, header(&parts.headers, FINGERPRINT))
            .map_err(|_| Problem::new(Kind::SessionInvalid, "Admin session validation failed").at(path))?;
        state.auth.renew_session(&verified)
    } else {
        // Else whoever was let go, or another took the place of, would stay for ever.
        if verified.claims.role == Role::Agent {
            let (caller, id) = (caller_of(&verified), verified.claims.agent_id.as_str());
            state.service.may_renew(&caller, id).map_err(|refusal| {
                let detail = format!("Token refresh failed: {refusal}");
                Problem::new(Kind::TokenInvalid, detail).at(path)
            })?;
        }
        state.auth.tokens.issue(&verified.claims, Auth::now(), state.auth.agent_life)
    };
    let token = token.map_err(|error| internal("The token could not be made", &error))?;
    Ok(reply::json(&json!({"access_token": token, "token_type": "bearer"})))
}
