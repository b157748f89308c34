//! The shape of the house: who may depend on whom, and what a room may not contain (ARCHITECTURE.md).

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::source::{Placed, Syntax, Token, files, placed};
use crate::{Result, read};

/// Each room and the rooms its crate may name; a crate outside this table is a finding.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("core/proto", &[]),
    ("core/store", &["core/proto"]),
    ("core/engine", &["core/proto", "core/store"]),
    ("core/registry", &["core/proto", "core/store"]),
    ("core/arcp", &["core/proto", "core/store", "core/engine", "core/registry"]),
    ("core/bridge", &["core/arcp"]),
    ("core/cli", &["core/arcp"]),
    ("bindings/c", &["core/bridge"]),
    ("bindings/node", &["core/bridge"]),
    // The wheel ships the program, so its binding also carries the command line.
    ("bindings/python", &["core/bridge", "core/cli"]),
    ("bindings/uniffi", &["core/bridge"]),
    ("benches", &["core/arcp", "core/bridge", "core/engine", "core/proto", "core/registry", "core/store"]),
    ("benches/load", &[]),
    ("tests/faults", &["core/arcp"]),
    ("tests/harness", &[]),
    ("tests/shims/rust", &["core/arcp"]),
    ("xtask", &[]),
];

/// Crates that bring IO, a clock, threads or randomness: none may be reachable from `core/proto`.
const NOT_IN_PROTO: &[&str] = &[
    "async-std",
    "chrono",
    "fastrand",
    "getrandom",
    "hyper",
    "jiff",
    "mio",
    "quanta",
    "rand",
    "rand_core",
    "reqwest",
    "smol",
    "socket2",
    "time",
    "tokio",
    "tokio-util",
    "ulid",
    "uuid",
    "web-time",
];

/// Paths `core/proto/src` may not name, with what to do instead.
const NOT_SAID_IN_PROTO: &[(&[&str], &str)] = &[
    (&["Instant", "now"], "take `now` as an argument"),
    (&["SystemTime"], "take `now` as an argument"),
    (&["std", "net"], "addresses are in core::net; sockets belong to core/engine"),
    (&["std", "thread"], "threads belong to core/engine"),
];

/// Dependencies between the workspace's crates that point the wrong way, from `cargo metadata`.
pub fn wrong_imports(root: &Path) -> Result<Vec<String>> {
    let text = cargo(root, &["metadata", "--format-version", "1", "--no-deps"])?;
    let metadata: Value = serde_json::from_str(&text).map_err(|error| format!("cargo metadata: {error}"))?;
    imports_against(&metadata)
}

fn imports_against(metadata: &Value) -> Result<Vec<String>> {
    let root = text_at(metadata, "workspace_root")?;
    let mut findings = Vec::new();
    for package in metadata["packages"].as_array().ok_or("cargo metadata: no packages")? {
        let room = room_of(root, text_at(package, "manifest_path")?.trim_end_matches("Cargo.toml"));
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| *name == room) else {
            findings.push(format!("{room} is not in the table of rooms: add it to MAY_IMPORT in xtask/src/house.rs"));
            continue;
        };
        for dependency in package["dependencies"].as_array().ok_or("cargo metadata: no dependencies")? {
            let Some(path) = dependency["path"].as_str() else { continue };
            let target = room_of(root, path);
            if !allowed.contains(&target.as_str()) {
                findings.push(format!("{room} must not depend on {target}"));
            }
        }
    }
    Ok(findings)
}

/// Crates with IO, clocks or randomness that `core/proto` reaches, directly or not (normal dependencies).
pub fn proto_reaches(root: &Path) -> Result<Vec<String>> {
    reached(root, &["--package", "arcp-proto"], NOT_IN_PROTO)
}

/// Crypto backends other than aws-lc-rs that the workspace reaches; a second one is a second set of faults to watch.
pub fn second_crypto_backend(root: &Path) -> Result<Vec<String>> {
    reached(root, &["--workspace"], &["native-tls", "openssl", "openssl-sys", "ring"])
}

fn reached(root: &Path, from: &[&str], unwanted: &[&str]) -> Result<Vec<String>> {
    let tree = cargo(root, &[&["tree", "--edges", "normal", "--prefix", "none"], from].concat())?;
    let names = tree.lines().filter_map(|line| line.split_whitespace().next());
    let found: BTreeSet<&str> = names.filter(|name| unwanted.contains(name)).collect();
    Ok(found.into_iter().map(|name| format!("{} reaches the crate {name}", from.join(" "))).collect())
}

/// Every place in `core/proto/src` that names the outside world.
pub fn proto_names(root: &Path) -> Result<Vec<String>> {
    scan(root, &["core/proto/src"], |tokens| {
        NOT_SAID_IN_PROTO
            .iter()
            .flat_map(|(path, remedy)| {
                named(tokens, path).into_iter().map(move |line| (line, format!("`{}`: {remedy}", path.join("::"))))
            })
            .collect()
    })
}

/// Every `unsafe` outside `bindings/`.
pub fn unsafe_outside_bindings(root: &Path) -> Result<Vec<String>> {
    scan(root, &["benches", "core", "examples", "tests", "xtask"], |tokens| {
        let found = tokens.iter().filter(|placed| placed.token.is("unsafe"));
        found.map(|placed| (placed.line, "`unsafe` belongs to bindings/ alone".to_owned())).collect()
    })
}

fn scan(root: &Path, rooms: &[&str], look: impl Fn(&[Placed]) -> Vec<(usize, String)>) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for room in rooms.iter().filter(|room| root.join(room).exists()) {
        for file in files(&root.join(room), &[".rs"])? {
            let path = file.strip_prefix(root).unwrap_or(&file).display().to_string();
            for (line, what) in look(&placed(&read(root, &path)?, Syntax::Rust)) {
                findings.push(format!("{path}:{line}: {what}"));
            }
        }
    }
    Ok(findings)
}

/// The lines on which `path` is named: written out (`a::b`) or as one branch of a `use a::{b, c}`.
fn named(tokens: &[Placed], path: &[&str]) -> Vec<usize> {
    let plain: Vec<Token> = tokens.iter().map(|placed| placed.token.clone()).collect();
    let mut lines = Vec::new();
    for (index, placed) in tokens.iter().enumerate().filter(|(_, placed)| placed.token.is(path[0])) {
        let Some(last) = path.get(1) else {
            lines.push(placed.line);
            continue;
        };
        let follows = |ahead: usize, mark: char| plain.get(index + ahead).is_some_and(|token| token.mark(mark));
        if !(follows(1, ':') && follows(2, ':')) {
            continue;
        }
        let end = if follows(3, '{') { crate::source::close(&plain, index + 3) } else { index + 4 };
        let branch = plain[..end.min(plain.len())].iter().enumerate().skip(index + 3);
        let starts_a_branch = |at: usize| !plain[at - 1].mark(':') || at == index + 3;
        lines
            .extend(branch.filter(|(at, token)| token.is(last) && starts_a_branch(*at)).map(|(at, _)| tokens[at].line));
    }
    lines
}

fn cargo(root: &Path, arguments: &[&str]) -> Result<String> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(program)
        .args(arguments)
        .current_dir(root)
        .output()
        .map_err(|error| format!("cargo {}: {error}", arguments[0]))?;
    if !output.status.success() {
        return Err(format!("cargo {}: {}", arguments[0], String::from_utf8_lossy(&output.stderr)));
    }
    String::from_utf8(output.stdout).map_err(|error| format!("cargo {}: {error}", arguments[0]))
}

fn room_of(root: &str, directory: &str) -> String {
    let below = directory.strip_prefix(root).unwrap_or(directory);
    below.replace('\\', "/").trim_matches('/').to_owned()
}

fn text_at<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value[key].as_str().ok_or_else(|| format!("cargo metadata: no {key}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn findings_for(room: &str, target: &str) -> Vec<String> {
        let package = json!({
            "manifest_path": format!("/house/{room}/Cargo.toml"),
            "dependencies": [{"path": format!("/house/{target}")}, {"name": "serde", "path": null}],
        });
        imports_against(&json!({"workspace_root": "/house", "packages": [package]})).unwrap()
    }

    #[test]
    fn an_import_against_the_direction_is_found() {
        assert_eq!(findings_for("core/store", "core/proto"), [""; 0]);
        assert_eq!(findings_for("core/engine", "core/registry"), ["core/engine must not depend on core/registry"]);
        assert_eq!(findings_for("core/registry", "core/engine"), ["core/registry must not depend on core/engine"]);
        assert_eq!(findings_for("bindings/node", "core/engine"), ["bindings/node must not depend on core/engine"]);
        assert_eq!(findings_for("core/proto", "core/store"), ["core/proto must not depend on core/store"]);
        assert_eq!(findings_for("core/attic", "core/proto").len(), 1);
    }

    #[test]
    fn a_path_is_found_in_every_spelling() {
        let lines = |text: &str, path: &[&str]| named(&placed(text, Syntax::Rust), path);
        assert_eq!(lines("use std::net::TcpStream;", &["std", "net"]), [1]);
        assert_eq!(lines("use std::{fmt,\n net::IpAddr};", &["std", "net"]), [2]);
        assert_eq!(lines("let t = std::time::Instant::now();", &["Instant", "now"]), [1]);
        assert_eq!(lines("// std::net\n\"std::net\" core::net std::{fmt::net}", &["std", "net"]), [0; 0]);
        assert_eq!(lines("SystemTime::now()", &["SystemTime"]), [1]);
    }
}
