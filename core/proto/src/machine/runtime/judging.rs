//! Who decides what a principal may observe: a policy that answers at once, or one that is asked and answers later.
//!
//! A policy written in another language cannot be called under the machine's lock: it would take the host's own lock
//! there. So it is asked per request, before the request is looked at: a subscribe waits for its verdict, a listing for
//! those of the jobs on its page. Nothing is remembered beyond the request, so an answer is never older than its
//! question, and nothing has to be forgotten when the policy changes its mind. Subscriptions that live are judged anew
//! when the host says that it has.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::auditing::Audited;
use super::listing::Listing;
use super::storage::Gated;
use super::{ConnKey, JobKey, RuntimeEvent, RuntimeMachine, SessionKey};
use crate::error::Error;
use crate::machine::job::Job;
use crate::machine::policy::{Decision, JobFacts, ObservedJob, Observing, Policy, PolicyQuestion, SamePrincipal};
use crate::message::{SessionError, Subscribe, kind};
use crate::time::Now;

/// Jobs in one question.
const MOST_JOBS: usize = 64;

/// Requests of all sessions that may wait for the policy.
const MOST_WAITING: usize = 16_384;

/// Requests of one session that may: with all its sessions a principal takes a quarter of the places.
const MOST_OF_SESSION: usize = 64;

/// Who decides.
pub(super) enum Judge {
    Here(Box<dyn Policy>),
    Asked,
}

impl Default for Judge {
    fn default() -> Self {
        Judge::Here(Box::new(SamePrincipal))
    }
}

impl Judge {
    /// One that is asked is never asked about a cancel: it belongs to the submitter.
    pub(super) fn may_cancel(&self, principal: &str, job: &JobFacts<'_>) -> bool {
        match self {
            Judge::Here(policy) => policy.may_cancel(principal, job),
            Judge::Asked => false,
        }
    }

    pub(super) fn sees_own_only(&self, principal: &str) -> bool {
        match self {
            Judge::Here(policy) => policy.sees_own_only(principal),
            Judge::Asked => false,
        }
    }
}

/// What waits for verdicts.
#[derive(Debug, Default)]
pub(super) struct Judging {
    waiting: BTreeMap<u64, Waiting>,
    of_session: HashMap<SessionKey, usize>,
    /// Questions up to this ticket were asked before the policy last changed.
    outdated: u64,
}

#[derive(Debug)]
enum Waiting {
    Subscribe {
        conn: ConnKey,
        session: SessionKey,
        id: String,
        subscribe: Box<Subscribe>,
        /// Whether a `job.unsubscribe` came meanwhile.
        withdrawn: bool,
    },
    List(Box<Listing>, Vec<JobKey>),
    /// Subscriptions of one principal that go on only if they are allowed, and the histories they are owed since before
    /// a restart, which nobody has begun to read.
    Again(Vec<(SessionKey, JobKey)>, VecDeque<RuntimeEvent>),
}

impl Waiting {
    fn session(&self) -> Option<SessionKey> {
        match self {
            Waiting::Subscribe { session, .. } => Some(*session),
            Waiting::List(listing, _) => Some(listing.session),
            Waiting::Again(..) => None,
        }
    }
}

impl Judging {
    fn add(&mut self, ticket: u64, waiting: Waiting) {
        if let Some(session) = waiting.session() {
            *self.of_session.entry(session).or_default() += 1;
        }
        self.waiting.insert(ticket, waiting);
    }

    fn take(&mut self, ticket: u64) -> Option<Waiting> {
        let waiting = self.waiting.remove(&ticket)?;
        if let Some(session) = waiting.session()
            && let Some(count) = self.of_session.get_mut(&session)
        {
            *count -= 1;
            if *count == 0 {
                self.of_session.remove(&session);
            }
        }
        Some(waiting)
    }

    /// Whether it is asked if this session may go on following the job.
    pub(super) fn is_open(&self, session: SessionKey, job: JobKey) -> bool {
        let asked = |waiting: &Waiting| match waiting {
            Waiting::Again(followed, _) => followed.contains(&(session, job)),
            Waiting::Subscribe { .. } | Waiting::List(..) => false,
        };
        self.waiting.values().any(asked)
    }

    /// Why this session may not have another request waiting.
    fn full(&self, session: SessionKey) -> Option<Error> {
        let of_session = self.of_session.get(&session).copied().unwrap_or(0);
        (of_session >= MOST_OF_SESSION || self.waiting.len() >= MOST_WAITING)
            .then(|| Error::internal("too many requests wait for the runtime's policy; ask again later"))
    }

    /// A subscribe that waits was asked again over another connection, which gets the answer (D-17).
    pub(super) fn ask_again(&mut self, key: SessionKey, request_id: &str, new_conn: ConnKey) {
        for waiting in self.waiting.values_mut() {
            if let Waiting::Subscribe { conn, session, id, .. } = waiting
                && (*session, id.as_str()) == (key, request_id)
            {
                *conn = new_conn;
            }
        }
    }
}

impl Job {
    fn observed(&self) -> ObservedJob {
        let start = &self.start;
        ObservedJob {
            job_id: Arc::clone(&start.job_id),
            principal: Arc::clone(&start.principal),
            session_id: Arc::clone(&start.session_id),
            agent: start.agent.clone(),
            version: start.version.clone(),
            created_at: self.created_at,
            parent_job_id: start.parent_job_id.clone(),
            status: self.status,
        }
    }
}

impl RuntimeMachine {
    /// Replaces the policy, and ends what the new one does not allow.
    pub fn set_policy(&mut self, policy: Box<dyn Policy>) {
        self.set_judge(Judge::Here(policy));
    }

    /// Has a policy asked from now on, through [`RuntimeEvent::Judge`], and ends what it does not allow. The submitting
    /// session is never asked about, nor is a cancel.
    pub fn set_asked_policy(&mut self) {
        self.set_judge(Judge::Asked);
    }

    fn set_judge(&mut self, judge: Judge) {
        self.judge = judge;
        self.index.open_to_others(&self.jobs);
        self.policy_changed();
    }

    /// The policy's answers may have changed: subscriptions it no longer allows end without a word, at once or,
    /// where it is asked, with its answer. What was numbered for a subscriber before that still arrives, since its numbers
    /// have no gaps.
    pub fn policy_changed(&mut self) {
        self.judging.outdated = self.next_key;
        let mut withdrawn = Vec::new();
        let mut open: BTreeMap<Arc<str>, Vec<(SessionKey, JobKey)>> = BTreeMap::new();
        for (key, session) in &self.sessions {
            for job_key in &session.subscriptions {
                let decided = match self.jobs.get(job_key) {
                    None => Some(Decision::Hidden),
                    Some(job) => self.observes(*key, &session.principal, job),
                };
                match decided {
                    Some(Decision::Allowed) => {}
                    Some(_) => withdrawn.push((*key, *job_key)),
                    None => open.entry(Arc::clone(&session.principal)).or_default().push((*key, *job_key)),
                }
            }
        }
        // In an order that does not depend on hashing, since the store is told.
        withdrawn.sort();
        for (session, job) in withdrawn {
            self.unfollow(session, job);
        }
        for (principal, mut followed) in open {
            followed.sort();
            for some in followed.chunks(MOST_JOBS) {
                let jobs = self.observed(some.iter().map(|(_, job)| *job));
                let owed = self.take_owed(some);
                self.ask(Arc::clone(&principal), Observing::Subscribe, jobs, Waiting::Again(some.to_vec(), owed));
            }
        }
    }

    /// Takes back what was asked of the store for these subscriptions.
    fn take_owed(&mut self, followed: &[(SessionKey, JobKey)]) -> VecDeque<RuntimeEvent> {
        let events = std::mem::take(&mut self.events);
        let (owed, others) = events.into_iter().partition(|event| {
            self.owed_to(event).is_some_and(|subscription| followed.binary_search(&subscription).is_ok())
        });
        self.events = others;
        owed
    }

    /// Whose history this event asks for.
    fn owed_to(&self, event: &RuntimeEvent) -> Option<(SessionKey, JobKey)> {
        let RuntimeEvent::ReadHistory { ticket, .. } = event else { return None };
        self.history.get(ticket).map(|(job, session)| (*session, *job))
    }

    /// What is known at once; `None` when the policy has to be asked.
    pub(super) fn observes(&self, key: SessionKey, principal: &str, job: &Job) -> Option<Decision> {
        match &self.judge {
            _ if job.session == Some(key) => Some(Decision::Allowed),
            Judge::Here(policy) => Some(policy.may_observe(principal, &job.facts())),
            Judge::Asked => None,
        }
    }

    fn observed(&self, keys: impl Iterator<Item = JobKey>) -> Vec<ObservedJob> {
        keys.filter_map(|key| self.jobs.get(&key).map(Job::observed)).collect()
    }

    fn ask(&mut self, principal: Arc<str>, observing: Observing, jobs: Vec<ObservedJob>, waiting: Waiting) {
        let ticket = self.fresh_key();
        self.judging.add(ticket, waiting);
        let question = Box::new(PolicyQuestion { principal, observing, jobs });
        self.events.push_back(RuntimeEvent::Judge { ticket, question });
    }

    // ---- subscribing -------------------------------------------------------------------------------------------

    /// Whether the policy has to say about this subscribe first.
    pub(super) fn must_ask(&self, key: SessionKey, job_id: &str) -> bool {
        let job = self.jobs_by_id.get(job_id).and_then(|job| self.jobs.get(job));
        let session = self.sessions.get(&key);
        session.zip(job).is_some_and(|(session, job)| self.observes(key, &session.principal, job).is_none())
    }

    /// Has a subscribe wait for the policy; why it may not.
    pub(super) fn ask_about(
        &mut self,
        conn: ConnKey,
        key: SessionKey,
        id: &str,
        subscribe: Subscribe,
    ) -> Option<Error> {
        if let Some(error) = self.judging.full(key) {
            return Some(error);
        }
        let principal = Arc::clone(&self.sessions.get(&key)?.principal);
        let job = self.jobs_by_id.get(&*subscribe.job_id).copied();
        let jobs = self.observed(job.into_iter());
        let (id, subscribe) = (id.to_owned(), Box::new(subscribe));
        let waiting = Waiting::Subscribe { conn, session: key, id, subscribe, withdrawn: false };
        self.ask(principal, Observing::Subscribe, jobs, waiting);
        None
    }

    /// A `job.unsubscribe` that overtook the answer of its subscribe still ends it.
    pub(super) fn withdraw_question(&mut self, key: SessionKey, job_id: &str) {
        for waiting in self.judging.waiting.values_mut() {
            if let Waiting::Subscribe { session, subscribe, withdrawn, .. } = waiting
                && *session == key
                && subscribe.job_id == job_id
            {
                *withdrawn = true;
            }
        }
    }

    pub(super) fn refuse_subscribe(
        &mut self,
        now: Now,
        conn: ConnKey,
        key: SessionKey,
        id: &str,
        audited: &Audited,
        error: Error,
    ) {
        self.audit_request(now, key, audited, &Err(error.clone()));
        let refusal = SessionError { error, request_id: Some(id.to_owned()) };
        self.answer_request(now, conn, key, id, kind::SESSION_ERROR, None, &refusal);
    }

    // ---- listing -----------------------------------------------------------------------------------------------

    /// Has a listing wait until the policy has said about these.
    pub(super) fn ask_for_page(&mut self, now: Now, listing: Listing, mut jobs: Vec<JobKey>) {
        if let Some(error) = self.judging.full(listing.session) {
            return self.answer_error(now, listing.conn, error, Some(listing.request_id));
        }
        jobs.truncate(MOST_JOBS);
        let Some(session) = self.sessions.get(&listing.session) else { return };
        let principal = Arc::clone(&session.principal);
        let observed = self.observed(jobs.iter().copied());
        self.ask(principal, Observing::List, observed, Waiting::List(Box::new(listing), jobs));
    }

    // ---- the answer --------------------------------------------------------------------------------------------

    /// What the policy says about each of the question's jobs, in their order; one it says nothing about is hidden. With
    /// an error nobody is let in: the request fails with it, a subscription ends.
    pub fn handle_verdicts(&mut self, now: Now, ticket: u64, verdicts: Result<Vec<Decision>, Error>) {
        let of = |place: usize| verdicts.as_ref().ok().and_then(|all| all.get(place)).copied();
        let waiting = self.judging.take(ticket);
        if ticket <= self.judging.outdated
            && verdicts.is_ok()
            && let Some(waiting) = waiting
        {
            return self.ask_anew(now, waiting);
        }
        match waiting {
            None => {}
            Some(Waiting::Subscribe { conn, session, id, subscribe, withdrawn }) => {
                let job_id = subscribe.job_id.clone();
                let audited = Audited::Subscribe { job_id: job_id.clone() };
                let verdict = of(0).unwrap_or(Decision::Hidden);
                // By a later subscribe, whose answer came first.
                let followed = self.job_named(&job_id).is_some_and(|job| job.is_followed_by(session));
                let done = match verdicts {
                    Ok(_) => self.subscribe(now, conn, session, &id, *subscribe, Some(verdict)),
                    Err(error) => Err(error),
                };
                match done {
                    Ok(()) => self.audit_request(now, session, &audited, &Ok(())),
                    Err(error) => self.refuse_subscribe(now, conn, session, &id, &audited, error),
                }
                if withdrawn && !followed {
                    self.unfollow_named(session, &job_id);
                }
            }
            Some(Waiting::List(mut listing, jobs)) => match &verdicts {
                Ok(_) => {
                    let said =
                        jobs.iter().enumerate().map(|(place, job)| (*job, of(place).unwrap_or(Decision::Hidden)));
                    listing.verdicts.extend(said);
                    // What was decided meanwhile may be on the page, and must be stored before it is shown (D-18).
                    self.gate(now, Gated::List(listing));
                }
                Err(error) => self.answer_error(now, listing.conn, error.clone(), Some(listing.request_id)),
            },
            Some(Waiting::Again(followed, owed)) => {
                for (place, (session, job)) in followed.into_iter().enumerate() {
                    if of(place) != Some(Decision::Allowed) {
                        self.unfollow(session, job);
                    }
                }
                // Read also for those that were refused: nobody holds a place for it any more, so it goes nowhere.
                self.events.extend(owed);
            }
        }
    }

    fn job_named(&self, job_id: &str) -> Option<&Job> {
        self.jobs_by_id.get(job_id).and_then(|job| self.jobs.get(job))
    }

    fn unfollow_named(&mut self, key: SessionKey, job_id: &str) {
        if let Some(job) = self.jobs_by_id.get(job_id).copied() {
            self.unfollow(key, job);
        }
    }

    /// The policy changed after it was asked.
    fn ask_anew(&mut self, now: Now, waiting: Waiting) {
        match waiting {
            Waiting::Subscribe { conn, session, id, subscribe, withdrawn } => {
                let Some(principal) = self.sessions.get(&session).map(|session| Arc::clone(&session.principal)) else {
                    return;
                };
                let job = self.jobs_by_id.get(&*subscribe.job_id).copied();
                let jobs = self.observed(job.into_iter());
                let waiting = Waiting::Subscribe { conn, session, id, subscribe, withdrawn };
                self.ask(principal, Observing::Subscribe, jobs, waiting);
            }
            Waiting::List(mut listing, _) => {
                listing.verdicts.clear();
                self.gate(now, Gated::List(listing));
            }
            Waiting::Again(mut followed, owed) => {
                followed.retain(|(_, job)| self.jobs.contains_key(job));
                let principal = followed
                    .iter()
                    .find_map(|(session, _)| self.sessions.get(session))
                    .map(|session| Arc::clone(&session.principal));
                let Some(principal) = principal else { return };
                let jobs = self.observed(followed.iter().map(|(_, job)| *job));
                self.ask(principal, Observing::Subscribe, jobs, Waiting::Again(followed, owed));
            }
        }
    }
}
