//! The server through real sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test says so when it fails")]

use std::time::Duration;

use arcp_registry::server::config::{Config, Secret, Sources};
use arcp_registry::server::{Running, start};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

type Headers<'a> = &'a [(&'a str, &'a str)];

/// An answer.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&self.body)))
    }

    fn slug(&self) -> String {
        self.json()["type"].as_str().unwrap_or_default().rsplit('/').next().unwrap_or_default().to_owned()
    }
}

/// Sends bytes on a connection of their own and reads the answer to its end.
async fn raw(server: &Running, request: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    // The server may answer and close before it has read all.
    stream.write_all(request).await.ok();
    let mut all = Vec::new();
    tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut all)).await.unwrap().ok();
    let end = all.windows(4).position(|part| part == b"\r\n\r\n").expect("an answer");
    let head = String::from_utf8(all[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: all[end + 4..].to_vec() }
}

async fn send(server: &Running, method: &str, path: &str, headers: Headers<'_>, body: Option<&str>) -> Answer {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", server.addr);
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    if let Some(body) = body {
        text += &format!("Content-Length: {}\r\n", body.len());
    }
    text += "\r\n";
    text += body.unwrap_or_default();
    raw(server, text.as_bytes()).await
}

async fn get(server: &Running, path: &str, headers: Headers<'_>) -> Answer {
    send(server, "GET", path, headers, None).await
}

async fn post(server: &Running, path: &str, headers: Headers<'_>, body: &Value) -> Answer {
    let mut all = vec![("Content-Type", "application/json")];
    all.extend_from_slice(headers);
    send(server, "POST", path, &all, Some(&body.to_string())).await
}

fn settings(given: &[(&'static str, &str)]) -> Config {
    let mut flags = vec![("ARCP_PORT", Secret::new("0"))];
    flags.extend(given.iter().map(|(name, value)| (*name, Secret::new(*value))));
    Config::load(&Sources { dev: true, flags, ..Sources::default() }).unwrap()
}

async fn server(given: &[(&'static str, &str)]) -> Running {
    start(settings(given)).await.unwrap()
}

const FINGERPRINT: (&str, &str) = ("X-Client-Fingerprint", "fp-1");

async fn try_login(server: &Running, password: &str) -> Answer {
    post(server, "/auth/login", &[FINGERPRINT], &json!({"username": "ARCP", "password": password})).await
}

fn bearer(token: &Value) -> String {
    format!("Bearer {}", token.as_str().unwrap())
}

async fn login(server: &Running) -> String {
    let answer = try_login(server, "ARCP").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    bearer(&answer.json()["access_token"])
}

async fn temporary(server: &Running, id: &str, key: &str) -> String {
    let wish = json!({"agent_id": id, "agent_type": "testing", "agent_key": key});
    let answer = post(server, "/auth/agent/request_temp_token", &[], &wish).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    bearer(&answer.json()["temp_token"])
}

fn agent(id: &str, endpoint: &str) -> Value {
    json!({
        "agent_id": id, "name": id, "agent_type": "testing", "endpoint": endpoint, "capabilities": ["echo", "compute"],
        "context_brief": "An agent for tests of the server", "version": "1.0.0", "owner": "Tests",
        "public_key": "a-public-key-that-is-long-enough-for-it", "metadata": {"framework": "none"},
        "communication_mode": "remote",
    })
}

async fn register(server: &Running, token: &str, id: &str, endpoint: &str) -> Answer {
    post(server, "/agents/register", &[("Authorization", token), FINGERPRINT], &agent(id, endpoint)).await
}

/// Rules: REG-110, REG-112, REG-140, REG-145, REG-180
#[tokio::test]
async fn every_answer_carries_its_headers_and_health_is_healthy() {
    let server = server(&[]).await;
    let health = get(&server, "/health", &[]).await;
    assert_eq!((health.status, &health.json()["status"]), (200, &json!("healthy")));
    for path in ["/health", "/nope", "/agents", "/"] {
        let answer = get(&server, path, &[]).await;
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("x-xss-protection", "1; mode=block"),
            ("referrer-policy", "strict-origin-when-cross-origin"),
            ("cache-control", "no-store, no-cache, must-revalidate, proxy-revalidate"),
            ("vary", "Origin"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{path}");
        }
        assert_eq!(answer.header("x-request-id").map(str::len), Some(36));
        assert!(answer.header("server").unwrap().starts_with("ARCP/"));
        assert!(answer.header("x-response-time").unwrap().ends_with('s'));
        assert_eq!(answer.header("strict-transport-security"), None);
    }
    let secure = get(&server, "/", &[("X-Forwarded-Proto", "https")]).await;
    assert_eq!(secure.header("strict-transport-security"), Some("max-age=31536000; includeSubDomains; preload"));
    server.stop().await;
}

/// Rules: REG-102, REG-103, REG-104, REG-141, REG-608
#[tokio::test]
async fn exceptions_have_their_plain_forms() {
    let server = server(&[]).await;
    let missing = get(&server, "/nope", &[]).await;
    assert_eq!((missing.status, missing.json()), (404, json!({"detail": "Not Found"})));
    let wrong = send(&server, "PUT", "/health", &[], None).await;
    assert_eq!((wrong.status, wrong.json()), (405, json!({"detail": "Method Not Allowed"})));
    assert!(wrong.header("allow").unwrap().contains("GET"));
    let slash = get(&server, "/agents/?x=1", &[]).await;
    let location = format!("http://{}/agents?x=1", server.addr);
    assert_eq!((slash.status, slash.header("location")), (307, Some(location.as_str())));
    assert_eq!(get(&server, "//evil.example/", &[]).await.status, 404);
    let text = send(&server, "POST", "/public/search", &[("Content-Type", "text/plain")], Some("{}")).await;
    assert_eq!((text.status, text.slug().as_str()), (422, "validation-failed"));
    assert!(text.json()["detail"].as_str().unwrap().contains("application/json"));
    let deep = "[".repeat(500);
    let deep = send(&server, "POST", "/public/search", &[("Content-Type", "application/json")], Some(&deep)).await;
    assert!(deep.json()["detail"].as_str().unwrap().contains("nested"), "{deep:?}");
    let compliance = post(&server, "/auth/agent/validate_compliance", &[], &json!({})).await;
    assert_eq!(compliance.status, 400);
    assert!(compliance.json()["detail"].as_str().unwrap().contains("not enabled"));
    for open in ["/docs", "/redoc", "/openapi.json", "/dashboard"] {
        assert_eq!(get(&server, open, &[]).await.status, 200, "{open}");
    }
    server.stop().await;
}

/// Rules: REG-111
#[tokio::test]
async fn only_known_origins_may_call_from_a_browser() {
    let server = server(&[]).await;
    let ask = |origin: &'static str| {
        let server = &server;
        async move {
            let headers = [("Origin", origin), ("Access-Control-Request-Method", "GET")];
            send(server, "OPTIONS", "/public/discover", &headers, None).await
        }
    };
    let good = ask("http://localhost:3000").await;
    assert_eq!((good.status, good.body.as_slice()), (200, b"OK".as_slice()));
    assert_eq!(good.header("access-control-allow-origin"), Some("http://localhost:3000"));
    assert_eq!(good.header("access-control-max-age"), Some("600"));
    let bad = ask("http://evil.example").await;
    assert_eq!((bad.status, bad.header("access-control-allow-origin")), (400, None));
    let read = get(&server, "/health", &[("Origin", "http://evil.example")]).await;
    assert_eq!((read.status, read.header("access-control-allow-origin")), (200, None));
    server.stop().await;
}

/// Rules: REG-113, REG-115
#[tokio::test]
async fn requests_are_bounded_also_when_chunked() {
    let server = server(&[("MAX_JSON_SIZE", "2048")]).await;
    let query = (0..51).map(|n| format!("a{n}=1")).collect::<Vec<_>>().join("&");
    let many = get(&server, &format!("/public/discover?{query}"), &[]).await;
    assert_eq!((many.status, many.slug().as_str()), (400, "request-error"));
    assert_eq!(many.json()["max_query_params"], "50");
    let big = "y".repeat(9000);
    let headers = get(&server, "/health", &[("X-Big", &big)]).await;
    assert_eq!((headers.status, headers.slug().as_str()), (413, "headers-too-large"));
    let body = format!("{{\"query\":\"{}\"}}", "x".repeat(3000));
    let announced = send(&server, "POST", "/public/search", &[("Content-Type", "application/json")], Some(&body)).await;
    assert_eq!((announced.status, announced.slug().as_str()), (413, "request-too-large"));
    let mut chunked = format!(
        "POST /public/search HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Transfer-Encoding: chunked\r\n\r\n",
        server.addr
    );
    for chunk in body.as_bytes().chunks(500) {
        chunked += &format!("{:x}\r\n{}\r\n", chunk.len(), std::str::from_utf8(chunk).unwrap());
    }
    chunked += "0\r\n\r\n";
    let chunked = raw(&server, chunked.as_bytes()).await;
    assert_eq!((chunked.status, chunked.slug().as_str()), (413, "request-too-large"));
    server.stop().await;
}

/// Rules: REG-131, REG-134, REG-135, REG-136, REG-150, REG-157
#[tokio::test]
async fn a_session_belongs_to_its_client_and_forged_tokens_do_not_end_it() {
    let server = server(&[]).await;
    let token = login(&server).await;
    let status = async |headers: Headers<'_>| get(&server, "/auth/session_status", headers).await;
    let mine = [("Authorization", token.as_str()), FINGERPRINT];
    assert_eq!(status(&mine).await.json()["user_id"], "ARCP");
    let other = [("Authorization", token.as_str()), ("X-Client-Fingerprint", "fp-2")];
    let refused = status(&other).await;
    assert_eq!((refused.status, refused.slug().as_str()), (401, "session-invalid"));
    assert_eq!(status(&mine[..1]).await.slug(), "session-invalid");
    assert_eq!(status(&[]).await.slug(), "authentication-failed");
    // The claims of the real one under another signature.
    let (front, _) = token.rsplit_once('.').unwrap();
    let forged = format!("{front}.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    let forged = get(&server, "/agents", &[("Authorization", &forged), FINGERPRINT]).await;
    assert_eq!((forged.status, forged.slug().as_str()), (401, "token-invalid"));
    assert_eq!(status(&mine).await.status, 200, "nobody is logged out by a forgery");
    let missing = post(&server, "/auth/login", &[], &json!({"username": "ARCP", "password": "ARCP"})).await;
    assert_eq!((missing.status, missing.slug().as_str()), (400, "required-header-missing"));
    assert_eq!(post(&server, "/auth/logout", &mine, &json!({})).await.status, 200);
    assert_eq!(status(&mine).await.slug(), "session-invalid");
    server.stop().await;
}

/// Rules: REG-133, REG-163
#[tokio::test]
async fn a_refreshed_administrator_keeps_the_session() {
    let server = server(&[]).await;
    let token = login(&server).await;
    let stranger = post(&server, "/tokens/refresh", &[("Authorization", &token)], &json!({})).await;
    assert_eq!(stranger.slug(), "session-invalid");
    let fresh = post(&server, "/tokens/refresh", &[("Authorization", &token), FINGERPRINT], &json!({})).await;
    let fresh = bearer(&fresh.json()["access_token"]);
    for token in [&fresh, &token] {
        let stats = get(&server, "/agents/stats", &[("Authorization", token), FINGERPRINT]).await;
        assert_eq!(stats.status, 200, "{stats:?}");
    }
    server.stop().await;
}

/// Rules: REG-039, REG-133, REG-151, REG-170, REG-192, REG-193
#[tokio::test]
async fn a_temporary_token_registers_its_agent_once_and_opens_nothing_else() {
    let server = server(&[]).await;
    let token = temporary(&server, "temp-1", "test-agent-001").await;
    let with = [("Authorization", token.as_str())];
    assert_eq!(get(&server, "/agents", &with).await.status, 403);
    assert_eq!(post(&server, "/tokens/refresh", &with, &json!({})).await.status, 403);
    assert_eq!(register(&server, &token, "temp-2", "http://a.example").await.status, 403);
    let registered = register(&server, &token, "temp-1", "http://a.example").await;
    assert_eq!(registered.status, 200, "{registered:?}");
    assert_eq!(registered.json()["message"], "Agent 'temp-1' registered successfully");
    let own = bearer(&registered.json()["access_token"]);
    assert_eq!(register(&server, &token, "temp-1", "http://a.example").await.slug(), "duplicate-agent");
    let gone = send(&server, "DELETE", "/agents/temp-1", &[("Authorization", &own)], None).await;
    assert_eq!(gone.json()["unregistered_by"], "agent (self)");
    let other = temporary(&server, "temp-1", "test-agent-002").await;
    let fresh = temporary(&server, "temp-1", "test-agent-001").await;
    assert_eq!(register(&server, &fresh, "temp-1", "http://a.example").await.status, 200);
    let key = temporary(&server, "temp-1", "test-agent-001").await;
    let by =
        async |token: &str| send(&server, "DELETE", "/agents/temp-1", &[("Authorization", token)], None).await.status;
    assert_eq!((by(&other).await, by(&key).await), (403, 200), "the key it registered with, and no other");
    let again = register(&server, &token, "temp-1", "http://a.example").await;
    assert_eq!(again.status, 403, "it is used up: {again:?}");
    let beat = post(&server, "/agents/temp-1/heartbeat", &[("Authorization", &own)], &json!({})).await;
    assert_eq!((beat.status, beat.slug().as_str()), (404, "agent-not-found"));
    server.stop().await;
}

/// Rules: REG-152
#[tokio::test]
async fn all_agent_keys_count_at_full_length() {
    let keys: Vec<String> = (1..=10).map(|n| format!("{}-{n:04}", "k".repeat(80))).collect();
    let server = server(&[("AGENT_KEYS", &keys.join(","))]).await;
    for (n, key) in keys.iter().enumerate() {
        temporary(&server, &format!("agent-{n}"), key).await;
    }
    let wish = json!({"agent_id": "x-1", "agent_type": "testing", "agent_key": "k".repeat(80)});
    assert_eq!(post(&server, "/auth/agent/request_temp_token", &[], &wish).await.status, 401);
    server.stop().await;
}

/// Rules: REG-120, REG-121, REG-123, REG-124, REG-125, REG-126
#[tokio::test]
async fn failed_logins_wait_then_lock_and_malformed_requests_clear_nothing() {
    let server = server(&[("RATE_LIMIT_BURST", "3")]).await;
    let began = std::time::Instant::now();
    login(&server).await;
    let success = began.elapsed();
    let began = std::time::Instant::now();
    assert_eq!(try_login(&server, "bad").await.status, 401);
    assert!(began.elapsed() >= Duration::from_millis(400), "failures are slowed");
    assert!(success < Duration::from_millis(1800), "success is not");
    let malformed =
        send(&server, "POST", "/auth/agent/request_temp_token", &[("Content-Type", "application/json")], Some("{bad"));
    assert_eq!(malformed.await.status, 422);
    assert_eq!(try_login(&server, "bad").await.status, 401);
    let waits = try_login(&server, "ARCP").await;
    assert_eq!((waits.status, waits.slug().as_str()), (429, "rate-limit-exceeded"));
    let retry: u64 = waits.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=2).contains(&retry), "{waits:?}");
    assert_eq!(waits.header("x-ratelimit-limit"), Some("3"));
    assert_eq!(waits.header("x-ratelimit-remaining"), Some("0"));
    assert!(waits.header("x-ratelimit-reset").is_some());
    assert_eq!(waits.json()["attempt_type"], "login");
    // A third account from here locks the address.
    let third = post(&server, "/auth/login", &[FINGERPRINT], &json!({"username": "eve", "password": "guess"})).await;
    assert_eq!(third.status, 401);
    let locked = post(
        &server,
        "/auth/agent/request_temp_token",
        &[],
        &json!({"agent_id": "a-1", "agent_type": "testing", "agent_key": "test-agent-001"}),
    )
    .await;
    assert_eq!(locked.status, 429);
    assert!(locked.json()["detail"].as_str().unwrap().contains("Temporarily locked out"));
    assert_eq!(get(&server, "/public/stats", &[]).await.status, 200, "others are not concerned");
    server.stop().await;
}

/// Rules: REG-154, REG-155, REG-156, REG-408
#[tokio::test]
async fn a_pin_is_asked_for_by_the_server_once_it_is_set() {
    let server = server(&[]).await;
    let token = login(&server).await;
    let mine = [("Authorization", token.as_str()), FINGERPRINT];
    for id in ["pin-1", "pin-2"] {
        assert_eq!(register(&server, &token, id, "http://a.example").await.status, 200);
    }
    let without = send(&server, "DELETE", "/agents/pin-1", &mine, None).await;
    assert_eq!(without.status, 200, "no PIN is set yet");
    assert_eq!(post(&server, "/auth/verify_pin", &mine, &json!({"pin": "4821"})).await.slug(), "pin-not-set");
    assert_eq!(post(&server, "/auth/set_pin", &mine, &json!({"pin": "1234"})).await.status, 422);
    assert_eq!(post(&server, "/auth/set_pin", &mine, &json!({"pin": "48213"})).await.status, 200);
    assert_eq!(post(&server, "/auth/set_pin", &mine, &json!({"pin": "48213"})).await.slug(), "pin-already-set");
    assert_eq!(get(&server, "/auth/pin_status", &mine).await.json(), json!({"pin_set": true}));
    assert_eq!(send(&server, "DELETE", "/agents/pin-2", &mine, None).await.slug(), "pin-required");
    let pin = |pin: &'static str| [mine[0], mine[1], ("X-Session-Pin", pin)];
    assert_eq!(send(&server, "DELETE", "/agents/pin-2", &pin("99991"), None).await.slug(), "pin-incorrect");
    assert_eq!(send(&server, "DELETE", "/agents/pin-2", &pin("48213"), None).await.status, 200);
    assert_eq!(post(&server, "/auth/verify_pin", &mine, &json!({"pin": "48213"})).await.status, 200);
    server.stop().await;
}

/// An agent that answers one request with this, and gives what it was sent.
async fn endpoint(answer: &'static str) -> (String, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/ok", listener.local_addr().unwrap());
    let heard = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut heard = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let count = stream.read(&mut buffer).await.unwrap();
            heard.extend_from_slice(&buffer[..count]);
            let text = String::from_utf8_lossy(&heard);
            let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
            if count == 0 || serde_json::from_str::<Value>(body).is_ok() {
                break;
            }
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(heard).unwrap()
    });
    (url, heard)
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
const MOVED: &str =
    "HTTP/1.1 307 Moved\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// Rules: REG-186, REG-195
#[tokio::test]
async fn a_connection_request_reaches_the_agent() {
    let server = server(&[]).await;
    let token = login(&server).await;
    let (url, heard) = endpoint(OK).await;
    register(&server, &token, "near-1", &url).await;
    let wish = json!({"user_id": "a.b@example.com", "user_endpoint": "https://my-app.example.com/callback"});
    let answer = post(&server, "/public/connect/near-1", &[], &wish).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["request_id"], "pub_near-1_a-b-example-com");
    let heard = heard.await.unwrap();
    assert!(heard.starts_with("POST /ok/connection/request HTTP/1.1\r\n"), "{heard}");
    assert!(heard.to_ascii_lowercase().contains("user-agent: arcp-public-api/1.0"), "{heard}");
    assert!(heard.contains("\"user_display_name\":\"Anonymous User\""), "{heard}");
    let (url, _heard) = endpoint(MOVED).await;
    register(&server, &token, "near-2", &url).await;
    let moved = post(&server, "/public/connect/near-2", &[], &wish).await;
    assert_eq!((moved.status, moved.slug().as_str()), (502, "endpoint-unreachable"));
    assert_eq!(moved.json()["status_code"], "307", "a redirect is not followed");
    register(&server, &token, "near-3", "http://127.0.0.1:1/none").await;
    let unreachable = post(&server, "/public/connect/near-3", &[], &wish).await;
    assert_eq!((unreachable.status, unreachable.slug().as_str()), (502, "endpoint-unreachable"));
    assert_eq!(post(&server, "/public/connect/none-such", &[], &wish).await.slug(), "agent-not-found");
    server.stop().await;
}

/// Rules: REG-182, REG-196
#[tokio::test]
async fn inner_hosts_are_not_called_unless_allowed() {
    let server = server(&[("ARCP_CONNECT_ALLOW", "203.0.113.0/24")]).await;
    let token = login(&server).await;
    let with = [("Authorization", token.as_str()), FINGERPRINT];
    let inner = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = inner.local_addr().unwrap().port();
    for (n, host) in ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "2130706433"].iter().enumerate() {
        let id = format!("inner-{n}");
        let registered = register(&server, &token, &id, &format!("http://{host}:{port}/x")).await;
        assert_eq!(registered.status, 200, "{registered:?}");
        let note = json!({"agent_id": "a-1", "agent_endpoint": "http://a.example"});
        let refused = post(&server, &format!("/agents/{id}/connection/notify"), &with, &note).await;
        assert_eq!((refused.status, refused.slug().as_str()), (502, "endpoint-unreachable"), "{host}");
        assert!(refused.json()["detail"].as_str().unwrap().contains("ARCP_CONNECT_ALLOW"), "{refused:?}");
    }
    let knocked = tokio::time::timeout(Duration::from_millis(50), inner.accept()).await;
    assert!(knocked.is_err(), "nothing was connected to");
    let empty = post(&server, "/agents/inner-0/connection/notify", &with, &json!({})).await;
    assert_eq!((empty.status, empty.slug().as_str()), (400, "invalid-input"));
    server.stop().await;
}

/// Rules: REG-114
#[tokio::test]
async fn refused_addresses_hear_so() {
    let server = server(&[("BLOCKED_IPS", "127.0.0.0/8")]).await;
    let blocked = get(&server, "/health", &[]).await;
    assert_eq!((blocked.status, blocked.slug().as_str()), (403, "insufficient-permissions"));
    assert_eq!(blocked.json()["client_ip"], "127.0.0....");
    server.stop().await;
}

/// Rules: REG-143, REG-144, REG-202
#[tokio::test]
async fn figures_are_for_administrators_and_the_scraper() {
    let server = server(&[("METRICS_SCRAPE_TOKEN", "scrape-token")]).await;
    let token = login(&server).await;
    get(&server, "/never/heard/of", &[]).await;
    let text = get(&server, "/metrics", &[("Authorization", &token), FINGERPRINT]).await;
    let text = String::from_utf8(text.body).unwrap();
    for line in [
        "arcp_requests_total{method=\"GET\",endpoint=\"unmatched\",status_code=\"404\"} 1",
        "arcp_auth_attempts_total{status=\"success\",auth_type=\"login\"} 1",
        "arcp_system_memory_utilization_percent ",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert_eq!(get(&server, "/metrics/scrape", &[]).await.status, 401);
    assert_eq!(get(&server, "/metrics/scrape", &[("Authorization", "Bearer nope")]).await.status, 403);
    assert_eq!(get(&server, "/metrics/scrape", &[("Authorization", "Bearer scrape-token")]).await.status, 200);
    server.stop().await;
}

/// Rules: REG-134, REG-201
#[tokio::test]
async fn agents_sessions_and_the_signing_secret_are_back_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.db");
    let sources = || Sources {
        flags: vec![
            ("ARCP_PORT", Secret::new("0")),
            ("ARCP_REGISTRY_DB", Secret::new(path.to_str().unwrap())),
            ("ADMIN_USERNAME", Secret::new("ARCP")),
            ("ADMIN_PASSWORD", Secret::new("ARCP")),
        ],
        ..Sources::default()
    };
    let first = start(Config::load(&sources()).unwrap()).await.unwrap();
    let token = login(&first).await;
    assert_eq!(register(&first, &token, "kept-1", "http://a.example").await.status, 200);
    first.stop().await;
    let second = start(Config::load(&sources()).unwrap()).await.unwrap();
    let mine = [("Authorization", token.as_str()), FINGERPRINT];
    assert_eq!(get(&second, "/auth/session_status", &mine).await.status, 200, "the session goes on");
    assert_eq!(get(&second, "/public/agent/kept-1", &[]).await.json()["name"], "kept-1");
    second.stop().await;
    let files: Vec<u8> = std::fs::read_dir(folder.path())
        .unwrap()
        .flat_map(|file| std::fs::read(file.unwrap().path()).unwrap())
        .collect();
    let secret = token.trim_start_matches("Bearer ").as_bytes();
    assert!(!files.windows(secret.len()).any(|part| part == secret), "no token on the disk");
}

/// Rules: REG-501
#[tokio::test]
async fn a_taken_port_is_told_with_its_remedy() {
    let first = server(&[]).await;
    let port = first.addr.port().to_string();
    let second = start(settings(&[("ARCP_PORT", &port)])).await.unwrap_err().to_string();
    assert!(second.contains("another program listens there") && second.contains("--port"), "{second}");
    first.stop().await;
}

/// A stop answers what is being asked, and ends what is not.
#[tokio::test]
async fn a_stop_is_prompt_with_idle_connections() {
    let server = server(&[]).await;
    let mut idle = TcpStream::connect(server.addr).await.unwrap();
    idle.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut some = [0; 16];
    idle.read_exact(&mut some).await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), server.stop()).await.unwrap();
}

/// What the server sends on a connection that stays open.
async fn heard(server: &Running, said: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    stream.write_all(said).await.unwrap();
    let mut start = vec![0; 64];
    let count =
        tokio::time::timeout(Duration::from_secs(10), stream.read(&mut start)).await.expect("an answer").unwrap();
    String::from_utf8_lossy(&start[..count]).into_owned()
}

/// Rules: REG-102
#[tokio::test]
async fn an_answer_does_not_wait_for_the_rest_of_the_next_request() {
    let server = server(&[]).await;
    for next in ["GET /hea", "\r\n", "X"] {
        let answer = heard(&server, format!("GET /health HTTP/1.1\r\nHost: x\r\n\r\n{next}").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{next:?}: {answer}");
    }
}

/// Rules: REG-102
#[tokio::test]
async fn what_is_no_request_is_told_so() {
    let server = server(&[]).await;
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(70_000));
    let many = format!("GET /health HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(150));
    for (said, status) in
        [("GE(T /health HTTP/1.1\r\n\r\n", "400"), ("garbage\r\n\r\n", "400"), (&many, "431"), (&long, "414")]
    {
        let answer = heard(&server, said.as_bytes()).await;
        assert_eq!(answer.split(' ').nth(1), Some(status), "{answer}");
    }
    let odd = get(&server, "/public/agent/%FF", &[]).await;
    assert_eq!((odd.status, odd.json()), (404, json!({"detail": "Not Found"})));
    assert_eq!(get(&server, "/public/agent/%C3%A4%", &[]).await.slug(), "agent-not-found");
}

/// Rules: REG-134
#[tokio::test]
async fn another_password_in_the_settings_ends_the_sessions_of_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("r.db").display().to_string();
    let with = |name: &'static str, password: &'static str| {
        let db = db.clone();
        async move {
            let secret = "0123456789abcdef0123456789abcdef";
            let (user, password) = (("ADMIN_USERNAME", name), ("ADMIN_PASSWORD", password));
            server(&[("ARCP_REGISTRY_DB", &db), ("JWT_SECRET", secret), user, password]).await
        }
    };
    let status = async |server: &Running, token: &str| {
        get(server, "/auth/session_status", &[("Authorization", token), FINGERPRINT]).await.status
    };
    let first = with("ARCP", "ARCP").await;
    let token = login(&first).await;
    first.stop().await;
    let same = with("ARCP", "ARCP").await;
    assert_eq!(status(&same, &token).await, 200, "a restart ends no session");
    same.stop().await;
    let other = with("ARCP", "another-password").await;
    assert_eq!(status(&other, &token).await, 401);
    assert_eq!(try_login(&other, "ARCP").await.status, 401);
    let answer = try_login(&other, "another-password").await;
    let token = bearer(&answer.json()["access_token"]);
    other.stop().await;
    let renamed = with("somebody", "another-password").await;
    assert_eq!(status(&renamed, &token).await, 401, "nobody has this name any more");
    renamed.stop().await;
}

/// Rules: REG-163, REG-174, REG-193
#[tokio::test]
async fn an_earlier_agent_of_the_same_id_has_no_say_over_the_one_of_now() {
    let server = server(&[]).await;
    let endpoint = "http://127.0.0.1:9/";
    let join = async |key: &str| {
        let answer = register(&server, &temporary(&server, "shared-id", key).await, "shared-id", endpoint).await;
        bearer(&answer.json()["access_token"])
    };
    let first = join("test-agent-001").await;
    assert_eq!(post(&server, "/tokens/refresh", &[("Authorization", &first)], &json!({})).await.status, 200);
    assert_eq!(send(&server, "DELETE", "/agents/shared-id", &[("Authorization", &first)], None).await.status, 200);
    let gone = post(&server, "/tokens/refresh", &[("Authorization", &first)], &json!({})).await;
    assert_eq!((gone.status, gone.slug().as_str()), (401, "token-invalid"));
    let second = join("test-agent-002").await;
    for (method, path) in [
        ("DELETE", "/agents/shared-id"),
        ("POST", "/agents/shared-id/heartbeat"),
        ("POST", "/agents/shared-id/metrics/compat?response_time=1&success=false"),
        ("GET", "/agents/shared-id/metrics"),
    ] {
        assert_eq!(
            send(&server, method, path, &[("Authorization", &first)], None).await.status,
            403,
            "{method} {path}"
        );
    }
    assert_eq!(post(&server, "/tokens/refresh", &[("Authorization", &first)], &json!({})).await.status, 401);
    let beat = post(&server, "/agents/shared-id/heartbeat", &[("Authorization", &second)], &json!({})).await;
    assert_eq!(beat.status, 200);
}

/// Rules: REG-193
#[tokio::test]
async fn a_key_has_one_agent_however_it_registers() {
    let server = server(&[]).await;
    let endpoint = "http://127.0.0.1:9/";
    let answer = register(&server, &temporary(&server, "one-1", "test-agent-001").await, "one-1", endpoint).await;
    let own = bearer(&answer.json()["access_token"]);
    let leave = async || send(&server, "DELETE", "/agents/one-1", &[("Authorization", &own)], None).await.status;
    assert_eq!(leave().await, 200);
    // By its own token it comes back with its key, which nobody else can use then.
    assert_eq!(register(&server, &own, "one-1", endpoint).await.status, 200);
    let other = temporary(&server, "two-2", "test-agent-001").await;
    assert_eq!(register(&server, &other, "two-2", endpoint).await.status, 400);
    assert_eq!(leave().await, 200);
    assert_eq!(register(&server, &other, "two-2", endpoint).await.status, 200);
    let refused = register(&server, &own, "one-1", endpoint).await;
    assert_eq!((refused.status, refused.slug().as_str()), (400, "agent-registration-failed"));
}
