//! Healing: a lost link, the next connection, and what goes on over it (R-6.3, D-7, D-17, D-24).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::requests::{Asked, json};
use super::{Backoff, ClientEvent, ClientMachine, HandleKey, Loss, Pending, Request, State, Taken, Ticket, Timer};
use crate::error::{Error, ErrorCode};
use crate::feature::Feature;
use crate::message::{Resume, Subscribe, Unsubscribe, Welcome, kind};
use crate::time::Now;

/// The same gap so often in a row is no accident of the link.
const SAME_GAP: u32 = 3;

/// What outlives a connection.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// Whether a loss may be healed: from the first welcome on, or when the application resumes a session.
    pub(super) heals: bool,
    /// Whether any welcome came.
    pub(super) welcomed: bool,
    /// Whether this client took up a session it did not begin, so that it knows none of its jobs.
    pub(super) took_up: bool,
    /// Where that session was taken up.
    pub(super) resumed_from: u64,
    /// Whether the session of now went over more than one connection.
    pub(super) resumed: bool,
    /// Whether the runtime is the published Python one, which is known by the form of its welcome (section 8.2).
    pub(super) is_py11: bool,
    /// The session of the last welcome, and the secret to take it up again.
    pub(super) point: Option<(String, String)>,
    /// Of the hello that is not answered yet: it is repeated under its id, and so gets the same answer (D-17).
    pub(super) hello_id: Option<String>,
    /// How long the session is kept without a connection.
    pub(super) window: Duration,
    attempts: u32,
    cut_at: Duration,
    failing_since: Option<Duration>,
    welcomed_at: Duration,
    seq_at_welcome: u64,
    /// The last good number before a loss that nothing moved, and how often in a row.
    stuck: (u64, u32),
    why: String,
}

impl ClientMachine {
    /// Takes up a session of an earlier client, before [`ClientMachine::connected`] (D-24). Events of its jobs are kept
    /// until [`ClientMachine::job`] asks for them, within bounds.
    pub fn resume(&mut self, resume: &Resume) {
        if self.state == State::Idle {
            self.link.heals = true;
            self.link.took_up = true;
            self.link.resumed_from = resume.last_event_seq;
            self.link.point = Some((resume.session_id.clone(), resume.resume_token.clone()));
            self.start_numbers(resume.last_event_seq);
        }
    }

    /// The host cannot open another connection: every loss is final.
    pub fn never_reconnect(&mut self) {
        self.config.reconnect = None;
    }

    /// The host could not open a transport for [`ClientEvent::Connect`].
    pub fn connect_failed(&mut self, now: Now, why: &str) {
        if let (State::Cut, Some(backoff)) = (self.state, self.config.reconnect) {
            self.link.why = why.to_owned();
            self.try_again(now, backoff);
        }
    }

    /// The connection ended, or is to end because of this.
    pub(super) fn lose(&mut self, now: Now, loss: Loss) {
        match self.config.reconnect.filter(|_| self.link.heals && self.is_healable()) {
            Some(backoff) => self.cut(now, backoff, loss),
            None => self.end(ClientEvent::Lost(loss)),
        }
    }

    fn is_healable(&self) -> bool {
        matches!(self.state, State::Open | State::Handshaking)
    }

    /// Nothing follows this.
    pub(super) fn end(&mut self, last: ClientEvent) {
        self.state = State::Closed;
        self.timers = super::Timers::new();
        self.out.clear();
        self.events.push_back(last);
    }

    fn cut(&mut self, now: Now, backoff: Backoff, loss: Loss) {
        if self.state == State::Open {
            self.link.cut_at = now.mono;
            let moved = self.last_seq > self.link.seq_at_welcome;
            if moved || now.mono.saturating_sub(self.link.welcomed_at) >= backoff.max {
                self.link.attempts = 0;
                self.link.failing_since = None;
            }
        }
        if matches!(loss, Loss::Gap { .. } | Loss::Oversize) {
            let (at, times) = self.link.stuck;
            self.link.stuck = if at == self.last_seq { (at, times + 1) } else { (self.last_seq, 1) };
            if self.link.stuck.1 >= SAME_GAP {
                let why = format!("{loss}, {SAME_GAP} times in a row");
                return self.end(ClientEvent::Lost(Loss::GaveUp { attempts: self.link.attempts, why }));
            }
        }
        self.link.failing_since.get_or_insert(now.mono);
        self.link.why = loss.to_string();
        self.state = State::Cut;
        self.session_id = None;
        self.heartbeat = None;
        self.out.clear();
        for timer in [Timer::Handshake, Timer::Heartbeat, Timer::Ack] {
            self.timers.clear(timer);
        }
        self.events.push_back(ClientEvent::Cut(loss));
        self.try_again(now, backoff);
    }

    /// Waits for a random part of a limit that doubles with every attempt.
    fn try_again(&mut self, now: Now, backoff: Backoff) {
        let limit = backoff.initial.saturating_mul(1 << self.link.attempts.min(20)).min(backoff.max);
        let random = self.ids.random();
        let random = u32::from_be_bytes([random[0], random[1], random[2], random[3]]);
        let wait = limit.mul_f64(f64::from(random) / f64::from(u32::MAX));
        self.timers.set(Timer::Reconnect, now.mono + wait);
        if let (Some(bound), Some(since)) = (backoff.give_up_after, self.link.failing_since) {
            self.timers.set(Timer::GiveUp, since + bound);
        }
    }

    pub(super) fn ask_for_connection(&mut self) {
        if self.state == State::Cut {
            self.link.attempts += 1;
            self.events.push_back(ClientEvent::Connect { attempt: self.link.attempts });
        }
    }

    pub(super) fn give_up(&mut self) {
        if matches!(self.state, State::Cut | State::Handshaking) {
            let why = std::mem::take(&mut self.link.why);
            self.end(ClientEvent::Lost(Loss::GaveUp { attempts: self.link.attempts, why }));
        }
    }

    /// What the next hello says of the session before; nothing once its time is over.
    pub(super) fn resume_block(&mut self, now: Now) -> Option<Resume> {
        let over = self.link.welcomed && now.mono.saturating_sub(self.link.cut_at) >= self.link.window;
        if over {
            self.link.point = None;
        }
        let (session_id, resume_token) = self.link.point.clone()?;
        Some(Resume { session_id, resume_token, last_event_seq: self.last_seq })
    }

    /// The hello was refused, or not answered in time.
    pub(super) fn not_welcomed(&mut self, now: Now, why: Option<Error>) {
        let Some(backoff) = self.config.reconnect.filter(|_| self.link.heals) else {
            return self.end(ClientEvent::NotWelcomed(why));
        };
        let Some(error) = why else {
            return self.cut(now, backoff, Loss::Disconnected("no session.welcome came in time".into()));
        };
        let gone = matches!(error.code, ErrorCode::ResumeWindowExpired | ErrorCode::PermissionDenied);
        if self.link.welcomed && self.link.point.is_some() && gone {
            // The session is over, the client is not.
            self.link.point = None;
            self.link.hello_id = None;
            self.cut(now, backoff, Loss::Refused(error));
        } else if self.link.welcomed && error.retryable && error.code != ErrorCode::Unauthenticated {
            self.cut(now, backoff, Loss::Refused(error));
        } else if self.link.welcomed {
            self.end(ClientEvent::Lost(Loss::Refused(error)));
        } else {
            self.end(ClientEvent::NotWelcomed(Some(error)));
        }
    }

    /// What a welcome means for the session before it.
    pub(super) fn take_up(&mut self, now: Now, welcome: &Arc<Welcome>) {
        let again = self.link.welcomed;
        let resumed = self.link.point.as_ref().is_some_and(|(session_id, _)| *session_id == welcome.session_id);
        self.link.heals = true;
        self.link.welcomed = true;
        self.link.hello_id = None;
        self.link.point = Some((welcome.session_id.clone(), welcome.resume_token.clone()));
        self.link.window = Duration::from_secs(welcome.resume_window_sec);
        self.timers.clear(Timer::GiveUp);
        if again && !resumed {
            self.start_over();
        }
        self.link.resumed = resumed;
        self.link.welcomed_at = now.mono;
        self.link.seq_at_welcome = self.last_seq;
        let welcome = Arc::clone(welcome);
        self.events.push_back(match (again, resumed) {
            (false, _) => ClientEvent::Welcomed(welcome),
            (true, true) => ClientEvent::Resumed(welcome),
            (true, false) => ClientEvent::StartedOver(welcome),
        });
        let mut waiting: Vec<Ticket> = self.pending.keys().copied().collect();
        // A later subscription to the same job must not stand in for one with history.
        let follows_anew = |pending: &Pending| matches!(pending.what, Request::Reattach(_));
        waiting.sort_by_key(|ticket| !self.pending.get(ticket).is_some_and(follows_anew));
        if again && !resumed {
            self.reattach(now);
        } else if again && self.link.is_py11 {
            self.follow_anew(now);
        }
        self.send_again(now, waiting);
        if resumed {
            self.acknowledge_again(now);
        }
    }

    /// The last ack may have been lost with the connection.
    fn acknowledge_again(&mut self, now: Now) {
        let acked = std::mem::take(&mut self.acked);
        let through = if self.config.auto_ack { self.taken.through() } else { acked };
        if through > self.link.resumed_from {
            self.ack(now, through);
        }
    }

    /// Everything that waits for an answer is sent, in order and under its own id.
    fn send_again(&mut self, now: Now, waiting: Vec<Ticket>) {
        for job_id in std::mem::take(&mut self.to_unsubscribe) {
            self.unsubscribe(now, &job_id);
        }
        for ticket in waiting {
            let Some(pending) = self.pending.get_mut(&ticket) else { continue };
            let lacking = match pending.what {
                Request::Subscribe(_) | Request::Reattach(_) => Feature::Subscribe,
                Request::ListJobs => Feature::ListJobs,
                Request::Submit { .. } => {
                    if pending.sent && !pending.again {
                        pending.again = true;
                        self.repeated_submits += 1;
                    }
                    self.transmit(now, ticket);
                    continue;
                }
                Request::Cancel => {
                    self.transmit(now, ticket);
                    continue;
                }
            };
            if self.features.has(lacking) {
                self.transmit(now, ticket);
            } else {
                self.refuse(ticket, not_negotiated(lacking));
            }
        }
    }

    /// The session is gone for good: what belonged to it and cannot be carried over ends here.
    fn start_over(&mut self) {
        self.base += self.last_seq;
        self.start_numbers(0);
        self.stash.clear();
        self.recent = None;
        self.link.took_up = false;
        self.link.resumed_from = 0;
        self.link.stuck = (0, 0);
        self.to_unsubscribe.clear();
        for route in self.routes.values_mut() {
            route.own = false;
        }
        let lost = |pending: &Pending| match pending.what {
            Request::Submit { keyed, .. } => pending.sent && !keyed,
            Request::Reattach(_) => true,
            _ => false,
        };
        let lost: Vec<Ticket> =
            self.pending.iter().filter(|(_, pending)| lost(pending)).map(|(ticket, _)| *ticket).collect();
        for ticket in lost {
            if let Some((ticket, Request::Submit { abandoned: false, .. })) = self.settle(ticket) {
                self.events.push_back(ClientEvent::Unknown(ticket));
            }
        }
        // None of the others is known to the new session.
        for pending in self.pending.values_mut() {
            pending.again = false;
            if let (Request::Subscribe(handle), true) = (&pending.what, pending.sent) {
                let job_id = pending.job_id.as_deref().unwrap_or_default();
                let route = self.routes.get(job_id);
                let view = route.and_then(|route| route.views.iter().find(|view| view.key == *handle));
                // Events may come before the answer; what was told of them has no holes.
                if let Some(from) = view.map(|view| view.source_seq).filter(|from| *from > 0) {
                    let from_event_seq = Some(from);
                    let subscribe = Subscribe { job_id: job_id.to_owned(), from_event_seq, history: true };
                    pending.payload = json(&subscribe).into();
                }
            }
        }
        self.repeated_submits = 0;
    }

    pub(super) fn start_numbers(&mut self, last_seq: u64) {
        self.last_seq = last_seq;
        self.taken = Taken::from(last_seq);
        self.acked = 0;
    }

    /// Follows every job that still has a handle, from where the handle is.
    fn reattach(&mut self, now: Now) {
        let asked: Vec<HandleKey> = self
            .pending
            .values()
            .filter_map(|pending| match pending.what {
                Request::Subscribe(handle) => Some(handle),
                _ => None,
            })
            .collect();
        // In the order the handles were made.
        let mut jobs: BTreeMap<HandleKey, (Arc<str>, u64)> = BTreeMap::new();
        let mut hopeless = Vec::new();
        let follows = self.features.has(Feature::Subscribe);
        for (job_id, route) in &self.routes {
            let mut views = route.views.iter().filter(|view| !asked.contains(&view.key)).peekable();
            let Some(first) = views.peek().map(|view| view.key) else { continue };
            if !follows || views.clone().any(|view| view.unplaced || view.left) {
                hopeless.push((first, Arc::clone(job_id)));
            } else {
                let from = views.map(|view| view.source_seq).min().unwrap_or_default();
                jobs.insert(first, (Arc::clone(job_id), from));
            }
        }
        hopeless.sort();
        for (_, job_id) in hopeless {
            let why = if follows {
                "it is not known how far its events were delivered"
            } else {
                "the runtime does not offer to follow jobs"
            };
            self.cannot_reattach(&job_id, why);
        }
        for (job_id, from) in jobs.into_values() {
            let from_event_seq = (from > 0).then_some(from);
            let subscribe = Subscribe { job_id: job_id.as_ref().to_owned(), from_event_seq, history: true };
            let what = Request::Reattach(Arc::clone(&job_id));
            self.recent.get_or_insert_with(super::Recent::new);
            self.ask(now, what, Asked::of_job(kind::JOB_SUBSCRIBE, &job_id), &subscribe);
        }
    }

    /// Published Python runtimes replay what was sent, but what their jobs do from the cut on reaches subscribers alone
    /// (section 8.2). The subscriptions of before hang on the old connection; what was done without one is not kept.
    fn follow_anew(&mut self, now: Now) {
        // No request id is remembered there: what has no key might be done twice.
        let unknown = |pending: &Pending| pending.sent && matches!(pending.what, Request::Submit { keyed: false, .. });
        let unknown: Vec<Ticket> =
            self.pending.iter().filter(|(_, pending)| unknown(pending)).map(|(ticket, _)| *ticket).collect();
        for ticket in unknown {
            if let Some((ticket, Request::Submit { abandoned: false, .. })) = self.settle(ticket) {
                self.events.push_back(ClientEvent::Unknown(ticket));
            }
        }
        // Asked for before the last cut.
        let stale = |pending: &Pending| matches!(pending.what, Request::Reattach(_));
        let stale: Vec<Ticket> =
            self.pending.iter().filter(|(_, pending)| stale(pending)).map(|(ticket, _)| *ticket).collect();
        for ticket in stale {
            self.settle(ticket);
        }
        let mut jobs: BTreeMap<HandleKey, Arc<str>> = BTreeMap::new();
        for (job_id, route) in &self.routes {
            if let Some(view) = route.views.iter().find(|view| !view.left) {
                jobs.insert(view.key, Arc::clone(job_id));
            }
        }
        for job_id in jobs.into_values() {
            self.follow_live(now, &job_id);
        }
    }

    /// Hears of a job of this session from now on, where only subscribers do.
    pub(super) fn follow_live(&mut self, now: Now, job_id: &Arc<str>) {
        let Some(route) = self.routes.get_mut(job_id) else { return };
        route.own = false;
        if !self.features.has(Feature::Subscribe) {
            return self.cannot_reattach(job_id, "the runtime does not offer to follow jobs");
        }
        // Every subscription is numbered by itself.
        self.recent.get_or_insert_with(super::Recent::new).go_by_ids();
        let id = self.ids.message_id(now.wall);
        let unsubscribe = Unsubscribe { job_id: job_id.as_ref().to_owned() };
        self.send(now, kind::JOB_UNSUBSCRIBE, &id, Some(job_id), None, &unsubscribe);
        let subscribe = Subscribe { job_id: job_id.as_ref().to_owned(), from_event_seq: None, history: false };
        let what = Request::Reattach(Arc::clone(job_id));
        self.ask(now, what, Asked::of_job(kind::JOB_SUBSCRIBE, job_id), &subscribe);
    }

    /// The handles of this job end, since nothing more of it can be had.
    pub(super) fn cannot_reattach(&mut self, job_id: &str, why: &str) {
        let message = if self.link.resumed {
            format!("job {job_id} could not be followed on after the connection was lost: {why}")
        } else {
            format!("the session of job {job_id} could not be taken up again, nor followed from a new one: {why}")
        };
        self.end_handles(job_id, Err(Error::new(ErrorCode::ResumeWindowExpired, message)));
    }
}

pub(super) fn not_negotiated(feature: Feature) -> Error {
    match feature {
        Feature::ListJobs => Error::invalid("this session cannot list jobs: the feature was not negotiated"),
        _ => Error::invalid("this session cannot subscribe: the feature was not negotiated"),
    }
}
