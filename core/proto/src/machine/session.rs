//! A runtime's session: one principal's numbering, answers and subscriptions, with at most one connection.

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::frame::{Frame, Record, SessionName};
use super::runtime::{ConnKey, JobKey};
use crate::feature::{Feature, FeatureSet};

/// How many message ids a session remembers.
const REMEMBERED_IDS: usize = 8192;

/// One session of a runtime.
#[derive(Debug)]
pub struct Session {
    pub(super) name: Arc<SessionName>,
    pub(super) principal: Arc<str>,
    pub(super) features: FeatureSet,
    /// The connection, unless it was lost.
    pub(super) conn: Option<ConnKey>,
    /// Highest number issued.
    pub(super) event_seq: u64,
    /// Highest number the application has taken.
    pub(super) acked: u64,
    /// Jobs this session submitted that have not ended.
    pub(super) running: HashSet<JobKey>,
    /// Jobs of others it follows.
    pub(super) subscriptions: HashSet<JobKey>,
    seen: SeenIds,
}

impl Session {
    pub(super) fn new(name: SessionName, principal: Arc<str>, features: FeatureSet, conn: ConnKey) -> Self {
        Session {
            name: Arc::new(name),
            principal,
            features,
            conn: Some(conn),
            event_seq: 0,
            acked: 0,
            running: HashSet::new(),
            subscriptions: HashSet::new(),
            seen: SeenIds::default(),
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

    /// Whether the receiver negotiated what this record needs.
    pub(super) fn sees(&self, feature: Option<Feature>) -> bool {
        feature.is_none_or(|feature| self.features.has(feature))
    }

    /// Gives the next number; a number is used only by a record the receiver sees.
    pub(super) fn next_seq(&mut self) -> u64 {
        self.event_seq += 1;
        self.event_seq
    }

    pub(super) fn frame(&self, event_seq: u64, record: Arc<Record>) -> Frame {
        Frame::Event { session: Arc::clone(&self.name), event_seq, record }
    }

    /// A lower ack than an earlier one is ignored, one above the highest issued is clamped.
    pub(super) fn ack(&mut self, last_processed_seq: u64) {
        self.acked = self.acked.max(last_processed_seq.min(self.event_seq));
    }

    /// Whether this message id was met before, within the last [`REMEMBERED_IDS`].
    pub(super) fn is_repeat(&mut self, id: &str) -> bool {
        !self.seen.insert(id)
    }
}

/// The last ids, as hashes: a collision costs a peer one of its own messages in 2^51.
#[derive(Debug, Default)]
struct SeenIds {
    order: VecDeque<u64>,
    set: HashSet<u64>,
}

impl SeenIds {
    fn insert(&mut self, id: &str) -> bool {
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        let hash = hasher.finish();
        if !self.set.insert(hash) {
            return false;
        }
        self.order.push_back(hash);
        if self.order.len() > REMEMBERED_IDS
            && let Some(oldest) = self.order.pop_front()
        {
            self.set.remove(&oldest);
        }
        true
    }
}
