//! A case of `tests/corpus/scenario`: what it needs, where it starts, and its steps.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{Result, read_json};

/// Who plays against whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A language's client against a language's runtime, for every pair.
    Pair,
    /// The harness as a scripted runtime against each client.
    Client,
    /// The harness as a scripted client against each runtime.
    Runtime,
}

/// A scenario file: cases of one subject.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// What the cases have in common, for people.
    pub about: String,
    /// The cases.
    pub cases: Vec<Case>,
}

/// One case.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Unique over the corpus.
    pub id: String,
    /// What is shown, in one line.
    pub note: String,
    /// Who plays.
    pub kind: Kind,
    /// The rules it shows to be kept.
    pub rules: Vec<String>,
    /// Capabilities beyond `client` and `runtime`, of the side under test (pair: of either, by name).
    #[serde(default)]
    pub needs: Vec<String>,
    /// Where it starts.
    #[serde(default)]
    pub given: Given,
    /// What is done and expected, in order.
    pub steps: Vec<Step>,
}

/// The start of a case.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Given {
    /// The corpus agents the runtime hosts.
    pub agents: Vec<String>,
    /// Shake hands first. In a client case the shim's session is bound to `s`, in the others the id to `session_id`.
    pub session: bool,
    /// Put a wire between the client and the runtime that [`Step::Cut`] cuts; in pair cases.
    pub relay: bool,
    /// The features of that handshake (default: the ten of a plain deployment).
    pub features: Option<Vec<String>>,
}

/// One step. Matchers and references are described in [`crate::matcher`].
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Step {
    /// Gives a shim a command and awaits the answer.
    Do(Do),
    /// Gives a shim a command and goes on.
    Start(Start),
    /// Awaits the answer to a started command.
    Finish(Finish),
    /// Opens a connection to the runtime under test.
    Open(Open),
    /// Takes the next connection of the client under test.
    Accept(Accept),
    /// Sends one message.
    Send(Send),
    /// Sends one text frame as it is.
    SendText(SendText),
    /// Awaits one message.
    Receive(Receive),
    /// Awaits the end of the connection.
    Closed(Closed),
    /// Ends the connection.
    Leave(Leave),
    /// Cuts every connection of the relay.
    Cut(Cut),
}

/// See [`Step::Do`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Do {
    /// The command.
    #[serde(rename = "do")]
    pub command: String,
    /// Its arguments.
    #[serde(default)]
    pub with: Map<String, Value>,
    /// Matches a success. Without `ok` and `error` any success will do.
    #[serde(default)]
    pub ok: Option<Value>,
    /// Matches an error.
    #[serde(default)]
    pub error: Option<Value>,
}

/// See [`Step::Start`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// The command.
    pub start: String,
    /// Its arguments.
    #[serde(default)]
    pub with: Map<String, Value>,
    /// The name by which it is finished.
    #[serde(rename = "as")]
    pub name: String,
}

/// See [`Step::Finish`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finish {
    /// The name given at the start.
    pub finish: String,
    /// Matches a success. Without `ok` and `error` any success will do.
    #[serde(default)]
    pub ok: Option<Value>,
    /// Matches an error.
    #[serde(default)]
    pub error: Option<Value>,
}

/// See [`Step::Open`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Open {
    /// The path.
    pub open: String,
    /// Headers to set or replace.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The HTTP status expected instead of the upgrade.
    #[serde(default)]
    pub status: Option<u16>,
    /// The connection's name.
    #[serde(default = "first")]
    pub on: String,
}

/// See [`Step::Accept`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accept {
    /// The connection's name.
    pub accept: String,
}

/// See [`Step::Send`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Send {
    /// The message; `arcp`, a fresh `id` and the bound `session_id` are added unless given or `{"$absent": true}`.
    pub send: Map<String, Value>,
    /// The connection's name.
    #[serde(default = "first")]
    pub on: String,
    /// How many times, byte for byte.
    #[serde(default = "once")]
    pub times: usize,
}

/// See [`Step::SendText`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SendText {
    /// The text; `${name}` stands for a bound text, `${pad}` for padding.
    pub send_text: String,
    /// How many bytes `${pad}` stands for.
    #[serde(default)]
    pub pad: usize,
    /// As a binary frame.
    #[serde(default)]
    pub binary: bool,
    /// How many times.
    #[serde(default = "once")]
    pub times: usize,
    /// The connection's name.
    #[serde(default = "first")]
    pub on: String,
}

/// See [`Step::Receive`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receive {
    /// Matches the message.
    pub receive: Value,
    /// Types that may come before it.
    #[serde(default)]
    pub skip: Vec<String>,
    /// How many such messages in a row.
    #[serde(default = "once")]
    pub times: usize,
    /// The connection's name.
    #[serde(default = "first")]
    pub on: String,
}

/// See [`Step::Closed`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Closed {
    /// The connection's name.
    pub closed: String,
    /// Types that may come before it.
    #[serde(default)]
    pub skip: Vec<String>,
}

/// See [`Step::Leave`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leave {
    /// The connection's name.
    pub leave: String,
}

/// See [`Step::Cut`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cut {
    /// Why, for people.
    pub cut: String,
}

fn first() -> String {
    "a".to_owned()
}

fn once() -> usize {
    1
}

/// Reads every scenario file of a folder, in the order of their names.
///
/// # Errors
/// A file does not parse, or an id is used twice.
pub fn load(folder: &Path) -> Result<Vec<Case>> {
    let mut cases: Vec<Case> = Vec::new();
    for path in files(folder)? {
        cases.extend(read_json::<File>(&path)?.cases);
    }
    let mut seen = std::collections::BTreeSet::new();
    match cases.iter().find(|case| !seen.insert(case.id.clone())) {
        Some(twice) => Err(format!("the case id {:?} is used twice", twice.id)),
        None => Ok(cases),
    }
}

/// The JSON files of a folder, sorted.
///
/// # Errors
/// The folder cannot be read.
pub fn files(folder: &Path) -> Result<Vec<std::path::PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut files: Vec<_> = entries
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .filter(|path| path.extension().is_some_and(|ext| ext == "json"))
        .collect();
    files.sort();
    Ok(files)
}
