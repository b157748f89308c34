//! Sessions that follow a job: history, then live events, without a seam.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use super::requests::answer_frame;
use super::storage::Gated;
use super::{ConnKey, JobKey, RuntimeEvent, RuntimeMachine, SessionKey};
use crate::error::Error;
use crate::feature::Feature;
use crate::json::RawJson;
use crate::machine::frame::{Receiver, Record};
use crate::machine::job::{Held, Subscriber};
use crate::machine::kept::{AskedBy, KeptFollow, StoreOp};
use crate::machine::policy::Decision;
use crate::machine::session::Copied;
use crate::message::{Subscribe, Subscribed, kind};
use crate::time::Now;

/// The request that makes a session follow a job.
pub(super) struct Asked<'a> {
    pub(super) request_id: &'a str,
    pub(super) by: AskedBy,
    /// The payload of its answer.
    pub(super) answer: &'a RawJson,
    /// The history to be sent is what lies behind this `source_seq`.
    pub(super) owed_after: Option<u64>,
}

impl RuntimeMachine {
    /// This session follows the job from now on. To be kept ahead of the answer that says so, and with what it takes to
    /// repeat that answer and to make up for a history that never came (D-17).
    pub(super) fn follow(&mut self, key: SessionKey, job: JobKey, job_id: &Arc<str>, asked: Asked<'_>) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        session.subscriptions.insert(job);
        let session = Arc::clone(session.id());
        let Asked { request_id, by, answer, owed_after } = asked;
        self.keep_durable(|| {
            let (job_id, request_id) = (Arc::clone(job_id), request_id.to_owned());
            let answer = answer.get().to_owned();
            StoreOp::Follow(Box::new(KeptFollow { session, job_id, request_id, asked_by: by, answer, owed_after }))
        });
    }

    /// `verdict` is what a policy that is asked has said.
    pub(super) fn subscribe(
        &mut self,
        now: Now,
        conn: ConnKey,
        key: SessionKey,
        id: &str,
        subscribe: Subscribe,
        verdict: Option<Decision>,
    ) -> Result<(), Error> {
        if !self.sessions.get(&key).is_some_and(|session| session.features.has(Feature::Subscribe)) {
            return Err(Error::invalid("subscribe was not negotiated; the welcome lists what was"));
        }
        let job_key = self.visible_job(key, &subscribe.job_id, verdict)?;
        let ticket = self.fresh_key();
        let awaits_store = self.storage.holds_copies(key, &subscribe.job_id);
        let Some(job) = self.jobs.get_mut(&job_key) else { return Ok(()) };
        let ended = job.status.is_terminal();
        // Each event reaches a session once: its own running job's are on their way already, and a second
        // subscription is the first one.
        let follows = job.is_followed_by(key);
        let own_live = job.session == Some(key) && (!ended || awaits_store);
        let fresh = !follows && !own_live;
        let after = subscribe.from_event_seq.unwrap_or(0);
        let replay = subscribe.history && fresh && job.job_seq > 0 && (after == 0 || job.source_seq > after);
        let answer = Subscribed {
            job_id: subscribe.job_id,
            current_status: job.status,
            agent: job.start.agent_ref(),
            lease: job.accepted.lease.clone(),
            lease_constraints: job.start.lease_constraints.clone(),
            budget: job.budget_json(),
            credentials: None,
            parent_job_id: job.start.parent_job_id.as_deref().map(str::to_owned),
            trace_id: Some(job.start.trace_id.to_string()),
            subscribed_from: job.source_seq,
            replayed: replay,
            request_id: Some(id.to_owned()),
        };
        let (job_id, trace_id) = (Arc::clone(&job.start.job_id), Arc::clone(&job.start.trace_id));
        let answer = RawJson::from_serialize(&answer)?;
        if fresh && (replay || !ended) {
            let held = replay.then(|| Held { ticket, records: VecDeque::new() });
            job.subscribers.push(Subscriber { session: key, held });
            let owed_after = replay.then_some(after);
            let asked = Asked { request_id: id, by: AskedBy::Subscribe, answer: &answer, owed_after };
            self.follow(key, job_key, &job_id, asked);
        }
        self.answer_request(now, conn, key, id, kind::JOB_SUBSCRIBED, Some((Arc::clone(&job_id), trace_id)), &answer);
        if replay {
            self.history.insert(ticket, (job_key, key));
            self.events.push_back(RuntimeEvent::ReadHistory { ticket, job_id, after_source_seq: after });
        }
        Ok(())
    }

    /// Kept records, in order, for the subscription this ticket names; what happened meanwhile follows them.
    pub fn handle_history(&mut self, now: Now, ticket: u64, records: &[Arc<Record>]) {
        let Some((job_key, session)) = self.history.remove(&ticket) else { return };
        let Some(job) = self.jobs.get_mut(&job_key) else { return };
        let Some(subscriber) = job
            .subscribers
            .iter_mut()
            .find(|subscriber| subscriber.held.as_ref().is_some_and(|held| held.ticket == ticket))
        else {
            return;
        };
        let held = subscriber.held.take().map(|held| held.records).unwrap_or_default();
        let ended = job.status.is_terminal();
        if ended {
            job.subscribers.retain(|subscriber| subscriber.session != session);
            if let Some(session) = self.sessions.get_mut(&session) {
                session.subscriptions.remove(&job_key);
            }
        }
        let conn = self.sessions.get(&session).and_then(|session| session.conn);
        if let Some(entry) = conn.and_then(|conn| self.conns.get_mut(&conn)) {
            entry.replaying = true;
            entry.histories += 1;
        }
        let receiver = self.jobs.get(&job_key).map(|job| self.receiver(session, job)).unwrap_or_default();
        let known: HashSet<u64> = records.iter().map(|record| record.job_seq).collect();
        let late = held.iter().filter(|record| !known.contains(&record.job_seq));
        let history: Vec<_> = records.iter().chain(late).map(Arc::clone).collect();
        self.send_history(now, session, job_key, history, receiver);
        if let Some(conn) = conn {
            self.gate(now, Gated::EndOfHistory(conn));
        }
    }

    /// Numbers a whole history in one operation, so that no crash leaves a part of it.
    fn send_history(
        &mut self,
        now: Now,
        key: SessionKey,
        job: JobKey,
        mut history: Vec<Arc<Record>>,
        receiver: Receiver,
    ) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        history.retain(|record| session.sees(record.feature));
        let first_event_seq = session.event_seq + 1;
        session.event_seq += history.len() as u64;
        if self.config.durable
            && let Some(job) = self.jobs.get(&job)
        {
            let (session, job_id) = (Arc::clone(session.id()), Arc::clone(&job.start.job_id));
            self.storage.keep(StoreOp::History { session, job_id, first_event_seq, records: history.clone() });
        }
        for record in history {
            self.gate(now, Gated::Copy(key, Copied { record, receiver }));
        }
    }

    /// Takes back that a session follows this job. What it is owed of the history is read once more.
    pub(super) fn restore_follower(&mut self, now: Now, job_key: JobKey, key: SessionKey, kept: KeptFollow) {
        let ticket = self.fresh_key();
        let Some(job) = self.jobs.get_mut(&job_key) else { return };
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let owed = kept.owed_after.map(|after| (ticket, after));
        if job.terminal.is_none() || owed.is_some() {
            let held = owed.map(|(ticket, _)| Held { ticket, records: VecDeque::new() });
            job.subscribers.push(Subscriber { session: key, held });
            session.subscriptions.insert(job_key);
        }
        let kind = match kept.asked_by {
            AskedBy::Subscribe => kind::JOB_SUBSCRIBED,
            AskedBy::Submit => kind::JOB_ACCEPTED,
        };
        if let Ok(answer) = RawJson::parse(&kept.answer) {
            let names = (Arc::clone(&job.start.job_id), Arc::clone(&job.start.trace_id));
            let frame = answer_frame(&mut self.ids, now, session, kind, Some(names), &answer);
            session.mark_seen(&kept.request_id);
            session.remember_answer(&kept.request_id, ConnKey(0), frame.clone());
            if job.session != Some(key) {
                session.unsure.insert(Arc::clone(&kept.job_id), frame);
            }
        }
        if let Some((ticket, after_source_seq)) = owed {
            self.history.insert(ticket, (job_key, key));
            self.events.push_back(RuntimeEvent::ReadHistory { ticket, job_id: kept.job_id, after_source_seq });
        }
    }

    /// Unknown jobs are ignored, and there is no answer.
    pub(super) fn unsubscribe(&mut self, key: SessionKey, job_id: &str) {
        let Some(job_key) = self.jobs_by_id.get(job_id).copied() else { return };
        self.unfollow(key, job_key);
        self.withdraw_question(key, job_id);
    }
}
