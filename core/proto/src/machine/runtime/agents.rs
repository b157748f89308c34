//! Which agents a runtime can run, and what a reference means.

use std::collections::BTreeMap;

use crate::agent_ref::AgentRef;
use crate::error::{Error, ErrorCode};
use crate::message::AgentEntry;

#[derive(Debug, Default)]
pub(super) struct Agents {
    by_name: BTreeMap<String, Registered>,
}

#[derive(Debug, Default)]
struct Registered {
    unversioned: bool,
    versions: Vec<String>,
    default: Option<String>,
}

impl Agents {
    /// Names and versions outside the grammar fail here, not at submission. The first version registered is
    /// the default.
    pub(super) fn register(&mut self, name: &str, version: Option<&str>) -> Result<(), Error> {
        let text = version.map_or_else(|| name.to_owned(), |version| format!("{name}@{version}"));
        let parsed = AgentRef::parse(&text)?;
        let registered = self.by_name.entry(parsed.name).or_default();
        match parsed.version {
            None => registered.unversioned = true,
            Some(version) => {
                registered.default.get_or_insert_with(|| version.clone());
                if !registered.versions.contains(&version) {
                    registered.versions.push(version);
                }
            }
        }
        Ok(())
    }

    pub(super) fn set_default(&mut self, name: &str, version: &str) -> Result<(), Error> {
        let registered = self.by_name.get_mut(name).ok_or_else(|| unknown_name(name))?;
        if !registered.versions.iter().any(|known| known == version) {
            return Err(unknown_version(name, version, &registered.versions));
        }
        registered.default = Some(version.to_owned());
        Ok(())
    }

    /// The name and version a reference means: the default, else the unversioned handler, else the first version
    ///
    pub(super) fn resolve(&self, reference: &AgentRef) -> Result<(String, Option<String>), Error> {
        let name = &reference.name;
        let registered = self.by_name.get(name).ok_or_else(|| unknown_name(name))?;
        let version = match &reference.version {
            Some(version) if registered.versions.contains(version) => Some(version.clone()),
            Some(version) => return Err(unknown_version(name, version, &registered.versions)),
            None if registered.default.is_some() => registered.default.clone(),
            None if registered.unversioned => None,
            None => registered.versions.first().cloned(),
        };
        Ok((name.clone(), version))
    }

    pub(super) fn inventory(&self) -> Vec<AgentEntry> {
        self.by_name
            .iter()
            .map(|(name, registered)| AgentEntry {
                name: name.clone(),
                versions: registered.versions.clone(),
                default: registered.default.clone(),
            })
            .collect()
    }
}

fn unknown_name(name: &str) -> Error {
    Error::new(ErrorCode::AgentNotAvailable, format!("no agent is named \"{name}\"; the welcome lists those that are"))
}

fn unknown_version(name: &str, version: &str, known: &[String]) -> Error {
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    let message = format!("agent \"{name}\" has no version \"{version}\"; it has: {known}");
    Error::new(ErrorCode::AgentVersionNotAvailable, message)
}
