//! A text as words: folded, split where a reader would split it, and their stems.

use rust_stemmers::{Algorithm, Stemmer};
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// The longest word kept, in characters; what is longer is cut.
const LONGEST: usize = 64;

/// The words of `text`: no marks, lower case, letters and digits only; `camelCase`, hyphens and underscores part words.
/// Characters of scripts written without blanks are words each. At most `limit` words.
pub(super) fn words(text: &str, limit: usize) -> Vec<String> {
    let characters: Vec<char> = text.nfkd().filter(|c| !is_combining_mark(*c)).collect();
    let kind = |at: usize| characters.get(at).map_or(Kind::Gap, |c| Kind::of(*c));
    let mut found = Vec::new();
    let mut word = String::new();
    let mut length = 0;
    for (at, &c) in characters.iter().enumerate() {
        let now = kind(at);
        // The apostrophes of "don't" and "company's" part nothing; the latter's s goes too.
        let apostrophe = matches!(c, '\'' | '\u{2019}') && kind(at + 1) == Kind::Lower;
        if apostrophe && !word.is_empty() {
            continue;
        }
        let before = at.checked_sub(1).map_or(Kind::Gap, kind);
        if before == Kind::Gap && c == 's' && kind(at + 1) == Kind::Gap && !word.is_empty() {
            continue;
        }
        if now == Kind::Gap || parts(before, now, kind(at + 1), characters.get(at + 1..at + 3)) {
            length = 0;
            if !word.is_empty() {
                found.push(std::mem::take(&mut word));
            }
            if found.len() >= limit {
                return found;
            }
        }
        if now != Kind::Gap && length < LONGEST {
            length += 1;
            word.extend(c.to_lowercase().filter(|c| !is_combining_mark(*c)));
        }
    }
    if !word.is_empty() {
        found.push(word);
    }
    found
}

/// Whether a word ends between two characters of which neither is a gap.
fn parts(before: Kind, now: Kind, next: Kind, ahead: Option<&[char]>) -> bool {
    match (before, now) {
        (Kind::Lower, Kind::Upper) | (Kind::Alone, _) | (_, Kind::Alone) => true,
        // The last capital of `PDFReader` begins a word; that of "PDFs" does not.
        (Kind::Upper, Kind::Upper) => {
            let plural = match ahead {
                Some(['s', after]) => matches!(Kind::of(*after), Kind::Gap | Kind::Upper),
                Some(_) => false,
                None => true,
            };
            next == Kind::Lower && !plural
        }
        _ => false,
    }
}

/// The words joined by blanks: what two names share that mean the same, `doc-summarizer` and "Doc Summarizer".
pub(super) fn key(text: &str) -> String {
    words(text, 64).join(" ")
}

/// Where `word` changes between letters and digits: `gpt4` is `gpt` and `4`. None when it does not.
pub(super) fn runs(word: &str) -> Option<Vec<&str>> {
    let mut parts = Vec::new();
    let mut start = 0;
    let mut digits = None;
    for (at, c) in word.char_indices() {
        let now = c.is_ascii_digit();
        if digits.is_some_and(|before| before != now) {
            parts.push(&word[start..at]);
            start = at;
        }
        digits = Some(now);
    }
    parts.push(&word[start..]);
    (parts.len() > 1).then_some(parts)
}

/// What `summarize`, `summarizes` and `summarizing` share.
pub(super) fn stem(word: &str) -> String {
    // Nothing but English has rules here; other words stay whole.
    if word.len() < 3 || !word.bytes().all(|b| b.is_ascii_lowercase()) {
        return word.to_owned();
    }
    Stemmer::create(Algorithm::English).stem(word).into_owned()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Gap,
    Lower,
    Upper,
    Digit,
    Alone,
}

impl Kind {
    fn of(c: char) -> Self {
        match c {
            'a'..='z' => Self::Lower,
            'A'..='Z' => Self::Upper,
            '0'..='9' => Self::Digit,
            // Han, kana, Thai, Lao, Khmer, Burmese.
            '\u{3040}'..='\u{30ff}'
            | '\u{3400}'..='\u{4dbf}'
            | '\u{4e00}'..='\u{9fff}'
            | '\u{20000}'..='\u{3134f}'
            | '\u{0e00}'..='\u{0eff}'
            | '\u{1000}'..='\u{109f}'
            | '\u{1780}'..='\u{17ff}' => Self::Alone,
            c if c.is_uppercase() => Self::Upper,
            c if c.is_alphabetic() => Self::Lower,
            c if c.is_numeric() => Self::Digit,
            _ => Self::Gap,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Vec<String> {
        words(text, usize::MAX)
    }

    #[test]
    fn identifiers_part_into_words() {
        assert_eq!(
            all("PDFReader parseHTTPRequest data-processing file_conversion k8s APIs, IDs"),
            [
                "pdf",
                "reader",
                "parse",
                "http",
                "request",
                "data",
                "processing",
                "file",
                "conversion",
                "k8s",
                "apis",
                "ids"
            ]
        );
        assert_eq!(all("Doc Summarizer"), all("docSummarizer"));
        assert_eq!(key("doc-summarizer"), key("Doc  SUMMARIZER!"));
    }

    #[test]
    fn marks_cases_and_forms_fold() {
        assert_eq!(all("Caf\u{e9} CAFE\u{301} \u{ff21}\u{ff22} \u{fb01}le"), ["cafe", "cafe", "ab", "file"]);
        assert_eq!(all("the company's agents don't"), ["the", "company", "agents", "dont"]);
        assert_eq!(all("\u{6587}\u{66f8} agent"), ["\u{6587}", "\u{66f8}", "agent"]);
    }

    #[test]
    fn words_are_bounded() {
        assert_eq!(words("a b c d", 2), ["a", "b"]);
        assert_eq!(all(&"x".repeat(10_000))[0].len(), LONGEST);
        assert!(all(" \t--__..").is_empty());
    }

    #[test]
    fn letters_and_digits_part() {
        assert_eq!(runs("gpt4"), Some(vec!["gpt", "4"]));
        assert_eq!(runs("gpt"), None);
        assert_eq!(stem("summarizing"), stem("summarize"));
    }
}
