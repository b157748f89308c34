//! Leases: which operations a job may perform (runtime-protocol sections 9.1 to 9.7).

pub mod constraints;
pub mod glob;
pub mod operation;
pub mod subset;
pub mod target;

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::budget::Budget;
use crate::error::Error;

pub use constraints::{future_expires_at, parse_expires_at};
pub use operation::authorize;
pub use subset::{Child, Parent, effective_child, is_subset};
pub use target::{Kind, normalize_target};

use glob::Glob;

/// The namespace of budgets; the others grant operations.
pub const COST_BUDGET: &str = "cost.budget";
/// The namespace of models.
pub const MODEL_USE: &str = "model.use";

/// Namespaces in one lease.
pub const MAX_NAMESPACES: usize = 64;
/// Patterns in one namespace.
pub const MAX_PATTERNS: usize = 256;
/// Characters in one pattern.
pub const MAX_PATTERN_CHARS: usize = 1024;

/// One pattern: as the client wrote it, and as it is matched.
#[derive(Clone, Debug)]
struct Pattern {
    text: String,
    normal: String,
    glob: Glob,
}

impl Pattern {
    fn new(kind: Kind, text: String) -> Result<Pattern, &'static str> {
        let normal = target::normalize_pattern(kind, &text)?;
        let glob = match normal.strip_prefix("./") {
            Some(below) if kind == Kind::Path => Glob::relative(below),
            _ => Glob::new(&normal),
        };
        Ok(Pattern { text, normal, glob })
    }
}

#[derive(Clone, Debug)]
enum Grants {
    Patterns(Vec<Pattern>),
    Budget { entries: Vec<String>, budget: Budget },
}

impl Grants {
    fn new(namespace: &str, texts: Vec<String>) -> Result<Grants, Error> {
        let field = || format!("lease namespace {}", quoted(namespace));
        let kind = Kind::of(namespace).ok_or_else(|| {
            Error::invalid(format!(
                "{} is unknown; use fs.read, fs.write, net.fetch, tool.call, agent.delegate, cost.budget, model.use or x-vendor.<vendor>.<name>",
                field()
            ))
        })?;
        if texts.len() > MAX_PATTERNS {
            return Err(Error::invalid(format!("{} has {} patterns; at most {MAX_PATTERNS}", field(), texts.len())));
        }
        if let Some(text) = texts.iter().find(|text| text.chars().nth(MAX_PATTERN_CHARS).is_some()) {
            let shown = quoted(text);
            return Err(Error::invalid(format!("{}: {shown} is longer than {MAX_PATTERN_CHARS} characters", field())));
        }
        if kind == Kind::Budget {
            let budget = Budget::from_lease(&texts)?;
            return Ok(Grants::Budget { entries: texts, budget });
        }
        let patterns = texts.into_iter().map(|text| {
            let shown = quoted(&text);
            Pattern::new(kind, text).map_err(|reason| Error::invalid(format!("{}: pattern {shown} {reason}", field())))
        });
        patterns.collect::<Result<_, _>>().map(Grants::Patterns)
    }

    fn texts(&self) -> Vec<&str> {
        match self {
            Grants::Patterns(patterns) => patterns.iter().map(|pattern| pattern.text.as_str()).collect(),
            Grants::Budget { entries, .. } => entries.iter().map(String::as_str).collect(),
        }
    }
}

/// Grants by namespace, read once and then unchanged.
///
/// It shows the client's own texts, in the client's order, and matches their normalised forms.
#[derive(Clone, Debug, Default)]
pub struct Lease {
    grants: Vec<(String, Grants)>,
}

impl Lease {
    /// A lease of these namespaces and patterns; of a repeated namespace the last holds.
    ///
    /// `INVALID_REQUEST` for an unknown namespace, a bad pattern or amount, or a passed limit
    ///
    pub fn new(grants: impl IntoIterator<Item = (String, Vec<String>)>) -> Result<Lease, Error> {
        let mut lease = Lease::default();
        for (namespace, texts) in grants {
            let grants = Grants::new(&namespace, texts)?;
            lease.put(namespace, grants);
            if lease.grants.len() > MAX_NAMESPACES {
                return Err(Error::invalid(format!("the lease has more than {MAX_NAMESPACES} namespaces")));
            }
        }
        Ok(lease)
    }

    /// Reads the JSON text of an object whose members are lists of strings, see [`Lease::new`].
    pub fn parse(json: &str) -> Result<Lease, Error> {
        let members: Members<'_> = serde_json::from_str(json).map_err(|_| {
            Error::invalid("the lease is not an object of lists of strings, such as {\"fs.read\": [\"/data/**\"]}")
        })?;
        let mut grants: Vec<(String, Vec<String>)> = Vec::new();
        for (namespace, raw) in members.0 {
            let texts = serde_json::from_str(raw.get()).map_err(|_| {
                Error::invalid(format!("lease namespace {} is not a list of strings", quoted(&namespace)))
            })?;
            grants.push((namespace, texts));
        }
        Lease::new(grants)
    }

    /// The client's JSON object.
    pub fn to_json(&self) -> String {
        // Texts and lists of texts always serialise.
        serde_json::to_string(self).unwrap_or_else(|_| "{}".to_owned())
    }

    /// The namespaces in the client's order.
    pub fn namespaces(&self) -> impl Iterator<Item = &str> {
        self.grants.iter().map(|(namespace, _)| namespace.as_str())
    }

    /// The client's own patterns of a namespace, or `None` when it is not named.
    pub fn patterns(&self, namespace: &str) -> Option<Vec<&str>> {
        self.get(namespace).map(Grants::texts)
    }

    /// Whether no namespace is named at all.
    pub fn is_empty(&self) -> bool {
        self.grants.is_empty()
    }

    /// Fresh counters for `cost.budget`; `None` means no enforcement.
    pub fn budget(&self) -> Option<Budget> {
        match self.get(COST_BUDGET) {
            Some(Grants::Budget { budget, .. }) if !budget.is_empty() => Some(budget.clone()),
            _ => None,
        }
    }

    /// Whether a pattern of the namespace matches this target, normalised before by [`normalize_target`].
    pub fn covers(&self, namespace: &str, normal_target: &str) -> bool {
        self.globs(namespace).iter().any(|pattern| pattern.glob.matches(normal_target))
    }

    fn get(&self, namespace: &str) -> Option<&Grants> {
        self.grants.iter().find(|(name, _)| name == namespace).map(|(_, grants)| grants)
    }

    fn globs(&self, namespace: &str) -> &[Pattern] {
        match self.get(namespace) {
            Some(Grants::Patterns(patterns)) => patterns,
            _ => &[],
        }
    }

    fn put(&mut self, namespace: String, grants: Grants) {
        match self.grants.iter_mut().find(|(name, _)| *name == namespace) {
            Some((_, held)) => *held = grants,
            None => self.grants.push((namespace, grants)),
        }
    }
}

/// Leases are equal when they show the same texts, in whatever order of namespaces.
impl PartialEq for Lease {
    fn eq(&self, other: &Lease) -> bool {
        self.grants.len() == other.grants.len()
            && self.grants.iter().all(|(name, grants)| other.patterns(name) == Some(grants.texts()))
    }
}

impl Eq for Lease {}

impl Serialize for Lease {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.grants.len()))?;
        for (namespace, grants) in &self.grants {
            map.serialize_entry(namespace, &grants.texts())?;
        }
        map.end()
    }
}

/// The members of a JSON object in order; a repeated name keeps its first place and its last value.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members: Self::Value = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                    match members.iter().position(|(held, _)| *held == name) {
                        Some(place) => members[place].1 = value,
                        // One more than allowed is enough to refuse the lease.
                        None if members.len() <= MAX_NAMESPACES => members.push((name, value)),
                        None => {}
                    }
                }
                Ok(members)
            }
        }

        deserializer.deserialize_map(Collect).map(Members)
    }
}

/// Foreign text for a message: escaped, in quotes, cut at 80 characters.
pub(crate) fn quoted(text: &str) -> String {
    let mut shown: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    if text.chars().nth(80).is_some() {
        shown.push('…');
    }
    format!("\"{shown}\"")
}
