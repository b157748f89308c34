//! What agents say of their work, and how it is counted (REG-176 to REG-178).

use std::sync::Arc;

use super::{Action, AgentView, Caller, Directory, Figures, Moment, Refusal};
use crate::model::MetricsUpdate;

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

impl Directory {
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
        self.may(caller, agent_id, Action::UpdateMetrics)?;
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
        self.may(caller, agent_id, Action::ViewMetrics)?;
        self.agent(agent_id).ok_or_else(|| Refusal::NotFound(agent_id.into()))
    }
}
