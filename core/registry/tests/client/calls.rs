//! Each call of the contract as it stands on the wire, as the published client was recorded.

use arcp_registry::client::{Area, FailureKind};
use serde_json::{Value, json};

use super::server::{Reply, Server, ok};
use super::{client, member, perform};

fn agent() -> Value {
    json!({"agent_id": "a-1", "name": "Agent A", "status": "alive"})
}

/// What is called, with which arguments, and the request it makes: method, target, body and whether it carries a token.
fn table() -> Vec<(&'static str, Value, &'static str, Value, bool)> {
    let one = json!({"agent_id": "a-1"});
    let all = json!({"query": "some query", "top_k": 5, "min_similarity": 0.3, "capabilities": ["echo"], "weighted": true,
                     "agent_type": "testing"});
    let plain = json!({"query": "some query", "top_k": 3, "min_similarity": 0.5, "weighted": false});
    let private = json!({"query": "some query", "public_api": false});
    let connect = json!({"agent_id": "a-1", "user_id": "u1", "user_endpoint": "http://u.example"});
    let connected = json!({"user_id": "u1", "user_endpoint": "http://u.example", "display_name": "Anonymous User",
                           "additional_info": {}});
    let filter =
        json!({"agent_type": "testing", "status": "alive", "capabilities": ["x", "y"], "include_metrics": true});
    let page = json!({"agent_type": "testing", "capabilities": ["a", "b"], "limit": 10, "offset": 20});
    let no = Value::Null;
    vec![
        ("health_check", json!({}), "GET /health", no.clone(), false),
        ("get_system_info", json!({}), "GET /", no.clone(), false),
        ("get_public_stats", json!({}), "GET /public/stats", no.clone(), false),
        ("get_allowed_agent_types", json!({}), "GET /public/agent_types", no.clone(), false),
        ("get_agent", one.clone(), "GET /agents/a-1?include_metrics=true", no.clone(), true),
        (
            "get_agent",
            json!({"agent_id": "a-1", "include_metrics": false}),
            "GET /agents/a-1?include_metrics=false",
            no.clone(),
            true,
        ),
        (
            "list_agents",
            filter,
            "GET /agents?include_metrics=true&agent_type=testing&status=alive&capabilities=x&capabilities=y",
            no.clone(),
            true,
        ),
        ("list_agents", json!({}), "GET /agents?include_metrics=false", no.clone(), true),
        ("update_heartbeat", one.clone(), "POST /agents/a-1/heartbeat", no.clone(), true),
        (
            "update_metrics",
            json!({"agent_id": "a-1", "metrics_data": {"total_requests": 1}}),
            "POST /agents/a-1/metrics",
            json!({"total_requests": 1}),
            true,
        ),
        ("get_metrics", one.clone(), "GET /agents/a-1/metrics", no.clone(), true),
        ("unregister_agent", one.clone(), "DELETE /agents/a-1", no.clone(), true),
        ("search_agents", json!({"query": "some query"}), "POST /public/search", plain.clone(), false),
        ("search_agents", all.clone(), "POST /public/search", all, false),
        ("search_agents", private, "POST /agents/search", plain, true),
        ("discover_agents", json!({}), "GET /public/discover?limit=50&offset=0", no.clone(), false),
        (
            "discover_agents",
            page,
            "GET /public/discover?limit=10&offset=20&agent_type=testing&capabilities=a&capabilities=b",
            no.clone(),
            false,
        ),
        ("get_public_agent", one, "GET /public/agent/a-1", no.clone(), false),
        ("request_agent_connection", connect, "POST /public/connect/a-1", connected, false),
        ("get_system_metrics", json!({}), "GET /metrics", no.clone(), true),
        ("get_system_stats", json!({}), "GET /agents/stats", no, true),
    ]
}

/// Rules: REG-013, REG-025, REG-026, REG-034, REG-035, REG-036, REG-037, REG-038, REG-039, REG-040, REG-041, REG-042
/// Rules: REG-043, REG-044, REG-045, REG-046, REG-047, REG-048, REG-049
#[tokio::test]
async fn each_call_is_the_request_of_the_contract() {
    for (name, arguments, line, body, authorized) in table() {
        let server = Server::script(vec![|| ok(json!([]))]).await;
        let client = member(&server.url);
        perform(&client, name, arguments).await.unwrap();
        let asked = server.asked();
        assert_eq!(server.lines(), [line], "{name}");
        assert_eq!(asked[0].json(), body, "{name}");
        assert_eq!(asked[0].header("authorization"), authorized.then_some("Bearer TOKEN"), "{name}");
        assert_eq!(asked[0].header("user-agent"), Some("ARCPClient/2.0.3"));
        assert_eq!(asked[0].header("x-client-fingerprint"), Some(client.fingerprint()));
        assert_eq!(asked[0].header("content-type").is_some(), !body.is_null(), "{name}");
    }
}

/// Rules: REG-021, REG-023, REG-030 to REG-049
#[tokio::test]
async fn each_failure_begins_with_the_words_of_its_call() {
    let server = Server::script(vec![|| Reply::Json(400, json!({"detail": "the detail"}))]).await;
    let client = member(&server.url);
    let told = async |name: &str, arguments: Value| perform(&client, name, arguments).await.unwrap_err();
    let one = json!({"agent_id": "zz"});
    for (name, arguments, prefix) in [
        ("login_admin", json!({"username": "U", "password": "P"}), "Admin login failed"),
        (
            "request_temp_token",
            json!({"agent_id": "a-1", "agent_type": "testing", "agent_key": "key"}),
            "Temporary token request failed",
        ),
        ("get_agent", one.clone(), "Failed to get agent zz"),
        ("list_agents", json!({}), "Failed to list agents"),
        ("update_heartbeat", one.clone(), "Failed to update heartbeat for zz"),
        ("get_metrics", one.clone(), "Failed to get metrics for zz"),
        ("unregister_agent", one.clone(), "Failed to unregister agent zz"),
        ("get_public_agent", one, "Failed to get public agent zz"),
        ("search_agents", json!({"query": "some query"}), "Agent search failed"),
        ("discover_agents", json!({}), "Agent discovery failed"),
        ("get_system_info", json!({}), "Failed to get system info"),
        ("get_public_stats", json!({}), "Failed to get public stats"),
        ("get_allowed_agent_types", json!({}), "Failed to get allowed agent types"),
        ("get_system_metrics", json!({}), "Failed to get system metrics"),
        ("get_system_stats", json!({}), "Failed to get system stats"),
        ("health_check", json!({}), "Health check failed"),
    ] {
        assert_eq!(told(name, arguments).await.to_string(), format!("{prefix}: Request failed: the detail"));
    }
    assert_eq!(told("search_agents", json!({"query": "some query"})).await.area, Area::Search);
    let error = told("search_agents", json!({"query": "x"})).await;
    assert_eq!((error.area, error.kind), (Area::Search, FailureKind::Invalid));
    assert!(error.to_string().starts_with("Invalid search parameters: query"), "{error}");
    let bad = json!({"agent_id": "a-1", "user_id": "u 1", "user_endpoint": "u.example"});
    let error = told("request_agent_connection", bad).await;
    assert!(error.to_string().starts_with("Invalid connection request: "), "{error}");
}

/// Rules: REG-014, REG-025
#[tokio::test]
async fn prefixes_are_kept_and_ids_encoded() {
    let server = Server::script(vec![|| ok(json!({}))]).await;
    let client = member(&format!("{}/registry/", server.url));
    perform(&client, "health_check", json!({})).await.unwrap();
    perform(&client, "get_agent", json!({"agent_id": "../b?c#d e"})).await.unwrap();
    assert_eq!(
        server.lines(),
        ["GET /registry/health", "GET /registry/agents/..%2Fb%3Fc%23d%20e?include_metrics=true"]
    );
}

/// Rules: REG-040, REG-041
#[tokio::test]
async fn lists_come_out_of_their_wrappers() {
    let server = Server::start(|asked, _| match asked.target.as_str() {
        "/public/search" => ok(json!({"results": [{"id": "a-1"}]})),
        _ => ok(json!({"agents": [agent()], "total": 1})),
    })
    .await;
    let client = client(&server.url);
    let found = perform(&client, "search_agents", json!({"query": "some query"})).await.unwrap();
    assert_eq!(found, json!([{"id": "a-1"}]));
    assert_eq!(perform(&client, "discover_agents", json!({})).await.unwrap(), json!([agent()]));
}

/// Rules: REG-048, REG-050, REG-051
#[tokio::test]
async fn figures_are_read_from_the_text_of_the_registry() {
    const TEXT: &str = "arcp_system_cpu_utilization_percent 5.0\narcp_system_memory_utilization_percent 10.0\n\
                        arcp_system_network_utilization_percent 1.0\narcp_system_disk_utilization_percent 40.0\n";
    let server = Server::start(|asked, _| match asked.target.as_str() {
        "/metrics" => Reply::Raw(200, "", TEXT.to_owned()),
        _ => ok(json!({"registry_statistics": {}})),
    })
    .await;
    let client = member(&server.url);
    assert_eq!(perform(&client, "get_system_metrics", json!({})).await.unwrap(), TEXT);
    let utilization = json!({"cpu": 5.0, "memory": 10.0, "network": 1.0, "disk": 40.0});
    assert_eq!(perform(&client, "get_resource_utilization", json!({})).await.unwrap(), utilization);
    let snapshot = perform(&client, "get_metrics_snapshot", json!({})).await.unwrap();
    assert_eq!(snapshot["resource_utilization"], utilization);
    assert_eq!(snapshot["agent_stats"], json!({"registry_statistics": {}}));
    let server = Server::script(vec![|| Reply::Raw(200, "", "none".to_owned())]).await;
    let error = perform(&member(&server.url), "get_resource_utilization", json!({})).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "Failed to get resource utilization: Resource utilization metrics not found in system metrics"
    );
}

/// Rules: REG-011, REG-025
#[tokio::test]
async fn any_request_can_be_made() {
    let server = Server::script(vec![|| ok(json!({"a": 1}))]).await;
    let client = member(&server.url);
    let request = json!({"method": "post", "endpoint": "agents/x y?z=1", "json": {"b": 2},
                         "params": {"list": ["p", "q"], "no": null, "yes": true, "n": 3}, "headers": {"X-More": "v"}});
    assert_eq!(perform(&client, "request", request).await.unwrap(), json!({"a": 1}));
    let open = json!({"method": "GET", "endpoint": "/open", "public_api": true});
    perform(&client, "request", open).await.unwrap();
    let asked = server.asked();
    assert_eq!(server.lines()[0], "POST /agents/x%20y?z=1&list=p&list=q&n=3&yes=true");
    assert_eq!((asked[0].json(), asked[0].header("x-more")), (json!({"b": 2}), Some("v")));
    assert_eq!(asked[0].header("authorization"), Some("Bearer TOKEN"));
    assert_eq!(asked[1].header("authorization"), None);
    let away = json!({"method": "GET", "endpoint": "http://elsewhere.example/x"});
    let error = perform(&client, "request", away).await.unwrap_err();
    assert!(error.to_string().contains("endpoint must be a path"), "{error}");
    assert_eq!(server.asked().len(), 2);
}
