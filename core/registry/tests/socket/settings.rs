//! Each of the sixteen settings of sockets does something that a client sees (REG-504, D-38).

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::support::{Server, from_environment};

const NEAR: Duration = Duration::from_millis(700);

/// Whether something came after one second, and not before.
fn after_a_second(start: Instant) {
    let passed = start.elapsed();
    assert!(passed >= Duration::from_millis(950) && passed < Duration::from_secs(1) + NEAR, "{passed:?}");
}

/// With one setting at a second and the rest far away.
async fn server(name: &str) -> Server {
    let mut variables = Vec::new();
    for kind in ["PUBLIC_WS", "AGENT_WS", "DASHBOARD_WS"] {
        for what in ["INTERVAL", "PING_INTERVAL"] {
            variables.push((format!("{kind}_{what}"), "3600"));
        }
    }
    // The generic variable speaks where no specific one does.
    if let Some(what) = name.strip_prefix("WEBSOCKET_") {
        variables.retain(|(specific, _)| !specific.ends_with(&format!("_WS_{what}")));
    }
    variables.retain(|(specific, _)| specific != name);
    variables.push((name.to_owned(), "1"));
    let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    Server::start(from_environment(&variables)).await
}

async fn public_interval(server: &Server) {
    let mut client = server.connect("/public/ws").await;
    client.json().await;
    let start = Instant::now();
    assert_eq!(client.json().await["type"], "stats_update");
    after_a_second(start);
}

async fn agent_interval(server: &Server) {
    let mut client = server.agent().await;
    let start = Instant::now();
    assert!(client.json().await.is_array());
    after_a_second(start);
}

async fn dashboard_interval(server: &Server) {
    let mut client = server.dashboard().await;
    let start = Instant::now();
    client.until("monitoring").await;
    after_a_second(start);
}

async fn public_ping(server: &Server) {
    let mut client = server.connect("/public/ws").await;
    client.json().await;
    let start = Instant::now();
    assert_eq!(client.text().await, "ping");
    after_a_second(start);
}

async fn agent_ping(server: &Server) {
    let mut client = server.agent().await;
    let start = Instant::now();
    assert_eq!(client.text().await, "ping");
    after_a_second(start);
}

/// Who authenticates in time is let in; who does not is closed after a second.
async fn agent_timeout(server: &Server) {
    let mut client = server.connect("/agents/ws").await;
    client.json().await;
    let start = Instant::now();
    assert_eq!(client.close_code().await, (1008, "Authentication timeout".to_owned()));
    after_a_second(start);
}

async fn dashboard_timeout(server: &Server) {
    let mut client = server.connect("/dashboard/ws").await;
    let start = Instant::now();
    assert_eq!(client.close_code().await, (4000, "Internal server error".to_owned()));
    after_a_second(start);
}

/// Who takes nothing is dropped after a second and a little.
async fn public_timeout(server: &Server) {
    crate::support::fill(server, 40).await;
    let _stuck = crate::support::raw(server.address, "/public/ws").await;
    server.settled(1).await;
    let start = Instant::now();
    while server.sockets.live() > 0 {
        crate::support::change(server).await;
        assert!(start.elapsed() < Duration::from_secs(15), "a socket that takes nothing is still there");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(start.elapsed() > Duration::from_millis(950));
}

async fn public_cap(server: &Server) {
    let _one = server.connect("/public/ws").await;
    assert_eq!(server.try_connect("/public/ws").await.err(), Some(403));
}

async fn agent_cap(server: &Server) {
    let _one = server.agent().await;
    assert_eq!(server.try_connect("/agents/ws").await.err(), Some(403));
}

async fn dashboard_cap(server: &Server) {
    let _one = server.dashboard().await;
    assert_eq!(server.try_connect("/dashboard/ws").await.err(), Some(403));
}

macro_rules! settings {
    ($($test:ident: $name:literal shows in $($effect:ident),+;)+) => {$(
        /// Rules: REG-504
        #[tokio::test]
        async fn $test() {
            let server = server($name).await;
            $($effect(&server).await;)+
        }
    )+};
}

settings! {
    public_ws_interval: "PUBLIC_WS_INTERVAL" shows in public_interval;
    public_ws_timeout: "PUBLIC_WS_TIMEOUT" shows in public_timeout;
    public_ws_ping_interval: "PUBLIC_WS_PING_INTERVAL" shows in public_ping;
    public_ws_max_connections: "PUBLIC_WS_MAX_CONNECTIONS" shows in public_cap;
    agent_ws_interval: "AGENT_WS_INTERVAL" shows in agent_interval;
    agent_ws_timeout: "AGENT_WS_TIMEOUT" shows in agent_timeout;
    agent_ws_ping_interval: "AGENT_WS_PING_INTERVAL" shows in agent_ping;
    agent_ws_max_connections: "AGENT_WS_MAX_CONNECTIONS" shows in agent_cap;
    dashboard_ws_interval: "DASHBOARD_WS_INTERVAL" shows in dashboard_interval;
    dashboard_ws_timeout: "DASHBOARD_WS_TIMEOUT" shows in dashboard_timeout;
    dashboard_ws_max_connections: "DASHBOARD_WS_MAX_CONNECTIONS" shows in dashboard_cap;
    websocket_interval: "WEBSOCKET_INTERVAL" shows in public_interval, agent_interval, dashboard_interval;
    websocket_timeout: "WEBSOCKET_TIMEOUT" shows in agent_timeout, dashboard_timeout, public_timeout;
    websocket_ping_interval: "WEBSOCKET_PING_INTERVAL" shows in public_ping, agent_ping;
    websocket_max_connections: "WEBSOCKET_MAX_CONNECTIONS" shows in public_cap, agent_cap, dashboard_cap;
}

/// The ping of the dashboard comes after twice the setting, a minute at least, which the machine's own test watches; here
/// it shows in what the page is told.
///
/// Rules: REG-504, REG-349, REG-188
#[tokio::test]
async fn dashboard_ws_ping_interval() {
    use arcp_registry::server::config::{Config, Secret, Sources};
    use arcp_registry::server::dashboard::{Dashboard, DashboardSettings};
    let env = vec![("DASHBOARD_WS_PING_INTERVAL".to_owned(), Secret::new("45"))];
    let (config, _) = Config::examine(&Sources { env, dev: true, ..Sources::default() });
    let dashboard = Dashboard::new(DashboardSettings::from(&config));
    assert_eq!(dashboard.config(None)["ws_ping_interval_ms"], json!(45_000));
}
