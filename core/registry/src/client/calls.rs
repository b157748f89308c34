//! Each operation as requests.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::address::segment;
use super::error::{FailureKind, RegistryError};
use super::operation::{ConnectionRequest, Discovery, ListFilter, Operation, PlainRequest, Search};
use super::options::Secret;
use super::tokens::{Held, Origin, Subject};
use super::{Auth, Call, RegistryClient, answer, gauges};

/// The most a page of discovery holds (REG-183).
const PAGE: i64 = 100;

/// Pages read for one list; a registry that always has another one is not followed for ever.
const MAX_PAGES: i64 = 10_000;

impl RegistryClient {
    /// Does one operation; its body as JSON text (REG-022).
    ///
    /// # Errors
    /// What went wrong, with the prefix of the contract's table A.4.
    pub async fn perform(&self, operation: Operation) -> Result<String, RegistryError> {
        let face = operation.face();
        self.dispatch(operation).await.map_err(|error| error.within(face.0, face.1))
    }

    async fn dispatch(&self, operation: Operation) -> Result<String, RegistryError> {
        let agent = |id: &str| Auth::For(Subject::Agent(id.to_owned()));
        let path = |id: &str, rest: &str| format!("/agents/{}{rest}", segment(id));
        match operation {
            Operation::HealthCheck {} => self.json(Call::get("/health")).await,
            Operation::GetSystemInfo {} => self.json(Call::get("/")).await,
            Operation::GetPublicStats {} => self.json(Call::get("/public/stats")).await,
            Operation::GetAllowedAgentTypes {} => {
                let text = self.json(Call::get("/public/agent_types")).await?;
                let told: Value = read("agent types", &text)?;
                // The registry wraps the list (REG-046); a bare one is taken too.
                Ok(told.get("allowed_agent_types").unwrap_or(&told).to_string())
            }
            Operation::LoginAdmin { username, password } => self.login(username, password).await,
            Operation::RequestTempToken { agent_id, agent_type, agent_key } => {
                let token = self.temporary_token(&agent_id, &agent_type, &agent_key).await?;
                Ok(Value::from(token.expose()).to_string())
            }
            Operation::ValidateToken { token } => self.validate(token).await,
            Operation::RefreshAuthentication {} => Ok(self.refresh_held().await.to_string()),
            Operation::RegisterAgent(new) => self.register(new).await,
            Operation::UnregisterAgent { agent_id, agent_key } => self.unregister(&agent_id, agent_key).await,
            Operation::KeepAlive { agent_id, interval } => Err(self.keep_alive(&agent_id, interval).await),
            Operation::GetAgent { agent_id, include_metrics } => self.agent(&agent_id, include_metrics).await,
            Operation::ListAgents(filter) => self.list(filter).await,
            Operation::UpdateHeartbeat { agent_id } => self.heartbeat(&agent_id).await,
            Operation::UpdateMetrics { agent_id, metrics_data } => {
                let body = Value::Object(metrics_data);
                let call = Call::post(path(&agent_id, "/metrics"), Some(&body)).with(agent(&agent_id));
                // The last values count, so setting them twice does no harm.
                self.json(call.repeatable()).await
            }
            Operation::GetMetrics { agent_id } => {
                self.json(Call::get(path(&agent_id, "/metrics")).with(agent(&agent_id))).await
            }
            Operation::GetPublicAgent { agent_id } => self.public_agent(&agent_id).await,
            Operation::SearchAgents(search) => self.search(search).await,
            Operation::DiscoverAgents(discovery) => self.discover(&discovery).await,
            Operation::RequestAgentConnection(request) => self.connection(request).await,
            Operation::GetSystemMetrics {} => Ok(Value::from(self.system_metrics().await?).to_string()),
            Operation::GetSystemStats {} => self.system_stats().await,
            Operation::GetResourceUtilization {} => {
                let found = gauges::utilization(&self.system_metrics().await?);
                if found.is_empty() {
                    let message = "Resource utilization metrics not found in system metrics";
                    return Err(RegistryError::new(FailureKind::Answer, message));
                }
                Ok(Value::Object(found).to_string())
            }
            Operation::GetMetricsSnapshot {} => self.snapshot().await,
            Operation::Request(request) => self.plain(request).await,
        }
    }

    /// REG-036.
    pub(super) async fn heartbeat(&self, agent_id: &str) -> Result<String, RegistryError> {
        let call = Call::post(format!("/agents/{}/heartbeat", segment(agent_id)), None);
        self.json(call.with(Auth::For(Subject::Agent(agent_id.to_owned()))).repeatable()).await
    }

    /// Runs a call; its success body.
    pub(super) async fn json(&self, call: Call) -> Result<String, RegistryError> {
        let response = self.run(&call).await?;
        let read = answer::read(&call.endpoint, &response);
        read.map_err(|error| self.advised(error, &call))
    }

    /// Runs a call that gets a token, so it cannot need to find one first; its success body.
    async fn obtain(&self, call: Call) -> Result<String, RegistryError> {
        let response = self.send_as_is(&call).await?;
        answer::read(&call.endpoint, &response)
    }

    /// Adds what to do about a missing login.
    fn advised(&self, mut error: RegistryError, call: &Call) -> RegistryError {
        let is_anonymous = matches!(call.auth, Auth::For(_)) && self.token().is_none();
        if error.kind == FailureKind::Authentication && is_anonymous {
            error.message.push_str(
                "; log in (login_admin, or arcp login), register the agent with its agent key, or set ARCP_TOKEN, or \
                 ARCP_ADMIN_USERNAME and ARCP_ADMIN_PASSWORD",
            );
        }
        error
    }

    /// Logs in and remembers with what, so that it can be done again.
    async fn login(&self, username: String, password: Secret) -> Result<String, RegistryError> {
        let body = json!({"username": username, "password": password.expose()});
        let text = self.obtain(Call::post("/auth/login", Some(&body))).await?;
        let granted: Granted = read("login", &text)?;
        let Some(token) = granted.access_token.filter(|token| !token.expose().is_empty()) else {
            return Err(RegistryError::new(FailureKind::Answer, "No access token received"));
        };
        let life = seconds(granted.expires_in.unwrap_or(3600.0));
        let mut state = self.inner.state.lock();
        state.tokens.put(Held {
            // The session ends when the registry says, whatever the token claims.
            life: life.and_then(|life| Some((Instant::now().checked_add(life)?, life))),
            ..Held::new(token.expose(), Origin::Admin, life, Instant::now())
        });
        state.admin = Some((username, password));
        Ok(text)
    }

    /// Logs in with what is known, if anything is.
    pub(super) async fn login_again(&self) -> Result<Option<Secret>, RegistryError> {
        let Some((username, password)) = self.inner.state.lock().admin.clone() else { return Ok(None) };
        self.login(username, password).await.map_err(|error| {
            let message = format!("the login as administrator failed: {}", error.message);
            RegistryError { message, ..error }
        })?;
        let state = self.inner.state.lock();
        Ok(state.tokens.choose(&Subject::Admin, Instant::now()).map(|held| held.token.clone()))
    }

    /// Asks for a token to register an agent with.
    pub(super) async fn temporary_token(
        &self,
        agent_id: &str,
        agent_type: &str,
        key: &Secret,
    ) -> Result<Secret, RegistryError> {
        let body = json!({"agent_id": agent_id, "agent_type": agent_type, "agent_key": key.expose()});
        let text = self.obtain(Call::post("/auth/agent/request_temp_token", Some(&body))).await?;
        let granted: Granted = read("temporary token", &text)?;
        let Some(token) = granted.temp_token.filter(|token| !token.expose().is_empty()) else {
            return Err(RegistryError::new(FailureKind::Answer, "No temporary token received"));
        };
        let life = seconds(granted.expires_in.unwrap_or(900.0));
        let held = Held::new(token.expose(), Origin::Temporary(agent_id.to_owned()), life, Instant::now());
        self.inner.state.lock().tokens.put(held);
        Ok(token)
    }

    /// Exchanges a token for a new one of the same kind.
    pub(super) async fn refresh(&self, token: &Secret, origin: Origin) -> Result<Secret, RegistryError> {
        let call = Call::post("/tokens/refresh", None).with(Auth::This(token.clone()));
        let granted: Granted = read("refresh", &self.obtain(call).await?)?;
        let Some(new) = granted.access_token.filter(|token| !token.expose().is_empty()) else {
            return Err(RegistryError::new(FailureKind::Answer, "No access token received"));
        };
        let life = seconds(granted.expires_in.unwrap_or(3600.0));
        let mut state = self.inner.state.lock();
        // What is held now may be another's: replace this one wherever it stands.
        let is_held = state.tokens.held().is_some_and(|held| held.token == *token);
        let held = (!is_held).then(|| state.tokens.held().cloned()).flatten();
        state.tokens.put(Held::new(new.expose(), origin, life, Instant::now()));
        if held.is_some() {
            state.tokens.keep_held(held);
        }
        Ok(new)
    }

    /// REG-058: whether the held token could be exchanged; never fails.
    async fn refresh_held(&self) -> bool {
        let Some((token, origin)) =
            self.inner.state.lock().tokens.held().map(|held| (held.token.clone(), held.origin.clone()))
        else {
            return false;
        };
        match self.refresh(&token, origin).await {
            Ok(_) => true,
            Err(error) => {
                tracing::debug!(target: "arcp", "the token could not be refreshed: {error}");
                false
            }
        }
    }

    /// REG-032: what a token that does not count is told as is the answer, not an error.
    async fn validate(&self, token: Option<Secret>) -> Result<String, RegistryError> {
        let Some(token) = token.or_else(|| self.token().map(|(token, _)| token)) else {
            let message = "No token available for validation";
            return Err(RegistryError::new(FailureKind::Authentication, message));
        };
        if HeaderValue::from_str(token.expose()).is_err() {
            return Ok(json!({"valid": false, "error": "the token holds characters no header may hold"}).to_string());
        }
        let call = Call::get("/tokens/validate").with(Auth::This(token));
        let response = self.run(&call).await?;
        if response.status != 401 {
            return answer::read(&call.endpoint, &response);
        }
        let said = serde_json::from_slice::<Map<String, Value>>(&response.body).unwrap_or_default();
        if said.get("valid") == Some(&Value::Bool(false)) {
            return Ok(Value::Object(said).to_string());
        }
        let why = said.get("detail").and_then(Value::as_str).unwrap_or("Invalid or expired token");
        Ok(json!({"valid": false, "error": why}).to_string())
    }

    /// REG-034. Without anything to log in with, what the public may see (D-9).
    pub(super) async fn agent(&self, agent_id: &str, include_metrics: bool) -> Result<String, RegistryError> {
        let call = Call::get(format!("/agents/{}", segment(agent_id))).query("include_metrics", include_metrics);
        let found = self.json(call.with(Auth::For(Subject::Agent(agent_id.to_owned())))).await;
        match found {
            Err(error) if error.status == Some(401) && self.is_anonymous() => self.public_agent(agent_id).await,
            found => found,
        }
    }

    /// Whether there is neither a token nor anything to get one with.
    fn is_anonymous(&self) -> bool {
        let state = self.inner.state.lock();
        state.tokens.held().is_none() && state.admin.is_none()
    }

    async fn public_agent(&self, agent_id: &str) -> Result<String, RegistryError> {
        self.json(Call::get(format!("/public/agent/{}", segment(agent_id)))).await
    }

    /// REG-035. Without anything to log in with, what the public may see: the living agents (D-9).
    async fn list(&self, filter: ListFilter) -> Result<String, RegistryError> {
        let mut call = Call::get("/agents").query("include_metrics", filter.include_metrics);
        for (name, value) in [("agent_type", &filter.agent_type), ("status", &filter.status)] {
            if let Some(value) = value {
                call = call.query(name, value);
            }
        }
        for capability in filter.capabilities.iter().flatten() {
            call = call.query("capabilities", capability);
        }
        match self.json(call.with(Auth::For(Subject::Any))).await {
            // Dead agents are seen by members only, so nothing may stand in for those.
            Err(error)
                if error.status == Some(401)
                    && self.is_anonymous()
                    && filter.status.as_deref().is_none_or(|status| status == "alive") =>
            {
                self.public_list(&filter).await
            }
            found => array("agents", found?),
        }
    }

    async fn public_list(&self, filter: &ListFilter) -> Result<String, RegistryError> {
        let mut agents = Vec::new();
        for page in 0..MAX_PAGES {
            let agent_type = filter.agent_type.clone();
            let discovery = Discovery { agent_type, limit: PAGE, offset: page * PAGE, ..Discovery::default() };
            let found: Vec<Value> = read("discovery", &self.discover(&discovery).await?)?;
            let is_last = i64::try_from(found.len()).unwrap_or(PAGE) < PAGE;
            agents.extend(found);
            if is_last {
                break;
            }
        }
        if let Some(wanted) = filter.capabilities.as_ref().filter(|wanted| !wanted.is_empty()) {
            // A list asks for any of them, discovery for all.
            agents.retain(|agent| {
                let has = agent.get("capabilities").and_then(Value::as_array);
                has.is_some_and(|has| has.iter().any(|one| wanted.iter().any(|wanted| one == wanted.as_str())))
            });
        }
        if !filter.include_metrics {
            for agent in agents.iter_mut().filter_map(Value::as_object_mut) {
                agent.insert("metrics".into(), Value::Null);
            }
        }
        Ok(Value::Array(agents).to_string())
    }

    async fn discover(&self, discovery: &Discovery) -> Result<String, RegistryError> {
        let mut call = Call::get("/public/discover").query("limit", discovery.limit).query("offset", discovery.offset);
        if let Some(agent_type) = &discovery.agent_type {
            call = call.query("agent_type", agent_type);
        }
        for capability in discovery.capabilities.iter().flatten() {
            call = call.query("capabilities", capability);
        }
        array("agents", self.json(call).await?)
    }

    async fn search(&self, search: Search) -> Result<String, RegistryError> {
        let public = search.public_api;
        let body = super::check::search_body(search)?;
        let call = match public {
            true => Call::post("/public/search", Some(&body)),
            false => Call::post("/agents/search", Some(&body)).with(Auth::For(Subject::Any)),
        };
        array("results", self.json(call.repeatable()).await?)
    }

    async fn connection(&self, request: ConnectionRequest) -> Result<String, RegistryError> {
        let agent_id = request.agent_id.clone();
        let body = super::check::connection_body(request)?;
        self.json(Call::post(format!("/public/connect/{}", segment(&agent_id)), Some(&body))).await
    }

    async fn system_metrics(&self) -> Result<String, RegistryError> {
        let call = Call::get("/metrics").with(Auth::For(Subject::Admin));
        let response = self.run(&call).await?;
        answer::text(&call.endpoint, &response).map_err(|error| self.advised(error, &call))
    }

    async fn system_stats(&self) -> Result<String, RegistryError> {
        self.json(Call::get("/agents/stats").with(Auth::For(Subject::Admin))).await
    }

    /// REG-051: figures and statistics at once.
    async fn snapshot(&self) -> Result<String, RegistryError> {
        let (metrics, stats) = tokio::try_join!(self.system_metrics(), self.system_stats())?;
        let stats: Value = read("statistics", &stats)?;
        let utilization = gauges::utilization(&metrics);
        let snapshot = json!({
            "timestamp": jiff::Timestamp::now().to_string(),
            "prometheus_metrics": metrics,
            "agent_stats": stats,
            "resource_utilization": utilization,
        });
        Ok(snapshot.to_string())
    }

    /// REG-011: `_request`.
    async fn plain(&self, request: PlainRequest) -> Result<String, RegistryError> {
        let invalid = |what: &str| RegistryError::invalid(what);
        let method = Method::from_bytes(request.method.to_ascii_uppercase().as_bytes())
            .map_err(|_| invalid("method must be one of HTTP's, such as GET"))?;
        if request.endpoint.contains("://") {
            return Err(invalid("endpoint must be a path of this registry, such as /health"));
        }
        let (path, query) = request.endpoint.split_once('?').unwrap_or((&request.endpoint, ""));
        let mut call = Call::get(path_of(path));
        call.repeatable = matches!(method, Method::GET | Method::HEAD);
        call.method = method;
        call.query = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        for (name, value) in request.params.unwrap_or_default() {
            let values = match value {
                Value::Array(values) => values,
                value => vec![value],
            };
            call.query.extend(values.iter().filter_map(|value| Some((name.clone(), parameter(value)?))));
        }
        for (name, value) in request.headers.unwrap_or_default() {
            let Some(value) = parameter(&value) else { continue };
            let read = HeaderName::from_bytes(name.as_bytes()).ok().zip(HeaderValue::from_str(&value).ok());
            let (name, value) = read.ok_or_else(|| invalid("headers hold characters no header may hold"))?;
            call.headers.insert(name, value);
        }
        strip_hop_by_hop(&mut call.headers);
        call.body = request.json.filter(|json| !json.is_null()).map(|json| json.to_string().into());
        if request.auth_required && !request.public_api {
            call.auth = Auth::For(Subject::Any);
        }
        self.json(call).await
    }
}

/// What belongs to the connection is not the caller's.
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    for name in
        [http::header::HOST, http::header::CONTENT_LENGTH, http::header::CONNECTION, http::header::TRANSFER_ENCODING]
    {
        headers.remove(name);
    }
}

/// A path with what no path may hold encoded; what is encoded already stays.
fn path_of(text: &str) -> String {
    let mut path = String::with_capacity(text.len() + 1);
    if !text.starts_with('/') {
        path.push('/');
    }
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/%".contains(&byte) {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
    path
}

/// REG-025.
fn parameter(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// A list, also out of a wrapper (REG-040, REG-041).
fn array(member: &str, text: String) -> Result<String, RegistryError> {
    if text.trim_ascii_start().starts_with('[') {
        return Ok(text);
    }
    let found = serde_json::from_str::<Map<String, Value>>(&text).ok().and_then(|mut map| map.remove(member));
    match found.filter(Value::is_array) {
        Some(found) => Ok(found.to_string()),
        None => Err(RegistryError::new(FailureKind::Answer, format!("the answer holds no list of {member}"))),
    }
}

/// What a login, a registration or a refresh grants.
#[derive(Deserialize)]
pub(super) struct Granted {
    #[serde(default)]
    pub(super) access_token: Option<Secret>,
    #[serde(default)]
    pub(super) temp_token: Option<Secret>,
    #[serde(default)]
    pub(super) expires_in: Option<f64>,
}

/// Reads an answer; the error shows none of it, since it may hold a token.
pub(super) fn read<T: serde::de::DeserializeOwned>(what: &str, text: &str) -> Result<T, RegistryError> {
    serde_json::from_str(text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let message = format!("the registry's answer to the {what} has another shape at {line}:{column}");
        RegistryError::new(FailureKind::Answer, message)
    })
}

pub(super) fn seconds(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok()
}
