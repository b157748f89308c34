//! The client: every call of the contract, with retries, tokens and errors (REG-010 to REG-060).
//!
//! A call is an [`Operation`]; [`RegistryClient::perform`] does it and gives the body as JSON text. What carries the
//! requests is a [`Transport`], so a host may use its own HTTP client and keep everything else (D-11).

mod address;
mod answer;
mod calls;
mod check;
mod connect;
mod error;
mod gauges;
mod http;
mod operation;
mod options;
mod register;
mod retry;
mod socket;
mod tokens;
mod transport;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use ::http::{HeaderMap, HeaderName, HeaderValue, Method};
use bytes::Bytes;
use indexmap::IndexMap;
use parking_lot::Mutex;
use tokio::time::Instant;

pub use self::check::check_model;
pub use self::error::{Area, FailureKind, RegistryError};
pub use self::operation::{ConnectionRequest, Discovery, ListFilter, NewAgent, Operation, PlainRequest, Search};
pub use self::options::{Credentials, RegistryOptions, Secret};
pub use self::socket::{RegistrySocket, SocketKind, SocketOptions};
pub use self::transport::{HttpRequest, HttpResponse, Sending, Transport, TransportFault};

use self::address::Address;
use self::connect::Connector;
use self::http::HttpTransport;
use self::register::Registration;
use self::retry::{Ended, Retry};
use self::tokens::{Held, Origin, Subject, Tokens};

/// A registry's client. Cheap to clone; all clones share connections and tokens.
#[derive(Clone)]
pub struct RegistryClient {
    inner: Arc<Inner>,
    /// What carries the requests, unless it is the client's own connections.
    over: Option<Arc<dyn Transport>>,
}

struct Inner {
    options: RegistryOptions,
    fingerprint: String,
    /// Made at the first call, since making a client looks at nothing (REG-010).
    address: OnceLock<Result<Address, RegistryError>>,
    own: OnceLock<HttpTransport>,
    headers: OnceLock<Result<HeaderMap, RegistryError>>,
    state: Mutex<State>,
    /// Held by the one that logs in or refreshes, so that others wait for its token.
    renewing: tokio::sync::Mutex<()>,
}

struct State {
    tokens: Tokens,
    /// The last name and password that were used or given.
    admin: Option<(String, Secret)>,
    /// What was registered here, to be registered again when the registry has forgotten it.
    registrations: IndexMap<String, Registration>,
}

/// One request before it has a token.
struct Call {
    method: Method,
    /// Encoded, without the prefix of the base URL.
    endpoint: String,
    query: Vec<(String, String)>,
    headers: HeaderMap,
    body: Option<Bytes>,
    auth: Auth,
    /// Doing it twice does no harm.
    repeatable: bool,
}

/// Which token a request carries.
enum Auth {
    Nothing,
    This(Secret),
    For(Subject),
}

impl Call {
    /// A `GET`, which may be repeated, with no token.
    fn get(endpoint: impl Into<String>) -> Call {
        Call {
            method: Method::GET,
            endpoint: endpoint.into(),
            query: Vec::new(),
            headers: HeaderMap::new(),
            body: None,
            auth: Auth::Nothing,
            repeatable: true,
        }
    }

    /// A `POST`, which may not be repeated, with no token.
    fn post(endpoint: impl Into<String>, body: Option<&serde_json::Value>) -> Call {
        let body = body.map(|body| Bytes::from(body.to_string()));
        Call { method: Method::POST, body, repeatable: false, ..Call::get(endpoint) }
    }

    fn with(mut self, auth: Auth) -> Call {
        self.auth = auth;
        self
    }

    fn query(mut self, name: &str, value: impl ToString) -> Call {
        self.query.push((name.to_owned(), value.to_string()));
        self
    }

    fn repeatable(mut self) -> Call {
        self.repeatable = true;
        self
    }
}

/// How often a refused token is replaced within one call.
const MAX_RENEWALS: u32 = 3;

impl RegistryClient {
    /// A client that has done nothing yet; the options are looked at by its first call.
    pub fn new(options: RegistryOptions) -> Self {
        let fingerprint = options.fingerprint.clone().unwrap_or_else(uuid4);
        let mut tokens = Tokens::default();
        if let Some(token) = &options.credentials.token {
            tokens.put(Held::new(token.expose(), Origin::Given, None, Instant::now()));
        }
        let admin = options.credentials.admin.clone();
        let state = State { tokens, admin, registrations: IndexMap::new() };
        let inner = Inner {
            options,
            fingerprint,
            address: OnceLock::new(),
            own: OnceLock::new(),
            headers: OnceLock::new(),
            state: Mutex::new(state),
            renewing: tokio::sync::Mutex::new(()),
        };
        RegistryClient { inner: Arc::new(inner), over: None }
    }

    /// The same client, tokens and all, with its requests carried by something else.
    #[must_use]
    pub fn over(&self, transport: Arc<dyn Transport>) -> Self {
        RegistryClient { inner: Arc::clone(&self.inner), over: Some(transport) }
    }

    /// The header `X-Client-Fingerprint`, the same for the life of the client (REG-011).
    pub fn fingerprint(&self) -> &str {
        &self.inner.fingerprint
    }

    /// The token held for calls that are about no agent, and how long it still lives if that is known.
    pub fn token(&self) -> Option<(Secret, Option<Duration>)> {
        let now = Instant::now();
        let state = self.inner.state.lock();
        let held = state.tokens.held()?;
        Some((held.token.clone(), held.life.map(|(end, _)| end.saturating_duration_since(now))))
    }

    /// Holds another token, or none; the tokens of agents are kept.
    pub fn set_token(&self, token: Option<Secret>, expires_in: Option<Duration>) {
        let now = Instant::now();
        let held = token.map(|token| Held {
            life: expires_in.and_then(|life| Some((now.checked_add(life)?, life))),
            ..Held::new(token.expose(), Origin::Given, None, now)
        });
        self.inner.state.lock().tokens.hold(held);
    }

    /// Whether a token is held that is known to live (REG-024).
    pub fn is_authenticated(&self) -> bool {
        self.token().is_some_and(|(_, left)| left.is_some_and(|left| !left.is_zero()))
    }

    /// Closes the connections nobody uses; the next call opens new ones (REG-012).
    pub fn close(&self) {
        if let Some(own) = self.inner.own.get() {
            own.close_idle();
        }
    }

    fn address(&self) -> Result<&Address, RegistryError> {
        let read = || Address::parse(&self.inner.options.base_url);
        self.inner.address.get_or_init(read).as_ref().map_err(Clone::clone)
    }

    fn own(&self) -> Result<&HttpTransport, RegistryError> {
        let address = self.address()?;
        let make = || HttpTransport::new(Connector::new(address.clone(), self.inner.options.ca.clone()));
        Ok(self.inner.own.get_or_init(make))
    }

    /// What every request carries (REG-013).
    fn headers(&self) -> Result<&HeaderMap, RegistryError> {
        let make = || {
            let value = |name: &str, text: &str| {
                HeaderValue::from_str(text)
                    .map_err(|_| RegistryError::invalid(format!("{name} holds characters no header may hold")))
            };
            let mut headers = HeaderMap::new();
            headers.insert(USER_AGENT, value("user_agent", &self.inner.options.user_agent)?);
            headers.insert(FINGERPRINT, value("fingerprint", &self.inner.fingerprint)?);
            headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
            Ok(headers)
        };
        self.inner.headers.get_or_init(make).as_ref().map_err(Clone::clone)
    }

    /// Sends a call with the token it needs. A token that is refused is replaced if there is anything to replace it with.
    async fn run(&self, call: &Call) -> Result<HttpResponse, RegistryError> {
        let Auth::For(subject) = &call.auth else { return self.send_as_is(call).await };
        let mut token = self.token_for(subject).await;
        let mut renewals = 0;
        loop {
            let response = self.send(call, token.as_ref()).await?;
            // Refused before anything was done, so it may be sent again whatever it is.
            if response.status != 401 || renewals == MAX_RENEWALS {
                return Ok(response);
            }
            renewals += 1;
            match self.renew(subject, token.as_ref()).await? {
                Some(new) => token = Some(new),
                None => return Ok(response),
            }
        }
    }

    /// Sends a call whose token is not to be found first.
    async fn send_as_is(&self, call: &Call) -> Result<HttpResponse, RegistryError> {
        let token = match &call.auth {
            Auth::This(token) => Some(token),
            Auth::Nothing | Auth::For(_) => None,
        };
        self.send(call, token).await
    }

    /// Sends a call until it is answered or there is no use in trying again.
    async fn send(&self, call: &Call, token: Option<&Secret>) -> Result<HttpResponse, RegistryError> {
        let address = self.address()?;
        let mut headers = self.headers()?.clone();
        if call.body.is_some() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(token) = token {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose()))
                .map_err(|_| RegistryError::invalid("the token holds characters no header may hold"))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        headers.extend(call.headers.clone());
        let request = HttpRequest {
            method: call.method.clone(),
            origin: address.origin.clone(),
            path: format!("{}{}", address.prefix, call.endpoint),
            query: call.query.clone(),
            headers,
            body: call.body.clone(),
            timeout: self.inner.options.timeout,
        };
        let transport: &dyn Transport = match &self.over {
            Some(over) => over.as_ref(),
            None => self.own()?,
        };
        let options = &self.inner.options;
        let retry =
            Retry { attempts: options.retry_attempts, delay: options.retry_delay, max_delay: options.max_retry_delay };
        let mut tried = 0;
        loop {
            tried += 1;
            let begun = Instant::now();
            let outcome = transport.send(&request).await;
            report(call, &outcome, begun, tried);
            let ended = match &outcome {
                Ok(response) => Ended::Status { status: response.status, retry_after: asked_wait(response) },
                Err(fault) => Ended::Fault(fault),
            };
            match retry.next(tried, call.repeatable, &ended, fastrand::f64()) {
                Some(wait) => tokio::time::sleep(wait).await,
                None => return outcome.map_err(|fault| failed(&fault)),
            }
        }
    }

    /// The token for a subject, replaced when it is about to end.
    async fn token_for(&self, subject: &Subject) -> Option<Secret> {
        let now = Instant::now();
        let (token, origin) = {
            let state = self.inner.state.lock();
            let held = state.tokens.choose(subject, now)?;
            let renewable = match &held.origin {
                Origin::Agent(_) => true,
                Origin::Admin => state.admin.is_some(),
                Origin::Given | Origin::Temporary(_) => false,
            };
            if !renewable || !held.is_ending(now) {
                return Some(held.token.clone());
            }
            (held.token.clone(), held.origin.clone())
        };
        let _one = self.inner.renewing.lock().await;
        let current = self.inner.state.lock().tokens.choose(subject, now).map(|held| held.token.clone());
        if current.as_ref() != Some(&token) {
            return current;
        }
        let renewed = match origin {
            Origin::Admin => self.login_again().await.transpose(),
            _ => Some(self.refresh(&token, origin).await),
        };
        match renewed {
            Some(Ok(new)) => Some(new),
            Some(Err(error)) => {
                tracing::warn!(target: "arcp", "a token that is about to end could not be replaced: {error}");
                Some(token)
            }
            None => Some(token),
        }
    }

    /// A token in the place of one that was refused, or of none; `None` when there is nothing to get one with.
    async fn renew(&self, subject: &Subject, refused: Option<&Secret>) -> Result<Option<Secret>, RegistryError> {
        let _one = self.inner.renewing.lock().await;
        let agent_key = {
            let now = Instant::now();
            let mut state = self.inner.state.lock();
            if let Some(refused) = refused {
                // Somebody else may have replaced it meanwhile.
                let found = state.tokens.choose(subject, now).filter(|held| held.token != *refused);
                if let Some(found) = found {
                    return Ok(Some(found.token.clone()));
                }
                state.tokens.refused(refused);
            }
            if let Some(found) = state.tokens.choose(subject, now) {
                return Ok(Some(found.token.clone()));
            }
            match subject {
                Subject::Agent(id) => {
                    let registered = state.registrations.get(id).and_then(|known| known.agent_key.clone());
                    registered.or_else(|| self.inner.options.credentials.agent_key.clone())
                }
                Subject::Any | Subject::Admin => None,
            }
        };
        if let Some(token) = self.login_again().await? {
            return Ok(Some(token));
        }
        match (subject, agent_key) {
            (Subject::Agent(id), Some(key)) => self.temporary_token(id, "unknown", &key).await.map(Some),
            _ => Ok(None),
        }
    }
}

/// Its name on the wire.
const FINGERPRINT: HeaderName = HeaderName::from_static("x-client-fingerprint");

fn failed(fault: &TransportFault) -> RegistryError {
    let kind = match fault {
        TransportFault::Timeout(_) => FailureKind::Timeout,
        TransportFault::Connect(_) | TransportFault::Lost { .. } => FailureKind::Connection,
        TransportFault::Other(_) => FailureKind::Answer,
    };
    RegistryError::new(kind, fault)
}

fn asked_wait(response: &HttpResponse) -> Option<Duration> {
    let header = response.headers.get(::http::header::RETRY_AFTER)?.to_str().ok()?;
    retry::retry_after(header, jiff::Timestamp::now())
}

/// One line per try, without query, headers and bodies: nothing in it is secret (D-12).
fn report(call: &Call, outcome: &Result<HttpResponse, TransportFault>, begun: Instant, tried: u32) {
    if !tracing::event_enabled!(target: "arcp", tracing::Level::DEBUG) {
        return;
    }
    let (method, endpoint, took) = (&call.method, &call.endpoint, begun.elapsed().as_secs_f64() * 1000.0);
    match outcome {
        Ok(response) => {
            let status = response.status;
            tracing::debug!(target: "arcp", "{method} {endpoint} -> {status} in {took:.1} ms (attempt {tried})");
        }
        Err(fault) => {
            tracing::debug!(target: "arcp", "{method} {endpoint} -> {fault} after {took:.1} ms (attempt {tried})");
        }
    }
}

/// A random UUID of version 4.
fn uuid4() -> String {
    let mut bytes = fastrand::u128(..).to_be_bytes();
    // Guessable numbers would let others claim to be this client; without the system's randomness there is nothing better.
    let _ = getrandom::fill(&mut bytes);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
