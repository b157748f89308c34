//! Logging in, registering, and whose token is sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arcp_registry::client::{Credentials, FailureKind, RegistryClient, RegistryOptions};
use serde_json::{Value, json};

use super::server::{Asked, Reply, Server, ok};
use super::{client, member, options, perform};

fn with(url: &str, credentials: Credentials) -> RegistryClient {
    RegistryClient::new(RegistryOptions { credentials, ..options(url) })
}

fn administrator() -> Credentials {
    Credentials { admin: Some(("ARCP".into(), "ARCP-password".into())), ..Credentials::default() }
}

fn agent(id: &str) -> Value {
    json!({"agent_id": id, "name": "Agent A", "agent_type": "testing", "endpoint": "http://h.example",
           "capabilities": ["echo"], "context_brief": "A context brief here"})
}

/// A registry where everything works: each token says whose it is.
fn registry(asked: &Asked, _: usize) -> Reply {
    let body = asked.json();
    let id = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    match (asked.method.as_str(), asked.target.split('?').next().unwrap_or_default()) {
        ("POST", "/auth/login") => ok(json!({"access_token": "ADMIN", "token_type": "bearer", "expires_in": 3600})),
        ("POST", "/auth/agent/request_temp_token") => ok(json!({"temp_token": format!("TEMP-{}", id("agent_id"))})),
        ("POST", "/agents/register") => ok(json!({"access_token": format!("TOKEN-{}", id("agent_id"))})),
        _ if asked.header("authorization").is_none() && asked.target.starts_with("/agents") => {
            Reply::Json(401, json!({"detail": "no"}))
        }
        ("GET", "/agents" | "/public/discover") => ok(json!([{"agent_id": "a-1", "capabilities": ["echo"]}])),
        ("GET", path) => ok(json!({"agent_id": path.rsplit('/').next()})),
        _ => ok(json!({"status": "success"})),
    }
}

/// Lets time pass while nothing is under way.
async fn later(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

fn tokens(server: &Server) -> Vec<String> {
    let bearer = |asked: &Asked| asked.header("authorization").unwrap_or("-").trim_start_matches("Bearer ").to_owned();
    server.asked().iter().map(bearer).collect()
}

/// Rules: REG-031, REG-033, REG-026
#[tokio::test]
async fn an_agent_registers_with_its_key() {
    let server = Server::start(registry).await;
    let client = client(&server.url);
    let mut wanted = agent("a-1");
    wanted["agent_key"] = "key".into();
    wanted["metadata"] = json!({"a": "b"});
    wanted["requirements"] = json!({"minimum_memory_mb": 512, "minimum_system_version": null});
    assert_eq!(perform(&client, "register_agent", wanted).await.unwrap()["agent_id"], "a-1");
    assert_eq!(
        server.lines(),
        ["POST /auth/agent/request_temp_token", "POST /agents/register", "GET /agents/a-1?include_metrics=true"]
    );
    assert_eq!(tokens(&server), ["-", "TEMP-a-1", "TOKEN-a-1"]);
    let asked = server.asked();
    assert_eq!(asked[0].json(), json!({"agent_id": "a-1", "agent_type": "testing", "agent_key": "key"}));
    let sent = asked[1].json();
    assert!(sent.get("agent_key").is_none() && sent.get("max_tokens").is_none());
    assert_eq!((&sent["features"], &sent["policy_tags"]), (&json!([]), &json!([])));
    assert_eq!(
        sent["requirements"],
        json!({"system_requirements": [], "permissions": [], "dependencies": [],
        "minimum_memory_mb": 512, "requires_internet": true, "network_ports": [], "required_fields": [],
        "optional_fields": [], "user_configuration": {}, "schema_version": "1.0"})
    );
    assert!(client.is_authenticated());
    assert_eq!(client.token().unwrap().0.expose(), "TOKEN-a-1");
}

/// Rules: REG-033
#[tokio::test]
async fn agents_of_one_client_register_and_beat_at_once() {
    let server = Server::start(registry).await;
    let client = client(&server.url);
    let one = async |id: &str| {
        let mut wanted = agent(id);
        wanted["agent_key"] = format!("key-{id}").into();
        perform(&client, "register_agent", wanted).await.unwrap();
        perform(&client, "update_heartbeat", json!({"agent_id": id})).await.unwrap();
    };
    tokio::join!(one("agent-1"), one("agent-2"), one("agent-3"));
    for asked in server.asked().iter().filter(|asked| asked.target.ends_with("/heartbeat")) {
        let id = asked.target.split('/').nth(2).unwrap();
        assert_eq!(asked.header("authorization"), Some(format!("Bearer TOKEN-{id}").as_str()));
    }
    assert_eq!(server.asked().len(), 12);
}

/// Rules: REG-031
#[tokio::test]
async fn a_temporary_token_is_used_for_the_registration_it_was_asked_for() {
    let server = Server::start(registry).await;
    let client = client(&server.url);
    let ask = json!({"agent_id": "a-1", "agent_type": "testing", "agent_key": "key"});
    assert_eq!(perform(&client, "request_temp_token", ask).await.unwrap(), "TEMP-a-1");
    assert_eq!(client.token().unwrap().0.expose(), "TEMP-a-1");
    perform(&client, "register_agent", agent("a-1")).await.unwrap();
    assert_eq!(tokens(&server), ["-", "TEMP-a-1", "TOKEN-a-1"]);
    let server = Server::script(vec![|| ok(json!({}))]).await;
    let ask = json!({"agent_id": "a-1", "agent_type": "testing", "agent_key": "key"});
    let error = perform(&super::client(&server.url), "request_temp_token", ask).await.unwrap_err();
    assert_eq!(error.to_string(), "Temporary token request failed: No temporary token received");
}

/// Rules: REG-013, REG-024
#[tokio::test]
async fn the_first_refusal_logs_in_once_for_all() {
    let server = Server::start(registry).await;
    let client = with(&server.url, administrator());
    let list = async || perform(&client, "list_agents", json!({})).await.unwrap();
    tokio::join!(list(), list(), list());
    let logins = server.lines().iter().filter(|line| *line == "POST /auth/login").count();
    assert_eq!(logins, 1, "{:?}", server.lines());
    perform(&client, "get_system_stats", json!({})).await.unwrap();
    assert_eq!(tokens(&server).last().unwrap(), "ADMIN");
}

/// Rules: REG-024
#[tokio::test]
async fn a_token_that_does_not_count_any_more_is_replaced() {
    let over = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&over);
    let server = Server::start(move |asked, count| {
        let old = asked.header("authorization") == Some("Bearer OLD");
        match asked.target.as_str() {
            "/auth/login" if seen.load(Ordering::Relaxed) => ok(json!({"access_token": "NEW"})),
            "/auth/login" => ok(json!({"access_token": "OLD"})),
            _ if old && seen.load(Ordering::Relaxed) => Reply::Json(401, json!({})),
            _ => registry(asked, count),
        }
    })
    .await;
    let client = client(&server.url);
    perform(&client, "login_admin", json!({"username": "ARCP", "password": "p"})).await.unwrap();
    perform(&client, "list_agents", json!({})).await.unwrap();
    over.store(true, Ordering::Relaxed);
    perform(&client, "list_agents", json!({})).await.unwrap();
    assert_eq!(tokens(&server), ["-", "OLD", "OLD", "-", "NEW"]);
}

/// Rules: REG-024
#[tokio::test]
async fn tokens_are_refreshed_before_they_end() {
    let server = Server::start(|asked, count| match asked.target.as_str() {
        "/tokens/refresh" => ok(json!({"access_token": "FRESH"})),
        "/agents/register" => ok(json!({"access_token": "SHORT", "expires_in": 1000})),
        _ => registry(asked, count),
    })
    .await;
    let client = client(&server.url);
    let mut wanted = agent("a-1");
    wanted["agent_key"] = "key".into();
    perform(&client, "register_agent", wanted).await.unwrap();
    let beat = json!({"agent_id": "a-1"});
    later(Duration::from_secs(930)).await;
    perform(&client, "update_heartbeat", beat.clone()).await.unwrap();
    assert_eq!(tokens(&server).last().unwrap(), "SHORT");
    later(Duration::from_secs(20)).await;
    perform(&client, "update_heartbeat", beat).await.unwrap();
    assert_eq!(tokens(&server).last().unwrap(), "FRESH");
    assert_eq!(client.token().unwrap().0.expose(), "FRESH");
}

/// Rules: REG-034, REG-035
#[tokio::test]
async fn without_a_login_the_public_half_answers() {
    let server = Server::start(registry).await;
    let client = client(&server.url);
    perform(&client, "get_agent", json!({"agent_id": "a-1"})).await.unwrap();
    let alive = json!({"status": "alive", "agent_type": "testing", "capabilities": ["echo", "other"]});
    assert_eq!(perform(&client, "list_agents", alive).await.unwrap().as_array().unwrap().len(), 1);
    assert_eq!(
        server.lines(),
        [
            "GET /agents/a-1?include_metrics=true",
            "GET /public/agent/a-1",
            "GET /agents?include_metrics=false&agent_type=testing&status=alive&capabilities=echo&capabilities=other",
            "GET /public/discover?limit=100&offset=0&agent_type=testing"
        ]
    );
    let error = perform(&client, "list_agents", json!({"status": "dead"})).await.unwrap_err();
    assert_eq!((error.kind, error.status), (FailureKind::Authentication, Some(401)));
    assert!(error.to_string().contains("ARCP_ADMIN_USERNAME"), "{error}");
}

/// Rules: REG-030
#[tokio::test]
async fn a_login_that_fails_says_so() {
    let server = Server::start(|asked, _| match asked.target.as_str() {
        "/auth/login" => Reply::Json(
            401,
            json!({"type": "https://arcp.0x001.tech/docs/problems/authentication-failed", "title": "x",
                   "detail": "Invalid username or password"}),
        ),
        _ => Reply::Json(401, json!({})),
    })
    .await;
    let wrong = json!({"username": "wrong", "password": "s3cret"});
    let error = perform(&client(&server.url), "login_admin", wrong).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "Admin login failed: Authentication failed - invalid or expired token (Invalid username or password)"
    );
    assert_eq!(error.code, "authentication-failed");
    let error = perform(&with(&server.url, administrator()), "list_agents", json!({})).await.unwrap_err();
    assert!(error.to_string().contains("the login as administrator failed"), "{error}");
    assert!(!format!("{error:?}").contains("ARCP-password"));
}

/// Rules: REG-032
#[tokio::test]
async fn a_token_that_does_not_count_is_an_answer() {
    let server = Server::start(|asked, _| match asked.header("authorization") {
        Some("Bearer good") => ok(json!({"valid": true})),
        Some("Bearer known") => Reply::Json(401, json!({"valid": false, "error": "expired"})),
        _ => Reply::Json(401, json!({"detail": "Invalid token"})),
    })
    .await;
    let client = client(&server.url);
    let valid = async |token: &str| perform(&client, "validate_token", json!({"token": token})).await.unwrap();
    assert_eq!(valid("good").await, json!({"valid": true}));
    assert_eq!(valid("known").await, json!({"valid": false, "error": "expired"}));
    assert_eq!(valid("other").await, json!({"valid": false, "error": "Invalid token"}));
    assert_eq!(valid("two\nlines").await["valid"], false);
    let error = perform(&client, "validate_token", json!({})).await.unwrap_err();
    assert_eq!(error.to_string(), "Token validation failed: No token available for validation");
    perform(&member(&server.url), "validate_token", json!({"token": "good"})).await.unwrap();
}

/// Rules: REG-058
#[tokio::test]
async fn refreshing_says_whether_it_worked() {
    let server = Server::start(|asked, _| match asked.header("authorization") {
        Some("Bearer TOKEN") => ok(json!({"access_token": "R2", "token_type": "bearer"})),
        _ => Reply::Json(401, json!({})),
    })
    .await;
    let client = member(&server.url);
    assert_eq!(perform(&client, "refresh_authentication", json!({})).await.unwrap(), true);
    assert_eq!(client.token().unwrap().0.expose(), "R2");
    assert!(client.is_authenticated());
    assert_eq!(perform(&client, "refresh_authentication", json!({})).await.unwrap(), false);
    client.set_token(None, None);
    assert_eq!(perform(&client, "refresh_authentication", json!({})).await.unwrap(), false);
    assert_eq!(server.asked().len(), 2);
}

/// Rules: REG-039
#[tokio::test]
async fn an_agent_leaves_with_its_key() {
    let server = Server::start(registry).await;
    let leave = json!({"agent_id": "a-1", "agent_key": "key"});
    perform(&client(&server.url), "unregister_agent", leave).await.unwrap();
    assert_eq!(server.lines(), ["POST /auth/agent/request_temp_token", "DELETE /agents/a-1"]);
    assert_eq!(server.asked()[0].json()["agent_type"], "unknown");
    assert_eq!(tokens(&server), ["-", "TEMP-a-1"]);
}

/// Rules: REG-059, REG-190
#[tokio::test]
async fn an_agent_the_registry_forgot_is_registered_again() {
    let (forgot, told) = (Arc::new(AtomicBool::new(false)), Arc::new(tokio::sync::Notify::new()));
    let (forgets, tells) = (Arc::clone(&forgot), Arc::clone(&told));
    let server = Server::start(move |asked, count| {
        if asked.target == "/agents/register" {
            if forgets.swap(false, Ordering::Relaxed) {
                tells.notify_one();
            }
        } else if asked.target.ends_with("/heartbeat") && forgets.load(Ordering::Relaxed) {
            return Reply::Json(404, json!({}));
        }
        registry(asked, count)
    })
    .await;
    let client = client(&server.url);
    let mut wanted = agent("a-1");
    wanted["agent_key"] = "key".into();
    perform(&client, "register_agent", wanted).await.unwrap();
    let beating = {
        let client = client.clone();
        tokio::spawn(async move { client.keep_alive("a-1", 0.02).await })
    };
    forgot.store(true, Ordering::Relaxed);
    tokio::time::timeout(Duration::from_secs(5), told.notified()).await.unwrap();
    beating.abort();
    let registered = server.asked().into_iter().filter(|asked| asked.target == "/agents/register").collect::<Vec<_>>();
    assert_eq!(registered.len(), 2);
    assert_eq!(registered[0].json(), registered[1].json());
    let error = client.keep_alive("a-1", 0.0).await;
    assert!(error.to_string().contains("interval must be"), "{error}");
}
