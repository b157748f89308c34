//! Leases against the corpus, a naive matcher and brute force.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;

use arcp_proto::decimal::Decimal;
use arcp_proto::error::{Error, ErrorCode};
use arcp_proto::lease::{
    Child, Kind, Lease, MAX_PATTERN_CHARS, Parent, authorize, effective_child, is_subset, normalize_target,
    parse_expires_at,
};
use arcp_proto::time::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

const GLOBS: &str = include_str!("../../../tests/corpus/wire/lease-glob.json");
const SUBSETS: &str = include_str!("../../../tests/corpus/wire/lease-subset.json");

const NOW: Timestamp = Timestamp(1_000);
/// A namespace whose targets are matched as they stand.
const PLAIN: &str = "x-vendor.acme.db";

fn lease(value: &Value) -> Lease {
    Lease::parse(&value.to_string()).unwrap()
}

fn one(namespace: &str, patterns: &[String]) -> Lease {
    Lease::new([(namespace.to_owned(), patterns.to_vec())]).unwrap()
}

fn allowed(lease: &Lease, namespace: &str, target: &str) -> Result<(), Error> {
    authorize(lease, None, None, NOW, namespace, target)
}

fn within(child: &Lease, parent: &Lease) -> Result<(), Error> {
    let parent = Parent { lease: parent, expires_at: None, remaining: None };
    is_subset(Child { lease: child, expires_at: None }, parent)
}

#[test]
fn glob_corpus() {
    let corpus: Value = serde_json::from_str(GLOBS).unwrap();
    let cases = corpus["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 121);
    for case in cases {
        let text = |name: &str| case["given"][name].as_str().unwrap();
        let lease = one(text("namespace"), &[text("pattern").to_owned()]);
        let verdict = allowed(&lease, text("namespace"), text("target"));
        assert_eq!(case["expect"]["allowed"], verdict.is_ok(), "{}", case["id"]);
        if let Err(error) = verdict {
            assert_eq!(error.code, ErrorCode::PermissionDenied, "{}", case["id"]);
        }
    }
}

#[test]
fn subset_corpus() {
    let corpus: Value = serde_json::from_str(SUBSETS).unwrap();
    let cases = corpus["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 59);
    for case in cases {
        let verdict = subset_case(&case["given"]);
        assert_eq!(case["expect"]["subset"], verdict.is_ok(), "{}", case["id"]);
        if let Err(error) = verdict {
            assert_eq!(case["expect"]["code"], error.code.as_str(), "{}", case["id"]);
        }
    }
}

fn subset_case(given: &Value) -> Result<(), Error> {
    let end = |name: &str| given[name].as_str().map(parse_expires_at).transpose();
    let remaining: Option<BTreeMap<String, Decimal>> = given["parent_remaining"].as_object().map(|left| {
        let number = |value: &Value| Decimal::parse_json(value.as_str().unwrap()).unwrap();
        left.iter().map(|(currency, value)| (currency.clone(), number(value))).collect()
    });
    let child = Lease::parse(&given["child"].to_string())?;
    let parent = lease(&given["parent"]);
    is_subset(
        Child { lease: &child, expires_at: end("child_expires_at")? },
        Parent { lease: &parent, expires_at: end("parent_expires_at")?, remaining: remaining.as_ref() },
    )
}

#[test]
fn shapes_that_are_refused() {
    for text in [
        "[]",
        "null",
        "{",
        r#"{"fs.read": "/a"}"#,
        r#"{"fs.read": [1]}"#,
        r#"{"fs.read": null}"#,
        r#"{"fs.read": [""]}"#,
        r#"{"fs.read": ["/a/../b"]}"#,
        r#"{"fs.write": [".."]}"#,
        r#"{"net.fetch": [""]}"#,
        r#"{"tool.call": [""]}"#,
        r#"{"db.read": ["*"]}"#,
        r#"{"x-vendor.": ["*"]}"#,
        r#"{"": []}"#,
        r#"{"cost.budget": ["USD:-1"]}"#,
        r#"{"cost.budget": ["USD:1e3"]}"#,
        r#"{"cost.budget": ["5.00"]}"#,
    ] {
        assert_eq!(Lease::parse(text).unwrap_err().code, ErrorCode::InvalidRequest, "{text}");
    }
}

/// Rules: R-9.2.13
#[test]
fn limits_hold_to_the_last_one() {
    let namespaces = |count: usize| (0..count).map(|n| (format!("x-vendor.a.n{n}"), vec![])).collect::<Vec<_>>();
    assert!(Lease::new(namespaces(64)).is_ok());
    assert!(Lease::new(namespaces(65)).is_err());
    let object = |count: usize| {
        let members: Vec<String> = namespaces(count).iter().map(|(name, _)| format!("\"{name}\":[]")).collect();
        Lease::parse(&format!("{{{}}}", members.join(",")))
    };
    assert!(object(64).is_ok());
    assert!(object(65).is_err() && object(1000).is_err());
    let patterns = |count: usize| Lease::new([("tool.call".to_owned(), vec!["a".to_owned(); count])]);
    assert!(patterns(256).is_ok());
    assert!(patterns(257).is_err());
    let long = |count: usize| Lease::new([("tool.call".to_owned(), vec!["é".repeat(count)])]);
    assert!(long(MAX_PATTERN_CHARS).is_ok());
    assert!(long(MAX_PATTERN_CHARS + 1).is_err());
}

#[test]
fn a_lease_shows_what_the_client_wrote() {
    let text = r#"{"tool.call":["b"],"fs.read":["/x"],"net.fetch":["HTTPS://A.Test:443"],"fs.read":["/a//./b"]}"#;
    let lease = Lease::parse(text).unwrap();
    let shown = r#"{"tool.call":["b"],"fs.read":["/a//./b"],"net.fetch":["HTTPS://A.Test:443"]}"#;
    assert_eq!(lease.to_json(), shown);
    assert_eq!(lease.namespaces().collect::<Vec<_>>(), ["tool.call", "fs.read", "net.fetch"]);
    assert_eq!(lease.patterns("fs.read").unwrap(), ["/a//./b"]);
    assert!(lease.covers("fs.read", "/a/b") && !lease.covers("fs.read", "/x"));
    assert!(lease.covers("net.fetch", "https://a.test/"));
    assert!(Lease::default().is_empty() && Lease::default().to_json() == "{}");
    assert_eq!(Lease::parse(shown).unwrap(), lease);
}

#[test]
fn a_relative_tree_stays_below_its_start() {
    for pattern in ["./**", ".//./**"] {
        let lease = one("fs.read", &[pattern.to_owned()]);
        assert!(allowed(&lease, "fs.read", "src/a").is_ok());
        assert!(allowed(&lease, "fs.read", "/etc/passwd").is_err());
        assert!(within(&lease, &one("fs.read", &["**".to_owned()])).is_ok());
        assert!(within(&one("fs.read", &["**".to_owned()]), &lease).is_err());
        assert!(within(&one("fs.read", &["src/**".to_owned()]), &lease).is_ok());
    }
}

#[test]
fn urls_that_clients_read_differently_are_refused() {
    let lease = one("net.fetch", &["**".to_owned()]);
    for url in [
        "https:///evil.test/x",
        "https://user@a.test/x",
        "https://evil.test%2f.example.com/",
        "https://evil.test%00.example.com/",
        "https://a.test:x/",
        "https://a.test:1:2/",
        "https://[::1/",
        "https://a\tb.test/",
        "https:a.test/",
        "://a.test/",
        "1s://a.test/",
    ] {
        assert!(allowed(&lease, "net.fetch", url).is_err(), "{url}");
    }
    let normal = |url| normalize_target(Kind::Url, url).unwrap().into_owned();
    assert_eq!(normal("HTTPS://A.Test:0443?q=/../x"), "https://a.test/?q=/../x");
    assert_eq!(normal("https://[::1]:443/a/%2E%2e/.."), "https://[::1]/");
    assert_eq!(normal("http://a.test:/b/.#c"), "http://a.test/b/");
    assert_eq!(normal("file:///etc/./x"), "file:///etc/x");
    assert_eq!(normal("http://a.test:0080"), "http://a.test/");
    assert_eq!(normal("http://a.test:0443"), "http://a.test:443/");
}

#[test]
fn overlong_targets_are_refused() {
    let lease = one("tool.call", &["**".to_owned()]);
    assert!(allowed(&lease, "tool.call", &"a".repeat(65_536)).is_ok());
    assert!(allowed(&lease, "tool.call", &"a".repeat(65_537)).is_err());
}

#[test]
fn expiry_comes_before_coverage_and_coverage_before_budget() {
    let granted = lease(&json!({"tool.call": ["a"], "cost.budget": ["USD:0"], "x-vendor.acme.db": ["a"]}));
    let budget = granted.budget();
    let check = |end, namespace, target| authorize(&granted, end, &budget, NOW, namespace, target);
    assert_eq!(check(Some(NOW), "tool.call", "b").unwrap_err().code, ErrorCode::LeaseExpired);
    assert_eq!(check(Some(Timestamp(999)), "tool.call", "a").unwrap_err().code, ErrorCode::LeaseExpired);
    assert_eq!(check(Some(Timestamp(1_001)), "tool.call", "b").unwrap_err().code, ErrorCode::PermissionDenied);
    let error = check(Some(Timestamp(1_001)), "tool.call", "a").unwrap_err();
    assert_eq!(error.code, ErrorCode::BudgetExhausted);
    assert!(!error.retryable);
    assert_eq!(error.details.unwrap().get(), r#"{"currency":"USD","remaining":"0"}"#);
    assert!(check(None, PLAIN, "a").is_ok(), "vendor operations cost nothing");
}

#[test]
fn every_protocol_operation_is_budgeted() {
    let all = ["fs.read", "fs.write", "net.fetch", "tool.call", "agent.delegate", "model.use"];
    let granted = Lease::new(all.map(|namespace| (namespace.to_owned(), vec!["**".to_owned()]))).unwrap();
    let spent = lease(&json!({"cost.budget": ["USD:1", "credits:0"]})).budget();
    for namespace in all {
        assert!(allowed(&granted, namespace, "https://a.test/").is_ok(), "{namespace}");
        let error = authorize(&granted, None, &spent, NOW, namespace, "https://a.test/").unwrap_err();
        assert_eq!(error.code, ErrorCode::BudgetExhausted, "{namespace}");
    }
}

#[test]
fn refusals_name_the_target_but_no_secret() {
    let lease = lease(&json!({"tool.call": ["*"], "net.fetch": ["https://a.test/*"]}));
    let message = |namespace, target| allowed(&lease, namespace, target).unwrap_err().message;
    assert!(message("tool.call", "mcp/search").contains("`**`"));
    assert!(message("fs.read", "/a/../b").contains("fs.read \"/b\""));
    assert!(!message("net.fetch", "https://b.test/x?key=hidden").contains("hidden"));
    assert!(!message("net.fetch", "https://u:hidden@a.test/x").contains("hidden"));
    assert!(message("cost.budget", "USD").contains("no operation"));
    assert!(message("db.read", "x").contains("db.read"));
}

#[test]
fn a_child_inherits_models_and_the_earlier_end() {
    let parent = lease(&json!({"tool.call": ["**"], "model.use": ["tier-fast/*"], "cost.budget": ["USD:1"]}));
    let child = lease(&json!({"tool.call": ["a"]}));
    let effective = |child, asked, held| {
        effective_child(
            Child { lease: child, expires_at: asked },
            Parent { lease: &parent, expires_at: held, remaining: None },
        )
    };
    let (granted, end) = effective(&child, None, Some(NOW)).unwrap();
    assert_eq!(granted, lease(&json!({"tool.call": ["a"], "model.use": ["tier-fast/*"]})));
    assert_eq!(end, Some(NOW));
    assert_eq!(effective(&child, Some(NOW), None).unwrap().1, Some(NOW));
    assert_eq!(effective(&child, Some(Timestamp(1)), Some(NOW)).unwrap().1, Some(Timestamp(1)));
    assert!(effective(&child, Some(Timestamp(1_001)), Some(NOW)).is_err());
    let narrow = lease(&json!({"model.use": []}));
    assert_eq!(effective(&narrow, None, None).unwrap().0, narrow, "an empty list is not an absent one");
    let wide = lease(&json!({"model.use": ["**"]}));
    let error = effective(&wide, None, None).unwrap_err();
    assert_eq!(error.code, ErrorCode::LeaseSubsetViolation);
    assert!(error.message.contains("model.use \"**\""), "{}", error.message);
}

/// Rules: R-9.4.3
#[test]
fn a_costly_comparison_is_refused_not_made() {
    let mut parents = ["x", "x/*", "x/*/**"].map(str::to_owned).to_vec();
    let child = one(PLAIN, &[format!("x/**/{}", "a".repeat(900))]);
    assert!(within(&child, &one(PLAIN, &parents)).is_ok());
    parents.extend((0..200).map(|n| format!("x/{}{n}", "*a".repeat(500))));
    let parent = one(PLAIN, &parents);
    let error = within(&child, &parent).unwrap_err();
    assert_eq!(error.code, ErrorCode::LeaseSubsetViolation);
    assert!(error.message.contains("too long"), "{}", error.message);
    assert!(within(&parent, &parent).is_ok(), "equality is never too costly");
}

#[test]
fn large_plain_leases_compare() {
    let list = |tail: &str| (0..256).map(|n| format!("/workspace/project/dir{n}/{tail}")).collect::<Vec<_>>();
    let parent = one("fs.read", &list("**"));
    for tail in ["src/main.rs", "src/**", "*.csv", "a/**/z"] {
        assert!(within(&one("fs.read", &list(tail)), &parent).is_ok(), "{tail}");
    }
    assert!(within(&parent, &one("fs.read", &list("*"))).is_err());
}

/// Patterns over a tiny alphabet, so that random ones meet random targets.
fn pattern() -> impl Strategy<Value = String> {
    let segment = prop_oneof![
        Just("a"),
        Just("b"),
        Just("*"),
        Just("**"),
        Just("a*"),
        Just("*b"),
        Just("**a"),
        Just("a*b"),
        Just("")
    ];
    proptest::collection::vec(segment, 1..5)
        .prop_map(|segments| segments.join("/"))
        .prop_filter("empty", |p| !p.is_empty())
}

fn patterns() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec(pattern(), 1..4)
}

/// The rules read literally: `**` stands for 0, 1, 2, … segments of `*`; then character by character.
fn naive(pattern: &str, target: &str) -> bool {
    let segments: Vec<&str> = pattern.split('/').collect();
    match segments.iter().position(|segment| *segment == "**") {
        Some(place) => (0..=target.split('/').count()).any(|count| {
            let mut longer = segments.clone();
            longer.splice(place..=place, vec!["*"; count]);
            !longer.is_empty() && naive(&longer.join("/"), target)
        }),
        None => naive_run(pattern.as_bytes(), target.as_bytes()),
    }
}

fn naive_run(pattern: &[u8], target: &[u8]) -> bool {
    let Some(first) = pattern.first() else { return target.is_empty() };
    if *first != b'*' {
        return target.first() == Some(first) && naive_run(&pattern[1..], &target[1..]);
    }
    let stars = pattern.iter().take_while(|b| **b == b'*').count();
    let reach = target.iter().take_while(|b| stars > 1 || **b != b'/').count();
    (0..=reach).any(|skip| naive_run(&pattern[stars..], &target[skip..]))
}

/// Every text of up to `length` characters.
fn texts(alphabet: &[char], length: usize) -> Vec<String> {
    let mut all = vec![String::new()];
    let mut start = 0;
    for _ in 0..length {
        let end = all.len();
        for index in start..end {
            let longer = alphabet.iter().map(|c| format!("{}{c}", all[index])).collect::<Vec<_>>();
            all.extend(longer);
        }
        start = end;
    }
    all.split_off(1)
}

proptest! {
    #[test]
    fn matching_agrees_with_the_rules_read_literally(pattern in pattern(), target in "[ab/]{1,9}") {
        prop_assert_eq!(allowed(&one(PLAIN, std::slice::from_ref(&pattern)), PLAIN, &target).is_ok(), naive(&pattern, &target));
    }

    #[test]
    fn a_subset_lets_nothing_new_through(child in patterns(), parent in patterns()) {
        let (child, parent) = (one(PLAIN, &child), one(PLAIN, &parent));
        let escaped = texts(&['a', 'b', 'c', '/'], 5).into_iter().find(|text| child.covers(PLAIN, text) && !parent.covers(PLAIN, text));
        if within(&child, &parent).is_ok() {
            prop_assert_eq!(escaped, None);
        }
    }

    #[test]
    fn a_refused_subset_has_a_reason(
        // Two segments, so that the shortest text that escapes is within what is tried.
        child in "(a|\\*|\\*\\*|a\\*|\\*\\*a)(/(a|\\*|\\*\\*|a\\*)){0,1}",
        parent in proptest::collection::vec("(a|\\*|\\*\\*|a\\*|\\*\\*a)(/(a|\\*|\\*\\*|a\\*)){0,2}", 1..4),
    ) {
        let (child, parent) = (one(PLAIN, &[child]), one(PLAIN, &parent));
        let escaped = texts(&['a', 'c', '/'], 7).into_iter().any(|text| child.covers(PLAIN, &text) && !parent.covers(PLAIN, &text));
        prop_assert_eq!(within(&child, &parent).is_err(), escaped);
    }

    #[test]
    fn a_literal_is_a_subset_exactly_when_it_matches(literal in "[ab/]{1,9}", parent in patterns()) {
        let parent = one(PLAIN, &parent);
        let child = one(PLAIN, std::slice::from_ref(&literal));
        prop_assert_eq!(within(&child, &parent).is_ok(), parent.covers(PLAIN, &literal));
    }

    #[test]
    fn subset_is_sound_for_paths_and_urls(
        kind in prop_oneof![Just(("fs.read", "/")), Just(("fs.read", "")), Just(("fs.read", "./")), Just(("net.fetch", "http://A:80"))],
        child in patterns(), parent in patterns(), target in "[ab./]{1,9}",
    ) {
        let (namespace, start) = kind;
        let join = |list: Vec<String>| list.into_iter().map(|p| format!("{start}{p}")).collect::<Vec<_>>();
        let (child, parent) = (one(namespace, &join(child)), one(namespace, &join(parent)));
        let target = format!("{start}{target}");
        if within(&child, &parent).is_ok() && allowed(&child, namespace, &target).is_ok() {
            prop_assert!(allowed(&parent, namespace, &target).is_ok());
        }
    }

    #[test]
    fn normalising_twice_is_normalising_once(
        text in "\\PC{0,16}|[ab./%2eE~]{0,16}|(http|HTTPS|s3)://[aB.:0-9\\[\\]]{0,6}[/?#.%2eEa]{0,9}",
    ) {
        for kind in [Kind::Path, Kind::Url, Kind::Name] {
            if let Ok(once) = normalize_target(kind, &text) {
                prop_assert_eq!(normalize_target(kind, &once), Ok(once.clone()));
            }
        }
    }

    #[test]
    fn parsers_take_any_text(text in "\\PC{0,32}", pattern in "\\PC{1,16}|[*/.:a?#@-]{1,16}", target in "\\PC{0,16}|[*/.:a?#@-]{0,16}") {
        let _ = Lease::parse(&text);
        let _ = parse_expires_at(&text);
        for namespace in ["fs.read", "net.fetch", "tool.call", "cost.budget", &text] {
            if let Ok(lease) = Lease::new([(namespace.to_owned(), vec![pattern.clone()])]) {
                prop_assert_eq!(&Lease::parse(&lease.to_json()).unwrap(), &lease);
                prop_assert!(within(&lease, &lease).is_ok());
                let _ = allowed(&lease, namespace, &target);
            }
        }
    }
}
