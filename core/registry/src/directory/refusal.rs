//! Why the registry does not do what it is asked.

use std::sync::Arc;

use crate::model::Invalid;
use crate::problem::{Kind, Problem};

/// What one may do to oneself only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Register an agent.
    Register,
    /// Unregister it.
    Unregister,
    /// Say that it lives.
    Heartbeat,
    /// Change its metrics.
    UpdateMetrics,
    /// Look at its metrics.
    ViewMetrics,
}

/// A refusal, which becomes a [`Problem`].
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// No agent of this id.
    #[error("Agent {0} not found")]
    NotFound(Arc<str>),
    /// There is one, and it is dead (REG-185).
    #[error("Agent '{0}' is not available for connections")]
    NotAvailable(Arc<str>),
    /// There is a live one of this id (REG-192).
    #[error("Agent {0} is already registered and alive.")]
    Duplicate(Arc<str>),
    /// It is being registered or unregistered right now.
    #[error("Agent {0} is being registered or unregistered at this moment; try again.")]
    Busy(Arc<str>),
    /// The key belongs to a live agent (REG-193).
    #[error("Agent key is already in use by agent '{by}'. Each agent key can only register one agent.")]
    KeyInUse {
        /// Who was to be registered.
        agent_id: Arc<str>,
        /// Who has the key.
        by: Arc<str>,
    },
    /// An agent may do this to itself only.
    #[error("{}", only(*.action))]
    NotYours {
        /// What was asked for.
        action: Action,
        /// Who asked, if an agent.
        caller: Option<Arc<str>>,
        /// For whom.
        target: Arc<str>,
    },
    /// The id was registered with another key since (REG-193).
    #[error("Agent {0} was registered with another key since this token was made; register again")]
    OtherKey(Arc<str>),
    /// A temporary token was issued for another agent (REG-133).
    #[error(
        "The temporary token was issued for agent '{issued_for}' and registers no other; request one for '{target}'"
    )]
    ForeignToken {
        /// Whom the token is for.
        issued_for: Arc<str>,
        /// Who was to be registered.
        target: Arc<str>,
    },
    /// A temporary token registers once (REG-133).
    #[error("The temporary token has registered its agent already; request another, or use the agent's access token")]
    TokenUsed,
    /// A temporary token does nothing else (REG-133).
    #[error("A temporary token only registers its agent; use the access token that the registration answers")]
    TemporaryOnly,
    /// The caller may not do this at all.
    #[error("This needs the token of an agent or of an administrator")]
    NotAllowed,
    /// The input is at fault.
    #[error("Input validation failed")]
    Invalid(Vec<Invalid>),
    /// The registry holds as many agents as it may.
    #[error("The registry holds {0} agents, which is all it may; unregister some, or raise its limit")]
    Full(usize),
    /// The store did not keep it, so it did not happen.
    #[error("The registry could not keep the change and has not made it: {0}")]
    NotKept(String),
}

fn only(action: Action) -> &'static str {
    match action {
        Action::Register => "Agents can only register themselves",
        Action::Unregister => "Agents can only unregister themselves",
        Action::Heartbeat => "Agents can only update their own heartbeat",
        Action::UpdateMetrics => "Agents can only update their own metrics",
        Action::ViewMetrics => "Agents can only view their own metrics",
    }
}

impl Refusal {
    /// The kind of its problem.
    pub fn kind(&self) -> Kind {
        match self {
            Refusal::NotFound(_) => Kind::AgentNotFound,
            Refusal::NotAvailable(_) => Kind::AgentNotAvailable,
            Refusal::Duplicate(_) | Refusal::Busy(_) => Kind::DuplicateAgent,
            Refusal::KeyInUse { .. } | Refusal::Full(_) => Kind::AgentRegistrationFailed,
            Refusal::NotYours { .. }
            | Refusal::OtherKey(_)
            | Refusal::ForeignToken { .. }
            | Refusal::TokenUsed
            | Refusal::TemporaryOnly
            | Refusal::NotAllowed => Kind::InsufficientPermissions,
            Refusal::Invalid(_) => Kind::ValidationFailed,
            Refusal::NotKept(_) => Kind::InternalError,
        }
    }
}

impl From<Refusal> for Problem {
    /// Faults of an input keep the places they have: where the body or the query stands before them is for the binding
    /// to say.
    fn from(refusal: Refusal) -> Problem {
        let text = refusal.to_string();
        let problem = Problem::new(refusal.kind(), text);
        match refusal {
            Refusal::Invalid(faults) => Problem::validation(faults),
            Refusal::NotFound(id)
            | Refusal::NotAvailable(id)
            | Refusal::Duplicate(id)
            | Refusal::Busy(id)
            | Refusal::OtherKey(id)
            | Refusal::KeyInUse { agent_id: id, .. } => problem.with("agent_id", &*id),
            Refusal::NotYours { action, caller, target } => {
                let problem = match caller {
                    Some(caller) => problem.with("agent_id", &*caller),
                    None => problem,
                };
                let name = if action == Action::Register { "request_agent_id" } else { "target_agent_id" };
                problem.with(name, &*target)
            }
            Refusal::ForeignToken { issued_for, target } => {
                problem.with("agent_id", &*issued_for).with("request_agent_id", &*target)
            }
            _ => problem,
        }
    }
}
