//! The one look at every received byte before anything is parsed.

use crate::error::Error;

/// What a received text may hold (R-4.5, R-14.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes in all; default 16 MiB.
    pub max_bytes: usize,
    /// Objects and lists inside one another; default 64.
    pub max_depth: usize,
    /// Members of objects and items of lists, counted together over the whole text; default 1 048 576.
    pub max_members: usize,
    /// Bytes of one string as written; default 16 MiB.
    pub max_string: usize,
}

impl Limits {
    pub(super) const DEFAULT: Limits =
        Limits { max_bytes: 16 << 20, max_depth: 64, max_members: 1 << 20, max_string: 16 << 20 };
}

impl Default for Limits {
    fn default() -> Self {
        Limits::DEFAULT
    }
}

/// Whether an event's body, which stands two levels deep in its message, leaves a message a peer will read.
pub(crate) fn check_body(body: &str) -> Result<(), Error> {
    let limits = Limits { max_depth: Limits::DEFAULT.max_depth - 2, ..Limits::DEFAULT };
    // A short text cannot be deep, and nearly all are short, or have few brackets and no escapes.
    if body.len() <= limits.max_depth || is_harmless(body.as_bytes(), &limits) {
        return Ok(());
    }
    check(body.as_bytes(), &limits).map(drop)
}

/// Whether a text is within the limits for a reason that is quick to see.
fn is_harmless(text: &[u8], limits: &Limits) -> bool {
    if text.len() > limits.max_members.min(limits.max_string) {
        return false;
    }
    let mut opens = 0;
    // In pieces whose count fits into a byte, and without branches: many bytes at a time.
    for piece in text.chunks(255) {
        let (mut opened, mut escaped) = (0, false);
        for byte in piece {
            // Both brackets, and nothing else, are `{` with this bit.
            opened += u8::from(*byte | 0x20 == b'{');
            escaped |= *byte == b'\\';
        }
        if escaped {
            return false;
        }
        opens += usize::from(opened);
    }
    opens <= limits.max_depth
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Plain,
    Quote,
    Open,
    Close,
    Comma,
}

static CLASS: [Class; 256] = {
    let mut table = [Class::Plain; 256];
    table[b'"' as usize] = Class::Quote;
    table[b'{' as usize] = Class::Open;
    table[b'[' as usize] = Class::Open;
    table[b'}' as usize] = Class::Close;
    table[b']' as usize] = Class::Close;
    table[b',' as usize] = Class::Comma;
    table
};

/// Checks what a JSON parser does not: the limits, valid UTF-8, and that no `\u` escape is half of a surrogate pair
/// (R-4.11, D-29). Everything refused is `INVALID_REQUEST`. Whether the text is JSON is left to the parser.
pub fn check<'a>(text: &'a [u8], limits: &Limits) -> Result<&'a str, Error> {
    if text.len() > limits.max_bytes {
        return Err(too_much("bytes", text.len(), limits.max_bytes));
    }
    let valid = str::from_utf8(text).map_err(|error| {
        Error::invalid(format!("the text is not UTF-8 at byte {}; send UTF-8", error.valid_up_to()))
    })?;
    let (mut at, mut depth, mut members) = (0, 0_usize, 0);
    while let Some(byte) = text.get(at) {
        at += 1;
        match CLASS[usize::from(*byte)] {
            Class::Plain => {}
            Class::Quote => {
                let end = string_end(text, at)?;
                if end - at > limits.max_string {
                    return Err(too_much("bytes in one string", end - at, limits.max_string));
                }
                at = end + 1;
            }
            Class::Open => {
                depth += 1;
                members += 1;
                if depth > limits.max_depth {
                    return Err(too_much("levels of nesting", depth, limits.max_depth));
                }
            }
            Class::Close => depth = depth.saturating_sub(1),
            Class::Comma => members += 1,
        }
    }
    if members > limits.max_members {
        return Err(too_much("members", members, limits.max_members));
    }
    Ok(valid)
}

fn too_much(what: &str, has: usize, may: usize) -> Error {
    Error::invalid(format!("the text has {has} {what}, more than the {may} allowed; send less at once"))
}

/// Where the string that begins at `at` ends: the index of its closing quote, or of the end of an unfinished text.
fn string_end(text: &[u8], mut at: usize) -> Result<usize, Error> {
    loop {
        at = next_special(text, at);
        match text.get(at) {
            Some(b'"') | None => return Ok(at),
            Some(b'\\') => at = after_escape(text, at)?,
            // A control character is the parser's to refuse.
            Some(_) => at += 1,
        }
    }
}

/// The first `"`, `\` or control character from `at` on, looked for eight bytes at a time.
pub(super) fn next_special(text: &[u8], mut at: usize) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);
    // The lowest marked byte is always right; a borrow may mark bytes above it wrongly.
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word & HIGHS;
    while let Some(chunk) = text.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*chunk);
        let quote = below(word ^ (ONES * u64::from(b'"')), 1);
        let escape = below(word ^ (ONES * u64::from(b'\\')), 1);
        let found = quote | escape | below(word, 0x20);
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while text.get(at).is_some_and(|byte| *byte >= 0x20 && !matches!(byte, b'"' | b'\\')) {
        at += 1;
    }
    at
}

/// Where the escape at `at` ends. An escape JSON does not have is left to the parser.
fn after_escape(text: &[u8], at: usize) -> Result<usize, Error> {
    let lone = || Error::invalid(format!("the \\u escape at byte {at} is half of a surrogate pair; send both halves"));
    match unit(text, at) {
        Some(0xd800..=0xdbff) => match unit(text, at + 6) {
            Some(0xdc00..=0xdfff) => Ok(at + 12),
            _ => Err(lone()),
        },
        Some(0xdc00..=0xdfff) => Err(lone()),
        Some(_) => Ok(at + 6),
        None => Ok(at + 2),
    }
}

fn unit(text: &[u8], at: usize) -> Option<u32> {
    let hex = text.get(at..at + 6)?.strip_prefix(b"\\u")?;
    hex.iter().try_fold(0, |all, byte| Some(all * 16 + char::from(*byte).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &[u8], limits: &Limits) -> String {
        check(text, limits).unwrap_err().message
    }

    #[test]
    fn limits_are_kept_to_the_last_one() {
        let limits = Limits { max_bytes: 40, max_depth: 3, max_members: 4, max_string: 5 };
        for text in ["[[[1]]]", "[1,2,3,4]", "\"12345\"", "[\"[[[[\",\",,,,\"]", "[]]]]]", "[[]],[]"] {
            assert_eq!(check(text.as_bytes(), &limits).unwrap(), text);
        }
        assert!(refused(&[b' '; 41], &limits).contains("41 bytes"));
        assert!(refused(b"[[[[", &limits).contains("levels of nesting"));
        assert!(refused(b"[1,2,3,4,5]", &limits).contains("members"));
        assert!(refused(b"\"123456\"", &limits).contains("one string"));
        assert!(check(&"[".repeat(65).into_bytes(), &Limits::default()).is_err());
        assert!(check(&"[".repeat(64).into_bytes(), &Limits::default()).is_ok());
    }

    #[test]
    fn half_surrogates_and_broken_utf8_are_refused() {
        let limits = Limits::default();
        for text in [
            r#""\ud83d\ude00""#,
            r#""\\ud83d""#,
            r#""\u00e9\uFFFF\ud7ff\ue000""#,
            r#""1234567\"\\\\" "#,
            r#""\uzzzz""#,
            "\"\\",
            "\"\\u12",
        ] {
            assert!(check(text.as_bytes(), &limits).is_ok(), "{text}");
        }
        for text in [
            r#""\ud83d""#,
            r#""\ude00""#,
            r#""\ud83d\u0041""#,
            r#""\ud83dx""#,
            r#"{"\udfff":1}"#,
            r#""\uD83D\\uDE00""#,
            r#""\\\ud800""#,
        ] {
            assert!(refused(text.as_bytes(), &limits).contains("surrogate"), "{text}");
        }
        assert!(refused(b"\"\xff\"", &limits).contains("UTF-8 at byte 1"));
        assert!(refused(b"\"\xed\xa0\x80\"", &limits).contains("UTF-8"));
    }

    #[test]
    fn the_end_of_a_string_is_found_at_every_distance() {
        for length in 0..40 {
            for special in ["\"", "\\\"", "\n\""] {
                let text = format!("{}{special}{}", "é".repeat(length), "\"".repeat(9));
                let expected = text.find('"').map(|at| if special == "\\\"" { at + 1 } else { at });
                assert_eq!(string_end(text.as_bytes(), 0).ok(), expected, "{text}");
            }
        }
    }
}
