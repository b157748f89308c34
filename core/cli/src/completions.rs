//! `arcp completions`: a script for a shell.

use clap::CommandFactory;
use clap_complete::{Shell, generate};

use crate::args::Cli;
use crate::exit::Failure;
use crate::output::print;

pub(crate) fn run(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    generate(shell, &mut Cli::command(), "arcp", &mut script);
    print(String::from_utf8_lossy(&script).trim_end())
}
