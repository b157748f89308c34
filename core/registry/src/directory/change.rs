//! What happened to an agent, for those who watch.

use std::sync::Arc;

use jiff::Timestamp;

use super::record::AgentView;
use crate::model::AgentStatus;

/// One change of the registry.
#[derive(Clone, Debug)]
pub struct Change {
    /// Counts the changes of this process from 1, without gaps: who misses one reads the whole list anew.
    pub revision: u64,
    /// What happened.
    pub kind: ChangeKind,
    /// To whom.
    pub agent_id: Arc<str>,
    /// The agent after the change; the last there was of one that is gone.
    pub agent: AgentView,
    /// When.
    pub at: Timestamp,
}

/// What happens to an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It registered, perhaps over a dead one of its id.
    Registered,
    /// It went, by its own will or an administrator's.
    Unregistered,
    /// It died, or came back to life.
    StatusChanged(AgentStatus),
    /// It was dead for too long (REG-191).
    Removed,
}

impl ChangeKind {
    /// One word for it, for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            ChangeKind::Registered => "registered",
            ChangeKind::Unregistered => "unregistered",
            ChangeKind::StatusChanged(AgentStatus::Alive) => "revived",
            ChangeKind::StatusChanged(AgentStatus::Dead) => "died",
            ChangeKind::Removed => "removed",
        }
    }
}
