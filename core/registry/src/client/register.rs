//! Agents of one's own: registering, beating, leaving.

use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::address::segment;
use super::calls::{Granted, read, seconds};
use super::check::check_registration;
use super::error::{Area, FailureKind, RegistryError};
use super::operation::{NewAgent, Operation};
use super::options::Secret;
use super::tokens::{Held, Origin, Subject, bounded};
use super::{Auth, Call, RegistryClient};

/// What an agent was registered with.
#[derive(Clone)]
pub(crate) struct Registration {
    pub(crate) body: Value,
    pub(crate) agent_key: Option<Secret>,
}

/// How long a token lives by default when a registration does not say (REG-033).
const LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

/// The longest and shortest time between two beats.
const INTERVALS: std::ops::RangeInclusive<f64> = 0.01..=86_400.0;

impl RegistryClient {
    /// REG-033: registers an agent; completes with the agent as the registry has it.
    pub(super) async fn register(&self, new: NewAgent) -> Result<String, RegistryError> {
        let registration = Registration { body: self.registration_body(new.fields)?, agent_key: new.agent_key };
        let agent_id = registration.body["agent_id"].as_str().unwrap_or_default().to_owned();
        self.register_as(&agent_id, &registration).await?;
        self.agent(&agent_id, true).await
    }

    async fn register_as(&self, agent_id: &str, registration: &Registration) -> Result<(), RegistryError> {
        let agent_type = registration.body["agent_type"].as_str().unwrap_or_default();
        let before = self.inner.state.lock().tokens.held().cloned();
        let auth = match self.registrar(agent_id, registration) {
            Registrar::Token(token) => Auth::This(token),
            Registrar::Key(key) => Auth::This(self.temporary_token(agent_id, agent_type, &key).await?),
            Registrar::Nobody => Auth::For(Subject::Agent(agent_id.to_owned())),
        };
        let call = Call::post("/agents/register", Some(&registration.body)).with(auth);
        let answered = self.json(call).await;
        let mut state = self.inner.state.lock();
        if let Err(error) = &answered {
            state.tokens.step_back(agent_id, before);
            if error.is_refusal() {
                // Used up, or never good for this.
                state.tokens.drop_temporary(agent_id);
            }
        }
        let granted: Granted = read("registration", &answered?)?;
        if let Some(token) = granted.access_token.filter(|token| !token.expose().is_empty()) {
            let life = granted.expires_in.and_then(seconds).unwrap_or(LIFE);
            let origin = Origin::Agent(agent_id.to_owned());
            state.tokens.put(Held::new(token.expose(), origin, Some(life), Instant::now()));
        }
        bounded(&mut state.registrations, agent_id.to_owned(), registration.clone());
        Ok(())
    }

    /// With what to register: its own key if one was given, then a token that is there, then the key of the environment.
    fn registrar(&self, agent_id: &str, registration: &Registration) -> Registrar {
        let now = Instant::now();
        let state = self.inner.state.lock();
        if let Some(key) = &registration.agent_key {
            return Registrar::Key(key.clone());
        }
        if let Some(temporary) = state.tokens.temporary(agent_id, now) {
            return Registrar::Token(temporary.token.clone());
        }
        if state.tokens.registrar(now).is_some() {
            // Not that token alone: it may be refused, and then replaced.
            return Registrar::Nobody;
        }
        match &self.inner.options.credentials.agent_key {
            Some(key) => Registrar::Key(key.clone()),
            None => Registrar::Nobody,
        }
    }

    /// REG-039.
    pub(super) async fn unregister(&self, agent_id: &str, key: Option<Secret>) -> Result<String, RegistryError> {
        let auth = match key {
            Some(key) => Auth::This(self.temporary_token(agent_id, "unknown", &key).await?),
            None => Auth::For(Subject::Agent(agent_id.to_owned())),
        };
        let call = Call { method: http::Method::DELETE, repeatable: false, ..Call::get(path(agent_id)) };
        let done = self.json(call.with(auth)).await?;
        let mut state = self.inner.state.lock();
        state.tokens.forget(agent_id);
        state.registrations.shift_remove(agent_id);
        Ok(done)
    }

    /// Beats at once and then every `interval` seconds (REG-059). What fails is logged, and an agent the registry does not
    /// know is registered again with what this client registered it with. Returns only when the interval is wrong; drop
    /// the future to stop.
    pub async fn keep_alive(&self, agent_id: &str, interval: f64) -> RegistryError {
        if !INTERVALS.contains(&interval) {
            let (least, most) = (INTERVALS.start(), INTERVALS.end());
            return RegistryError::invalid(format!("interval must be {least} to {most} seconds, got {interval}"));
        }
        let mut due = tokio::time::interval(Duration::from_secs_f64(interval));
        due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            due.tick().await;
            if let Err(error) = self.beat(agent_id).await {
                tracing::warn!(target: "arcp", "{error}");
            }
        }
    }

    /// One heartbeat, or a new registration when that is what is needed.
    async fn beat(&self, agent_id: &str) -> Result<(), RegistryError> {
        let Err(error) = self.heartbeat(agent_id).await else { return Ok(()) };
        let face = Operation::UpdateHeartbeat { agent_id: agent_id.to_owned() }.face();
        let error = error.within(face.0, face.1);
        let known = self.inner.state.lock().registrations.get(agent_id).cloned();
        match known {
            // With a registry that forgot the agent went its token, if the registry has other secrets now.
            Some(registration) if error.kind == FailureKind::NotFound || error.is_refusal() => {
                tracing::info!(target: "arcp", "the registry does not know {agent_id}; it is registered again");
                let again = self.register_as(agent_id, &registration).await;
                again.map_err(|error| error.within(Area::Registration, "Agent registration failed: "))
            }
            _ => Err(error),
        }
    }

    /// The body of a registration, with what was left out (D-9), checked before it is sent.
    fn registration_body(&self, mut fields: Map<String, Value>) -> Result<Value, RegistryError> {
        fields.retain(|_, value| !value.is_null());
        let owner = || self.inner.options.owner.clone().unwrap_or_else(|| "unknown".into());
        let mut default = |name: &str, value: &dyn Fn() -> Result<Value, RegistryError>| {
            if !fields.contains_key(name) {
                fields.insert(name.into(), value()?);
            }
            Ok::<_, RegistryError>(())
        };
        default("version", &|| Ok("1.0.0".into()))?;
        default("communication_mode", &|| Ok("remote".into()))?;
        default("owner", &|| Ok(owner().into()))?;
        default("public_key", &|| Ok(new_public_key()?.into()))?;
        default("metadata", &|| Ok(json!({"client": concat!("arcp/", env!("CARGO_PKG_VERSION"))})))?;
        // The published client sends these two always (REG-026).
        default("features", &|| Ok(json!([])))?;
        default("policy_tags", &|| Ok(json!([])))?;
        check_registration(fields)
    }
}

enum Registrar {
    Token(Secret),
    Key(Secret),
    Nobody,
}

fn path(agent_id: &str) -> String {
    format!("/agents/{}", segment(agent_id))
}

/// A new Ed25519 public key in base64, as certificates hold it. Nothing asks for its private half, which is not kept.
fn new_public_key() -> Result<String, RegistryError> {
    const HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    let pair = Ed25519KeyPair::generate()
        .map_err(|_| RegistryError::invalid("no public_key can be generated; give one of at least 32 characters"))?;
    let mut key = HEAD.to_vec();
    key.extend_from_slice(pair.public_key().as_ref());
    Ok(STANDARD.encode(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::RegistryOptions;

    fn body(mut fields: Value) -> Result<Value, RegistryError> {
        for (name, value) in [
            ("agent_id", json!("a-1")),
            ("name", json!("Agent A")),
            ("agent_type", json!("testing")),
            ("endpoint", json!("http://h.example")),
            ("capabilities", json!(["echo"])),
            ("context_brief", json!("A context brief here")),
        ] {
            fields.as_object_mut().unwrap().entry(name).or_insert(value);
        }
        let Value::Object(fields) = fields else { panic!("an object") };
        RegistryClient::new(RegistryOptions::new("http://localhost:8001")).registration_body(fields)
    }

    /// Rules: REG-026, REG-033
    #[test]
    fn what_is_left_out_gets_a_sensible_value() {
        let body = body(json!({"owner": null, "max_tokens": null})).unwrap();
        assert_eq!((&body["version"], &body["communication_mode"]), (&json!("1.0.0"), &json!("remote")));
        assert_eq!(body["owner"], "unknown");
        assert_eq!((&body["features"], &body["policy_tags"]), (&json!([]), &json!([])));
        let key = body["public_key"].as_str().unwrap();
        assert!((32..=1024).contains(&key.len()) && key.starts_with("MCowBQYDK2VwAyEA"), "{key}");
        assert!(!body["metadata"].as_object().unwrap().is_empty());
        assert!(body.get("max_tokens").is_none());
    }

    /// Rules: REG-033, REG-070
    #[test]
    fn wrong_fields_are_told_before_anything_is_sent() {
        let error = body(json!({"name": "x", "metadata": {}})).unwrap_err();
        let told = error.to_string();
        assert!(told.starts_with("Invalid registration data: "), "{told}");
        assert!(told.contains("name") && told.contains("metadata cannot be empty"), "{told}");
        assert_eq!(error.errors.unwrap().as_array().unwrap().len(), 2);
    }
}
