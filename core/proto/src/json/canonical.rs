//! One text for every way to write the same JSON value (R-7.2.4).

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::{Limits, check, push_string, syntax};
use crate::error::Error;

/// Writes `text` so that equal JSON values give equal bytes: members sorted, of equal names the last, escapes undone,
/// no spaces, and numbers by their exact value (`1`, `1.0` and `10e-1` are one, `-0` is `0`). List order counts.
///
/// The result is for comparing and hashing; its numbers are written `<digits>e<exponent>`. `INVALID_REQUEST` when `text`
/// is not one JSON value within the default [`Limits`].
pub fn canonical(text: &str) -> Result<Vec<u8>, Error> {
    let text = check(text.as_bytes(), &Limits::default())?;
    let value: &RawValue = serde_json::from_str(text).map_err(|error| syntax("the value", &error))?;
    let mut out = Vec::with_capacity(text.len());
    Cursor { text: value.get(), at: 0 }.value(&mut out);
    Ok(out)
}

/// A walk over text that is known to be JSON, so it has no errors of its own. Depth is bounded by [`Limits`].
struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn value(&mut self, out: &mut Vec<u8>) {
        match self.peek() {
            b'{' => self.object(out),
            b'[' => self.list(out),
            b'"' => self.string(out),
            b'-' | b'0'..=b'9' => push_number(out, self.word()),
            _ => out.extend_from_slice(self.word().as_bytes()),
        }
    }

    fn object(&mut self, out: &mut Vec<u8>) {
        let mut members = BTreeMap::new();
        self.at += 1;
        while self.peek() != b'}' {
            let (mut name, mut value) = (Vec::new(), Vec::new());
            self.string(&mut name);
            self.skip(b':');
            self.value(&mut value);
            self.skip(b',');
            members.insert(name, value);
        }
        self.at += 1;
        out.push(b'{');
        for (at, (name, value)) in members.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            out.extend_from_slice(name);
            out.push(b':');
            out.extend_from_slice(value);
        }
        out.push(b'}');
    }

    fn list(&mut self, out: &mut Vec<u8>) {
        self.at += 1;
        out.push(b'[');
        while self.peek() != b']' {
            self.value(out);
            if self.skip(b',') {
                out.push(b',');
            }
        }
        self.at += 1;
        out.push(b']');
    }

    fn string(&mut self, out: &mut Vec<u8>) {
        self.peek();
        let start = self.at;
        let bytes = self.text.as_bytes();
        self.at += 1;
        while let Some(byte) = bytes.get(self.at)
            && *byte != b'"'
        {
            self.at += if *byte == b'\\' { 2 } else { 1 };
        }
        self.at += 1;
        let literal = &self.text[start..self.at];
        match serde_json::from_str::<String>(literal) {
            Ok(text) if literal.contains('\\') => push_string(out, &text),
            _ => out.extend_from_slice(literal.as_bytes()),
        }
    }

    /// A number, `true`, `false` or `null`.
    fn word(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        let length = rest.find(|next: char| next == ',' || next == ']' || next == '}' || next.is_ascii_whitespace());
        let word = &rest[..length.unwrap_or(rest.len())];
        self.at += word.len();
        word
    }

    /// The next byte that is not white space; a closing bracket at the end of the text, so that every loop ends.
    fn peek(&mut self) -> u8 {
        let bytes = self.text.as_bytes();
        while bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        bytes.get(self.at).copied().unwrap_or(b'}')
    }

    fn skip(&mut self, byte: u8) -> bool {
        let found = self.peek() == byte;
        self.at += usize::from(found);
        found
    }
}

/// Writes the JSON number `text` as sign, digits without outer zeros, and exponent.
fn push_number(out: &mut Vec<u8>, text: &str) {
    let unsigned = text.trim_start_matches('-');
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = [whole, fraction].concat();
    let significant = digits.trim_end_matches('0');
    if significant.is_empty() {
        return out.push(b'0');
    }
    let shift = (digits.len() - significant.len()) as i128 - fraction.len() as i128;
    // An exponent beyond 128 bits is not money nor any measure: such a number equals only itself as written.
    let Some(exponent) = exponent.parse::<i128>().ok().and_then(|exponent| exponent.checked_add(shift)) else {
        return out.extend_from_slice(text.as_bytes());
    };
    if unsigned.len() < text.len() {
        out.push(b'-');
    }
    out.extend_from_slice(significant.trim_start_matches('0').as_bytes());
    out.push(b'e');
    out.extend_from_slice(exponent.to_string().as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(left: &str, right: &str) -> bool {
        canonical(left).unwrap() == canonical(right).unwrap()
    }

    #[test]
    fn numbers_are_equal_by_value() {
        for (left, right) in [
            ("1", "1.0"),
            ("1", "1e0"),
            ("1", "10e-1"),
            ("0", "-0"),
            ("0", "-0.00e7"),
            ("100", "1E+2"),
            ("-1.50", "-15e-1"),
            ("0.001", "1e-3"),
        ] {
            assert!(same(left, right), "{left} {right}");
        }
        for (left, right) in [
            ("1", "-1"),
            ("1", "10"),
            ("9007199254740993", "9007199254740992"),
            ("0.1", "0.10000000000000000001"),
            ("1e400", "1e401"),
            ("1", "\"1\""),
        ] {
            assert!(!same(left, right), "{left} {right}");
        }
        assert!(!same(&format!("1e{}", "9".repeat(50)), &format!("1e{}", "8".repeat(50))));
    }

    #[test]
    fn member_order_and_spelling_do_not_count_but_list_order_does() {
        assert!(same(
            r#" { "b" : [ 1 , true , null ] , "a" : "\u00e9\/\n" } "#,
            "{\"a\":\"é/\\u000a\",\"b\":[1.0,true,null]}"
        ));
        assert!(same(r#"{"a":1,"a":2,"\u0061":3}"#, r#"{"a":3}"#));
        assert!(same(r#"{"b":{},"":[[],{}]}"#, r#"{"":[[],{}],"b":{}}"#));
        assert!(!same("[1,2]", "[2,1]"));
        assert!(!same(r#"{"a":null}"#, "{}"));
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for text in ["", "[1,", "[1]]", "01", "{'a':1}"] {
            assert!(canonical(text).is_err(), "{text}");
        }
    }
}
