//! What can be typed after `arcp agents` and `arcp login`.

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand, ValueEnum};

use crate::args::{OutputForm, TokenArgs};
use crate::exit::EXIT_STATUS;

/// Find, register and watch the agents of a registry
///
/// Credentials: --token or --token-file, else ARCP_TOKEN, else what `arcp login` or `arcp agents register` stored for this
/// URL, else ARCP_ADMIN_USERNAME with ARCP_ADMIN_PASSWORD, which log in when a token is asked for. Without any, what
/// everybody may see is shown.
#[derive(Args)]
#[command(subcommand_required = true, arg_required_else_help = true, after_help = format!(
    "Examples:
  arcp agents list
  arcp agents search 'summarise long documents' --top-k 5
  arcp agents register @agent.json --agent-key-file key.txt --keep-alive
  arcp agents watch\n\n{EXIT_STATUS}"
))]
pub(crate) struct AgentsArgs {
    #[command(subcommand)]
    pub(crate) command: AgentsCommand,
}

#[derive(Subcommand)]
pub(crate) enum AgentsCommand {
    List(ListArgs),
    Search(SearchArgs),
    Get(GetArgs),
    Register(RegisterArgs),
    Unregister(UnregisterArgs),
    Watch(WatchArgs),
    Heartbeat(HeartbeatArgs),
}

impl AgentsCommand {
    pub(crate) fn output(&self) -> OutputForm {
        match self {
            AgentsCommand::List(args) => args.registry.output,
            AgentsCommand::Search(args) => args.registry.output,
            AgentsCommand::Get(args) => args.registry.output,
            AgentsCommand::Register(args) => args.registry.output,
            AgentsCommand::Unregister(args) => args.registry.output,
            AgentsCommand::Watch(args) => args.registry.output,
            AgentsCommand::Heartbeat(args) => args.registry.output,
        }
    }
}

/// Which registry, and as whom.
#[derive(Args)]
pub(crate) struct RegistryArgs {
    /// The registry
    #[arg(long, env = "ARCP_REGISTRY_URL", default_value = "http://127.0.0.1:8001", value_parser = url)]
    pub(crate) url: String,
    #[command(flatten)]
    pub(crate) token: TokenArgs,
    /// Trust the certificates in this file (PEM) besides the system's
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// How long an answer is waited for
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) timeout: u64,
    /// Form of what stdout gets
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) output: OutputForm,
}

/// The key agents are registered with.
#[derive(Args)]
pub(crate) struct KeyArgs {
    /// Agent key; arguments are visible to other users of the machine, --agent-key-file and ARCP_AGENT_KEY are not
    #[arg(long, value_name = "KEY", conflicts_with = "agent_key_file")]
    pub(crate) agent_key: Option<String>,
    /// Read the agent key from this file [default: the environment variable ARCP_AGENT_KEY]
    #[arg(long, value_name = "FILE")]
    pub(crate) agent_key_file: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AliveArg {
    Alive,
    Dead,
}

/// List agents; without a login, those that are alive
#[derive(Args)]
#[command(after_help = format!(
    "Examples:
  arcp agents list --type testing
  arcp agents list --status dead --output json | jq -r .agent.agent_id

Lines of --output json: {{\"agent\":{{agent_id,name,agent_type,status,…}}}} as the registry tells it, or
{{\"error\":{{code,message,retryable,details}}}}.\n\n{EXIT_STATUS}"
))]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    /// Only agents of this type
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) agent_type: Option<String>,
    /// Only agents in this state
    #[arg(long, value_enum)]
    pub(crate) status: Option<AliveArg>,
    /// Only agents that can do this; may be repeated, then any of them
    #[arg(long, value_name = "CAPABILITY")]
    pub(crate) capability: Vec<String>,
    /// With their metrics
    #[arg(long)]
    pub(crate) metrics: bool,
}

/// Find agents by what they should be able to do
#[derive(Args)]
#[command(after_help = format!(
    "Examples:
  arcp agents search 'process text files'
  arcp agents search 'data analysis' --capability visualization --weighted --min-similarity 0.3

Lines of --output json: {{\"found\":{{id,name,url,capabilities,version,owner,similarity,metrics}}}}, or
{{\"error\":{{code,message,retryable,details}}}}.\n\n{EXIT_STATUS}"
))]
pub(crate) struct SearchArgs {
    /// What is wanted, in words
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub(crate) query: String,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    /// At most so many, up to 100
    #[arg(long, value_name = "NUMBER", default_value_t = 10, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub(crate) top_k: u8,
    /// Leave out agents below this similarity, from 0 to 1
    #[arg(long, value_name = "NUMBER", default_value_t = 0.5)]
    pub(crate) min_similarity: f64,
    /// Only agents that can do this; may be repeated, then all of them
    #[arg(long, value_name = "CAPABILITY")]
    pub(crate) capability: Vec<String>,
    /// Only agents of this type
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) agent_type: Option<String>,
    /// Order by reputation too
    #[arg(long)]
    pub(crate) weighted: bool,
}

/// Show one agent
#[derive(Args)]
#[command(after_help = format!(
    "Example:
  arcp agents get my-agent

Lines of --output json: {{\"agent\":{{agent_id,name,agent_type,status,…}}}} as the registry tells it, or
{{\"error\":{{code,message,retryable,details}}}}.\n\n{EXIT_STATUS}"
))]
pub(crate) struct GetArgs {
    /// The agent's id
    #[arg(value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) agent_id: String,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

/// Register an agent
///
/// Its token is stored for this URL, so that `arcp agents heartbeat` and `arcp agents unregister` can act for it. What is
/// left out of version, owner, public_key, communication_mode and metadata gets a sensible value.
#[derive(Args)]
#[command(after_help = format!(
    "Examples:
  arcp agents register @agent.json --agent-key-file key.txt
  arcp agents register '{{\"agent_id\":\"my-agent\",\"name\":\"My agent\",\"agent_type\":\"testing\",\"endpoint\":
    \"http://127.0.0.1:8010\",\"capabilities\":[\"echo\"],\"context_brief\":\"Says what it hears\"}}' --keep-alive

Lines of --output json: {{\"agent\":{{agent_id,name,agent_type,status,…}}}} as the registry tells it, or
{{\"error\":{{code,message,retryable,details}}}}.\n\n{EXIT_STATUS}"
))]
pub(crate) struct RegisterArgs {
    /// The agent: a JSON object with agent_id, name, agent_type, endpoint, capabilities, context_brief and more; @FILE, or
    /// - for stdin
    #[arg(value_name = "JSON", allow_hyphen_values = true)]
    pub(crate) agent: String,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    /// Stay, keep the agent alive, and unregister it on Ctrl-C
    #[arg(long)]
    pub(crate) keep_alive: bool,
    /// Seconds between two heartbeats of --keep-alive
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0, requires = "keep_alive")]
    pub(crate) every: f64,
}

/// Take an agent out of the registry
#[derive(Args)]
#[command(after_help = format!(
    "Example:
  arcp agents unregister my-agent

Lines of --output json: {{\"unregistered\":{{status,message,…}}}}, or
{{\"error\":{{code,message,retryable,details}}}}.\n\n{EXIT_STATUS}"
))]
pub(crate) struct UnregisterArgs {
    /// The agent's id
    #[arg(value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) agent_id: String,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    #[command(flatten)]
    pub(crate) key: KeyArgs,
}

/// Show agents coming, going, dying and reviving, until Ctrl-C
#[derive(Args)]
#[command(after_help = format!(
    "Examples:
  arcp agents watch
  arcp agents watch --output json | jq -r .message.type

Lines of --output json: {{\"message\":…}} for each message of the registry's public socket, or
{{\"error\":{{code,message,retryable,details}}}}.\n\n{EXIT_STATUS}"
))]
pub(crate) struct WatchArgs {
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    /// Only agents of this type
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) agent_type: Option<String>,
}

/// Tell the registry that an agent is alive
#[derive(Args)]
#[command(after_help = format!(
    "Examples:
  arcp agents heartbeat my-agent
  arcp agents heartbeat my-agent --every 30

Lines of --output json: {{\"heartbeat\":{{agent_id,status,last_seen}}}}, or
{{\"error\":{{code,message,retryable,details}}}}.\n\n{EXIT_STATUS}"
))]
pub(crate) struct HeartbeatArgs {
    /// The agent's id
    #[arg(value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) agent_id: String,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    /// Again and again, until Ctrl-C
    #[arg(long, value_name = "SECONDS")]
    pub(crate) every: Option<f64>,
}

/// Log in to a registry as an administrator, for later commands
///
/// The token is stored in the configuration folder of this platform, readable by you alone. The password is asked for on
/// the terminal unless --password-file or ARCP_ADMIN_PASSWORD gives it.
#[derive(Args)]
#[command(after_help = format!(
    "Examples:
  arcp login --username ARCP
  export ARCP_TOKEN=$(arcp login --username ARCP --password-file password.txt --print)

Lines of --output json: {{\"login\":{{url,username,expires_in,stored,token}}}}, where token is there with --print only; or
{{\"error\":{{code,message,retryable,details}}}}.\n\n{EXIT_STATUS}"
))]
pub(crate) struct LoginArgs {
    /// The registry
    #[arg(long, env = "ARCP_REGISTRY_URL", default_value = "http://127.0.0.1:8001", value_parser = url)]
    pub(crate) url: String,
    /// Who logs in
    #[arg(long, env = "ARCP_ADMIN_USERNAME", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) username: Option<String>,
    /// Read the password from this file [default: the environment variable ARCP_ADMIN_PASSWORD, else the terminal]
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
    /// Print the token on stdout and do not store it
    #[arg(long, conflicts_with = "forget")]
    pub(crate) print: bool,
    /// Forget what is stored for this registry instead
    #[arg(long, conflicts_with_all = ["username", "password_file"])]
    pub(crate) forget: bool,
    /// Trust the certificates in this file (PEM) besides the system's
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// How long an answer is waited for
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) timeout: u64,
    /// Form of what stdout gets
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) output: OutputForm,
}

fn url(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    match rest {
        Some(rest) if !rest.is_empty() && !rest.starts_with('/') && !text.contains(char::is_whitespace) => {
            Ok(text.trim_end_matches('/').to_owned())
        }
        _ => Err("it must be like http://127.0.0.1:8001 or https://host/path".into()),
    }
}
