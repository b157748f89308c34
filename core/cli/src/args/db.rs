//! What can be typed about a database file.

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};

use super::OutputForm;
use crate::exit::EXIT_STATUS;
use crate::store::KeyArgs;

/// Which database, and how to tell of it.
#[derive(Args)]
pub(crate) struct DbFileArgs {
    /// The database file of an `arcp serve` [default: arcp.db in this user's state folder]
    #[arg(long, value_name = "PATH")]
    pub(crate) db: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    /// Form of what stdout gets
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) output: OutputForm,
}

/// List the sessions a database keeps, the oldest first
///
/// Changes nothing; a runtime may be using the database. A session is attached while it has a connection, or when its
/// process died before it lost it. LAST-SEQ is the number of its last event, KEPT how many events can be replayed.
#[derive(Args)]
#[command(after_help = format!(
    "Example:
  arcp sessions --db arcp.db

Lines of --output json: {{\"session\":{{session_id,principal,detached_at,last_event_seq,freed,kept,jobs}}}}, where jobs are
the ids of those it submitted, and events up to number freed are gone.\n\n{EXIT_STATUS}"
))]
pub(crate) struct SessionsArgs {
    #[command(flatten)]
    pub(crate) file: DbFileArgs,
}

/// Print what a session was sent, or would have been, from a database
///
/// One message per line, each byte as its peer got it. Changes nothing; a runtime may be using the database.
#[derive(Args)]
#[command(after_help = format!(
    "Examples:
  arcp replay --db arcp.db --session sess_… --after-seq 0
  arcp replay --db arcp.db --session sess_… | jq -r 'select(.type == \"job.error\").payload.message'

Lines of --output json: {{\"frame\":…}}, or {{\"error\":{{code,message,retryable,details}}}}.\n\n{EXIT_STATUS}"
))]
pub(crate) struct ReplayArgs {
    #[command(flatten)]
    pub(crate) file: DbFileArgs,
    /// The session, as `arcp sessions` lists it
    #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) session: String,
    /// Begin after the event of this number
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) after_seq: u64,
}

/// Look after a database
#[derive(Args)]
#[command(subcommand_required = true, arg_required_else_help = true, after_help = format!(
    "Examples:
  arcp db backup --db arcp.db copy.db
  arcp db check --db arcp.db
  arcp db vacuum --db arcp.db
  arcp db key arcp.key\n\n{EXIT_STATUS}"
))]
pub(crate) struct DbArgs {
    #[command(subcommand)]
    pub(crate) command: DbCommand,
}

#[derive(Subcommand)]
pub(crate) enum DbCommand {
    /// Copy a database as it is at this moment, also while a runtime uses it; of an encrypted one the copy is too
    #[command(after_help = format!(
        "Example:\n  arcp db backup --db arcp.db copy.db\n\nLines of --output json: {{\"backup\":{{db,to}}}}.\n\n{EXIT_STATUS}"
    ))]
    Backup {
        #[command(flatten)]
        file: DbFileArgs,
        /// The file to make; it must not exist
        to: PathBuf,
    },
    /// Read a whole database and tell what is wrong with it, also while a runtime uses it
    #[command(after_help = format!(
        "Example:
  arcp db check --db arcp.db

Lines of --output json: {{\"check\":{{db,sessions,jobs,records,numbers,problems}}}}; when there are problems, then
{{\"error\":{{code,message,retryable,details}}}}.\n\n{EXIT_STATUS}"
    ))]
    Check {
        #[command(flatten)]
        file: DbFileArgs,
    },
    /// Give unused space of a database back to the disk; no runtime may be using it
    #[command(after_help = format!(
        "Example:
  arcp db vacuum --db arcp.db

Lines of --output json: {{\"vacuum\":{{db,bytes_before,bytes_after}}}}.\n\n{EXIT_STATUS}"
    ))]
    Vacuum {
        #[command(flatten)]
        file: DbFileArgs,
    },
    /// Make a file with a new random key for --db-key-file, readable by you alone
    ///
    /// Keep a copy where the database is not: without its key nobody can read it.
    #[command(after_help = format!(
        "Example:
  arcp db key arcp.key
  arcp serve --token tok --db arcp.db --db-key-file arcp.key

Lines of --output json: {{\"key\":{{file}}}}.\n\n{EXIT_STATUS}"
    ))]
    Key {
        /// The file to make; it must not exist
        to: PathBuf,
        /// Form of what stdout gets
        #[arg(long, value_enum, default_value = "text")]
        output: OutputForm,
    },
}

impl DbCommand {
    pub(crate) fn output(&self) -> OutputForm {
        match self {
            DbCommand::Backup { file, .. } | DbCommand::Check { file } | DbCommand::Vacuum { file } => file.output,
            DbCommand::Key { output, .. } => *output,
        }
    }
}
