//! A user's wish to be put in touch with an agent (REG-077).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::check::{Fields, Invalid, MOST_DEPTH, Text, check_members, is_shallow, is_user_id};

/// The name of a user who gives none.
pub const ANONYMOUS: &str = "Anonymous User";

/// AgentConnectionRequest (REG-077); serialises with all four fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConnectionRequest {
    /// 2 to 100 characters: letters, digits, `_ @ . -`.
    pub user_id: String,
    /// An `http` or `https` address of at most 2048 characters.
    pub user_endpoint: String,
    /// At most 200 characters without control characters; [`ANONYMOUS`] by default.
    #[serde(default)]
    pub display_name: String,
    /// At most 50 members: text of at most 1000 characters, numbers, truth values, lists, objects.
    #[serde(default)]
    pub additional_info: Map<String, Value>,
}

impl ConnectionRequest {
    /// Checks a body.
    ///
    /// # Errors
    /// Every fault found.
    pub fn check(value: &Value) -> Result<ConnectionRequest, Vec<Invalid>> {
        let mut fields = Fields::of(value)?;
        let no_control: fn(&str) -> bool = |text| !text.chars().any(char::is_control);
        let request = ConnectionRequest {
            user_id: fields
                .text("user_id", Text::of(2, 100).form(is_user_id, "may hold letters, digits, _ @ . and - only")),
            user_endpoint: fields.text("user_endpoint", Text::endpoint()),
            display_name: fields
                .text_opt("display_name", Text::of(0, 200).form(no_control, "may hold no control characters"))
                .filter(|name| !name.is_empty())
                .unwrap_or_else(|| ANONYMOUS.to_owned()),
            additional_info: check_info(&mut fields),
        };
        fields.done(request)
    }
}

fn check_info(fields: &mut Fields<'_>) -> Map<String, Value> {
    match fields.present("additional_info") {
        None => Map::new(),
        Some(Value::Object(object)) => {
            let faults = check_members("additional_info", object, 50, |value| match value {
                Value::String(text) if text.chars().count() > 1000 => {
                    Some("may have at most 1000 characters; shorten it")
                }
                Value::Null => Some("must be text, a number, true or false, a list or an object"),
                nested if !is_shallow(nested, MOST_DEPTH) => Some("may be nested at most 16 deep; send less"),
                _ => None,
            });
            let sound = faults.is_empty();
            for fault in faults {
                fields.fault(fault);
            }
            if sound { object.clone() } else { Map::new() }
        }
        Some(other) => {
            let words = "additional_info must be an object of at most 50 members";
            fields.fault(Invalid::new("additional_info", "dict_type", words).input(other));
            Map::new()
        }
    }
}
