//! What dashboards show: what happened, how the registry and its agents are, and what wants attention.

mod alerts;
mod health;
mod journal;

pub use alerts::{Figures, Resources, Suppression, judge};
pub use health::{AgentHealth, AgentsPart, Components, Embedding, EmbeddingPart, Health, Storage, StoragePart};
pub use journal::{Alert, Entry, Level, Line, Severity};

/// So many digits after the point.
pub(crate) fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}
