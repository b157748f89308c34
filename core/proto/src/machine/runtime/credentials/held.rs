//! Submits that wait for their credentials, and those behind them: the answers of a session keep the order of its
//! requests.

use std::sync::Arc;

use super::super::auditing::Audited;
use super::super::idempotency::Claim;
use super::super::storage::Gated;
use super::super::{ConnKey, JobKey, RuntimeEvent, RuntimeMachine, SessionKey, Timer};
use super::{JobCredentials, Live};
use crate::error::{Error, ErrorCode};
use crate::feature::Feature;
use crate::json::RawJson;
use crate::lease::MODEL_USE;
use crate::machine::audit::AuditEntry;
use crate::machine::job::Job;
use crate::machine::kept::StoreOp;
use crate::machine::provision::{IssueRequest, Issued, Revocation};
use crate::message::{SessionError, Submit, kind};
use crate::time::Now;
use crate::trace::TraceContext;

/// Submits of one session that may wait for their answers.
const MOST_HELD: usize = 1024;

/// A submit, and how to answer it.
#[derive(Debug)]
pub(in super::super) struct SubmitRequest {
    pub(in super::super) conn: ConnKey,
    /// Of the message.
    pub(in super::super) id: String,
    pub(in super::super) trace_id: Option<Arc<str>>,
    pub(in super::super) trace_context: Option<TraceContext>,
    pub(in super::super) submit: Submit,
}

/// A job that is not accepted yet.
#[derive(Debug)]
pub(in super::super) struct Draft {
    pub(in super::super) key: JobKey,
    pub(in super::super) conn: ConnKey,
    /// Of the submit.
    pub(in super::super) id: String,
    pub(in super::super) job: Job,
    pub(in super::super) claim: Option<Claim>,
}

/// One place in a session's order of answers.
#[derive(Debug)]
pub(super) enum Held {
    /// Not looked at: an earlier submit under the same key comes first.
    Asked(Box<SubmitRequest>),
    /// Credentials were asked for, and are here once they are issued and kept.
    Draft(Box<Draft>, Option<Vec<Live>>),
    /// Refused behind a submit that is not answered yet.
    Refused { conn: ConnKey, id: String, agent: String, error: Error },
}

/// What the provisioner was asked.
#[derive(Debug)]
pub(super) struct Pending {
    session: SessionKey,
    job_id: Arc<str>,
    intent: String,
    claim: Option<(Arc<str>, String)>,
}

impl RuntimeMachine {
    /// Gives the request back when it need not wait for an earlier submit.
    ///
    /// # Errors
    /// `INTERNAL_ERROR` when too many wait already.
    pub(in super::super) fn hold_back(
        &mut self,
        key: SessionKey,
        request: SubmitRequest,
    ) -> Result<Option<SubmitRequest>, Error> {
        let behind = self.is_holding(key);
        let waits = match &request.submit.idempotency_key {
            Some(_) if behind => true,
            Some(name) => self.sessions.get(&key).is_some_and(|session| {
                self.credentials.claims.contains(&(Arc::clone(&session.principal), name.clone()))
            }),
            None => behind && !self.wants_credentials(key),
        };
        if self.credentials.held.get(&key).is_some_and(|queue| queue.len() >= MOST_HELD) {
            let message = format!("{MOST_HELD} submits of this session wait for their answers; submit again later");
            return Err(Error::internal(message));
        }
        if !waits {
            return Ok(Some(request));
        }
        self.credentials.held.entry(key).or_default().push_back(Held::Asked(Box::new(request)));
        Ok(None)
    }

    /// Whether submits of this session wait for their answers.
    pub(in super::super) fn is_holding(&self, key: SessionKey) -> bool {
        self.credentials.held.contains_key(&key)
    }

    /// Whether jobs of this session get credentials.
    pub(in super::super) fn wants_credentials(&self, key: SessionKey) -> bool {
        let negotiated = |features: &crate::feature::FeatureSet| features.has(Feature::ProvisionedCredentials);
        self.config.provisions && self.sessions.get(&key).is_some_and(|session| negotiated(&session.features))
    }

    /// A refusal takes its place behind submits that are not answered yet.
    pub(in super::super) fn hold_refusal(
        &mut self,
        key: SessionKey,
        (conn, id): (ConnKey, &str),
        agent: String,
        error: Error,
    ) {
        let refused = Held::Refused { conn, id: id.to_owned(), agent, error };
        self.credentials.held.entry(key).or_default().push_back(refused);
    }

    /// A request that waits is asked again over another connection, which gets the answer (D-17).
    pub(in super::super) fn ask_again(&mut self, key: SessionKey, request_id: &str, new_conn: ConnKey) {
        let waiting = self.credentials.held.get_mut(&key).into_iter().flatten().find_map(|held| match held {
            Held::Asked(request) if request.id == request_id => Some(&mut request.conn),
            Held::Draft(draft, _) if draft.id == request_id => Some(&mut draft.conn),
            Held::Refused { conn, id, .. } if *id == request_id => Some(conn),
            _ => None,
        });
        match waiting {
            Some(conn) => *conn = new_conn,
            None => self.judging.ask_again(key, request_id, new_conn),
        }
    }

    /// Asks for a job's credentials, once the intent to do so is stored (D-127).
    pub(in super::super) fn provision(&mut self, now: Now, session: SessionKey, draft: Draft, in_front: bool) {
        let intent = self.ids.credential_id(now.wall);
        let (key, start) = (draft.key, Arc::clone(&draft.job.start));
        self.save_credential(&intent, &start.job_id, RawJson::null(), now.wall);
        let patterns = start.lease.patterns(MODEL_USE);
        let patterns = patterns.map(|patterns| patterns.into_iter().map(str::to_owned).collect());
        let request = IssueRequest {
            intent: intent.as_str().into(),
            job_id: Arc::clone(&start.job_id),
            principal: Arc::clone(&start.principal),
            agent: start.agent_ref(),
            lease: Arc::clone(&start.lease),
            budget: draft.job.budget.clone(),
            models: patterns.or_else(|| self.config.forbid_unnamed_models.then(Vec::new)),
            expires_at: draft.job.lease_end.map(|end| end.wall),
            parent_job_id: start.parent_job_id.clone(),
            asked_at: now.wall,
        };
        let claim = draft.claim.as_ref().map(|(claim, _)| claim.clone());
        self.credentials.claims.extend(claim.clone());
        let pending = Pending { session, job_id: Arc::clone(&start.job_id), intent, claim };
        self.credentials.pending.insert(key, pending);
        let queue = self.credentials.held.entry(session).or_default();
        let held = Held::Draft(Box::new(draft), None);
        if in_front {
            queue.push_front(held)
        } else {
            queue.push_back(held)
        };
        self.timers.set(Timer::Provision(key), now.mono + self.config.provision_timeout);
        self.gate(now, Gated::Provision { job: key, request: Box::new(request) });
    }

    /// The intent is stored.
    pub(in super::super) fn ask_provisioner(&mut self, job: JobKey, request: Box<IssueRequest>) {
        if self.credentials.pending.contains_key(&job) {
            self.events.push_back(RuntimeEvent::Provision { job, request });
        }
    }

    /// The provisioner took too long: what it still issues is revoked.
    pub(in super::super) fn abandon_provisioning(&mut self, now: Now, job: JobKey) {
        let seconds = self.config.provision_timeout.as_secs();
        self.handle_provisioned(now, job, Err(Error::internal(format!("no answer within {seconds} s"))));
    }

    /// The provisioner's answer. Without one the submit is refused after `provision_timeout`.
    pub fn handle_provisioned(&mut self, now: Now, job: JobKey, answer: Result<Vec<Issued>, Error>) {
        let Some(pending) = self.credentials.pending.remove(&job) else {
            // Too late: nobody gets it.
            return self.take_back(now, &Arc::from(""), answer.unwrap_or_default());
        };
        self.timers.clear(Timer::Provision(job));
        if let Some(claim) = &pending.claim {
            self.credentials.claims.remove(claim);
        }
        let checked = answer.and_then(|issued| match self.check_issued(&issued) {
            Ok(()) => Ok(issued),
            Err(error) => {
                self.take_back(now, &pending.job_id, issued);
                Err(error)
            }
        });
        match checked {
            Ok(issued) => {
                let mut live = Vec::with_capacity(issued.len());
                for one in issued {
                    let kept = self.keep_issued(now, &pending.job_id, one);
                    let session = self.sessions.get(&pending.session);
                    let principal = session.map(|session| Arc::clone(&session.principal)).unwrap_or_default();
                    let (job_id, id) = (&pending.job_id, &kept.kept_id);
                    self.audit(AuditEntry::credential_issued(now.wall, &principal, job_id, id));
                    live.push(kept);
                }
                self.storage.keep(StoreOp::ForgetCredential(pending.intent));
                self.settle_draft(pending.session, job, Ok(live));
            }
            Err(error) => {
                // It may have been issued all the same.
                let intent = Revocation::Intent(pending.intent.clone());
                self.revoke(pending.intent, pending.job_id, intent);
                let message = format!("no credentials could be issued for this job: {}", error.message);
                self.settle_draft(pending.session, job, Err(Error::new(ErrorCode::InternalError, message)));
            }
        }
        self.answer_held(now, pending.session);
        if pending.claim.is_some() {
            // Submits under the same key waited for this one, in whatever session.
            let mut others: Vec<SessionKey> = self.credentials.held.keys().copied().collect();
            others.sort();
            others.into_iter().for_each(|other| self.answer_held(now, other));
        }
    }

    fn keep_issued(&mut self, now: Now, job_id: &Arc<str>, issued: Issued) -> Live {
        let kept_id = self.keep_credential(now, job_id, issued.handle.clone());
        self.credentials.values.insert(&issued.credential.value);
        Live { kept_id, credential: issued.credential, handle: issued.handle }
    }

    /// Revokes what was issued and nobody gets, save a value that serves another job.
    fn take_back(&mut self, now: Now, job_id: &Arc<str>, issued: Vec<Issued>) {
        for one in issued {
            let value = &one.credential.value;
            if !self.credentials.live_value(value) && super::check_handle(&one.handle, value).is_ok() {
                let live = self.keep_issued(now, job_id, one);
                self.revoke(live.kept_id, Arc::clone(job_id), Revocation::Handle(live.handle));
            }
        }
    }

    fn settle_draft(&mut self, session: SessionKey, job: JobKey, outcome: Result<Vec<Live>, Error>) {
        let queue = self.credentials.held.get_mut(&session);
        let held = queue
            .and_then(|queue| queue.iter_mut().find(|held| matches!(held, Held::Draft(draft, _) if draft.key == job)));
        match (held, outcome) {
            (Some(Held::Draft(_, issued)), Ok(live)) => *issued = Some(live),
            (Some(held), Err(error)) => {
                if let Held::Draft(draft, _) = held {
                    let agent = draft.job.start.agent_ref();
                    *held = Held::Refused { conn: draft.conn, id: std::mem::take(&mut draft.id), agent, error };
                }
            }
            // The session is gone, and nobody can be answered.
            (_, Ok(live)) => self.revoke_all("", live),
            (None, Err(_)) => {}
        }
    }

    fn revoke_all(&mut self, job_id: &str, list: Vec<Live>) {
        for live in list {
            self.revoke(live.kept_id, job_id.into(), Revocation::Handle(live.handle));
        }
    }

    /// Answers what can be answered now, in order.
    fn answer_held(&mut self, now: Now, key: SessionKey) {
        while let Some(queue) = self.credentials.held.get_mut(&key) {
            let principal = self.sessions.get(&key).map(|session| Arc::clone(&session.principal));
            let ready = match queue.front() {
                None => {
                    self.credentials.held.remove(&key);
                    return;
                }
                Some(Held::Asked(request)) => {
                    let claim = principal.zip(request.submit.idempotency_key.clone());
                    claim.is_none_or(|claim| !self.credentials.claims.contains(&claim))
                }
                Some(Held::Draft(_, issued)) => issued.is_some(),
                Some(Held::Refused { .. }) => true,
            };
            if !ready {
                return;
            }
            match queue.pop_front() {
                Some(Held::Asked(request)) => {
                    let (conn, id, agent) = (request.conn, request.id.clone(), request.submit.agent.clone());
                    if let Err(error) = self.take_submit(now, key, *request, true) {
                        self.refuse_request(now, (conn, key), &id, agent, error);
                    }
                }
                Some(Held::Draft(draft, issued)) => self.take_draft(now, key, *draft, issued.unwrap_or_default()),
                Some(Held::Refused { conn, id, agent, error }) => {
                    self.refuse_request(now, (conn, key), &id, agent, error);
                }
                None => return,
            }
        }
    }

    /// A job with its credentials is accepted, unless the runtime is closing or the parent has ended.
    fn take_draft(&mut self, now: Now, key: SessionKey, draft: Draft, list: Vec<Live>) {
        let (conn, id, start) = (draft.conn, draft.id.clone(), Arc::clone(&draft.job.start));
        let refusal = match &start.parent_job_id {
            _ if self.shutting_down => Some(Error::internal("the runtime is shutting down; submit again later")),
            // It may have ended meanwhile, and no child outlives its parent (R-9.8.2.9).
            Some(parent) => self.own_parent(now, key, parent).err(),
            None => None,
        };
        if let Some(error) = refusal {
            self.revoke_all(&start.job_id, list);
            return self.refuse_request(now, (conn, key), &id, start.agent_ref(), error);
        }
        if !list.is_empty() {
            // A resume may have brought a transport in clear meanwhile.
            let here = self.sessions.get(&key).is_some_and(|session| {
                session.conn == Some(conn) && session.features.has(Feature::ProvisionedCredentials)
            });
            let principal = Arc::clone(&start.principal);
            let entry = JobCredentials { principal, list, awaited_by: here.then_some(conn), ended: false };
            self.credentials.live.insert(Arc::clone(&start.job_id), entry);
        }
        self.accept_job(now, key, draft);
    }

    fn refuse_request(&mut self, now: Now, (conn, key): (ConnKey, SessionKey), id: &str, agent: String, error: Error) {
        self.audit_request(now, key, &Audited::Submit { agent }, &Err(error.clone()));
        let refusal = SessionError { error, request_id: Some(id.to_owned()) };
        self.answer_request(now, conn, key, id, kind::SESSION_ERROR, None, &refusal);
    }

    /// A session is forgotten: what it still waits for is of no use to anybody.
    pub(in super::super) fn abandon_held(&mut self, key: SessionKey) {
        for held in self.credentials.held.remove(&key).into_iter().flatten() {
            if let Held::Draft(draft, Some(list)) = held {
                self.revoke_all(&draft.job.start.job_id, list);
            }
        }
    }
}
