//! Who calls (REG-130).

use std::sync::Arc;

use jiff::Timestamp;

/// Who calls, as the bindings found out from a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Anybody.
    Public,
    /// Holds a temporary token: may register one agent, once (REG-133).
    Temporary {
        /// The agent it was issued for.
        agent_id: Arc<str>,
        /// The type it was issued for; not compared with what registers.
        agent_type: Arc<str>,
        /// SHA-256 of the agent key, as text.
        key_hash: Arc<str>,
        /// What tells this token from every other: its `jti`, or its hash. Remembered once used.
        token_id: Arc<str>,
        /// When it expires; it is remembered until then.
        expires_at: Timestamp,
    },
    /// A registered agent.
    Agent {
        /// Which.
        agent_id: Arc<str>,
        /// SHA-256 of the key its registration came with, as text, if it came with one: whoever registers the same id
        /// with another key is another agent.
        key_hash: Option<Arc<str>>,
    },
    /// An administrator.
    Admin {
        /// Their user name.
        user: Arc<str>,
    },
    /// A user without rights over agents.
    User {
        /// Their user name.
        user: Arc<str>,
    },
}

impl Caller {
    /// The agent a caller speaks for.
    pub fn agent_id(&self) -> Option<&Arc<str>> {
        match self {
            Caller::Temporary { agent_id, .. } | Caller::Agent { agent_id, .. } => Some(agent_id),
            _ => None,
        }
    }

    /// Whether it is an administrator.
    pub fn is_admin(&self) -> bool {
        matches!(self, Caller::Admin { .. })
    }
}
