//! Who may call an endpoint (REG-130, REG-131, REG-134).

use std::net::SocketAddr;
use std::sync::Arc;

use http::request::Parts;
use jiff::Timestamp;

use super::input::{FINGERPRINT, SESSION_PIN, bearer, header};
use super::outer::rate_limit_headers;
use super::reply::{self, Refused};
use crate::directory::Caller;
use crate::problem::{Kind, Problem};
use crate::server::AppState;
use crate::server::auth::{Attempt, Blocked, Role, Session, SessionError, TokenError, Verified};
use crate::server::config::Environment;
use crate::server::dashboard::{Event, Line};

/// The address of the client, put into every request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// The address of the client.
pub(crate) fn peer(parts: &Parts) -> std::net::IpAddr {
    let unknown = std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
    parts.extensions.get::<Peer>().map_or(unknown, |peer| peer.0.ip())
}

/// A caller whose token was checked.
#[derive(Debug)]
pub(crate) struct Bearer {
    pub(crate) caller: Caller,
}

fn missing(level: &str) -> Problem {
    Problem::new(Kind::AuthenticationFailed, format!("Authentication required for {level} endpoint"))
}

fn bad_token() -> Problem {
    Problem::new(Kind::TokenInvalid, "Invalid or expired token")
}

/// Who a token's claims are.
pub(crate) fn caller_of(verified: &Verified) -> Caller {
    let claims = &verified.claims;
    match (claims.role, &claims.agent_key_hash) {
        (Role::Agent, Some(key_hash)) if claims.temp_registration => Caller::Temporary {
            agent_id: claims.agent_id.as_str().into(),
            agent_type: claims.agent_type.as_deref().unwrap_or_default().into(),
            key_hash: key_hash.as_str().into(),
            token_id: crate::server::auth::tokens::hex(&verified.hash).into(),
            expires_at: Timestamp::from_second(claims.exp).unwrap_or(Timestamp::MAX),
        },
        (Role::Agent, key_hash) => {
            Caller::Agent { agent_id: claims.agent_id.as_str().into(), key_hash: key_hash.as_deref().map(Into::into) }
        }
        (Role::Admin, _) => Caller::Admin { user: claims.sub.as_str().into() },
        (Role::User, _) => Caller::User { user: claims.sub.as_str().into() },
    }
}

impl AppState {
    /// Tells the dashboard's log what somebody did.
    pub(crate) fn note(&self, parts: &Parts, line: impl FnOnce(&str) -> Line) {
        let address = peer(parts).to_canonical().to_string();
        self.dashboard.log(line(&address));
    }

    fn token(&self, parts: &Parts, level: &str) -> Result<Arc<Verified>, Problem> {
        let token = bearer(&parts.headers).ok_or_else(|| missing(level))?;
        self.auth.verify(token).map_err(|error| {
            if self.config.security_logging {
                tracing::info!("a token from {} was refused: {error}", peer(parts));
            }
            bad_token()
        })
    }

    fn bearer(&self, parts: &Parts, level: &str) -> Result<Bearer, Problem> {
        let verified = self.token(parts, level)?;
        let caller = caller_of(&verified);
        if verified.claims.role == Role::Admin {
            // The token alone opens nothing: it must come from the client that logged in.
            let fingerprint = header(&parts.headers, FINGERPRINT);
            self.auth.check_session(&verified.hash, fingerprint).map_err(session_problem)?;
        }
        Ok(Bearer { caller })
    }

    /// Any agent or administrator.
    pub(crate) fn for_agents(&self, parts: &Parts) -> Result<Bearer, Problem> {
        let bearer = self.bearer(parts, "agent").map_err(|problem| problem.at(parts.uri.path()))?;
        match bearer.caller {
            Caller::Agent { .. } | Caller::Admin { .. } => Ok(bearer),
            Caller::Temporary { .. } => Err(Problem::new(
                Kind::InsufficientPermissions,
                "A temporary token only registers its agent; use the access token that the registration answers",
            )
            .at(parts.uri.path())),
            Caller::User { .. } | Caller::Public => {
                let detail = "Access denied: user role cannot access agent endpoint";
                Err(Problem::new(Kind::InsufficientPermissions, detail).at(parts.uri.path()))
            }
        }
    }

    /// Any agent or administrator, or a temporary token: the directory decides what that may do.
    pub(crate) fn for_registering(&self, parts: &Parts) -> Result<Bearer, Problem> {
        let bearer = self.bearer(parts, "agent").map_err(|problem| problem.at(parts.uri.path()))?;
        if matches!(bearer.caller, Caller::User { .. } | Caller::Public) {
            let detail = "Access denied: user role cannot access agent endpoint";
            return Err(Problem::new(Kind::InsufficientPermissions, detail).at(parts.uri.path()));
        }
        Ok(bearer)
    }

    /// An administrator, with the session of the login.
    pub(crate) fn for_admins(&self, parts: &Parts) -> Result<(Arc<Verified>, Session), Problem> {
        let admitted = || {
            let verified = self.token(parts, "admin")?;
            if verified.claims.role != Role::Admin {
                let role = verified.claims.role.as_str();
                let detail = format!("Access denied: {role} role cannot access admin endpoint");
                return Err(Problem::new(Kind::InsufficientPermissions, detail));
            }
            let fingerprint = header(&parts.headers, FINGERPRINT);
            let session = self.auth.session(&verified.hash, fingerprint).map_err(session_problem)?;
            Ok((verified, session))
        };
        admitted().map_err(|problem| problem.at(parts.uri.path()))
    }

    /// Refuses what must wait (REG-125).
    pub(crate) fn admit(&self, parts: &Parts, attempt: Attempt, account: &str) -> Result<(), Refused> {
        self.auth.check(attempt, account, peer(parts)).map_err(|blocked| {
            if blocked.locked {
                let (attempt_type, seconds) = (attempt.as_str(), blocked.retry_after);
                self.note(parts, |client_ip| Event::Lockout { attempt_type, client_ip, seconds }.line());
            }
            too_many(parts, &blocked)
        })
    }

    /// In production, tokens that do not verify are counted like logins (REG-120).
    pub(crate) fn admit_token(&self, parts: &Parts) -> Result<(), Refused> {
        if self.config.environment == Environment::Production {
            return self.admit(parts, Attempt::General, "token");
        }
        Ok(())
    }

    /// Counts a token that did not verify, in production.
    pub(crate) fn count_token(&self, parts: &Parts, right: bool) {
        if self.config.environment == Environment::Production {
            match right {
                true => self.auth.passed(Attempt::General, "token", peer(parts)),
                false => self.auth.failed(Attempt::General, "token", peer(parts)),
            }
        }
    }

    /// An administrator who has set a PIN must send it with what the dashboard asks it for (REG-408).
    pub(crate) async fn require_pin(&self, parts: &Parts, session: &Session) -> Result<(), Refused> {
        if session.pin.is_none() {
            return Ok(());
        }
        let Some(pin) = header(&parts.headers, SESSION_PIN) else {
            let detail = "This session has a PIN: send it as X-Session-Pin";
            return Err(Problem::new(Kind::PinRequired, detail).at(parts.uri.path()).into());
        };
        self.verify_pin(parts, session, pin).await
    }

    /// Whether this is the session's PIN; wrong ones are counted.
    pub(crate) async fn verify_pin(&self, parts: &Parts, session: &Session, pin: &str) -> Result<(), Refused> {
        let turn = self.auth.passwords.turn().await.map_err(|_| busy(parts))?;
        self.admit(parts, Attempt::Pin, &session.id)?;
        let right = turn.verify(pin, session.pin.as_deref()).await.map_err(|_| busy(parts))?;
        if right {
            self.auth.passed(Attempt::Pin, &session.id, peer(parts));
            self.auth.pin_was_right(&session.id);
            self.metrics.auth("success", "pin");
            self.note(parts, |client_ip| Event::PinVerified { user_id: &session.user, client_ip }.line());
            return Ok(());
        }
        self.auth.failed(Attempt::Pin, &session.id, peer(parts));
        self.metrics.auth("failed", "pin");
        self.note(parts, |client_ip| Event::PinFailed { user_id: &session.user, client_ip }.line());
        Err(Problem::new(Kind::PinIncorrect, "Incorrect PIN").at(parts.uri.path()).into())
    }
}

fn session_problem(error: SessionError) -> Problem {
    match error {
        SessionError::Invalid => Problem::new(Kind::SessionInvalid, "Admin session validation failed"),
        SessionError::Expired => Problem::new(Kind::SessionExpired, "The session has expired; log in again"),
    }
}

/// 429 with everything a program needs to come back at the right time.
pub(crate) fn too_many(parts: &Parts, blocked: &Blocked) -> Refused {
    let attempt = blocked.attempt.as_str();
    let seconds = blocked.retry_after;
    let detail = if blocked.locked {
        format!(
            "Temporarily locked out due to too many {attempt} attempts; try again in {seconds} seconds. Rate limit exceeded."
        )
    } else {
        format!("Too many {attempt} attempts, wait {seconds} seconds! Rate limit exceeded.")
    };
    let problem = Problem::new(Kind::RateLimitExceeded, detail)
        .with("attempt_type", attempt)
        .with("retry_after", seconds.to_string())
        .with("client_id", format!("ip-{}", peer(parts).to_canonical()))
        .at(parts.uri.path());
    let mut response = reply::of_problem(&problem);
    rate_limit_headers(response.headers_mut(), blocked.limit, seconds);
    response.into()
}

/// 429: there is no turn to check another password now.
pub(crate) fn busy(parts: &Parts) -> Refused {
    let problem = Problem::new(Kind::RateLimitExceeded, "Too many logins at once; try again in a moment")
        .with("attempt_type", "login")
        .with("retry_after", "1")
        .at(parts.uri.path());
    let mut response = reply::of_problem(&problem);
    rate_limit_headers(response.headers_mut(), 1, 1);
    response.into()
}

/// Why a token did not verify, as 401.
pub(crate) fn refused_token(error: TokenError, what: &str) -> Problem {
    Problem::new(Kind::TokenInvalid, format!("{what}: {error}"))
}
