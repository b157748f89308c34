//! Sessions of administrators (REG-134 to REG-136): a login is good from the client that made it, until it is over or logged
//! out. No clock and no IO: time is an argument, and what is to be kept is handed back.

use std::collections::HashMap;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::tokens::TokenHash;

/// One login.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Session {
    /// Names it where it is kept.
    pub id: String,
    /// Whose.
    pub user: String,
    /// The SHA-256 of the client's fingerprint.
    pub fingerprint: [u8; 32],
    /// Hashes of its tokens: the newest, then the one before, which requests under way may still carry.
    pub tokens: Vec<TokenHash>,
    /// When it began; a number that only orders.
    pub begun: i64,
    /// When it ends, in seconds since 1970.
    pub expires: i64,
    /// The argon2 hash of its PIN, once one is set.
    pub pin: Option<String>,
}

/// Why a session does not open the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionError {
    /// There is none for this token and client.
    Invalid,
    /// It is over.
    Expired,
}

/// The SHA-256 of a fingerprint.
pub fn fingerprint_hash(fingerprint: &str) -> [u8; 32] {
    Sha256::digest(fingerprint.as_bytes()).into()
}

/// All sessions.
#[derive(Debug, Default)]
pub struct Sessions {
    by_id: HashMap<String, Session>,
    by_token: HashMap<TokenHash, String>,
    most_per_user: usize,
    begun: i64,
}

impl Sessions {
    /// At most so many per user.
    pub fn new(most_per_user: usize) -> Sessions {
        Sessions { most_per_user: most_per_user.max(1), ..Sessions::default() }
    }

    /// Takes one back that was kept.
    pub fn restore(&mut self, session: Session) {
        self.begun = self.begun.max(session.begun);
        for token in &session.tokens {
            self.by_token.insert(*token, session.id.clone());
        }
        self.by_id.insert(session.id.clone(), session);
    }

    /// Begins one; the user's oldest end when there are too many. The session to keep, and ids of those to forget.
    pub fn begin(
        &mut self,
        id: String,
        user: &str,
        fingerprint: &str,
        token: TokenHash,
        now: i64,
        expires: i64,
    ) -> (Session, Vec<String>) {
        let mut gone = self.expire(now);
        let mut theirs: Vec<(i64, String)> = self
            .by_id
            .values()
            .filter(|session| session.user == user)
            .map(|session| (session.begun, session.id.clone()))
            .collect();
        theirs.sort();
        let too_many = (theirs.len() + 1).saturating_sub(self.most_per_user);
        for (_, id) in theirs.drain(..too_many) {
            self.remove(&id);
            gone.push(id);
        }
        self.begun += 1;
        let session = Session {
            id,
            user: user.to_owned(),
            fingerprint: fingerprint_hash(fingerprint),
            tokens: vec![token],
            begun: self.begun,
            expires,
            pin: None,
        };
        self.restore(session.clone());
        (session, gone)
    }

    /// The session of this token, asked for by this client.
    ///
    /// # Errors
    /// When there is none, or it is over.
    pub fn check(&self, token: &TokenHash, fingerprint: Option<&str>, now: i64) -> Result<&Session, SessionError> {
        let session = self.by_token.get(token).and_then(|id| self.by_id.get(id)).ok_or(SessionError::Invalid)?;
        let fingerprint = fingerprint.ok_or(SessionError::Invalid)?;
        if !bool::from(fingerprint_hash(fingerprint).ct_eq(&session.fingerprint)) {
            return Err(SessionError::Invalid);
        }
        if session.expires <= now {
            return Err(SessionError::Expired);
        }
        Ok(session)
    }

    /// The session of this token, whoever asks.
    pub fn find(&self, token: &TokenHash, now: i64) -> Option<&Session> {
        self.by_token.get(token).and_then(|id| self.by_id.get(id)).filter(|session| session.expires > now)
    }

    /// Gives the session of one token another one; it stays the same session. The session to keep.
    pub fn renew(&mut self, old: &TokenHash, new: TokenHash, expires: i64) -> Option<Session> {
        let id = self.by_token.get(old)?.clone();
        let session = self.by_id.get_mut(&id)?;
        session.tokens.retain(|token| token == old);
        session.tokens.insert(0, new);
        session.expires = expires;
        let session = session.clone();
        self.by_token.retain(|token, of| *of != id || session.tokens.contains(token));
        self.by_token.insert(new, id);
        Some(session)
    }

    /// Sets the PIN's hash, if none is set. The session to keep.
    pub fn set_pin(&mut self, id: &str, hash: String) -> Option<Session> {
        let session = self.by_id.get_mut(id).filter(|session| session.pin.is_none())?;
        session.pin = Some(hash);
        Some(session.clone())
    }

    /// Ends one.
    pub fn remove(&mut self, id: &str) -> bool {
        let Some(session) = self.by_id.remove(id) else { return false };
        for token in &session.tokens {
            self.by_token.remove(token);
        }
        true
    }

    /// Ends those that are over; their ids.
    pub fn expire(&mut self, now: i64) -> Vec<String> {
        let over: Vec<String> =
            self.by_id.values().filter(|session| session.expires <= now).map(|session| session.id.clone()).collect();
        for id in &over {
            self.remove(id);
        }
        over
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(sessions: &mut Sessions, id: &str, user: &str, token: u8) -> Vec<String> {
        sessions.begin(id.into(), user, "fp", [token; 32], 0, 100).1
    }

    /// Rules: REG-134
    #[test]
    fn a_session_is_for_its_client_until_it_is_over() {
        let mut sessions = Sessions::new(5);
        begin(&mut sessions, "s1", "ann", 1);
        assert!(sessions.check(&[1; 32], Some("fp"), 99).is_ok());
        assert_eq!(sessions.check(&[1; 32], Some("other"), 0).unwrap_err(), SessionError::Invalid);
        assert_eq!(sessions.check(&[1; 32], None, 0).unwrap_err(), SessionError::Invalid);
        assert_eq!(sessions.check(&[2; 32], Some("fp"), 0).unwrap_err(), SessionError::Invalid);
        assert_eq!(sessions.check(&[1; 32], Some("fp"), 100).unwrap_err(), SessionError::Expired);
        assert_eq!(sessions.expire(100), ["s1"]);
        assert!(sessions.is_empty());
    }

    /// Rules: REG-134
    #[test]
    fn only_the_newest_of_a_user_remain() {
        let mut sessions = Sessions::new(2);
        assert!(begin(&mut sessions, "s1", "ann", 1).is_empty());
        assert!(begin(&mut sessions, "s2", "ben", 2).is_empty());
        assert!(begin(&mut sessions, "s3", "ann", 3).is_empty());
        assert_eq!(begin(&mut sessions, "s4", "ann", 4), ["s1"]);
        assert!(sessions.check(&[1; 32], Some("fp"), 0).is_err() && sessions.check(&[2; 32], Some("fp"), 0).is_ok());
    }

    /// Rules: REG-163
    #[test]
    fn a_renewed_session_takes_its_last_two_tokens_and_keeps_its_pin() {
        let mut sessions = Sessions::new(2);
        begin(&mut sessions, "s1", "ann", 1);
        sessions.set_pin("s1", "hash".into()).unwrap();
        assert!(sessions.set_pin("s1", "other".into()).is_none());
        sessions.renew(&[1; 32], [2; 32], 200).unwrap();
        sessions.renew(&[2; 32], [3; 32], 300).unwrap();
        assert!(sessions.check(&[1; 32], Some("fp"), 0).is_err());
        assert!(sessions.check(&[2; 32], Some("fp"), 0).is_ok());
        assert_eq!(sessions.check(&[3; 32], Some("fp"), 250).unwrap().pin.as_deref(), Some("hash"));
        assert!(sessions.remove("s1") && sessions.check(&[3; 32], Some("fp"), 0).is_err());
    }
}
