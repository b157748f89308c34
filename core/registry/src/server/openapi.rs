//! The OpenAPI document: every endpoint with its statuses, and every model with its bounds and an example.

use serde_json::{Map, Value, json};

use super::VERSION;
use super::config::Config;

/// Who may call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Public,
    /// Any token that is ours.
    Bearer,
    Agent,
    /// The agent it is about, or an administrator.
    Itself,
    Admin,
    Scrape,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Level::Public => "public",
            Level::Bearer => "any token",
            Level::Agent => "agent",
            Level::Itself => "self",
            Level::Admin => "admin",
            Level::Scrape => "scrape",
        }
    }
}

struct Operation {
    method: &'static str,
    path: &'static str,
    tag: &'static str,
    summary: &'static str,
    level: Level,
    query: Vec<Value>,
    body: Option<&'static str>,
    ok: Value,
    ok_type: &'static str,
    statuses: Vec<u16>,
    plain: Option<u16>,
}

fn operation(
    method: &'static str,
    path: &'static str,
    tag: &'static str,
    level: Level,
    summary: &'static str,
) -> Operation {
    Operation {
        method,
        path,
        tag,
        summary,
        level,
        query: Vec::new(),
        body: None,
        ok: json!({"type": "object"}),
        ok_type: "application/json",
        statuses: Vec::new(),
        plain: None,
    }
}

impl Operation {
    /// A model of the answer.
    fn ok(mut self, model: &str) -> Self {
        self.ok = reference(model);
        self
    }

    fn ok_list(mut self, model: &str) -> Self {
        self.ok = json!({"type": "array", "items": reference(model)});
        self
    }

    fn ok_text(mut self, media_type: &'static str) -> Self {
        self.ok = json!({"type": "string"});
        self.ok_type = media_type;
        self
    }

    fn body(mut self, model: &'static str) -> Self {
        self.body = Some(model);
        self
    }

    fn query(mut self, name: &str, required: bool, schema: &Value, about: &str) -> Self {
        let parameter = json!({
            "name": name, "in": "query", "required": required, "schema": schema, "description": about,
        });
        self.query.push(parameter);
        self
    }

    /// Statuses besides those that the level, the body and every request have.
    fn statuses(mut self, statuses: &[u16]) -> Self {
        self.statuses.extend_from_slice(statuses);
        self
    }

    /// The status whose answer is no problem document (REG-102).
    fn plain(mut self, status: u16) -> Self {
        self.plain = Some(status);
        self
    }

    fn json(&self) -> Value {
        let mut parameters = self.query.clone();
        if self.path.contains("{agent_id}") {
            parameters.push(json!({
                "name": "agent_id", "in": "path", "required": true, "schema": {"type": "string", "minLength": 1},
                "description": "The agent", "example": "my-testing-agent",
            }));
        }
        if matches!(self.level, Level::Admin) || self.path == "/auth/login" || self.path == "/tokens/refresh" {
            parameters.push(json!({
                "name": "X-Client-Fingerprint", "in": "header", "required": self.path == "/auth/login",
                "schema": {"type": "string"},
                "description": "Names the client; a session is good from the client that logged in",
            }));
        }
        let mut responses = Map::new();
        let mut content = Map::new();
        content.insert(self.ok_type.to_owned(), json!({"schema": self.ok}));
        responses.insert("200".into(), json!({"description": "Done", "content": content}));
        // Any request may come from a refused address or host, or be too large.
        let mut statuses = vec![400, 403, 413];
        statuses.extend_from_slice(&self.statuses);
        if self.level != Level::Public {
            statuses.push(401);
        }
        if self.body.is_some() || !self.query.is_empty() {
            statuses.push(422);
        }
        statuses.sort_unstable();
        statuses.dedup();
        for status in statuses {
            responses.insert(status.to_string(), refusal(status, self.plain == Some(status)));
        }
        if self.method == "get" && self.path == "/tokens/validate" {
            // Its refusals are answers (REG-102).
            responses["401"]["content"] = json!({"application/json": {"schema": reference("Validation")}});
        }
        let mut operation = json!({
            "tags": [self.tag],
            "summary": self.summary,
            "operationId": format!("{}_{}", self.method, self.path.trim_matches('/').replace(['/', '{', '}', '.', '-'], "_")),
            "parameters": parameters,
            "responses": responses,
            "x-level": self.level.as_str(),
        });
        if let Some(model) = self.body {
            operation["requestBody"] =
                json!({"required": true, "content": {"application/json": {"schema": reference(model)}}});
        }
        if self.level != Level::Public {
            operation["security"] = json!([{"bearer": []}]);
        }
        operation
    }
}

fn reference(model: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{model}")})
}

fn refusal(status: u16, is_plain: bool) -> Value {
    let words = match status {
        400 => "Not acceptable as it is",
        401 => "No token, or one that is not good",
        403 => "Not allowed to this caller",
        404 => "Not found",
        409 => "There already, and alive",
        413 => "Too large",
        422 => "The input breaks a rule; errors tells which",
        429 => "Too many failed attempts; Retry-After tells how long to wait",
        500 => "The change could not be kept",
        502 => "The agent could not be reached",
        504 => "The agent did not answer in time",
        _ => "Refused",
    };
    let problem = json!({"schema": reference("Problem")});
    match status {
        // A refused Host is told in a line of text.
        400 => {
            json!({"description": words, "content": {"application/problem+json": problem, "text/plain": {"schema": {"type": "string"}}}})
        }
        _ if is_plain => {
            json!({"description": words, "content": {"application/json": {"schema": {"type": "object"}}}})
        }
        _ => json!({"description": words, "content": {"application/problem+json": problem}}),
    }
}

fn operations() -> Vec<Operation> {
    use Level::{Admin, Agent, Bearer, Itself, Public, Scrape};
    let text = json!({"type": "string"});
    let texts = json!({"type": "array", "items": {"type": "string"}});
    let truth = json!({"type": "boolean"});
    let share = json!({"type": "number", "minimum": 0, "maximum": 1});
    let seconds = json!({"type": "number", "minimum": 0, "maximum": 3600});
    let filtered = |operation: Operation| {
        operation.query("agent_type", false, &text, "Of exactly this type").query(
            "capabilities",
            false,
            &texts,
            "May be repeated",
        )
    };
    let reporting = |operation: Operation| {
        operation
            .ok("Reported")
            .query("response_time", true, &seconds, "Seconds the request took")
            .query("success", false, &truth, "Whether it succeeded; true by default")
            .statuses(&[404, 500])
    };
    vec![
        operation("get", "/", "System", Public, "What this is").ok("Root"),
        operation("get", "/health", "System", Public, "Health").ok("Health"),
        operation("get", "/health/detailed", "System", Admin, "Health in detail"),
        operation("get", "/health/config", "System", Admin, "Settings that are missing or unwise"),
        operation("get", "/health/redis", "System", Admin, "For programs that ask the published server"),
        operation("get", "/health/azure", "System", Admin, "How texts are embedded"),
        operation("get", "/metrics", "System", Admin, "Figures for Prometheus").ok_text("text/plain"),
        operation("get", "/metrics/scrape", "System", Scrape, "The same, for a scraper with its own token")
            .ok_text("text/plain"),
        operation("get", "/dashboard", "Dashboard", Public, "The status page").ok_text("text/html"),
        operation("get", "/dashboard/config", "Dashboard", Admin, "Settings of the page").ok("DashboardConfig").query(
            "tz",
            false,
            &text,
            "Another time zone",
        ),
        operation("post", "/dashboard/config", "Dashboard", Admin, "Change them")
            .body("DashboardSettings")
            .statuses(&[429]),
        operation("post", "/auth/login", "Login", Public, "Log an administrator in")
            .body("Login")
            .ok("Token")
            .statuses(&[401, 429]),
        operation("post", "/auth/logout", "Login", Admin, "Log out; ends the session and its PIN").ok("Done"),
        operation("post", "/auth/set_pin", "Login", Admin, "Set the session's PIN")
            .body("NewPin")
            .ok("Done")
            .statuses(&[429]),
        operation("post", "/auth/verify_pin", "Login", Admin, "Check the session's PIN")
            .body("Pin")
            .ok("Done")
            .statuses(&[429]),
        operation("get", "/auth/pin_status", "Login", Admin, "Whether a PIN is set").ok("PinStatus"),
        operation("get", "/auth/session_status", "Login", Admin, "The session").ok("SessionStatus"),
        operation(
            "post",
            "/auth/agent/request_temp_token",
            "Login",
            Public,
            "A token for one registration, for an agent key",
        )
        .body("TemporaryTokenRequest")
        .ok("TemporaryToken")
        .statuses(&[401, 429]),
        operation(
            "post",
            "/auth/agent/validate_compliance",
            "Login",
            Public,
            "Not enabled here: always 400, so that newer clients register plainly",
        ),
        operation("post", "/tokens/mint", "Tokens", Admin, "Make a token").body("Mint").ok("Token"),
        operation("get", "/tokens/validate", "Tokens", Bearer, "What the token of the header says")
            .ok("Validation")
            .statuses(&[429])
            .plain(401),
        operation("post", "/tokens/validate", "Tokens", Public, "What a token says")
            .ok("Validation")
            .query("token", true, &text, "The token")
            .statuses(&[429]),
        operation("post", "/tokens/refresh", "Tokens", Bearer, "Another token in place of one that still lives")
            .ok("Token")
            .statuses(&[429]),
        operation("post", "/agents/register", "Agents", Agent, "Register an agent")
            .body("AgentRegistration")
            .ok("Registered")
            .statuses(&[409, 429, 500]),
        filtered(operation("get", "/agents", "Agents", Agent, "All agents, the dead too"))
            .ok_list("AgentInfo")
            .query("status", false, &text, "alive or dead")
            .query("include_metrics", false, &truth, "With metrics; false by default"),
        operation("get", "/agents/stats", "Agents", Admin, "How many there are, and what works"),
        operation("get", "/agents/{agent_id}", "Agents", Agent, "One agent")
            .ok("AgentInfo")
            .query("include_metrics", false, &truth, "With metrics; true by default")
            .statuses(&[404])
            .plain(404),
        operation("delete", "/agents/{agent_id}", "Agents", Itself, "Unregister: oneself, or any as administrator")
            .ok("Unregistered")
            .statuses(&[404, 409, 429, 500]),
        operation(
            "post",
            "/agents/{agent_id}/heartbeat",
            "Agents",
            Itself,
            "Say that it lives; 404 asks it to register again",
        )
        .ok("Heartbeat")
        .statuses(&[404]),
        operation("get", "/agents/{agent_id}/metrics", "Agents", Itself, "Its metrics")
            .ok("AgentMetrics")
            .statuses(&[404])
            .plain(404),
        operation("post", "/agents/{agent_id}/metrics", "Agents", Itself, "Set metrics")
            .body("MetricsUpdate")
            .ok("MetricsAnswer")
            .statuses(&[404, 500]),
        reporting(operation(
            "post",
            "/agents/report-metrics/{agent_id}",
            "Agents",
            Itself,
            "Count one answered request",
        )),
        reporting(operation("post", "/agents/{agent_id}/metrics/compat", "Agents", Itself, "The same")),
        operation("post", "/agents/search", "Search", Agent, "Search by meaning")
            .body("SearchRequest")
            .ok_list("SearchResponse"),
        filtered(operation("get", "/agents/search", "Search", Agent, "Search by meaning"))
            .ok_list("SearchResponse")
            .query("query", true, &json!({"type": "string", "minLength": 2, "maxLength": 1000}), "What is looked for")
            .query("top_k", false, &json!({"type": "integer", "minimum": 1, "maximum": 100}), "Results at most")
            .query("min_similarity", false, &share, "Least similarity")
            .query("weighted", false, &truth, "Whether reputation counts"),
        operation("post", "/agents/{agent_id}/connection/notify", "Connections", Agent, "Tell an agent of another one")
            .body("Notification")
            .ok("Notified")
            .statuses(&[404, 502, 504]),
        filtered(operation("get", "/public/discover", "Public", Public, "A page of live agents"))
            .ok_list("AgentInfo")
            .query("limit", false, &json!({"type": "integer", "minimum": 0, "maximum": 100}), "50 by default")
            .query("offset", false, &json!({"type": "integer", "minimum": 0}), "0 by default"),
        operation("post", "/public/search", "Search", Public, "Search by meaning")
            .body("SearchRequest")
            .ok_list("SearchResponse"),
        operation("get", "/public/agent/{agent_id}", "Public", Public, "A live agent").ok("AgentInfo").statuses(&[404]),
        operation("post", "/public/connect/{agent_id}", "Connections", Public, "Ask an agent to get in touch")
            .body("AgentConnectionRequest")
            .ok("ConnectionRequested")
            .statuses(&[404, 502, 504]),
        operation("get", "/public/info", "Public", Public, "What the public interface offers"),
        operation("get", "/public/stats", "Public", Public, "How many agents there are").ok("PublicStats"),
        operation("get", "/public/agent_types", "Public", Public, "Types that may register").ok("AgentTypes"),
    ]
}

/// The document, with the agent types of these settings.
pub fn document(config: &Config) -> Value {
    let mut paths = Map::new();
    for operation in operations() {
        let path = paths.entry(operation.path.to_owned()).or_insert_with(|| json!({}));
        path[operation.method] = operation.json();
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "ARCP agent registry",
            "version": VERSION,
            "description": "Agents register here, are watched, found and searched. Errors are problem documents (RFC 9457).",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": schemas(config),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
    })
}

const TRIMMED: &str = r"^[^\s](?:[\s\S]*[^\s])?$";

fn schemas(config: &Config) -> Value {
    let id = |least: u32, most: u32| json!({"type": "string", "minLength": least, "maxLength": most, "pattern": "^[A-Za-z0-9_-]+$"});
    let text =
        |least: u32, most: u32| json!({"type": "string", "minLength": least, "maxLength": most, "pattern": TRIMMED});
    let nullable = |schema: Value| json!({"anyOf": [schema, {"type": "null"}]});
    let address = json!({"type": "string", "format": "uri", "maxLength": 2048, "pattern": r"^https?://[^\s/$.?#]\S*$"});
    let capability = json!({"type": "string", "minLength": 2, "maxLength": 100, "pattern": "^[A-Za-z0-9_-](?:[A-Za-z0-9_ -]*[A-Za-z0-9_-])?$"});
    let value = json!({"anyOf": [{"type": "string", "maxLength": 1000}, {"type": "number"}, {"type": "boolean"}, {"type": "array", "items": {"type": "string", "maxLength": 100}, "maxItems": 20}]});
    let time = json!({"type": "string", "examples": ["2026-11-20T15:33:53.023001"]});
    let mut registration = json!({
        "agent_id": id(3, 100),
        "name": text(2, 32),
        "agent_type": {"type": "string", "enum": config.allowed_agent_types},
        "endpoint": address,
        "capabilities": {"type": "array", "minItems": 1, "maxItems": 50, "items": capability},
        "context_brief": text(10, 1000),
        "version": {"type": "string", "pattern": r"^[0-9]{1,4}\.[0-9]{1,4}\.[0-9]{1,4}(-[A-Za-z0-9]{1,20})?$"},
        "owner": text(2, 50),
        "public_key": {"type": "string", "minLength": 32, "maxLength": 1024, "pattern": "^[A-Za-z0-9+/=_-]+$"},
        "metadata": {"type": "object", "minProperties": 1, "maxProperties": 50, "propertyNames": {"type": "string", "minLength": 1, "maxLength": 100}, "additionalProperties": value},
        "communication_mode": {"type": "string", "enum": ["remote", "local", "hybrid"]},
        "features": nullable(json!({"type": "array", "maxItems": 100, "items": {"type": "string", "maxLength": 100}})),
        "max_tokens": nullable(json!({"type": "integer", "minimum": 1, "maximum": 1_000_000})),
        "language_support": nullable(json!({"type": "array", "maxItems": 20, "items": {"type": "string", "maxLength": 5}})),
        "rate_limit": nullable(json!({"type": "integer", "minimum": 1, "maximum": 10_000})),
        "requirements": nullable(reference("AgentRequirements")),
        "policy_tags": nullable(json!({"type": "array", "maxItems": 20, "items": {"type": "string", "maxLength": 50}})),
        "ai_context": nullable(json!({"type": "string", "maxLength": 5000})),
    });
    let required = [
        "agent_id",
        "name",
        "agent_type",
        "endpoint",
        "capabilities",
        "context_brief",
        "version",
        "owner",
        "public_key",
        "metadata",
        "communication_mode",
    ];
    let example = json!({
        "agent_id": "my-testing-agent", "name": "My Testing Agent", "agent_type": "testing",
        "endpoint": "https://my-agent.example.com", "capabilities": ["data-processing", "file-conversion"],
        "context_brief": "A testing agent for data processing", "version": "1.0.0", "owner": "My Organization",
        "public_key": "my-agent-public-key-that-is-long-enough-32-chars",
        "metadata": {"framework": "fastapi"}, "communication_mode": "remote",
    });
    let register = json!({"type": "object", "required": required, "properties": registration, "examples": [example]});
    let requirements = requirements();
    // What is read may be of any well-formed type.
    registration["agent_type"] = id(2, 50);
    for name in ["status", "last_seen", "registered_at"] {
        registration[name] = time.clone();
    }
    registration["status"] = json!({"type": "string", "enum": ["alive", "dead"]});
    registration["similarity"] = json!({"type": ["number", "null"]});
    registration["metrics"] = nullable(reference("AgentMetrics"));
    let share = json!({"type": "number", "minimum": 0, "maximum": 1});
    let duration = json!({"type": "number", "minimum": 0, "maximum": 3600});
    let count = json!({"type": "integer", "minimum": 0});
    let figures = json!({
        "success_rate": share, "avg_response_time": duration, "total_requests": count,
        "reputation_score": {"type": "number", "minimum": 0, "maximum": 10}, "requests_processed": count,
        "average_response_time": duration, "error_rate": share,
    });
    let mut metrics = figures.clone();
    metrics["agent_id"] = id(3, 100);
    metrics["last_active"] = time.clone();
    let search = json!({
        "query": text(2, 1000),
        "top_k": {"type": "integer", "minimum": 1, "maximum": 100, "default": config.search_top_k},
        "min_similarity": {"type": "number", "minimum": 0, "maximum": 1, "default": config.search_min_similarity},
        "capabilities": nullable(json!({"type": "array", "minItems": 1, "maxItems": 20, "items": capability})),
        "weighted": {"type": "boolean", "default": false},
        "agent_type": nullable(id(2, 50)),
    });
    let object = |properties: Value| json!({"type": "object", "properties": properties});
    let strict = |required: &[&str], properties: Value| json!({"type": "object", "required": required, "properties": properties});
    let plain = json!({"type": "string"});
    let models = [
        (
            "Problem",
            json!({
                "type": "object",
                "required": ["type", "title", "status", "detail", "timestamp"],
                "properties": {
                    "type": {"type": "string", "format": "uri"}, "title": plain, "status": {"type": "integer"}, "detail": plain,
                    "instance": plain, "timestamp": plain, "validation_errors": plain,
                    "errors": {"type": "array", "items": {"type": "object", "properties": {
                        "loc": {"type": "array"}, "type": plain, "msg": plain, "input": plain,
                    }}},
                },
                "additionalProperties": true,
            }),
        ),
        ("AgentRegistration", register),
        ("AgentRequirements", requirements),
        ("AgentInfo", object(registration)),
        ("AgentMetrics", json!({"type": "object", "properties": metrics, "additionalProperties": true})),
        (
            "MetricsUpdate",
            json!({"type": "object", "properties": figures, "examples": [{"success_rate": 0.98, "total_requests": 150, "avg_response_time": 0.25}]}),
        ),
        (
            "MetricsAnswer",
            strict(
                &["status", "message", "metrics"],
                json!({"status": plain, "message": plain, "metrics": reference("AgentMetrics")}),
            ),
        ),
        (
            "Reported",
            strict(
                &["status", "message", "current_metrics"],
                json!({"status": plain, "message": plain, "current_metrics": {"type": "object"}}),
            ),
        ),
        (
            "SearchRequest",
            json!({"type": "object", "required": ["query"], "properties": search, "examples": [{"query": "find agents that can process text files", "top_k": 5}]}),
        ),
        (
            "SearchResponse",
            strict(
                &["id", "name", "url", "similarity"],
                json!({
                    "id": plain, "name": plain, "url": plain, "capabilities": {"type": "array", "items": plain}, "version": plain,
                    "owner": plain, "similarity": nullable(share.clone()), "metrics": nullable(reference("AgentMetrics")),
                }),
            ),
        ),
        (
            "AgentConnectionRequest",
            json!({"type": "object", "required": ["user_id", "user_endpoint"], "properties": {
            "user_id": {"type": "string", "minLength": 2, "maxLength": 100, "pattern": "^[A-Za-z0-9_@.-]+$"},
            "user_endpoint": address,
            "display_name": {"type": "string", "maxLength": 200, "default": "Anonymous User", "pattern": "^[ -~]*$"},
            "additional_info": {"type": "object", "maxProperties": 50, "propertyNames": {"type": "string", "maxLength": 100}, "additionalProperties": value},
        }, "examples": [{"user_id": "user-123", "user_endpoint": "https://my-app.example.com/callback"}]}),
        ),
        (
            "ConnectionRequested",
            strict(
                &["status", "message", "request_id"],
                json!({
                    "status": plain, "message": plain, "next_steps": plain, "agent_info": {"type": "object"}, "request_id": plain, "timestamp": plain,
                }),
            ),
        ),
        (
            "Notification",
            json!({"type": "object", "required": ["agent_id", "agent_endpoint"], "properties": {
                "agent_id": {"type": "string", "minLength": 1, "maxLength": 100}, "agent_endpoint": {"type": "string", "minLength": 1, "maxLength": 2048},
                "agent_info": {"type": "object"},
            }}),
        ),
        (
            "Notified",
            strict(
                &["status", "message"],
                json!({"status": plain, "message": plain, "agent_endpoint": plain, "next_step": plain}),
            ),
        ),
        (
            "Login",
            json!({"type": "object", "properties": {
            "username": {"type": "string", "maxLength": 255}, "password": {"type": "string", "minLength": 1, "maxLength": 1024, "format": "password"},
        }, "examples": [{"username": "ARCP", "password": "ARCP"}]}),
        ),
        (
            "Token",
            strict(
                &["access_token", "token_type"],
                json!({
                    "access_token": plain, "token_type": plain, "expires_in": {"type": "integer"}, "agent_id": plain,
                }),
            ),
        ),
        (
            "TemporaryTokenRequest",
            json!({"type": "object", "required": ["agent_id", "agent_type", "agent_key"], "properties": {
            "agent_id": id(3, 100), "agent_type": id(2, 50), "agent_key": {"type": "string", "minLength": 10, "maxLength": 200, "format": "password"},
        }, "examples": [{"agent_id": "my-testing-agent", "agent_type": "testing", "agent_key": "test-agent-001"}]}),
        ),
        (
            "TemporaryToken",
            strict(
                &["temp_token", "token_type", "expires_in"],
                json!({
                    "temp_token": plain, "token_type": plain, "expires_in": {"type": "integer"}, "message": plain,
                }),
            ),
        ),
        ("NewPin", strict(&["pin"], json!({"pin": {"type": "string", "minLength": 4, "maxLength": 32}}))),
        ("Pin", strict(&["pin"], json!({"pin": {"type": "string", "minLength": 1, "maxLength": 32}}))),
        ("PinStatus", strict(&["pin_set"], json!({"pin_set": {"type": "boolean"}}))),
        (
            "SessionStatus",
            strict(
                &["valid", "user_id", "expires"],
                json!({
                    "valid": {"type": "boolean"}, "user_id": plain, "role": plain, "agent_id": plain, "expires": {"type": "integer"},
                    "is_admin": {"type": "boolean"}, "session_exists": {"type": "boolean"}, "pin_set": {"type": "boolean"},
                }),
            ),
        ),
        (
            "Mint",
            json!({"type": "object", "required": ["user_id", "agent_id"], "properties": {
                "user_id": {"type": "string", "minLength": 2, "maxLength": 100, "pattern": "^[A-Za-z0-9_@.-]+$"}, "agent_id": id(3, 100),
                "scopes": {"type": "array", "maxItems": 50, "items": {"type": "string", "minLength": 1, "maxLength": 100}},
                "role": {"type": "string", "enum": ["user", "admin", "agent"], "default": "user"},
            }}),
        ),
        (
            "Validation",
            strict(
                &["valid"],
                json!({"valid": {"type": "boolean"}, "agent_id": plain, "payload": {"type": "object"}, "error": plain}),
            ),
        ),
        (
            "Registered",
            strict(
                &["status", "message", "agent_id", "access_token"],
                json!({
                    "status": plain, "message": plain, "agent_id": plain, "access_token": plain,
                }),
            ),
        ),
        (
            "Unregistered",
            strict(&["status", "message"], json!({"status": plain, "message": plain, "unregistered_by": plain})),
        ),
        (
            "Heartbeat",
            strict(
                &["agent_id", "status", "last_seen"],
                json!({
                    "agent_id": plain, "status": plain, "last_seen": time, "metrics": {"type": "null"},
                }),
            ),
        ),
        ("Done", strict(&["status", "message"], json!({"status": plain, "message": plain}))),
        (
            "Root",
            strict(
                &["service", "version", "status"],
                json!({"service": plain, "version": plain, "status": plain, "dashboard": plain, "docs": plain}),
            ),
        ),
        (
            "Health",
            strict(
                &["status", "timestamp", "version"],
                json!({
                    "status": {"type": "string", "enum": ["healthy", "degraded"]}, "timestamp": time, "version": plain, "uptime": plain,
                    "service": plain, "features": {"type": "object"}, "storage": {"type": "object"}, "ai_services": {"type": "object"},
                    "agents": {"type": "object"}, "performance": {"type": "object"},
                }),
            ),
        ),
        (
            "PublicStats",
            strict(
                &["alive_agents", "dead_agents", "total_agents"],
                json!({
                    "alive_agents": count, "dead_agents": count, "total_agents": count, "agent_types": count, "system_status": plain,
                    "last_updated": plain, "features": {"type": "object"}, "available_types": {"type": "array", "items": plain},
                }),
            ),
        ),
        (
            "AgentTypes",
            strict(&["allowed_agent_types"], json!({"allowed_agent_types": {"type": "array", "items": plain}})),
        ),
        (
            "DashboardConfig",
            object(json!({
                "timezone": plain, "ws_ping_interval_ms": {"type": "integer"}, "log_buffer_maxlen": {"type": "integer"},
                "log_message_maxlen": {"type": "integer"}, "ui": {"type": "object"},
            })),
        ),
        (
            "DashboardSettings",
            json!({"type": "object", "properties": {"ui": {"type": "object"}}, "examples": [{"ui": {"refreshInterval": 60}}]}),
        ),
    ];
    models.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect::<Map<String, Value>>().into()
}

fn requirements() -> Value {
    let list = |most: u32, longest: u32| json!({"type": "array", "maxItems": most, "items": {"type": "string", "maxLength": longest}});
    json!({"type": "object", "properties": {
        "system_requirements": list(50, 200), "permissions": list(30, 100), "dependencies": list(100, 200),
        "minimum_system_version": {"type": ["string", "null"], "maxLength": 50},
        "minimum_memory_mb": {"type": ["integer", "null"], "minimum": 1, "maximum": 1_048_576},
        "minimum_disk_space_mb": {"type": ["integer", "null"], "minimum": 1, "maximum": 10_485_760},
        "requires_internet": {"type": "boolean", "default": true},
        "network_ports": {"type": "array", "maxItems": 20, "items": {"type": "string"}},
        "required_fields": {"type": "array", "maxItems": 50, "items": {"type": "object"}},
        "optional_fields": {"type": "array", "maxItems": 100, "items": {"type": "object"}},
        "user_configuration": {"type": "object", "maxProperties": 100},
        "schema_version": {"type": "string", "default": "1.0"},
    }})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::metrics::{UNMATCHED, template};

    /// Rules: REG-103
    #[test]
    fn the_document_is_openapi_and_names_every_endpoint_once() {
        let document = document(&Config::dev());
        let read: utoipa::openapi::OpenApi = serde_json::from_value(document.clone()).unwrap();
        assert!(read.paths.paths.len() > 30);
        for (path, item) in document["paths"].as_object().unwrap() {
            assert_eq!(template(path), path.as_str());
            assert_ne!(template(path), UNMATCHED);
            for (method, operation) in item.as_object().unwrap() {
                assert!(operation["responses"]["200"].is_object(), "{method} {path}");
            }
        }
        let text = document.to_string();
        let used: std::collections::HashSet<&str> =
            text.split("#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        let known = document["components"]["schemas"].as_object().unwrap();
        for name in &used {
            assert!(known.contains_key(*name), "{name}");
        }
        assert_eq!(used.len(), known.len(), "every model is used");
    }

    /// Rules: REG-100, REG-201
    #[test]
    fn what_is_kept_before_it_is_answered_may_fail_to_be() {
        let document = document(&Config::dev());
        for (method, path) in [
            ("post", "/agents/register"),
            ("delete", "/agents/{agent_id}"),
            ("post", "/agents/{agent_id}/metrics"),
            ("post", "/agents/{agent_id}/metrics/compat"),
            ("post", "/agents/report-metrics/{agent_id}"),
        ] {
            let failed = &document["paths"][path][method]["responses"]["500"];
            assert!(failed["content"]["application/problem+json"].is_object(), "{method} {path}");
        }
    }
}
