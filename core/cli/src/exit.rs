//! Why a command fails: one line on stderr, and an exit status a script can tell apart.

use std::io;

use arcp::registry::{FailureKind, RegistryError};
use arcp::{Error, ErrorCode, ProtocolError, RawJson};
use clap::builder::styling::AnsiColor;
use clap::error::ErrorKind;

use crate::args::OutputForm;
use crate::output::{self, member};

/// For the end of every help text.
pub(crate) const EXIT_STATUS: &str = "\
Exit status:
  0  success
  1  another failure, such as a port in use or a damaged database
  2  wrong arguments
  3  no connection, or it was lost
  4  the token was refused (UNAUTHENTICATED)
  5  the request was refused, such as an unknown agent, job or session
  6  the job ended in an error
  7  the job was cancelled
  8  the job or the answer timed out
130  interrupted";

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something on this machine.
    Other(String),
    /// The arguments cannot be used.
    Usage(String),
    /// There is no connection.
    NoConnection(String),
    /// A database does not have what was asked for.
    NotFound(String),
    /// The runtime refused a request.
    Refused(ProtocolError),
    /// The job ended badly.
    Job(ProtocolError),
    /// A registry refused.
    Registry(Box<RegistryError>),
    /// No answer came in time.
    NoAnswer(String),
    /// By Ctrl-C; with the end of the job, if it was waited for.
    Interrupted(Option<ProtocolError>),
    /// Stdout takes no more.
    Stdout(io::Error),
}

impl Failure {
    /// A request that failed.
    pub(crate) fn of_request(error: Error) -> Failure {
        match error {
            Error::Protocol(error) => Failure::Refused(error),
            other => Failure::local(other),
        }
    }

    /// A job that did not succeed, or that was lost sight of.
    pub(crate) fn of_job(error: Error) -> Failure {
        match error {
            Error::Protocol(error) => Failure::Job(error),
            other => Failure::local(other),
        }
    }

    fn local(error: Error) -> Failure {
        match error {
            Error::Timeout(message) => Failure::NoAnswer(message),
            Error::Closed(message) | Error::Transport(message) => Failure::NoConnection(message),
            Error::Protocol(error) => Failure::Refused(error),
        }
    }

    fn status(&self) -> i32 {
        match self {
            Failure::Other(_) | Failure::Stdout(_) => 1,
            Failure::Usage(_) => 2,
            Failure::NoConnection(_) => 3,
            Failure::Refused(error) if error.code == ErrorCode::Unauthenticated => 4,
            Failure::Registry(error) if error.kind == FailureKind::Authentication => 4,
            Failure::Registry(error) if error.kind == FailureKind::Server => 1,
            Failure::Refused(_) | Failure::NotFound(_) | Failure::Registry(_) => 5,
            Failure::Job(error) => match error.code {
                ErrorCode::Cancelled => 7,
                ErrorCode::Timeout => 8,
                _ => 6,
            },
            Failure::NoAnswer(_) => 8,
            Failure::Interrupted(_) => 130,
        }
    }

    /// The error as the protocol has it, or in its shape: a local failure has a code in lower case, so that it is never
    /// taken for the runtime's.
    fn as_error(&self) -> ProtocolError {
        let local = |code: &str, message: &str, retryable: bool| ProtocolError {
            retryable,
            ..ProtocolError::new(ErrorCode::Other(code.into()), message)
        };
        match self {
            Failure::Refused(error) | Failure::Job(error) | Failure::Interrupted(Some(error)) => error.clone(),
            Failure::Interrupted(None) => local("interrupted", "interrupted", false),
            Failure::Other(message) => local("failed", message, false),
            Failure::Usage(message) => local("usage", message, false),
            Failure::NotFound(message) => local("not_found", message, false),
            Failure::Registry(error) => {
                let code = if error.code.is_empty() { "refused" } else { &error.code };
                let told = local(code, &error.to_string(), error.is_retryable());
                ProtocolError { details: RawJson::from_serialize(&error.details()).ok(), ..told }
            }
            Failure::NoConnection(message) => local("no_connection", message, true),
            Failure::NoAnswer(message) => local("no_answer", message, true),
            Failure::Stdout(error) => local("failed", &format!("cannot write to stdout: {error}"), false),
        }
    }

    /// In one sentence.
    pub(crate) fn message(&self) -> String {
        self.as_error().message
    }

    /// Says what failed, on stderr and, for programs, on stdout; the status to leave with.
    pub(crate) fn report(&self, form: OutputForm) -> i32 {
        let quiet = match self {
            // Nobody reads any more, or the user knows.
            Failure::Stdout(error) => error.kind() == io::ErrorKind::BrokenPipe,
            Failure::Interrupted(None) => true,
            _ => false,
        };
        let error = self.as_error();
        if !quiet {
            let remedy = match &self {
                Failure::Refused(error) if error.code == ErrorCode::Unauthenticated => {
                    "; check --token, --token-file or ARCP_TOKEN"
                }
                _ => "",
            };
            match error.code {
                ErrorCode::Other(_) if !matches!(self, Failure::Job(_) | Failure::Refused(_)) => {
                    complain(&error.message);
                }
                _ => complain(&format!("{error}{remedy}")),
            }
        }
        if form == OutputForm::Json && !matches!(self, Failure::Stdout(_)) {
            let error = RawJson::from_serialize(&error).unwrap_or_else(|_| RawJson::null());
            // The status tells what happened even if this line cannot be written.
            drop(output::print(&member("error", error.get())));
        }
        self.status()
    }
}

/// Help and version go to stdout; a mistake becomes one line.
pub(crate) fn report_usage(error: &clap::Error) -> i32 {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            // A closed stdout is no failure of a help text.
            drop(error.print());
            return error.exit_code();
        }
        _ => complain(&one_line(&error.render().to_string())),
    }
    2
}

/// The first paragraph of a clap error and its tips, without the usage.
fn one_line(text: &str) -> String {
    let mut line = String::new();
    for paragraph in text.split("\n\n") {
        let words = paragraph.lines().map(str::trim).collect::<Vec<_>>().join(" ");
        if line.is_empty() {
            line.push_str(words.strip_prefix("error: ").unwrap_or(&words));
        } else if let Some(tip) = words.strip_prefix("tip: ") {
            line.push_str("; ");
            line.push_str(tip);
        }
    }
    line + "; see --help"
}

fn complain(message: &str) {
    let red = AnsiColor::Red.on_default().bold();
    output::note(&format!("{red}arcp:{red:#} {}", output::shown(message)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_one_line_with_its_tip() {
        let text =
            "error: unexpected argument '--agnet' found\n\n  tip: a similar argument exists: '--agent'\n\nUsage: x\n";
        assert_eq!(
            one_line(text),
            "unexpected argument '--agnet' found; a similar argument exists: '--agent'; see --help"
        );
        let text =
            "error: the following required arguments were not provided:\n  --url <URL>\n  --agent <AGENT>\n\nUsage: x";
        assert_eq!(
            one_line(text),
            "the following required arguments were not provided: --url <URL> --agent <AGENT>; see --help"
        );
    }

    #[test]
    fn every_end_has_its_status() {
        let protocol = |code| Error::Protocol(ProtocolError::new(code, "m"));
        let request = |error| Failure::of_request(error).status();
        assert_eq!(request(protocol(ErrorCode::Unauthenticated)), 4);
        assert_eq!(request(protocol(ErrorCode::JobNotFound)), 5);
        assert_eq!(request(Error::Timeout("m".into())), 8);
        assert_eq!(request(Error::Transport("m".into())), 3);
        let job = |error| Failure::of_job(error).status();
        assert_eq!(job(protocol(ErrorCode::Other("BOOM".into()))), 6);
        assert_eq!(job(protocol(ErrorCode::Cancelled)), 7);
        assert_eq!(job(protocol(ErrorCode::Timeout)), 8);
        assert_eq!(job(Error::Closed("m".into())), 3);
    }
}
