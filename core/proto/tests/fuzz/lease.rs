//! Leases against a matcher that tries everything.

use std::time::{Duration, Instant};

use arcp_proto::lease::{Child, Kind, Lease, MAX_PATTERN_CHARS, Parent, authorize, is_subset, normalize_target};
use arcp_proto::time::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::runner::run;

/// A namespace whose targets are matched as they stand.
const PLAIN: &str = "x-vendor.acme.db";
/// Far more than a debug build needs for the longest target.
const PATIENCE: Duration = Duration::from_secs(20);

fn one(namespace: &str, patterns: &[String]) -> Result<Lease, String> {
    Lease::new([(namespace.to_owned(), patterns.to_vec())]).map_err(|error| error.message)
}

/// Whether the pattern matches, by trying every way it could.
fn reference(pattern: &str, target: &str) -> bool {
    let mut pattern = pattern.to_owned();
    // Zero or more segments, twice, are zero or more segments.
    loop {
        let mut segments: Vec<&str> = pattern.split('/').collect();
        segments.dedup_by(|next, held| *next == "**" && *held == "**");
        let shorter = segments.join("/");
        if shorter == pattern {
            break;
        }
        pattern = shorter;
    }
    rest(&pattern.chars().collect::<Vec<_>>(), &target.chars().collect::<Vec<_>>(), true)
}

/// `begins`: the pattern stands at the beginning of a segment.
fn rest(pattern: &[char], target: &[char], begins: bool) -> bool {
    let mut tails = (0..=target.len()).map(|at| &target[at..]);
    match pattern {
        [] => target.is_empty(),
        ['*', '*'] if begins => true,
        ['*', '*', '/', after @ ..] if begins => {
            rest(after, target, true)
                || (0..target.len()).any(|at| target[at] == '/' && rest(after, &target[at + 1..], true))
        }
        ['/', '*', '*'] => target.is_empty() || target[0] == '/',
        ['*', '*', after @ ..] => {
            let after = &after[after.iter().take_while(|c| **c == '*').count()..];
            tails.any(|tail| rest(after, tail, false))
        }
        ['*', after @ ..] => {
            let run = target.iter().take_while(|c| **c != '/').count();
            (0..=run).any(|at| rest(after, &target[at..], false))
        }
        [own, after @ ..] => target.first() == Some(own) && rest(after, &target[1..], *own == '/'),
    }
}

/// Every text of these characters up to a length, the empty one left out.
fn texts(alphabet: &[char], longest: usize) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut last = vec![String::new()];
    for _ in 0..longest {
        last = last.iter().flat_map(|text| alphabet.iter().map(move |c| format!("{text}{c}"))).collect();
        all.extend(last.iter().cloned());
    }
    all
}

fn pattern() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[ab/*]{1,7}",
        2 => vec(prop_oneof![Just("**"), Just("*"), Just("a"), Just("b*"), Just("")], 1..5).prop_map(|parts| parts.join("/")),
        1 => "[aé*/?\\[{.]{1,6}",
    ]
    .prop_map(|text| if text.is_empty() { "a".into() } else { text })
}

#[test]
fn globs_match_what_the_reference_matches() {
    let target = prop_oneof![4 => "[ab/]{1,9}", 1 => "[aébx*/?\\[{]{1,8}"];
    run("lease_glob", (pattern(), vec(target, 1..12)), |(pattern, targets)| {
        let lease = one(PLAIN, std::slice::from_ref(&pattern))?;
        for target in targets {
            let expected = reference(&pattern, &target);
            if lease.covers(PLAIN, &target) != expected {
                return Err(format!("{pattern} on {target}: expected {expected}"));
            }
        }
        Ok(())
    });
}

#[test]
fn a_target_has_one_form_and_no_way_up() {
    let part = prop_oneof![
        3 => prop_oneof![Just("..".to_owned()), Just(".".to_owned()), Just(String::new()), Just("%2e%2E".to_owned())],
        3 => "[a-cA-C%é ]{1,3}",
        1 => any::<String>(),
    ];
    let url = ("[a-zA-Z+.-]{0,6}", "[a-zA-Z0-9@:\\[\\].%-]{0,12}", vec(part.clone(), 0..6), "([?#][a-z/.]{0,5}){0,2}")
        .prop_map(|(scheme, host, path, query)| format!("{scheme}://{host}/{}{query}", path.join("/")));
    let path = (any::<bool>(), vec(part, 0..7)).prop_map(|(root, parts)| {
        let path = parts.join("/");
        if root { format!("/{path}") } else { path }
    });
    run("lease_targets", (prop_oneof![url, path, any::<String>()], pattern()), |(target, pattern)| {
        for (namespace, kind) in [("fs.read", Kind::Path), ("net.fetch", Kind::Url), ("tool.call", Kind::Name)] {
            let Ok(normal) = normalize_target(kind, &target) else {
                let lease = one(namespace, &["**".to_owned()])?;
                match authorize(&lease, None, None, Timestamp(0), namespace, &target) {
                    Ok(()) => return Err(format!("{namespace} {target:?} has no form and is granted")),
                    Err(_) => continue,
                }
            };
            if normalize_target(kind, &normal).as_deref() != Ok(&*normal) {
                return Err(format!("{namespace} {target:?} becomes {normal:?}, which becomes something else"));
            }
            let address = normal.split(|c| kind == Kind::Url && matches!(c, '?' | '#')).next().unwrap_or_default();
            // Of a URL what follows `scheme://host/`.
            let path = if kind == Kind::Url { address.splitn(4, '/').nth(3).unwrap_or_default() } else { address };
            if kind != Kind::Name && path.split('/').any(|segment| segment == "..") {
                return Err(format!("{namespace} {target:?} becomes {normal:?}"));
            }
            // A pattern may be refused; one that is not grants the same under every spelling.
            let Ok(lease) = one(namespace, std::slice::from_ref(&pattern)) else { continue };
            let granted = |target: &str| authorize(&lease, None, None, Timestamp(0), namespace, target).is_ok();
            if granted(&target) != granted(&normal) {
                return Err(format!("{namespace} {pattern}: {target:?} and {normal:?} are not granted alike"));
            }
        }
        Ok(())
    });
}

#[test]
fn nothing_beyond_the_parent_is_called_a_subset() {
    // A third letter stands for all that no pattern names.
    let all = texts(&['a', 'b', 'c', '/'], 5);
    let patterns = |most| vec(prop_oneof![3 => "[ab/*]{1,5}", 1 => pattern()], 1..=most);
    run("lease_subset", (patterns(2_usize), patterns(3)), |(child, parent)| {
        let (child_lease, parent_lease) = (one(PLAIN, &child)?, one(PLAIN, &parent)?);
        let within = |lease: &Lease, holder: &Lease| {
            let holder = Parent { lease: holder, expires_at: None, remaining: None };
            is_subset(Child { lease, expires_at: None }, holder).is_ok()
        };
        let both = one(PLAIN, &[child.clone(), parent.clone()].concat())?;
        if !within(&child_lease, &child_lease) || !within(&child_lease, &both) {
            return Err(format!("{child:?} is not within itself"));
        }
        if !within(&child_lease, &parent_lease) {
            return Ok(());
        }
        let matches = |patterns: &[String], text: &str| patterns.iter().any(|pattern| reference(pattern, text));
        match all.iter().find(|text| matches(&child, text) && !matches(&parent, text)) {
            Some(text) => Err(format!("{child:?} is called a subset of {parent:?}, but {text} is not")),
            None => Ok(()),
        }
    });
}

#[test]
fn hostile_patterns_cost_bounded_time() {
    let unit = || prop_oneof!["[ab*/]{1,6}", Just("*a".to_owned()), Just("**/".to_owned()), Just("a/".to_owned())];
    let long = |unit: String, end: String| {
        let mut text = unit.repeat(MAX_PATTERN_CHARS / unit.len() + 1);
        text.truncate(MAX_PATTERN_CHARS - end.len());
        text + &end
    };
    let pattern = || (unit(), "[abc]{0,2}").prop_map(move |(unit, end)| long(unit, end));
    let strategy = ("[ab/]{1,4}", vec(pattern(), 1..4), vec(pattern(), 1..4));
    run("lease_work", strategy, |(target, child, parent)| {
        let began = Instant::now();
        let target = target.repeat(10_000 / target.len());
        let (child_lease, parent_lease) = (one(PLAIN, &child)?, one(PLAIN, &parent)?);
        let _ = authorize(&parent_lease, None, None, Timestamp(0), PLAIN, &target);
        let matched = began.elapsed();
        let holder = Parent { lease: &parent_lease, expires_at: None, remaining: None };
        let _ = is_subset(Child { lease: &child_lease, expires_at: None }, holder);
        let compared = began.elapsed() - matched;
        if matched < PATIENCE && compared < PATIENCE {
            return Ok(());
        }
        Err(format!("matching took {matched:?}, comparing {compared:?}"))
    });
}
