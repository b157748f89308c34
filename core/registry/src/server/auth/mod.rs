//! Who may do what: tokens, sessions, passwords, keys, waits after failures.

pub mod addresses;
pub mod lockout;
pub mod passwords;
pub mod sessions;
pub mod tokens;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use subtle::ConstantTimeEq;

pub use addresses::AddressFilter;
pub use lockout::{Attempt, Blocked, Lockout};
pub use passwords::{Busy, Passwords, hash_now as hash_password};
pub use sessions::{Session, SessionError, Sessions};
pub use tokens::{Claims, Role, TEMPORARY_LIFE, TokenError, TokenHash, Tokens, Verified, key_hash, token_hash};

use super::config::{Config, Secret};

/// Counters of failures that are kept.
const LOCKOUT_CAPACITY: usize = 65_536;
/// What outlives the process of who may do what. Values are hashes and never secrets.
pub trait Ledger: Send + Sync + 'static {
    /// Keeps a value under a kind and a name, soon.
    fn put(&self, kind: LedgerKind, name: &str, value: Vec<u8>);
    /// Forgets one, soon.
    fn delete(&self, kind: LedgerKind, name: &str);
    /// Everything kept of a kind.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn load(&self, kind: LedgerKind) -> Result<Vec<(String, Vec<u8>)>, String>;
}

/// What a [`Ledger`] keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LedgerKind {
    /// A [`Session`] as JSON, by its id.
    Session,
    /// The argon2 hash of a password, by the user's name.
    User,
    /// A note, by the SHA-256 of an agent key in hexadecimal.
    Key,
}

/// All of it.
pub struct Auth {
    /// Signs and checks tokens.
    pub tokens: Tokens,
    /// Hashes and checks passwords and PINs.
    pub passwords: Passwords,
    sessions: Mutex<Sessions>,
    lockout: Mutex<Lockout>,
    /// Name and hash of users, from the settings and the database.
    users: RwLock<HashMap<String, Arc<str>>>,
    /// SHA-256 of every agent key.
    keys: RwLock<Vec<[u8; 32]>>,
    ledger: Option<Arc<dyn Ledger>>,
    began: Instant,
    /// Life of an agent's token.
    pub agent_life: Duration,
    /// Life of an administrator's token and session.
    pub session_life: Duration,
}

impl Auth {
    /// As the settings say, with what the ledger kept. Blocks for tens of milliseconds.
    ///
    /// # Errors
    /// When there is no randomness, or the ledger cannot be read.
    pub fn new(config: &Config, secret: &Secret, ledger: Option<Arc<dyn Ledger>>) -> Result<Auth, String> {
        let mut sessions = Sessions::new(config.max_sessions);
        let mut users = HashMap::new();
        let mut keys: Vec<[u8; 32]> = config.agent_keys.iter().map(|key| token_hash(key.reveal())).collect();
        if let Some(ledger) = &ledger {
            for (_, value) in ledger.load(LedgerKind::Session)? {
                if let Ok(session) = serde_json::from_slice::<Session>(&value) {
                    sessions.restore(session);
                }
            }
            for (name, hash) in ledger.load(LedgerKind::User)? {
                users.insert(name, String::from_utf8_lossy(&hash).into());
            }
            for (hash, _) in ledger.load(LedgerKind::Key)? {
                keys.extend(from_hex(&hash));
            }
        }
        if let Some(admin) = &config.admin {
            users.insert(admin.username.clone(), hash_password(admin.password.reveal())?.into());
        }
        Ok(Auth {
            tokens: Tokens::new(secret, &config.jwt_algorithm),
            passwords: Passwords::new()?,
            sessions: Mutex::new(sessions),
            lockout: Mutex::new(Lockout::new(config.rate_limit_burst, config.rate_limit_rpm, LOCKOUT_CAPACITY)),
            users: RwLock::new(users),
            keys: RwLock::new(keys),
            ledger,
            began: Instant::now(),
            agent_life: config.agent_token_life,
            session_life: config.session_life,
        })
    }

    /// Seconds since 1970.
    pub fn now() -> i64 {
        jiff::Timestamp::now().as_second()
    }

    /// Whether anybody can log in.
    pub fn has_users(&self) -> bool {
        !self.users.read().is_empty()
    }

    /// Whether any agent can ask for a token.
    pub fn has_keys(&self) -> bool {
        !self.keys.read().is_empty()
    }

    /// The password hash of a user.
    pub fn user(&self, name: &str) -> Option<Arc<str>> {
        self.users.read().get(name).cloned()
    }

    /// Whether this is an agent key, in a time that does not tell how near it came.
    pub fn is_agent_key(&self, key: &str) -> bool {
        let hash = token_hash(key);
        self.keys.read().iter().fold(false, |found, known| found | bool::from(known.ct_eq(&hash)))
    }

    /// What a token says, if it is ours and not over.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn verify(&self, token: &str) -> Result<Arc<Verified>, TokenError> {
        self.tokens.verify(token, Auth::now())
    }

    /// Whether the attempt may be made.
    ///
    /// # Errors
    /// For how long it must wait.
    pub fn check(&self, attempt: Attempt, account: &str, address: IpAddr) -> Result<(), Blocked> {
        self.lockout.lock().check(attempt, account, address, self.began.elapsed())
    }

    /// Counts a wrong credential.
    pub fn failed(&self, attempt: Attempt, account: &str, address: IpAddr) {
        self.lockout.lock().failure(attempt, account, address, self.began.elapsed());
    }

    /// Clears the count of an account from an address.
    pub fn passed(&self, attempt: Attempt, account: &str, address: IpAddr) {
        self.lockout.lock().success(attempt, account, address);
    }

    /// A token for an agent.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn agent_token(&self, agent_id: &str) -> Result<String, TokenError> {
        self.tokens.issue(&Claims::of_agent(agent_id), Auth::now(), self.agent_life)
    }

    /// Begins a session and gives its token; the password was right.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn begin_session(&self, user: &str, fingerprint: &str) -> Result<String, TokenError> {
        let now = Auth::now();
        let token = self.tokens.issue(&Claims::of_admin(user), now, self.session_life)?;
        let id = session_id();
        let expires = now.saturating_add(i64::try_from(self.session_life.as_secs()).unwrap_or(i64::MAX));
        let (session, gone) = self.sessions.lock().begin(id, user, fingerprint, token_hash(&token), now, expires);
        self.keep_session(&session);
        self.forget_sessions(&gone);
        Ok(token)
    }

    /// The session of a token, for this client.
    ///
    /// # Errors
    /// When there is none, or it is over.
    pub fn session(&self, token: &TokenHash, fingerprint: Option<&str>) -> Result<Session, SessionError> {
        self.sessions.lock().check(token, fingerprint, Auth::now()).cloned()
    }

    /// Whether the session of a token opens the door for this client; cheaper than [`Auth::session`].
    ///
    /// # Errors
    /// When there is none, or it is over.
    pub fn check_session(&self, token: &TokenHash, fingerprint: Option<&str>) -> Result<(), SessionError> {
        self.sessions.lock().check(token, fingerprint, Auth::now()).map(|_| ())
    }

    /// The session of a token, whoever asks: for sockets, which tell no fingerprint (REG-134).
    pub fn session_of(&self, token: &TokenHash) -> Option<Session> {
        self.sessions.lock().find(token, Auth::now()).cloned()
    }

    /// Gives a session another token.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn renew_session(&self, verified: &Verified) -> Result<String, TokenError> {
        let now = Auth::now();
        let token = self.tokens.issue(&verified.claims, now, self.session_life)?;
        let expires = now.saturating_add(i64::try_from(self.session_life.as_secs()).unwrap_or(i64::MAX));
        let session = self.sessions.lock().renew(&verified.hash, token_hash(&token), expires);
        if let Some(session) = session {
            self.keep_session(&session);
        }
        Ok(token)
    }

    /// Ends a session.
    pub fn end_session(&self, id: &str) {
        if self.sessions.lock().remove(id) {
            self.forget_sessions(&[id.to_owned()]);
        }
    }

    /// Sets a session's PIN, as a hash; false when one is set already.
    pub fn set_pin(&self, id: &str, hash: String) -> bool {
        let session = self.sessions.lock().set_pin(id, hash);
        session.inspect(|session| self.keep_session(session)).is_some()
    }

    /// Ends sessions that are over; called now and then.
    pub fn tidy(&self) {
        let gone = self.sessions.lock().expire(Auth::now());
        self.forget_sessions(&gone);
    }

    fn keep_session(&self, session: &Session) {
        if let (Some(ledger), Ok(value)) = (&self.ledger, serde_json::to_vec(session)) {
            ledger.put(LedgerKind::Session, &session.id, value);
        }
    }

    fn forget_sessions(&self, ids: &[String]) {
        if let Some(ledger) = &self.ledger {
            ids.iter().for_each(|id| ledger.delete(LedgerKind::Session, id));
        }
    }
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth").field("sessions", &self.sessions.lock().len()).finish_non_exhaustive()
    }
}

fn session_id() -> String {
    // It names a record and opens nothing, so any unique text will do.
    format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..))
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).ok()?;
    }
    Some(hash)
}
