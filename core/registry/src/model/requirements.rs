//! What an agent needs to run (REG-071, REG-072).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::check::{Fields, Invalid, MOST_DEPTH, Text, is_shallow, shape};

/// The kinds of a configuration field.
const FIELD_TYPES: [&str; 7] = ["text", "select", "multiselect", "boolean", "number", "textarea", "array"];

/// AgentRequirements (REG-071): what an agent needs, and what its user must configure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentRequirements {
    /// At most 50 of at most 200 characters.
    pub system_requirements: Vec<String>,
    /// At most 30 of at most 100 characters.
    pub permissions: Vec<String>,
    /// At most 100 of at most 200 characters.
    pub dependencies: Vec<String>,
    /// A dotted number with an optional suffix, at most 50 characters.
    pub minimum_system_version: Option<String>,
    /// 1 to 1 048 576.
    pub minimum_memory_mb: Option<i64>,
    /// 1 to 10 485 760.
    pub minimum_disk_space_mb: Option<i64>,
    /// True unless said otherwise.
    pub requires_internet: bool,
    /// At most 20 of `N` or `N-M`, 1 to 65535.
    pub network_ports: Vec<String>,
    /// At most 50.
    pub required_fields: Vec<ConfigField>,
    /// At most 100.
    pub optional_fields: Vec<ConfigField>,
    /// At most 100 members.
    pub user_configuration: Map<String, Value>,
    /// `N.N`; `1.0` by default.
    pub schema_version: String,
}

impl Default for AgentRequirements {
    fn default() -> Self {
        AgentRequirements {
            system_requirements: Vec::new(),
            permissions: Vec::new(),
            dependencies: Vec::new(),
            minimum_system_version: None,
            minimum_memory_mb: None,
            minimum_disk_space_mb: None,
            requires_internet: true,
            network_ports: Vec::new(),
            required_fields: Vec::new(),
            optional_fields: Vec::new(),
            user_configuration: Map::new(),
            schema_version: "1.0".to_owned(),
        }
    }
}

/// A field a user fills in (REG-072).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConfigField {
    /// 1 to 100 characters, an identifier.
    pub name: String,
    /// 1 to 200 characters.
    pub label: String,
    /// One of `text`, `select`, `multiselect`, `boolean`, `number`, `textarea`, `array`.
    #[serde(rename = "type")]
    pub kind: String,
    /// At most 1000 characters.
    pub description: Option<String>,
    /// Text, whole number, truth value or list of texts.
    pub default_value: Option<Value>,
    /// At most 50 of at most 200 characters.
    pub options: Option<Vec<String>>,
    /// A regular expression of at most 500 characters.
    pub validation: Option<String>,
    /// At most 300 characters.
    pub placeholder: Option<String>,
    /// At most 100 characters; of optional fields only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
}

impl AgentRequirements {
    /// Checks an object, or JSON text of one; blank text is none (REG-070).
    ///
    /// # Errors
    /// Every fault found.
    pub fn check_opt(value: &Value) -> Result<Option<AgentRequirements>, Vec<Invalid>> {
        match value {
            Value::Null => Ok(None),
            Value::String(text) if text.trim().is_empty() => Ok(None),
            Value::String(text) => match serde_json::from_str(text) {
                Ok(parsed @ Value::Object(_)) => AgentRequirements::check(&parsed).map(Some),
                _ => Err(vec![
                    Invalid::whole(
                        "value_error",
                        "requirements sent as text must be the JSON text of an object; correct the JSON, or send an object",
                    )
                    .input(value),
                ]),
            },
            object => AgentRequirements::check(object).map(Some),
        }
    }

    /// Checks an object.
    ///
    /// # Errors
    /// Every fault found.
    pub fn check(value: &Value) -> Result<AgentRequirements, Vec<Invalid>> {
        let mut fields = Fields::of(value)?;
        let count = fields.object().len();
        if count > 100 {
            let message = format!("requirements may have at most 100 members, and has {count}; send fewer");
            return Err(vec![Invalid::whole("value_error", message)]);
        }
        let fallback = AgentRequirements::default();
        let requirements = AgentRequirements {
            system_requirements: fields.kept_texts("system_requirements", 50, 200).unwrap_or_default(),
            permissions: fields.kept_texts("permissions", 30, 100).unwrap_or_default(),
            dependencies: fields.kept_texts("dependencies", 100, 200).unwrap_or_default(),
            minimum_system_version: fields.text_opt(
                "minimum_system_version",
                Text::of(1, 50).form(is_system_version, "must be a dotted number such as 3.11 or 3.11.2-rc1"),
            ),
            minimum_memory_mb: fields.int_opt("minimum_memory_mb", 1, 1_048_576),
            minimum_disk_space_mb: fields.int_opt("minimum_disk_space_mb", 1, 10_485_760),
            requires_internet: fields.bool_opt("requires_internet").unwrap_or(true),
            network_ports: check_ports(&mut fields),
            required_fields: check_fields(&mut fields, "required_fields", 50),
            optional_fields: check_fields(&mut fields, "optional_fields", 100),
            user_configuration: check_configuration(&mut fields),
            schema_version: fields
                .text_opt("schema_version", Text::of(3, 20).form(is_schema_version, "must be like 1.0"))
                .unwrap_or(fallback.schema_version),
        };
        fields.done(requirements)
    }
}

impl ConfigField {
    /// Checks an object; only an optional field has a category.
    ///
    /// # Errors
    /// Every fault found.
    pub fn check(value: &Value, optional: bool) -> Result<ConfigField, Vec<Invalid>> {
        let mut fields = Fields::of(value)?;
        let field = ConfigField {
            name: fields.text("name", Text::identifier(1, 100)),
            label: fields.text("label", Text::of(1, 200)),
            kind: fields.text(
                "type",
                Text::of(1, 20).form(
                    |text| FIELD_TYPES.contains(&text),
                    "must be one of text, select, multiselect, boolean, number, textarea, array",
                ),
            ),
            description: fields.text_opt("description", Text::of(0, 1000)),
            default_value: check_default(&mut fields),
            options: fields.texts_opt("options", 50).map(|texts| texts.into_iter().map(str::to_owned).collect()),
            validation: fields.text_opt(
                "validation",
                Text::of(0, 500).verbatim().form(is_expression, "must be a regular expression whose brackets close"),
            ),
            placeholder: fields.text_opt("placeholder", Text::of(0, 300)),
            category: if optional { fields.text_opt("category", Text::of(0, 100)) } else { None },
        };
        if let Some(at) = field.options.iter().flatten().position(|option| option.chars().count() > 200) {
            let fault = format!("entry {at} of options may have at most 200 characters; shorten it");
            fields.fault(Invalid { loc: vec!["options".into(), at.into()], ..Invalid::whole("value_error", fault) });
        }
        fields.done(field)
    }
}

fn check_fields(fields: &mut Fields<'_>, name: &'static str, most: usize) -> Vec<ConfigField> {
    let list = fields.list_opt(name, most).unwrap_or_default();
    let mut kept = Vec::with_capacity(list.len());
    for (at, entry) in list.iter().enumerate() {
        match ConfigField::check(entry, name == "optional_fields") {
            Ok(field) => kept.push(field),
            Err(faults) => fields.faults_below(name, faults.into_iter().map(|fault| fault.below(at)).collect()),
        }
    }
    kept
}

fn check_default(fields: &mut Fields<'_>) -> Option<Value> {
    let value = fields.present("default_value")?;
    let fits = match value {
        Value::String(_) | Value::Bool(_) => true,
        Value::Number(number) => number.is_i64() || number.is_u64(),
        Value::Array(list) => list.len() <= 50 && list.iter().all(Value::is_string),
        _ => false,
    };
    if !fits {
        let words = "default_value must be text, a whole number, true or false, or a list of at most 50 texts";
        fields.fault(Invalid::new("default_value", "value_error", words).input(value));
        return None;
    }
    Some(value.clone())
}

fn check_configuration(fields: &mut Fields<'_>) -> Map<String, Value> {
    let Some(value) = fields.present("user_configuration") else {
        return Map::new();
    };
    match value {
        Value::Object(object) if object.len() <= 100 && is_shallow(value, MOST_DEPTH) => object.clone(),
        Value::Object(_) => {
            let words = format!(
                "user_configuration may have at most 100 members, nested at most {MOST_DEPTH} deep, and is {}; send less",
                shape(value)
            );
            fields.fault(Invalid::new("user_configuration", "value_error", words).input(value));
            Map::new()
        }
        _ => {
            let words = "user_configuration must be an object of at most 100 members";
            fields.fault(Invalid::new("user_configuration", "dict_type", words).input(value));
            Map::new()
        }
    }
}

fn check_ports(fields: &mut Fields<'_>) -> Vec<String> {
    let mut kept = Vec::new();
    for (at, text) in fields.texts_opt("network_ports", 20).unwrap_or_default().into_iter().enumerate() {
        let text = text.trim();
        if is_port_range(text) {
            kept.push(text.to_owned());
        } else {
            let words = format!("entry {at} of network_ports must be a port or a range of them, as 8080 or 8080-8090");
            let fault = Invalid::whole("value_error", words);
            fields.fault(Invalid { loc: vec!["network_ports".into(), at.into()], ..fault });
        }
    }
    kept
}

fn is_port_range(text: &str) -> bool {
    let port = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u16>().ok().filter(|port| digits && *port > 0)
    };
    match text.split_once('-') {
        None => port(text).is_some(),
        Some((first, last)) => matches!((port(first), port(last)), (Some(first), Some(last)) if first <= last),
    }
}

fn is_system_version(text: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let (number, suffix) = match text.find(|c: char| !c.is_ascii_digit() && c != '.') {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    number.split('.').all(digits)
        && suffix.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'+'))
}

fn is_schema_version(text: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    text.split_once('.').is_some_and(|(major, minor)| digits(major) && digits(minor))
}

/// Whether a text can be a regular expression: nothing is escaped or opened without an end, and nothing is repeated
/// that is not there. Dialects differ in all the rest, and the registry runs none of them.
fn is_expression(text: &str) -> bool {
    let mut chars = text.chars().peekable();
    let mut open = 0_usize;
    let mut repeatable = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                if chars.next().is_none() {
                    return false;
                }
                repeatable = true;
            }
            '[' => {
                if chars.peek() == Some(&'^') {
                    chars.next();
                }
                let mut first = true;
                loop {
                    match chars.next() {
                        None => return false,
                        Some('\\') if chars.next().is_none() => return false,
                        Some(']') if !first => break,
                        _ => first = false,
                    }
                }
                repeatable = true;
            }
            '(' => {
                open += 1;
                // What follows names a kind of group: `(?:`, `(?=`, `(?P<name>`.
                if chars.peek() == Some(&'?') {
                    chars.next();
                }
                repeatable = false;
            }
            ')' => {
                let Some(left) = open.checked_sub(1) else { return false };
                open = left;
                repeatable = true;
            }
            '*' | '+' | '?' if !repeatable => return false,
            '|' => repeatable = false,
            _ => repeatable = true,
        }
    }
    open == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules: REG-072
    #[test]
    fn a_validation_is_a_regular_expression() {
        for good in ["", "^[a-z]+$", r"^\d{3}-\d{4}$", "(?:a|b)*", "[]a]", "(?P<year>[0-9]{4})", "^(?=.*[A-Z]).{8,}$"] {
            assert!(is_expression(good), "{good}");
        }
        for bad in ["[a-z", "(a", "a)", "*a", "a|+", "\\", "[\\"] {
            assert!(!is_expression(bad), "{bad}");
        }
    }

    /// Rules: REG-071
    #[test]
    fn ports_are_numbers_or_ranges() {
        for good in ["1", "65535", "80-90", "80-80"] {
            assert!(is_port_range(good), "{good}");
        }
        for bad in ["", "0", "65536", "90-80", "80-", "-80", "+80", "a", "1-2-3"] {
            assert!(!is_port_range(bad), "{bad}");
        }
    }

    /// Rules: REG-070, REG-071
    #[test]
    fn requirements_come_as_object_or_text() {
        let of = |value: Value| AgentRequirements::check_opt(&value);
        assert_eq!(of(Value::Null), Ok(None));
        assert_eq!(of("  ".into()), Ok(None));
        assert_eq!(of("{}".into()), Ok(Some(AgentRequirements::default())));
        assert!(of("{bad".into()).is_err());
        assert!(of("[1]".into()).is_err());
        assert!(of(serde_json::json!([1])).is_err());
        let faults = of(serde_json::json!({"network_ports": ["70000"], "minimum_memory_mb": 0})).unwrap_err();
        let places: Vec<String> = faults.iter().map(Invalid::place).collect();
        assert_eq!(places, ["minimum_memory_mb", "network_ports.0"]);
    }
}
