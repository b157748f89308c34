//! What is handed to the store, what waits for it, and what it gives back after a restart (D-8, D-18).

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::listing::Listing;
use super::resume::Welcoming;
use super::{ConnKey, JobKey, RuntimeConfig, RuntimeEvent, RuntimeMachine, SessionKey, Timer};
use crate::agent_ref::AgentRef;
use crate::error::Error;
use crate::feature::FeatureSet;
use crate::json::RawJson;
use crate::lease::{self, Lease};
use crate::machine::frame::{Frame, Receiver, SessionName};
use crate::machine::job::{Family, Job, JobStart, LeaseEnd, Outcome};
use crate::machine::kept::{Kept, RestoredJob, RestoredSession, StoreOp};
use crate::machine::provision::{IssueRequest, Revocation};
use crate::machine::session::{Copied, Log, MAX_UNTOLD, Session};
use crate::message::{Closed, JobStatus, LeaseConstraints};
use crate::time::Now;

/// What must not happen before everything decided so far is stored.
#[derive(Debug)]
pub(super) enum Gated {
    /// A session's numbered copy may be sent, now or after a resume.
    Copy(SessionKey, Copied),
    /// The answer to a request that made something.
    Answer(SessionKey, ConnKey, Frame),
    /// A session is opened or taken up again.
    Welcome(Box<Welcoming>),
    /// The answer to a close.
    Closed(ConnKey, Closed),
    /// The agent of an accepted job starts.
    Start(JobKey),
    /// The provisioner is asked for a job's credentials.
    Provision { job: JobKey, request: Box<IssueRequest> },
    /// A value that was replaced is revoked.
    Revoke { id: String, job_id: Arc<str>, handle: RawJson },
    /// A page of jobs.
    List(Box<Listing>),
    /// The last record of a history is queued for this connection.
    EndOfHistory(ConnKey),
}

impl Gated {
    /// What it weighs in a bounded buffer.
    fn cost(&self) -> usize {
        match self {
            Gated::Copy(_, copied) => copied.record.cost(),
            _ => 0,
        }
    }
}

/// The way to the store and back.
#[derive(Debug, Default)]
pub(super) struct Storage {
    ops: VecDeque<(u64, StoreOp)>,
    /// The last operation decided, and the last the store has kept.
    issued: u64,
    stored: u64,
    gated: VecDeque<(u64, Gated)>,
    /// What the copies among them weigh.
    gated_bytes: usize,
    /// Sessions whose emitters wait for the store.
    holds: BTreeSet<SessionKey>,
    /// Why the store refuses to keep anything, while it does.
    fault: Option<String>,
}

impl Storage {
    /// Hands an operation to the store.
    pub(super) fn keep(&mut self, op: StoreOp) {
        self.issued += 1;
        self.ops.push_back((self.issued, op));
    }

    /// Hands over an operation, if there is one.
    pub(super) fn extend(&mut self, op: Option<StoreOp>) {
        if let Some(op) = op {
            self.keep(op);
        }
    }

    /// Whether as much waits to be stored as should, by count or by bytes.
    pub(super) fn is_full(&self, config: &RuntimeConfig) -> bool {
        self.gated.len() >= config.store_high_water || self.gated_bytes >= config.buffer_cap.bytes / 4
    }

    /// Whether enough of it is stored for emitters to go on.
    fn has_room(&self, config: &RuntimeConfig) -> bool {
        self.gated.len() <= config.store_high_water / 2 && self.gated_bytes <= config.buffer_cap.bytes / 8
    }

    /// Operations the store has not kept yet.
    pub(super) fn unstored(&self) -> u64 {
        self.issued - self.stored
    }

    /// Makes this session's emitters wait for the store.
    pub(super) fn hold(&mut self, session: SessionKey) {
        self.holds.insert(session);
    }

    /// Whether this job's end, for this session, still waits.
    pub(super) fn holds_terminal(&self, key: SessionKey, job_id: &str) -> bool {
        self.gated.iter().any(|(_, gated)| match gated {
            Gated::Copy(session, Copied { record, .. }) => {
                *session == key && record.kind.is_terminal() && *record.job_id == *job_id
            }
            _ => false,
        })
    }

    /// Whether copies of this job for this session still wait.
    pub(super) fn holds_copies(&self, key: SessionKey, job_id: &str) -> bool {
        self.gated.iter().any(|(_, gated)| match gated {
            Gated::Copy(session, copied) => *session == key && *copied.record.job_id == *job_id,
            _ => false,
        })
    }
}

impl RuntimeMachine {
    /// Keeps what only a store that outlives the process needs.
    pub(super) fn keep_durable(&mut self, op: impl FnOnce() -> StoreOp) {
        if self.config.durable {
            self.storage.keep(op());
        }
    }

    /// Does this once everything decided so far is stored, which without a durable store is at once.
    pub(super) fn gate(&mut self, now: Now, gated: Gated) {
        if self.config.durable && self.storage.stored < self.storage.issued {
            self.storage.gated_bytes += gated.cost();
            self.storage.gated.push_back((self.storage.issued, gated));
        } else {
            self.release(now, gated);
        }
    }

    fn release(&mut self, now: Now, gated: Gated) {
        match gated {
            Gated::Copy(key, copied) => self.release_copy(now, key, copied),
            Gated::Answer(key, conn, frame) => {
                let Some(session) = self.sessions.get_mut(&key) else { return };
                if session.conn == Some(conn) {
                    self.push(now, conn, frame);
                } else if frame.is_opening() && session.untold.len() < MAX_UNTOLD {
                    session.untold.push(frame);
                }
            }
            Gated::Welcome(welcoming) => self.welcome(now, *welcoming),
            Gated::EndOfHistory(conn) => {
                if let Some(entry) = self.conns.get_mut(&conn) {
                    entry.histories = entry.histories.saturating_sub(1);
                }
            }
            Gated::Closed(conn, closed) => self.say_closed(now, conn, &closed),
            Gated::Start(job) => self.start_agent(job),
            Gated::Provision { job, request } => self.ask_provisioner(job, request),
            Gated::Revoke { id, job_id, handle } => self.revoke(id, job_id, Revocation::Handle(handle)),
            Gated::List(listing) => self.answer_listing(now, *listing),
        }
    }

    /// A stored copy can be sent: it goes into the session's log, and to its connection if there is one.
    fn release_copy(&mut self, now: Now, key: SessionKey, copied: Copied) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let event_seq = session.log.highest() + 1;
        let frame = session.conn.map(|conn| (conn, session.frame(event_seq, &copied)));
        if self.mirrored {
            let (session_id, frame) = (Arc::clone(session.id()), Box::new(session.frame(event_seq, &copied)));
            self.events.push_back(RuntimeEvent::Mirror { session_id, event_seq, frame });
        }
        session.log.push(copied);
        if session.log.trim(self.config.buffer_cap) && self.config.durable {
            let (session, through) = (Arc::clone(session.id()), session.log.freed);
            self.storage.keep(StoreOp::Free { session, through });
        }
        if let Some((conn, frame)) = frame {
            self.push(now, conn, frame);
        }
    }

    /// The next thing to keep, and its number.
    pub fn poll_store(&mut self) -> Option<(u64, StoreOp)> {
        self.storage.ops.pop_front()
    }

    /// The store's answer: everything up to this ticket is kept, or nothing is for now and why (D-18).
    pub fn handle_stored(&mut self, now: Now, ticket: u64, outcome: Result<(), String>) {
        if let Err(fault) = outcome {
            self.storage.fault = Some(fault);
            return;
        }
        self.storage.fault = None;
        self.storage.stored = self.storage.stored.max(ticket);
        while self.storage.gated.front().is_some_and(|(waiting, _)| *waiting <= ticket) {
            if let Some((_, gated)) = self.storage.gated.pop_front() {
                self.storage.gated_bytes -= gated.cost();
                self.release(now, gated);
            }
        }
        if self.storage.has_room(&self.config) {
            let freed = std::mem::take(&mut self.storage.holds);
            self.events.extend(freed.into_iter().map(RuntimeEvent::Drained));
        }
    }

    /// Nothing new is taken while the store cannot keep it.
    ///
    /// # Errors
    /// `INTERNAL_ERROR` with the store's own reason.
    pub(super) fn check_store(&self) -> Result<(), Error> {
        match &self.storage.fault {
            None => Ok(()),
            Some(fault) => Err(Error::internal(format!("this cannot be stored for now: {fault}"))),
        }
    }

    // ---- after a restart ---------------------------------------------------------------------------------------

    /// Takes over what an earlier process kept. To be called before the first connection; [`RuntimeMachine::recover`]
    /// follows once the agents are registered.
    ///
    /// # Errors
    /// When something kept cannot be read, which no store of this version writes.
    pub fn restore(&mut self, now: Now, kept: Kept) -> Result<(), Error> {
        let mut follows = Vec::new();
        for mut restored in kept.sessions {
            let followed = std::mem::take(&mut restored.follows);
            let key = self.restore_session(now, restored);
            follows.extend(followed.into_iter().map(|followed| (key, followed)));
        }
        for restored in kept.jobs {
            self.restore_job(now, restored)?;
        }
        for (key, followed) in follows {
            if let Some(job) = self.jobs_by_id.get(&followed.job_id).copied() {
                self.restore_follower(now, job, key, followed);
            }
        }
        self.credentials.orphans = kept.credentials;
        for key in kept.keys {
            self.restore_key(now, key)?;
        }
        for session in self.sessions.values_mut() {
            let id = Arc::clone(session.id());
            for copied in session.log.iter_mut() {
                let job = self.jobs_by_id.get(&copied.record.job_id).and_then(|key| self.jobs.get(key));
                copied.receiver = match job {
                    Some(job) => Receiver::of((&id, &session.principal), (&job.start.session_id, &job.start.principal)),
                    None => Receiver::Onlooker,
                };
            }
        }
        Ok(())
    }

    fn restore_session(&mut self, now: Now, restored: RestoredSession) -> SessionKey {
        let RestoredSession { session: kept, freed, log, .. } = restored;
        let key = SessionKey(self.fresh_key());
        let name = SessionName { id: kept.id, seed: kept.seed, profile: kept.profile };
        let mut session = Session::new(name, kept.principal, FeatureSet::new(&kept.features), kept.token);
        session.resumed_by = kept.resumed_by;
        session.log = Log::after(freed);
        session.acked = freed;
        for record in log {
            // Told apart once the jobs are back.
            session.log.push(Copied { record, receiver: Receiver::Onlooker });
        }
        session.event_seq = session.log.highest();
        // A connection that was open was lost when the process ended, and the runtime can be reached again only now.
        let lost_for = kept.detached_at.map_or(0, |at| now.wall.0.saturating_sub(at.0).max(0).unsigned_abs());
        session.detached_at = Some(kept.detached_at.unwrap_or(now.wall));
        let left = self.config.resume_window.saturating_sub(Duration::from_millis(lost_for));
        self.timers.set(Timer::SessionWindow(key), now.mono + left);
        session.detached_since = Some(now.mono);
        self.detached.insert((now.mono, key));
        self.sessions_by_id.insert(Arc::clone(session.id()), key);
        self.sessions.insert(key, session);
        key
    }

    fn restore_job(&mut self, now: Now, restored: RestoredJob) -> Result<(), Error> {
        let RestoredJob { job: kept, status, budget: left, job_seq, source_seq, chunked, terminal } = restored;
        let lease = Lease::parse(kept.lease.get())?;
        let lease_budget = lease.budget();
        let mut budget = lease_budget.clone();
        if let (Some(budget), Some(left)) = (&mut budget, &left) {
            budget.restore(left.get())?;
        }
        let lease_end = match &kept.expires_at {
            Some(text) => Some(LeaseEnd::new(lease::parse_expires_at(text)?, now)),
            None => None,
        };
        let start = JobStart {
            job_id: Arc::clone(&kept.job_id),
            session_id: Arc::clone(&kept.session),
            principal: kept.principal,
            agent: kept.agent,
            version: kept.version,
            trace_id: kept.trace_id,
            trace_context: kept.trace_context,
            lease: Arc::new(lease),
            lease_constraints: kept.expires_at.map(|end| LeaseConstraints { expires_at: Some(end) }),
            input: kept.input,
            max_runtime_sec: kept.max_runtime_sec,
            parent_job_id: kept.parent_job_id,
        };
        let key = JobKey(self.fresh_key());
        let session = self.sessions_by_id.get(&kept.session).copied();
        let family = Family {
            ancestors: self.ancestors_of(&start),
            delegate_id: kept.delegate_id,
            delegated: start.parent_job_id.is_some() && kept.request_id.is_empty(),
            ..Family::default()
        };
        let mut job = Job::new(start, session, kept.created_at, lease_end, lease_budget, family)?;
        job.budget = budget;
        job.job_seq = job_seq;
        job.source_seq = source_seq;
        job.chunked = chunked;
        job.claim = kept.key.map(|name| (Arc::clone(&job.start.principal), name));
        job.status = terminal.as_ref().and_then(|terminal| terminal.kind.final_status()).unwrap_or(status);
        if let Some(session) = session.and_then(|key| self.sessions.get_mut(&key)) {
            // A delegated job has no request.
            let request_id = Some(&*kept.request_id).filter(|id| !id.is_empty());
            let frame = super::submission::accepted_frame(&mut self.ids, now, session, request_id, &job);
            session.unsure.insert(Arc::clone(&kept.job_id), frame.clone());
            if let Some(request_id) = request_id {
                session.mark_seen(request_id);
                session.remember_answer(request_id, ConnKey(0), frame);
            }
        }
        if let Some(terminal) = terminal {
            let kept_for = now.wall.0.saturating_sub(terminal.at.0).max(0).unsigned_abs();
            let left = self.retention().saturating_sub(Duration::from_millis(kept_for));
            job.terminal = Some(terminal);
            self.timers.set(Timer::Retention(key), now.mono + left);
            self.ended.push_back(key);
        } else {
            if let Some(session) = session.and_then(|key| self.sessions.get_mut(&key)) {
                session.running.insert(key);
            }
            self.join_family(key, &job.family);
            self.orphans.push(key);
        }
        self.jobs_by_id.insert(Arc::clone(&job.start.job_id), key);
        self.index.insert(key, &job);
        self.jobs.insert(key, job);
        Ok(())
    }

    /// Settles the jobs that died with the process before this one: a restartable agent is started again under the same
    /// id, unless a part of its result was sent already (D-26); any other job ends in a kept `INTERNAL_ERROR` (D-8). So
    /// does every child, ahead of its parent: a parent that is started again delegates again.
    pub fn recover(&mut self, now: Now, is_restartable: impl Fn(&JobStart) -> bool) {
        self.revoke_orphans();
        // The policy may be another one by now.
        self.policy_changed();
        let mut again = Vec::new();
        for key in std::mem::take(&mut self.orphans).into_iter().rev() {
            let Some(job) = self.jobs.get_mut(&key) else { continue };
            let known = AgentRef::parse(&job.start.agent_ref()).is_ok_and(|agent| self.agents.resolve(&agent).is_ok());
            if known && !job.chunked && job.start.parent_job_id.is_none() && is_restartable(&job.start) {
                job.status = JobStatus::Pending;
                let spent = Duration::from_millis(now.wall.0.saturating_sub(job.created_at.0).max(0).unsigned_abs());
                job.max_runtime = job.max_runtime.map(|limit| limit.saturating_sub(spent));
                if let Some(end) = job.lease_end {
                    self.timers.set(Timer::LeaseEnd(key), end.mono.saturating_add(self.config.lease_grace));
                }
                again.push(key);
            } else {
                let error = Error::internal("the runtime's process ended while the job was running; submit it again");
                // Counted as running, since its end frees a slot.
                job.status = JobStatus::Running;
                self.running += usize::from(!job.family.delegated);
                self.finish(now, key, Outcome::Failed(error));
            }
        }
        for key in again.into_iter().rev() {
            self.enqueue(now, key);
        }
    }
}
