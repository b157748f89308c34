//! Agents in the order they registered: all of them, the live ones, those of a type, those with a capability.

use std::collections::HashMap;
use std::sync::Arc;

use super::ordered::Ordered;
use super::record::Record;
use super::slots::Slots;

/// The live agents of one type or capability, and how many there are with the dead.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) alive: Ordered,
    pub(crate) total: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) all: Ordered,
    pub(crate) alive: Ordered,
    pub(crate) types: HashMap<Arc<str>, Group>,
    pub(crate) capabilities: HashMap<Arc<str>, Group>,
}

/// The word as the group has it, so that it is in memory once.
pub(crate) fn shared(groups: &HashMap<Arc<str>, Group>, word: &str) -> Arc<str> {
    groups.get_key_value(word).map_or_else(|| Arc::from(word), |(word, _)| Arc::clone(word))
}

impl Index {
    /// A live agent is there.
    pub(crate) fn add(&mut self, slots: &Slots, slot: u32, record: &Record) {
        self.all.insert(slot, |slot| slots.key(slot));
        self.types.entry(Arc::clone(&record.agent_type)).or_default().total += 1;
        for capability in &record.capabilities {
            self.capabilities.entry(Arc::clone(capability)).or_default().total += 1;
        }
        self.rise(slots, slot, record);
    }

    /// It is dead no more.
    pub(crate) fn rise(&mut self, slots: &Slots, slot: u32, record: &Record) {
        self.alive.insert(slot, |slot| slots.key(slot));
        if let Some(group) = self.types.get_mut(&record.agent_type) {
            group.alive.insert(slot, |slot| slots.key(slot));
        }
        for capability in &record.capabilities {
            if let Some(group) = self.capabilities.get_mut(capability) {
                group.alive.insert(slot, |slot| slots.key(slot));
            }
        }
    }

    /// It is alive no more. Harmless for one that is dead.
    pub(crate) fn fall(&mut self, slots: &Slots, slot: u32, record: &Record) {
        self.alive.remove(slot, |slot| slots.key(slot));
        if let Some(group) = self.types.get_mut(&record.agent_type) {
            group.alive.remove(slot, |slot| slots.key(slot));
        }
        for capability in &record.capabilities {
            if let Some(group) = self.capabilities.get_mut(capability) {
                group.alive.remove(slot, |slot| slots.key(slot));
            }
        }
    }

    /// It is gone; its slot must not be free yet.
    pub(crate) fn remove(&mut self, slots: &Slots, slot: u32, record: &Record) {
        self.fall(slots, slot, record);
        self.all.remove(slot, |slot| slots.key(slot));
        let leave = |groups: &mut HashMap<Arc<str>, Group>, word: &Arc<str>| {
            if let Some(group) = groups.get_mut(word) {
                group.total -= 1;
                if group.total == 0 {
                    groups.remove(word);
                }
            }
        };
        leave(&mut self.types, &record.agent_type);
        for capability in &record.capabilities {
            leave(&mut self.capabilities, capability);
        }
    }
}
