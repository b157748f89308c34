//! A runtime's session: one principal's numbering, kept events, answers and subscriptions, with at most one connection.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use super::frame::{Frame, Receiver, Record, SessionName};
use super::kept::{KeptSession, ResumedBy, TokenHash};
use super::runtime::{BufferCap, ConnKey, JobKey, Rate};
use crate::feature::{Feature, FeatureSet};
use crate::time::Timestamp;

/// How many message ids a session remembers.
const REMEMBERED_IDS: usize = 8192;

/// How many answers a session can repeat (D-17), and how much they may weigh.
const KEPT_ANSWERS: usize = 1024;
const KEPT_ANSWER_BYTES: usize = 4 << 20;

/// Acceptances kept for a session without a connection; its jobs may go on delegating for the whole resume window.
pub(super) const MAX_UNTOLD: usize = 1024;

/// Whose a token is, and what it allows its bearer: the runtime knows principals, scopes are for agents to look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Never empty.
    pub principal: String,
    /// As the verifier gives them.
    pub scopes: Vec<String>,
}

impl<T: Into<String>> From<T> for Identity {
    fn from(principal: T) -> Self {
        Identity { principal: principal.into(), scopes: Vec::new() }
    }
}

/// One session of a runtime.
#[derive(Debug)]
pub struct Session {
    pub(super) name: Arc<SessionName>,
    pub(super) principal: Arc<str>,
    /// What the last token it was opened or taken up with allows; not kept by the store.
    pub(super) scopes: Arc<[String]>,
    /// When it was last welcomed.
    pub(super) accepted_at: Timestamp,
    pub(super) features: FeatureSet,
    /// Of the resume token in force.
    pub(super) token: TokenHash,
    pub(super) resumed_by: Option<ResumedBy>,
    /// The connection, unless it was lost.
    pub(super) conn: Option<ConnKey>,
    pub(super) detached_at: Option<Timestamp>,
    /// The same on the monotonic clock.
    pub(super) detached_since: Option<Duration>,
    /// Highest number issued.
    pub(super) event_seq: u64,
    /// Highest number the application has taken.
    pub(super) acked: u64,
    /// Whether it was told that its application lags, and has not caught up since.
    pub(super) told_to_read: bool,
    pub(super) rate: Rate,
    pub(super) log: Log,
    /// Acceptances that no connection has taken yet: they go before the replay.
    pub(super) untold: Vec<Frame>,
    /// After a restart: openings, by job, of which nobody knows whether they were taken.
    pub(super) unsure: HashMap<Arc<str>, Frame>,
    /// Jobs this session submitted that have not ended.
    pub(super) running: HashSet<JobKey>,
    /// Jobs of others it follows.
    pub(super) subscriptions: HashSet<JobKey>,
    seen: SeenIds,
    answers: Answers,
}

/// A numbered copy of a record in one session.
#[derive(Clone, Debug)]
pub(super) struct Copied {
    pub(super) record: Arc<Record>,
    pub(super) receiver: Receiver,
}

/// The numbered copies that can be sent again: each is stored, and none has been freed.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// The last number that was freed: `copies` begins at the next.
    pub(super) freed: u64,
    copies: VecDeque<Copied>,
    bytes: usize,
}

impl Copied {
    /// The opening that must go before this copy: its own job's before the job's first event, and before any event of a
    /// job it only follows.
    pub(super) fn take_opening(&self, unsure: &mut HashMap<Arc<str>, Frame>) -> Option<Frame> {
        let may_open = self.record.job_seq == 1 || self.receiver != Receiver::Submitter;
        if may_open { unsure.remove(&self.record.job_id) } else { None }
    }
}

impl Log {
    /// A log whose numbers begin after `freed`.
    pub(super) fn after(freed: u64) -> Self {
        Log { freed, ..Log::default() }
    }

    /// Highest number that may have been sent.
    pub(super) fn highest(&self) -> u64 {
        self.freed + self.copies.len() as u64
    }

    pub(super) fn push(&mut self, copied: Copied) {
        self.bytes += copied.record.cost();
        self.copies.push_back(copied);
    }

    /// Frees everything up to this number.
    pub(super) fn free(&mut self, through: u64) {
        while self.freed < through && self.pop_oldest() {}
    }

    /// At the cap the oldest go; whether any went.
    pub(super) fn trim(&mut self, cap: BufferCap) -> bool {
        let freed = self.freed;
        while (self.copies.len() > cap.events || self.bytes > cap.bytes) && self.pop_oldest() {}
        self.freed > freed
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Copied> {
        self.copies.iter_mut()
    }

    fn pop_oldest(&mut self) -> bool {
        let Some(oldest) = self.copies.pop_front() else { return false };
        self.bytes -= oldest.record.cost();
        self.freed += 1;
        true
    }

    /// Whether a client that has everything up to `last` can be given the rest.
    pub(super) fn covers(&self, last: u64) -> bool {
        (self.freed..=self.highest()).contains(&last)
    }

    /// Everything that is kept up to `last`.
    pub(super) fn through_number(&self, last: u64) -> impl Iterator<Item = &Copied> {
        let count = usize::try_from(last.saturating_sub(self.freed)).unwrap_or(usize::MAX);
        self.copies.iter().take(count)
    }

    /// Everything above `last`, with its numbers.
    pub(super) fn after_number(&self, last: u64) -> impl Iterator<Item = (u64, &Copied)> {
        let skip = usize::try_from(last.saturating_sub(self.freed)).unwrap_or(usize::MAX);
        (self.freed + 1..).zip(&self.copies).skip(skip)
    }
}

impl Session {
    pub(super) fn new(name: SessionName, principal: Arc<str>, features: FeatureSet, token: TokenHash) -> Self {
        Session {
            name: Arc::new(name),
            principal,
            scopes: Arc::default(),
            accepted_at: Timestamp(0),
            features,
            token,
            resumed_by: None,
            conn: None,
            detached_at: None,
            detached_since: None,
            event_seq: 0,
            acked: 0,
            told_to_read: false,
            rate: Rate::default(),
            log: Log::default(),
            untold: Vec::new(),
            unsure: HashMap::new(),
            running: HashSet::new(),
            subscriptions: HashSet::new(),
            seen: SeenIds::default(),
            answers: Answers::default(),
        }
    }

    /// The id the peer knows it by.
    pub fn id(&self) -> &Arc<str> {
        &self.name.id
    }

    /// Who it belongs to.
    pub fn principal(&self) -> &str {
        &self.principal
    }

    /// What the last token it was opened or taken up with allows; empty after a restart, until it is taken up.
    pub fn scopes(&self) -> &Arc<[String]> {
        &self.scopes
    }

    /// When it was last welcomed; the epoch after a restart, until it is taken up.
    pub fn accepted_at(&self) -> Timestamp {
        self.accepted_at
    }

    /// What was negotiated, in the client's order.
    pub fn features(&self) -> &[String] {
        self.features.names()
    }

    /// Whether this feature was negotiated.
    pub fn has(&self, feature: Feature) -> bool {
        self.features.has(feature)
    }

    /// The highest number issued.
    pub fn issued(&self) -> u64 {
        self.event_seq
    }

    /// The highest number its application has taken.
    pub fn acked(&self) -> u64 {
        self.acked
    }

    /// As the store keeps it.
    pub(super) fn kept(&self) -> KeptSession {
        KeptSession {
            id: Arc::clone(&self.name.id),
            principal: Arc::clone(&self.principal),
            seed: self.name.seed,
            profile: self.name.profile,
            features: self.features.names().to_vec(),
            token: self.token,
            resumed_by: self.resumed_by.clone(),
            detached_at: self.detached_at,
        }
    }

    /// Whether the receiver negotiated what this record needs.
    pub(super) fn sees(&self, feature: Option<Feature>) -> bool {
        feature.is_none_or(|feature| self.features.has(feature))
    }

    /// Gives the next number; a number is used only by a record the receiver sees.
    pub(super) fn next_seq(&mut self) -> u64 {
        self.event_seq += 1;
        self.event_seq
    }

    pub(super) fn frame(&self, event_seq: u64, copied: &Copied) -> Frame {
        let Copied { record, receiver } = copied;
        Frame::Event { session: Arc::clone(&self.name), event_seq, record: Arc::clone(record), receiver: *receiver }
    }

    /// A lower ack than an earlier one is ignored, one above the highest issued is clamped. What is
    /// acknowledged needs no replay any more.
    pub(super) fn ack(&mut self, last_processed_seq: u64) {
        self.acked = self.acked.max(last_processed_seq.min(self.log.highest()));
        self.log.free(self.acked);
    }

    /// Whether this message id was met before, within the last [`REMEMBERED_IDS`].
    pub(super) fn is_repeat(&mut self, id: &str) -> bool {
        !self.seen.insert(hash_of(id))
    }

    /// Keeps the answer to a request for when it is asked again over another connection.
    pub(super) fn remember_answer(&mut self, request_id: &str, conn: ConnKey, frame: Frame) {
        self.answers.insert(hash_of(request_id), conn, frame);
    }

    /// The answer to a request that was asked over an earlier connection; it counts as given on this one.
    pub(super) fn answer_again(&mut self, request_id: &str, conn: ConnKey) -> Option<Frame> {
        let (given, frame) = self.answers.by_id.get_mut(&hash_of(request_id))?;
        (std::mem::replace(given, conn) != conn).then(|| frame.clone())
    }

    /// A restored session has met this request.
    pub(super) fn mark_seen(&mut self, request_id: &str) {
        self.seen.insert(hash_of(request_id));
    }
}

/// Ids are compared as hashes: a collision costs a peer one of its own messages in 2^51.
fn hash_of(id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

/// The last message ids.
#[derive(Debug, Default)]
struct SeenIds {
    order: VecDeque<u64>,
    set: HashSet<u64>,
}

impl SeenIds {
    fn insert(&mut self, id: u64) -> bool {
        if !self.set.insert(id) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > REMEMBERED_IDS
            && let Some(oldest) = self.order.pop_front()
        {
            self.set.remove(&oldest);
        }
        true
    }
}

/// The last answers, with the connection each was given on.
#[derive(Debug, Default)]
struct Answers {
    order: VecDeque<u64>,
    by_id: HashMap<u64, (ConnKey, Frame)>,
    bytes: usize,
}

impl Answers {
    fn insert(&mut self, id: u64, conn: ConnKey, frame: Frame) {
        self.bytes += frame.cost();
        match self.by_id.insert(id, (conn, frame)) {
            Some((_, replaced)) => self.bytes -= replaced.cost(),
            None => self.order.push_back(id),
        }
        while self.order.len() > KEPT_ANSWERS || self.bytes > KEPT_ANSWER_BYTES {
            let Some(oldest) = self.order.pop_front() else { break };
            if let Some((_, frame)) = self.by_id.remove(&oldest) {
                self.bytes -= frame.cost();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::frame::RecordKind;

    fn copied() -> Copied {
        let record = Record {
            job_id: "job_1".into(),
            trace_id: "".into(),
            kind: RecordKind::Event,
            job_seq: 1,
            source_seq: 1,
            at: Timestamp(0),
            feature: None,
            payload: bytes::Bytes::from_static(b"{}"),
        };
        Copied { record: Arc::new(record), receiver: Receiver::Submitter }
    }

    #[test]
    fn a_log_covers_what_it_holds_and_the_number_before() {
        let mut log = Log::default();
        for _ in 0..5 {
            log.push(copied());
        }
        log.free(2);
        for (last, covered) in [(0, false), (1, false), (2, true), (4, true), (5, true), (6, false)] {
            assert_eq!(log.covers(last), covered, "{last}");
        }
        assert_eq!(log.after_number(3).map(|(seq, _)| seq).collect::<Vec<_>>(), [4, 5]);
        assert_eq!(log.after_number(5).count(), 0);
    }

    #[test]
    fn a_full_log_loses_its_oldest() {
        let mut log = Log::default();
        for _ in 0..5 {
            log.push(copied());
        }
        assert!(log.trim(BufferCap { events: 2, bytes: usize::MAX }));
        assert_eq!((log.freed, log.highest()), (3, 5));
        assert!(log.trim(BufferCap { events: 9, bytes: 0 }));
        assert_eq!((log.freed, log.highest(), log.bytes), (5, 5, 0));
    }
}
