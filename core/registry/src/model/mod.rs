//! The models of the registry (REG-070 to REG-077): checked on the way in, read leniently by a client.

pub mod check;
pub mod connection;
pub mod info;
pub mod metrics;
pub mod registration;
pub mod requirements;
pub mod search;

pub use check::{Invalid, Loc};
pub use connection::ConnectionRequest;
pub use info::{AgentInfo, AgentStatus};
pub use metrics::{AgentMetrics, MetricsUpdate};
pub use registration::Registration;
pub use requirements::{AgentRequirements, ConfigField};
pub use search::{SearchDefaults, SearchRequest, SearchResponse};
