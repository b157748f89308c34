//! The registry's settings as options: one for each, from the server's own table.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use arcp::registry::server::config::{Config, Kind, SETTINGS, Secret, Setting, Sources};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, value_parser};

use crate::exit::Failure;
use crate::store::state_folder;

/// Options of every setting, and the file.
#[derive(Debug)]
pub(crate) struct SettingArgs {
    pub(crate) dev: bool,
    config: Option<PathBuf>,
    given: Vec<(&'static str, Secret)>,
}

/// Few are asked for often; the others are shown by --help only.
const COMMON: [&str; 6] =
    ["ARCP_HOST", "ARCP_PORT", "ARCP_REGISTRY_DB", "ENVIRONMENT", "ALLOWED_AGENT_TYPES", "LOG_LEVEL"];

/// Names of options, for as long as the program runs.
static FLAGS: LazyLock<Vec<String>> = LazyLock::new(|| SETTINGS.iter().map(Setting::flag).collect());

fn options(command: Command) -> Command {
    let dev = Arg::new("dev").long("dev").action(ArgAction::SetTrue).help(
        "For development: everything in memory, administrator ARCP/ARCP, agent keys test-agent-001 to -003, loopback targets",
    );
    let file = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help("Read settings from this TOML file too");
    let mut command = command.arg(dev).arg(file);
    // Secrets are no options: arguments are visible to other users of the machine.
    for (setting, flag) in SETTINGS.iter().zip(FLAGS.iter()) {
        if setting.idle.is_some() || setting.kind.is_secret() {
            continue;
        }
        let shown = match setting.default {
            "" => String::new(),
            default => format!(" [default: {default}]"),
        };
        let argument = Arg::new(setting.id())
            .long(flag.as_str())
            .value_name(match setting.kind {
                Kind::Bool => "BOOL",
                Kind::Int(..) | Kind::Float(..) => "NUMBER",
                Kind::List => "LIST",
                Kind::Path => "PATH",
                _ => "TEXT",
            })
            .hide_short_help(!COMMON.contains(&setting.id()))
            .help_heading(setting.section.title)
            .help(format!("{}{shown} [env: {}, file: {}]", setting.about, setting.id(), setting.key()));
        command = command.arg(match setting.kind {
            Kind::Bool => argument.num_args(0..=1).default_missing_value("true").require_equals(true),
            _ => argument,
        });
    }
    command
}

impl FromArgMatches for SettingArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let text = |id: &str| matches.try_get_one::<String>(id).ok().flatten().cloned();
        let given = SETTINGS.iter().filter_map(|setting| Some((setting.id(), Secret::new(text(setting.id())?))));
        Ok(SettingArgs {
            dev: matches.get_flag("dev"),
            config: matches.get_one::<PathBuf>("config").cloned(),
            given: given.collect(),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = SettingArgs::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for SettingArgs {
    fn augment_args(command: Command) -> Command {
        options(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        options(command)
    }
}

/// Everything that may hold settings.
fn read(given: Vec<(&'static str, Secret)>, file: Option<&Path>, dev: bool) -> Result<Sources, Failure> {
    let folder = state_folder().ok().map(|folder| folder.join("arcp"));
    Sources::read(given, file, dev, folder).map_err(Failure::Usage)
}

/// The settings, those given and those from everywhere else.
pub(super) fn load(given: Vec<(&'static str, Secret)>, file: Option<&Path>, dev: bool) -> Result<Config, Failure> {
    let config = Config::load(&read(given, file, dev)?)
        .map_err(|error| Failure::Usage(format!("{}; see `arcp registry config check`", error.0.join("; "))))?;
    crate::log::at_least(&config.log_level);
    Ok(config)
}

impl SettingArgs {
    /// Everything that may hold settings.
    pub(crate) fn sources(&self) -> Result<Sources, Failure> {
        read(self.given.clone(), self.config.as_deref(), self.dev)
    }

    /// The settings.
    pub(crate) fn config(&self) -> Result<Config, Failure> {
        load(self.given.clone(), self.config.as_deref(), self.dev)
    }
}
