//! `arcp registry config check`.

use arcp::registry::server::config::{Config, Severity, Value};
use clap::{Args, Subcommand};
use serde_json::json;

use super::settings::SettingArgs;
use crate::args::OutputForm;
use crate::exit::{EXIT_STATUS, Failure};
use crate::output::{columns, member, note, print, shown};

/// Look at settings
#[derive(Args)]
#[command(subcommand_required = true, arg_required_else_help = true, after_help = EXIT_STATUS)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    pub(crate) command: ConfigCommand,
}

#[derive(Subcommand)]
pub(crate) enum ConfigCommand {
    Check(Box<CheckArgs>),
}

/// Show every setting, where it comes from, and what is wrong or unwise
///
/// Secrets are not shown. Leaves with status 2 when `arcp registry serve` would not start with these settings.
#[derive(Args)]
#[command(after_help = format!(
    "Examples:
  arcp registry config check
  ENVIRONMENT=production arcp registry config check --config registry.toml

Lines of --output json: {{\"setting\":{{name,flag,key,value,source,about}}}}, then {{\"finding\":{{severity,setting,message}}}}.\
\n\n{EXIT_STATUS}"
))]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    settings: SettingArgs,
    /// Show settings that have no effect here too
    #[arg(long)]
    all: bool,
    /// Form of what stdout gets
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) output: OutputForm,
}

pub(crate) fn run(args: &CheckArgs) -> Result<(), Failure> {
    let (config, wrong) = Config::examine(&args.settings.sources()?);
    let listed =
        config.found.iter().filter(|found| args.all || found.setting.idle.is_none() || found.value != Value::Absent);
    match args.output {
        OutputForm::Text => {
            let mut rows = vec![["SETTING", "VALUE", "FROM", "OPTION", "FILE"].map(str::to_owned)];
            rows.extend(listed.map(|found| {
                let setting = found.setting;
                let option = if setting.kind.is_secret() || setting.idle.is_some() {
                    "-".to_owned()
                } else {
                    format!("--{}", setting.flag())
                };
                let value = shown(&found.value.shown()).into_owned();
                [setting.id().to_owned(), value, found.source.to_string(), option, setting.key()]
            }));
            columns(&rows).iter().try_for_each(|line| print(line))?;
            for finding in config.findings.iter().filter(|finding| finding.severity == Severity::Unwise) {
                note(&format!("unwise: {}", shown(&finding.message)));
            }
        }
        OutputForm::Json => {
            listed.into_iter().try_for_each(|found| {
                let setting = found.setting;
                let value = json!({
                    "name": setting.id(),
                    "flag": (!setting.kind.is_secret() && setting.idle.is_none()).then(|| format!("--{}", setting.flag())),
                    "key": setting.key(),
                    "value": (found.value != Value::Absent).then(|| found.value.shown()),
                    "source": found.source.to_string(),
                    "about": setting.idle.unwrap_or(setting.about),
                });
                print(&member("setting", &value.to_string()))
            })?;
            for finding in &config.findings {
                let severity = if finding.severity == Severity::Wrong { "wrong" } else { "unwise" };
                let value = json!({"severity": severity, "setting": finding.setting, "message": finding.message});
                print(&member("finding", &value.to_string()))?;
            }
        }
    }
    let unsafe_settings = config.findings.iter().filter(|finding| finding.severity == Severity::Wrong);
    let all: Vec<String> = wrong.into_iter().chain(unsafe_settings.map(|finding| finding.message.clone())).collect();
    if all.is_empty() { Ok(()) } else { Err(Failure::Usage(all.join("; "))) }
}
