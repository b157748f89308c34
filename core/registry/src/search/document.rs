//! What an agent's registration says, as the search reads it.

use std::borrow::Cow;

use rustc_hash::FxHashMap;
use serde_json::Value;

use super::table::{DIMENSIONS, Known, NO_ROW, Row, Table};
use super::words::{key, stem, words};
use crate::model::Registration;

/// Distinct words kept of an agent; what comes after is not searched. A text of REG-070's bounds may hold 50 000.
const MOST_WORDS: usize = 192;
/// Words read of one field.
const MOST_READ: usize = 512;

/// Words of whoever asks rather than of what is asked for. They count little in questions and in answers.
const ASKING: [&str; 22] = [
    "able",
    "agent",
    "agents",
    "anybody",
    "anyone",
    "capabilities",
    "capability",
    "capable",
    "find",
    "finds",
    "give",
    "help",
    "need",
    "needs",
    "please",
    "search",
    "somebody",
    "someone",
    "something",
    "tell",
    "want",
    "wants",
];
const ASKING_COUNTS: f32 = 0.2;

/// How much a word counts for what it is, whatever its rarity.
pub(super) fn counts(word: &str) -> f32 {
    if ASKING.binary_search(&word).is_ok() { ASKING_COUNTS } else { 1.0 }
}

/// A word of an agent.
pub(super) struct Word {
    pub(super) text: String,
    pub(super) stem: String,
    pub(super) row: Row,
    pub(super) count: u16,
}

/// An agent, read.
pub(super) struct Document {
    pub(super) id: String,
    pub(super) agent_type: String,
    pub(super) capabilities: Vec<String>,
    /// Distinct, in the order of the text.
    pub(super) words: Vec<Word>,
    /// Of length 1, or 0 when the table knows no word.
    pub(super) vector: [f32; DIMENSIONS],
    /// The id and the name, folded.
    pub(super) keys: Vec<String>,
}

impl Document {
    pub(super) fn read(agent: &Registration, table: Option<&Table>) -> Self {
        let mut found: Vec<Word> = Vec::new();
        let mut places: FxHashMap<String, usize> = FxHashMap::default();
        let mut vector = [0.0; DIMENSIONS];
        for (text, share) in fields(agent) {
            for text in words(&text, MOST_READ) {
                let at = match places.get(&text) {
                    Some(at) => *at,
                    None if found.len() == MOST_WORDS => continue,
                    None => {
                        let row = table.and_then(|table| table.whole(&text)).unwrap_or(NO_ROW);
                        places.insert(text.clone(), found.len());
                        found.push(Word { stem: stem(&text), text, row, count: 0 });
                        found.len() - 1
                    }
                };
                let word = &mut found[at];
                word.count = word.count.saturating_add(1);
                if let Some(table) = table {
                    let known = if word.row == NO_ROW { table.known(&word.text) } else { Known::Whole(word.row) };
                    add(table, &known, share * counts(&word.text), &mut vector);
                }
            }
        }
        unit(&mut vector);
        let mut keys = vec![key(&agent.agent_id), key(&agent.name)];
        keys.dedup();
        keys.retain(|key| !key.is_empty());
        Self {
            id: agent.agent_id.clone(),
            agent_type: agent.agent_type.clone(),
            capabilities: agent.capabilities.clone(),
            words: found,
            vector,
            keys,
        }
    }
}

/// Adds a word to the sum that a text's vector is.
pub(super) fn add(table: &Table, known: &Known, share: f32, sum: &mut [f32; DIMENSIONS]) {
    match known {
        Known::Whole(row) => table.add(*row, share * table.weight(*row), sum),
        Known::Pieces(rows) => {
            let part = share / (rows.len() as f32).sqrt();
            for row in rows {
                table.add(*row, part * table.weight(*row), sum);
            }
        }
        Known::Unknown => {}
    }
}

/// Scales a vector to length 1; one without direction stays 0.
pub(super) fn unit(vector: &mut [f32]) {
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    if length > 1e-9 {
        for x in vector {
            *x /= length;
        }
    }
}

/// The text of an agent (REG-197, REG-601) and how much each part of it counts.
fn fields(agent: &Registration) -> Vec<(Cow<'_, str>, f32)> {
    let mut parts = vec![(Cow::from(agent.name.as_str()), 1.0), (Cow::from(agent.context_brief.as_str()), 1.0)];
    parts.extend(agent.capabilities.iter().map(|text| (Cow::from(text.as_str()), 1.0)));
    parts.push((Cow::from(agent.agent_type.as_str()), 1.0));
    parts.extend(agent.features.iter().flatten().map(|text| (Cow::from(text.as_str()), 1.0)));
    for value in agent.metadata.values() {
        match value {
            Value::String(text) => parts.push((Cow::from(text.as_str()), 0.7)),
            Value::Array(list) => {
                parts.extend(list.iter().filter_map(Value::as_str).map(|text| (Cow::from(text), 0.7)));
            }
            _ => {}
        }
    }
    if let Some(text) = &agent.ai_context {
        parts.push((Cow::from(text.as_str()), 0.7));
    }
    parts
}

/// The text of an agent in one line, as a remote embedder gets it (REG-197).
pub fn text_of(agent: &Registration) -> String {
    fields(agent).into_iter().map(|(text, _)| text).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asking_words_are_in_order() {
        assert!(ASKING.is_sorted());
    }

    /// Rules: REG-197, REG-601
    #[test]
    fn the_text_is_name_brief_capabilities_type_features_and_metadata() {
        let agent = Registration {
            name: "sem-1".into(),
            context_brief: "Processes text files and converts them".into(),
            capabilities: vec!["data-processing".into(), "file-conversion".into(), "text-analysis".into()],
            agent_type: "testing".into(),
            metadata: serde_json::from_str(r#"{"framework": "fastapi", "tags": ["demo", "golden"], "count": 3}"#)
                .unwrap(),
            ..Registration::default()
        };
        let golden = "sem-1 Processes text files and converts them data-processing file-conversion text-analysis \
                      testing fastapi demo golden";
        assert_eq!(text_of(&agent), golden);
        assert_eq!(text_of(&Registration { ai_context: Some("more".into()), ..agent }), format!("{golden} more"));
    }
}
