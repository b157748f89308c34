//! What `arcp registry` does with a database that no server uses: users, agent keys, export, import.

use std::fs::File;
use std::io::{BufRead as _, IsTerminal as _, Read as _};
use std::path::PathBuf;

use arcp::registry::server::auth::hash_password;
use arcp::registry::server::config::{Config, Database, Secret, Sources};
use arcp::registry::server::offline::Offline;
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::args::OutputForm;
use crate::exit::{EXIT_STATUS, Failure};
use crate::output::{columns, indent, member, note, print, shown};
use crate::store::state_folder;

const LEAST_PASSWORD: usize = 8;
const LONGEST_PASSWORD: usize = 1024;
const LONGEST_NAME: usize = 255;
/// A state file is not larger.
const LARGEST_IMPORT: u64 = 1 << 30;

/// Which database, and how to tell of it.
#[derive(Args)]
pub(crate) struct KeptArgs {
    /// The database of the registry, which must be stopped [default: the one `arcp registry serve` would use]
    #[arg(long, value_name = "PATH", value_parser = NonEmptyStringValueParser::new())]
    db: Option<String>,
    /// Look for the database in this TOML file of settings too
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Form of what stdout gets
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) output: OutputForm,
}

impl KeptArgs {
    fn settings(&self) -> Result<Config, Failure> {
        let flags = self.db.iter().map(|db| ("ARCP_REGISTRY_DB", Secret::new(db.as_str()))).collect();
        let folder = state_folder().ok().map(|folder| folder.join("arcp"));
        let sources = Sources::read(flags, self.config.as_deref(), false, folder).map_err(Failure::Usage)?;
        Ok(Config::examine(&sources).0)
    }

    fn path(&self) -> Result<PathBuf, Failure> {
        match self.settings()?.db {
            Database::File(path) => Ok(std::path::absolute(&path).unwrap_or(path)),
            Database::Memory => Err(Failure::Usage("a registry in memory keeps nothing: name a file with --db".into())),
        }
    }

    /// With `make`, one that is not there is made.
    fn open(&self, make: bool) -> Result<Offline, Failure> {
        let path = self.path()?;
        if !make && !path.exists() {
            return Err(Failure::Usage(format!(
                "there is no database at {}; name it with --db (arcp registry serve makes one)",
                path.display()
            )));
        }
        Offline::open(&path).map_err(Failure::Other)
    }
}

/// Look after administrators
#[derive(Args)]
#[command(subcommand_required = true, arg_required_else_help = true, after_help = format!(
    "Examples:
  arcp registry user add ann
  pass registry | arcp registry user add ann --db registry.db
  arcp registry user list --output json

Lines of --output json: {{\"user\":{{name}}}}.\n\n{EXIT_STATUS}"
))]
pub(crate) struct UserArgs {
    #[command(subcommand)]
    pub(crate) command: UserCommand,
}

#[derive(Subcommand)]
pub(crate) enum UserCommand {
    /// Add an administrator; the password is asked for, or read from the first line of stdin
    Add(NameArgs),
    /// Give an administrator another password, and end their sessions
    Passwd(NameArgs),
    /// Remove an administrator and their sessions
    Remove(NameArgs),
    /// List administrators
    List(ListArgs),
}

#[derive(Args)]
pub(crate) struct NameArgs {
    /// The name to log in with
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    name: String,
    #[command(flatten)]
    kept: KeptArgs,
}

#[derive(Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    kept: KeptArgs,
}

impl UserCommand {
    pub(crate) fn output(&self) -> OutputForm {
        match self {
            UserCommand::Add(args) | UserCommand::Passwd(args) | UserCommand::Remove(args) => args.kept.output,
            UserCommand::List(args) => args.kept.output,
        }
    }
}

/// One secret: typed twice on a terminal, else the first line of stdin.
fn ask(what: &str) -> Result<Secret, Failure> {
    let wrong = |error: std::io::Error| Failure::Usage(format!("the {what} cannot be read: {error}"));
    if std::io::stdin().is_terminal() {
        let first = Secret::new(rpassword::prompt_password(format!("New {what}: ")).map_err(wrong)?);
        let again = Secret::new(rpassword::prompt_password(format!("The same {what} again: ")).map_err(wrong)?);
        if first != again {
            return Err(Failure::Usage(format!("the two are not the same; the {what} was not changed")));
        }
        return Ok(first);
    }
    let mut line = String::new();
    std::io::stdin().lock().take(8192).read_line(&mut line).map_err(wrong)?;
    let secret = Secret::new(line.trim_end_matches(['\r', '\n']));
    if secret.reveal().is_empty() {
        return Err(Failure::Usage(format!("stdin has no {what}: give it as the first line, or use a terminal")));
    }
    Ok(secret)
}

fn new_password() -> Result<String, Failure> {
    let password = ask("password")?;
    let length = password.reveal().chars().count();
    if length < LEAST_PASSWORD || password.reveal().len() > LONGEST_PASSWORD {
        return Err(Failure::Usage(format!("a password has {LEAST_PASSWORD} to {LONGEST_PASSWORD} characters")));
    }
    hash_password(password.reveal()).map_err(Failure::Other)
}

fn told(form: OutputForm, text: &str, name: &str, value: &Value) -> Result<(), Failure> {
    match form {
        OutputForm::Text => {
            note(&shown(text));
            Ok(())
        }
        OutputForm::Json => print(&member(name, &value.to_string())),
    }
}

pub(crate) fn user(command: UserCommand) -> Result<(), Failure> {
    let is_known = |db: &Offline, name: &str| db.users().iter().any(|user| user == name);
    let absent =
        |name: &str| Failure::NotFound(format!("there is no administrator {name}; see arcp registry user list"));
    match command {
        UserCommand::Add(args) => {
            if args.name.len() > LONGEST_NAME || args.name.trim() != args.name {
                return Err(Failure::Usage(format!("a name has at most {LONGEST_NAME} bytes and no blanks around it")));
            }
            let mut db = args.kept.open(true)?;
            if is_known(&db, &args.name) {
                let name = &args.name;
                return Err(Failure::Usage(format!(
                    "{name} is there already; arcp registry user passwd {name} changes the password"
                )));
            }
            db.put_user(&args.name, new_password()?).map_err(Failure::Other)?;
            db.close();
            told(args.kept.output, &format!("{} may log in", args.name), "user", &json!({"name": args.name}))
        }
        UserCommand::Passwd(args) => {
            let mut db = args.kept.open(false)?;
            if !is_known(&db, &args.name) {
                return Err(absent(&args.name));
            }
            db.put_user(&args.name, new_password()?).map_err(Failure::Other)?;
            db.end_sessions(&args.name).map_err(Failure::Other)?;
            db.close();
            let text = format!("{} has another password, and no session", args.name);
            told(args.kept.output, &text, "user", &json!({"name": args.name}))
        }
        UserCommand::Remove(args) => {
            let mut db = args.kept.open(false)?;
            if !db.remove_user(&args.name).map_err(Failure::Other)? {
                return Err(absent(&args.name));
            }
            db.close();
            told(args.kept.output, &format!("{} may log in no longer", args.name), "user", &json!({"name": args.name}))
        }
        UserCommand::List(args) => {
            let db = args.kept.open(false)?;
            db.users().iter().try_for_each(|name| match args.kept.output {
                OutputForm::Text => print(&shown(name)),
                OutputForm::Json => print(&member("user", &json!({"name": name}).to_string())),
            })
        }
    }
}

/// Look after the keys that let agents register
#[derive(Args)]
#[command(subcommand_required = true, arg_required_else_help = true, after_help = format!(
    "Examples:
  arcp registry key generate --note \"build agents\"
  arcp registry key list
  arcp registry key remove 1f0a9c2b

A key lets one agent register at a time; a registered agent keeps its own token. Only the SHA-256 of a key is kept.

Lines of --output json: {{\"key\":{{hash,note,made}}}}, with \"key\" too when it was generated.\n\n{EXIT_STATUS}"
))]
pub(crate) struct KeysArgs {
    #[command(subcommand)]
    pub(crate) command: KeyCommand,
}

#[derive(Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key and print it, once
    Generate(NoteArgs),
    /// Take a key that you have; it is asked for, or read from the first line of stdin
    Add(NoteArgs),
    /// Take a key no longer
    Remove(HashArgs),
    /// List keys by the beginning of their SHA-256
    List(ListArgs),
}

#[derive(Args)]
pub(crate) struct NoteArgs {
    /// What the key is for
    #[arg(long, default_value = "")]
    note: String,
    #[command(flatten)]
    kept: KeptArgs,
}

#[derive(Args)]
pub(crate) struct HashArgs {
    /// The beginning of its hash, as `arcp registry key list` shows it
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    hash: String,
    #[command(flatten)]
    kept: KeptArgs,
}

impl KeyCommand {
    pub(crate) fn output(&self) -> OutputForm {
        match self {
            KeyCommand::Generate(args) | KeyCommand::Add(args) => args.kept.output,
            KeyCommand::Remove(args) => args.kept.output,
            KeyCommand::List(args) => args.kept.output,
        }
    }
}

/// As much of a hash as is shown.
fn beginning(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}

pub(crate) fn key(command: KeyCommand) -> Result<(), Failure> {
    match command {
        KeyCommand::Generate(args) => {
            let mut db = args.kept.open(true)?;
            let key = Secret::random().map_err(Failure::Other)?;
            db.add_key(key.reveal(), &args.note).map_err(Failure::Other)?;
            db.close();
            match args.kept.output {
                OutputForm::Text => {
                    print(key.reveal())?;
                    note("keep it: it cannot be shown again");
                    Ok(())
                }
                OutputForm::Json => print(&member("key", &json!({"key": key.reveal(), "note": args.note}).to_string())),
            }
        }
        KeyCommand::Add(args) => {
            let mut db = args.kept.open(true)?;
            let key = ask("key")?;
            let length = key.reveal().chars().count();
            if !(10..=200).contains(&length) {
                return Err(Failure::Usage(format!("the key has {length} characters; keys have 10 to 200")));
            }
            if !db.add_key(key.reveal(), &args.note).map_err(Failure::Other)? {
                return Err(Failure::Usage("this key is taken already".into()));
            }
            db.close();
            told(args.kept.output, "the key is taken from now on", "key", &json!({"note": args.note}))
        }
        KeyCommand::Remove(args) => {
            let mut db = args.kept.open(false)?;
            let key = db.remove_key(&args.hash).map_err(Failure::NotFound)?;
            db.close();
            let text = format!("the key {} is taken no longer", beginning(&key.hash));
            told(args.kept.output, &text, "key", &json!({"hash": key.hash, "note": key.note, "made": key.made}))
        }
        KeyCommand::List(args) => {
            let db = args.kept.open(false)?;
            let keys = db.keys();
            match args.kept.output {
                OutputForm::Text => {
                    let mut rows = vec![["SHA-256", "MADE", "NOTE"].map(str::to_owned)];
                    rows.extend(keys.iter().map(|key| {
                        let made = arcp::registry::server::offline::day(key.made);
                        [beginning(&key.hash).to_owned(), made, shown(&key.note).into_owned()]
                    }));
                    columns(&rows).iter().try_for_each(|line| print(line))
                }
                OutputForm::Json => keys.iter().try_for_each(|key| {
                    let value = json!({"hash": key.hash, "note": key.note, "made": key.made});
                    print(&member("key", &value.to_string()))
                }),
            }
        }
    }
}

/// Print all agents as one JSON document, with their times and metrics and without secrets
#[derive(Args)]
#[command(after_help = format!(
    "Example:
  arcp registry export --db registry.db > agents.json\n\n{EXIT_STATUS}"
))]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    pub(crate) kept: KeptArgs,
}

pub(crate) fn export(args: &ExportArgs) -> Result<(), Failure> {
    let db = args.kept.open(false)?;
    let text = db.export().to_string();
    match args.kept.output {
        OutputForm::Text => print(&indent(&text)),
        OutputForm::Json => print(&member("export", &text)),
    }
}

/// Take agents from an export, or from the published server's registry_state.json
///
/// Agents that are there already stay as they are. Imported ones count as heard of now, so they have the heartbeat timeout
/// to go on; with the same JWT_SECRET their tokens stay valid.
#[derive(Args)]
#[command(after_help = format!(
    "Examples:
  arcp registry import registry_state.json --db registry.db
  arcp registry import agents.json

Lines of --output json: {{\"imported\":{{taken,left_out}}}}.\n\n{EXIT_STATUS}"
))]
pub(crate) struct ImportArgs {
    /// The file, or - for stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    pub(crate) kept: KeptArgs,
}

pub(crate) fn import(args: &ImportArgs) -> Result<(), Failure> {
    let wrong = |why: &dyn std::fmt::Display| Failure::Usage(format!("{}: {why}", args.file.display()));
    let mut text = String::new();
    let read = if args.file.as_os_str() == "-" {
        std::io::stdin().lock().take(LARGEST_IMPORT).read_to_string(&mut text)
    } else {
        File::open(&args.file).and_then(|file| file.take(LARGEST_IMPORT).read_to_string(&mut text))
    };
    read.map_err(|error| wrong(&error))?;
    let document: Value = serde_json::from_str(&text).map_err(|error| wrong(&format!("it is not JSON: {error}")))?;
    let zone = args.kept.settings()?.timezone;
    let mut db = args.kept.open(true)?;
    let imported = db.import(&document, &zone).map_err(|error| wrong(&error))?;
    db.close();
    if args.kept.output == OutputForm::Json {
        let value = json!({"taken": imported.taken, "left_out": imported.left_out});
        return print(&member("imported", &value.to_string()));
    }
    for (id, why) in &imported.left_out {
        note(&format!("{} is left out: {}", shown(id), shown(why)));
    }
    print(&format!("{} agents imported, {} left out", imported.taken.len(), imported.left_out.len()))
}
