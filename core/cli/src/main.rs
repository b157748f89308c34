//! The binary `arcp`.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::process::{Command, ExitCode, Stdio};

use arcp_cli::{Outcome, report_failure, run};

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let status = match run(args.clone()) {
        Outcome::Exit(status) => status,
        Outcome::ServeApp(app) => serve_with_python(&args[1..], app.output_json),
    };
    ExitCode::from(u8::try_from(status).unwrap_or(1))
}

/// Hands the same arguments to the program inside the Python package, which can host Python runtimes.
fn serve_with_python(args: &[OsString], output_json: bool) -> i32 {
    let report_failure = |message: &str| report_failure(message, output_json);
    let looked_for = Command::new("python3")
        .args(["-c", "import importlib.util as u; raise SystemExit(u.find_spec('arcp') is None)"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match looked_for {
        Ok(found) if found.success() => {}
        Ok(_) => {
            return report_failure(
                "--app needs the Python package arcp, which this python3 does not have; install it or activate the \
                 environment that has it",
            );
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return report_failure("--app needs Python, and there is no python3 on the PATH; install it");
        }
        Err(error) => return report_failure(&format!("--app needs Python, and python3 cannot be started: {error}")),
    }
    let mut python = Command::new("python3");
    python.args(["-m", "arcp"]).args(args);
    match replace_by(python) {
        Ok(status) => status,
        Err(error) => report_failure(&format!("python3 cannot be started: {error}")),
    }
}

/// Becomes the other program, so that signals reach it.
#[cfg(unix)]
fn replace_by(mut program: Command) -> std::io::Result<i32> {
    use std::os::unix::process::CommandExt;
    Err(program.exec())
}

#[cfg(not(unix))]
fn replace_by(mut program: Command) -> std::io::Result<i32> {
    program.status().map(|status| status.code().unwrap_or(1))
}
