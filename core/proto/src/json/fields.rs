//! An object read member by member, with errors that name the member, what was found and what to send.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::error::Error;
use crate::time::Timestamp;

/// The members of a JSON object, values raw.
///
/// Of equal names the last wins (R-4.11), `null` means absent (1.1), and names nobody asks for are ignored (R-5.2). Every
/// getter fails with `INVALID_REQUEST` (R-5.20) in the form `payload.agent must be text, got a number; send "name"`. Values
/// are never quoted in an error: they may be secrets.
#[derive(Debug)]
pub struct Fields<'a> {
    path: Cow<'static, str>,
    members: Vec<(Cow<'a, str>, &'a RawValue)>,
}

impl<'a> Fields<'a> {
    /// The members of `value`, which errors call `path`.
    pub fn read(path: impl Into<Cow<'static, str>>, value: &'a RawValue) -> Result<Fields<'a>, Error> {
        let path = path.into();
        if shape(value) != "an object" {
            return Err(Error::invalid(format!("{path} must be an object, got {}; send {{...}}", shape(value))));
        }
        let mut members = Vec::new();
        each_member(value.get(), Some, |name, value| members.push((name, value)))
            .map_err(|error| syntax(&path, &error))?;
        Ok(Fields { path, members })
    }

    /// The name errors use for this object.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Names and values in the order written, of equal names only the last; `null` is included.
    pub fn members(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        let last = |at: usize, name: &str| self.members[at + 1..].iter().all(|(later, _)| later != name);
        self.members
            .iter()
            .enumerate()
            .filter(move |(at, (name, _))| last(*at, name))
            .map(|(_, (name, value))| (&**name, *value))
    }

    /// The member, also when it is `null`.
    pub fn raw(&self, name: &str) -> Option<&'a RawValue> {
        self.members.iter().rev().find(|(found, _)| found == name).map(|(_, value)| *value)
    }

    /// The member unless it is absent or `null`.
    pub fn value(&self, name: &str) -> Option<&'a RawValue> {
        self.raw(name).filter(|value| value.get() != "null")
    }

    /// The error that says what `name` must be, what it is, and, if `example` is not empty, what to send.
    pub fn fault(&self, name: &str, must_be: &str, example: &str) -> Error {
        let got = self.value(name).map_or("nothing", shape);
        let remedy = if example.is_empty() { String::new() } else { format!("; send {example}") };
        Error::invalid(format!("{}.{name} must be {must_be}, got {got}{remedy}", self.path))
    }

    fn convert<T>(
        &self,
        name: &str,
        must_be: &str,
        example: &str,
        read: impl Fn(&'a RawValue) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let Some(value) = self.value(name) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| self.fault(name, must_be, example))
    }

    /// Required text, empty or not.
    pub fn str(&self, name: &str, example: &str) -> Result<Cow<'a, str>, Error> {
        self.opt_str(name, example)?.ok_or_else(|| self.fault(name, "text", example))
    }

    /// Text, empty or not.
    pub fn opt_str(&self, name: &str, example: &str) -> Result<Option<Cow<'a, str>>, Error> {
        self.convert(name, "text", example, string)
    }

    /// Required text of at least one character.
    pub fn non_empty(&self, name: &str, example: &str) -> Result<Cow<'a, str>, Error> {
        self.opt_non_empty(name, example)?.ok_or_else(|| self.fault(name, "text that is not empty", example))
    }

    /// Text of at least one character.
    pub fn opt_non_empty(&self, name: &str, example: &str) -> Result<Option<Cow<'a, str>>, Error> {
        self.convert(name, "text that is not empty", example, |value| string(value).filter(|text| !text.is_empty()))
    }

    /// Required whole number from `least` to 2^63-1 (R-4.12).
    pub fn u64(&self, name: &str, least: u64) -> Result<u64, Error> {
        self.opt_u64(name, least)?.ok_or_else(|| self.whole_number(name, least))
    }

    /// Whole number from `least` to 2^63-1; fractions, exponents and booleans are none.
    pub fn opt_u64(&self, name: &str, least: u64) -> Result<Option<u64>, Error> {
        let Some(value) = self.value(name) else { return Ok(None) };
        unsigned(value).filter(|value| *value >= least).map(Some).ok_or_else(|| self.whole_number(name, least))
    }

    fn whole_number(&self, name: &str, least: u64) -> Error {
        self.fault(name, &format!("a whole number from {least} to 9223372036854775807"), "")
    }

    /// `true` or `false`.
    pub fn opt_bool(&self, name: &str) -> Result<Option<bool>, Error> {
        self.convert(name, "true or false", "", |value| value.get().parse().ok())
    }

    /// Any number, as its text.
    pub fn opt_number(&self, name: &str) -> Result<Option<&'a str>, Error> {
        self.convert(name, "a number", "", number)
    }

    /// Required number, as its text.
    pub fn number(&self, name: &str) -> Result<&'a str, Error> {
        self.opt_number(name)?.ok_or_else(|| self.fault(name, "a number", ""))
    }

    /// A time in any form of R-5.14.
    pub fn opt_time(&self, name: &str) -> Result<Option<Timestamp>, Error> {
        let read = |value| Timestamp::parse(&string(value)?);
        self.convert(name, "a time", "\"YYYY-MM-DDThh:mm:ss.sssZ\"", read)
    }

    /// Required object.
    pub fn object(&self, name: &str) -> Result<Fields<'a>, Error> {
        self.opt_object(name)?.ok_or_else(|| self.fault(name, "an object", "{...}"))
    }

    /// An object.
    pub fn opt_object(&self, name: &str) -> Result<Option<Fields<'a>>, Error> {
        self.value(name).map(|value| Fields::read(format!("{}.{name}", self.path), value)).transpose()
    }

    /// A list, items raw.
    pub fn opt_list(&self, name: &str) -> Result<Option<Vec<&'a RawValue>>, Error> {
        self.convert(name, "a list", "[...]", list)
    }

    /// A list of texts.
    pub fn opt_strings(&self, name: &str) -> Result<Option<Vec<String>>, Error> {
        let Some(items) = self.opt_list(name)? else { return Ok(None) };
        items.iter().enumerate().map(|(at, item)| self.text_item(name, at, item)).collect::<Result<_, _>>().map(Some)
    }

    fn text_item(&self, name: &str, at: usize, item: &'a RawValue) -> Result<String, Error> {
        let fault = || {
            Error::invalid(format!(
                "{}.{name}[{at}] must be text, got {}; send a list of texts",
                self.path,
                shape(item)
            ))
        };
        string(item).map(Cow::into_owned).ok_or_else(fault)
    }

    /// Demands an object whose every value is a list of texts, such as a lease.
    pub fn lists_of_text(&self) -> Result<(), Error> {
        for (name, value) in self.members() {
            let items = list(value).ok_or_else(|| {
                Error::invalid(format!(
                    "{}.{name} must be a list of texts, got {}; send [\"...\"]",
                    self.path,
                    shape(value)
                ))
            })?;
            for (at, item) in items.into_iter().enumerate() {
                self.text_item(name, at, item)?;
            }
        }
        Ok(())
    }
}

/// What kind of value it is, in words for errors.
pub fn shape(value: &RawValue) -> &'static str {
    let text = value.get();
    match text.as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "a list",
        Some(b'"') if text.len() == 2 => "empty text",
        Some(b'"') => "text",
        Some(b't') => "true",
        Some(b'f') => "false",
        Some(b'n') => "null",
        Some(b'-') => "a negative number",
        _ if unsigned(value).is_some() => "a number",
        _ if text.bytes().all(|byte| byte.is_ascii_digit()) => "a number too large",
        _ => "a number with a fraction or exponent",
    }
}

/// The text of a JSON string; `None` for other values. Borrows unless the string holds escapes.
pub fn string(value: &RawValue) -> Option<Cow<'_, str>> {
    let text = value.get();
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') { serde_json::from_str(text).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(inner)) }
}

/// A JSON integer from 0 to 2^63-1 (R-4.12); `None` for other values, also for `1.0` and `1e3`.
pub fn unsigned(value: &RawValue) -> Option<u64> {
    let digits = value.get().bytes().all(|byte| byte.is_ascii_digit());
    value.get().parse().ok().filter(|value| digits && *value <= i64::MAX as u64)
}

/// The text of a JSON number; `None` for other values.
pub fn number(value: &RawValue) -> Option<&str> {
    value.get().starts_with(|first: char| first == '-' || first.is_ascii_digit()).then(|| value.get())
}

fn list(value: &RawValue) -> Option<Vec<&RawValue>> {
    serde_json::from_str(value.get()).ok()
}

/// A parser's complaint in our words.
pub(crate) fn syntax(what: &str, error: &serde_json::Error) -> Error {
    let problem = if error.is_eof() { "ends too early" } else { "is not JSON" };
    Error::invalid(format!("{what} {problem} at line {}, column {}; send one JSON value", error.line(), error.column()))
}

/// The members called `names`, in that order, of the object `text`; of equal names the last. Allocates nothing.
pub(crate) fn pick<'a, const N: usize>(
    text: &'a str,
    names: &[&str; N],
) -> serde_json::Result<[Option<&'a RawValue>; N]> {
    let mut picked = [None; N];
    let mut next = 0;
    // Peers write members in the same order every time, so the search starts behind the last find.
    let find = |name: Cow<'a, str>| {
        let found = (next..N).chain(0..next).find(|at| names[*at] == name)?;
        next = found + 1;
        Some(found)
    };
    each_member(text, find, |at, value| picked[at] = Some(value))?;
    Ok(picked)
}

/// Hands every member of the object `text` to `take`, except those whose name `choose` passes over.
fn each_member<'a, T>(
    text: &'a str,
    choose: impl FnMut(Cow<'a, str>) -> Option<T>,
    take: impl FnMut(T, &'a RawValue),
) -> serde_json::Result<()> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    deserializer.deserialize_map(Walk { choose, take })?;
    deserializer.end()
}

struct Walk<C, F> {
    choose: C,
    take: F,
}

impl<'de, T, C: FnMut(Cow<'de, str>) -> Option<T>, F: FnMut(T, &'de RawValue)> Visitor<'de> for Walk<C, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(chosen) = map.next_key_seed(Name(&mut self.choose))? {
            match chosen {
                Some(chosen) => (self.take)(chosen, map.next_value()?),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

struct Name<F>(F);

impl<'de, T, F: FnMut(Cow<'de, str>) -> T> DeserializeSeed<'de> for Name<F> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de, T, F: FnMut(Cow<'de, str>) -> T> Visitor<'de> for Name<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member name")
    }

    fn visit_borrowed_str<E>(mut self, name: &'de str) -> Result<T, E> {
        Ok((self.0)(Cow::Borrowed(name)))
    }

    fn visit_str<E>(mut self, name: &str) -> Result<T, E> {
        Ok((self.0)(Cow::Owned(name.to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Fields<'_> {
        Fields::read("payload", serde_json::from_str(text).unwrap()).unwrap()
    }

    #[test]
    fn of_equal_names_the_last_wins_and_null_is_absent() {
        let fields = fields(r#"{"a":1,"b":"x","\u0061":2,"b":null,"c":[]}"#);
        assert_eq!(fields.u64("a", 0).unwrap(), 2);
        assert_eq!(fields.opt_str("b", "").unwrap(), None);
        assert_eq!(
            fields.members().map(|(name, value)| (name, value.get())).collect::<Vec<_>>(),
            [("a", "2"), ("b", "null"), ("c", "[]")]
        );
        let [b, a] = pick(r#"{"a":1,"x":{},"b":"x","\u0061":2}"#, &["b", "a"]).unwrap();
        assert_eq!((a.unwrap().get(), b.unwrap().get()), ("2", "\"x\""));
    }

    #[test]
    fn errors_name_the_member_its_shape_and_the_remedy() {
        let fields = fields(
            r#"{"agent":7,"name":"","n":1.5,"m":-1,"big":9223372036854775808,"t":"soon","o":[],"l":["a",1],"y":"true"}"#,
        );
        let message = |result: Error| result.message;
        assert_eq!(
            message(fields.str("agent", "\"name\" or \"name@version\"").unwrap_err()),
            "payload.agent must be text, got a number; send \"name\" or \"name@version\""
        );
        assert_eq!(message(fields.str("gone", "").unwrap_err()), "payload.gone must be text, got nothing");
        assert_eq!(
            message(fields.non_empty("name", "").unwrap_err()),
            "payload.name must be text that is not empty, got empty text"
        );
        for (name, got) in [
            ("n", "a number with a fraction or exponent"),
            ("m", "a negative number"),
            ("big", "a number too large"),
            ("y", "text"),
        ] {
            let whole = format!("payload.{name} must be a whole number from 1 to 9223372036854775807, got {got}");
            assert_eq!(message(fields.u64(name, 1).unwrap_err()), whole);
        }
        assert!(message(fields.opt_time("t").unwrap_err()).contains("payload.t must be a time, got text; send \"YYYY"));
        assert!(message(fields.object("o").unwrap_err()).contains("payload.o must be an object, got a list"));
        assert!(message(fields.opt_strings("l").unwrap_err()).contains("payload.l[1] must be text, got a number"));
        assert!(message(fields.opt_bool("y").unwrap_err()).contains("payload.y must be true or false, got text"));
        assert!(
            message(fields.lists_of_text().unwrap_err())
                .contains("payload.agent must be a list of texts, got a number")
        );
    }

    #[test]
    fn integers_reach_the_end_of_63_bits() {
        let fields = fields(r#"{"max":9223372036854775807,"zero":0,"minus":-0,"one":1.0}"#);
        assert_eq!(fields.u64("max", 0).unwrap(), i64::MAX as u64);
        assert_eq!(fields.u64("zero", 0).unwrap(), 0);
        assert!(fields.u64("zero", 1).is_err() && fields.u64("minus", 0).is_err() && fields.u64("one", 0).is_err());
    }
}
