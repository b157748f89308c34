//! Whether the registry is well, and what of it is not (REG-344).

use serde::Serialize;

/// The state of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// It takes what is written.
    Working,
    /// The last write failed.
    Failing,
}

/// Who turns texts into vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Embedding {
    /// The table in the program; healthy (D-37).
    Local,
    /// A service that answers.
    Service,
    /// A service that does not answer; the table stands in for it.
    ServiceDown,
}

/// How the agents are, by how many of them are alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentHealth {
    /// None is registered.
    NoAgents,
    /// Enough are alive.
    Healthy,
    /// Some are missing.
    Degraded,
    /// Most are missing.
    Critical,
}

impl AgentHealth {
    /// One agent: there or not. Two or three: all, one missing, more. From four on by the ratio: 0.75 and 0.4; below ten
    /// agents one alive is enough not to be critical.
    pub fn of(total: usize, alive: usize) -> Self {
        match total {
            0 => AgentHealth::NoAgents,
            1 if alive == 1 => AgentHealth::Healthy,
            1 => AgentHealth::Degraded,
            2 | 3 => match total.saturating_sub(alive) {
                0 => AgentHealth::Healthy,
                1 => AgentHealth::Degraded,
                _ => AgentHealth::Critical,
            },
            _ if alive * 4 >= total * 3 => AgentHealth::Healthy,
            _ if alive * 5 >= total * 2 || (total < 10 && alive > 0) => AgentHealth::Degraded,
            _ => AgentHealth::Critical,
        }
    }
}

/// `health.data`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Health {
    /// `healthy`, `degraded`, `unhealthy`.
    pub status: &'static str,
    /// Its parts.
    pub components: Components,
    /// Why it is not healthy, or `All systems operational`.
    pub reason: &'static str,
}

/// The parts of [`Health`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Components {
    /// The store.
    pub storage: StoragePart,
    /// The embedder.
    pub ai_services: EmbeddingPart,
    /// The agents.
    pub agents: AgentsPart,
}

/// The store.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StoragePart {
    /// `not_configured`: the registry needs no Redis (D-37).
    pub redis: &'static str,
    /// `healthy` or `degraded`.
    pub status: &'static str,
}

/// The embedder.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EmbeddingPart {
    /// `local`, `available`, `unavailable`.
    pub azure_openai: &'static str,
    /// `healthy` or `degraded`.
    pub status: &'static str,
}

/// The agents.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AgentsPart {
    /// Registered.
    pub total: usize,
    /// Alive.
    pub active: usize,
    /// How they are.
    pub status: AgentHealth,
    /// Alive of registered, three digits; 0 without agents.
    pub connectivity_ratio: f64,
}

impl Health {
    /// The whole from its parts.
    pub fn of(storage: Storage, embedding: Embedding, total: usize, alive: usize) -> Self {
        let agents = AgentHealth::of(total, alive);
        let (status, reason) = match (storage, agents, embedding) {
            (Storage::Failing, _, _) => ("unhealthy", "Storage system failing"),
            (_, AgentHealth::Critical, _) => ("unhealthy", "Agent connectivity critical"),
            (_, AgentHealth::Degraded, _) => ("degraded", "Agent connectivity degraded"),
            (_, _, Embedding::ServiceDown) => ("degraded", "AI services degraded"),
            _ => ("healthy", "All systems operational"),
        };
        let ratio = if total == 0 { 0.0 } else { super::rounded(alive as f64 / total as f64, 3) };
        Health {
            status,
            components: Components {
                storage: StoragePart {
                    redis: "not_configured",
                    status: if storage == Storage::Working { "healthy" } else { "degraded" },
                },
                ai_services: match embedding {
                    Embedding::Local => EmbeddingPart { azure_openai: "local", status: "healthy" },
                    Embedding::Service => EmbeddingPart { azure_openai: "available", status: "healthy" },
                    Embedding::ServiceDown => EmbeddingPart { azure_openai: "unavailable", status: "degraded" },
                },
                agents: AgentsPart { total, active: alive, status: agents, connectivity_ratio: ratio },
            },
            reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules: REG-344
    #[test]
    fn agents_by_their_number() {
        use AgentHealth::{Critical, Degraded, Healthy, NoAgents};
        let table = [
            (0, 0, NoAgents),
            (1, 1, Healthy),
            (1, 0, Degraded),
            (2, 2, Healthy),
            (2, 1, Degraded),
            (2, 0, Critical),
            (3, 1, Critical),
            (4, 3, Healthy),
            (4, 2, Degraded),
            (4, 1, Degraded),
            (4, 0, Critical),
            (9, 1, Degraded),
            (10, 4, Degraded),
            (10, 3, Critical),
            (100, 75, Healthy),
            (100, 74, Degraded),
        ];
        for (total, alive, expected) in table {
            assert_eq!(AgentHealth::of(total, alive), expected, "{alive} of {total}");
        }
    }

    /// Rules: REG-344
    #[test]
    fn the_defaults_are_healthy() {
        let health = serde_json::to_value(Health::of(Storage::Working, Embedding::Local, 0, 0)).unwrap();
        let expected = serde_json::json!({
            "status": "healthy",
            "reason": "All systems operational",
            "components": {
                "storage": {"redis": "not_configured", "status": "healthy"},
                "ai_services": {"azure_openai": "local", "status": "healthy"},
                "agents": {"total": 0, "active": 0, "status": "no_agents", "connectivity_ratio": 0.0},
            },
        });
        assert_eq!(health, expected);
    }

    /// Rules: REG-344
    #[test]
    fn the_worst_part_gives_the_reason() {
        let status = |storage, embedding, alive| {
            let health = Health::of(storage, embedding, 3, alive);
            (health.status, health.reason)
        };
        assert_eq!(status(Storage::Failing, Embedding::Local, 3), ("unhealthy", "Storage system failing"));
        assert_eq!(status(Storage::Working, Embedding::Local, 2), ("degraded", "Agent connectivity degraded"));
        assert_eq!(status(Storage::Working, Embedding::Local, 0), ("unhealthy", "Agent connectivity critical"));
        assert_eq!(status(Storage::Working, Embedding::ServiceDown, 3), ("degraded", "AI services degraded"));
        assert_eq!(status(Storage::Working, Embedding::Service, 3), ("healthy", "All systems operational"));
    }
}
