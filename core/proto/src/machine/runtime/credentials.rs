//! Provisioned credentials: issued before a submit is answered, revoked when its job ends (runtime-protocol section
//! 9.8). Values live in this file's tables only, and join a message where it leaves for its connection.

mod held;
mod revoking;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use self::held::Held;
pub(super) use self::held::{Draft, SubmitRequest};
use self::revoking::Revoking;
pub use self::revoking::Unrevoked;
use super::resume::hash;
use super::storage::Gated;
use super::{ConnKey, JobKey, RuntimeMachine, SessionKey};
use crate::error::{Error, ErrorCode};
use crate::feature::Feature;
use crate::json::{RawJson, push_string};
use crate::machine::audit::AuditEntry;
use crate::machine::frame::{Frame, Receiver, Record};
use crate::machine::kept::{KeptCredential, StoreOp, TokenHash};
use crate::machine::provision::{Issued, Revocation};
use crate::machine::session::Session;
use crate::message::{Credential, SecretText, kind};
use crate::time::{Now, Timestamp};

/// Values of ended jobs by which a repeated one is still recognised (R-9.8.2.3).
const REMEMBERED_VALUES: usize = 65_536;

/// Credentials one job may have.
const MOST_CREDENTIALS: usize = 64;

/// Everything a runtime knows of credentials.
#[derive(Debug, Default)]
pub(super) struct Credentials {
    /// Submits that are not answered yet, in the order of their sessions.
    held: HashMap<SessionKey, VecDeque<Held>>,
    /// Jobs that wait for the provisioner, and the session that submitted each.
    pending: HashMap<JobKey, held::Pending>,
    /// Idempotency keys of submits that are not answered yet.
    claims: HashSet<(Arc<str>, String)>,
    live: HashMap<Arc<str>, JobCredentials>,
    /// The value behind a record that says a credential was rotated, by job and `job_seq`, while it works.
    rotated: HashMap<(Arc<str>, u64), (String, SecretText)>,
    revoking: BTreeMap<String, Revoking>,
    numbers: HashMap<u64, String>,
    /// What an earlier process issued and did not revoke.
    pub(super) orphans: Vec<KeptCredential>,
    values: Values,
}

/// The credentials of one accepted job.
#[derive(Debug)]
struct JobCredentials {
    principal: Arc<str>,
    list: Vec<Live>,
    /// The connection whose acceptance has yet to leave: it carries the credentials even if the job is over by then.
    awaited_by: Option<ConnKey>,
    ended: bool,
}

#[derive(Debug)]
struct Live {
    /// What the store calls this value.
    kept_id: String,
    credential: Credential,
    handle: RawJson,
}

/// Which values were handed out, by their hashes.
#[derive(Debug, Default)]
struct Values {
    known: HashSet<TokenHash>,
    order: VecDeque<TokenHash>,
}

impl Values {
    /// Whether the value is new; it is known from now on.
    fn insert(&mut self, value: &SecretText) -> bool {
        let hash = hash(value.expose());
        if !self.known.insert(hash) {
            return false;
        }
        self.order.push_back(hash);
        if self.order.len() > REMEMBERED_VALUES
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }

    fn knows(&self, value: &SecretText) -> bool {
        self.known.contains(&hash(value.expose()))
    }
}

impl Credentials {
    /// Jobs that wait for the provisioner.
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Puts the secret into a frame that leaves over `conn`, when its receiver may have it.
    pub(super) fn fill(&mut self, conn: ConnKey, session: Option<&Session>, frame: Frame) -> Frame {
        if self.live.is_empty() {
            return frame;
        }
        let takes = session.is_some_and(|session| session.features.has(Feature::ProvisionedCredentials));
        match frame {
            Frame::Message { session_id, kind, id, job_id: Some(job_id), trace_id, mut payload }
                if matches!(kind, kind::JOB_ACCEPTED | kind::JOB_SUBSCRIBED) =>
            {
                if let Some(entry) = self.live.get_mut(&job_id) {
                    let first = kind == kind::JOB_ACCEPTED && entry.awaited_by == Some(conn);
                    let own = takes && session.is_some_and(|session| *session.principal == *entry.principal);
                    if first || (own && !entry.ended) {
                        payload = with_credentials(&payload, &entry.list);
                    }
                    if first {
                        entry.awaited_by = None;
                        if entry.ended {
                            self.live.remove(&job_id);
                        }
                    }
                }
                Frame::Message { session_id, kind, id, job_id: Some(job_id), trace_id, payload }
            }
            // Whoever may see the credentials themselves may see what replaces one.
            Frame::Event { session: name, event_seq, record, receiver } if takes && receiver != Receiver::Onlooker => {
                let rotated = match self.rotated.is_empty() {
                    true => None,
                    false => self.rotated.get(&(Arc::clone(&record.job_id), record.job_seq)),
                };
                let record = match rotated {
                    Some((_, value)) => Arc::new(with_value(&record, value)),
                    None => record,
                };
                Frame::Event { session: name, event_seq, record, receiver }
            }
            frame => frame,
        }
    }

    /// A connection is gone: an acceptance that did not leave over it is a repeat by now.
    pub(super) fn disconnected(&mut self, conn: ConnKey) {
        self.live.retain(|_, entry| {
            if entry.awaited_by == Some(conn) {
                entry.awaited_by = None;
            }
            !entry.ended || entry.awaited_by.is_some()
        });
    }

    fn live_value(&self, value: &SecretText) -> bool {
        self.live.values().flat_map(|entry| &entry.list).any(|live| live.credential.value == *value)
    }
}

impl RuntimeMachine {
    /// The transport of this connection is encrypted, or does not leave this machine. Without this no credentials are
    /// offered over it (R-9.8.2.11).
    pub fn mark_secure(&mut self, conn: ConnKey) {
        if let Some(entry) = self.conns.get_mut(&conn) {
            entry.secure = true;
        }
    }

    /// Whether credentials may be offered over this connection: there is somebody who issues them, revocation outlives
    /// the process (R-9.8.2.6), and the way is safe (R-9.8.2.11).
    pub(super) fn offers_credentials(&self, conn: ConnKey) -> bool {
        self.config.provisions
            && (self.config.durable || self.config.revocations_kept)
            && self.conns.get(&conn).is_some_and(|entry| entry.secure)
    }

    /// The credentials of a job that has not ended, for its agent.
    pub fn credentials_of(&self, job: JobKey) -> Vec<Credential> {
        let entry = self.jobs.get(&job).and_then(|job| self.credentials.live.get(&job.start.job_id));
        let live = entry.filter(|entry| !entry.ended).into_iter().flat_map(|entry| &entry.list);
        live.map(|live| live.credential.clone()).collect()
    }

    /// Whether this is how a value that serves a job now would be revoked.
    pub(super) fn serves(&self, handle: &RawJson) -> bool {
        self.credentials.live.values().any(|entry| !entry.ended && entry.list.iter().any(|live| live.handle == *handle))
    }

    /// What was issued may be handed out: complete, and no value met before (R-9.8.2.3).
    fn check_issued(&self, issued: &[Issued]) -> Result<(), Error> {
        if issued.len() > MOST_CREDENTIALS {
            return Err(Error::internal(format!("the provisioner gave more than {MOST_CREDENTIALS} credentials")));
        }
        for (place, one) in issued.iter().enumerate() {
            one.credential.check()?;
            check_handle(&one.handle, &one.credential.value)?;
            let earlier = &issued[..place];
            if earlier.iter().any(|other| other.credential.id == one.credential.id) {
                return Err(Error::internal("the provisioner gave two credentials one id; ids differ within a job"));
            }
            let repeated = earlier.iter().any(|other| other.credential.value == one.credential.value);
            if repeated || self.credentials.values.knows(&one.credential.value) {
                return Err(Error::internal("the provisioner gave a value a second time; each serves one job"));
            }
        }
        Ok(())
    }

    /// Stores the way to revoke a value.
    fn keep_credential(&mut self, now: Now, job_id: &Arc<str>, handle: RawJson) -> String {
        let id = self.ids.credential_id(now.wall);
        self.save_credential(&id, job_id, handle, now.wall);
        id
    }

    fn save_credential(&mut self, id: &str, job_id: &Arc<str>, handle: RawJson, issued_at: Timestamp) {
        let kept = KeptCredential { id: id.to_owned(), job_id: Arc::clone(job_id), handle, issued_at };
        self.storage.keep(StoreOp::SaveCredential(Box::new(kept)));
    }

    /// Replaces the value of a job's credential: the client is told, then the old value is revoked (R-9.8.2.7). What is
    /// not taken is revoked too.
    ///
    /// # Errors
    /// `JOB_NOT_FOUND` when the job is over or has no such credential, `INVALID_REQUEST` when the value was used before,
    /// `INTERNAL_ERROR` while the store cannot keep the new handle.
    pub fn rotate(
        &mut self,
        now: Now,
        job_id: &str,
        id: &str,
        new_value: SecretText,
        new_handle: RawJson,
    ) -> Result<(), Error> {
        let job = self.jobs_by_id.get(job_id).copied();
        let job_id: Arc<str> = job_id.into();
        if let Err(error) = self.check_rotation(&job_id, id, &new_value, &new_handle) {
            // A value that serves somebody already must go on serving them.
            if !self.credentials.live_value(&new_value) && check_handle(&new_handle, &new_value).is_ok() {
                let kept_id = self.keep_credential(now, &job_id, new_handle.clone());
                self.revoke(kept_id, job_id, Revocation::Handle(new_handle));
            }
            return Err(error);
        }
        let Some(job) = job else { return Ok(()) };
        let kept_id = self.keep_credential(now, &job_id, new_handle.clone());
        self.credentials.values.insert(&new_value);
        let Some(entry) = self.credentials.live.get_mut(&job_id) else { return Ok(()) };
        let principal = Arc::clone(&entry.principal);
        let Some(live) = entry.find(id) else { return Ok(()) };
        let old_id = std::mem::replace(&mut live.kept_id, kept_id.clone());
        let old_handle = std::mem::replace(&mut live.handle, new_handle);
        live.credential.value = new_value.clone();
        let body = RawJson::from_serialize(&serde_json::json!({"phase": "credential_rotated", "id": id}))?;
        // A value that was told by an earlier record works no more.
        self.credentials.rotated.retain(|(of, _), (rotated, _)| *of != job_id || rotated != id);
        let next = self.jobs.get(&job).map_or(0, |job| job.job_seq) + 1;
        self.credentials.rotated.insert((Arc::clone(&job_id), next), (id.to_owned(), new_value));
        self.append_event(now, job, "status", None, &body);
        self.audit(AuditEntry::credential_rotated(now.wall, &principal, &job_id, &kept_id));
        self.gate(now, Gated::Revoke { id: old_id, job_id, handle: old_handle });
        Ok(())
    }

    fn check_rotation(&self, job_id: &str, id: &str, value: &SecretText, handle: &RawJson) -> Result<(), Error> {
        let entry = self.credentials.live.get(job_id).filter(|entry| !entry.ended);
        if !entry.is_some_and(|entry| entry.list.iter().any(|live| live.credential.id == id)) {
            let message = "no job that runs has a credential of this id; the new value is revoked";
            return Err(Error::new(ErrorCode::JobNotFound, message));
        }
        if value.expose().is_empty() || self.credentials.values.knows(value) {
            return Err(Error::invalid("the new value of a credential is empty or was used before; make a fresh one"));
        }
        check_handle(handle, value)?;
        self.check_store()
    }

    /// The job is over: its credentials are revoked, and forgotten once nobody waits for them (R-9.8.2.4).
    pub(super) fn end_credentials(&mut self, job_id: &Arc<str>) {
        let Some(entry) = self.credentials.live.get_mut(job_id) else { return };
        entry.ended = true;
        let ended: Vec<_> = entry.list.iter().map(|live| (live.kept_id.clone(), live.handle.clone())).collect();
        if entry.awaited_by.is_none() {
            self.credentials.live.remove(job_id);
        }
        self.credentials.rotated.retain(|(of, _), _| of != job_id);
        for (kept_id, handle) in ended {
            self.revoke(kept_id, Arc::clone(job_id), Revocation::Handle(handle));
        }
    }
}

impl JobCredentials {
    fn find(&mut self, id: &str) -> Option<&mut Live> {
        self.list.iter_mut().find(|live| live.credential.id == id)
    }
}

/// A handle is stored, so it must not be the secret, and `null` stands for an intent.
fn check_handle(handle: &RawJson, value: &SecretText) -> Result<(), Error> {
    if handle.is_null() {
        return Err(Error::internal("the provisioner gave a credential without handle, by which it could be revoked"));
    }
    let mut written = Vec::new();
    push_string(&mut written, value.expose());
    let written = String::from_utf8_lossy(&written);
    if handle.get().contains(value.expose()) || handle.get().contains(&written[1..written.len() - 1]) {
        return Err(Error::internal("the provisioner put a credential's value into its handle, which is stored"));
    }
    Ok(())
}

/// The payload with one more member.
fn with_credentials(payload: &Bytes, list: &[Live]) -> Bytes {
    let Some(open) = payload.strip_suffix(b"}").filter(|open| open.len() > 1) else { return payload.clone() };
    let mut out = open.to_vec();
    out.extend_from_slice(b",\"credentials\":[");
    for (place, live) in list.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        // Our own structs of texts always serialise.
        out.extend(serde_json::to_vec(&live.credential).unwrap_or_else(|_| b"{}".to_vec()));
    }
    out.extend_from_slice(b"]}");
    out.into()
}

/// A copy of the record whose body has the value as well. The body is the last member of the payload.
fn with_value(record: &Record, value: &SecretText) -> Record {
    let payload = match record.payload.strip_suffix(b"}}") {
        Some(open) => {
            let mut out = open.to_vec();
            out.extend_from_slice(b",\"value\":");
            push_string(&mut out, value.expose());
            out.extend_from_slice(b"}}");
            out.into()
        }
        None => record.payload.clone(),
    };
    Record {
        job_id: Arc::clone(&record.job_id),
        trace_id: Arc::clone(&record.trace_id),
        kind: record.kind,
        job_seq: record.job_seq,
        source_seq: record.source_seq,
        at: record.at,
        feature: record.feature,
        payload,
    }
}
