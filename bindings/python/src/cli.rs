//! The program `arcp`, run by the interpreter of a wheel.

use std::ffi::OsString;

use arcp_cli::Outcome;
use pyo3::prelude::*;

/// Runs the program; `argv` begins with its name. Gives the status to leave with, or what `serve --app` is to host: the
/// app, the listen options as JSON text, and whether the listening line is wanted as JSON.
#[pyfunction]
pub(crate) fn run_cli(py: Python<'_>, argv: Vec<OsString>) -> (Option<i32>, Option<(String, String, bool)>) {
    match py.detach(|| arcp_cli::run(argv)) {
        Outcome::Exit(status) => (Some(status), None),
        Outcome::ServeApp(app) => (None, Some((app.app, app.options_json, app.output_json))),
    }
}

/// Reports a failure as the program does, on stderr and with `output_json` on stdout too; the status to leave with.
#[pyfunction]
pub(crate) fn report_failure(message: &str, output_json: bool) -> i32 {
    arcp_cli::report_failure(message, output_json)
}
