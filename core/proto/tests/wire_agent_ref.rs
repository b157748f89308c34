//! Agent references against the corpus and random text.
#![allow(clippy::unwrap_used, clippy::panic)]

use arcp_proto::agent_ref::AgentRef;
use proptest::prelude::*;
use serde_json::Value;

const CORPUS: &str = include_str!("../../../tests/corpus/wire/agent-ref.json");

#[test]
fn corpus() {
    let corpus: Value = serde_json::from_str(CORPUS).unwrap();
    let cases = corpus["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 45);
    for case in cases {
        let id = &case["id"];
        let text = case["given"]["agent"].as_str().unwrap();
        match AgentRef::parse(text) {
            Ok(agent) => {
                assert_eq!(case["expect"]["valid"], true, "{id}");
                assert_eq!(case["expect"]["name"], agent.name, "{id}");
                assert_eq!(case["expect"]["version"].as_str(), agent.version.as_deref(), "{id}");
                assert_eq!(agent.to_string(), text, "{id}");
            }
            Err(error) => {
                assert_eq!(case["expect"]["valid"], false, "{id}");
                assert_eq!(case["expect"]["code"], error.code.as_str(), "{id}");
            }
        }
    }
}

#[test]
fn the_message_names_the_value_and_the_grammar() {
    let message = AgentRef::parse("Echo\n").unwrap_err().message;
    assert!(message.contains(r#""Echo\n""#) && message.contains("[a-z0-9][a-z0-9._-]*"), "{message}");
    assert!(AgentRef::parse(&"X".repeat(100_000)).unwrap_err().message.len() < 400);
}

proptest! {
    #[test]
    fn what_is_read_is_written_back(text in "\\PC{0,12}|[a-zA-Z0-9@._+-]{0,12}") {
        if let Ok(agent) = AgentRef::parse(&text) {
            prop_assert_eq!(agent.to_string(), text);
        }
    }
}
