//! Bounds of input models, and what is wrong with an input that breaks them.
//!
//! A check goes through an object field by field and collects every fault. It accepts what pydantic accepts in its lax
//! mode (`"3"` for a number, `"true"` for a truth value), since programs have come to rely on it.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Faults told of one input at most.
pub const MOST_FAULTS: usize = 50;
/// How deep what a user nests in a free-form value may be.
pub const MOST_DEPTH: usize = 16;

/// One step to the place of a fault: a member's name, or a position in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Loc {
    /// A position in a list, from 0.
    Index(usize),
    /// A member's name.
    Key(Cow<'static, str>),
}

impl From<&'static str> for Loc {
    fn from(name: &'static str) -> Loc {
        Loc::Key(Cow::Borrowed(name))
    }
}

impl From<usize> for Loc {
    fn from(index: usize) -> Loc {
        Loc::Index(index)
    }
}

impl fmt::Display for Loc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Loc::Index(index) => write!(f, "{index}"),
            Loc::Key(name) => f.write_str(name),
        }
    }
}

/// One fault of an input (REG-101): where, of which kind, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invalid {
    /// The place, from the model's own root; the HTTP layer puts `body` or `query` before it.
    pub loc: Vec<Loc>,
    /// A word of pydantic's, such as `missing`, `value_error`, `string_type`, `int_parsing`.
    #[serde(rename = "type")]
    pub kind: Cow<'static, str>,
    /// Names the field, the bound and the remedy.
    #[serde(rename = "msg")]
    pub message: String,
    /// The shape of what was sent, such as `text of 33 characters`; never the text itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
}

impl Invalid {
    /// A fault at one field.
    pub fn new(field: impl Into<Loc>, kind: &'static str, message: impl Into<String>) -> Invalid {
        Invalid { loc: vec![field.into()], kind: Cow::Borrowed(kind), message: message.into(), input: None }
    }

    /// A fault of the input as a whole.
    pub fn whole(kind: &'static str, message: impl Into<String>) -> Invalid {
        Invalid { loc: Vec::new(), kind: Cow::Borrowed(kind), message: message.into(), input: None }
    }

    /// A field that is not there; `wanted` says what to send, such as `text of 2 to 32 characters`.
    pub fn missing(field: impl Into<Loc>, wanted: &str) -> Invalid {
        let field = field.into();
        let message = format!("{field} is missing; send {wanted}");
        Invalid::new(field, "missing", message)
    }

    /// The same with the shape of what was sent.
    #[must_use]
    pub fn input(mut self, value: &Value) -> Invalid {
        self.input = Some(shape(value));
        self
    }

    /// The same below another place, such as `body`.
    #[must_use]
    pub fn below(mut self, outer: impl Into<Loc>) -> Invalid {
        self.loc.insert(0, outer.into());
        self
    }

    /// The place as text, such as `body.requirements.network_ports.0`.
    pub fn place(&self) -> String {
        let mut place = String::new();
        for (at, step) in self.loc.iter().enumerate() {
            if at > 0 {
                place.push('.');
            }
            place.push_str(&step.to_string());
        }
        place
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// What kind of value it is and how large, without its content.
pub fn shape(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => format!("text of {} characters", text.chars().count()),
        Value::Array(list) => format!("list of {} entries", list.len()),
        Value::Object(object) => format!("object of {} members", object.len()),
    }
}

/// A text for a message: shortened, and without what would break a line.
pub fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(40).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(40).is_some() {
        shown.push('…');
    }
    shown
}

/// Whether nothing in the value is nested deeper than `most`.
pub fn is_shallow(value: &Value, most: usize) -> bool {
    match value {
        Value::Array(list) => most > 0 && list.iter().all(|entry| is_shallow(entry, most - 1)),
        Value::Object(object) => most > 0 && object.values().all(|entry| is_shallow(entry, most - 1)),
        _ => true,
    }
}

/// The characters of an identifier: `[A-Za-z0-9_-]+`.
pub fn is_identifier(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// The characters of a user's id: letters, digits, `_ @ . -`.
pub fn is_user_id(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'@' | b'.' | b'-'))
}

/// An `http` or `https` address as the registry takes it: at least one character after the scheme, which begins no
/// empty host, and no blanks.
pub fn is_endpoint(text: &str) -> bool {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    rest.and_then(|rest| rest.chars().next()).is_some_and(|first| !matches!(first, '/' | '$' | '.' | '?' | '#'))
        && !text.chars().any(|c| c.is_whitespace() || c.is_control())
}

/// Which texts fit, and how to say so, such as `may hold letters, digits, _ and - only`.
pub type Form = (fn(&str) -> bool, &'static str);

/// What a text field must be.
#[derive(Clone, Copy, Debug)]
pub struct Text {
    /// Characters at least, after surrounding blanks are gone.
    pub min: usize,
    /// Characters at most.
    pub max: usize,
    /// The form it must have.
    pub form: Option<Form>,
    /// Whether surrounding blanks are removed first.
    pub strip: bool,
}

impl Text {
    /// Text of so many characters, surrounding blanks removed.
    pub const fn of(min: usize, max: usize) -> Text {
        Text { min, max, form: None, strip: true }
    }

    /// The same with a form it must have.
    #[must_use]
    pub const fn form(mut self, fits: fn(&str) -> bool, words: &'static str) -> Text {
        self.form = Some((fits, words));
        self
    }

    /// The same with surrounding blanks kept.
    #[must_use]
    pub const fn verbatim(mut self) -> Text {
        self.strip = false;
        self
    }

    /// An identifier of so many characters.
    pub const fn identifier(min: usize, max: usize) -> Text {
        Text::of(min, max).form(is_identifier, "may hold letters, digits, _ and - only")
    }

    /// An `http` or `https` address.
    pub const fn endpoint() -> Text {
        Text::of(1, 2048).form(is_endpoint, "must be an address such as https://agent.example.com/path, without blanks")
    }

    fn wanted(self) -> String {
        format!("text of {} to {} characters", self.min, self.max)
    }

    /// The text as it is kept, or what is wrong with it.
    fn fit(self, name: &str, text: &str) -> Result<String, String> {
        let text = if self.strip { text.trim() } else { text };
        let count = text.chars().count();
        if count < self.min {
            Err(format!("{name} must have at least {} characters, and has {count}; send a longer one", self.min))
        } else if count > self.max {
            Err(format!("{name} may have at most {} characters, and has {count}; shorten it", self.max))
        } else if let Some((_, words)) = self.form.filter(|(fits, _)| !fits(text)) {
            Err(format!("{name} {words}; correct it"))
        } else {
            Ok(text.to_owned())
        }
    }
}

/// Goes through the members of an object and collects their faults.
#[derive(Debug)]
pub struct Fields<'a> {
    object: &'a Map<String, Value>,
    faults: Vec<Invalid>,
}

static NULL: Value = Value::Null;

impl<'a> Fields<'a> {
    /// The members of this value.
    ///
    /// # Errors
    /// When it is no object.
    pub fn of(value: &'a Value) -> Result<Fields<'a>, Vec<Invalid>> {
        match value {
            Value::Object(object) => Ok(Fields { object, faults: Vec::new() }),
            other => Err(vec![
                Invalid::whole("dict_type", format!("the input must be a JSON object, and is {}", shape(other)))
                    .input(other),
            ]),
        }
    }

    /// The model, unless there were faults.
    ///
    /// # Errors
    /// All faults found.
    pub fn done<T>(self, model: T) -> Result<T, Vec<Invalid>> {
        if self.faults.is_empty() { Ok(model) } else { Err(self.faults) }
    }

    /// The raw members.
    pub fn object(&self) -> &'a Map<String, Value> {
        self.object
    }

    /// Records a fault.
    pub fn fault(&mut self, fault: Invalid) {
        if self.faults.len() < MOST_FAULTS {
            self.faults.push(fault);
        }
    }

    /// Records the faults of something below a member.
    pub fn faults_below(&mut self, name: &'static str, faults: Vec<Invalid>) {
        for fault in faults {
            self.fault(fault.below(name));
        }
    }

    /// The member, unless it is not there or `null`.
    pub fn present(&self, name: &str) -> Option<&'a Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }

    fn wrong(&mut self, name: &'static str, kind: &'static str, message: String) {
        let value = self.object.get(name).unwrap_or(&NULL);
        self.fault(Invalid::new(name, kind, message).input(value));
    }

    /// A text that must be there; empty when it is at fault.
    pub fn text(&mut self, name: &'static str, text: Text) -> String {
        match self.object.get(name) {
            None => {
                self.fault(Invalid::missing(name, &text.wanted()));
                String::new()
            }
            Some(_) => self.text_of(name, text).unwrap_or_default(),
        }
    }

    /// A text that may be missing or `null`.
    pub fn text_opt(&mut self, name: &'static str, text: Text) -> Option<String> {
        self.present(name).and_then(|_| self.text_of(name, text))
    }

    fn text_of(&mut self, name: &'static str, text: Text) -> Option<String> {
        let Some(Value::String(sent)) = self.object.get(name) else {
            self.wrong(name, "string_type", format!("{name} must be {}", text.wanted()));
            return None;
        };
        match text.fit(name, sent) {
            Ok(text) => Some(text),
            Err(why) => {
                self.wrong(name, "value_error", why);
                None
            }
        }
    }

    /// A whole number in these bounds that may be missing or `null`.
    pub fn int_opt(&mut self, name: &'static str, min: i64, max: i64) -> Option<i64> {
        let value = self.present(name)?;
        match lax_int(value) {
            Ok(number) if (min..=max).contains(&number) => Some(number),
            Ok(_) => {
                self.wrong(
                    name,
                    "value_error",
                    format!("{name} must be between {min} and {max}; choose another value"),
                );
                None
            }
            Err(kind) => {
                self.wrong(name, kind, format!("{name} must be a whole number between {min} and {max}"));
                None
            }
        }
    }

    /// A number in these bounds that may be missing or `null`.
    pub fn float_opt(&mut self, name: &'static str, min: f64, max: f64) -> Option<f64> {
        let value = self.present(name)?;
        match lax_float(value) {
            Ok(number) if (min..=max).contains(&number) => Some(number),
            Ok(_) => {
                self.wrong(
                    name,
                    "value_error",
                    format!("{name} must be between {min} and {max}; choose another value"),
                );
                None
            }
            Err(kind) => {
                self.wrong(name, kind, format!("{name} must be a number between {min} and {max}"));
                None
            }
        }
    }

    /// A truth value that may be missing or `null`.
    pub fn bool_opt(&mut self, name: &'static str) -> Option<bool> {
        let value = self.present(name)?;
        match lax_bool(value) {
            Ok(truth) => Some(truth),
            Err(kind) => {
                self.wrong(name, kind, format!("{name} must be true or false"));
                None
            }
        }
    }

    /// A list of at most so many entries that may be missing or `null`.
    pub fn list_opt(&mut self, name: &'static str, most: usize) -> Option<&'a [Value]> {
        match self.present(name)? {
            Value::Array(list) if list.len() <= most => Some(list),
            Value::Array(list) => {
                let count = list.len();
                self.wrong(
                    name,
                    "value_error",
                    format!("{name} may have at most {most} entries, and has {count}; shorten it"),
                );
                None
            }
            _ => {
                self.wrong(name, "list_type", format!("{name} must be a list of at most {most} entries"));
                None
            }
        }
    }

    /// The texts of such a list; an entry of another kind is a fault.
    pub fn texts_opt(&mut self, name: &'static str, most: usize) -> Option<Vec<&'a str>> {
        let list = self.list_opt(name, most)?;
        let mut texts = Vec::with_capacity(list.len());
        for (at, entry) in list.iter().enumerate() {
            match entry {
                Value::String(text) => texts.push(text.as_str()),
                other => self.fault(
                    Invalid {
                        loc: vec![name.into(), at.into()],
                        kind: Cow::Borrowed("string_type"),
                        message: format!("entry {at} of {name} must be text"),
                        input: None,
                    }
                    .input(other),
                ),
            }
        }
        Some(texts)
    }

    /// The texts of such a list, stripped; blank and longer ones are left out without a word, as the contract has it.
    pub fn kept_texts(&mut self, name: &'static str, most: usize, longest: usize) -> Option<Vec<String>> {
        let texts = self.texts_opt(name, most)?;
        let kept = texts.into_iter().map(str::trim);
        Some(kept.filter(|text| !text.is_empty() && text.chars().count() <= longest).map(str::to_owned).collect())
    }

    /// Capabilities (REG-070): 1 to `most`, blank ones dropped, at least one left.
    pub fn capabilities(&mut self, name: &'static str, most: usize) -> Vec<String> {
        let mut kept = Vec::new();
        let Some(texts) = self.texts_opt(name, most) else {
            return kept;
        };
        for (at, text) in texts.into_iter().enumerate() {
            let text = text.trim();
            let count = text.chars().count();
            let why = match count {
                0 => continue,
                1 => "must have at least 2 characters; send a longer word",
                101.. => "may have at most 100 characters; shorten it",
                _ if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b' ')) => {
                    "may hold letters, digits, _, - and blanks only; correct it"
                }
                _ => {
                    kept.push(text.to_owned());
                    continue;
                }
            };
            self.fault(Invalid {
                loc: vec![name.into(), at.into()],
                kind: Cow::Borrowed("value_error"),
                message: format!("entry {at} of {name} {why}"),
                input: Some(format!("text of {count} characters")),
            });
        }
        if kept.is_empty() && !self.faults.iter().any(|fault| fault.loc.first() == Some(&Loc::from(name))) {
            self.wrong(name, "value_error", format!("{name} must name at least one; send 1 to {most} of them"));
        }
        kept
    }
}

/// A whole number as pydantic takes it, or the word for why it is none.
pub fn lax_int(value: &Value) -> Result<i64, &'static str> {
    match value {
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => Ok(number),
            // Within the numbers a float holds exactly.
            (None, Some(float)) if float.fract() == 0.0 && float.abs() <= 9e15 => Ok(float as i64),
            (None, Some(float)) if float.fract() == 0.0 => Ok(if float < 0.0 { i64::MIN } else { i64::MAX }),
            _ => Err("int_from_float"),
        },
        Value::String(text) => text.trim().parse().map_err(|_| "int_parsing"),
        Value::Bool(truth) => Ok(i64::from(*truth)),
        _ => Err("int_type"),
    }
}

/// A finite number as pydantic takes it, or the word for why it is none.
pub fn lax_float(value: &Value) -> Result<f64, &'static str> {
    match value {
        Value::Number(number) => number.as_f64().filter(|number| number.is_finite()).ok_or("finite_number"),
        Value::String(text) => match text.trim().parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(number),
            Ok(_) => Err("finite_number"),
            Err(_) => Err("float_parsing"),
        },
        Value::Bool(truth) => Ok(f64::from(u8::from(*truth))),
        _ => Err("float_type"),
    }
}

/// A truth value as pydantic takes it, or the word for why it is none.
pub fn lax_bool(value: &Value) -> Result<bool, &'static str> {
    match value {
        Value::Bool(truth) => Ok(*truth),
        Value::String(text) => match text.to_ascii_lowercase().as_str() {
            "true" | "t" | "yes" | "y" | "on" | "1" => Ok(true),
            "false" | "f" | "no" | "n" | "off" | "0" => Ok(false),
            _ => Err("bool_parsing"),
        },
        Value::Number(number) => match number.as_f64() {
            Some(0.0) => Ok(false),
            Some(1.0) => Ok(true),
            _ => Err("bool_parsing"),
        },
        _ => Err("bool_type"),
    }
}

/// Checks free-form members: how many, how their names are, which values (`fits` gives what is wrong).
pub fn check_members(
    name: &'static str,
    object: &Map<String, Value>,
    most: usize,
    fits: impl Fn(&Value) -> Option<&'static str>,
) -> Vec<Invalid> {
    let mut faults = Vec::new();
    if object.len() > most {
        let message = format!("{name} may have at most {most} entries, and has {}; send fewer", object.len());
        faults.push(Invalid::new(name, "value_error", message));
        return faults;
    }
    for (key, value) in object {
        let (why, input) = if key.chars().count() > 100 {
            (Some("has a name of more than 100 characters; shorten it"), None)
        } else {
            (fits(value), Some(shape(value)))
        };
        if let Some(why) = why {
            faults.push(Invalid {
                loc: vec![name.into(), Loc::Key(Cow::Owned(shown(key)))],
                kind: Cow::Borrowed("value_error"),
                message: format!("the entry {} of {name} {why}", shown(key)),
                input,
            });
        }
    }
    faults
}
