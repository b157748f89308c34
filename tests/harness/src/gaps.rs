//! `tests/known-gaps.json`: the only place where anything may be excused, strict both ways.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;

use crate::{Result, read_json};

/// Everything excused, each with its reason.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gaps {
    /// Cases that fail for a language.
    pub cases: Vec<CaseGap>,
    /// What a language's shim cannot be asked yet.
    pub capabilities: Vec<CapabilityGap>,
    /// What no player of the corpus can do yet; cases that need it count for nothing.
    pub needs: Vec<NeedGap>,
    /// Rules without a case.
    pub rules: Vec<RuleGap>,
    /// Rules of the registry without a test; `tests/registry/test_rules.py` counts them.
    #[serde(default)]
    pub registry: Vec<RuleGap>,
}

/// A case that fails for a language.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseGap {
    /// The case's id.
    pub case: String,
    /// The language; for a pair, `client-runtime`.
    pub language: String,
    /// Why.
    pub reason: String,
}

/// A capability a language lacks.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CapabilityGap {
    /// The capability's name.
    pub capability: String,
    /// The language.
    pub language: String,
    /// Why.
    pub reason: String,
}

/// Something named in the `needs` of cases under `wire` and `machine` that is not built yet.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NeedGap {
    /// The name.
    pub need: String,
    /// Why.
    pub reason: String,
}

/// Rules without a case.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleGap {
    /// The rules' ids.
    pub rules: Vec<String>,
    /// Why.
    pub reason: String,
}

impl Gaps {
    /// Reads the file.
    ///
    /// # Errors
    /// It does not parse, a reason is empty, or an entry is there twice.
    pub fn load(path: &Path) -> Result<Self> {
        let gaps: Self = read_json(path)?;
        gaps.check()?;
        Ok(gaps)
    }

    fn check(&self) -> Result<()> {
        let cases = self.cases.iter().map(|gap| (format!("case {} for {}", gap.case, gap.language), &gap.reason));
        let capabilities = self.capabilities.iter();
        let capabilities =
            capabilities.map(|gap| (format!("capability {} of {}", gap.capability, gap.language), &gap.reason));
        let needs = self.needs.iter().map(|gap| (format!("need {}", gap.need), &gap.reason));
        let rules = self.rules.iter().chain(&self.registry);
        let rules = rules.flat_map(|gap| gap.rules.iter().map(move |rule| (format!("rule {rule}"), &gap.reason)));
        let mut seen = BTreeSet::new();
        for (entry, reason) in cases.chain(capabilities).chain(needs).chain(rules) {
            if reason.trim().is_empty() {
                return Err(format!("known-gaps.json: {entry} has no reason"));
            }
            if !seen.insert(entry.clone()) {
                return Err(format!("known-gaps.json: {entry} is there twice"));
            }
        }
        Ok(())
    }

    /// Turns the outcome of a case into the outcome of its test.
    ///
    /// # Errors
    /// The case failed and is not listed, or passed and is.
    pub fn judge(&self, case: &str, language: &str, outcome: Result<()>) -> Result<()> {
        match (outcome, self.case(case, language)) {
            (Err(_), Some(_)) => Ok(()),
            (Ok(()), Some(gap)) => Err(format!(
                "{case} passes for {language} but known-gaps.json lists it ({}): remove the entry",
                gap.reason
            )),
            (outcome, None) => outcome,
        }
    }

    /// The entry for a case, if there is one.
    #[must_use]
    pub fn case(&self, case: &str, language: &str) -> Option<&CaseGap> {
        self.cases.iter().find(|gap| gap.case == case && gap.language == language)
    }

    /// Which of `lacking`, each `language: capability`, is not excused.
    #[must_use]
    pub fn unexcused<'a>(&self, lacking: &'a [String]) -> Vec<&'a str> {
        let excused: BTreeSet<String> =
            self.capabilities.iter().map(|gap| format!("{}: {}", gap.language, gap.capability)).collect();
        lacking.iter().filter(|entry| !excused.contains(*entry)).map(String::as_str).collect()
    }

    /// Checks that every case entry of the `selected` languages names a test there is.
    ///
    /// # Errors
    /// Names the entries that match nothing.
    pub fn check_cases(&self, tests: &BTreeSet<(String, String)>, selected: &BTreeSet<String>) -> Result<()> {
        let stray: Vec<String> = self
            .cases
            .iter()
            .filter(|gap| gap.language.split('-').all(|language| selected.contains(language)))
            .filter(|gap| !tests.contains(&(gap.case.clone(), gap.language.clone())))
            .map(|gap| format!("{} for {}", gap.case, gap.language))
            .collect();
        if stray.is_empty() { Ok(()) } else { Err(format!("known-gaps.json lists no such case: {}", stray.join(", "))) }
    }

    /// Checks the capability entries of one language against what its shim said and what the cases need.
    ///
    /// # Errors
    /// Names the entries that are no longer true.
    pub fn check_capabilities(
        &self,
        language: &str,
        capabilities: &BTreeSet<String>,
        needed: &BTreeSet<String>,
    ) -> Result<()> {
        for gap in self.capabilities.iter().filter(|gap| gap.language == language) {
            let name = &gap.capability;
            if capabilities.contains(name) {
                return Err(format!(
                    "known-gaps.json says {language} lacks {name}, its shim offers it: remove the entry"
                ));
            }
            if !needed.contains(name) {
                return Err(format!("known-gaps.json says {language} lacks {name}, which no case needs"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gaps() -> Gaps {
        serde_json::from_value(serde_json::json!({
            "cases": [{"case": "c1", "language": "node", "reason": "later"}],
            "capabilities": [{"capability": "subscribe", "language": "c", "reason": "later"}],
            "needs": [{"need": "resume", "reason": "later"}],
            "rules": [{"rules": ["R-1", "R-2"], "reason": "later"}],
        }))
        .unwrap()
    }

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn a_case_is_judged_both_ways() {
        let gaps = gaps();
        assert!(gaps.judge("c1", "node", Err("x".into())).is_ok());
        assert!(gaps.judge("c1", "node", Ok(())).unwrap_err().contains("remove the entry"));
        assert!(gaps.judge("c1", "rust", Err("x".into())).is_err());
        assert!(gaps.judge("c1", "rust", Ok(())).is_ok());
    }

    #[test]
    fn an_entry_for_no_case_fails() {
        let gaps = gaps();
        let tests = [("c1".to_owned(), "rust".to_owned())].into();
        assert!(gaps.check_cases(&tests, &set(&["rust"])).is_ok());
        assert!(gaps.check_cases(&tests, &set(&["rust", "node"])).unwrap_err().contains("c1 for node"));
    }

    #[test]
    fn capabilities_are_excused_and_go_stale() {
        let gaps = gaps();
        let lacking = ["c: subscribe".to_owned(), "c: client".to_owned()];
        assert_eq!(gaps.unexcused(&lacking), ["c: client"]);
        assert!(gaps.check_capabilities("c", &set(&["client"]), &set(&["subscribe"])).is_ok());
        assert!(gaps.check_capabilities("c", &set(&["subscribe"]), &set(&["subscribe"])).is_err());
        assert!(gaps.check_capabilities("c", &set(&[]), &set(&["client"])).is_err());
    }

    #[test]
    fn reasons_are_needed_and_entries_are_unique() {
        let mut twice = gaps();
        twice.rules[0].rules.push("R-1".into());
        assert!(twice.check().unwrap_err().contains("twice"));
        let mut mute = gaps();
        mute.cases[0].reason = " ".into();
        assert!(mute.check().unwrap_err().contains("no reason"));
        assert!(gaps().check().is_ok());
    }
}
