//! `cargo xtask gen | check | parity | mutations`.

use std::process::ExitCode;

use xtask::{Result, generate, mutations, root, surface};

const USAGE: &str = "\
usage: cargo xtask <command>

  gen      write the generated files (include/arcp.h, docs/errors.md)
  check    fail if a generated file differs from what gen would write
  parity   compare tests/surface.toml with the public surface of every language
  mutations [text]
           break the rules of tests/mutations.toml, all or those whose section or rule is `text`, one at a time in a
           copy, and fail for each breach that no case notices";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["gen"] => write(),
        ["check"] => generate::drift(&root()),
        ["parity"] => parity(),
        ["mutations"] => mutate(None),
        ["mutations", only] => mutate(Some(only)),
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

fn mutate(only: Option<&str>) -> Result<Vec<String>> {
    let mut list = mutations::load(&root())?;
    list.retain(|mutation| only.is_none_or(|only| mutation.section == only || mutation.rule == only));
    mutations::run(&root(), &list, say)
}

#[expect(clippy::print_stderr, reason = "a program for people at a terminal")]
fn say(text: &str) {
    eprintln!("{text}");
}
