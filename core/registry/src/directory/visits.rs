//! Looking at agents: one, a list, a page, how many.

use super::index::Group;
use super::ordered::Ordered;
use super::slots::Agent;
use super::{AgentView, Directory, Refusal, Stats};
use crate::model::AgentStatus;

/// Which agents a list holds (REG-171).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListFilter {
    /// Of exactly this type.
    pub agent_type: Option<String>,
    /// `alive` or `dead`; nobody is anything else.
    pub status: Option<String>,
    /// With any of these; empty means all.
    pub capabilities: Vec<String>,
}

/// Which live agents a page holds (REG-183).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiscoverFilter {
    /// Of exactly this type.
    pub agent_type: Option<String>,
    /// With all of these.
    pub capabilities: Vec<String>,
}

/// Some of the agents a filter lets through.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// In the order they registered.
    pub agents: Vec<AgentView>,
    /// All that pass the filter; with more than one condition, those found until the page was full.
    pub total: usize,
}

impl Directory {
    /// An agent, alive or dead.
    pub fn agent(&self, agent_id: &str) -> Option<AgentView> {
        self.find(agent_id).map(|(_, agent)| agent.view())
    }

    /// A live agent (REG-185).
    ///
    /// # Errors
    /// When there is none of this id, or it is dead.
    pub fn available(&self, agent_id: &str) -> Result<AgentView, Refusal> {
        match self.agent(agent_id) {
            Some(agent) if agent.status == AgentStatus::Alive => Ok(agent),
            Some(_) => Err(Refusal::NotAvailable(agent_id.into())),
            None => Err(Refusal::NotFound(agent_id.into())),
        }
    }

    /// Whether an agent, alive or dead, registered with the key of this hash (REG-193).
    pub fn is_bound(&self, agent_id: &str, key_hash: &str) -> bool {
        self.find(agent_id).is_some_and(|(_, agent)| agent.key_hash.as_deref() == Some(key_hash))
    }

    /// Whether there is a live agent of this id.
    pub fn is_alive(&self, agent_id: &str) -> bool {
        self.find(agent_id).is_some_and(|(_, agent)| agent.status == AgentStatus::Alive)
    }

    /// The agents that pass, in the order they registered, the dead too unless said otherwise.
    pub fn list(&self, filter: &ListFilter) -> Vec<AgentView> {
        let status = match filter.status.as_deref() {
            None => None,
            Some("alive") => Some(AgentStatus::Alive),
            Some("dead") => Some(AgentStatus::Dead),
            Some(_) => return Vec::new(),
        };
        let alive = status == Some(AgentStatus::Alive);
        let among = if alive { &self.index.alive } else { &self.index.all };
        let passes = |agent: &&Agent| {
            status.is_none_or(|status| agent.status == status)
                && filter.agent_type.as_ref().is_none_or(|wanted| *agent.record.agent_type == **wanted)
                && (filter.capabilities.is_empty()
                    || filter.capabilities.iter().any(|wanted| agent.record.has_capability(wanted)))
        };
        let unfiltered = filter.agent_type.is_none() && filter.capabilities.is_empty();
        let mut agents = Vec::with_capacity(if unfiltered { among.len() } else { 0 });
        agents.extend(among.iter().filter_map(|slot| self.slots.get(slot)).filter(passes).map(Agent::view));
        agents
    }

    /// Up to `limit` live agents that pass, from the `offset`th on, in the order they registered. With at most one
    /// condition it costs what it gives; with more it looks at the smallest of their groups until the page is full.
    pub fn discover(&self, filter: &DiscoverFilter, limit: usize, offset: usize) -> Page {
        // The smallest group that holds all that pass.
        let mut groups: Vec<&Ordered> = Vec::with_capacity(1 + filter.capabilities.len());
        if let Some(agent_type) = &filter.agent_type {
            let Some(Group { alive, .. }) = self.index.types.get(agent_type.as_str()) else {
                return Page::default();
            };
            groups.push(alive);
        }
        for capability in &filter.capabilities {
            let Some(Group { alive, .. }) = self.index.capabilities.get(capability.as_str()) else {
                return Page::default();
            };
            groups.push(alive);
        }
        let smallest = groups.iter().min_by_key(|group| group.len()).copied().unwrap_or(&self.index.alive);
        if groups.len() <= 1 {
            let slots = smallest.from(offset).take(limit);
            let agents = slots.filter_map(|slot| self.slots.get(slot)).map(Agent::view).collect();
            return Page { agents, total: smallest.len() };
        }
        let mut page = Page::default();
        if limit == 0 {
            return page;
        }
        for agent in smallest.iter().filter_map(|slot| self.slots.get(slot)) {
            let typed = filter.agent_type.as_ref().is_none_or(|wanted| *agent.record.agent_type == **wanted);
            if !typed || !has_all(agent, &filter.capabilities) {
                continue;
            }
            page.total += 1;
            if page.total > offset {
                page.agents.push(agent.view());
            }
            if page.agents.len() >= limit {
                break;
            }
        }
        page
    }

    /// How many agents there are.
    pub fn stats(&self) -> Stats {
        Stats {
            total: self.by_id.len(),
            alive: self.living.len(),
            dead: self.dead.len(),
            types: self.index.types.iter().map(|(name, group)| (name.to_string(), group.total)).collect(),
        }
    }
}

fn has_all(agent: &Agent, capabilities: &[String]) -> bool {
    capabilities.iter().all(|wanted| agent.record.has_capability(wanted))
}
