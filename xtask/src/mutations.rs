//! Breaking the rules on purpose: each change of `tests/mutations.toml` must make a case or test fail that it names.
//!
//! The changes are made in a copy below `target/mutations`, so that a run that is cut short leaves nothing behind.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::source::files;
use crate::{Result, read};

/// The list, and what it must cover.
pub const LIST: &str = "tests/mutations.toml";

/// The sections of the contract that hold rules a peer or an agent can notice.
pub const SECTIONS: &[&str] = &[
    "4", "5", "6.1", "6.2", "6.3", "6.4", "6.5", "6.6", "6.7", "7.1", "7.2", "7.3", "7.4", "7.5", "7.6", "8.1", "8.2",
    "8.3", "8.4", "9.2", "9.3", "9.4", "9.5", "9.6", "9.7", "9.8", "10", "11", "12", "14",
];

/// Where the crate that is changed lives; its tests read the corpus and share the harness's matchers.
const CRATE: &str = "core/proto";
const COPIED: &[&str] = &[CRATE, "tests/corpus", "tests/harness/src"];

/// A change may make a machine spin; its tests take a few seconds.
const TEST_LIMIT: Duration = Duration::from_secs(120);

/// One breach and who must notice it.
#[derive(Debug)]
pub struct Mutation {
    /// The section of the contract.
    pub section: String,
    /// The rule that is broken, `R-…`.
    pub rule: String,
    /// What the changed code does.
    pub what: String,
    /// Below `core/proto`.
    pub file: String,
    /// Text that occurs once there.
    pub find: String,
    /// What stands in its place.
    pub replace: String,
    /// The test program.
    pub test: String,
    /// Cases of `tests/corpus/machine`, or test functions; one of them must fail.
    pub fails: Vec<String>,
}

/// Reads the list.
///
/// # Errors
/// When the file cannot be read, or an entry lacks a member.
pub fn load(root: &Path) -> Result<Vec<Mutation>> {
    let table: toml::Table = toml::from_str(&read(root, LIST)?).map_err(|error| format!("{LIST}: {error}"))?;
    let entries = table.get("mutation").and_then(toml::Value::as_array).ok_or(format!("{LIST} has no [[mutation]]"))?;
    entries.iter().enumerate().map(|(place, entry)| mutation(place + 1, entry)).collect()
}

fn mutation(place: usize, entry: &toml::Value) -> Result<Mutation> {
    let text = |name: &str| entry.get(name).and_then(toml::Value::as_str).map(str::to_owned);
    let need = |name: &str| text(name).ok_or_else(|| format!("{LIST}: mutation {place} has no {name:?}"));
    let fails = entry.get("fails").and_then(toml::Value::as_array).into_iter().flatten();
    Ok(Mutation {
        section: need("section")?,
        rule: need("rule")?,
        what: need("what")?,
        file: need("file")?,
        find: need("find")?,
        replace: need("replace")?,
        test: text("test").unwrap_or_else(|| "machine".to_owned()),
        fails: fails.filter_map(toml::Value::as_str).map(str::to_owned).collect(),
    })
}

impl Mutation {
    fn title(&self) -> String {
        format!("{} ({}): {}", self.section, self.rule, self.what)
    }

    fn path(&self) -> String {
        format!("{CRATE}/{}", self.file)
    }

    /// The text with the change made.
    ///
    /// # Errors
    /// When the place to change is not there, or not the only one.
    pub fn apply(&self, text: &str) -> Result<String> {
        match text.matches(&self.find).count() {
            1 => Ok(text.replacen(&self.find, &self.replace, 1)),
            found => Err(format!("{}: `find` occurs {found} times in {}", self.title(), self.path())),
        }
    }

    /// The arguments that choose the tests which may notice.
    fn filter(&self) -> Vec<&str> {
        if self.test != "machine" {
            return self.fails.iter().map(String::as_str).collect();
        }
        let mut filter: Vec<&str> = self.own_tests().collect();
        if filter.len() < self.fails.len() {
            filter.push("runtime_cases");
        }
        if self.fails.iter().any(|case| case.starts_with("machine-client-")) {
            filter.push("client_cases");
        }
        filter
    }

    /// Those of `fails` that are tests of `machine` itself.
    fn own_tests(&self) -> impl Iterator<Item = &str> {
        self.fails.iter().map(String::as_str).filter(|name| name.contains("::"))
    }

    /// Whether one of the named cases is among those that failed.
    fn is_noticed(&self, output: &str) -> bool {
        self.fails.iter().any(|name| {
            let (case, test) = (format!("{name}: "), format!("test {name} ... FAILED"));
            let is_case = self.test == "machine" && !name.contains("::");
            output.lines().any(|line| if is_case { line.starts_with(&case) } else { line == test })
        })
    }
}

/// What is wrong with the list itself, without building anything: places that moved, names nobody knows, sections
/// without an entry.
///
/// # Errors
/// When a file cannot be read.
pub fn faults(root: &Path, mutations: &[Mutation]) -> Result<Vec<String>> {
    let known = cases(root)?;
    let mut findings = Vec::new();
    for mutation in mutations {
        findings.extend(mutation.apply(&read(root, &mutation.path())?).err());
        if mutation.fails.is_empty() {
            findings.push(format!("{}: `fails` names nothing", mutation.title()));
        }
        for name in &mutation.fails {
            let exists = match name.split_once("::") {
                Some((module, test)) => is_function(root, &format!("{}/{module}", mutation.test), test)?,
                None if mutation.test == "machine" => known.contains(name),
                None => is_function(root, &mutation.test, name)?,
            };
            if !exists {
                findings.push(format!("{}: there is no {name} in {}", mutation.title(), mutation.test));
            }
        }
        if !SECTIONS.contains(&mutation.section.as_str()) {
            findings.push(format!("{}: there is no such section", mutation.title()));
        }
    }
    let bare = SECTIONS.iter().filter(|section| !mutations.iter().any(|mutation| mutation.section == **section));
    findings.extend(bare.map(|section| format!("{LIST} has no mutation of section {section}")));
    Ok(findings)
}

/// Whether a file of tests has this function.
fn is_function(root: &Path, file: &str, name: &str) -> Result<bool> {
    Ok(read(root, &format!("{CRATE}/tests/{file}.rs"))?.contains(&format!("fn {name}(")))
}

/// The ids of all machine cases.
fn cases(root: &Path) -> Result<BTreeSet<String>> {
    let mut ids = BTreeSet::new();
    for file in files(&root.join("tests/corpus/machine"), &[".json"])? {
        let text = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        let value: serde_json::Value =
            serde_json::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))?;
        let cases = value["cases"].as_array().into_iter().flatten();
        ids.extend(cases.filter_map(|case| case["id"].as_str()).map(str::to_owned));
    }
    Ok(ids)
}

/// Makes every change in turn and says which of them nobody noticed. `tell` hears how it goes.
///
/// # Errors
/// When the copy cannot be made, or its tests fail or do not build before anything is changed.
pub fn run(root: &Path, mutations: &[Mutation], mut tell: impl FnMut(&str)) -> Result<Vec<String>> {
    let copy = Copy { root: root.join("target/mutations/tree"), build: root.join("target/mutations/build") };
    copy.make(root)?;
    let programs: BTreeSet<&str> = mutations.iter().map(|mutation| mutation.test.as_str()).collect();
    for test in programs {
        // A test that fails anyway proves nothing.
        let of_it = mutations.iter().filter(|mutation| mutation.test == test);
        let filter: BTreeSet<&str> = of_it.flat_map(Mutation::filter).collect();
        match copy.test(test, &Vec::from_iter(filter))? {
            Verdict::Passed => {}
            Verdict::Failed(output) | Verdict::NotBuilt(output) => {
                return Err(format!("{test} fails before anything is changed:\n{output}"));
            }
            Verdict::Hung => return Err(format!("{test} hangs before anything is changed")),
        }
    }
    let mut findings = Vec::new();
    for mutation in mutations {
        let began = Instant::now();
        // From the copy: the tree itself may change meanwhile.
        let original = read(&copy.root, &mutation.path())?;
        let place = copy.root.join(mutation.path());
        let changed = match mutation.apply(&original) {
            Ok(changed) => changed,
            Err(moved) => {
                findings.push(moved);
                continue;
            }
        };
        write(&place, &changed)?;
        let verdict = copy.test(&mutation.test, &mutation.filter());
        write(&place, &original)?;
        let fault = match verdict? {
            Verdict::Failed(output) if mutation.is_noticed(&output) => None,
            Verdict::Failed(output) => Some(format!("others than {:?} failed:\n{output}", mutation.fails)),
            Verdict::Passed => Some("nobody noticed".to_owned()),
            Verdict::Hung => Some("the tests hang".to_owned()),
            Verdict::NotBuilt(output) => Some(format!("it does not build:\n{output}")),
        };
        let seconds = began.elapsed().as_secs_f32();
        tell(&format!(
            "{} {:.1} s  {}",
            if fault.is_none() { "noticed " } else { "SURVIVED" },
            seconds,
            mutation.title()
        ));
        findings.extend(fault.map(|fault| format!("{}: {fault}", mutation.title())));
    }
    Ok(findings)
}

enum Verdict {
    Passed,
    Failed(String),
    NotBuilt(String),
    Hung,
}

/// The copy that is changed, and where it is built.
struct Copy {
    root: PathBuf,
    build: PathBuf,
}

impl Copy {
    /// Brings the copy up to date; files that are the same keep their times, so that little is built again.
    fn make(&self, root: &Path) -> Result<()> {
        for room in COPIED {
            let mut wanted = BTreeSet::new();
            for file in files(&root.join(room), &[".rs", ".toml", ".json"])? {
                let below = file.strip_prefix(root).map_err(|error| error.to_string())?.to_path_buf();
                write(&self.root.join(&below), &read(root, &below.display().to_string())?)?;
                wanted.insert(self.root.join(below));
            }
            for stale in files(&self.root.join(room), &[".rs", ".toml", ".json"])? {
                if !wanted.contains(&stale) {
                    fs::remove_file(&stale).map_err(|error| format!("{}: {error}", stale.display()))?;
                }
            }
        }
        write(&self.root.join("Cargo.toml"), &alone(&read(root, "Cargo.toml")?)?)?;
        let lock = self.root.join("Cargo.lock");
        // Cargo drops from it what one crate does not need.
        if lock.exists() { Ok(()) } else { write(&lock, &read(root, "Cargo.lock")?) }
    }

    fn test(&self, test: &str, filter: &[&str]) -> Result<Verdict> {
        let built = self.cargo(&["test", "--quiet", "-p", "arcp-proto", "--test", test, "--no-run"], TEST_LIMIT * 5)?;
        match built {
            Some((true, _)) => {}
            Some((false, output)) => return Ok(Verdict::NotBuilt(output)),
            None => return Ok(Verdict::Hung),
        }
        let arguments = [&["test", "-p", "arcp-proto", "--test", test, "--"], filter].concat();
        Ok(match self.cargo(&arguments, TEST_LIMIT)? {
            Some((true, _)) => Verdict::Passed,
            Some((false, output)) => Verdict::Failed(output),
            None => Verdict::Hung,
        })
    }

    /// Whether it succeeded, and all it said; `None` when it took longer than `limit`.
    fn cargo(&self, arguments: &[&str], limit: Duration) -> Result<Option<(bool, String)>> {
        let said = self.build.join("said");
        fs::create_dir_all(&self.build).map_err(|error| format!("{}: {error}", self.build.display()))?;
        let file = File::create(&said).map_err(|error| format!("{}: {error}", said.display()))?;
        let errors = file.try_clone().map_err(|error| error.to_string())?;
        let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut child = Command::new(program)
            .args(arguments)
            .current_dir(&self.root)
            .env("CARGO_TARGET_DIR", &self.build)
            .env("CARGO_INCREMENTAL", "1")
            .env("RUST_BACKTRACE", "0")
            .env("PROPTEST_CASES", "32")
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            .spawn()
            .map_err(|error| format!("cargo: {error}"))?;
        let began = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().map_err(|error| format!("cargo: {error}"))? {
                break status;
            }
            if began.elapsed() > limit {
                // It may have ended meanwhile.
                let _ = child.kill();
                child.wait().map_err(|error| format!("cargo: {error}"))?;
                return Ok(None);
            }
            sleep(Duration::from_millis(20));
        };
        let output = fs::read(&said).map_err(|error| format!("{}: {error}", said.display()))?;
        Ok(Some((status.success(), String::from_utf8_lossy(&output).into_owned())))
    }
}

/// The workspace's manifest with one member.
fn alone(manifest: &str) -> Result<String> {
    let mut text = manifest.to_owned();
    for (list, one) in [("\nmembers = [", "\nmembers = [\"core/proto\"]"), ("\ndefault-members = [", "")] {
        let start = text.find(list).ok_or_else(|| format!("Cargo.toml has no {:?}", list.trim()))?;
        let length = text[start..].find(']').ok_or("Cargo.toml has a list without an end")?;
        text.replace_range(start..=start + length, one);
    }
    Ok(text)
}

/// Writes a file unless it holds this text already.
fn write(path: &Path, text: &str) -> Result<()> {
    if fs::read_to_string(path).is_ok_and(|held| held == text) {
        return Ok(());
    }
    let fault = |error: std::io::Error| format!("{}: {error}", path.display());
    fs::create_dir_all(path.parent().unwrap_or(path)).map_err(fault)?;
    fs::write(path, text).map_err(fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Mutation {
        let text = |text: &str| text.to_owned();
        Mutation {
            section: text("5"),
            rule: text("R-5.8"),
            what: text("x"),
            file: text("src/a.rs"),
            find: text("if a {"),
            replace: text("if b {"),
            test: text("machine"),
            fails: vec![text("machine-a")],
        }
    }

    #[test]
    fn a_place_that_is_gone_or_not_alone_is_a_fault() {
        assert_eq!(entry().apply("if a {}").unwrap(), "if b {}");
        assert!(entry().apply("if c {}").is_err() && entry().apply("if a {} if a {}").is_err());
    }

    #[test]
    fn only_the_named_cases_count() {
        let output = "1 of 2 cases failed:\nmachine-a: expected\ntest runtime_cases ... FAILED";
        assert!(entry().is_noticed(output) && !entry().is_noticed("machine-ab: expected"));
        let wire = Mutation { test: "wire_lease".into(), fails: vec!["corpus".into()], ..entry() };
        assert!(wire.is_noticed("test corpus ... FAILED") && !wire.is_noticed("test corpus ... ok"));
    }

    #[test]
    fn the_copy_has_one_member() {
        let manifest = "[workspace]\nmembers = [\n \"a\",\n]\ndefault-members = [\"a\"]\n[profile]\n";
        assert_eq!(alone(manifest).unwrap(), "[workspace]\nmembers = [\"core/proto\"]\n[profile]\n");
    }
}
