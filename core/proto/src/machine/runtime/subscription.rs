//! Sessions that follow a job: history, then live events, without a seam.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use super::storage::Gated;
use super::{ConnKey, JobKey, RuntimeEvent, RuntimeMachine, SessionKey};
use crate::error::Error;
use crate::feature::Feature;
use crate::machine::frame::Record;
use crate::machine::job::{Held, Subscriber};
use crate::machine::kept::StoreOp;
use crate::message::{Subscribe, Subscribed, kind};
use crate::time::Now;

impl RuntimeMachine {
    /// This session follows the job from now on.
    pub(super) fn follow(&mut self, key: SessionKey, job: JobKey, job_id: &Arc<str>) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        session.subscriptions.insert(job);
        let session = Arc::clone(session.id());
        self.keep_durable(|| StoreOp::Subscription { session, job_id: Arc::clone(job_id), follows: true });
    }

    pub(super) fn subscribe(
        &mut self,
        now: Now,
        conn: ConnKey,
        key: SessionKey,
        id: &str,
        subscribe: Subscribe,
    ) -> Result<(), Error> {
        if !self.sessions.get(&key).is_some_and(|session| session.features.has(Feature::Subscribe)) {
            return Err(Error::invalid("subscribe was not negotiated; the welcome lists what was"));
        }
        let job_key = self.visible_job(key, &subscribe.job_id)?;
        let ticket = self.fresh_key();
        let awaits_store = self.storage.holds_copies(key, &subscribe.job_id);
        let Some(job) = self.jobs.get_mut(&job_key) else { return Ok(()) };
        let ended = job.status.is_terminal();
        // Each event reaches a session once: its own running job's are on their way already, and a second
        // subscription is the first one.
        let follows = job.subscribers.iter().any(|subscriber| subscriber.session == key);
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
        if fresh && (replay || !ended) {
            let held = replay.then(|| Held { ticket, records: VecDeque::new() });
            job.subscribers.push(Subscriber { session: key, held });
            self.follow(key, job_key, &job_id);
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
        for record in records.iter().chain(late) {
            self.send_copy(now, session, record, receiver);
        }
        if let Some(conn) = conn {
            self.gate(now, Gated::EndOfHistory(conn));
        }
    }

    /// Unknown jobs are ignored, and there is no answer.
    pub(super) fn unsubscribe(&mut self, key: SessionKey, job_id: &str) {
        let Some(job_key) = self.jobs_by_id.get(job_id).copied() else { return };
        self.unfollow(key, job_key);
    }
}
