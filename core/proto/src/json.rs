//! JSON as the protocol needs it: bounded before it is parsed, read lazily, written without detours.

mod canonical;
mod fields;
mod scan;
mod writer;

use std::fmt;
use std::sync::{Arc, LazyLock};

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::error::Error;

pub use canonical::canonical;
pub use fields::{Fields, number, shape, string, unsigned};
pub(crate) use fields::{pick, syntax};
pub(crate) use scan::check_body;
use scan::next_special;
pub use scan::{Limits, check};
pub(crate) use writer::ObjectWriter;

/// The deepest a value stands in a message: `payload.body.error.details`. What we send must pass a peer's own look (R-14.7).
const LIMITS: Limits = Limits { max_depth: Limits::DEFAULT.max_depth - 4, ..Limits::DEFAULT };

/// A JSON value kept as its text, so that no digit, member order or byte of it changes on the way (R-4.12, R-7.1.10).
///
/// Cheap to clone. Two values are equal when their texts are; [`canonical`] compares meanings. The text never holds a
/// line break, so it can be sent as a line on stdio.
#[derive(Clone)]
pub struct RawJson(Arc<RawValue>);

impl RawJson {
    /// Checks `text` against the default [`Limits`], less what a message puts around a value: 60 levels of nesting.
    /// `INVALID_REQUEST` when it is not one JSON value.
    pub fn parse(text: &str) -> Result<RawJson, Error> {
        let text = check(text.as_bytes(), &LIMITS)?;
        serde_json::from_str::<&RawValue>(text).map(RawJson::from_raw).map_err(|error| syntax("the value", &error))
    }

    /// Copies a part of a message that has passed [`check`].
    pub fn from_raw(raw: &RawValue) -> RawJson {
        // Valid JSON has raw line breaks only between tokens, where none are needed.
        // Without branches: many bytes at a time.
        if raw.get().bytes().fold(false, |found, byte| found | (byte == b'\n') | (byte == b'\r'))
            && let Ok(line) = RawValue::from_string(raw.get().replace(['\n', '\r'], ""))
        {
            return RawJson(Arc::from(line));
        }
        RawJson(Arc::from(raw.to_owned()))
    }

    /// Writes `value` as JSON. `INVALID_REQUEST` when it has no JSON form, such as a map whose keys are not text.
    pub fn from_serialize<T: Serialize + ?Sized>(value: &T) -> Result<RawJson, Error> {
        let raw = serde_json::value::to_raw_value(value)
            .map_err(|error| Error::invalid(format!("the value cannot be written as JSON: {error}")))?;
        Ok(RawJson(Arc::from(raw)))
    }

    /// For text this crate has put together from checked parts.
    pub(crate) fn from_parts(text: String) -> Result<RawJson, Error> {
        let raw = RawValue::from_string(text).map_err(|error| syntax("the value", &error))?;
        Ok(RawJson(Arc::from(raw)))
    }

    /// `null`.
    pub fn null() -> RawJson {
        static NULL: LazyLock<RawJson> = LazyLock::new(|| RawJson(Arc::from(RawValue::NULL.to_owned())));
        NULL.clone()
    }

    /// `{}`.
    pub fn empty_object() -> RawJson {
        static EMPTY: LazyLock<RawJson> = LazyLock::new(|| RawJson::parse("{}").unwrap_or_else(|_| RawJson::null()));
        EMPTY.clone()
    }

    /// The JSON text.
    pub fn get(&self) -> &str {
        self.0.get()
    }

    /// The value as a raw value, for readers that borrow from it.
    pub fn as_raw(&self) -> &RawValue {
        &self.0
    }

    /// Whether it is `null`.
    pub fn is_null(&self) -> bool {
        self.get() == "null"
    }
}

impl PartialEq for RawJson {
    fn eq(&self, other: &RawJson) -> bool {
        self.get() == other.get()
    }
}

impl Eq for RawJson {}

impl fmt::Debug for RawJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.get())
    }
}

impl Serialize for RawJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// Appends `text` as a JSON string.
pub fn push_string(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bytes = text.as_bytes();
    out.push(b'"');
    let mut done = 0;
    loop {
        let at = next_special(bytes, done);
        out.extend_from_slice(&bytes[done..at]);
        let Some(byte) = bytes.get(at) else { break };
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
        }
        done = at + 1;
    }
    out.push(b'"');
}

/// Appends `value` in decimal.
pub fn push_u64(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 20];
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[first..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_keeps_its_text_but_no_line_breaks() {
        let value = RawJson::parse(" {\"b\" : 1.10,\n \"a\":\"\\n\"}\r\n").unwrap();
        assert_eq!(value.get(), "{\"b\" : 1.10, \"a\":\"\\n\"}");
        assert_eq!(serde_json::to_string(&value).unwrap(), value.get());
        assert!(RawJson::null().is_null());
        assert_eq!(RawJson::empty_object().get(), "{}");
    }

    #[test]
    fn what_is_not_one_json_value_is_refused() {
        for text in ["", "{", "1 2", "{\"a\":}", "nul", "\"\\ud800\"", "\u{feff}1"] {
            assert!(RawJson::parse(text).is_err(), "{text:?}");
        }
        let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(RawJson::parse(&deep(60)).is_ok() && RawJson::parse(&deep(61)).is_err());
        assert!(check_body(&deep(62)).is_ok() && check_body(&deep(63)).is_err());
        assert!(RawJson::from_serialize(&std::collections::BTreeMap::from([(Some(1), 1), (None, 2)])).is_err());
    }

    #[test]
    fn strings_and_integers_are_written_as_serde_json_writes_them() {
        let all: String = (0..0x250).filter_map(char::from_u32).chain("\"\\😀".chars()).collect();
        let mut out = Vec::new();
        push_string(&mut out, &all);
        assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), all);
        for value in [0, 9, 10, 12_345, u64::MAX] {
            out.clear();
            push_u64(&mut out, value);
            assert_eq!(out, value.to_string().as_bytes());
        }
    }
}
