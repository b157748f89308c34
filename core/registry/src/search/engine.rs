//! The search as the service uses it.

use std::sync::Arc;

use super::index::{Hit, SearchIndex};
use crate::model::{Registration, SearchRequest};

/// The search as the service uses it: the index, and the embedder that reads for it. Cheap to clone; clones are one.
#[derive(Clone, Default)]
pub struct SearchEngine {
    index: Arc<SearchIndex>,
}

impl SearchEngine {
    /// One that reads with the built-in table.
    pub fn new() -> Self {
        Self::default()
    }

    /// The agents it searches.
    pub fn index(&self) -> &SearchIndex {
        &self.index
    }

    /// Takes an agent in, in the place of the one of the same id. A search that begins after this sees it.
    pub fn insert(&self, agent: &Registration) {
        self.index.insert(agent);
    }

    /// Forgets an agent. Whether it was there.
    pub fn remove(&self, id: &str) -> bool {
        self.index.remove(id)
    }

    /// The best agents for a request (REG-197, REG-198): see [`SearchIndex::query`].
    pub async fn search(
        &self,
        request: &SearchRequest,
        keep: impl Fn(&str) -> bool,
        reputation: impl Fn(&str) -> f32,
    ) -> Vec<Hit> {
        self.index.query(request, keep, reputation)
    }
}
