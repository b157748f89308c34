//! How agents come and go (REG-170, REG-174, REG-192, REG-193): what waits for the store is reserved first.

use std::sync::Arc;

use jiff::Timestamp;

use super::slots::Agent;
use super::{Action, AgentView, Caller, Directory, Moment, Record, Refusal};
use crate::model::{AgentStatus, Registration};

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

impl Directory {
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
        if matches!(caller, Caller::Agent { .. }) {
            self.may(caller, agent_id, Action::Register)?;
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
        let key_hash = match caller {
            Caller::Temporary { key_hash, .. } | Caller::Agent { key_hash: Some(key_hash), .. } => key_hash,
            _ => return Ok((None, None)),
        };
        if let Some(by) = self.holder(key_hash)
            && by != agent_id
        {
            return Err(Refusal::KeyInUse { agent_id: Arc::clone(agent_id), by: Arc::clone(by) });
        }
        let Caller::Temporary { agent_id: issued_for, token_id, expires_at, .. } = caller else {
            return Ok((Some(Arc::clone(key_hash)), None));
        };
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
    pub(super) fn bind(&mut self, key_hash: Option<&Arc<str>>, agent_id: &Arc<str>) {
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

    pub(super) fn drop_agent(&mut self, slot: u32) -> Option<Agent> {
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
            self.may(caller, agent_id, Action::Unregister)?;
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
}
