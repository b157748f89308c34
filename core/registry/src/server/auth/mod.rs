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

use arcp_store::registry::{KeptSession, RegistryKept, RegistryOp};
use parking_lot::{Mutex, RwLock};
use subtle::ConstantTimeEq;

pub use addresses::AddressFilter;
pub use lockout::{Attempt, Blocked, Lockout};
pub use passwords::{Busy, Passwords, hash_now as hash_password};
pub use sessions::{Session, SessionError, Sessions};
pub use tokens::{Claims, Role, TEMPORARY_LIFE, TokenError, TokenHash, Tokens, Verified, key_hash, token_hash};

use super::config::{Admin, Config, Secret};
use crate::service::Service;

/// So long a verified PIN holds for the commands of a socket.
const PIN_HOLDS: Duration = Duration::from_secs(60);
/// Counters of failures that are kept.
const LOCKOUT_CAPACITY: usize = 65_536;
/// The name under which the store keeps the list of agent keys, as JSON [`KeptKey`]s.
pub const KEYS_SETTING: &str = "agent_keys";
/// The name under which the store keeps what tokens are signed with.
pub const SIGNING_SECRET: &str = "jwt";
/// The name under which the store keeps the hash of the settings' password, after the user's name and a line's end.
const SETTINGS_ADMIN: &str = "settings_admin";

/// Whether a socket may do what is guarded (REG-408).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// It may.
    Open,
    /// The session's PIN is to be verified first.
    PinDue,
    /// Its token has no session.
    NoSession,
}

/// An agent key as the store keeps it: never the key.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct KeptKey {
    /// The SHA-256 of the key, in hexadecimal.
    pub hash: String,
    /// What its maker calls it.
    #[serde(default)]
    pub note: String,
    /// When it was made, in seconds since 1970.
    #[serde(default)]
    pub made: i64,
}

/// The agent keys a store kept.
pub fn kept_keys(settings: &[(String, String)]) -> Vec<KeptKey> {
    let list = settings.iter().find(|(name, _)| name == KEYS_SETTING);
    list.and_then(|(_, json)| serde_json::from_str(json).ok()).unwrap_or_default()
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
    /// When sessions' PINs were last right.
    pins: Mutex<HashMap<String, Instant>>,
    service: Service,
    began: Instant,
    /// Life of an agent's token.
    pub agent_life: Duration,
    /// Life of an administrator's token and session.
    pub session_life: Duration,
}

impl Auth {
    /// As the settings say, with what the store kept. Blocks for tens of milliseconds.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn new(config: &Config, service: &Service, kept: &RegistryKept) -> Result<Auth, String> {
        let mut users: HashMap<String, Arc<str>> = kept
            .users
            .iter()
            .filter(|user| user.role == "admin")
            .map(|user| (user.name.clone(), user.password_hash.as_str().into()))
            .collect();
        let mut keys: Vec<[u8; 32]> = config.agent_keys.iter().map(|key| token_hash(key.reveal())).collect();
        keys.extend(kept_keys(&kept.settings).iter().filter_map(|key| from_hex(&key.hash)));
        let secret = signing_secret(config, service, kept)?;
        let mut new_password = None;
        if let Some(admin) = &config.admin {
            let (hash, put) = settings_admin(admin, kept)?;
            users.insert(admin.username.clone(), hash);
            new_password = put;
        }
        let sessions = restored(config, &users, new_password, service, kept)?;
        Ok(Auth {
            tokens: Tokens::new(&secret, &config.jwt_algorithm),
            passwords: Passwords::new()?,
            sessions: Mutex::new(sessions),
            lockout: Mutex::new(Lockout::new(config.rate_limit_burst, config.rate_limit_rpm, LOCKOUT_CAPACITY)),
            users: RwLock::new(users),
            keys: RwLock::new(keys),
            pins: Mutex::default(),
            service: service.clone(),
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

    /// A token for an agent that registered, with the hash of the key it came with.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn agent_token(&self, agent_id: &str, key_hash: Option<&str>) -> Result<String, TokenError> {
        let claims = Claims { agent_key_hash: key_hash.map(str::to_owned), ..Claims::of_agent(agent_id) };
        self.tokens.issue(&claims, Auth::now(), self.agent_life)
    }

    /// Begins a session and gives its token; the password was right.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn begin_session(&self, user: &str, fingerprint: &str) -> Result<String, TokenError> {
        let now = Auth::now();
        let id = session_id();
        let expires = now.saturating_add(i64::try_from(self.session_life.as_secs()).unwrap_or(i64::MAX));
        let mut sessions = self.sessions.lock();
        let token = self.token_of_its_own(&sessions, &Claims::of_admin(user), now)?;
        let (session, gone) = sessions.begin(id, user, fingerprint, token_hash(&token), now, expires);
        drop(sessions);
        self.keep_session(&session);
        self.forget_sessions(&gone);
        Ok(token)
    }

    /// A token that no session has: two of one second would be the same text, so a later one counts from the next second.
    fn token_of_its_own(&self, sessions: &Sessions, claims: &Claims, now: i64) -> Result<String, TokenError> {
        let mut at = now;
        loop {
            let token = self.tokens.issue(claims, at, self.session_life)?;
            if sessions.find(&token_hash(&token), now).is_none() {
                return Ok(token);
            }
            at = at.saturating_add(1);
        }
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

    /// Notes that a session's PIN was right just now.
    pub fn pin_was_right(&self, id: &str) {
        let mut pins = self.pins.lock();
        pins.retain(|_, at| at.elapsed() < PIN_HOLDS);
        pins.insert(id.to_owned(), Instant::now());
    }

    /// Whether a socket with this token may do what pages ask a PIN for: its session has none, or it was verified within the
    /// last minute, since commands of sockets carry none (REG-408). A token whose session is over, or that never had one,
    /// may not: logging out would be the way around the PIN.
    pub fn guard(&self, token: &TokenHash) -> Guard {
        let Some(session) = self.session_of(token) else { return Guard::NoSession };
        if session.pin.is_none() {
            return Guard::Open;
        }
        match self.pins.lock().get(&session.id) {
            Some(at) if at.elapsed() < PIN_HOLDS => Guard::Open,
            _ => Guard::PinDue,
        }
    }

    /// Gives a session another token.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn renew_session(&self, verified: &Verified) -> Result<String, TokenError> {
        let now = Auth::now();
        let expires = now.saturating_add(i64::try_from(self.session_life.as_secs()).unwrap_or(i64::MAX));
        let mut sessions = self.sessions.lock();
        let token = self.token_of_its_own(&sessions, &verified.claims, now)?;
        let session = sessions.renew(&verified.hash, token_hash(&token), expires);
        drop(sessions);
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
        let Ok(data) = serde_json::to_string(session) else { return };
        let expires_at = session.expires.saturating_mul(1_000_000);
        let kept = KeptSession { id: session.id.clone(), data, expires_at };
        // A session that is not kept is still good until the server stops.
        drop(self.service.keep(vec![RegistryOp::PutSession(kept)]));
    }

    fn forget_sessions(&self, ids: &[String]) {
        if !ids.is_empty() {
            let ops = ids.iter().map(|id| RegistryOp::RemoveSession { id: id.clone() }).collect();
            drop(self.service.keep(ops));
        }
    }
}

/// The hash of the settings' password; and what is to be kept of it, when it is another user or password than before.
fn settings_admin(admin: &Admin, kept: &RegistryKept) -> Result<(Arc<str>, Option<RegistryOp>), String> {
    let (name, password) = (admin.username.as_str(), admin.password.reveal());
    let old = kept.secrets.iter().find(|secret| secret.name == SETTINGS_ADMIN);
    let old = old.and_then(|secret| std::str::from_utf8(&secret.value).ok()?.strip_prefix(name)?.strip_prefix('\n'));
    if let Some(hash) = old.filter(|hash| passwords::verify_now(password, hash)) {
        return Ok((hash.into(), None));
    }
    let hash = hash_password(password)?;
    let value = format!("{name}\n{hash}").into_bytes();
    Ok((hash.into(), Some(RegistryOp::PutSecret { name: SETTINGS_ADMIN.into(), value })))
}

/// The sessions that go on. Those of a user who is gone are over, and those of the settings' user under another password
/// than before: whoever knew the old one is out, as after `arcp registry user passwd`.
fn restored(
    config: &Config,
    users: &HashMap<String, Arc<str>>,
    new_password: Option<RegistryOp>,
    service: &Service,
    kept: &RegistryKept,
) -> Result<Sessions, String> {
    let mut sessions = Sessions::new(config.max_sessions);
    let renewed = config.admin.as_ref().filter(|_| new_password.is_some()).map(|admin| admin.username.as_str());
    let mut ops: Vec<RegistryOp> = new_password.into_iter().collect();
    for session in kept.sessions.iter().filter_map(|session| serde_json::from_str::<Session>(&session.data).ok()) {
        if users.contains_key(&session.user) && renewed != Some(session.user.as_str()) {
            sessions.restore(session);
        } else {
            ops.push(RegistryOp::RemoveSession { id: session.id });
        }
    }
    service
        .keep(ops)
        .wait()
        .map_err(|error| format!("what the administrators' sessions need cannot be kept: {error}"))?;
    Ok(sessions)
}

/// The one of the settings, the one that was kept, or a new one that is kept from now on.
fn signing_secret(config: &Config, service: &Service, kept: &RegistryKept) -> Result<Secret, String> {
    if let Some(secret) = &config.jwt_secret {
        return Ok(secret.clone());
    }
    let old = kept.secrets.iter().find(|secret| secret.name == SIGNING_SECRET);
    if let Some(text) = old.and_then(|secret| String::from_utf8(secret.value.clone()).ok()) {
        return Ok(Secret::new(text));
    }
    let secret = Secret::random()?;
    let value = secret.reveal().as_bytes().to_vec();
    let put = service.keep(vec![RegistryOp::PutSecret { name: SIGNING_SECRET.into(), value }]);
    put.wait().map_err(|error| format!("the secret that signs tokens cannot be kept: {error}"))?;
    Ok(secret)
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
