//! One step of a case: a verb with its object, and what modifies it.

use serde_json::{Map, Value};

use crate::Result;

pub(crate) struct Step<'a> {
    pub(crate) verb: &'static str,
    pub(crate) object: &'a Value,
    members: &'a Map<String, Value>,
}

impl<'a> Step<'a> {
    /// Reads a step; a member that neither the verb nor its modifiers name is a mistake in the case.
    pub(crate) fn read(step: &'a Value, verbs: &[(&'static str, &[&str])]) -> Result<Self> {
        let members = step.as_object().ok_or("a step is an object")?;
        let (verb, modifiers) =
            verbs.iter().find(|(verb, _)| members.contains_key(*verb)).ok_or("a step without a known verb")?;
        match members.keys().find(|name| name != verb && !modifiers.contains(&name.as_str())) {
            Some(stray) => Err(format!("{verb} does not take {stray:?}")),
            None => Ok(Step { verb, object: &members[*verb], members }),
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&'a Value> {
        self.members.get(name)
    }

    pub(crate) fn text(&self, name: &str) -> Option<&'a str> {
        self.get(name).and_then(Value::as_str)
    }

    pub(crate) fn need(&self, name: &str) -> Result<&'a str> {
        self.text(name).ok_or_else(|| format!("{} needs {name:?}", self.verb))
    }

    /// The object as a name.
    pub(crate) fn name(&self) -> Result<&'a str> {
        self.object.as_str().ok_or_else(|| format!("{} needs a name", self.verb))
    }

    /// Whether an outcome is what the case says: no error, or `refused` with that code.
    pub(crate) fn check_refusal(&self, outcome: Result<(), arcp_proto::Error>) -> Result<()> {
        match (self.text("refused"), outcome) {
            (None, Ok(())) => Ok(()),
            (Some(code), Err(error)) if error.code.as_str() == code => match self.text("says") {
                Some(part) if !error.message.contains(part) => Err(format!("{:?} lacks {part:?}", error.message)),
                _ => Ok(()),
            },
            (Some(code), Ok(())) => Err(format!("expected {code}, it was done")),
            (expected, Err(error)) => Err(format!("expected {expected:?}, refused with {error:?}")),
        }
    }
}

/// Plays the steps of a case in order and names the one that fails.
pub(crate) fn each(case: &Value, mut play: impl FnMut(&Value) -> Result<()>) -> Result<()> {
    let steps = case["steps"].as_array().ok_or("a case has steps")?;
    steps.iter().enumerate().try_for_each(|(n, step)| {
        play(step).map_err(|error| format!("step {} {:.120}…: {error}", n + 1, step.to_string()))
    })
}
