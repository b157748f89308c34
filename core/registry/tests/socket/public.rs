//! `/public/ws` over real connections.

use std::time::Duration;

use arcp_registry::server::socket::Limits;
use futures_util::SinkExt;
use serde_json::json;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Seen, Server, calm};

fn ms(number: u64) -> Duration {
    Duration::from_millis(number)
}

/// Rules: REG-310, REG-314, REG-315, REG-316
#[tokio::test]
async fn a_greeting_and_pings_of_both_forms() {
    let server = Server::start(calm()).await;
    let mut client = server.connect("/public/ws").await;
    let greeting = client.json().await;
    assert_eq!(greeting["type"], "welcome");
    assert_eq!(greeting["message"], "Connected to ARCP Public API WebSocket");
    assert_eq!(
        greeting["features"],
        json!(["agent_updates", "public_stats", "discovery_events", "paginated_discovery"])
    );
    for text in ["ping", " PING "] {
        client.say(text).await;
        assert_eq!(client.text().await, "pong");
    }
    client.say(r#"{"type":"pong"}"#).await;
    client.say("pong").await;
    client.say(r#"{"type":"ping"}"#).await;
    let pong = client.json().await;
    assert_eq!(pong["type"], "pong");
    let age = jiff::Timestamp::now().as_second() as f64 - pong["timestamp"].as_f64().unwrap();
    assert!(age.abs() < 5.0, "{pong}");
    client.socket.send(Message::Ping(b"of the protocol".to_vec().into())).await.unwrap();
    assert_eq!(client.see().await, Seen::Pong(b"of the protocol".to_vec()));
}

/// Rules: REG-311
#[tokio::test]
async fn figures_come_at_each_interval_and_add_up() {
    let mut limits = calm();
    limits.public.interval = ms(200);
    let server = Server::start(limits).await;
    server.register("a-1", "testing").await;
    server.register("a-2", "security").await;
    server.clock.forward(Duration::from_secs(61));
    server.register("a-3", "testing").await;
    let mut client = server.connect("/public/ws").await;
    client.json().await;
    let start = Instant::now();
    for tick in 1..=4_u64 {
        let stats = client.until("stats_update").await;
        let late = start.elapsed().saturating_sub(ms(200 * tick));
        assert!(late < ms(150), "tick {tick} came {late:?} late");
        let data = &stats["data"];
        let count = |name: &str| data[name].as_u64().unwrap();
        assert_eq!((count("total_agents"), count("alive_agents"), count("dead_agents")), (3, 1, 2));
        assert_eq!(data["available_types"], json!(["security", "testing"]));
        assert_eq!((count("agent_types_count"), &data["system_status"]), (2, &json!("operational")));
    }
    assert!(start.elapsed() >= ms(780), "no tick comes early");
}

/// Rules: REG-312
#[tokio::test]
async fn a_silent_client_is_pinged_and_stays() {
    let limits = Limits {
        public: arcp_registry::server::config::SocketSettings { ping_interval: ms(100), ..calm().public },
        ..calm()
    };
    let server = Server::start(limits).await;
    let mut client = server.connect("/public/ws").await;
    client.json().await;
    for _ in 0..4 {
        assert_eq!(client.text().await, "ping");
    }
    client.say("ping").await;
    assert_eq!(client.text().await, "pong");
}

/// Rules: REG-313
#[tokio::test]
async fn every_change_is_told() {
    let server = Server::start(calm()).await;
    let mut client = server.connect("/public/ws").await;
    client.json().await;
    let ids = |update: &serde_json::Value| {
        let agents = update["data"]["agents"].as_array().unwrap();
        assert_eq!(update["data"]["total_count"], agents.len());
        agents.iter().map(|agent| agent["agent_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    server.register("a-1", "testing").await;
    let update = client.until("agents_update").await;
    assert_eq!(ids(&update), ["a-1"]);
    let agent = &update["data"]["agents"][0];
    assert_eq!((&agent["status"], &agent["last_seen"]), (&json!("alive"), &json!("2026-11-20 15:35:10.945067")));
    assert_eq!(agent["metrics"]["agent_id"], "a-1");
    assert!(agent.as_object().unwrap().values().all(|value| !value.is_null()), "null fields are left out");
    server.register("a-2", "security").await;
    assert_eq!(ids(&client.until("agents_update").await), ["a-1", "a-2"]);
    server.unregister("a-1").await;
    assert_eq!(ids(&client.until("agents_update").await), ["a-2"]);
    // It dies.
    server.clock.forward(Duration::from_secs(61));
    server.service.tick(server.service.now());
    assert_eq!(ids(&client.until("agents_update").await), [""; 0]);
    // It comes back.
    server.service.heartbeat(&crate::support::admin(), "a-2").unwrap();
    assert_eq!(ids(&client.until("agents_update").await), ["a-2"]);
    // It is silent for so long that it is removed.
    server.clock.forward(Duration::from_secs(61));
    server.service.tick(server.service.now());
    assert_eq!(ids(&client.until("agents_update").await), [""; 0]);
    server.clock.forward(Duration::from_secs(120));
    server.service.tick(server.service.now());
    assert_eq!(ids(&client.until("agents_update").await), [""; 0]);
    assert_eq!(server.service.stats().total, 0);
    // Heartbeats and metrics change no list.
    server.register("a-3", "testing").await;
    client.until("agents_update").await;
    server.service.heartbeat(&crate::support::admin(), "a-3").unwrap();
    assert_eq!(client.quiet(ms(150)).await, None);
}

/// Rules: REG-317
#[tokio::test]
async fn agents_in_pages() {
    let server = Server::start(calm()).await;
    let mut client = server.connect("/public/ws").await;
    client.json().await;
    let ask = |page: serde_json::Value| {
        let mut command = json!({"type": "get_discovery"});
        command.as_object_mut().unwrap().extend(page.as_object().unwrap().clone());
        command.to_string()
    };
    client.say(&ask(json!({}))).await;
    let none = client.json().await;
    assert_eq!((&none["data"]["pagination"]["total_pages"], &none["data"]["agents"]), (&json!(0), &json!([])));
    for n in 0..5 {
        server.register(&format!("a-{n}"), if n == 3 { "security" } else { "testing" }).await;
    }
    client.say(&ask(json!({"page": 2, "page_size": 2, "agent_type": "testing"}))).await;
    let second = client.until("discovery_data").await;
    let expected = json!({"current_page": 2, "page_size": 2, "total_agents": 4, "total_pages": 2, "has_next": false,
        "has_previous": true, "next_page": null, "previous_page": 1});
    assert_eq!(second["data"]["pagination"], expected);
    assert_eq!(second["data"]["filters"], json!({"agent_type": "testing"}));
    let ids: Vec<_> = second["data"]["agents"].as_array().unwrap().iter().map(|a| a["agent_id"].clone()).collect();
    assert_eq!(ids, [json!("a-2"), json!("a-4")]);
    client.say(&ask(json!({"page": 9_000_000_000_000_000_000_u64, "page_size": 1000}))).await;
    let beyond = client.until("discovery_data").await;
    assert_eq!((&beyond["data"]["pagination"]["page_size"], &beyond["data"]["agents"]), (&json!(100), &json!([])));
    client.say(&ask(json!({"page": "x"}))).await;
    assert_eq!(client.until("error").await["message"], "Failed to get discovery data");
}

/// Rules: REG-318, REG-319
#[tokio::test]
async fn what_is_not_understood_gets_an_error_and_the_socket_lives() {
    let server = Server::start(calm()).await;
    let mut client = server.connect("/public/ws").await;
    client.json().await;
    for (said, answer) in [
        (r#"{"type":"bogus"}"#, "Unknown message type: bogus"),
        ("{}", "Unknown message type: None"),
        ("{bad", "Invalid JSON format"),
    ] {
        client.say(said).await;
        assert_eq!(client.text().await, format!(r#"{{"type":"error","message":"{answer}"}}"#));
    }
    for said in ["[1, 2]", "5", "null", "\"text\""] {
        client.say(said).await;
        assert_eq!(client.json().await["type"], "error", "{said}");
    }
    client.socket.send(Message::Binary(br#"{"type":"ping"}"#.to_vec().into())).await.unwrap();
    assert_eq!(client.json().await["type"], "pong");
}

/// Rules: REG-318
#[tokio::test]
async fn too_long_a_message_closes_with_1009() {
    let server = Server::start(calm()).await;
    let mut client = server.connect("/public/ws").await;
    client.json().await;
    client.say(&"x".repeat((64 << 10) + 1)).await;
    assert_eq!(client.close_code().await.0, 1009);
    server.settled(0).await;
}

/// Rules: REG-320
#[tokio::test]
async fn a_flood_of_commands_is_answered_every_tenth_of_a_second() {
    let server = Server::start(calm()).await;
    let mut client = server.connect("/public/ws").await;
    client.json().await;
    let start = Instant::now();
    for _ in 0..25 {
        client.say(r#"{"type":"ping"}"#).await;
    }
    let mut answers = Vec::new();
    for _ in 0..25 {
        client.until("pong").await;
        answers.push(start.elapsed());
    }
    assert!(answers[19] < ms(400), "a burst is answered at once: {:?}", answers[19]);
    assert!(answers[24] >= ms(350), "then they are spaced: {:?}", answers[24]);
}

/// Rules: REG-300
#[tokio::test]
async fn over_capacity_the_handshake_is_refused() {
    let mut limits = calm();
    limits.public.max_connections = 2;
    let server = Server::start(limits).await;
    let one = server.connect("/public/ws").await;
    let _two = server.connect("/public/ws").await;
    assert_eq!(server.try_connect("/public/ws").await.err(), Some(403));
    server.settled(2).await;
    drop(one);
    server.settled(1).await;
    server.connect("/public/ws").await;
}

/// A client that says goodbye gets an answer.
///
/// Rules: REG-310
#[tokio::test]
async fn a_goodbye_is_answered() {
    let server = Server::start(calm()).await;
    let mut client = server.connect("/public/ws").await;
    client.json().await;
    client.socket.close(None).await.unwrap();
    assert_eq!(client.see().await, Seen::Closed(None));
    server.settled(0).await;
}
