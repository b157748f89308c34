//! How a session is opened, taken up again, lost and forgotten.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::connections::{Conn, ConnState, PendingHello};
use super::storage::Gated;
use super::{ConnKey, RuntimeEvent, RuntimeMachine, SessionKey, Timer, details};
use crate::error::{Error, ErrorCode};
use crate::feature::{Feature, FeatureSet};
use crate::id::IdGenerator;
use crate::machine::audit::{Actor, AuditEntry, ResumeRefusal, SessionEnd};
use crate::machine::frame::{Frame, SessionName, WireProfile};
use crate::machine::heartbeat::Heartbeat;
use crate::machine::kept::{ResumedBy, StoreOp, TokenHash};
use crate::machine::session::{Identity, Session};
use crate::message::{Hello, Resume, RuntimeCapabilities, Welcome, kind};
use crate::time::Now;

/// A welcome that waits to be stored, so that its token still works after a restart.
#[derive(Debug)]
pub(super) struct Welcoming {
    conn: ConnKey,
    session: SessionKey,
    welcome: Welcome,
    /// Where the replay begins; `None` for a new session.
    replay_after: Option<u64>,
}

/// The hash under which a secret is kept and compared.
pub(super) fn hash(secret: &str) -> TokenHash {
    Sha256::digest(secret.as_bytes()).into()
}

impl RuntimeMachine {
    /// The verifier's answer: whose the token is, or the error to send (R-6.1.9 leaves the code to the verifier's host).
    pub fn handle_verified(&mut self, now: Now, conn: ConnKey, verdict: Result<Identity, Error>) {
        let Some(entry) = self.conns.get_mut(&conn) else { return };
        if !matches!(entry.state, ConnState::Verifying(_)) {
            // Too late: the connection was closed meanwhile.
            return;
        }
        let ConnState::Verifying(pending) = std::mem::replace(&mut entry.state, ConnState::AwaitHello) else { return };
        let admitted = verdict.and_then(|identity| self.admit(now, conn, &pending, identity));
        if let Err(error) = admitted {
            self.answer_error(now, conn, error, Some(pending.id));
            self.close_conn(now, conn);
        }
    }

    fn admit(&mut self, now: Now, conn: ConnKey, pending: &PendingHello, identity: Identity) -> Result<(), Error> {
        let principal: Arc<str> = identity.principal.into();
        if self.shutting_down {
            return Err(Error::internal("the runtime is shutting down; connect again later"));
        }
        self.check_store()?;
        let (key, replay_after) = match &pending.hello.resume {
            None => (None, None),
            Some(resume) => {
                let found = self.find_resumable(&pending.id, resume, &principal);
                let actor = Actor { principal: &principal, session_id: &resume.session_id };
                self.audit(match found {
                    Ok(_) => AuditEntry::resumed(now.wall, actor),
                    Err(why) => AuditEntry::resume_refused(now.wall, actor, why),
                });
                // Nothing has changed.
                let key = found.map_err(|_| not_resumable())?;
                (Some(key), Some(resume.last_event_seq))
            }
        };
        // The connection that a resume takes over no longer counts.
        let taken_over = key.and_then(|key| self.sessions.get(&key)).and_then(|session| session.conn);
        let cap = self.config.max_sessions_per_principal;
        let connected = self.session_counts.get(&principal).copied().unwrap_or(0);
        if connected >= cap && taken_over.is_none() {
            let message = format!("this principal has {cap} connected sessions; close one first");
            return Err(Error::internal(message).with_details(details("cap", "sessions_per_principal")));
        }
        if let Some(old) = taken_over {
            self.cut(now, old);
        }
        *self.session_counts.entry(Arc::clone(&principal)).or_default() += 1;
        let features = self.negotiate(conn, &pending.hello);
        let token = self.ids.resume_token();
        let key = match key {
            Some(key) => {
                self.take_up(key, pending, features, &token);
                key
            }
            None => self.open_session(now, pending, principal, features, &token),
        };
        if let Some(session) = self.sessions.get_mut(&key) {
            // A token shown at a resume may allow more or less than the one before.
            session.scopes = identity.scopes.into();
            session.accepted_at = now.wall;
        }
        if let Some(entry) = self.conns.get_mut(&conn) {
            entry.state = ConnState::Welcoming(key);
        }
        if let Some(session) = self.sessions.get(&key) {
            let welcome = self.describe(now, session, token);
            let kept = self.config.durable.then(|| StoreOp::SaveSession(Box::new(session.kept())));
            self.storage.extend(kept);
            self.gate(now, Gated::Welcome(Box::new(Welcoming { conn, session: key, welcome, replay_after })));
        }
        Ok(())
    }

    fn find_resumable(&self, hello_id: &str, resume: &Resume, principal: &str) -> Result<SessionKey, ResumeRefusal> {
        let shown = hash(&resume.resume_token);
        let key = self.sessions_by_id.get(&*resume.session_id).ok_or(ResumeRefusal::UnknownSession)?;
        let session = self.sessions.get(key).ok_or(ResumeRefusal::UnknownSession)?;
        if *session.principal != *principal {
            return Err(ResumeRefusal::WrongPrincipal);
        }
        let in_force = bool::from(session.token.ct_eq(&shown));
        // The very request that brought the token in force may be asked again: its welcome was lost on the way (D-17).
        let again = session
            .resumed_by
            .as_ref()
            .is_some_and(|resumed| resumed.hello_id == hello_id && bool::from(resumed.token.ct_eq(&shown)));
        if !in_force && !again {
            return Err(ResumeRefusal::WrongToken);
        }
        if !session.log.covers(resume.last_event_seq) {
            return Err(ResumeRefusal::NotCovered);
        }
        Ok(*key)
    }

    fn negotiate(&self, conn: ConnKey, hello: &Hello) -> FeatureSet {
        let mut offered = self.config.features.clone();
        if self.config.heartbeat_interval.is_none() {
            offered.retain(|name| name != Feature::Heartbeat.as_str());
        }
        if !self.offers_credentials(conn) {
            offered.retain(|name| name != Feature::ProvisionedCredentials.as_str());
        }
        FeatureSet::negotiate(&hello.capabilities.features, &offered)
    }

    /// Features are negotiated anew, the token is replaced; all else stays.
    fn take_up(&mut self, key: SessionKey, pending: &PendingHello, features: FeatureSet, token: &str) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        session.features = features;
        let shown = pending.hello.resume.as_ref().map(|resume| hash(&resume.resume_token));
        session.resumed_by = shown.map(|token| ResumedBy { hello_id: pending.id.clone(), token });
        session.token = hash(token);
    }

    fn open_session(
        &mut self,
        now: Now,
        pending: &PendingHello,
        principal: Arc<str>,
        features: FeatureSet,
        token: &str,
    ) -> SessionKey {
        let seed = message_id_seed(&mut self.ids);
        let id: Arc<str> = self.ids.session_id(now.wall).into();
        let name = SessionName { id: Arc::clone(&id), seed, profile: self.profile_for(pending) };
        let key = SessionKey(self.fresh_key());
        self.sessions.insert(key, Session::new(name, principal, features, hash(token)));
        self.sessions_by_id.insert(id, key);
        key
    }

    fn describe(&self, now: Now, session: &Session, resume_token: String) -> Welcome {
        let heartbeat = self.config.heartbeat_interval.filter(|_| session.features.has(Feature::Heartbeat));
        Welcome {
            session_id: session.id().to_string(),
            runtime: self.config.info.clone(),
            resume_token,
            resume_window_sec: self.config.resume_window.as_secs().max(1),
            heartbeat_interval_sec: heartbeat.map(|interval| interval.as_secs().max(1)),
            capabilities: RuntimeCapabilities {
                encodings: vec!["json".into()],
                features: session.features.names().to_vec(),
                agents: self.agents.inventory(),
            },
            accepted_at: Some(now.wall),
        }
    }

    /// The welcome leaves, the replay follows it, and live messages follow that.
    pub(super) fn welcome(&mut self, now: Now, welcoming: Welcoming) {
        let Welcoming { conn, session: key, welcome, replay_after } = welcoming;
        let waits = |state: &ConnState| matches!(state, ConnState::Welcoming(waiting) if *waiting == key);
        if !self.conns.get(&conn).is_some_and(|entry| waits(&entry.state)) {
            return;
        }
        if let Some(session) = self.sessions.get(&key)
            && replay_after.is_some_and(|last| !session.log.covers(last))
        {
            // While this welcome waited for the store, events made room for newer ones.
            let hello_id = session.resumed_by.as_ref().map(|resumed| resumed.hello_id.clone());
            self.answer_error(now, conn, not_resumable(), hello_id);
            return self.close_conn(now, conn);
        }
        if let Some(earlier) = self.sessions.get(&key).and_then(|session| session.conn) {
            // The same resume was asked for twice, and both waited for the store.
            self.cut(now, earlier);
        }
        let Some(entry) = self.conns.get_mut(&conn) else { return };
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let heartbeat = self.config.heartbeat_interval.filter(|_| session.features.has(Feature::Heartbeat));
        entry.open(key, heartbeat.map(|interval| Heartbeat::new(interval, now.mono)));
        if let Some(heartbeat) = &entry.heartbeat {
            self.timers.set(Timer::Heartbeat(conn), heartbeat.first_check());
        }
        entry.replaying = replay_after.is_some();
        session.conn = Some(conn);
        session.detached_at = None;
        let detached_since = session.detached_since.take();
        let mut replay = std::mem::take(&mut session.untold);
        let mut unsure = std::mem::take(&mut session.unsure);
        if let Some(last) = replay_after.filter(|_| !unsure.is_empty()) {
            // Whoever has an event of a job was told of the job before.
            for copied in session.log.through_number(last) {
                unsure.remove(&copied.record.job_id);
            }
        }
        for (event_seq, copied) in replay_after.into_iter().flat_map(|last| session.log.after_number(last)) {
            replay.extend(copied.take_opening(&mut unsure));
            replay.push(session.frame(event_seq, copied));
        }
        self.timers.clear(Timer::Handshake(conn));
        self.timers.clear(Timer::SessionWindow(key));
        self.watch_idleness(now, conn);
        if let Some(since) = detached_since {
            self.detached.remove(&(since, key));
        }
        self.answer(now, conn, kind::SESSION_WELCOME, None, None, &welcome);
        for frame in replay {
            self.push(now, conn, frame);
        }
    }

    fn profile_for(&self, pending: &PendingHello) -> WireProfile {
        use super::ProfileChoice;
        match self.config.profile {
            ProfileChoice::Draft => WireProfile::Draft,
            ProfileChoice::Py11 => WireProfile::Py11,
            ProfileChoice::Auto if pending.bare_ulid && pending.hello.empty_agents_list => WireProfile::Py11,
            ProfileChoice::Auto => WireProfile::Draft,
        }
    }

    // ---- loss and end ------------------------------------------------------------------------------------------

    /// A session lost its connection; it can be resumed until its window is over.
    /// `untold` are the acceptances the connection had not taken.
    pub(super) fn detach(&mut self, now: Now, key: SessionKey, conn: ConnKey, untold: Vec<Frame>) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        if session.conn != Some(conn) {
            return;
        }
        session.conn = None;
        session.untold.extend(untold);
        session.detached_at = Some(now.wall);
        session.detached_since = Some(now.mono);
        let kept = self.config.durable.then(|| StoreOp::SaveSession(Box::new(session.kept())));
        let principal = Arc::clone(&session.principal);
        self.storage.extend(kept);
        self.uncount(&principal);
        self.timers.set(Timer::SessionWindow(key), now.mono + self.config.resume_window);
        self.detached.insert((now.mono, key));
        self.events.push_back(RuntimeEvent::Drained(key));
        while self.detached.len() > self.config.max_detached_sessions
            && let Some((_, oldest)) = self.detached.first().copied()
        {
            self.audit_session_end(now, oldest, SessionEnd::Evicted);
            self.expire_session(oldest);
        }
    }

    /// Another connection has taken over: what waits for this one goes the other way.
    fn cut(&mut self, now: Now, conn: ConnKey) {
        let untold = self.conns.get_mut(&conn).map(Conn::drop_waiting).unwrap_or_default();
        if let Some(session) = self.session_of(conn).map(|(key, _)| key).and_then(|key| self.sessions.get_mut(&key)) {
            session.untold.extend(untold);
        }
        self.close_conn(now, conn);
    }

    /// A connection ended between its hello and its welcome.
    pub(super) fn abandon_welcome(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get(&key) else { return };
        let principal = Arc::clone(&session.principal);
        let nobody_knows_it = session.detached_at.is_none() && session.conn.is_none();
        self.uncount(&principal);
        if nobody_knows_it {
            self.expire_session(key);
        }
    }

    fn uncount(&mut self, principal: &Arc<str>) {
        if let Some(count) = self.session_counts.get_mut(principal) {
            *count -= 1;
            if *count == 0 {
                self.session_counts.remove(principal);
            }
        }
    }

    /// A session whose window is over is forgotten; its jobs go on without it, and its cancel authority
    /// passes to the principal (D-22).
    pub(super) fn expire_session(&mut self, key: SessionKey) {
        self.timers.clear(Timer::SessionWindow(key));
        let Some(session) = self.sessions.remove(&key) else { return };
        if let Some(since) = session.detached_since {
            self.detached.remove(&(since, key));
        }
        self.sessions_by_id.remove(session.id());
        for job in &session.running {
            if let Some(job) = self.jobs.get_mut(job) {
                job.session = None;
            }
        }
        for job in &session.subscriptions {
            if let Some(job) = self.jobs.get_mut(job) {
                job.subscribers.retain(|subscriber| subscriber.session != key);
            }
        }
        self.abandon_held(key);
        if self.mirrored {
            self.events.push_back(RuntimeEvent::MirrorDrop(Arc::clone(session.id())));
        }
        self.keep_durable(|| StoreOp::ForgetSession(Arc::clone(session.id())));
    }
}

/// One answer for all reasons.
fn not_resumable() -> Error {
    let message = "this session cannot be resumed; connect without resume to open a new one";
    Error::new(ErrorCode::ResumeWindowExpired, message)
}

/// The random part of a fresh ULID, with room for every number above it.
fn message_id_seed(ids: &mut IdGenerator) -> [u8; 10] {
    let mut seed = ids.random();
    seed[0] &= 0x7f;
    seed
}
