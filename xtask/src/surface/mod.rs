//! The public surface of every language against `tests/surface.toml`, both ways.
//!
//! A name of the table that does not exist is a finding, and so is a public name the table does not know.

mod c;
mod node;
mod python;
mod rust;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::{Result, read};

/// Where the table lies.
pub const TABLE: &str = "tests/surface.toml";

/// Every language of the table.
pub const LANGUAGES: [Language; 4] = [Language::Rust, Language::Python, Language::Node, Language::C];

/// A language with a public surface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// The crate `arcp`.
    Rust,
    /// The package `arcp`.
    Python,
    /// The npm package `arcp`.
    Node,
    /// The header `arcp.h`.
    C,
}

impl Language {
    /// Its key in the table.
    pub fn key(self) -> &'static str {
        match self {
            Language::Rust => "rust",
            Language::Python => "python",
            Language::Node => "node",
            Language::C => "c",
        }
    }

    /// What this language offers, read from its sources.
    pub fn extract(self, root: &Path, table: &Table) -> Result<Surface> {
        let entries = table.entries(self)?;
        match self {
            Language::Rust => rust::extract(root, &entries),
            Language::Python => python::extract(root, &entries),
            Language::Node => node::extract(root, &entries),
            Language::C => c::extract(root, &entries),
        }
    }
}

/// What one language offers.
#[derive(Debug, Default, PartialEq)]
pub struct Surface {
    /// Names a user can import, include or call without naming anything else first.
    pub top: BTreeSet<String>,
    /// The members of types (and of modules), by owner.
    pub members: BTreeMap<String, BTreeSet<String>>,
}

impl Surface {
    /// Whether `name` exists: a top-level name, or `Owner.member` (`Owner::member`) of a top-level owner.
    pub fn has(&self, name: &str) -> bool {
        if self.top.contains(name) {
            return true;
        }
        let Some((owner, member)) = name.rsplit_once("::").or_else(|| name.rsplit_once('.')) else {
            return false;
        };
        let bare = owner.rsplit([':', '.']).next().unwrap_or(owner);
        self.top.contains(owner) && self.members.get(bare).is_some_and(|members| members.contains(member))
    }

    fn add_member(&mut self, owner: &str, member: &str) {
        self.members.entry(owner.to_owned()).or_default().insert(member.to_owned());
    }

    /// Gives each type of `bases` (type, its bases) the members of what it derives from.
    fn inherit(&mut self, bases: &BTreeMap<String, Vec<String>>) {
        // A chain of derivations is at most as long as there are types.
        for _ in 0..bases.len() {
            for (derived, bases) in bases {
                let inherited: Vec<String> =
                    bases.iter().filter_map(|base| self.members.get(base)).flatten().cloned().collect();
                self.members.entry(derived.clone()).or_default().extend(inherited);
            }
        }
    }
}

/// The table: concepts, their names per language, and public names that are no concept.
#[derive(Debug)]
pub struct Table {
    value: toml::Table,
}

impl Table {
    /// Reads the table below `root`.
    pub fn load(root: &Path) -> Result<Table> {
        Table::parse(&read(root, TABLE)?)
    }

    /// Reads a table from its text.
    pub fn parse(text: &str) -> Result<Table> {
        let value = text.parse().map_err(|error| format!("{TABLE}: {error}"))?;
        Ok(Table { value })
    }

    /// Faults of the table itself: a concept twice, or without a name or a reasoned gap for some language.
    pub fn faults(&self) -> Vec<String> {
        let mut findings = Vec::new();
        let mut seen = BTreeSet::new();
        for concept in self.concepts() {
            let name = text(concept, "name");
            if name.is_empty() || !seen.insert(name) {
                findings.push(format!("{TABLE}: the concept `{name}` has no name of its own"));
            }
            for language in LANGUAGES {
                let has_gap = gap(concept, language).is_some_and(|reason| !reason.trim().is_empty());
                if names(concept, language).is_empty() && !has_gap {
                    findings.push(format!(
                        "{TABLE}: {name}: neither a name nor `{{ gap = \"reason\" }}` for {}",
                        language.key()
                    ));
                }
            }
        }
        for language in LANGUAGES {
            for (pattern, reason) in self.ignored(language) {
                if reason.trim().is_empty() {
                    findings.push(format!("{TABLE}: ignore.{}: {pattern}: no reason", language.key()));
                }
            }
        }
        findings
    }

    /// What the table says and `surface` lacks, and the other way round.
    pub fn compare(&self, language: Language, surface: &Surface) -> Vec<String> {
        let key = language.key();
        let mut findings = Vec::new();
        let mut listed = BTreeSet::new();
        for concept in self.concepts() {
            for name in names(concept, language) {
                if !surface.has(name) {
                    findings.push(format!("{key}: {}: there is no `{name}`", text(concept, "name")));
                }
                listed.insert(name);
            }
        }
        let ignored = self.ignored(language);
        for name in &surface.top {
            let is_ignored = ignored.iter().any(|(pattern, _)| matches(pattern, name));
            match (listed.contains(name.as_str()), is_ignored) {
                (false, false) => findings.push(format!("{key}: `{name}` is public but not in {TABLE}")),
                (true, true) => findings.push(format!("{key}: `{name}` is both a concept and ignored")),
                _ => {}
            }
        }
        for (pattern, _) in &ignored {
            if !surface.top.iter().any(|name| matches(pattern, name)) {
                findings.push(format!("{key}: ignore: nothing is called `{pattern}`"));
            }
        }
        findings
    }

    /// The first name of `concept` in `language`, if it has one.
    pub fn first_name(&self, concept: &str, language: Language) -> Option<String> {
        let concept = self.concepts().find(|candidate| text(candidate, "name") == concept)?;
        names(concept, language).first().map(|name| (*name).to_owned())
    }

    fn concepts(&self) -> impl Iterator<Item = &toml::Table> {
        let list = self.value.get("concept").and_then(toml::Value::as_array);
        list.into_iter().flatten().filter_map(toml::Value::as_table)
    }

    fn ignored(&self, language: Language) -> Vec<(&str, &str)> {
        let table = self.value.get("ignore").and_then(|ignore| ignore.get(language.key()));
        let entries = table.and_then(toml::Value::as_table).into_iter().flatten();
        entries.map(|(pattern, reason)| (pattern.as_str(), reason.as_str().unwrap_or_default())).collect()
    }

    fn entries(&self, language: Language) -> Result<Vec<&str>> {
        let list = self.value.get("entries").and_then(|entries| entries.get(language.key()));
        let list: Vec<&str> =
            list.and_then(toml::Value::as_array).into_iter().flatten().filter_map(toml::Value::as_str).collect();
        if list.is_empty() {
            return Err(format!("{TABLE}: entries.{}: no list of files or modules", language.key()));
        }
        Ok(list)
    }
}

fn text<'a>(table: &'a toml::Table, key: &str) -> &'a str {
    table.get(key).and_then(toml::Value::as_str).unwrap_or_default()
}

fn gap(concept: &toml::Table, language: Language) -> Option<&str> {
    concept.get(language.key())?.get("gap")?.as_str()
}

fn names(concept: &toml::Table, language: Language) -> Vec<&str> {
    match concept.get(language.key()) {
        Some(toml::Value::String(name)) => vec![name],
        Some(toml::Value::Array(list)) => list.iter().filter_map(toml::Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// Whether `name` fits `pattern`, in which one `*` stands for any text.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, tail)) => name.len() >= head.len() + tail.len() && name.starts_with(head) && name.ends_with(tail),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        [[concept]]
        name = "Client"
        rust = "Client"
        python = ["ARCPClient", "Client"]
        node = "ARCPClient"
        c = { gap = "later" }

        [[concept]]
        name = "submit"
        rust = "Client::submit"
        python = "ARCPClient.submit"
        node = "ARCPClient.submit"
        c = "arcp_client_submit"

        [ignore.c]
        "arcp_*_free" = "ownership"
    "#;

    fn surface(top: &[&str], members: &[(&str, &str)]) -> Surface {
        let mut surface = Surface::default();
        surface.top.extend(top.iter().map(|name| (*name).to_owned()));
        for (owner, member) in members {
            surface.add_member(owner, member);
        }
        surface
    }

    #[test]
    fn an_exact_surface_has_no_findings() {
        let table = Table::parse(TEXT).unwrap();
        assert_eq!(table.faults(), [""; 0]);
        assert_eq!(table.compare(Language::Rust, &surface(&["Client"], &[("Client", "submit")])), [""; 0]);
        let c = surface(&["arcp_client_submit", "arcp_client_free"], &[]);
        assert_eq!(table.compare(Language::C, &c), [""; 0]);
    }

    #[test]
    fn both_directions_are_found() {
        let table = Table::parse(TEXT).unwrap();
        let python = surface(&["ARCPClient", "Extra"], &[]);
        assert_eq!(
            table.compare(Language::Python, &python),
            [
                "python: Client: there is no `Client`",
                "python: submit: there is no `ARCPClient.submit`",
                "python: `Extra` is public but not in tests/surface.toml",
            ]
        );
        let c = surface(&["arcp_client_submit"], &[]);
        assert_eq!(table.compare(Language::C, &c), ["c: ignore: nothing is called `arcp_*_free`"]);
    }

    #[test]
    fn a_concept_answers_for_every_language() {
        let table =
            Table::parse("[[concept]]\nname = \"A\"\nrust = \"A\"\npython = \"A\"\nnode = { gap = \" \" }\n").unwrap();
        assert_eq!(table.faults().len(), 2);
    }
}
