//! What goes wrong between client and registry.

use std::time::{Duration, Instant};

use arcp_registry::client::{FailureKind, RegistryClient, RegistryOptions};
use serde_json::json;

use super::server::{Reply, Server, ok};
use super::{client, member, options, perform};

/// Rules: REG-020
#[tokio::test]
async fn a_registry_that_is_busy_is_asked_again() {
    for status in [502, 503, 504, 429] {
        let server = Server::start(move |_, count| match count {
            0 | 1 => Reply::Json(status, json!({})),
            _ => ok(json!({"status": "healthy"})),
        })
        .await;
        assert_eq!(perform(&client(&server.url), "health_check", json!({})).await.unwrap()["status"], "healthy");
        assert_eq!(server.asked().len(), 3);
    }
}

/// Rules: REG-020
#[tokio::test]
async fn tries_are_bounded_and_the_last_answer_is_told() {
    let server = Server::script(vec![|| Reply::Json(503, json!({"detail": "down"}))]).await;
    let error = perform(&client(&server.url), "health_check", json!({})).await.unwrap_err();
    assert_eq!(error.to_string(), "Health check failed: Server error: 503");
    assert_eq!((error.kind, error.status), (FailureKind::Server, Some(503)));
    assert_eq!(server.asked().len(), 4);
}

/// Rules: REG-020
#[tokio::test]
async fn a_wait_that_is_asked_for_is_kept_or_told() {
    let server = Server::start(|_, count| match count {
        0 => Reply::Raw(503, "retry-after: 0\r\n", String::new()),
        1 => Reply::Raw(429, "retry-after: 3600\r\n", String::new()),
        _ => ok(json!({})),
    })
    .await;
    let error = perform(&client(&server.url), "health_check", json!({})).await.unwrap_err();
    assert_eq!(error.to_string(), "Health check failed: Rate limit exceeded");
    assert_eq!(error.retry_after, Some(Duration::from_secs(3600)));
    assert_eq!(server.asked().len(), 2, "an hour is longer than any wait may be");
}

/// Rules: REG-020
#[tokio::test]
async fn what_may_have_been_done_is_not_done_again() {
    let server = Server::script(vec![|| Reply::Json(503, json!({}))]).await;
    let client = member(&server.url);
    let login = json!({"username": "U", "password": "P"});
    let connect = json!({"agent_id": "a-1", "user_id": "u1", "user_endpoint": "http://u.example"});
    for (name, arguments) in [
        ("login_admin", login),
        ("unregister_agent", json!({"agent_id": "a-1"})),
        ("request_agent_connection", connect),
    ] {
        let before = server.asked().len();
        perform(&client, name, arguments).await.unwrap_err();
        assert_eq!(server.asked().len(), before + 1, "{name}");
    }
    let before = server.asked().len();
    perform(&client, "update_heartbeat", json!({"agent_id": "a-1"})).await.unwrap_err();
    assert_eq!(server.asked().len(), before + 4, "one beat more does no harm");
}

/// Rules: REG-020
#[tokio::test]
async fn a_silent_registry_is_given_up_and_asked_again() {
    let server = Server::start(|_, count| if count < 2 { Reply::Silence } else { ok(json!({"status": "ok"})) }).await;
    let timeout = Duration::from_millis(200);
    let client = RegistryClient::new(RegistryOptions { timeout, ..options(&server.url) });
    assert_eq!(perform(&client, "health_check", json!({})).await.unwrap()["status"], "ok");
    let server = Server::script(vec![|| Reply::Silence]).await;
    let client = RegistryClient::new(RegistryOptions { timeout, retry_attempts: 1, ..options(&server.url) });
    let error = perform(&client, "health_check", json!({})).await.unwrap_err();
    assert_eq!(error.kind, FailureKind::Timeout);
    assert!(error.to_string().starts_with("Health check failed: Request timed out: "), "{error}");
    assert_eq!(server.asked().len(), 2);
}

/// Rules: REG-020
#[tokio::test]
async fn an_answer_that_breaks_off_is_no_answer() {
    for reply in [|| Reply::Cut, || Reply::Drop] as [fn() -> Reply; 2] {
        let server = Server::script(vec![reply]).await;
        let error = perform(&client(&server.url), "health_check", json!({})).await.unwrap_err();
        assert_eq!(error.kind, FailureKind::Connection, "{error}");
        assert!(error.to_string().contains("closed the connection before its answer was complete"), "{error}");
        assert_eq!(server.asked().len(), 1, "a dropped connection is not tried again");
    }
}

#[tokio::test]
async fn an_idle_connection_that_was_closed_is_replaced_silently() {
    let server = Server::start(|_, _| Reply::ThenClose(json!({"status": "ok"}))).await;
    let client = client(&server.url);
    for _ in 0..5 {
        assert_eq!(perform(&client, "health_check", json!({})).await.unwrap()["status"], "ok");
    }
    assert_eq!(server.asked().len(), 5);
}

/// Rules: REG-012
#[tokio::test]
async fn connections_are_used_again_until_they_are_closed() {
    let server = Server::script(vec![|| ok(json!({}))]).await;
    let client = client(&server.url);
    for _ in 0..5 {
        perform(&client, "health_check", json!({})).await.unwrap();
    }
    assert_eq!(server.connections(), 1);
    client.close();
    client.close();
    perform(&client, "health_check", json!({})).await.unwrap();
    assert_eq!(server.connections(), 2);
}

/// Rules: REG-010, REG-020
#[tokio::test]
async fn nobody_there_is_told_with_the_address() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let begun = Instant::now();
    let error = perform(&client(&url), "health_check", json!({})).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(error.kind, FailureKind::Connection);
    assert!(error.to_string().starts_with("Health check failed: Connection failed: "), "{error}");
    assert!(error.to_string().contains(&url), "{error}");
    let error = perform(&client("localhost:8001"), "health_check", json!({})).await.unwrap_err();
    assert!(error.to_string().contains("base_url"), "{error}");
}

/// Rules: REG-021
#[tokio::test]
async fn a_redirect_takes_no_token_elsewhere() {
    let other = Server::script(vec![|| ok(json!({}))]).await;
    let location = Box::leak(format!("location: {}/agents\r\n", other.url).into_boxed_str());
    let location: &'static str = location;
    let server = Server::start(move |_, _| Reply::Raw(307, location, String::new())).await;
    let error = perform(&member(&server.url), "list_agents", json!({})).await.unwrap_err();
    assert!(error.to_string().contains("HTTP 307") && error.to_string().contains("base_url"), "{error}");
    assert!(other.asked().is_empty());
}

#[tokio::test]
async fn an_answer_of_another_shape_is_told_without_its_secrets() {
    let server = Server::script(vec![|| ok(json!({"access_token": {"s3cret": 1}}))]).await;
    let error = perform(&client(&server.url), "login_admin", json!({"username": "U", "password": "s3cret"})).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind, FailureKind::Answer);
    assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
    let server = Server::script(vec![|| Reply::Raw(200, "", "<html>".into())]).await;
    let error = perform(&client(&server.url), "discover_agents", json!({})).await.unwrap_err();
    assert_eq!(error.to_string(), "Agent discovery failed: the answer holds no list of agents");
}

#[tokio::test]
async fn a_call_that_is_dropped_is_given_up() {
    let server = Server::start(|_, count| if count == 0 { Reply::Silence } else { ok(json!({})) }).await;
    let client = client(&server.url);
    let call = perform(&client, "health_check", json!({}));
    assert!(tokio::time::timeout(Duration::from_millis(200), call).await.is_err());
    perform(&client, "health_check", json!({})).await.unwrap();
    assert_eq!(server.connections(), 2, "an answer that may still come belongs to nobody else");
}
