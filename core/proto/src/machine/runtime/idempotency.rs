//! Submits under a key make one job, however often they come.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::storage::Gated;
use super::subscription::Asked;
use super::{ConnKey, RuntimeMachine, SessionKey, Timer, details};
use crate::envelope::{Head, Header, write_frame};
use crate::error::{Error, ErrorCode};
use crate::json::{self, Limits, RawJson};
use crate::machine::frame::{Receiver, Record};
use crate::machine::job::{Job, Subscriber};
use crate::machine::kept::{AskedBy, KeptKey, StoreOp};
use crate::message::{Accepted, RuntimeMessage, Submit, kind};
use crate::time::{Now, Timestamp};

/// Idempotency keys per principal.
#[derive(Debug, Default)]
pub(super) struct Idempotency {
    by_key: HashMap<(Arc<str>, String), Used>,
    by_number: HashMap<u64, (Arc<str>, String)>,
}

/// What a key was used for. Kept apart from the job, which may be forgotten before the key is.
#[derive(Debug)]
struct Used {
    fingerprint: [u8; 32],
    job_id: Arc<str>,
    /// The answer to the submit, without `request_id`.
    accepted: Accepted,
    trace_id: Arc<str>,
    expires_at: Timestamp,
    terminal: Option<Arc<Record>>,
}

impl Used {
    fn kept(&self, claim: &(Arc<str>, String)) -> KeptKey {
        KeptKey {
            principal: Arc::clone(&claim.0),
            key: claim.1.clone(),
            fingerprint: self.fingerprint,
            job_id: Arc::clone(&self.job_id),
            trace_id: Arc::clone(&self.trace_id),
            accepted: RawJson::from_serialize(&self.accepted).unwrap_or_else(|_| RawJson::empty_object()),
            expires_at: self.expires_at,
            terminal: self.terminal.clone(),
        }
    }
}

impl Idempotency {
    fn insert(&mut self, number: u64, claim: (Arc<str>, String), used: Used) {
        self.by_number.insert(number, claim.clone());
        self.by_key.insert(claim, used);
    }

    fn forget(&mut self, number: u64) -> Option<(Arc<str>, String)> {
        let claim = self.by_number.remove(&number)?;
        self.by_key.remove(&claim);
        Some(claim)
    }
}

/// An idempotency key with its principal, and the parameters it is used with.
pub(super) type Claim = ((Arc<str>, String), [u8; 32]);

impl RuntimeMachine {
    pub(super) fn is_used(&self, claim: &Claim) -> bool {
        self.idempotency.by_key.contains_key(&claim.0)
    }

    pub(super) fn check_room_for_keys(&self) -> Result<(), Error> {
        let cap = self.config.max_idempotency_keys;
        if self.idempotency.by_key.len() < cap {
            return Ok(());
        }
        let error = Error::internal(format!("{cap} idempotency keys are kept already; submit again later"));
        Err(error.with_details(details("cap", "idempotency_keys")))
    }

    /// The key belongs to this job, named by its id and trace, from now on.
    pub(super) fn use_key(&mut self, now: Now, claim: Claim, job: (&Arc<str>, &Arc<str>), accepted: &Accepted) {
        let (claim, fingerprint) = claim;
        let ttl = self.config.idempotency_ttl.max(self.config.retention);
        let used = Used {
            fingerprint,
            job_id: Arc::clone(job.0),
            accepted: accepted.clone(),
            trace_id: Arc::clone(job.1),
            expires_at: now.wall.after(ttl),
            terminal: None,
        };
        self.keep_durable(|| StoreOp::SaveKey(Box::new(used.kept(&claim))));
        let number = self.fresh_key();
        self.idempotency.insert(number, claim, used);
        self.timers.set(Timer::Idempotency(number), now.mono + ttl);
    }

    /// Same key, same parameters: the same answer, and the terminal again if the job has ended.
    pub(super) fn repeat_accepted(
        &mut self,
        now: Now,
        conn: ConnKey,
        key: SessionKey,
        request_id: &str,
        (claim, fingerprint): &Claim,
    ) -> Result<(), Error> {
        let Some(used) = self.idempotency.by_key.get(claim) else { return Ok(()) };
        if used.fingerprint != *fingerprint {
            let message = format!("idempotency_key {} was used with other parameters", claim.1);
            let details = details("existing_job_id", &used.job_id);
            return Err(Error::new(ErrorCode::DuplicateKey, message).with_details(details));
        }
        let (job_id, trace_id) = (Arc::clone(&used.job_id), Arc::clone(&used.trace_id));
        let (accepted, kept) = (used.accepted.clone(), used.terminal.clone());
        self.audit_accepted(now, key, &job_id, accepted.agent.as_deref().unwrap_or_default(), true);
        let accepted = self.accepted_for(key, accepted, request_id);
        // What the answer promises is kept ahead of it: the end, or that this session follows the job.
        let end = self.end_to_repeat(key, &job_id, kept);
        let end = end.and_then(|(terminal, receiver)| self.number_copy(key, &terminal, receiver));
        if end.is_none() {
            self.follow_again(key, &job_id, request_id, &accepted)?;
        }
        self.answer_request(now, conn, key, request_id, kind::JOB_ACCEPTED, Some((job_id, trace_id)), &accepted);
        if let Some(end) = end {
            self.gate(now, Gated::Copy(key, end));
        }
        Ok(())
    }

    /// The end of a job that this session has not on its way already, and as whose copy it gets it.
    fn end_to_repeat(
        &self,
        key: SessionKey,
        job_id: &Arc<str>,
        kept: Option<Arc<Record>>,
    ) -> Option<(Arc<Record>, Receiver)> {
        let Some(job) = self.jobs_by_id.get(job_id).and_then(|job| self.jobs.get(job)) else {
            return kept.map(|terminal| (terminal, Receiver::Principal));
        };
        let on_its_way = self.storage.holds_terminal(key, job_id) || job.is_followed_by(key);
        let terminal = job.terminal.clone().filter(|_| !on_its_way)?;
        Some((terminal, if job.session == Some(key) { Receiver::Submitter } else { Receiver::Principal }))
    }

    /// Another session than the one that submitted a living job follows it, once.
    fn follow_again(
        &mut self,
        key: SessionKey,
        job_id: &Arc<str>,
        request_id: &str,
        accepted: &Accepted,
    ) -> Result<(), Error> {
        let Some(job_key) = self.jobs_by_id.get(job_id).copied() else { return Ok(()) };
        let Some(job) = self.jobs.get_mut(&job_key) else { return Ok(()) };
        if job.session == Some(key) || job.terminal.is_some() || job.is_followed_by(key) {
            return Ok(());
        }
        job.subscribers.push(Subscriber { session: key, held: None });
        let answer = &RawJson::from_serialize(accepted)?;
        self.follow(key, job_key, job_id, Asked { request_id, by: AskedBy::Submit, answer, owed_after: None });
        Ok(())
    }

    /// The job is about to be forgotten: a repeat under its key still gets its end.
    pub(super) fn keep_terminal(&mut self, job: &Job) {
        if let Some(claim) = &job.claim
            && let Some(used) = self.idempotency.by_key.get_mut(claim)
        {
            used.terminal = job.terminal.clone();
            if self.config.durable {
                self.storage.keep(StoreOp::SaveKey(Box::new(used.kept(claim))));
            }
        }
    }

    /// Takes back an idempotency key after a restart.
    pub(super) fn restore_key(&mut self, now: Now, kept: KeptKey) -> Result<(), Error> {
        let number = self.fresh_key();
        let left = kept.expires_at.0.saturating_sub(now.wall.0).max(0).unsigned_abs();
        self.timers.set(Timer::Idempotency(number), now.mono + Duration::from_millis(left));
        let used = Used {
            fingerprint: kept.fingerprint,
            job_id: kept.job_id,
            accepted: read_accepted(&kept.accepted, &self.config.limits)?,
            trace_id: kept.trace_id,
            expires_at: kept.expires_at,
            terminal: kept.terminal,
        };
        self.idempotency.insert(number, (kept.principal, kept.key), used);
        Ok(())
    }

    /// A key lives at least as long as its job is kept.
    pub(super) fn expire_idempotency(&mut self, now: Now, number: u64) {
        let used = self.idempotency.by_number.get(&number).and_then(|claim| self.idempotency.by_key.get(claim));
        if used.is_some_and(|used| self.jobs_by_id.contains_key(&used.job_id)) {
            self.timers.set(Timer::Idempotency(number), now.mono + self.config.retention);
        } else if let Some((principal, key)) = self.idempotency.forget(number) {
            self.keep_durable(|| StoreOp::ForgetKey { principal, key });
        }
    }
}

/// Reads a kept `job.accepted` payload as it would be read from the wire.
fn read_accepted(payload: &RawJson, limits: &Limits) -> Result<Accepted, Error> {
    let mut frame = Vec::new();
    let header = Header { kind: kind::JOB_ACCEPTED, id: "kept", ..Header::default() };
    write_frame(&mut frame, &header, payload.get().as_bytes());
    let head = Head::parse(&frame, limits).map_err(|refusal| refusal.error)?;
    match RuntimeMessage::parse(&head)? {
        RuntimeMessage::Accepted(accepted) => Ok(accepted),
        _ => Err(Error::internal("a kept job.accepted is something else")),
    }
}

/// The key of a submit, if it has one.
pub(super) fn claim_of(principal: &Arc<str>, submit: &Submit) -> Result<Option<Claim>, Error> {
    let Some(key) = &submit.idempotency_key else { return Ok(None) };
    Ok(Some(((Arc::clone(principal), key.clone()), fingerprint(submit)?)))
}

/// What "same parameters" compares.
fn fingerprint(submit: &Submit) -> Result<[u8; 32], Error> {
    let constraints = submit.lease_constraints.as_ref().and_then(|constraints| constraints.expires_at.as_deref());
    let parts = serde_json::json!([submit.agent, constraints, submit.max_runtime_sec]);
    let mut text = json::canonical(&parts.to_string())?;
    text.extend(json::canonical(submit.input.get())?);
    text.extend(json::canonical(submit.lease_request.get())?);
    Ok(Sha256::digest(&text).into())
}
