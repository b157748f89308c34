//! Where settings come from, and how a text becomes a value.

use std::fmt;
use std::path::{Path, PathBuf};

use super::secret::Secret;
use super::settings::{Kind, SETTINGS, Setting};

/// A file, and the names and values in it.
pub(super) type Lines = (PathBuf, Vec<(String, Secret)>);

/// What may hold settings, read but not yet understood.
#[derive(Debug, Default)]
pub struct Sources {
    /// From flags: the setting's id ([`Setting::id`]) and its text.
    pub flags: Vec<(&'static str, Secret)>,
    /// The process's environment.
    pub env: Vec<(String, Secret)>,
    /// `.env` in the working directory, if there is one.
    pub dotenv: Option<Lines>,
    /// The TOML file, if one is given.
    pub file: Option<(PathBuf, toml::Table)>,
    /// Development mode: generated secrets, a known administrator on loopback, loopback targets.
    pub dev: bool,
    /// The folder for what is kept where none is set.
    pub default_data_dir: Option<PathBuf>,
}

impl Sources {
    /// Reads the environment, `.env` in the working directory and the file.
    ///
    /// # Errors
    /// When a file cannot be read or is not what it should be; the text names it.
    pub fn read(
        flags: Vec<(&'static str, Secret)>,
        file: Option<&Path>,
        dev: bool,
        default_data_dir: Option<PathBuf>,
    ) -> Result<Sources, String> {
        let known = |name: &str| SETTINGS.iter().any(|setting| setting.env.contains(&name));
        let mut env = Vec::new();
        for (name, value) in std::env::vars_os() {
            let Some(name) = name.to_str().filter(|name| known(name)) else { continue };
            let value = value.into_string().map_err(|_| format!("the environment variable {name} is not UTF-8"))?;
            env.push((name.to_owned(), Secret::new(value)));
        }
        let dotenv = read_dotenv(Path::new(".env"), known)?;
        let file = match file {
            None => None,
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|error| format!("the settings in {} cannot be read: {error}", path.display()))?;
                Some((path.to_owned(), parse_file(path, &text)?))
            }
        };
        Ok(Sources { flags, env, dotenv, file, dev, default_data_dir })
    }
}

fn read_dotenv(path: &Path, known: impl Fn(&str) -> bool) -> Result<Option<Lines>, String> {
    let lines = match dotenvy::from_path_iter(path) {
        Ok(lines) => lines,
        Err(error) if error.not_found() => return Ok(None),
        Err(error) => return Err(format!("{} cannot be read: {error}", path.display())),
    };
    let mut found = Vec::new();
    for (number, line) in lines.enumerate() {
        // The error of a line would show the line, which may hold a secret.
        let (name, value) = line.map_err(|_| {
            format!("{}: entry {} is not of the form NAME=value; quote values with blanks", path.display(), number + 1)
        })?;
        if known(&name) {
            found.push((name, Secret::new(value)));
        }
    }
    Ok(Some((path.to_owned(), found)))
}

/// The file's tables; an error names line and column and shows no value.
fn parse_file(path: &Path, text: &str) -> Result<toml::Table, String> {
    text.parse::<toml::Table>().map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let line = text.get(..at).unwrap_or_default().matches('\n').count() + 1;
        format!("{} line {line} is not TOML: {}", path.display(), error.message())
    })
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A flag.
    Flag,
    /// An environment variable.
    Environment(String),
    /// A line of this `.env`.
    DotEnv(PathBuf, String),
    /// The TOML file.
    File(PathBuf),
    /// `--dev`.
    Dev,
    /// Nowhere.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Flag => f.write_str("flag"),
            Source::Environment(name) => write!(f, "environment {name}"),
            Source::DotEnv(path, name) => write!(f, "{} {name}", path.display()),
            Source::File(path) => write!(f, "{}", path.display()),
            Source::Dev => f.write_str("--dev"),
            Source::Default => f.write_str("default"),
        }
    }
}

/// An understood value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Not set.
    Absent,
    /// A text, a word in lower or upper case as listed, or a path.
    Text(String),
    /// A secret.
    Secret(Secret),
    /// Yes or no.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// Texts.
    List(Vec<String>),
    /// Secrets.
    Secrets(Vec<Secret>),
}

impl Value {
    /// For people; secrets are only counted.
    pub fn shown(&self) -> String {
        match self {
            Value::Absent => "-".into(),
            Value::Text(text) => text.clone(),
            Value::Secret(secret) => format!("*** ({} characters)", secret.reveal().chars().count()),
            Value::Bool(value) => value.to_string(),
            Value::Int(value) => value.to_string(),
            Value::Float(value) => value.to_string(),
            Value::List(values) if values.is_empty() => "-".into(),
            Value::List(values) => values.join(","),
            Value::Secrets(values) if values.is_empty() => "-".into(),
            Value::Secrets(values) => format!("*** ({} of them)", values.len()),
        }
    }
}

/// One setting as it was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Which.
    pub setting: &'static Setting,
    /// Its value.
    pub value: Value,
    /// Where it came from.
    pub source: Source,
}

/// Looks every setting up, in the order flags, environment, `.env`, file, default. An empty text counts as not set, except
/// in a flag.
pub(super) fn look_up(sources: &Sources, errors: &mut Vec<String>) -> Vec<Found> {
    check_keys(sources, errors);
    SETTINGS.iter().map(|setting| look_up_one(sources, setting, errors)).collect()
}

fn look_up_one(sources: &Sources, setting: &'static Setting, errors: &mut Vec<String>) -> Found {
    let mut found = Found { setting, value: Value::Absent, source: Source::Default };
    let mut take = |text: &str, source: Source, found: &mut Found| {
        found.source = source;
        match parse(setting.kind, text) {
            Ok(value) => found.value = value,
            Err(shape) => errors.push(wrong(setting, &found.source, &shape)),
        }
    };
    if let Some((_, text)) = sources.flags.iter().rev().find(|(id, _)| *id == setting.id()) {
        take(text.reveal(), Source::Flag, &mut found);
        return found;
    }
    for name in setting.env {
        if let Some((_, text)) =
            sources.env.iter().find(|(found, text)| found == name && !text.reveal().trim().is_empty())
        {
            take(text.reveal(), Source::Environment((*name).to_owned()), &mut found);
            return found;
        }
    }
    if let Some((path, lines)) = &sources.dotenv {
        for name in setting.env {
            // Of a name that stands there twice the first counts, as with the tools that load such files.
            if let Some((_, text)) =
                lines.iter().find(|(found, text)| found == name && !text.reveal().trim().is_empty())
            {
                take(text.reveal(), Source::DotEnv(path.clone(), (*name).to_owned()), &mut found);
                return found;
            }
        }
    }
    if let Some((path, table)) = &sources.file
        && let Some(value) = value_at(table, &setting.key())
    {
        let source = Source::File(path.clone());
        match toml_text(setting.kind, value) {
            Ok(text) => take(&text, source, &mut found),
            Err(shape) => errors.push(wrong(setting, &source, &shape)),
        }
        return found;
    }
    if !setting.default.is_empty() {
        take(setting.default, Source::Default, &mut found);
    }
    found
}

fn wrong(setting: &Setting, source: &Source, what: &str) -> String {
    format!("{} from {source}: {what}; it must be {}", setting.names(), setting.kind.shape())
}

/// `a.b.c` within tables.
fn value_at<'a>(table: &'a toml::Table, key: &str) -> Option<&'a toml::Value> {
    let (path, name) = key.rsplit_once('.').unwrap_or(("", key));
    let mut table = table;
    for part in path.split('.').filter(|part| !part.is_empty()) {
        table = table.get(part)?.as_table()?;
    }
    table.get(name)
}

/// The value as the environment would say it.
fn toml_text(kind: Kind, value: &toml::Value) -> Result<String, String> {
    let scalar = |value: &toml::Value| match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(value) => Some(value.to_string()),
        _ => None,
    };
    let wrong = || format!("it is {}", value.type_str());
    match (kind, value) {
        (Kind::List | Kind::Secrets, toml::Value::Array(values)) => {
            let texts: Option<Vec<String>> = values.iter().map(scalar).collect();
            let texts = texts.ok_or("an entry is not a text")?;
            if texts.iter().any(|text| text.contains(',')) {
                return Err("an entry contains a comma".into());
            }
            Ok(texts.join(","))
        }
        _ => scalar(value).ok_or_else(wrong),
    }
}

/// Every key of the file must be a setting, or it would be a typing error that nobody notices.
fn check_keys(sources: &Sources, errors: &mut Vec<String>) {
    let Some((path, table)) = &sources.file else { return };
    let known: Vec<String> = SETTINGS.iter().map(Setting::key).collect();
    let mut open = vec![(String::new(), table)];
    while let Some((prefix, table)) = open.pop() {
        for (name, value) in table {
            let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            if known.contains(&key) {
                continue;
            }
            match value {
                toml::Value::Table(inner) if known.iter().any(|known| known.starts_with(&format!("{key}."))) => {
                    open.push((key, inner));
                }
                _ => errors.push(unknown_key(path, &key, &known)),
            }
        }
    }
}

fn unknown_key(path: &Path, key: &str, known: &[String]) -> String {
    let name = key.rsplit('.').next().unwrap_or(key).to_ascii_lowercase();
    let near = SETTINGS
        .iter()
        .find(|setting| setting.env.iter().any(|env| env.to_ascii_lowercase() == name))
        .map(Setting::key)
        .or_else(|| known.iter().find(|known| known.rsplit('.').next() == Some(name.as_str())).cloned());
    let tip =
        near.map_or_else(|| "`arcp registry config check` lists them".into(), |near| format!("did you mean {near}?"));
    format!("{}: there is no setting {key}; {tip}", path.display())
}

/// The value of a text, or what is wrong with it, without showing it.
fn parse(kind: Kind, text: &str) -> Result<Value, String> {
    let trimmed = text.trim();
    Ok(match kind {
        Kind::Text | Kind::Path if trimmed.is_empty() => Value::Absent,
        Kind::Text | Kind::Path => Value::Text(trimmed.to_owned()),
        Kind::Secret if text.is_empty() => Value::Absent,
        Kind::Secret => Value::Secret(Secret::new(text)),
        Kind::Word(words) => {
            let word = words.iter().find(|word| word.eq_ignore_ascii_case(trimmed));
            Value::Text((*word.ok_or_else(|| format!("\"{}\" is none of the words", short(trimmed)))?).to_owned())
        }
        Kind::Bool => match trimmed.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Value::Bool(true),
            "false" | "no" | "off" | "0" => Value::Bool(false),
            _ => return Err(format!("\"{}\" is neither yes nor no", short(trimmed))),
        },
        Kind::Int(least, most, _) => {
            let number: i64 = trimmed.parse().map_err(|_| format!("\"{}\" is no whole number", short(trimmed)))?;
            if !(least..=most).contains(&number) {
                return Err(format!("{number} is out of bounds"));
            }
            Value::Int(number)
        }
        Kind::Float(least, most) => {
            let number: f64 = trimmed.parse().map_err(|_| format!("\"{}\" is no number", short(trimmed)))?;
            if !(least..=most).contains(&number) {
                return Err(format!("{number} is out of bounds"));
            }
            Value::Float(number)
        }
        Kind::List => Value::List(entries(trimmed).map(str::to_owned).collect()),
        Kind::Secrets => Value::Secrets(entries(trimmed).map(Secret::new).collect()),
    })
}

fn entries(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|entry| !entry.is_empty())
}

/// As much of a wrong value as helps to recognise it.
fn short(text: &str) -> String {
    text.chars().take(24).collect()
}
