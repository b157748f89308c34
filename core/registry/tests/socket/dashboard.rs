//! `/dashboard/ws` over real connections.

use std::sync::Arc;
use std::time::Duration;

use arcp_registry::directory::Caller;
use arcp_registry::model::MetricsUpdate;
use arcp_registry::server::auth::Claims;
use arcp_registry::server::dashboard::{Event, Figures, Storage};
use arcp_registry::server::metrics::Utilization;
use arcp_store::registry::{RegistrySqliteOptions, RegistryStore, SqliteRegistryStore};
use serde_json::{Value, json};

use crate::support::{Client, Seen, Server, admin, calm};

fn ms(number: u64) -> Duration {
    Duration::from_millis(number)
}

async fn ask(client: &mut Client, kind: &str) {
    client.say(&json!({ "type": kind }).to_string()).await;
}

/// The types of the messages up to and with the one that ends them.
async fn types_until(client: &mut Client, last: &str) -> Vec<String> {
    let mut types = Vec::new();
    while types.last().is_none_or(|newest| newest != last) {
        types.push(client.json().await["type"].as_str().unwrap().to_owned());
    }
    types
}

fn busy() -> Figures {
    Figures {
        total_requests: 0,
        avg_response_time: 0.0,
        error_rate: 0.0,
        agents: 1,
        alive: 1,
        resources: Utilization { cpu: 99.95, ..Utilization::default() },
        storage: Storage::Working,
    }
}

/// Rules: REG-340
#[tokio::test]
async fn refusals_close_without_a_frame() {
    let mut limits = calm();
    limits.dashboard.timeout = ms(300);
    let server = Server::start(limits).await;
    let agent = server.token(&Claims::of_agent("a-1"));
    let table = [
        (json!({"type": "hello"}).to_string(), 4001, "Auth frame required"),
        ("[1]".into(), 4001, "Auth frame required"),
        (json!({"type": "auth"}).to_string(), 4001, "Authentication token required"),
        (json!({"type": "auth", "token": "garbage"}).to_string(), 4001, "Invalid token"),
        (json!({"type": "auth", "token": agent}).to_string(), 4003, "Admin role required"),
        (json!({"type": "auth", "token": server.user_token()}).to_string(), 4003, "Admin role required"),
        ("{bad".into(), 4000, "Internal server error"),
    ];
    for (said, code, reason) in table {
        let mut client = server.connect("/dashboard/ws").await;
        client.say(&said).await;
        assert_eq!(client.close_code().await, (code, reason.to_owned()), "{said}");
    }
    let mut silent = server.connect("/dashboard/ws").await;
    assert_eq!(silent.close_code().await, (4000, "Internal server error".to_owned()));
}

/// Rules: REG-341, REG-343, REG-344, REG-345, REG-346, REG-347
#[tokio::test]
async fn all_frames_on_entry() {
    let server = Server::start(calm()).await;
    server.register("a-1", "testing").await;
    let update = json!({"total_requests": 5, "avg_response_time": 0.256, "error_rate": 0.0214, "success_rate": 1.0});
    let update = MetricsUpdate::check(&update).unwrap();
    server.service.set_metrics(&admin(), "a-1", &update).await.unwrap();
    server.clock.forward(Duration::from_secs(61));
    server.register("a-2", "security").await;
    server.dashboard.judge(Duration::from_secs(1), &busy());
    server.dashboard.note(Event::AdminLogin { user_id: "ARCP", client_ip: "127.0.0.1" });
    let mut client = server.connect("/dashboard/ws").await;
    client.say(&json!({"type": "auth", "token": server.admin_token()}).to_string()).await;

    let monitoring = client.json().await;
    assert_eq!(monitoring["type"], "monitoring");
    let stamp = monitoring["timestamp"].as_str().unwrap();
    assert!(stamp.ends_with("+00:00") && stamp.parse::<jiff::Timestamp>().is_ok(), "{stamp}");
    let data = &monitoring["data"];
    assert_eq!((&data["total_requests"], &data["agent_count"]), (&json!(5), &json!(2)));
    assert_eq!((&data["avg_response_time"], &data["error_rate"]), (&json!(0.13), &json!(0.011)));
    assert_eq!(data["agent_metrics"].as_array().unwrap().len(), 2);
    assert!(data["agent_metrics"][0]["last_active"].as_str().unwrap().contains('T'));
    for part in ["cpu", "memory", "network", "storage"] {
        let percent = data["resource_utilization"][part].as_f64().unwrap();
        assert!((0.0..=100.0).contains(&percent), "{part}: {percent}");
    }

    let health = client.json().await;
    assert_eq!(health["type"], "health");
    let expected = json!({"status": "degraded", "reason": "Agent connectivity degraded", "components": {
        "storage": {"redis": "not_configured", "status": "healthy"},
        "ai_services": {"azure_openai": "local", "status": "healthy"},
        "agents": {"total": 2, "active": 1, "status": "degraded", "connectivity_ratio": 0.5}}});
    assert_eq!(health["data"], expected);

    let agents = client.json().await;
    assert_eq!(agents["type"], "agents");
    let data = &agents["data"];
    assert_eq!((&data["total_count"], &data["active_count"]), (&json!(2), &json!(1)));
    assert_eq!(data["agent_types"], json!({"security": 1, "testing": 1}));
    assert_eq!(data["status_summary"], json!({"alive": 1, "dead": 1}));
    assert_eq!(data["agents"][0]["registered_at"], "2026-11-20T15:35:10.945067");

    let logs = client.json().await;
    assert_eq!(logs["type"], "logs");
    let data = &logs["data"];
    let lines = data["logs"].as_array().unwrap();
    assert_eq!(data["count"], lines.len());
    assert_eq!(lines[0]["message"], "New dashboard connection established (1 total)");
    let login = lines.iter().find(|line| line["event_type"] == "admin_login_success").unwrap();
    assert_eq!((&login["source"], &login["client_ip"]), (&json!("auth"), &json!("127.0.0.1")));
    let events: Vec<_> = lines.iter().filter_map(|line| line["event_type"].as_str()).collect();
    assert!(events.contains(&"agent_registered") && events.contains(&"agent_dead"), "{events:?}");

    let alert = client.json().await;
    assert_eq!(alert["type"], "alert");
    let said = "Critical CPU usage: 99.95% (threshold: 90%)";
    let cpu = alert["data"]["alerts"].as_array().unwrap().iter().find(|alert| alert["message"] == said).unwrap();
    assert_eq!((&cpu["type"], &cpu["severity"]), (&json!("resource_cpu"), &json!("critical")));
    assert_eq!(cpu["details"]["cpu_percent"], 99.95);
    assert!(cpu["id"].is_string() && cpu["title"].is_string() && cpu["timestamp"].is_string());
}

/// Rules: REG-342, REG-346
#[tokio::test]
async fn at_each_interval_what_is_new_of_logs_and_alerts() {
    let mut limits = calm();
    limits.dashboard.interval = ms(250);
    let server = Server::start(limits).await;
    server.register("a-1", "testing").await;
    let mut client = server.dashboard().await;
    // The first judgement of the figures may add alerts and lines; then it is quiet.
    tokio::time::sleep(ms(600)).await;
    while client.quiet(ms(5)).await.is_some() {}
    assert_eq!(types_until(&mut client, "agents").await, ["monitoring", "health", "agents"]);
    assert_eq!(types_until(&mut client, "agents").await, ["monitoring", "health", "agents"], "an unchanged log stays");
    server.dashboard.note(Event::StorageWorks);
    server.dashboard.judge(Duration::from_secs(500_000), &busy());
    let types = types_until(&mut client, "alert").await;
    assert_eq!(types[types.len() - 2..], ["logs", "alert"], "{types:?}");
    assert_eq!(types_until(&mut client, "agents").await, ["monitoring", "health", "agents"], "told once");
}

/// Rules: REG-346
#[tokio::test]
async fn only_new_lines_for_who_asks_for_deltas() {
    let server = Server::start(calm()).await;
    let mut client = server.connect("/dashboard/ws").await;
    client.say(&json!({"type": "auth", "token": server.admin_token(), "logs": "delta"}).to_string()).await;
    let whole = client.until("logs").await;
    assert_eq!(whole["data"].get("delta"), None);
    let said = |text: &str| json!({"type": "dashboard_log", "data": {"level": "INFO", "message": text}}).to_string();
    client.say(&said("one")).await;
    let part = client.until("logs").await;
    assert_eq!(part["data"]["delta"], true);
    let messages: Vec<_> = part["data"]["logs"].as_array().unwrap().iter().map(|line| &line["message"]).collect();
    assert_eq!(messages[0], "one");
    assert!(part["data"]["count"].as_u64().unwrap() > messages.len() as u64, "the count is of all lines");
    // After a clearing only the whole log tells the truth.
    ask(&mut client, "clear_logs").await;
    client.until("clear_logs_ack").await;
    client.say(&said("two")).await;
    let whole = client.until("logs").await;
    assert_eq!(whole["data"].get("delta"), None);
    assert_eq!(whole["data"]["logs"][0]["message"], "two");
    assert_eq!(whole["data"]["logs"][1]["message"], "Dashboard logs cleared");
}

/// Rules: REG-348
#[tokio::test]
async fn paused_only_agents_and_logs_arrive() {
    let mut limits = calm();
    limits.dashboard.interval = ms(200);
    let server = Server::start(limits).await;
    let mut client = server.dashboard().await;
    ask(&mut client, "pause_monitoring").await;
    let ack = client.until("pause_ack").await;
    assert_eq!(ack["data"], json!({"status": "paused"}));
    for _ in 0..4 {
        let kind = client.json().await["type"].clone();
        assert!(kind == "agents" || kind == "logs", "{kind}");
    }
    ask(&mut client, "resume_monitoring").await;
    client.until("monitoring").await;
    assert_eq!(client.json().await["type"], "health");
    let ack = client.json().await;
    assert_eq!((&ack["type"], &ack["data"]), (&json!("resume_ack"), &json!({"status": "resumed"})));
    client.until("monitoring").await;
}

/// Rules: REG-348
#[tokio::test]
async fn commands_and_their_answers() {
    let server = Server::start(calm()).await;
    let mut client = server.dashboard().await;
    ask(&mut client, "refresh_request").await;
    let types = types_until(&mut client, "refresh_ack").await;
    let asked = types.iter().rposition(|kind| kind == "monitoring").unwrap();
    assert_eq!(types[asked..asked + 4], ["monitoring", "health", "agents", "logs"]);
    ask(&mut client, "refresh_request").await;
    let ack = client.until("refresh_ack").await;
    assert_eq!(ack["data"], json!({"status": "completed", "message": "Fresh data sent"}));
    ask(&mut client, "agents_request").await;
    assert_eq!(client.json().await["type"], "agents");
    let ack = client.json().await;
    assert_eq!(ack["data"], json!({"status": "completed", "message": "Agents data sent"}));
    assert_eq!(ack["type"], "agents_ack");
    for (command, text) in
        [("clear_logs", "Backend logs cleared successfully"), ("clear_alerts", "Backend alerts cleared successfully")]
    {
        ask(&mut client, command).await;
        let ack = client.json().await;
        assert_eq!(ack["type"], format!("{command}_ack"));
        assert_eq!(ack["data"], json!({"status": "completed", "message": text}));
    }
    client.say(" PING ").await;
    assert_eq!(client.text().await, "pong");
    ask(&mut client, "ping").await;
    assert_eq!(client.json().await["type"], "pong");
}

/// What a client asks for is of now, not of a moment ago.
///
/// Rules: REG-348
#[tokio::test]
async fn a_refresh_is_fresh() {
    let server = Server::start(calm()).await;
    server.register("a-1", "testing").await;
    let mut client = server.dashboard().await;
    for requests in [7, 8, 9] {
        let update = MetricsUpdate::check(&json!({ "total_requests": requests })).unwrap();
        let agent = Caller::Agent { agent_id: "a-1".into(), key_hash: None };
        server.service.set_metrics(&agent, "a-1", &update).await.unwrap();
        tokio::time::sleep(ms(20)).await;
        ask(&mut client, "refresh_request").await;
        assert_eq!(client.until("monitoring").await["data"]["total_requests"], requests);
    }
}

/// Rules: REG-348
#[tokio::test]
async fn what_a_dashboard_logs_all_see_and_what_it_alerts_is_stored() {
    let server = Server::start(calm()).await;
    let (mut one, mut two) = (server.dashboard().await, server.dashboard().await);
    let said = json!({"type": "dashboard_log", "timestamp": "2025-01-07T10:30:00Z", "data": {"level": "SUCS",
        "message": "Security: PIN verification successful", "timestamp": "2025-01-07T10:30:00Z"}});
    one.say(&said.to_string()).await;
    for client in [&mut one, &mut two] {
        let newest = client.until("logs").await["data"]["logs"][0].clone();
        assert_eq!(newest["message"], "Security: PIN verification successful");
        assert_eq!((&newest["level"], &newest["source"]), (&json!("SUCS"), &json!("dashboard")));
        assert_eq!(newest["frontend_timestamp"], "2025-01-07T10:30:00Z");
    }
    for bad in [json!({"level": "BOGUS", "message": "x"}), json!("text"), json!({"level": "INFO"}), Value::Null] {
        one.say(&json!({"type": "dashboard_log", "data": bad}).to_string()).await;
    }
    one.say(
        &json!({"type": "dashboard_alert", "data": {"title": "T", "message": "M", "severity": "warning",
        "type": "performance"}})
        .to_string(),
    )
    .await;
    assert_eq!(one.quiet(ms(200)).await, None, "no reply");
    let mut three = server.dashboard().await;
    let alerts = three.until("alert").await;
    let stored = &alerts["data"]["alerts"][0];
    assert_eq!(
        (&stored["title"], &stored["message"], &stored["severity"]),
        (&json!("T"), &json!("M"), &json!("warning"))
    );
}

/// Rules: REG-348
#[tokio::test]
async fn nonsense_is_ignored_and_the_socket_lives() {
    let server = Server::start(calm()).await;
    let mut client = server.dashboard().await;
    while client.quiet(ms(50)).await.is_some() {}
    for said in ["[1]", "5", "null", "{bad", "{}", r#"{"type":"bogus"}"#, r#"{"type":7}"#, "pong"] {
        client.say(said).await;
    }
    assert_eq!(client.quiet(ms(150)).await, None);
    client.say("ping").await;
    assert_eq!(client.text().await, "pong");
}

/// Rules: REG-408
#[tokio::test]
async fn a_session_with_a_pin_is_asked_for_it() {
    let server = Server::start(calm()).await;
    let token = server.auth.begin_session("ARCP", "fingerprint").unwrap();
    let session = server.auth.session_of(&arcp_registry::server::auth::token_hash(&token)).unwrap();
    let mut client = server.connect("/dashboard/ws").await;
    client.say(&json!({"type": "auth", "token": token}).to_string()).await;
    client.until("logs").await;
    ask(&mut client, "clear_alerts").await;
    client.until("clear_alerts_ack").await;
    assert!(server.auth.set_pin(&session.id, "a hash".into()));
    for command in ["pause_monitoring", "resume_monitoring", "clear_logs", "clear_alerts"] {
        ask(&mut client, command).await;
        let answer = client.until("error").await;
        assert_eq!(answer["data"]["status"], "pin_required", "{command}");
        assert!(answer["data"]["message"].as_str().unwrap().contains("/auth/verify_pin"));
    }
    server.auth.pin_was_right(&session.id);
    ask(&mut client, "clear_logs").await;
    client.until("clear_logs_ack").await;
}

/// Rules: REG-136, REG-408
#[tokio::test]
async fn a_token_without_a_session_is_no_way_around_the_pin() {
    let server = Server::start(calm()).await;
    let token = server.auth.begin_session("ARCP", "fingerprint").unwrap();
    let session = server.auth.session_of(&arcp_registry::server::auth::token_hash(&token)).unwrap();
    assert!(server.auth.set_pin(&session.id, "a hash".into()));
    server.auth.end_session(&session.id);
    for token in [token, server.token(&Claims::of_admin("ARCP"))] {
        let mut client = server.connect("/dashboard/ws").await;
        client.say(&json!({"type": "auth", "token": token}).to_string()).await;
        client.until("logs").await;
        for command in ["pause_monitoring", "clear_logs", "clear_alerts"] {
            ask(&mut client, command).await;
            assert_eq!(client.until("error").await["data"]["status"], "session_required", "{command}");
        }
    }
}

/// Rules: REG-300
#[tokio::test]
async fn the_cap_of_dashboards() {
    let mut limits = calm();
    limits.dashboard.max_connections = 2;
    let server = Server::start(limits).await;
    let (_one, two) = (server.dashboard().await, server.dashboard().await);
    assert_eq!(server.try_connect("/dashboard/ws").await.err(), Some(403));
    drop(two);
    server.settled(1).await;
    server.dashboard().await;
}

/// Logs, alerts and settings outlive the process, and what was cleared does not come back.
///
/// Rules: REG-349
#[tokio::test]
async fn what_was_cleared_stays_cleared_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = || -> Arc<dyn RegistryStore> {
        Arc::new(SqliteRegistryStore::new(folder.path().join("registry.db"), RegistrySqliteOptions::default()))
    };
    let logged = |server: &Server| {
        let server = server.dashboard.clone();
        move |text: &str| server.note(Event::AgentLoginFailed { agent_id: text, client_ip: "127.0.0.1" })
    };
    let server = Server::with_store(calm(), store()).await;
    logged(&server)("before");
    server.dashboard.judge(Duration::from_secs(1), &busy());
    server.dashboard.set_config(&json!({"ui": {"refreshInterval": 60}}));
    server.sockets.close(Duration::from_secs(5)).await;
    server.dashboard.keep();
    server.service.close();
    drop(server);

    let server = Server::with_store(calm(), store()).await;
    assert_eq!(server.dashboard.config(None)["ui"]["refreshInterval"], 60);
    let mut client = server.connect("/dashboard/ws").await;
    client.say(&json!({"type": "auth", "token": server.admin_token()}).to_string()).await;
    let logs = client.until("logs").await["data"].to_string();
    assert!(logs.contains("Agent authentication failed: before"), "{logs}");
    assert!(client.until("alert").await["data"].to_string().contains("Critical CPU usage: 99.95%"));
    ask(&mut client, "clear_logs").await;
    client.until("clear_logs_ack").await;
    ask(&mut client, "clear_alerts").await;
    client.until("clear_alerts_ack").await;
    server.sockets.close(Duration::from_secs(5)).await;
    server.dashboard.keep();
    server.service.close();
    drop(server);

    let server = Server::with_store(calm(), store()).await;
    let mut client = server.connect("/dashboard/ws").await;
    client.say(&json!({"type": "auth", "token": server.admin_token()}).to_string()).await;
    let logs = client.until("logs").await["data"].to_string();
    assert!(!logs.contains("before") && logs.contains("Dashboard logs cleared"), "{logs}");
    let alert = loop {
        match client.quiet(ms(200)).await {
            Some(text) if text.contains("\"type\":\"alert\"") => break text,
            Some(_) => {}
            None => break String::new(),
        }
    };
    assert!(!alert.contains("99.95%"), "{alert}");
    server.service.close();
}

/// Rules: REG-349
#[tokio::test]
async fn at_the_end_sockets_close_with_1001() {
    let server = Server::start(calm()).await;
    let mut clients = vec![server.dashboard().await, server.connect("/public/ws").await, server.agent().await];
    let closing = tokio::spawn({
        let sockets = server.sockets.clone();
        async move { sockets.close(Duration::from_secs(10)).await }
    });
    for client in &mut clients {
        let end = loop {
            if let Seen::Closed(end) = client.see().await {
                break end;
            }
        };
        assert_eq!(end, Some((1001, "The server is shutting down".to_owned())));
        assert_eq!(client.see().await, Seen::Closed(None));
    }
    closing.await.unwrap();
    assert_eq!(server.sockets.live(), 0);
    assert_eq!(server.try_connect("/public/ws").await.err(), Some(403));
}
