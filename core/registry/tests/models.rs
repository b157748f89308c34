//! Every bound of the models: the last value that is taken, the first that is not.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails where it fails")]

use arcp_registry::model::{
    AgentRequirements, ConnectionRequest, Invalid, MetricsUpdate, Registration, SearchDefaults, SearchRequest,
};
use serde_json::{Value, json};

fn body() -> Value {
    json!({
        "agent_id": "my-agent", "name": "My Agent", "agent_type": "testing", "endpoint": "https://agent.example.com",
        "capabilities": ["echo"], "context_brief": "Converts files of many kinds", "version": "1.0.0",
        "owner": "Owner", "public_key": "x".repeat(32), "metadata": {"framework": "fastapi"},
        "communication_mode": "remote",
    })
}

fn with(member: &str, value: Value) -> Value {
    let mut body = body();
    body[member] = value;
    body
}

fn faults(outcome: Result<impl std::fmt::Debug, Vec<Invalid>>) -> Vec<(String, String)> {
    let faults = outcome.err().unwrap_or_default();
    faults.iter().map(|fault| (fault.place(), fault.kind.to_string())).collect()
}

fn refused(member: &str, value: Value) -> Vec<(String, String)> {
    faults(Registration::check(&with(member, value)))
}

fn one(place: &str, kind: &str) -> Vec<(String, String)> {
    vec![(place.to_owned(), kind.to_owned())]
}

fn long(count: usize) -> Value {
    Value::from("x".repeat(count))
}

/// Rules: REG-070
#[test]
fn texts_have_bounds() {
    for (member, min, max) in [
        ("name", 2, 32),
        ("agent_id", 3, 100),
        ("agent_type", 2, 50),
        ("context_brief", 10, 1000),
        ("owner", 2, 50),
        ("public_key", 32, 1024),
    ] {
        for count in [min, max] {
            assert_eq!(refused(member, long(count)), [], "{member} of {count}");
        }
        for count in [0, min - 1, max + 1] {
            assert_eq!(refused(member, long(count)), one(member, "value_error"), "{member} of {count}");
        }
        assert_eq!(refused(member, Value::from(format!(" {} \n", "x".repeat(max)))), [], "{member} is stripped");
        for other in [json!(1), json!(null), json!([]), json!({})] {
            assert_eq!(refused(member, other), one(member, "string_type"));
        }
        let mut without = body();
        without.as_object_mut().unwrap().remove(member);
        assert_eq!(faults(Registration::check(&without)), one(member, "missing"));
    }
    // Characters count, not bytes.
    assert_eq!(refused("name", Value::from("ü".repeat(32))), []);
}

/// Rules: REG-070
#[test]
fn texts_have_forms() {
    for (member, good, bad) in [
        ("agent_id", vec!["a-b_C9"], vec!["a b", "a.b", "ä-agent", "a/b"]),
        ("agent_type", vec!["SECURITY", "my-own"], vec!["my own", "a.b"]),
        (
            "endpoint",
            vec!["http://x", "https://h/\"><svg/onload=alert(1)>", "http://127.0.0.1:1/none", " http://x "],
            vec![
                "ftp://x",
                "http://",
                "http:///x",
                "http://.x",
                "http://?x",
                "http://#",
                "http://$",
                "http://a b",
                "x",
            ],
        ),
        (
            "version",
            vec!["0.0.0", "10.20.30", "1.0.0-beta1"],
            vec!["1.0", "1.0.0.0", "1.0.0-beta.1", "1.0.0-", "v1.0.0", "1..0", "1.0.0-a-b"],
        ),
        ("communication_mode", vec!["remote", " LOCAL ", "Hybrid"], vec!["carrier", "remotely"]),
    ] {
        for text in good {
            assert_eq!(refused(member, json!(text)), [], "{member} {text:?}");
        }
        for text in bad {
            assert_eq!(refused(member, json!(text)), one(member, "value_error"), "{member} {text:?}");
        }
    }
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----", "Ab+/9=".repeat(20));
    assert_eq!(refused("public_key", json!(pem)), []);
    assert_eq!(refused("public_key", json!("!".repeat(40))), one("public_key", "value_error"));
    assert_eq!(refused("endpoint", json!(format!("http://{}", "x".repeat(2041)))), []);
    assert_eq!(refused("endpoint", json!(format!("http://{}", "x".repeat(2042)))), one("endpoint", "value_error"));
    let taken = Registration::check(&with("communication_mode", json!(" LOCAL "))).unwrap();
    assert_eq!(taken.communication_mode, "local");
}

/// Rules: REG-070
#[test]
fn capabilities_are_one_to_fifty() {
    assert_eq!(refused("capabilities", json!(vec!["ab"; 50])), []);
    assert_eq!(refused("capabilities", json!(vec!["ab"; 51])), one("capabilities", "value_error"));
    for none in [json!([]), json!(["", "  "])] {
        assert_eq!(refused("capabilities", none), one("capabilities", "value_error"));
    }
    assert_eq!(refused("capabilities", json!("echo")), one("capabilities", "list_type"));
    assert_eq!(refused("capabilities", json!(null)), one("capabilities", "list_type"));
    assert_eq!(
        refused("capabilities", json!(["ok", "a", "bad!", long(101), 5])),
        [
            ("capabilities.4".to_owned(), "string_type".to_owned()),
            ("capabilities.1".to_owned(), "value_error".to_owned()),
            ("capabilities.2".to_owned(), "value_error".to_owned()),
            ("capabilities.3".to_owned(), "value_error".to_owned()),
        ]
    );
    let taken = Registration::check(&with("capabilities", json!([" text-analysis ", "", "a b_c"]))).unwrap();
    assert_eq!(taken.capabilities, ["text-analysis", "a b_c"]);
}

/// Rules: REG-070
#[test]
fn metadata_is_flat_but_for_lists() {
    let many = |count: usize| {
        Value::from((0..count).map(|n| (n.to_string(), Value::from(n))).collect::<serde_json::Map<_, _>>())
    };
    for good in [many(1), many(50), json!({"a": [null, {"b": 1}], "c": true, "d": 1.5, "e": "x".repeat(1000)})] {
        assert_eq!(refused("metadata", good), []);
    }
    for bad in [json!({}), many(51)] {
        assert_eq!(refused("metadata", bad), one("metadata", "value_error"));
    }
    for bad in [json!({"a": null}), json!({"a": {"b": 1}}), json!({"a": "x".repeat(1001)})] {
        assert_eq!(refused("metadata", bad), one("metadata.a", "value_error"));
    }
    assert_eq!(refused("metadata", json!({"k".repeat(101): 1})).len(), 1);
    assert_eq!(refused("metadata", json!([])), one("metadata", "dict_type"));
    let deep = (0..40).fold(json!([]), |inner, _| json!([inner]));
    assert_eq!(refused("metadata", json!({"a": deep})), one("metadata.a", "value_error"));
}

/// Rules: REG-070
#[test]
fn optional_members_have_bounds() {
    for (member, max) in [("max_tokens", 1_000_000), ("rate_limit", 10_000)] {
        for good in [json!(1), json!(max), json!(null), json!("5"), json!(5.0)] {
            assert_eq!(refused(member, good), []);
        }
        for (bad, kind) in [
            (json!(0), "value_error"),
            (json!(max + 1), "value_error"),
            (json!(1.5), "int_from_float"),
            (json!("many"), "int_parsing"),
            (json!([]), "int_type"),
        ] {
            assert_eq!(refused(member, bad), one(member, kind));
        }
    }
    for (member, most) in [("features", 100), ("policy_tags", 20), ("language_support", 20)] {
        assert_eq!(refused(member, json!(vec!["ab"; most])), []);
        assert_eq!(refused(member, json!(vec!["ab"; most + 1])), one(member, "value_error"));
        assert_eq!(refused(member, json!({})), one(member, "list_type"));
        assert_eq!(refused(member, json!([7])), one(&format!("{member}.0"), "string_type"));
    }
    let mut sent = body();
    sent["features"] = json!([" a ", "", "x".repeat(101), "x".repeat(100)]);
    sent["policy_tags"] = json!(["x".repeat(51), "t"]);
    sent["language_support"] = json!(["EN", "x", "toolong", "pt-BR"]);
    sent["ai_context"] = json!("x".repeat(5000));
    sent["unknown"] = json!({"is": "ignored"});
    let taken = Registration::check(&sent).unwrap();
    assert_eq!(taken.features, Some(vec!["a".to_owned(), "x".repeat(100)]));
    assert_eq!(taken.policy_tags, Some(vec!["t".to_owned()]));
    assert_eq!(taken.language_support, Some(vec!["en".to_owned(), "pt-br".to_owned()]));
    let taken = Registration::check(&with("language_support", json!(["x"]))).unwrap();
    assert_eq!(taken.language_support, None);
    assert_eq!(refused("ai_context", long(5001)), one("ai_context", "value_error"));
    assert_eq!(
        refused("requirements", json!({"network_ports": [8080]})),
        one("requirements.network_ports.0", "string_type")
    );
    assert_eq!(refused("requirements", json!("{bad")), one("requirements", "value_error"));
    assert_eq!(refused("requirements", json!("")), []);
}

/// Rules: REG-026
#[test]
fn what_is_not_set_is_not_sent() {
    let sent = serde_json::to_value(Registration::check(&body()).unwrap()).unwrap();
    assert_eq!(sent, body());
}

/// Rules: REG-071
#[test]
fn requirements_have_bounds() {
    let check = |value: Value| faults(AgentRequirements::check(&value));
    for (member, most) in
        [("system_requirements", 50), ("permissions", 30), ("dependencies", 100), ("network_ports", 20)]
    {
        assert_eq!(check(json!({member: vec!["80"; most]})), []);
        assert_eq!(check(json!({member: vec!["80"; most + 1]})), one(member, "value_error"));
    }
    for (member, max) in [("minimum_memory_mb", 1_048_576), ("minimum_disk_space_mb", 10_485_760)] {
        assert_eq!(check(json!({member: max})), []);
        assert_eq!(check(json!({member: max + 1})), one(member, "value_error"));
    }
    for good in ["3", "3.11", "22.04-lts", "5.10.0rc1"] {
        assert_eq!(check(json!({"minimum_system_version": good})), []);
    }
    for bad in ["x", "3..1", "3 1", ".5"] {
        assert_eq!(check(json!({"minimum_system_version": bad})), one("minimum_system_version", "value_error"));
    }
    assert_eq!(check(json!({"schema_version": "1"})), one("schema_version", "value_error"));
    assert_eq!(check(json!({"requires_internet": "maybe"})), one("requires_internet", "bool_parsing"));
    assert_eq!(
        check(json!({"required_fields": [{"name": "a b", "type": "color", "default_value": 1.5, "validation": "("}]})),
        ["name", "label", "type", "default_value", "validation"].map(|member| {
            let kind = if member == "label" { "missing" } else { "value_error" };
            (format!("required_fields.0.{member}"), kind.to_owned())
        })
    );
    let members = (0..101).map(|n| (n.to_string(), Value::from(n))).collect::<serde_json::Map<_, _>>();
    assert_eq!(check(json!({"user_configuration": members})), one("user_configuration", "value_error"));
    assert_eq!(check(Value::Object(members)), one("", "value_error"));
    let taken = AgentRequirements::check(&json!({"system_requirements": ["x".repeat(201), " ok "]})).unwrap();
    assert_eq!(taken.system_requirements, ["ok"]);
    assert!(taken.requires_internet);
}

/// Rules: REG-074, REG-176
#[test]
fn metrics_have_bounds() {
    let check = |value: Value| faults(MetricsUpdate::check(&value));
    for (member, max) in [
        ("success_rate", 1.0),
        ("avg_response_time", 3600.0),
        ("reputation_score", 10.0),
        ("average_response_time", 3600.0),
        ("error_rate", 1.0),
    ] {
        for good in [json!(0), json!(max), json!("0.5"), json!(null)] {
            assert_eq!(check(json!({member: good})), []);
        }
        for bad in [json!(-0.001), json!(max + 0.001)] {
            assert_eq!(check(json!({member: bad})), one(member, "value_error"));
        }
        assert_eq!(check(json!({member: "abc"})), one(member, "float_parsing"));
    }
    assert_eq!(check(json!({"total_requests": -1})), one("total_requests", "value_error"));
    assert_eq!(check(json!({"total_requests": "abc"})), one("total_requests", "int_parsing"));
    assert_eq!(check(json!([1])), one("", "dict_type"));
    for anything in [json!("2025-01-XX..."), json!(5), json!({})] {
        assert_eq!(check(json!({"last_active": anything})), []);
    }
    assert_eq!(check(json!({"mine": "x".repeat(1001)})), one("mine", "value_error"));
    assert_eq!(check(json!({"mine": ["x".repeat(5000)]})), one("mine", "value_error"));
    let many = (0..51).map(|n| (n.to_string(), Value::from(n))).collect::<serde_json::Map<_, _>>();
    assert_eq!(check(Value::Object(many)), one("", "value_error"));
}

/// Rules: REG-075, REG-505
#[test]
fn a_question_has_bounds() {
    let check = |value: Value| faults(SearchRequest::check(&value));
    let asked = |member: &str, value: Value| check(json!({"query": "find", member: value}));
    assert_eq!(check(json!({})), one("query", "missing"));
    assert_eq!(check(json!({"query": " x "})), one("query", "value_error"));
    assert_eq!(check(json!({"query": "x".repeat(1001)})), one("query", "value_error"));
    for bad in [0, 101] {
        assert_eq!(asked("top_k", json!(bad)), one("top_k", "value_error"));
    }
    assert_eq!(asked("min_similarity", json!(1.1)), one("min_similarity", "value_error"));
    assert_eq!(asked("capabilities", json!([])), one("capabilities", "value_error"));
    assert_eq!(asked("capabilities", json!(vec!["ab"; 21])), one("capabilities", "value_error"));
    assert_eq!(asked("capabilities", json!(null)), []);
    assert_eq!(asked("agent_type", json!("not-listed-anywhere")), []);
    assert_eq!(asked("weighted", json!("perhaps")), one("weighted", "bool_parsing"));
    let defaults = SearchDefaults { top_k: 3, min_similarity: 0.25 };
    let taken = SearchRequest::check_with(&json!({"query": " find it "}), defaults).unwrap();
    assert_eq!((taken.query.as_str(), taken.top_k, taken.min_similarity, taken.weighted), ("find it", 3, 0.25, false));
}

/// Rules: REG-077
#[test]
fn a_connection_request_has_bounds() {
    let asked = |member: &str, value: Value| {
        let mut body = json!({"user_id": "a.b@example.com", "user_endpoint": "http://u.example"});
        body[member] = value;
        ConnectionRequest::check(&body)
    };
    assert_eq!(faults(asked("user_id", json!("a/b"))), one("user_id", "value_error"));
    assert_eq!(faults(asked("user_endpoint", json!("u.example"))), one("user_endpoint", "value_error"));
    assert_eq!(faults(asked("display_name", json!("a\u{7}b"))), one("display_name", "value_error"));
    assert_eq!(faults(asked("display_name", long(201))), one("display_name", "value_error"));
    assert_eq!(faults(asked("additional_info", json!({"a": null}))), one("additional_info.a", "value_error"));
    assert_eq!(faults(asked("additional_info", json!(5))), one("additional_info", "dict_type"));
    let taken = asked("display_name", json!("  ")).unwrap();
    assert_eq!(
        serde_json::to_value(taken).unwrap(),
        json!({"user_id": "a.b@example.com", "user_endpoint": "http://u.example", "display_name": "Anonymous User",
               "additional_info": {}})
    );
    assert!(asked("additional_info", json!({"a": {"b": [1]}})).is_ok());
}

/// Rules: REG-101
#[test]
fn a_fault_names_the_field_and_the_remedy_and_repeats_nothing() {
    let secret = "s3cret!".repeat(200);
    let faults = Registration::check(&with("public_key", json!(secret))).unwrap_err();
    assert_eq!(faults.len(), 1);
    assert_eq!(faults[0].message, "public_key may have at most 1024 characters, and has 1400; shorten it");
    assert_eq!(faults[0].input.as_deref(), Some("text of 1400 characters"));
    let all = Registration::check(&json!({})).unwrap_err();
    assert_eq!(all.len(), 11);
    assert!(all.iter().all(|fault| fault.message.contains("is missing; send ")));
    let flood = json!({"features": vec![json!(1); 100]});
    assert_eq!(Registration::check(&flood).unwrap_err().len(), 50);
}
