//! Agent references, `name` or `name@version` (runtime-protocol section 7.5).

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::error::Error;
use crate::lease::quoted;

/// An agent by name, with or without a version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentRef {
    /// `[a-z0-9][a-z0-9._-]*`
    pub name: String,
    /// `[a-zA-Z0-9.+_-]+`, compared byte for byte.
    pub version: Option<String>,
}

impl AgentRef {
    /// Reads `name` or `name@version`; anything else is `INVALID_REQUEST`.
    pub fn parse(text: &str) -> Result<AgentRef, Error> {
        let (name, version) = match text.split_once('@') {
            Some((name, version)) => (name, Some(version)),
            None => (text, None),
        };
        if !is_name(name) || version.is_some_and(|version| !is_version(version)) {
            return Err(Error::invalid(format!(
                "agent {} is not `name` or `name@version` with name [a-z0-9][a-z0-9._-]* and version [a-zA-Z0-9.+_-]+",
                quoted(text)
            )));
        }
        Ok(AgentRef { name: name.to_owned(), version: version.map(str::to_owned) })
    }
}

fn is_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    text.bytes().next().is_some_and(plain) && text.bytes().all(|b| plain(b) || b"._-".contains(&b))
}

fn is_version(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b".+_-".contains(&b))
}

impl fmt::Display for AgentRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match &self.version {
            Some(version) => write!(f, "@{version}"),
            None => Ok(()),
        }
    }
}

impl FromStr for AgentRef {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        AgentRef::parse(text)
    }
}

impl Serialize for AgentRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
