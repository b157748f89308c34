//! Which rule is shown by which case, and `docs/conformance.md`, which says so.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::case::files;
use crate::evidence::{SUITES, suite};
use crate::gaps::Gaps;
use crate::{Result, read_json};

/// Case ids listed per rule and file; beyond that their number says enough.
const LISTED: usize = 6;

/// `tests/corpus/rules.json`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// What the file is, for people.
    pub about: String,
    /// The rules by section.
    pub sections: Vec<Section>,
}

/// A section of the protocol.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Section {
    /// Its title.
    pub title: String,
    /// Its rules.
    pub rules: Vec<Rule>,
}

/// A rule.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// `R-` and the section's number.
    pub id: String,
    /// `MUST`, `SHOULD` or `MAY`; a star marks a level this project set.
    pub level: String,
}

/// Rule to file to the ids of the cases that name it.
pub type Coverage = BTreeMap<String, BTreeMap<String, Vec<String>>>;

/// Collects the rules named by every case under the corpus' folders, leaving out cases that need what is not built.
///
/// # Errors
/// A file does not parse, or an excused need is no case's.
pub fn coverage(corpus: &Path, gaps: &Gaps) -> Result<Coverage> {
    let mut coverage = Coverage::new();
    let mut unmet: BTreeMap<&str, bool> = gaps.needs.iter().map(|gap| (gap.need.as_str(), false)).collect();
    for folder in ["wire", "machine", "scenario"] {
        for path in files(&corpus.join(folder))? {
            let file = format!("{folder}/{}", path.file_name().unwrap_or_default().to_string_lossy());
            collect(&read_json(&path)?, &file, &mut unmet, &mut coverage);
        }
    }
    match unmet.iter().find(|(_, met)| !**met) {
        Some((need, _)) => Err(format!("known-gaps.json excuses {need:?}, which no case needs: remove the entry")),
        None => Ok(coverage),
    }
}

fn collect(value: &Value, file: &str, unmet: &mut BTreeMap<&str, bool>, coverage: &mut Coverage) {
    match value {
        Value::Object(members) => {
            let mut left_out = false;
            for need in list(members.get("needs")) {
                if let Some(met) = unmet.get_mut(need) {
                    (*met, left_out) = (true, true);
                }
            }
            if left_out {
                return;
            }
            for rule in list(members.get("rules")) {
                let cases = coverage.entry(rule.to_owned()).or_default().entry(file.to_owned()).or_default();
                cases.extend(members.get("id").and_then(Value::as_str).map(str::to_owned));
            }
            members.values().for_each(|member| collect(member, file, unmet, coverage));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, file, unmet, coverage)),
        _ => {}
    }
}

fn list(value: Option<&Value>) -> impl Iterator<Item = &str> {
    value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// Checks that every rule is named by a case or test or excused, never both, that no MUST is excused, and that nothing
/// else is named.
///
/// # Errors
/// Lists every rule that is not as it should be.
pub fn check(rules: &Rules, coverage: &Coverage, gaps: &Gaps) -> Result<()> {
    let known: BTreeSet<&str> = rules.sections.iter().flat_map(|s| &s.rules).map(|rule| rule.id.as_str()).collect();
    let excused: BTreeSet<&str> = gaps.rules.iter().flat_map(|gap| &gap.rules).map(String::as_str).collect();
    let covered: BTreeSet<&str> = coverage.keys().map(String::as_str).collect();
    let binding = rules.sections.iter().flat_map(|s| &s.rules).filter(|rule| rule.level.starts_with("MUST"));
    let binding: BTreeSet<&str> = binding.map(|rule| rule.id.as_str()).collect();
    let faults: Vec<String> = [
        ("known-gaps.json excuses the MUST", &excused & &binding),
        ("neither a case nor a test nor known-gaps.json names", &(&known - &covered) - &excused),
        ("known-gaps.json excuses, though a case or test names", &excused & &covered),
        ("a case or test names the unknown", &covered - &known),
        ("known-gaps.json names the unknown", &excused - &known),
    ]
    .into_iter()
    .filter(|(_, rules)| !rules.is_empty())
    .map(|(what, rules)| format!("{what} {}", rules.into_iter().collect::<Vec<_>>().join(", ")))
    .collect();
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
}

/// The text of `docs/conformance.md`.
#[must_use]
pub fn document(rules: &Rules, coverage: &Coverage, gaps: &Gaps) -> String {
    let all: Vec<&Rule> = rules.sections.iter().flat_map(|section| &section.rules).collect();
    let shown = all.iter().filter(|rule| coverage.contains_key(&rule.id)).count();
    let mut text = format!(
        "# Conformance\n\n\
         Each rule of the runtime protocol, and the cases and tests that show it kept: {shown} of {} rules. What is \
         deferred stands\nat the end, with its reason (`tests/known-gaps.json`). A star marks a level this project set \
         where the draft is silent.\n\n\
         Files under `wire/`, `machine/` and `scenario/` are those of `tests/corpus`: both machines play `wire` and \
         `machine` in\nvirtual time (`make test-rust`), every language plays `scenario` and the functions of `wire` \
         (`make test-corpus`). All\nothers are tests that name their rules themselves:\n\n\
         | files below | run by |\n| --- | --- |\n",
        all.len()
    );
    let is_met = |word: &str| coverage.values().flat_map(BTreeMap::keys).any(|file| suite(file) == Some(word));
    for (folder, word) in SUITES.into_iter().filter(|(_, word)| is_met(word)) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| `{folder}` | `{word}` |");
    }
    text.push_str(
        "\n`make test` runs all of them. Generated by `ARCP_UPDATE=1 cargo test -p arcp-harness`; a test fails when \
         it is stale.\n",
    );
    for section in &rules.sections {
        let _ = write!(text, "\n## {}\n\n| rule | level | shown by |\n| --- | --- | --- |\n", section.title);
        for rule in &section.rules {
            let _ = writeln!(text, "| {} | {} | {} |", rule.id, rule.level, shown_by(rule, coverage));
        }
    }
    deferred(&mut text, &all, gaps);
    text
}

fn deferred(text: &mut String, all: &[&Rule], gaps: &Gaps) {
    text.push_str("\n## Deferred\n");
    if !gaps.rules.is_empty() {
        text.push_str("\n| rule | level | why |\n| --- | --- | --- |\n");
    }
    for rule in all {
        if let Some(gap) = gaps.rules.iter().find(|gap| gap.rules.contains(&rule.id)) {
            let _ = writeln!(text, "| {} | {} | {} |", rule.id, rule.level, gap.reason);
        }
    }
    let cases = gaps.cases.iter().map(|gap| (&*gap.language, format!("case `{}`", gap.case), &gap.reason));
    let capabilities = gaps.capabilities.iter();
    let capabilities = capabilities.map(|gap| (&*gap.language, format!("`{}`", gap.capability), &gap.reason));
    let needs = gaps.needs.iter().map(|gap| ("all", format!("cases that need `{}`", gap.need), &gap.reason));
    let lines: Vec<_> = cases.chain(capabilities).chain(needs).collect();
    if lines.is_empty() {
        text.push_str("\nNo language is excused from any case.\n");
        return;
    }
    text.push_str("\n| language | what | why |\n| --- | --- | --- |\n");
    for (language, what, reason) in lines {
        let _ = writeln!(text, "| {language} | {what} | {reason} |");
    }
}

fn shown_by(rule: &Rule, coverage: &Coverage) -> String {
    let Some(files) = coverage.get(&rule.id) else { return "deferred, see the end".to_owned() };
    let files = files.iter().map(|(file, cases)| match cases.len() {
        0 => file.clone(),
        1..=LISTED => format!("{file}: {}", cases.join(", ")),
        many => format!("{file}: {many} cases"),
    });
    files.collect::<Vec<_>>().join("; ")
}

/// Compares the document with the file, or writes it when `ARCP_UPDATE` is `1`.
///
/// # Errors
/// The file is stale, or cannot be written.
pub fn keep_current(path: &Path, document: &str) -> Result<()> {
    if std::env::var("ARCP_UPDATE").is_ok_and(|value| value == "1") {
        return std::fs::write(path, document).map_err(|e| format!("{}: {e}", path.display()));
    }
    if std::fs::read_to_string(path).is_ok_and(|text| text == document) {
        return Ok(());
    }
    Err(format!("{} is stale: run ARCP_UPDATE=1 cargo test -p arcp-harness", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rules() -> Rules {
        serde_json::from_value(json!({"about": "", "sections": [{"title": "One (1)", "rules": [
            {"id": "R-1.1", "level": "MUST"}, {"id": "R-1.2", "level": "MAY*"},
        ]}]}))
        .unwrap()
    }

    fn covering(case: Value) -> Coverage {
        let mut coverage = Coverage::new();
        let mut unmet = BTreeMap::from([("resume", false)]);
        collect(&json!({ "cases": [case] }), "wire/x.json", &mut unmet, &mut coverage);
        coverage
    }

    fn excusing(rules: &[&str]) -> Gaps {
        serde_json::from_value(
            json!({"cases": [], "capabilities": [], "needs": [], "rules": [{"rules": rules, "reason": "later"}]}),
        )
        .unwrap()
    }

    #[test]
    fn every_rule_is_shown_or_excused_never_both() {
        let coverage = covering(json!({"id": "x-1", "rules": ["R-1.1"]}));
        assert_eq!(check(&rules(), &coverage, &excusing(&["R-1.2"])), Ok(()));
        assert!(check(&rules(), &coverage, &excusing(&[])).unwrap_err().contains("names R-1.2"));
        assert!(check(&rules(), &coverage, &excusing(&["R-1.1", "R-1.2"])).unwrap_err().contains("names R-1.1"));
        assert!(check(&rules(), &coverage, &excusing(&["R-1.2", "R-9"])).unwrap_err().contains("unknown R-9"));
        let must = covering(json!({"id": "x-1", "rules": ["R-1.2"]}));
        assert!(check(&rules(), &must, &excusing(&["R-1.1"])).unwrap_err().contains("the MUST R-1.1"));
        let typo = covering(json!({"id": "x-1", "rules": ["R-1.1", "R-1.l"]}));
        assert!(check(&rules(), &typo, &excusing(&["R-1.2"])).unwrap_err().contains("unknown R-1.l"));
    }

    #[test]
    fn a_case_that_needs_what_is_not_built_shows_nothing() {
        assert!(covering(json!({"id": "x-1", "rules": ["R-1.1"], "needs": ["resume"]})).is_empty());
        assert_eq!(covering(json!({"id": "x-1", "rules": ["R-1.1"], "needs": ["machine"]})).len(), 1);
    }

    #[test]
    fn the_document_names_cases_and_reasons() {
        let coverage = covering(json!({"id": "x-1", "rules": ["R-1.1"]}));
        let text = document(&rules(), &coverage, &excusing(&["R-1.2"]));
        assert!(text.contains("| R-1.1 | MUST | wire/x.json: x-1 |"), "{text}");
        assert!(text.contains("| R-1.2 | MAY* | deferred, see the end |"), "{text}");
        assert!(text.ends_with("| R-1.2 | MAY* | later |\n\nNo language is excused from any case.\n"), "{text}");
        assert!(text.contains("1 of 2 rules"), "{text}");
    }
}
