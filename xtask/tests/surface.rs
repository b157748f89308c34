//! `tests/surface.toml` and the public surface of each language agree, both ways.

use xtask::surface::{Language, Table};
use xtask::{Result, generate, root};

/// An error with one finding per line, if there is any.
fn agree(language: Language) -> Result<()> {
    let table = Table::load(&root())?;
    let findings = table.compare(language, &language.extract(&root(), &table)?);
    if findings.is_empty() { Ok(()) } else { Err(findings.join("\n")) }
}

#[test]
fn the_table_answers_for_every_language() {
    assert_eq!(Table::load(&root()).unwrap().faults(), [""; 0]);
}

#[test]
fn every_error_code_is_a_concept() {
    let table = Table::load(&root()).unwrap();
    let codes = generate::error_codes(&root()).unwrap();
    assert_eq!(codes.len(), 15);
    for code in codes {
        assert!(table.first_name(&code, Language::Rust).is_some(), "{code} is not a concept of the table");
    }
}

#[test]
fn rust_agrees() {
    agree(Language::Rust).unwrap_or_else(|findings| panic!("\n{findings}"));
}

#[test]
fn python_agrees() {
    agree(Language::Python).unwrap_or_else(|findings| panic!("\n{findings}"));
}

#[test]
fn node_agrees() {
    agree(Language::Node).unwrap_or_else(|findings| panic!("\n{findings}"));
}

#[test]
fn c_agrees() {
    agree(Language::C).unwrap_or_else(|findings| panic!("\n{findings}"));
}
