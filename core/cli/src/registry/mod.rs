//! `arcp registry`: runs the registry, and looks after what it keeps.

mod check;
mod keep;
pub(crate) mod serve;
mod settings;

use arcp::registry::server::config::{Config, Secret};
use clap::{Args, Subcommand};

use crate::args::OutputForm;
use crate::exit::{EXIT_STATUS, Failure};
use check::{ConfigArgs, ConfigCommand};
use keep::{ExportArgs, ImportArgs, KeysArgs, UserArgs};
use settings::SettingArgs;

/// Run and look after an agent registry
#[derive(Args)]
#[command(subcommand_required = true, arg_required_else_help = true, after_help = format!(
    "Examples:
  arcp registry serve --dev
  arcp registry serve --port 8001 --db registry.db
  arcp registry config check
  arcp registry user add ann
  arcp registry key generate
  arcp registry import registry_state.json\n\n{EXIT_STATUS}"
))]
pub(crate) struct RegistryArgs {
    #[command(subcommand)]
    pub(crate) command: RegistryCommand,
}

#[derive(Subcommand)]
pub(crate) enum RegistryCommand {
    Serve(Box<RegistryServeArgs>),
    Config(ConfigArgs),
    User(UserArgs),
    Key(KeysArgs),
    Export(ExportArgs),
    Import(ImportArgs),
}

/// Run the registry: HTTP and WebSockets for agents and those who look for them
///
/// Says on stderr where it listens and where it keeps agents. Settings come from options, the environment, .env in the
/// working directory, the file of --config, in this order. Ctrl-C or SIGTERM stops it with status 0; a second one at once.
#[derive(Args)]
#[command(after_help = format!(
    "Examples:
  arcp registry serve --dev
  arcp registry serve --host 0.0.0.0 --environment production --trusted-hosts registry.example.com
  arcp registry serve --config registry.toml

Lines of --output json: {{\"registry\":{{url,db,dev}}}}, where db is the file or null.\n\n{EXIT_STATUS}"
))]
pub(crate) struct RegistryServeArgs {
    #[command(flatten)]
    pub(crate) settings: SettingArgs,
    /// How to say where it listens
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) output: OutputForm,
}

impl RegistryCommand {
    pub(crate) fn output(&self) -> OutputForm {
        match self {
            RegistryCommand::Serve(args) => args.output,
            RegistryCommand::Config(args) => match &args.command {
                ConfigCommand::Check(args) => args.output,
            },
            RegistryCommand::User(args) => args.command.output(),
            RegistryCommand::Key(args) => args.command.output(),
            RegistryCommand::Export(args) => args.kept.output,
            RegistryCommand::Import(args) => args.kept.output,
        }
    }
}

/// The settings of a registry beside a runtime; of one that keeps nothing the registry keeps nothing either, unless its own
/// setting says so.
pub(crate) fn beside(host: &str, port: u16, in_memory: bool) -> Result<Config, Failure> {
    let mut flags = vec![("ARCP_HOST", Secret::new(host)), ("ARCP_PORT", Secret::new(port.to_string()))];
    if in_memory && std::env::var_os("ARCP_REGISTRY_DB").is_none() {
        flags.push(("ARCP_REGISTRY_DB", Secret::new("memory")));
    }
    settings::load(flags, None, false)
}

pub(crate) async fn run(args: RegistryArgs) -> Result<(), Failure> {
    match args.command {
        RegistryCommand::Serve(args) => serve::run(*args).await,
        RegistryCommand::Config(args) => match args.command {
            ConfigCommand::Check(args) => check::run(&args),
        },
        RegistryCommand::User(args) => keep::user(args.command),
        RegistryCommand::Key(args) => keep::key(args.command),
        RegistryCommand::Export(args) => keep::export(&args),
        RegistryCommand::Import(args) => keep::import(&args),
    }
}
