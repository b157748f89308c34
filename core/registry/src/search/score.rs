//! How near an agent is to a question, and what number is shown for it.

/// The cosine of the whole texts.
const COSINE: f32 = 0.60;
/// How well each word of the question is met by some word of the agent.
const SOFT: f32 = 0.35;
/// Words in common, by BM25.
const WORDS: f32 = 0.05;
/// The nearness shown as 0.5, and how fast the number changes around it; found on the first judged set
/// (`benches/search`).
const MIDDLE: f32 = 0.415;
const WIDTH: f32 = 0.10;

/// Shown for the agent whose id the question is.
pub(super) const ITS_ID: f32 = 1.0;
/// Shown at least for an agent whose id or name the question is, written in another way.
pub(super) const ITS_NAME: f32 = 0.98;
/// Shown at least for an agent whose id is a word of the question, or whose name or id is the question but for a slip.
pub(super) const NEARLY: f32 = 0.9;

/// BM25's two constants.
pub(super) const K: f32 = 1.2;
pub(super) const B: f32 = 0.75;

/// What was found of an agent, each 0 to 1.
#[derive(Clone, Copy, Default, Debug, PartialEq)]
pub struct Parts {
    /// The cosine of the whole texts.
    pub cosine: f32,
    /// How well each word of the question is met.
    pub soft: f32,
    /// BM25, as a part of the most it could be.
    pub words: f32,
}

/// The similarity shown (REG-076), 0 to 1.
pub(super) fn similarity(parts: Parts) -> f32 {
    let near = COSINE * parts.cosine + SOFT * parts.soft + WORDS * parts.words;
    1.0 / (1.0 + (-(near - MIDDLE) / WIDTH).exp())
}

/// How much reputation counts in a weighted search (REG-198).
pub(super) fn esteem(reputation: f32) -> f32 {
    let part = if reputation > 1.0 { reputation / 10.0 } else { reputation };
    // A NaN counts as no reputation.
    0.7 + 0.6 * part.clamp(0.0, 1.0).max(0.0)
}

/// Rounded to four digits, within 0 to 1.
pub(super) fn shown(similarity: f32) -> f64 {
    (f64::from(similarity.clamp(0.0, 1.0)) * 1e4).round() / 1e4
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules: REG-198
    #[test]
    fn reputation_counts_from_seven_to_thirteen_tenths() {
        for (reputation, counts) in
            [(0.0, 0.7), (0.5, 1.0), (1.0, 1.3), (5.0, 1.0), (10.0, 1.3), (99.0, 1.3), (-1.0, 0.7)]
        {
            assert!((esteem(reputation) - counts).abs() < 1e-6, "{reputation}");
        }
        assert!((esteem(f32::NAN) - 0.7).abs() < 1e-6);
    }

    #[test]
    fn similarity_rises_and_stays_within_its_bounds() {
        let at = |cosine| similarity(Parts { cosine, soft: cosine, words: cosine });
        assert!(at(-1.0) >= 0.0 && at(-1.0) < 0.1 && at(0.2) < at(0.4) && at(1.0) > 0.95 && at(1.0) <= 1.0);
        assert!((shown(0.123_45) - 0.1235).abs() < 1e-4 && shown(2.0) <= 1.0 && shown(-1.0) >= 0.0);
    }
}
