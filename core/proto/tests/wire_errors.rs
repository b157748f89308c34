//! The error codes against the corpus.
#![allow(clippy::unwrap_used)]

use arcp_proto::ErrorCode;
use serde_json::Value;

const CORPUS: &str = include_str!("../../../tests/corpus/wire/errors.json");

#[test]
fn corpus() {
    let corpus: Value = serde_json::from_str(CORPUS).unwrap();
    let cases = corpus["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 33);
    let mut known = Vec::new();
    for case in cases {
        let (id, expect) = (&case["id"], &case["expect"]);
        let code = ErrorCode::parse(case["given"]["code"].as_str().unwrap());
        assert_eq!(code.as_str(), expect["read_as"], "{id}");
        assert_eq!(!matches!(code, ErrorCode::Other(_)), expect["known"], "{id}");
        assert_eq!(code.default_retryable(), expect["retryable"], "{id}");
        assert_eq!(code.pinned_retryable().is_some(), expect["pinned"], "{id}");
        if code.pinned_retryable().is_some() {
            assert_eq!(code.pinned_retryable(), expect["retryable"].as_bool(), "{id}");
        }
        if expect.get("carried_by").is_some() {
            known.push(code);
        }
    }
    assert_eq!(known, ErrorCode::ALL);
}
