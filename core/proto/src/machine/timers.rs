//! Deadlines, each held once, so that cancelling one leaves nothing behind.

use std::collections::BTreeSet;
use std::hash::Hash;
use std::time::Duration;

use rustc_hash::FxHashMap;

/// One deadline per key.
#[derive(Debug)]
pub(super) struct Timers<K> {
    by_key: FxHashMap<K, Duration>,
    by_time: BTreeSet<(Duration, K)>,
}

impl<K: Copy + Eq + Hash + Ord> Timers<K> {
    pub(super) fn new() -> Self {
        Timers { by_key: FxHashMap::default(), by_time: BTreeSet::new() }
    }

    /// Sets the deadline of `key`, replacing an earlier one.
    pub(super) fn set(&mut self, key: K, at: Duration) {
        if let Some(old) = self.by_key.insert(key, at) {
            self.by_time.remove(&(old, key));
        }
        self.by_time.insert((at, key));
    }

    /// Sets the deadline of `key` unless it has one.
    pub(super) fn set_if_none(&mut self, key: K, at: Duration) {
        if !self.by_key.contains_key(&key) {
            self.set(key, at);
        }
    }

    pub(super) fn clear(&mut self, key: K) {
        if let Some(old) = self.by_key.remove(&key) {
            self.by_time.remove(&(old, key));
        }
    }

    pub(super) fn next(&self) -> Option<Duration> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes one key whose deadline has come.
    pub(super) fn pop_due(&mut self, now: Duration) -> Option<K> {
        let (at, key) = *self.by_time.first()?;
        if at > now {
            return None;
        }
        self.clear(key);
        Some(key)
    }
}
