//! Words one slip of the finger away from a known one.

/// Words shorter than this are not mended: too many others are near.
const SHORTEST: usize = 4;
/// Nor are longer ones, which are no words.
const LONGEST: usize = 32;

/// The best word one letter added, dropped, changed or swapped away from `word`. `worth` tells what a word is worth,
/// None for one that nobody knows. None when there is none, or `word` is nothing that is typed by hand.
pub(super) fn mend(word: &str, worth: impl Fn(&str) -> Option<f32>) -> Option<String> {
    let letters = word.as_bytes();
    if !(SHORTEST..=LONGEST).contains(&letters.len()) || !letters.iter().all(u8::is_ascii_lowercase) {
        return None;
    }
    let mut best: Option<(f32, String)> = None;
    let mut consider = |candidate: &[u8], likely: f32| {
        // Only ASCII letters were put together.
        let Ok(text) = std::str::from_utf8(candidate) else { return };
        let Some(worth) = worth(text) else { return };
        // The first letter is seldom wrong.
        let worth = worth + likely + if candidate.first() == letters.first() { 0.3 } else { 0.0 };
        if best.as_ref().is_none_or(|(most, text_of)| worth > *most || (worth == *most && text < text_of.as_str())) {
            best = Some((worth, text.to_owned()));
        }
    };
    let mut buffer = Vec::with_capacity(letters.len() + 1);
    for at in 0..letters.len() {
        // Dropped from what was meant by adding: take it out again.
        buffer.clear();
        buffer.extend_from_slice(&letters[..at]);
        buffer.extend_from_slice(&letters[at + 1..]);
        consider(&buffer, 0.1);
        if at + 1 < letters.len() && letters[at] != letters[at + 1] {
            buffer.clear();
            buffer.extend_from_slice(letters);
            buffer.swap(at, at + 1);
            consider(&buffer, 0.1);
        }
        buffer.clear();
        buffer.extend_from_slice(letters);
        for letter in b'a'..=b'z' {
            if letter != letters[at] {
                buffer[at] = letter;
                consider(&buffer, 0.0);
            }
        }
    }
    for at in 0..=letters.len() {
        buffer.clear();
        buffer.extend_from_slice(&letters[..at]);
        buffer.push(b'a');
        buffer.extend_from_slice(&letters[at..]);
        for letter in b'a'..=b'z' {
            buffer[at] = letter;
            consider(&buffer, 0.1);
        }
    }
    best.map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(word: &str) -> Option<f32> {
        ["translate", "report", "resort"].contains(&word).then_some(0.5)
    }

    #[test]
    fn one_slip_is_mended() {
        for typed in ["trnslate", "translatte", "tranzlate", "tarnslate", "ranslate"] {
            assert_eq!(mend(typed, known).as_deref(), Some("translate"), "{typed}");
        }
        assert_eq!(mend("trnslte", known), None);
        assert_eq!(mend("repport", known).as_deref(), Some("report"));
    }

    #[test]
    fn what_is_no_word_is_left() {
        for typed in ["rep", "r3port", "", "r\u{e9}port", &"x".repeat(100)] {
            assert_eq!(mend(typed, known), None);
        }
    }
}
