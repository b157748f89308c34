//! The program `arcp`, as a library: the binary and the Python wheel both call [`run`].

mod access;
mod agents;
mod args;
mod cancel;
mod completions;
mod db;
mod exit;
mod jobs;
mod limits;
mod log;
mod output;
mod registry;
mod screen;
mod serve;
mod session;
mod signals;
mod store;
mod submit;
mod tail;

use std::ffi::OsString;
use std::time::Duration;

use clap::Parser;

use crate::args::{Cli, Command, OutputForm};
use crate::exit::Failure;

/// What is left to do after [`run`].
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Leave the process with this status.
    Exit(i32),
    /// `serve --app`: only a process that runs Python can do it.
    ServeApp(ServeApp),
}

/// A runtime to be hosted by the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServeApp {
    /// `module:attribute`, both non-empty; the attribute is a runtime.
    pub app: String,
    /// A JSON object of listen options: `host`, `port`, `path`; `allowed_hosts`, `cert_pem`, `key_pem` where given. Also
    /// where given, what the runtime is to keep: `db`, a path or `"memory"`, `synchronous`, `"normal"` or `"full"`, and
    /// `db_key_file`, a path; `metrics`, an address to serve figures on, and `audit`, a file to append to.
    pub options_json: String,
    /// Whether the listening line is wanted as JSON on stdout.
    pub output_json: bool,
}

/// At the end of a command, threads that still run are left behind after this time.
const STOP: Duration = Duration::from_secs(1);

/// Runs the program with these arguments, the program's name first, and reports what fails on stderr.
///
/// While it runs, SIGINT and SIGTERM belong to the program.
pub fn run(args: Vec<OsString>) -> Outcome {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return Outcome::Exit(exit::report_usage(&error)),
    };
    let form = cli.command.output();
    let ran = match &cli.command {
        Command::Serve(serve) => match serve.hosted_app() {
            Ok(Some(app)) => return Outcome::ServeApp(app),
            Ok(None) => run_command(cli),
            Err(failure) => Err(failure),
        },
        _ => run_command(cli),
    };
    match ran {
        Ok(()) => Outcome::Exit(0),
        Err(failure) => Outcome::Exit(failure.report(form)),
    }
}

/// Reports a failure outside [`run`] in the program's own form, with `output_json` on stdout too; the status to leave with.
pub fn report_failure(message: &str, output_json: bool) -> i32 {
    let form = if output_json { OutputForm::Json } else { OutputForm::Text };
    Failure::Other(message.to_owned()).report(form)
}

fn run_command(cli: Cli) -> Result<(), Failure> {
    let verbose = cli.verbose;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .on_thread_start(move || std::mem::forget(log::install(verbose)))
        .build()
        .map_err(|error| Failure::Other(format!("cannot start: {error}")))?;
    let _logs = log::install(verbose);
    let result = runtime.block_on(async {
        match cli.command {
            Command::Serve(args) => serve::run(*args).await,
            Command::Submit(args) => submit::run(args).await,
            Command::Tail(args) => tail::run(args).await,
            Command::Cancel(args) => cancel::run(args).await,
            Command::Jobs(args) => jobs::run(args).await,
            Command::Sessions(args) => db::sessions(&args),
            Command::Replay(args) => db::replay(&args),
            Command::Db(args) => db::run(&args.command),
            Command::Agents(args) => agents::run(args).await,
            Command::Login(args) => agents::login(args).await,
            Command::Registry(args) => registry::run(args).await,
            Command::Completions(args) => completions::run(args.shell),
        }
    });
    runtime.shutdown_timeout(STOP);
    result
}
