//! `cargo xtask gen | check | parity`.

use std::process::ExitCode;

use xtask::{Result, generate, root, surface};

const USAGE: &str = "\
usage: cargo xtask <command>

  gen      write the generated files (include/arcp.h, docs/errors.md)
  check    fail if a generated file differs from what gen would write
  parity   compare tests/surface.toml with the public surface of every language";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["gen"] => write(),
        ["check"] => generate::drift(&root()),
        ["parity"] => parity(),
        _ => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(findings) if findings.is_empty() => ExitCode::SUCCESS,
        Ok(findings) => {
            say(&findings.join("\n"));
            ExitCode::FAILURE
        }
        Err(message) => {
            say(&message);
            ExitCode::from(2)
        }
    }
}

fn write() -> Result<Vec<String>> {
    for path in generate::write(&root())? {
        say(&format!("wrote {path}"));
    }
    Ok(Vec::new())
}

fn parity() -> Result<Vec<String>> {
    let table = surface::Table::load(&root())?;
    let mut findings = table.faults();
    for language in surface::LANGUAGES {
        findings.extend(table.compare(language, &language.extract(&root(), &table)?));
    }
    Ok(findings)
}

#[expect(clippy::print_stderr, reason = "a program for people at a terminal")]
fn say(text: &str) {
    eprintln!("{text}");
}
