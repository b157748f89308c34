//! `/agents/ws` over real connections.

use std::time::Duration;

use arcp_registry::server::auth::Claims;
use serde_json::json;

use crate::support::{Server, calm};

const ASKED: &str = r#"{"type":"auth_required","message":"Send your authentication token"}"#;

/// Rules: REG-330, REG-332
#[tokio::test]
async fn agents_administrators_and_temporary_tokens_get_the_list() {
    let server = Server::start(calm()).await;
    server.register("a-1", "testing").await;
    server.clock.forward(Duration::from_secs(61));
    server.register("a-2", "security").await;
    let tokens = [
        server.token(&Claims::of_agent("a-1")),
        server.admin_token(),
        server.token(&Claims::temporary("a-9", "testing", "a-key-of-the-tests")),
    ];
    for token in tokens {
        let mut client = server.connect("/agents/ws").await;
        assert_eq!(client.text().await, ASKED);
        client.say(&json!({ "token": token }).to_string()).await;
        assert_eq!(client.text().await, r#"{"type":"auth_success","message":"Authentication successful"}"#);
        let list = client.json().await;
        let agents = list.as_array().unwrap();
        assert_eq!((&agents[0]["agent_id"], &agents[0]["status"]), (&json!("a-1"), &json!("dead")));
        assert_eq!((&agents[1]["agent_id"], &agents[1]["status"]), (&json!("a-2"), &json!("alive")));
        assert_eq!(agents[0]["last_seen"], "2026-11-20 15:35:10.945067");
        assert_eq!(agents[0].get("max_tokens"), None, "null fields are left out");
    }
}

/// Rules: REG-331
#[tokio::test]
async fn refusals_say_why_and_close_with_1008() {
    let mut limits = calm();
    limits.agents.timeout = Duration::from_millis(300);
    let server = Server::start(limits).await;
    let table = [
        (json!({"token": "garbage"}).to_string(), "Invalid token", "Invalid token"),
        (json!({"foo": 1}).to_string(), "Token required", "Authentication required"),
        ("{bad".into(), "Invalid JSON", "Invalid JSON"),
        ("[1]".into(), "Authentication failed", "Authentication failed"),
        (json!({"token": server.user_token()}).to_string(), "Insufficient permissions", "Insufficient permissions"),
    ];
    for (said, message, reason) in table {
        let mut client = server.connect("/agents/ws").await;
        client.text().await;
        client.say(&said).await;
        assert_eq!(client.text().await, format!(r#"{{"type":"auth_error","message":"{message}"}}"#));
        assert_eq!(client.close_code().await, (1008, reason.to_owned()));
    }
    let mut silent = server.connect("/agents/ws").await;
    assert_eq!(silent.text().await, ASKED);
    assert_eq!(silent.close_code().await, (1008, "Authentication timeout".to_owned()));
    server.settled(0).await;
}

/// Rules: REG-333
#[tokio::test]
async fn the_list_comes_again_at_every_change() {
    let server = Server::start(calm()).await;
    let mut client = server.agent().await;
    server.register("a-1", "testing").await;
    assert_eq!(client.json().await.as_array().unwrap().len(), 1);
    server.clock.forward(Duration::from_secs(61));
    server.service.tick(server.service.now());
    assert_eq!(client.json().await[0]["status"], "dead");
    server.service.heartbeat(&crate::support::admin(), "a-1").unwrap();
    assert_eq!(client.json().await[0]["status"], "alive");
    server.unregister("a-1").await;
    assert_eq!(client.json().await, json!([]));
}

/// Rules: REG-334
#[tokio::test]
async fn pings_of_both_forms_are_answered_and_nothing_makes_it_deaf() {
    let server = Server::start(calm()).await;
    let mut client = server.agent().await;
    for ignored in ["pong", "{bad", "[1]", r#"{"type":"bogus"}"#] {
        client.say(ignored).await;
    }
    client.say("Ping").await;
    assert_eq!(client.text().await, "pong");
    client.say(r#"{"type":"ping"}"#).await;
    assert_eq!(client.json().await["type"], "pong");
    server.register("a-1", "testing").await;
    assert!(client.json().await.is_array());
}

/// Rules: REG-335
#[tokio::test]
async fn a_silent_agent_is_pinged() {
    let mut limits = calm();
    limits.agents.ping_interval = Duration::from_millis(100);
    let server = Server::start(limits).await;
    let mut client = server.agent().await;
    for _ in 0..3 {
        assert_eq!(client.text().await, "ping");
    }
}

/// Five messages come of a registry where nothing happens, as the guide's example waits for.
///
/// Rules: REG-336
#[tokio::test]
async fn a_quiet_registry_keeps_talking() {
    let mut limits = calm();
    limits.agents.interval = Duration::from_millis(100);
    let server = Server::start(limits).await;
    server.register("a-1", "testing").await;
    let mut client = server.agent().await;
    for _ in 0..4 {
        let list = client.json().await;
        assert_eq!(list[0]["agent_id"], "a-1");
    }
}

/// Rules: REG-300
#[tokio::test]
async fn the_cap_counts_and_strangers_are_bounded_too() {
    let mut limits = calm();
    limits.agents.max_connections = 4;
    let server = Server::start(limits).await;
    let mut strangers = Vec::new();
    for _ in 0..4 {
        strangers.push(server.connect("/agents/ws").await);
    }
    assert_eq!(server.try_connect("/agents/ws").await.err(), Some(403), "one address has so many that wait");
    drop(strangers);
    server.settled(0).await;
    let mut agents = Vec::new();
    for _ in 0..4 {
        agents.push(server.agent().await);
    }
    assert_eq!(server.try_connect("/agents/ws").await.err(), Some(403), "all seats are taken");
    agents.pop();
    server.settled(3).await;
    server.agent().await;
}
