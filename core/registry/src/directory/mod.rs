//! The agents, in memory: who there is, who is alive, who may do what (REG-170 to REG-178, REG-190 to REG-194).
//!
//! No IO and no clock: a [`Moment`] is an argument, and what is to be kept or told is handed back. What must be durable
//! before it is true happens in two steps: a reservation, which others run into, and its end once the store has spoken.

pub mod caller;
pub mod change;
pub mod figures;
mod index;
mod ordered;
pub mod record;
pub mod refusal;
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
use crate::model::{AgentStatus, MetricsUpdate, Registration};

pub use caller::Caller;
pub use change::{Change, ChangeKind};
pub use figures::Figures;
pub use record::{AgentView, Record};
pub use refusal::{Action, Refusal};
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

/// A registration that is allowed and not true yet.
#[derive(Debug)]
pub struct Reservation {
    /// Counts registrations.
    pub key: u64,
    /// What will be there.
    pub record: Arc<Record>,
    /// The hash of the key it comes with; whoever had it before has it no more.
    pub key_hash: Option<Arc<str>>,
    token: Option<Arc<str>>,
    at: Moment,
}

/// An unregistration that is allowed and not true yet.
#[derive(Debug)]
pub struct Leaving {
    /// Who goes.
    pub agent_id: Arc<str>,
    /// Of which registration.
    pub key: u64,
}

/// Metrics that changed, as they are and as they were.
#[derive(Debug)]
pub struct Counted {
    /// The agent with its new metrics.
    pub agent: AgentView,
    /// Of which registration.
    pub key: u64,
    slot: u32,
    before: Option<Arc<Figures>>,
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

    // Registration

    /// Allows a registration, or says why not. Nothing is true before [`Directory::finish_register`].
    ///
    /// # Errors
    /// REG-170, REG-192, REG-193, and what a temporary token may not do (REG-133).
    pub fn begin_register(
        &mut self,
        caller: &Caller,
        registration: &Registration,
        now: Moment,
    ) -> Result<Reservation, Refusal> {
        self.reserve(caller, registration, now.wall, now)
    }

    /// The same for an agent that comes from another registry, where it registered earlier. Whoever has its id here, dead
    /// or alive, keeps it.
    ///
    /// # Errors
    /// As [`Directory::begin_register`].
    pub fn begin_import(
        &mut self,
        registration: &Registration,
        registered_at: Timestamp,
        now: Moment,
    ) -> Result<Reservation, Refusal> {
        if self.find(&registration.agent_id).is_some() {
            return Err(Refusal::Duplicate(registration.agent_id.as_str().into()));
        }
        self.reserve(&Caller::Admin { user: "import".into() }, registration, registered_at, now)
    }

    fn reserve(
        &mut self,
        caller: &Caller,
        registration: &Registration,
        registered_at: Timestamp,
        now: Moment,
    ) -> Result<Reservation, Refusal> {
        let agent_id = Arc::<str>::from(registration.agent_id.as_str());
        let (key_hash, token) = self.may_register(caller, &agent_id)?;
        let existing = self.find(&agent_id);
        if existing.is_none() && self.by_id.len() + self.pending.len() >= self.config.max_agents {
            return Err(Refusal::Full(self.config.max_agents));
        }
        // An agent that comes back by its own token keeps the key it came with first.
        let key_hash = key_hash.or_else(|| match caller {
            Caller::Agent { .. } => existing.and_then(|(_, agent)| agent.key_hash.clone()),
            _ => None,
        });
        let record = self.record(registration, registered_at);
        if let Some((token_id, expires_at)) = &token {
            self.tokens.insert(Arc::clone(token_id), *expires_at);
        }
        if let Some(hash) = &key_hash {
            self.pending_keys.insert(Arc::clone(hash), Arc::clone(&agent_id));
        }
        self.pending.insert(agent_id, key_hash.clone());
        self.last_key += 1;
        Ok(Reservation { key: self.last_key, record, key_hash, token: token.map(|(id, _)| id), at: now })
    }

    /// The hash of the key a caller registers with, and the token that is used up.
    #[allow(clippy::type_complexity, reason = "two optional parts of one answer")]
    fn may_register(
        &self,
        caller: &Caller,
        agent_id: &Arc<str>,
    ) -> Result<(Option<Arc<str>>, Option<(Arc<str>, Timestamp)>), Refusal> {
        if let Caller::Agent { agent_id: own } = caller
            && own != agent_id
        {
            let (caller, target) = (Some(Arc::clone(own)), Arc::clone(agent_id));
            return Err(Refusal::NotYours { action: Action::Register, caller, target });
        }
        if !matches!(caller, Caller::Agent { .. } | Caller::Temporary { .. } | Caller::Admin { .. }) {
            return Err(Refusal::NotAllowed);
        }
        if self.find(agent_id).is_some_and(|(_, agent)| agent.status == AgentStatus::Alive) {
            return Err(Refusal::Duplicate(Arc::clone(agent_id)));
        }
        if self.pending.contains_key(agent_id) {
            return Err(Refusal::Busy(Arc::clone(agent_id)));
        }
        let Caller::Temporary { agent_id: issued_for, key_hash, token_id, expires_at, .. } = caller else {
            return Ok((None, None));
        };
        if let Some(by) = self.holder(key_hash)
            && by != agent_id
        {
            return Err(Refusal::KeyInUse { agent_id: Arc::clone(agent_id), by: Arc::clone(by) });
        }
        if issued_for != agent_id {
            return Err(Refusal::ForeignToken { issued_for: Arc::clone(issued_for), target: Arc::clone(agent_id) });
        }
        if self.tokens.contains_key(token_id) {
            return Err(Refusal::TokenUsed);
        }
        Ok((Some(Arc::clone(key_hash)), Some((Arc::clone(token_id), *expires_at))))
    }

    /// The live agent, or the one on its way, that has a key.
    fn holder(&self, key_hash: &Arc<str>) -> Option<&Arc<str>> {
        if let Some(by) = self.pending_keys.get(key_hash) {
            return Some(by);
        }
        let by = self.keys.get(key_hash)?;
        self.find(by).filter(|(_, agent)| agent.status == AgentStatus::Alive).map(|_| by)
    }

    /// The reserved agent is there, alive; a dead one of its id is gone.
    pub fn finish_register(&mut self, reservation: Reservation) -> AgentView {
        let Reservation { key, record, key_hash, at, .. } = reservation;
        self.free(&record.agent_id);
        if let Some((slot, _)) = self.find(&record.agent_id) {
            self.drop_agent(slot);
        }
        self.bind(key_hash.as_ref(), &record.agent_id);
        // It took a while to become true; whoever was heard of meanwhile stands before it all the same.
        let heard_at = self.now(at.mono);
        let mut agent = Agent::new(key, Arc::clone(&record), heard_at, at.wall);
        agent.key_hash = key_hash;
        let view = agent.view();
        let slot = self.slots.put(agent);
        self.by_id.insert(Arc::clone(&record.agent_id), slot);
        self.index.add(&self.slots, slot, &record);
        self.living.push(&mut self.slots, slot);
        view
    }

    /// The store refused: nothing happened.
    pub fn abandon_register(&mut self, reservation: Reservation) {
        self.free(&reservation.record.agent_id);
        if let Some(token) = reservation.token {
            self.tokens.remove(&token);
        }
    }

    /// A key is this agent's from now on.
    fn bind(&mut self, key_hash: Option<&Arc<str>>, agent_id: &Arc<str>) {
        let Some(hash) = key_hash else { return };
        let Some(former) = self.keys.insert(Arc::clone(hash), Arc::clone(agent_id)) else { return };
        if let Some(slot) = self.by_id.get(&former)
            && former != *agent_id
            && let Some(agent) = self.slots.get_mut(*slot)
        {
            agent.key_hash = None;
        }
    }

    fn free(&mut self, agent_id: &str) {
        if let Some(Some(hash)) = self.pending.remove(agent_id) {
            self.pending_keys.remove(&hash);
        }
    }

    fn drop_agent(&mut self, slot: u32) -> Option<Agent> {
        let (record, status) = self.slots.get(slot).map(|agent| (Arc::clone(&agent.record), agent.status))?;
        self.index.remove(&self.slots, slot, &record);
        match status {
            AgentStatus::Alive => self.living.remove(&mut self.slots, slot),
            AgentStatus::Dead => self.dead.remove(&mut self.slots, slot),
        }
        self.by_id.remove(&record.agent_id);
        let agent = self.slots.take(slot)?;
        if let Some(hash) = &agent.key_hash {
            self.keys.remove(hash);
        }
        Some(agent)
    }

    /// Allows an agent to go. A temporary token lets the agent go that its key registered.
    ///
    /// # Errors
    /// REG-174.
    pub fn begin_unregister(&mut self, caller: &Caller, agent_id: &str) -> Result<Leaving, Refusal> {
        if let Caller::Temporary { agent_id: issued_for, key_hash, .. } = caller {
            let own = **issued_for == *agent_id;
            let bound = self.find(agent_id).is_none_or(|(_, agent)| agent.key_hash.as_ref() == Some(key_hash));
            if !own || !bound {
                return Err(Refusal::TemporaryOnly);
            }
        } else {
            may(caller, agent_id, Action::Unregister)?;
        }
        let Some((_, agent)) = self.find(agent_id) else {
            return Err(Refusal::NotFound(agent_id.into()));
        };
        let (agent_id, key) = (Arc::clone(&agent.record.agent_id), agent.key);
        if self.pending.contains_key(&agent_id) {
            return Err(Refusal::Busy(agent_id));
        }
        self.pending.insert(Arc::clone(&agent_id), None);
        Ok(Leaving { agent_id, key })
    }

    /// The agent is gone; this is the last of it.
    pub fn finish_unregister(&mut self, leaving: Leaving) -> Option<AgentView> {
        self.free(&leaving.agent_id);
        let (slot, _) = self.find(&leaving.agent_id).filter(|(_, agent)| agent.key == leaving.key)?;
        self.drop_agent(slot).map(|agent| agent.view())
    }

    /// The store refused: the agent stays.
    pub fn abandon_unregister(&mut self, leaving: Leaving) {
        self.free(&leaving.agent_id);
    }

    // Liveness

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
        may(caller, agent_id, Action::Heartbeat)?;
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

    // Metrics

    /// Changes metrics (REG-176).
    ///
    /// # Errors
    /// When there is no such agent, the caller is another, or too much would be kept.
    pub fn set_metrics(
        &mut self,
        caller: &Caller,
        agent_id: &str,
        update: &MetricsUpdate,
        now: Moment,
    ) -> Result<Counted, Refusal> {
        self.change_metrics(caller, agent_id, now, |figures| figures.set(update, now.wall).map_err(Refusal::Invalid))
    }

    /// Counts one answered request (REG-178, REG-194).
    ///
    /// # Errors
    /// When there is no such agent, or the caller is another.
    pub fn report_metrics(
        &mut self,
        caller: &Caller,
        agent_id: &str,
        response_time: f64,
        success: bool,
        now: Moment,
    ) -> Result<Counted, Refusal> {
        self.change_metrics(caller, agent_id, now, |figures| {
            figures.count(response_time, success, now.wall);
            Ok(())
        })
    }

    fn change_metrics(
        &mut self,
        caller: &Caller,
        agent_id: &str,
        now: Moment,
        change: impl FnOnce(&mut Figures) -> Result<(), Refusal>,
    ) -> Result<Counted, Refusal> {
        may(caller, agent_id, Action::UpdateMetrics)?;
        self.now(now.mono);
        let Some((slot, agent)) = self.find(agent_id) else {
            return Err(Refusal::NotFound(agent_id.into()));
        };
        let mut figures = agent.view().figures();
        change(&mut figures)?;
        let Some(agent) = self.slots.get_mut(slot) else {
            return Err(Refusal::NotFound(agent_id.into()));
        };
        let before = agent.figures.replace(Arc::new(figures));
        Ok(Counted { agent: agent.view(), key: agent.key, slot, before })
    }

    /// The store refused: the metrics are what they were, unless they changed again since.
    pub fn abandon_metrics(&mut self, counted: Counted) {
        let Some(agent) = self.slots.get_mut(counted.slot).filter(|agent| agent.key == counted.key) else { return };
        let ours = match (&agent.figures, &counted.agent.figures) {
            (Some(now), Some(set)) => Arc::ptr_eq(now, set),
            _ => false,
        };
        if ours {
            agent.figures = counted.before;
        }
    }

    /// An agent for one who may see its metrics (REG-177).
    ///
    /// # Errors
    /// When there is no such agent, or the caller is another.
    pub fn metrics(&self, caller: &Caller, agent_id: &str) -> Result<AgentView, Refusal> {
        may(caller, agent_id, Action::ViewMetrics)?;
        self.agent(agent_id).ok_or_else(|| Refusal::NotFound(agent_id.into()))
    }
}

/// An agent does these to itself, an administrator to everyone.
fn may(caller: &Caller, target: &str, action: Action) -> Result<(), Refusal> {
    match caller {
        Caller::Admin { .. } => Ok(()),
        Caller::Agent { agent_id } if **agent_id == *target => Ok(()),
        Caller::Agent { agent_id } => {
            Err(Refusal::NotYours { action, caller: Some(Arc::clone(agent_id)), target: target.into() })
        }
        Caller::Temporary { .. } => Err(Refusal::TemporaryOnly),
        Caller::Public | Caller::User { .. } => Err(Refusal::NotAllowed),
    }
}
