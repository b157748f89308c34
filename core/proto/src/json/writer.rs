//! An object put together member by member.

use super::{RawJson, push_string, push_u64};
use crate::error::Error;

/// Writes one JSON object; members appear in the order they are added.
pub(crate) struct ObjectWriter(Vec<u8>);

impl ObjectWriter {
    pub(crate) fn new() -> Self {
        ObjectWriter(Vec::with_capacity(128))
    }

    fn name(&mut self, name: &str) {
        self.0.push(if self.0.is_empty() { b'{' } else { b',' });
        push_string(&mut self.0, name);
        self.0.push(b':');
    }

    pub(crate) fn text(&mut self, name: &str, value: &str) {
        self.name(name);
        push_string(&mut self.0, value);
    }

    pub(crate) fn opt_text(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    pub(crate) fn u64(&mut self, name: &str, value: u64) {
        self.name(name);
        push_u64(&mut self.0, value);
    }

    pub(crate) fn bool(&mut self, name: &str, value: bool) {
        self.json(name, if value { "true" } else { "false" });
    }

    /// `value` must be JSON.
    pub(crate) fn json(&mut self, name: &str, value: &str) {
        self.name(name);
        self.0.extend_from_slice(value.as_bytes());
    }

    pub(crate) fn opt_json(&mut self, name: &str, value: Option<&RawJson>) {
        if let Some(value) = value {
            self.json(name, value.get());
        }
    }

    pub(crate) fn into_text(mut self) -> String {
        if self.0.is_empty() {
            self.0.push(b'{');
        }
        self.0.push(b'}');
        // Only whole texts were appended, so nothing is ever replaced.
        String::from_utf8(self.0).unwrap_or_default()
    }

    pub(crate) fn finish(self) -> Result<RawJson, Error> {
        RawJson::from_parts(self.into_text())
    }
}
