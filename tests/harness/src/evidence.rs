//! Tests that show a rule beside the cases of the corpus. Each says so itself, in its doc comment (Rust) or docstring
//! (Python), on a line of its own: `Rules, R-6.3.2`.

use std::path::{Path, PathBuf};

use crate::Result;
use crate::rules::Coverage;

/// Where such tests are, and the word that runs them; all of them are part of `make test`.
pub const SUITES: [(&str, &str); 4] = [
    ("core", "make test-rust"),
    ("tests/faults", "make test-faults"),
    ("tests/interop", "make interop"),
    ("tests/python", "make test-python"),
];

const LABEL: &str = "Rules:";

/// Adds to `coverage` every test of the suites that names rules; a suite that is not there is left out.
///
/// # Errors
/// A file cannot be read, or a line of rules belongs to no test that is run.
pub fn collect(root: &Path, coverage: &mut Coverage) -> Result<()> {
    for (folder, _) in SUITES {
        for path in sources(&root.join(folder))? {
            let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            let file = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            let shown = if file.ends_with(".py") { python(&text) } else { rust(&text) };
            for (test, rules) in shown.map_err(|e| format!("{file}: {e}"))? {
                for rule in rules {
                    coverage.entry(rule).or_default().entry(file.clone()).or_default().push(test.clone());
                }
            }
        }
    }
    Ok(())
}

/// The word that runs a file of a suite.
#[must_use]
pub fn suite(file: &str) -> Option<&'static str> {
    SUITES.into_iter().find(|(folder, _)| Path::new(file).starts_with(folder)).map(|(_, word)| word)
}

/// The Rust and Python files below a folder, sorted.
fn sources(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = if folder.is_dir() { vec![folder.to_owned()] } else { Vec::new() };
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        for path in entries.filter_map(|entry| entry.ok().map(|entry| entry.path())) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ext| ext == "rs" || ext == "py") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// A test and the rules it names.
type Shown = (String, Vec<String>);

/// The tests of a Rust file: what a doc comment says belongs to the function below it.
fn rust(text: &str) -> Result<Vec<Shown>> {
    let mut shown = Vec::new();
    let mut named: Vec<String> = Vec::new();
    let (mut is_test, mut is_ignored) = (false, false);
    for line in text.lines().map(str::trim) {
        if let Some(doc) = line.strip_prefix("///") {
            named.extend(listed(doc)?);
        } else if line.starts_with("#[") {
            is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
            is_ignored |= line.starts_with("#[ignore");
        } else if !line.is_empty() && !line.starts_with("//") {
            if !named.is_empty() {
                let name = line.split_once("fn ").map(|(_, rest)| name(rest));
                let name = name.filter(|_| is_test).ok_or_else(|| format!("{named:?} stand over no test: {line}"))?;
                if is_ignored {
                    return Err(format!("{name} names rules but is ignored"));
                }
                shown.push((name, std::mem::take(&mut named)));
            }
            (is_test, is_ignored) = (false, false);
            if line.contains(LABEL) {
                return Err(format!("this line names rules outside a doc comment: {line}"));
            }
        }
    }
    if named.is_empty() { Ok(shown) } else { Err(format!("{named:?} stand over nothing")) }
}

/// The tests of a Python file: what a docstring says belongs to the function above it.
fn python(text: &str) -> Result<Vec<Shown>> {
    let mut shown: Vec<Shown> = Vec::new();
    let mut test: Option<String> = None;
    let (mut is_skipped, mut begins, mut in_doc) = (false, false, false);
    for line in text.lines().map(str::trim) {
        if line.starts_with("@pytest.mark.") && (line.contains("skip") || line.contains("xfail")) {
            is_skipped = true;
        }
        let signature = line.strip_prefix("async ").unwrap_or(line).strip_prefix("def ");
        if let Some(signature) = signature {
            let name = name(signature);
            test = (name.starts_with("test_") && !std::mem::take(&mut is_skipped)).then_some(name);
        }
        let opens = begins && line.starts_with("\"\"\"");
        if opens || in_doc {
            let rules = listed(line.trim_matches('"'))?;
            if !rules.is_empty() {
                let test = test.clone().ok_or_else(|| format!("{rules:?} are named by no test that is run"))?;
                shown.push((test, rules));
            }
        } else if line.contains("Rules: R-") {
            return Err(format!("this line names rules outside a docstring: {line}"));
        }
        let quotes = line.matches("\"\"\"").count();
        in_doc = if opens { quotes == 1 } else { in_doc && quotes == 0 };
        begins = test.is_some() && line.ends_with(':') && !in_doc && (signature.is_some() || line.starts_with(')'));
    }
    Ok(shown)
}

/// The rules of one line of documentation.
fn listed(doc: &str) -> Result<Vec<String>> {
    let Some(rules) = doc.trim().strip_prefix(LABEL) else { return Ok(Vec::new()) };
    let rules = rules.split(',').map(|rule| rule.trim().trim_end_matches('.').to_owned());
    // The registry's rules are counted by its own tests (`tests/registry/test_rules.py`).
    let rules = rules.filter(|rule| !is_registry_rule(rule));
    rules.map(|rule| if is_rule(&rule) { Ok(rule) } else { Err(format!("no rule is named {rule:?}")) }).collect()
}

fn is_rule(text: &str) -> bool {
    text.strip_prefix("R-").is_some_and(|rest| rest.split('.').all(|part| part.parse::<u32>().is_ok()))
}

fn is_registry_rule(text: &str) -> bool {
    text.starts_with("REG-")
}

fn name(signature: &str) -> String {
    signature.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(test: &str, rules: &[&str]) -> Shown {
        (test.to_owned(), rules.iter().map(|&rule| rule.to_owned()).collect())
    }

    #[test]
    fn rust_tests_name_rules_in_their_doc_comments() {
        let text = "/// Goes on.\n/// Rules: R-1.1, R-1.2\n#[test]\nfn a() {}\n\n    /// Rules: R-2.1\n    \
                    #[tokio::test(start_paused = true)]\n    async fn b() {}\n#[test]\nfn c() {}\n";
        assert_eq!(rust(text), Ok(vec![of("a", &["R-1.1", "R-1.2"]), of("b", &["R-2.1"])]));
    }

    #[test]
    fn rules_over_anything_else_are_refused() {
        for text in [
            "/// Rules: R-1.1\nfn helper() {}",
            "/// Rules: R-1.1\nstruct S;",
            "/// Rules: R-1.1\n#[test]\n#[ignore]\nfn a() {}",
            "/// Rules: R-1.l\n#[test]\nfn a() {}",
            "/// Rules: all\n#[test]\nfn a() {}",
            "#[test]\nfn a() {}\n/// Rules: R-1.1\n",
        ] {
            assert!(rust(text).is_err(), "{text}");
        }
    }

    #[test]
    fn python_tests_name_rules_in_their_docstrings() {
        let text = "def test_a() -> None:\n    \"\"\"Rules: R-1.1\"\"\"\n\nasync def test_b(\n    form: str,\n) -> None:\n    \
                    \"\"\"Goes on.\n\n    Rules: R-1.2, R-1.3\n    \"\"\"\n    pass\n";
        assert_eq!(python(text), Ok(vec![of("test_a", &["R-1.1"]), of("test_b", &["R-1.2", "R-1.3"])]));
        for text in [
            "def helper() -> None:\n    \"\"\"Rules: R-1.1\"\"\"",
            "@pytest.mark.skip\ndef test_a() -> None:\n    \"\"\"Rules: R-1.1\"\"\"",
            "def test_a() -> None:\n    # Rules: R-1.1\n    pass",
        ] {
            assert!(python(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_file_has_a_suite_or_is_the_corpus() {
        assert_eq!(suite("core/engine/tests/jwt.rs"), Some("make test-rust"));
        assert_eq!(suite("tests/python/test_cli.py"), Some("make test-python"));
        assert_eq!(suite("wire/errors.json"), None);
    }
}
