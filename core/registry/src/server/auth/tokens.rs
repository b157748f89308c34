//! Tokens: how they are signed and checked (REG-132, REG-133).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::server::config::Secret;

/// How long a temporary token lives (REG-133).
pub const TEMPORARY_LIFE: Duration = Duration::from_secs(900);
/// No token is longer; what is longer is refused before it is looked at.
const LONGEST: usize = 8192;
/// Checked tokens that are remembered, in each of two halves.
const CACHED: usize = 16_384;

/// What a bearer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything.
    Admin,
    /// An agent.
    Agent,
    /// Nothing but to be known.
    User,
}

impl Role {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Admin => "admin",
            Role::Agent => "agent",
            Role::User => "user",
        }
    }
}

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The user, the agent, or `temp_` and the agent.
    pub sub: String,
    /// The agent, or `user_` and the user.
    pub agent_id: String,
    /// What it is for.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// What its bearer may do.
    pub role: Role,
    /// When it was made, in seconds since 1970.
    pub iat: i64,
    /// When it ends.
    pub exp: i64,
    /// Whether it is only for one registration.
    #[serde(default, skip_serializing_if = "is_false")]
    pub temp_registration: bool,
    /// Of a temporary token: the type it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_type: Option<String>,
    /// Of a temporary token: the beginning of the key, at most half of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_key: Option<String>,
    /// Of a temporary token, and of an agent that registered with one: the SHA-256 of the key (REG-193).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_key_hash: Option<String>,
    /// Of a temporary token: tells apart those of one second, as each registers once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_false(value: &bool) -> bool {
    !value
}

impl Claims {
    /// An agent's.
    pub fn of_agent(agent_id: &str) -> Claims {
        Claims::new(agent_id, agent_id, Role::Agent)
    }

    /// An administrator's.
    pub fn of_admin(user: &str) -> Claims {
        let scopes = vec!["admin".into(), "agent_management".into()];
        Claims { scopes, ..Claims::new(user, &format!("user_{user}"), Role::Admin) }
    }

    /// For one registration of this agent with this key.
    pub fn temporary(agent_id: &str, agent_type: &str, key: &str) -> Claims {
        let length = key.chars().count();
        let start: String = key.chars().take((length / 2).min(8)).collect();
        Claims {
            temp_registration: true,
            agent_type: Some(agent_type.to_lowercase()),
            used_key: Some(start + "..."),
            agent_key_hash: Some(key_hash(key)),
            jti: Some(format!("{:032x}", fastrand::u128(..))),
            ..Claims::new(&format!("temp_{agent_id}"), agent_id, Role::Agent)
        }
    }

    /// Without times; [`Tokens::issue`] sets them.
    pub fn new(sub: &str, agent_id: &str, role: Role) -> Claims {
        Claims {
            sub: sub.into(),
            agent_id: agent_id.into(),
            scopes: Vec::new(),
            role,
            iat: 0,
            exp: 0,
            temp_registration: false,
            agent_type: None,
            used_key: None,
            agent_key_hash: None,
            jti: None,
        }
    }
}

/// The SHA-256 of an agent key, in hexadecimal.
pub fn key_hash(key: &str) -> String {
    hex(&Sha256::digest(key.as_bytes()))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What a token is known by where the token itself must not be kept.
pub type TokenHash = [u8; 32];

/// The SHA-256 of a token.
pub fn token_hash(token: &str) -> TokenHash {
    Sha256::digest(token.as_bytes()).into()
}

/// A token that was checked.
#[derive(Clone, Debug)]
pub struct Verified {
    /// What it says.
    pub claims: Claims,
    /// What it is known by.
    pub hash: TokenHash,
}

/// Why a token is refused; the texts are those of the published server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It has no three parts.
    #[error("Not enough segments")]
    Shape,
    /// Its parts cannot be read.
    #[error("Invalid token encoding")]
    Encoding,
    /// It is signed in another way, or names a key.
    #[error("The specified alg value is not allowed")]
    Algorithm,
    /// Somebody else signed it.
    #[error("Signature verification failed")]
    Signature,
    /// It is over.
    #[error("Signature has expired")]
    Expired,
    /// It lacks claims, or they are not what they should be.
    #[error("Invalid token claims")]
    Claims,
}

/// Signs and checks.
pub struct Tokens {
    algorithm: Algorithm,
    encoding: EncodingKey,
    decoding: DecodingKey,
    validation: Validation,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    young: HashMap<TokenHash, Arc<Verified>, rustc_hash::FxBuildHasher>,
    old: HashMap<TokenHash, Arc<Verified>, rustc_hash::FxBuildHasher>,
}

impl Cache {
    fn get(&mut self, hash: &TokenHash) -> Option<Arc<Verified>> {
        if let Some(found) = self.young.get(hash) {
            return Some(found.clone());
        }
        let found = self.old.remove(hash)?;
        self.put(found.clone());
        Some(found)
    }

    fn put(&mut self, verified: Arc<Verified>) {
        if self.young.len() >= CACHED {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(verified.hash, verified);
    }
}

impl Tokens {
    /// With this secret and `HS256`, `HS384` or `HS512`.
    pub fn new(secret: &Secret, algorithm: &str) -> Tokens {
        let algorithm = match algorithm {
            "HS384" => Algorithm::HS384,
            "HS512" => Algorithm::HS512,
            _ => Algorithm::HS256,
        };
        let mut validation = Validation::new(algorithm);
        // Ends are checked here, with the clock of the caller.
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims = ["exp".to_owned()].into();
        Tokens {
            algorithm,
            encoding: EncodingKey::from_secret(secret.reveal().as_bytes()),
            decoding: DecodingKey::from_secret(secret.reveal().as_bytes()),
            validation,
            cache: Mutex::default(),
        }
    }

    /// A signed token that lives from `now`, in seconds since 1970, for `life`.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn issue(&self, claims: &Claims, now: i64, life: Duration) -> Result<String, TokenError> {
        let life = i64::try_from(life.as_secs()).unwrap_or(i64::MAX);
        let claims = Claims { iat: now, exp: now.saturating_add(life), ..claims.clone() };
        jsonwebtoken::encode(&Header::new(self.algorithm), &claims, &self.encoding).map_err(|_| TokenError::Encoding)
    }

    /// What a token says, if it is ours and not over at `now`.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn verify(&self, token: &str, now: i64) -> Result<Arc<Verified>, TokenError> {
        if token.len() > LONGEST || token.bytes().filter(|byte| *byte == b'.').count() != 2 {
            return Err(TokenError::Shape);
        }
        let hash = token_hash(token);
        let cached = self.cache.lock().get(&hash);
        let verified = match cached {
            Some(verified) => verified,
            None => {
                let verified = Arc::new(Verified { claims: self.decode(token)?, hash });
                self.cache.lock().put(verified.clone());
                verified
            }
        };
        if verified.claims.exp <= now { Err(TokenError::Expired) } else { Ok(verified) }
    }

    fn decode(&self, token: &str) -> Result<Claims, TokenError> {
        let data = jsonwebtoken::decode::<Claims>(token, &self.decoding, &self.validation);
        let data = data.map_err(|error| match error.kind() {
            ErrorKind::InvalidSignature => TokenError::Signature,
            ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName | ErrorKind::UnsupportedAlgorithm => {
                TokenError::Algorithm
            }
            ErrorKind::InvalidToken | ErrorKind::Base64(_) | ErrorKind::Utf8(_) => TokenError::Encoding,
            // A header with an unknown algorithm fails as JSON.
            ErrorKind::Json(_) if jsonwebtoken::decode_header(token).is_err() => TokenError::Algorithm,
            _ => TokenError::Claims,
        })?;
        if data.header.kid.is_some() {
            return Err(TokenError::Algorithm);
        }
        Ok(data.claims)
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> Tokens {
        Tokens::new(&Secret::new("0123456789abcdef0123456789abcdef"), "HS256")
    }

    /// Rules: REG-132
    #[test]
    fn a_token_says_who_and_how_long() {
        let tokens = tokens();
        let token = tokens.issue(&Claims::of_admin("ARCP"), 1000, Duration::from_secs(1800)).unwrap();
        let verified = tokens.verify(&token, 2799).unwrap();
        let claims = serde_json::to_value(&verified.claims).unwrap();
        let expected = serde_json::json!({
            "sub": "ARCP", "agent_id": "user_ARCP", "scopes": ["admin", "agent_management"], "role": "admin",
            "iat": 1000, "exp": 2800,
        });
        assert_eq!(claims, expected);
        assert_eq!(tokens.verify(&token, 2800).unwrap_err(), TokenError::Expired, "checked again, though remembered");
    }

    /// Rules: REG-132
    #[test]
    fn a_temporary_token_does_not_hold_its_key() {
        let claims = Claims::temporary("gold-1", "Testing", "test-agent-001");
        assert_eq!(claims.used_key.as_deref(), Some("test-ag..."));
        assert_eq!((claims.sub.as_str(), claims.agent_type.as_deref()), ("temp_gold-1", Some("testing")));
        let hash = "fcdcef2318095bf2986f4e382113be3b376588474503738225a68a54d9217f0c";
        assert_eq!(claims.agent_key_hash.as_deref(), Some(hash));
    }

    /// Rules: REG-131
    #[test]
    fn what_another_signed_is_refused() {
        let tokens = tokens();
        let claims = Claims { exp: 9_999_999_999, ..Claims::of_agent("a-1") };
        let other = EncodingKey::from_secret(b"another secret of enough length....");
        let sign = |header: &Header, key: &EncodingKey| jsonwebtoken::encode(header, &claims, key).unwrap();
        let ours = EncodingKey::from_secret(b"0123456789abcdef0123456789abcdef");
        let refused = |token: &str| tokens.verify(token, 1000).unwrap_err();
        assert_eq!(refused(&sign(&Header::default(), &other)), TokenError::Signature);
        assert_eq!(refused(&sign(&Header::new(Algorithm::HS512), &ours)), TokenError::Algorithm);
        let kid = Header { kid: Some("1".into()), ..Header::default() };
        assert_eq!(refused(&sign(&kid, &ours)), TokenError::Algorithm);
        let good = sign(&Header::default(), &ours);
        let (_, body) = good.split_once('.').unwrap();
        assert_eq!(refused(&format!("eyJhbGciOiJub25lIn0.{body}")), TokenError::Algorithm);
        assert_eq!(refused("garbage"), TokenError::Shape);
        assert!(tokens.verify(&good, 1000).is_ok());
    }
}
