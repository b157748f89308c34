//! Finding agents by what they can do.
//!
//! A question and every agent are read with one static table of words ([`table`]), compared by the cosine of their
//! texts, then the nearest by how well each word is met and by BM25; what comes out is shown as a number from 0 to 1 of
//! which 0.5 is the border between an answer and noise. No network, no model: some megabytes in the program.

mod document;
mod embedder;
mod engine;
mod index;
mod lexicon;
mod question;
mod remote;
mod score;
mod segment;
mod table;
mod typo;
mod words;

pub use document::text_of;
pub use embedder::{EmbedError, Embedder, WordTable};
pub use engine::{EmbedderHealth, SearchEngine};
pub use index::{Hit, SearchIndex};
pub use remote::RemoteEmbedder;
pub use score::Parts;
