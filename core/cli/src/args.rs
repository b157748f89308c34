//! What can be typed.

mod db;

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::access::JwtArgs;
use crate::agents::{AgentsArgs, LoginArgs};
use crate::exit::{EXIT_STATUS, Failure};
use crate::limits::LimitArgs;
use crate::registry::RegistryArgs;
use crate::store::StoreArgs;

pub(crate) use db::{DbArgs, DbCommand, DbFileArgs, ReplayArgs, SessionsArgs};

/// Completed by the name in front (`arcp, version …`); a test holds it to the protocol crate's number.
const VERSION: &str = concat!("version ", env!("CARGO_PKG_VERSION"), " (protocol 1.1)");

/// Run AI agents and follow what they do.
#[derive(Parser)]
#[command(
    name = "arcp",
    bin_name = "arcp",
    display_name = "arcp,",
    version = VERSION,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = format!("{EXAMPLES}\n\n{EXIT_STATUS}"),
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Show the program's own log on stderr
    #[arg(long, short, global = true)]
    pub(crate) verbose: bool,
}

const EXAMPLES: &str = "\
Examples:
  arcp serve --token tok --principal me@example.com
  arcp submit --url ws://127.0.0.1:7777/arcp --token tok --agent echo --input '{\"hi\":1}'
  arcp tail --url ws://127.0.0.1:7777/arcp --token tok --job-id job_…
  arcp cancel --url ws://127.0.0.1:7777/arcp --token tok --job-id job_…
  arcp jobs --url ws://127.0.0.1:7777/arcp --token tok --status running
  arcp sessions --db arcp.db
  arcp replay --db arcp.db --session sess_… --after-seq 0";

#[derive(Subcommand)]
pub(crate) enum Command {
    Serve(Box<ServeArgs>),
    Submit(SubmitArgs),
    Tail(TailArgs),
    Cancel(CancelArgs),
    Jobs(JobsArgs),
    Sessions(SessionsArgs),
    Replay(ReplayArgs),
    Db(DbArgs),
    Agents(AgentsArgs),
    Login(LoginArgs),
    Registry(RegistryArgs),
    Completions(CompletionsArgs),
}

impl Command {
    pub(crate) fn output(&self) -> OutputForm {
        match self {
            Command::Serve(args) => args.output,
            Command::Submit(args) => args.output,
            Command::Tail(args) => args.output,
            Command::Cancel(args) => args.output,
            Command::Jobs(args) => args.output,
            Command::Sessions(args) => args.file.output,
            Command::Replay(args) => args.file.output,
            Command::Db(args) => args.command.output(),
            Command::Agents(args) => args.command.output(),
            Command::Login(args) => args.output,
            Command::Registry(args) => args.command.output(),
            Command::Completions(_) => OutputForm::Text,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputForm {
    /// For people
    Text,
    /// One JSON object per line on stdout, each with one member that says what it is; errors too
    Json,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CancelPolicyArg {
    /// Any session of the principal that submitted it
    Principal,
    /// The submitting session alone, until it has ended
    Session,
}

/// The bearer token is also taken from the environment variable ARCP_TOKEN.
#[derive(Args)]
pub(crate) struct TokenArgs {
    /// Bearer token; arguments are visible to other users of the machine, --token-file and ARCP_TOKEN are not
    #[arg(long, conflicts_with = "token_file")]
    token: Option<String>,
    /// Read the bearer token from this file [default: the environment variable ARCP_TOKEN]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl TokenArgs {
    /// Whether an option names it, the environment aside.
    pub(crate) fn is_given(&self) -> bool {
        self.token.is_some() || self.token_file.is_some()
    }

    /// The token, if an option or the environment names one.
    pub(crate) fn read_if_any(&self) -> Result<Option<String>, Failure> {
        let is_there = self.is_given() || std::env::var_os("ARCP_TOKEN").is_some_and(|token| !token.is_empty());
        is_there.then(|| self.read()).transpose()
    }

    /// The token, without the line break that ends a file.
    pub(crate) fn read(&self) -> Result<String, Failure> {
        let (token, source) = match (&self.token, &self.token_file) {
            (Some(token), _) => (token.clone(), "--token".to_owned()),
            (None, Some(path)) => (read_file("--token-file", path)?, path.display().to_string()),
            (None, None) => (std::env::var("ARCP_TOKEN").unwrap_or_default(), "ARCP_TOKEN".to_owned()),
        };
        match token.trim_end_matches(['\r', '\n']) {
            "" if source == "ARCP_TOKEN" => {
                Err(Failure::Usage("no token: give --token-file or --token, or set ARCP_TOKEN".into()))
            }
            "" => Err(Failure::Usage(format!("the token of {source} is empty"))),
            token => Ok(token.to_owned()),
        }
    }
}

/// Host a runtime with the agent "echo", or a Python one
///
/// Says on stderr where it listens and where it keeps sessions and jobs, which are back when it is started again; a job
/// that died with the process ends in a retryable INTERNAL_ERROR. Ctrl-C or SIGTERM cancels what runs, says goodbye to
/// every client and leaves with status 0; a second one leaves at once.
///
/// Tokens of --token or --token-file, of --tokens and signed ones are all taken when given together; ARCP_TOKEN counts
/// only when it stands alone.
#[derive(Args)]
#[command(after_help = format!(
    "Examples:
  arcp serve --token tok --principal me@example.com --db arcp.db
  arcp serve --token tok --db memory
  ARCP_TOKEN=tok arcp serve --host 0.0.0.0 --tls-cert cert.pem --tls-key key.pem
  arcp serve --tokens tokens.txt --jwks-url https://issuer.example/jwks --jwt-audience arcp
  arcp serve --app my_agents:runtime

Lines of --output json: {{\"listening\":{{url,db,metrics}}}}, where db is the file or null; with --registry-port then
{{\"registry\":{{url,db,dev}}}}.\n\n{EXIT_STATUS}"
))]
pub(crate) struct ServeArgs {
    /// Address or name to listen on
    #[arg(long, default_value = "127.0.0.1", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) host: String,
    /// Port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 7777)]
    pub(crate) port: u16,
    /// Path of the endpoint
    #[arg(long, default_value = "/arcp", value_parser = endpoint_path)]
    pub(crate) path: String,
    #[command(flatten)]
    pub(crate) token: TokenArgs,
    /// Take the tokens in this file too: lines of a principal and a token, and comments that begin with #
    #[arg(long, value_name = "FILE")]
    pub(crate) tokens: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) jwt: JwtArgs,
    /// Who the token of --token, --token-file or ARCP_TOKEN belongs to
    #[arg(long, default_value = "cli-user", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) principal: String,
    /// Who may cancel a job
    #[arg(long, value_enum, default_value = "principal")]
    pub(crate) cancel_policy: CancelPolicyArg,
    /// Host this Python runtime, which brings its own agents and tokens
    #[arg(long, value_name = "MODULE:ATTRIBUTE", value_parser = app,
          conflicts_with_all = ["token", "token_file", "principal", "cancel_policy", "tokens", "jwt", "db_quota", "limits"])]
    pub(crate) app: Option<String>,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    /// Serve wss:// with this certificate chain (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The private key of the certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Name a client may have connected to, without port; may be repeated [default: the loopback names on a loopback
    /// address, else any]
    #[arg(long, value_name = "NAME")]
    pub(crate) allowed_host: Vec<String>,
    /// Serve /metrics (Prometheus), /health and /ready over plain HTTP here; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    pub(crate) metrics: Option<String>,
    /// Run an agent registry in the same process, on this port of the same host; 0 takes a free one. Its other settings come
    /// from the environment and .env, see `arcp registry config check`
    #[arg(long, value_name = "PORT", conflicts_with = "app")]
    pub(crate) registry_port: Option<u16>,
    /// Append who did what, and what was refused, to this file, one JSON object per line
    #[arg(long, value_name = "FILE")]
    pub(crate) audit: Option<PathBuf>,
    /// How to say where it listens
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) output: OutputForm,
}

/// Where to connect, and as whom.
#[derive(Args)]
pub(crate) struct SessionArgs {
    /// The runtime, such as ws://127.0.0.1:7777/arcp
    #[arg(long, value_parser = url)]
    pub(crate) url: String,
    #[command(flatten)]
    pub(crate) token: TokenArgs,
    /// Trust the certificates in this file (PEM) besides the system's
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// For how long a lost connection is tried anew, for the session to go on where it was; 0 gives up at once
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(..=86_400))]
    pub(crate) reconnect: u64,
}

/// Run an agent and print its result
///
/// The job id is printed on stderr, so that `arcp tail` and `arcp cancel` can be used; on a terminal, the job's events
/// and a progress bar too. Stdout gets the payload of job.result; of a result that was streamed its bytes, as they are.
/// Ctrl-C cancels the job and waits for its end; a second one leaves at once.
#[derive(Args)]
#[command(after_help = format!(
    "Examples:
  arcp submit --url ws://127.0.0.1:7777/arcp --token tok --agent echo --input '{{\"hi\":1}}'
  arcp submit --url ws://127.0.0.1:7777/arcp --agent report --input @week.json --lease '{{\"fs.read\":[\"/data/**\"]}}'
  id=$(arcp submit --url ws://127.0.0.1:7777/arcp --agent report --detach)

Lines of --output json: {{\"accepted\":{{job_id,agent}}}}, {{\"event\":{{kind,body,ts}}}}, then {{\"result\":…}} or
{{\"error\":{{code,message,retryable,details}}}}. Codes in lower case are the program's own.\n\n{EXIT_STATUS}"
))]
pub(crate) struct SubmitArgs {
    #[command(flatten)]
    pub(crate) session: SessionArgs,
    /// The agent, as NAME or NAME@VERSION
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    pub(crate) agent: String,
    /// Input for the agent: JSON, @FILE, or - for stdin
    #[arg(long, value_name = "JSON", default_value = "null", allow_hyphen_values = true)]
    pub(crate) input: String,
    /// What the agent may do: a JSON object of lists of patterns, such as {"fs.read":["/data/**"]}
    #[arg(long, value_name = "JSON", default_value = "{}")]
    pub(crate) lease: String,
    /// When the lease ends, such as 2026-05-13T19:30:00Z
    #[arg(long, value_name = "TIME")]
    pub(crate) lease_expires_at: Option<String>,
    /// End the job after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max_runtime: Option<u64>,
    /// Submit once under this key, however often it is tried
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
    /// Print the job id on stdout and leave; the job goes on
    #[arg(long)]
    pub(crate) detach: bool,
    /// Form of what stdout gets
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) output: OutputForm,
    /// Nothing on stderr but errors
    #[arg(long, short, action = ArgAction::SetTrue)]
    pub(crate) quiet: bool,
}

/// Print a job's events, first those that were kept, then new ones, then its result
///
/// Each event is one JSON line {kind, body, ts}; the payload of job.result is the last line. Ctrl-C stops following; the
/// job goes on.
#[derive(Args)]
#[command(after_help = format!(
    "Examples:
  arcp tail --url ws://127.0.0.1:7777/arcp --token tok --job-id job_…
  arcp tail --url ws://127.0.0.1:7777/arcp --job-id job_… | jq -r 'select(.kind == \"log\").body.message'

Lines of --output json: {{\"event\":{{kind,body,ts}}}}, then {{\"result\":…}} or {{\"error\":{{code,message,retryable,details}}}}.
Codes in lower case are the program's own.\n\n{EXIT_STATUS}"
))]
pub(crate) struct TailArgs {
    #[command(flatten)]
    pub(crate) session: SessionArgs,
    /// The job, as `arcp submit` printed it
    #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) job_id: String,
    /// Begin after this event of the submitting session [default: the oldest that was kept]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) from_seq: Option<u64>,
    /// Form of what stdout gets
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) output: OutputForm,
}

/// Cancel a job
///
/// Waits until the runtime has taken the request. The agent may then still clean up; `arcp tail` shows its end. A job
/// that had already ended stays as it is, and the status is 0.
#[derive(Args)]
#[command(after_help = format!(
    "Example:
  arcp cancel --url ws://127.0.0.1:7777/arcp --token tok --job-id job_… --reason 'no longer needed'

Lines of --output json: {{\"cancel\":{{job_id,already_ended}}}}, where already_ended is the job's state or null; or
{{\"error\":{{code,message,retryable,details}}}}. Codes in lower case are the program's own.\n\n{EXIT_STATUS}"
))]
pub(crate) struct CancelArgs {
    #[command(flatten)]
    pub(crate) session: SessionArgs,
    /// The job, as `arcp submit` printed it
    #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) job_id: String,
    /// Told to the agent and shown in the job's end
    #[arg(long, value_name = "TEXT", default_value = "cancelled by the user")]
    pub(crate) reason: String,
    /// Form of what stdout gets
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) output: OutputForm,
}

/// List the jobs you may see, the oldest first
#[derive(Args)]
#[command(after_help = format!(
    "Examples:
  arcp jobs --url ws://127.0.0.1:7777/arcp --token tok
  arcp jobs --url ws://127.0.0.1:7777/arcp --status running --status pending --agent report --all

Lines of --output json: {{\"job\":{{job_id,agent,status,lease,parent_job_id,created_at,last_event_seq,…}}}} as the runtime
tells it, or {{\"error\":{{code,message,retryable,details}}}}. Codes in lower case are the program's own.\n\n{EXIT_STATUS}"
))]
pub(crate) struct JobsArgs {
    #[command(flatten)]
    pub(crate) session: SessionArgs,
    /// Only jobs in this state; may be repeated, then any of them
    #[arg(long, value_enum)]
    pub(crate) status: Vec<StatusArg>,
    /// Only jobs of this agent, as NAME for all its versions or NAME@VERSION
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    pub(crate) agent: Option<String>,
    /// At most so many jobs, up to 1000
    #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(crate) limit: u64,
    /// Every job there is, --limit of them asked for at a time
    #[arg(long)]
    pub(crate) all: bool,
    /// Form of what stdout gets
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) output: OutputForm,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum StatusArg {
    Pending,
    Running,
    Success,
    Error,
    Cancelled,
    TimedOut,
}

/// Print a script that completes this program's arguments in a shell
#[derive(Args)]
#[command(after_help = format!(
    "Examples:
  arcp completions bash > ~/.local/share/bash-completion/completions/arcp
  arcp completions zsh > \"${{fpath[1]}}/_arcp\"
  arcp completions fish > ~/.config/fish/completions/arcp.fish\n\n{EXIT_STATUS}"
))]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// Reads a file named by an option, as text.
pub(crate) fn read_file(option: &str, path: &std::path::Path) -> Result<String, Failure> {
    std::fs::read_to_string(path)
        .map_err(|error| Failure::Usage(format!("{option}: cannot read {}: {error}", path.display())))
}

fn url(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("ws://").or_else(|| text.strip_prefix("wss://"));
    let rest = rest.ok_or("it must begin with ws:// or wss://, such as ws://127.0.0.1:7777/arcp")?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    // What follows the brackets of an IPv6 literal, or the whole.
    let (host, after) = match authority.split_once(']') {
        Some((host, after)) => (host.trim_start_matches('['), after.strip_prefix(':')),
        None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
    };
    if host.is_empty() || text.contains(char::is_whitespace) {
        return Err("it needs a host, such as ws://127.0.0.1:7777/arcp".into());
    }
    match after.map(str::parse::<u16>) {
        Some(Err(_)) => Err("its port must be a number up to 65535".into()),
        _ => Ok(text.to_owned()),
    }
}

fn endpoint_path(text: &str) -> Result<String, String> {
    if text.starts_with('/') { Ok(text.to_owned()) } else { Err("it must begin with /, such as /arcp".into()) }
}

fn address(text: &str) -> Result<String, String> {
    match text.rsplit_once(':').map(|(host, port)| (host, port.parse::<u16>())) {
        Some((host, Ok(_))) if !host.is_empty() && (!host.contains(':') || host.starts_with('[')) => {
            Ok(text.to_owned())
        }
        _ => Err("it must be HOST:PORT, such as 127.0.0.1:9100 or [::1]:9100".into()),
    }
}

fn app(text: &str) -> Result<String, String> {
    match text.split_once(':') {
        Some((module, attribute)) if !module.is_empty() && !attribute.is_empty() => Ok(text.to_owned()),
        _ => Err("it must be MODULE:ATTRIBUTE, such as my_agents:runtime".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_fit_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_version_names_the_protocol() {
        assert!(VERSION.contains(&format!("(protocol {})", arcp::PROTOCOL_VERSION)), "{VERSION}");
    }

    #[test]
    fn a_metrics_address_has_a_host_and_a_port() {
        for good in ["127.0.0.1:9100", "[::1]:0", "localhost:65535"] {
            assert_eq!(address(good).as_deref(), Ok(good));
        }
        for bad in ["", "9100", ":9100", "localhost", "localhost:70000", "::1:9100", "http://x:1/"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn urls_are_checked_before_anything_is_opened() {
        for good in ["ws://localhost", "wss://example.com/arcp", "ws://[::1]:7777/arcp", "ws://127.0.0.1:1/x?y=1"] {
            assert_eq!(url(good).as_deref(), Ok(good));
        }
        for bad in
            ["", "localhost:7777", "http://x/arcp", "ws://", "ws:///arcp", "ws://h:port/", "ws://h:70000", "ws://a b"]
        {
            assert!(url(bad).is_err(), "{bad}");
        }
    }
}
