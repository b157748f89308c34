//! The provisioner for gateways with virtual keys, against a stand-in over a real socket.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

#[path = "support/gateway.rs"]
mod gateway;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arcp_engine::provision::{LiteLlmOptions, LiteLlmProvisioner, Provisioner};
use arcp_proto::ErrorCode;
use arcp_proto::json::RawJson;
use arcp_proto::lease::Lease;
use arcp_proto::machine::provision::{IssueRequest, Revocation};
use arcp_proto::message::SecretText;
use arcp_proto::time::Timestamp;
use gateway::{ADMIN, Gateway, Mood};
use serde_json::{Value, json};

fn options(gateway: &Gateway) -> LiteLlmOptions {
    LiteLlmOptions::new(&gateway.url, SecretText::new(ADMIN))
}

fn provisioner(gateway: &Gateway) -> LiteLlmProvisioner {
    LiteLlmProvisioner::new(options(gateway)).unwrap()
}

fn request(intent: &str, lease: &str) -> IssueRequest {
    let lease = Lease::parse(lease).unwrap();
    IssueRequest {
        intent: intent.into(),
        job_id: "job_1".into(),
        principal: "me@example.com".into(),
        agent: "writer@1".into(),
        budget: lease.budget(),
        models: lease.patterns("model.use").map(|patterns| patterns.into_iter().map(str::to_owned).collect()),
        lease: Arc::new(lease),
        expires_at: None,
        parent_job_id: None,
        asked_at: Timestamp(1_000_000),
    }
}

/// Rules: R-9.7.4, R-9.8.3.1
#[tokio::test]
async fn budget_models_and_expiry_become_limits_of_the_key() {
    let gateway = Gateway::open().await;
    let mut request = request(
        "cred_1",
        r#"{"cost.budget":["USD:2.50","USD:0.25","credits:100"],"model.use":["openai/**","gpt-4o"]}"#,
    );
    request.expires_at = Some(Timestamp(1_000_000 + 90_500));
    let issued = provisioner(&gateway).issue(request).await.unwrap().remove(0);
    let asked = gateway.state.lock().keys["arcp-cred_1"].1.clone();
    assert_eq!(
        asked,
        json!({
            "key_alias": "arcp-cred_1",
            "models": ["gpt-4o", "openai/*"],
            "max_budget": 2.75,
            "duration": "90s",
            "metadata": {"arcp_job_id": "job_1", "arcp_principal": "me@example.com", "arcp_agent": "writer@1"},
        })
    );
    let shown: Value = serde_json::to_value(&issued.credential).unwrap();
    assert_eq!(
        shown,
        json!({
            "id": "cred_1", "scheme": "bearer", "value": "sk-made-1", "endpoint": gateway.url, "profile": "openai",
            "constraints": {
                "cost.budget": ["USD:2.75"],
                "model.use": ["openai/**", "gpt-4o"],
                "expires_at": "1970-01-01T00:18:10.500Z",
            },
        })
    );
    issued.credential.check().unwrap();
    assert!(!format!("{issued:?}").contains("sk-made-1") && !issued.handle.get().contains("sk-made-1"));
}

#[tokio::test]
async fn other_currencies_and_absent_limits_are_left_out() {
    let gateway = Gateway::open().await;
    let issued =
        provisioner(&gateway).issue(request("cred_1", r#"{"cost.budget":["EUR:5"]}"#)).await.unwrap().remove(0);
    let asked = gateway.state.lock().keys["arcp-cred_1"].1.clone();
    assert_eq!(asked.as_object().unwrap().keys().collect::<Vec<_>>(), ["key_alias", "metadata"]);
    assert_eq!(issued.credential.constraints, None);
}

#[tokio::test]
async fn a_lease_that_allows_no_model_gets_no_key() {
    let gateway = Gateway::open().await;
    assert!(provisioner(&gateway).issue(request("cred_1", r#"{"model.use":[]}"#)).await.unwrap().is_empty());
    assert_eq!(gateway.state.lock().asked, [""; 0]);
}

#[tokio::test]
async fn a_pattern_the_gateway_cannot_express_is_listed_or_refused() {
    let gateway = Gateway::open().await;
    for lease in [r#"{"model.use":["openai/*"]}"#, r#"{"model.use":["gpt-4o","all-proxy-models"]}"#] {
        let error = provisioner(&gateway).issue(request("cred_1", lease)).await.unwrap_err();
        assert!(error.message.contains("model.use"), "{}", error.message);
    }
    assert_eq!(gateway.state.lock().asked, [""; 0]);
    let known = ["openai/gpt-4o", "openai/eu/gpt-4o", "all-proxy-models", "openai/o3"].map(str::to_owned).to_vec();
    let listing = LiteLlmProvisioner::new(LiteLlmOptions { known_models: known, ..options(&gateway) }).unwrap();
    listing.issue(request("cred_1", r#"{"model.use":["openai/*"]}"#)).await.unwrap();
    let asked = gateway.state.lock().keys["arcp-cred_1"].1.clone();
    assert_eq!(asked["models"], json!(["openai/gpt-4o", "openai/o3"]));
    listing.issue(request("cred_2", r#"{"model.use":["*"]}"#)).await.unwrap_err();
}

#[tokio::test]
async fn a_key_is_deleted_by_its_handle_or_its_intent_and_twice_is_well() {
    let gateway = Gateway::open().await;
    let provisioner = provisioner(&gateway);
    let first = provisioner.issue(request("cred_1", "{}")).await.unwrap().remove(0);
    provisioner.issue(request("cred_2", "{}")).await.unwrap();
    provisioner.revoke(Revocation::Handle(first.handle.clone())).await.unwrap();
    assert_eq!(gateway.state.lock().keys.keys().collect::<Vec<_>>(), ["arcp-cred_2"]);
    provisioner.revoke(Revocation::Handle(first.handle)).await.unwrap();
    provisioner.revoke(Revocation::Intent("cred_2".into())).await.unwrap();
    let third = provisioner.issue(request("cred_3", "{}")).await.unwrap().remove(0);
    let by_hash = provisioner.handle_for(&third.credential.value).unwrap();
    assert!(!by_hash.get().contains(third.credential.value.expose()));
    provisioner.revoke(Revocation::Handle(by_hash)).await.unwrap();
    assert_eq!(gateway.keys(), 0);
    gateway.mood(Mood::Answers(404, "{}".into(), 1));
    provisioner.revoke(Revocation::Intent("cred_2".into())).await.unwrap();
}

#[tokio::test]
async fn a_key_whose_answer_was_lost_is_found_again_by_its_intent() {
    let gateway = Gateway::open().await;
    let provisioner = provisioner(&gateway);
    gateway.mood(Mood::LosesAnswers);
    let error = provisioner.issue(request("cred_1", "{}")).await.unwrap_err();
    assert_eq!((error.code, gateway.keys()), (ErrorCode::InternalError, 1));
    gateway.mood(Mood::Well);
    provisioner.revoke(Revocation::Intent("cred_1".into())).await.unwrap();
    assert_eq!(gateway.keys(), 0);
}

/// Rules: R-9.8.2.12
#[tokio::test]
async fn failures_name_the_gateway_and_no_secret_and_are_not_tried_again() {
    let gateway = Gateway::open().await;
    let secretive = json!({"error": {"message": format!("bad key {ADMIN}"), "key": "sk-x"}}).to_string();
    for (status, body) in [
        (500, secretive.clone()),
        (401, secretive.clone()),
        (302, "{}".into()),
        (200, "not json sk-x".into()),
        (200, json!({"key": ["sk-x"]}).to_string()),
        (200, "x".repeat(300 << 10)),
    ] {
        gateway.state.lock().asked.clear();
        gateway.mood(Mood::Answers(status, body, 1));
        let error = provisioner(&gateway).issue(request("cred_1", "{}")).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::InternalError);
        assert!(error.message.contains(&gateway.url) && !error.message.contains("sk-"), "{}", error.message);
        assert_eq!(gateway.state.lock().asked, ["/key/generate"]);
    }
    gateway.mood(Mood::Answers(500, secretive, 1));
    let error = provisioner(&gateway).revoke(Revocation::Intent("cred_1".into())).await.unwrap_err();
    assert!(error.message.contains("HTTP 500") && !error.message.contains("sk-"), "{}", error.message);
}

#[tokio::test]
async fn a_slow_gateway_has_failed() {
    let gateway = Gateway::open().await;
    gateway.mood(Mood::Hangs);
    let timeout = Duration::from_millis(100);
    let provisioner = LiteLlmProvisioner::new(LiteLlmOptions { timeout, ..options(&gateway) }).unwrap();
    let begun = Instant::now();
    let error = provisioner.issue(request("cred_1", "{}")).await.unwrap_err();
    assert!(error.message.contains("in time"), "{}", error.message);
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn a_gateway_that_is_not_there_is_named() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}");
    let provisioner = LiteLlmProvisioner::new(LiteLlmOptions::new(&url, SecretText::new(ADMIN))).unwrap();
    let error = provisioner.issue(request("cred_1", "{}")).await.unwrap_err();
    assert!(error.message.contains(&url) && error.message.contains("cannot be reached"), "{}", error.message);
}

#[tokio::test]
async fn a_foreign_handle_deletes_nothing() {
    let gateway = Gateway::open().await;
    for handle in ["null", "{}", r#"{"key_alias":"prod"}"#, r#"{"key_alias":"arcp-"}"#, r#"{"key_hash":"sk-x"}"#] {
        let what = Revocation::Handle(RawJson::parse(handle).unwrap());
        provisioner(&gateway).revoke(what).await.unwrap_err();
    }
    assert_eq!(gateway.state.lock().asked, [""; 0]);
}
