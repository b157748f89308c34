//! The agents, in memory: who there is, who is alive, who may do what (REG-170 to REG-178, REG-190 to REG-194).
//!
//! No IO and no clock: a [`Moment`] is an argument, and what is to be kept or told is handed back. What must be durable
//! before it is true happens in two steps: a reservation, which others run into, and its end once the store has spoken.

pub mod caller;
pub mod change;
mod counting;
pub mod figures;
mod index;
mod ordered;
pub mod record;
pub mod refusal;
mod registering;
mod slots;
pub mod time;
mod visits;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use self::index::{Index, shared};
use self::slots::{Agent, Queue, Slots};
use crate::model::{AgentStatus, Registration};

pub use caller::Caller;
pub use change::{Change, ChangeKind};
pub use counting::Counted;
pub use figures::Figures;
pub use record::{AgentView, Record};
pub use refusal::{Action, Refusal};
pub use registering::{Leaving, Reservation};
pub use time::{Moment, TimeForm};
pub use visits::{DiscoverFilter, ListFilter, Page};

/// The shortest time after which a silent agent is removed (REG-191).
const LEAST_REMOVAL: Duration = Duration::from_secs(60);
/// The directory's own clock is this far ahead, so that agents that return can have been silent before it began.
const PAST: Duration = Duration::from_secs(365 * 24 * 3600);

/// How the directory works.
#[derive(Clone, Debug)]
pub struct DirectoryConfig {
    /// An agent not heard of for this long is dead (`AGENT_HEARTBEAT_TIMEOUT`, 60 s). One not heard of for twice as
    /// long, and for a minute, is removed.
    pub heartbeat_timeout: Duration,
    /// Agents at most.
    pub max_agents: usize,
    /// The zone times are told in.
    pub zone: TimeZone,
}

/// How many agents there are; `total` is `alive` and `dead` together (REG-311).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Alive and dead.
    pub total: usize,
    /// Heard of in time.
    pub alive: usize,
    /// Silent, and not removed yet.
    pub dead: usize,
    /// Agents by type, the dead too.
    pub types: BTreeMap<String, usize>,
}

/// An agent that comes back from a store.
#[derive(Debug)]
pub struct Returning {
    /// Counts registrations; they return in this order.
    pub key: u64,
    /// What it registered with.
    pub registration: Registration,
    /// When.
    pub registered_at: Timestamp,
    /// When it was last heard of.
    pub last_seen: Timestamp,
    /// The hash of its key.
    pub key_hash: Option<Arc<str>>,
    /// Its metrics.
    pub figures: Option<Figures>,
}

/// The agents.
#[derive(Debug)]
pub struct Directory {
    config: DirectoryConfig,
    slots: Slots,
    by_id: HashMap<Arc<str>, u32>,
    index: Index,
    /// Those alive, and those dead, the longest silent first.
    living: Queue,
    dead: Queue,
    /// Which agent a key registered, by the key's hash (REG-193).
    keys: HashMap<Arc<str>, Arc<str>>,
    /// Used temporary tokens, and when they expire.
    tokens: HashMap<Arc<str>, Timestamp>,
    /// Ids that are being registered or unregistered, and the keys with which.
    pending: HashMap<Arc<str>, Option<Arc<str>>>,
    pending_keys: HashMap<Arc<str>, Arc<str>>,
    last_key: u64,
    /// The latest moment seen: time does not go back.
    clock: Duration,
    /// Agents whose `last_seen` is yet to be kept.
    unsaved: Vec<u32>,
}

impl Directory {
    /// An empty one.
    pub fn new(config: DirectoryConfig) -> Directory {
        Directory {
            config,
            slots: Slots::default(),
            by_id: HashMap::new(),
            index: Index::default(),
            living: Queue::default(),
            dead: Queue::default(),
            keys: HashMap::new(),
            tokens: HashMap::new(),
            pending: HashMap::new(),
            pending_keys: HashMap::new(),
            last_key: 0,
            clock: Duration::ZERO,
            unsaved: Vec::new(),
        }
    }

    /// Takes back what a store kept. Time stood still while the registry was down: whoever was alive at `last_run`, the
    /// latest time it is known to have run, has a whole heartbeat time-out from `now` on to be heard of again; whoever
    /// was dead then is as long dead as it was.
    pub fn restore(
        &mut self,
        returning: Vec<Returning>,
        tokens: Vec<(Arc<str>, Timestamp)>,
        last_key: u64,
        last_run: Timestamp,
        now: Moment,
    ) {
        let mono = self.now(now.mono);
        self.last_key = last_key;
        self.tokens = tokens.into_iter().filter(|(_, expires_at)| *expires_at > now.wall).collect();
        let mut places = Vec::with_capacity(returning.len());
        for agent in returning {
            let silent = Duration::try_from(last_run.duration_since(agent.last_seen)).unwrap_or_default();
            let silent = if silent < self.config.heartbeat_timeout { Duration::ZERO } else { silent };
            let heard_at = mono.saturating_sub(silent);
            self.last_key = self.last_key.max(agent.key);
            let record = self.record(&agent.registration, agent.registered_at);
            self.bind(agent.key_hash.as_ref(), &record.agent_id);
            let mut restored = Agent::new(agent.key, Arc::clone(&record), heard_at, agent.last_seen);
            restored.figures = agent.figures.map(Arc::new);
            restored.key_hash = agent.key_hash;
            let slot = self.slots.put(restored);
            self.by_id.insert(Arc::clone(&record.agent_id), slot);
            self.index.add(&self.slots, slot, &record);
            places.push((heard_at, slot));
        }
        places.sort_unstable();
        for (heard_at, slot) in places {
            self.living.push(&mut self.slots, slot);
            if self.is_silent(heard_at, mono) {
                self.bury(slot);
            }
        }
    }

    fn record(&self, registration: &Registration, registered_at: Timestamp) -> Arc<Record> {
        let agent_type = shared(&self.index.types, &registration.agent_type);
        let mut capabilities: Vec<Arc<str>> = Vec::with_capacity(registration.capabilities.len());
        for capability in &registration.capabilities {
            if !capabilities.iter().any(|known| **known == **capability) {
                capabilities.push(shared(&self.index.capabilities, capability));
            }
        }
        let capabilities = capabilities.into_boxed_slice();
        let zone = self.config.zone.clone();
        Arc::new(Record::new(registration, agent_type, capabilities, registered_at, zone))
    }

    fn now(&mut self, now: Duration) -> Duration {
        self.clock = self.clock.max(now.saturating_add(PAST));
        self.clock
    }

    fn is_silent(&self, heard_at: Duration, now: Duration) -> bool {
        now.saturating_sub(heard_at) >= self.config.heartbeat_timeout
    }

    fn find(&self, agent_id: &str) -> Option<(u32, &Agent)> {
        let slot = *self.by_id.get(agent_id)?;
        Some((slot, self.slots.get(slot)?))
    }

    /// An agent is heard of. Gives the time, and the agent if it was dead (REG-175, REG-190).
    ///
    /// # Errors
    /// When there is no such agent, or the caller is another.
    pub fn heartbeat(
        &mut self,
        caller: &Caller,
        agent_id: &str,
        now: Moment,
    ) -> Result<(Timestamp, Option<AgentView>), Refusal> {
        self.may(caller, agent_id, Action::Heartbeat)?;
        let heard_at = self.now(now.mono);
        let Some(&slot) = self.by_id.get(agent_id) else {
            return Err(Refusal::NotFound(agent_id.into()));
        };
        let Some(agent) = self.slots.get_mut(slot) else {
            return Err(Refusal::NotFound(agent_id.into()));
        };
        (agent.heard_at, agent.last_seen) = (heard_at, now.wall);
        if !std::mem::replace(&mut agent.unsaved, true) {
            self.unsaved.push(slot);
        }
        let revived = agent.status == AgentStatus::Dead;
        if revived {
            agent.status = AgentStatus::Alive;
            let record = Arc::clone(&agent.record);
            self.dead.remove(&mut self.slots, slot);
            self.index.rise(&self.slots, slot, &record);
        } else {
            self.living.remove(&mut self.slots, slot);
        }
        self.living.push(&mut self.slots, slot);
        let view = if revived { self.slots.get(slot).map(Agent::view) } else { None };
        Ok((now.wall, view))
    }

    /// When the next agent dies, if none is heard of until then.
    pub fn next_death(&self) -> Option<Duration> {
        let agent = self.slots.get(self.living.first()?)?;
        Some(agent.heard_at.saturating_add(self.config.heartbeat_timeout).saturating_sub(PAST))
    }

    /// Agents that died since this was last called, each once.
    pub fn expire(&mut self, now: Duration) -> Vec<AgentView> {
        let now = self.now(now);
        let mut died = Vec::new();
        while let Some(slot) = self.living.first()
            && self.slots.get(slot).is_some_and(|agent| self.is_silent(agent.heard_at, now))
        {
            self.bury(slot);
            died.extend(self.slots.get(slot).map(Agent::view));
        }
        died
    }

    fn bury(&mut self, slot: u32) {
        self.living.remove(&mut self.slots, slot);
        let Some(agent) = self.slots.get_mut(slot) else { return };
        agent.status = AgentStatus::Dead;
        let record = Arc::clone(&agent.record);
        self.index.fall(&self.slots, slot, &record);
        self.dead.push(&mut self.slots, slot);
    }

    /// Removes agents that were silent for too long (REG-191), so many at most: their keys of registration, and the last
    /// of them. One that is being registered anew is left to that.
    pub fn clean_up(&mut self, now: Duration, most: usize) -> Vec<(u64, AgentView)> {
        let now = self.now(now);
        let patience = self.config.heartbeat_timeout.saturating_mul(2).max(LEAST_REMOVAL);
        let mut gone = Vec::new();
        let mut next = self.dead.first();
        while let Some(slot) = next.filter(|_| gone.len() < most) {
            let Some(agent) = self.slots.get(slot) else { break };
            if now.saturating_sub(agent.heard_at) <= patience {
                break;
            }
            next = Queue::after(&self.slots, slot);
            if self.pending.contains_key(&agent.record.agent_id) {
                continue;
            }
            gone.extend(self.drop_agent(slot).map(|agent| (agent.key, agent.view())));
        }
        gone
    }

    /// Forgets used tokens that expired; whether there were any.
    pub fn forget_tokens(&mut self, now: Timestamp) -> bool {
        let before = self.tokens.len();
        self.tokens.retain(|_, expires_at| *expires_at > now);
        self.tokens.len() < before
    }

    /// What is to be kept of heartbeats: the keys of those heard of since this was last called, and when.
    pub fn take_seen(&mut self) -> Vec<(u64, Timestamp)> {
        let mut seen = Vec::with_capacity(self.unsaved.len());
        for slot in self.unsaved.drain(..) {
            if let Some(agent) = self.slots.get_mut(slot)
                && std::mem::replace(&mut agent.unsaved, false)
            {
                seen.push((agent.key, agent.last_seen));
            }
        }
        seen
    }

    /// An agent does these to itself, an administrator to everyone. Under its id another agent may be registered by now.
    fn may(&self, caller: &Caller, target: &str, action: Action) -> Result<(), Refusal> {
        match caller {
            Caller::Admin { .. } => Ok(()),
            Caller::Agent { agent_id, key_hash } if **agent_id == *target => {
                let now = self.find(target).and_then(|(_, agent)| agent.key_hash.as_ref());
                match (now, key_hash) {
                    (Some(now), Some(then)) if now != then => Err(Refusal::OtherKey(Arc::clone(agent_id))),
                    _ => Ok(()),
                }
            }
            Caller::Agent { agent_id, .. } => {
                Err(Refusal::NotYours { action, caller: Some(Arc::clone(agent_id)), target: target.into() })
            }
            Caller::Temporary { .. } => Err(Refusal::TemporaryOnly),
            Caller::Public | Caller::User { .. } => Err(Refusal::NotAllowed),
        }
    }

    /// Whether an agent's token may be renewed: the agent is here, and it is its own.
    ///
    /// # Errors
    /// When there is no such agent, or it is another.
    pub fn may_renew(&self, caller: &Caller, agent_id: &str) -> Result<(), Refusal> {
        self.may(caller, agent_id, Action::Heartbeat)?;
        self.find(agent_id).map(|_| ()).ok_or_else(|| Refusal::NotFound(agent_id.into()))
    }
}
