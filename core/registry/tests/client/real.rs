//! The client against our own server.

use std::sync::Arc;
use std::time::Duration;

use arcp_registry::client::{
    Area, Credentials, FailureKind, RegistryClient, RegistryOptions, RegistrySocket, SocketKind, SocketOptions,
};
use arcp_registry::server::config::{Config, Database};
use arcp_registry::server::{Running, start};
use serde_json::{Value, json};

use super::{client, options, perform};

async fn server() -> Running {
    start(Config::dev()).await.unwrap()
}

fn administrator(url: &str) -> RegistryClient {
    let admin = Some(("ARCP".to_owned(), "ARCP".into()));
    let credentials = Credentials { admin, ..Credentials::default() };
    RegistryClient::new(RegistryOptions { credentials, ..options(url) })
}

fn agent(id: &str, key: &str) -> Value {
    json!({"agent_id": id, "name": "My Testing Agent", "agent_type": "testing", "endpoint": "http://127.0.0.1:9",
           "capabilities": ["data-processing", "text-analysis"], "agent_key": key,
           "context_brief": "A testing agent for data processing and file conversion"})
}

async fn next(socket: &RegistrySocket) -> Value {
    let next = tokio::time::timeout(Duration::from_secs(10), socket.next()).await.unwrap();
    serde_json::from_str(&next.unwrap().unwrap()).unwrap()
}

/// Rules: REG-031, REG-033, REG-034, REG-035, REG-036, REG-037, REG-038, REG-039, REG-040, REG-041, REG-042
#[tokio::test]
async fn an_agent_lives_its_life() {
    let server = server().await;
    let client = client(&server.url());
    let registered = perform(&client, "register_agent", agent("a-1", "test-agent-001")).await.unwrap();
    assert_eq!((&registered["status"], &registered["version"]), (&json!("alive"), &json!("1.0.0")));
    let one = json!({"agent_id": "a-1"});
    assert_eq!(perform(&client, "update_heartbeat", one.clone()).await.unwrap()["status"], "success");
    let metrics = json!({"agent_id": "a-1", "metrics_data": {"total_requests": 3, "custom": "value"}});
    assert_eq!(perform(&client, "update_metrics", metrics).await.unwrap()["status"], "success");
    let metrics = perform(&client, "get_metrics", one.clone()).await.unwrap();
    assert_eq!((&metrics["total_requests"], &metrics["custom"]), (&json!(3), &json!("value")));
    let search = json!({"query": "find agents that can process text files"});
    assert_eq!(perform(&client, "search_agents", search).await.unwrap()[0]["id"], "a-1");
    assert_eq!(perform(&client, "discover_agents", json!({})).await.unwrap()[0]["agent_id"], "a-1");
    assert_eq!(perform(&client, "list_agents", json!({})).await.unwrap()[0]["agent_id"], "a-1");
    assert_eq!(perform(&client, "get_public_agent", one.clone()).await.unwrap()["agent_id"], "a-1");
    let again = perform(&client, "register_agent", agent("a-1", "test-agent-001")).await.unwrap_err();
    assert_eq!((again.area, again.status, again.code.as_str()), (Area::Registration, Some(409), "duplicate-agent"));
    perform(&client, "unregister_agent", one.clone()).await.unwrap();
    let gone = perform(&client, "get_public_agent", one).await.unwrap_err();
    assert_eq!((gone.kind, gone.code.as_str()), (FailureKind::NotFound, "agent-not-found"));
    server.stop().await;
}

/// Rules: REG-033, REG-039, REG-193
#[tokio::test]
async fn agents_of_one_client_live_side_by_side_and_leave_with_their_keys() {
    let server = server().await;
    let client = client(&server.url());
    let (first, second) = tokio::join!(
        perform(&client, "register_agent", agent("agent-1", "test-agent-001")),
        perform(&client, "register_agent", agent("agent-2", "test-agent-002")),
    );
    assert_eq!((&first.unwrap()["agent_id"], &second.unwrap()["agent_id"]), (&json!("agent-1"), &json!("agent-2")));
    for id in ["agent-1", "agent-2"] {
        perform(&client, "update_heartbeat", json!({ "agent_id": id })).await.unwrap();
    }
    let taken = perform(&client, "register_agent", agent("agent-3", "test-agent-001")).await.unwrap_err();
    assert!(taken.to_string().starts_with("Agent registration failed: "), "{taken}");
    let other = super::client(&server.url());
    let leave = json!({"agent_id": "agent-1", "agent_key": "test-agent-001"});
    perform(&other, "unregister_agent", leave).await.unwrap();
    server.stop().await;
}

/// Rules: REG-013, REG-030, REG-032, REG-048, REG-049, REG-050, REG-051, REG-058, REG-134
#[tokio::test]
async fn an_administrator_logs_in_when_asked_to() {
    let server = server().await;
    let client = administrator(&server.url());
    assert!(perform(&client, "get_system_stats", json!({})).await.unwrap().get("registry_statistics").is_some());
    assert!(client.is_authenticated());
    let snapshot = perform(&client, "get_metrics_snapshot", json!({})).await.unwrap();
    assert!(snapshot["resource_utilization"]["memory"].is_number(), "{snapshot}");
    assert_eq!(perform(&client, "validate_token", json!({})).await.unwrap()["valid"], true);
    let not = perform(&client, "validate_token", json!({"token": "fewfwfewfewfew"})).await.unwrap();
    assert_eq!(not["valid"], false);
    perform(&client, "register_agent", {
        let mut agent = agent("a-1", "");
        agent.as_object_mut().unwrap().remove("agent_key");
        agent
    })
    .await
    .unwrap();
    perform(&client, "update_heartbeat", json!({"agent_id": "a-1"})).await.unwrap();
    let wrong = json!({"username": "wrong-username", "password": "wrong-password"});
    let error = perform(&super::client(&server.url()), "login_admin", wrong).await.unwrap_err();
    assert_eq!((error.area, error.kind), (Area::Authentication, FailureKind::Authentication));
    server.stop().await;
}

/// Rules: REG-034, REG-035
#[tokio::test]
async fn without_a_login_the_public_half_answers() {
    let server = server().await;
    let admin = administrator(&server.url());
    perform(&admin, "register_agent", agent("a-1", "test-agent-001")).await.unwrap();
    let client = client(&server.url());
    assert_eq!(perform(&client, "get_agent", json!({"agent_id": "a-1"})).await.unwrap()["status"], "alive");
    let filter = json!({"agent_type": "testing", "status": "alive", "include_metrics": true});
    assert_eq!(perform(&client, "list_agents", filter).await.unwrap().as_array().unwrap().len(), 1);
    server.stop().await;
}

/// Rules: REG-055, REG-056
#[tokio::test]
async fn sockets_show_what_happens() {
    let server = server().await;
    let client = administrator(&server.url());
    let public = client.open_socket(SocketKind::Public, SocketOptions::default()).unwrap();
    assert_eq!(next(&public).await["type"], "welcome");
    let page = next(&public).await;
    assert_eq!((&page["type"], &page["data"]["pagination"]["page_size"]), (&json!("discovery_data"), &json!(50)));
    let agents = client.open_socket(SocketKind::Agent, SocketOptions::default()).unwrap();
    assert_eq!(next(&agents).await, json!([]));
    let dashboard = client.open_socket(SocketKind::Dashboard, SocketOptions::default()).unwrap();
    assert_eq!(next(&dashboard).await["type"], "monitoring");
    perform(&client, "register_agent", agent("a-1", "test-agent-001")).await.unwrap();
    loop {
        let message = next(&public).await;
        if message["type"] == "agents_update" {
            assert_eq!(message["data"]["total_count"], 1);
            break;
        }
    }
    while next(&agents).await[0]["agent_id"] != "a-1" {}
    let bad = SocketOptions { token: Some("forged".into()), ..SocketOptions::default() };
    let refused = client.open_socket(SocketKind::Agent, bad).unwrap();
    let error = refused.next().await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "WebSocket connection failed: Invalid token");
    server.stop().await;
}

/// Rules: REG-055, REG-059, REG-190
#[tokio::test]
async fn a_restart_of_the_registry_is_survived() {
    let first = server().await;
    let url = first.url();
    let client = RegistryClient::new(RegistryOptions { retry_attempts: 100, ..options(&url) });
    perform(&client, "register_agent", agent("a-1", "test-agent-001")).await.unwrap();
    let socket = Arc::new(client.open_socket(SocketKind::Public, SocketOptions::default()).unwrap());
    assert_eq!(next(&socket).await["type"], "welcome");
    let port = first.addr.port();
    first.stop().await;
    // Another one in its place, which knows neither the agent nor its token.
    let second = start(Config { port, db: Database::Memory, ..Config::dev() }).await.unwrap();
    let beating = {
        let client = client.clone();
        tokio::spawn(async move { client.keep_alive("a-1", 0.05).await })
    };
    loop {
        let message = next(&socket).await;
        let agents = &message["data"]["agents"];
        if agents[0]["agent_id"] == "a-1" && message["type"] == "agents_update" {
            break;
        }
    }
    beating.abort();
    second.stop().await;
}
