//! What turns texts into vectors.

use futures_util::future::BoxFuture;

use super::document::{add, counts, unit};
use super::table::{DIMENSIONS, Table};
use super::words::words;

/// Why there is no vector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EmbedError {
    /// Nothing answers at its address.
    #[error("nothing answers at its address")]
    Unreachable,
    /// It did not answer in time.
    #[error("it did not answer in time")]
    Timeout,
    /// It answered something else than 200.
    #[error("it answered {0}")]
    Status(u16),
    /// Its answer is none.
    #[error("its answer cannot be read: {0}")]
    Malformed(&'static str),
    /// As many questions as may are under way already.
    #[error("too many questions at once")]
    Busy,
}

/// Turns texts into vectors. Those of one embedder can be compared, those of two cannot.
pub trait Embedder: Send + Sync {
    /// A vector for each text, in their order.
    fn embed<'a>(&'a self, texts: &'a [String]) -> BoxFuture<'a, Result<Vec<Vec<f32>>, EmbedError>>;

    /// What it is called in health and logs. Holds no secret.
    fn name(&self) -> &str;
}

/// The built-in table, the default: no network, microseconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct WordTable;

impl WordTable {
    /// The vector of a text, of length 1, or 0 when the table knows no word of it.
    pub fn vector(&self, text: &str) -> Vec<f32> {
        let mut vector = [0.0; DIMENSIONS];
        if let Some(table) = Table::shared() {
            for word in words(text, usize::MAX) {
                add(table, &table.known(&word), counts(&word), &mut vector);
            }
        }
        unit(&mut vector);
        vector.to_vec()
    }
}

impl Embedder for WordTable {
    fn embed<'a>(&'a self, texts: &'a [String]) -> BoxFuture<'a, Result<Vec<Vec<f32>>, EmbedError>> {
        Box::pin(async move { Ok(texts.iter().map(|text| self.vector(text)).collect()) })
    }

    fn name(&self) -> &str {
        "built-in word table"
    }
}
