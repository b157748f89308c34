//! Where agents sit, and the two queues they stand in by the time they were last heard of.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::figures::Figures;
use super::record::{AgentView, Record};
use crate::model::AgentStatus;

const NONE: u32 = u32::MAX;

/// A registered agent.
#[derive(Debug)]
pub(crate) struct Agent {
    /// Counts registrations.
    pub(crate) key: u64,
    pub(crate) record: Arc<Record>,
    pub(crate) figures: Option<Arc<Figures>>,
    /// The hash of the key it registered with, until another agent registers with it.
    pub(crate) key_hash: Option<Arc<str>>,
    pub(crate) status: AgentStatus,
    /// Liveness goes by this.
    pub(crate) heard_at: Duration,
    /// This is shown.
    pub(crate) last_seen: Timestamp,
    /// Whether `last_seen` is yet to be kept.
    pub(crate) unsaved: bool,
    before: u32,
    after: u32,
}

impl Agent {
    pub(crate) fn new(key: u64, record: Arc<Record>, heard_at: Duration, last_seen: Timestamp) -> Agent {
        Agent {
            key,
            record,
            figures: None,
            key_hash: None,
            status: AgentStatus::Alive,
            heard_at,
            last_seen,
            unsaved: false,
            before: NONE,
            after: NONE,
        }
    }

    pub(crate) fn view(&self) -> AgentView {
        AgentView {
            record: Arc::clone(&self.record),
            status: self.status,
            last_seen: self.last_seen,
            figures: self.figures.clone(),
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Slots {
    agents: Vec<Option<Agent>>,
    free: Vec<u32>,
}

impl Slots {
    pub(crate) fn get(&self, slot: u32) -> Option<&Agent> {
        self.agents.get(slot as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, slot: u32) -> Option<&mut Agent> {
        self.agents.get_mut(slot as usize)?.as_mut()
    }

    pub(crate) fn key(&self, slot: u32) -> u64 {
        self.get(slot).map_or(0, |agent| agent.key)
    }

    pub(crate) fn put(&mut self, agent: Agent) -> u32 {
        if let Some(slot) = self.free.pop() {
            self.agents[slot as usize] = Some(agent);
            return slot;
        }
        self.agents.push(Some(agent));
        // Agents are bounded far below the greatest number.
        u32::try_from(self.agents.len() - 1).unwrap_or(NONE)
    }

    pub(crate) fn take(&mut self, slot: u32) -> Option<Agent> {
        let agent = self.agents.get_mut(slot as usize)?.take()?;
        self.free.push(slot);
        Some(agent)
    }
}

/// A queue by the time last heard of, the longest silent first. An agent stands in one queue at most.
#[derive(Debug)]
pub(crate) struct Queue {
    first: u32,
    last: u32,
    len: usize,
}

impl Default for Queue {
    fn default() -> Self {
        Queue { first: NONE, last: NONE, len: 0 }
    }
}

impl Queue {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn first(&self) -> Option<u32> {
        Some(self.first).filter(|slot| *slot != NONE)
    }

    pub(crate) fn after(slots: &Slots, slot: u32) -> Option<u32> {
        slots.get(slot).map(|agent| agent.after).filter(|slot| *slot != NONE)
    }

    /// Whoever was heard of last stands last.
    pub(crate) fn push(&mut self, slots: &mut Slots, slot: u32) {
        let before = self.last;
        let Some(agent) = slots.get_mut(slot) else { return };
        (agent.before, agent.after) = (before, NONE);
        match slots.get_mut(before) {
            Some(former) => former.after = slot,
            None => self.first = slot,
        }
        self.last = slot;
        self.len += 1;
    }

    pub(crate) fn remove(&mut self, slots: &mut Slots, slot: u32) {
        let Some(agent) = slots.get_mut(slot) else { return };
        let (before, after) = (agent.before, agent.after);
        (agent.before, agent.after) = (NONE, NONE);
        match slots.get_mut(before) {
            Some(former) => former.after = after,
            None => self.first = after,
        }
        match slots.get_mut(after) {
            Some(next) => next.before = before,
            None => self.last = before,
        }
        self.len -= 1;
    }
}
