//! An agent as it registered, with its JSON ready to be sent.

use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::figures::{Figures, write_value};
use super::time::{TimeForm, write_time};
use crate::model::{AgentRequirements, AgentStatus, ConfigField, Registration, SearchResponse};

/// What does not change between two registrations of an agent.
#[derive(Debug)]
pub struct Record {
    pub(crate) agent_id: Arc<str>,
    pub(crate) agent_type: Arc<str>,
    /// Each once.
    pub(crate) capabilities: Box<[Arc<str>]>,
    /// The registration as JSON, `null` members too, without the closing brace.
    head: Box<str>,
    /// Where in it members that are `null` stand.
    nulls: Box<[(u32, u32)]>,
    pub(crate) registered_at: Timestamp,
    zone: TimeZone,
}

impl Record {
    /// `agent_type` and `capabilities` are shared with the indexes they stand in.
    pub(crate) fn new(
        registration: &Registration,
        agent_type: Arc<str>,
        capabilities: Box<[Arc<str>]>,
        registered_at: Timestamp,
        zone: TimeZone,
    ) -> Record {
        let mut writer = HeadWriter::default();
        writer.registration(registration);
        // Everything in it was written from text.
        let head = String::from_utf8(writer.out).unwrap_or_default().into_boxed_str();
        let agent_id = Arc::from(registration.agent_id.as_str());
        let nulls = writer.nulls.into_boxed_slice();
        Record { agent_id, agent_type, capabilities, head, nulls, registered_at, zone }
    }

    /// The registration, read back.
    pub fn registration(&self) -> Registration {
        serde_json::from_str(&self.json()).unwrap_or_default()
    }

    /// Whether it can do this.
    pub fn has_capability(&self, wanted: &str) -> bool {
        self.capabilities.iter().any(|known| **known == *wanted)
    }

    /// The registration as JSON.
    pub fn json(&self) -> String {
        let mut json = String::with_capacity(self.head.len() + 1);
        json.push_str(&self.head);
        json.push('}');
        json
    }

    fn write_head(&self, out: &mut Vec<u8>, nulls: bool) {
        let head = self.head.as_bytes();
        if nulls {
            out.extend_from_slice(head);
            return;
        }
        let mut from = 0;
        for (start, end) in &self.nulls {
            out.extend_from_slice(&head[from..*start as usize]);
            from = *end as usize;
        }
        out.extend_from_slice(&head[from..]);
    }
}

/// An agent at one moment; cheap to clone.
#[derive(Clone, Debug)]
pub struct AgentView {
    pub(crate) record: Arc<Record>,
    /// Whether it was heard of in time.
    pub status: AgentStatus,
    /// When it was last heard of.
    pub last_seen: Timestamp,
    /// `None` as long as it has reported nothing.
    pub(crate) figures: Option<Arc<Figures>>,
}

impl AgentView {
    /// The agent's id.
    pub fn agent_id(&self) -> &Arc<str> {
        &self.record.agent_id
    }

    /// Its type, as sent.
    pub fn agent_type(&self) -> &Arc<str> {
        &self.record.agent_type
    }

    /// What it can do, each once.
    pub fn capabilities(&self) -> &[Arc<str>] {
        &self.record.capabilities
    }

    /// When it registered.
    pub fn registered_at(&self) -> Timestamp {
        self.record.registered_at
    }

    /// What it registered with; read from its JSON at each call.
    pub fn registration(&self) -> Registration {
        self.record.registration()
    }

    /// Its metrics.
    pub fn figures(&self) -> Figures {
        match &self.figures {
            Some(figures) => Figures::clone(figures),
            None => Figures::fresh(self.record.registered_at),
        }
    }

    /// Its reputation as a share (REG-198).
    pub fn reputation(&self) -> f64 {
        self.figures.as_ref().map_or(0.0, |figures| figures.reputation())
    }

    /// It as an answer to a question (REG-076).
    pub fn answer(&self, similarity: f64, with_metrics: bool, form: TimeForm) -> SearchResponse {
        let sent = self.registration();
        SearchResponse {
            id: sent.agent_id,
            name: sent.name,
            url: sent.endpoint,
            capabilities: sent.capabilities,
            version: sent.version,
            owner: sent.owner,
            similarity: Some(similarity),
            metrics: with_metrics.then(|| self.figures().model(&self.record.agent_id, self.zone(), form)),
        }
    }

    /// The zone times are told in.
    pub fn zone(&self) -> &TimeZone {
        &self.record.zone
    }

    /// Writes AgentInfo as JSON (REG-073): with members that are `null` as over HTTP, or without as on sockets.
    pub fn write_json(&self, out: &mut Vec<u8>, form: TimeForm, with_metrics: bool, nulls: bool) {
        let record = &*self.record;
        out.reserve(record.head.len() + 512);
        record.write_head(out, nulls);
        out.extend_from_slice(b",\"status\":\"");
        out.extend_from_slice(self.status.as_str().as_bytes());
        out.extend_from_slice(b"\",\"last_seen\":\"");
        write_time(out, self.last_seen, &record.zone, form);
        out.extend_from_slice(b"\",\"registered_at\":\"");
        write_time(out, record.registered_at, &record.zone, form);
        out.push(b'"');
        if nulls {
            out.extend_from_slice(b",\"similarity\":null");
        }
        if with_metrics {
            out.extend_from_slice(b",\"metrics\":");
            self.write_metrics(out, form);
        } else if nulls {
            out.extend_from_slice(b",\"metrics\":null");
        }
        out.push(b'}');
    }

    /// Writes its AgentMetrics as JSON (REG-074).
    pub fn write_metrics(&self, out: &mut Vec<u8>, form: TimeForm) {
        let record = &*self.record;
        match &self.figures {
            Some(figures) => figures.write_json(out, &record.agent_id, &record.zone, form),
            None => Figures::fresh(record.registered_at).write_json(out, &record.agent_id, &record.zone, form),
        }
    }

    /// Writes a list of agents as a JSON array.
    pub fn write_list(agents: &[AgentView], out: &mut Vec<u8>, form: TimeForm, with_metrics: bool, nulls: bool) {
        out.push(b'[');
        for (at, agent) in agents.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            agent.write_json(out, form, with_metrics, nulls);
        }
        out.push(b']');
    }
}

/// Writes a registration member by member, and remembers where the `null` ones are.
#[derive(Default)]
struct HeadWriter {
    out: Vec<u8>,
    nulls: Vec<(u32, u32)>,
}

impl HeadWriter {
    fn name(&mut self, name: &str) {
        if !matches!(self.out.last(), None | Some(b'{' | b'[')) {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn member<T: serde::Serialize + ?Sized>(&mut self, name: &str, value: &T) {
        self.name(name);
        write_value(&mut self.out, value);
    }

    fn optional<T: serde::Serialize>(&mut self, name: &str, value: Option<&T>) {
        match value {
            Some(value) => self.member(name, value),
            None => self.null(name),
        }
    }

    /// Never the first of an object.
    fn null(&mut self, name: &str) {
        let place = |out: &Vec<u8>| u32::try_from(out.len()).unwrap_or(u32::MAX);
        let start = place(&self.out);
        self.name(name);
        self.out.extend_from_slice(b"null");
        self.nulls.push((start, place(&self.out)));
    }

    fn registration(&mut self, sent: &Registration) {
        self.out.push(b'{');
        self.member("agent_id", &sent.agent_id);
        self.member("name", &sent.name);
        self.member("agent_type", &sent.agent_type);
        self.member("endpoint", &sent.endpoint);
        self.member("capabilities", &sent.capabilities);
        self.member("context_brief", &sent.context_brief);
        self.member("version", &sent.version);
        self.member("owner", &sent.owner);
        self.member("public_key", &sent.public_key);
        self.member("metadata", &sent.metadata);
        self.member("communication_mode", &sent.communication_mode);
        self.member("features", sent.features.as_deref().unwrap_or_default());
        self.optional("max_tokens", sent.max_tokens.as_ref());
        self.optional("language_support", sent.language_support.as_ref());
        self.optional("rate_limit", sent.rate_limit.as_ref());
        match &sent.requirements {
            Some(requirements) => {
                self.name("requirements");
                self.requirements(requirements);
            }
            None => self.null("requirements"),
        }
        self.member("policy_tags", sent.policy_tags.as_deref().unwrap_or_default());
        if let Some(context) = &sent.ai_context {
            self.member("ai_context", context);
        }
    }

    fn requirements(&mut self, requirements: &AgentRequirements) {
        self.out.push(b'{');
        self.member("system_requirements", &requirements.system_requirements);
        self.member("permissions", &requirements.permissions);
        self.member("dependencies", &requirements.dependencies);
        self.optional("minimum_system_version", requirements.minimum_system_version.as_ref());
        self.optional("minimum_memory_mb", requirements.minimum_memory_mb.as_ref());
        self.optional("minimum_disk_space_mb", requirements.minimum_disk_space_mb.as_ref());
        self.member("requires_internet", &requirements.requires_internet);
        self.member("network_ports", &requirements.network_ports);
        self.fields("required_fields", &requirements.required_fields, false);
        self.fields("optional_fields", &requirements.optional_fields, true);
        self.member("user_configuration", &requirements.user_configuration);
        self.member("schema_version", &requirements.schema_version);
        self.out.push(b'}');
    }

    fn fields(&mut self, name: &str, fields: &[ConfigField], with_category: bool) {
        self.name(name);
        self.out.push(b'[');
        for field in fields {
            if self.out.last() != Some(&b'[') {
                self.out.push(b',');
            }
            self.out.push(b'{');
            self.member("name", &field.name);
            self.member("label", &field.label);
            self.member("type", &field.kind);
            self.optional("description", field.description.as_ref());
            self.optional("default_value", field.default_value.as_ref());
            self.optional("options", field.options.as_ref());
            self.optional("validation", field.validation.as_ref());
            self.optional("placeholder", field.placeholder.as_ref());
            if with_category {
                self.optional("category", field.category.as_ref());
            }
            self.out.push(b'}');
        }
        self.out.push(b']');
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::AgentInfo;

    pub(crate) fn sample(agent_id: &str) -> Registration {
        Registration::check(&json!({
            "agent_id": agent_id, "name": "gold-1", "agent_type": "testing", "endpoint": "http://127.0.0.1:9977/ok",
            "capabilities": ["echo", "compute"], "context_brief": "A golden transcript agent used for capture",
            "version": "1.0.0", "owner": "Golden Owner", "public_key": "golden-public-key-0123456789abcdef-ok",
            "metadata": {"framework": "fastapi", "tags": ["demo", null], "count": 3}, "communication_mode": "remote",
        }))
        .unwrap()
    }

    fn view(registration: &Registration) -> AgentView {
        let at = "2026-11-20T15:33:49.334047Z".parse().unwrap();
        let record = Record::new(registration, "testing".into(), Box::default(), at, TimeZone::UTC);
        AgentView { record: Arc::new(record), status: AgentStatus::Alive, last_seen: at, figures: None }
    }

    fn without_nulls(value: Value) -> Value {
        match value {
            // What users put into free-form values stays as it is.
            Value::Object(object) => object
                .into_iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(name, value)| (name, without_nulls(value)))
                .collect(),
            Value::Array(list) if list.iter().any(Value::is_object) => list.into_iter().map(without_nulls).collect(),
            other => other,
        }
    }

    /// Rules: REG-073, REG-203, REG-313
    #[test]
    fn an_agent_is_written_as_recorded() {
        let mut registration = sample("gold-1");
        let view_of = |registration: &Registration| {
            let mut http = Vec::new();
            view(registration).write_json(&mut http, TimeForm::Http, true, true);
            let mut socket = Vec::new();
            view(registration).write_json(&mut socket, TimeForm::Http, true, false);
            let http: Value = serde_json::from_slice(&http).unwrap();
            assert_eq!(serde_json::from_slice::<Value>(&socket).unwrap(), without_nulls(http.clone()));
            http
        };
        let plain = view_of(&registration);
        assert_eq!(
            plain,
            json!({
                "agent_id": "gold-1", "name": "gold-1", "agent_type": "testing",
                "endpoint": "http://127.0.0.1:9977/ok", "capabilities": ["echo", "compute"],
                "context_brief": "A golden transcript agent used for capture", "version": "1.0.0",
                "owner": "Golden Owner", "public_key": "golden-public-key-0123456789abcdef-ok",
                "metadata": {"framework": "fastapi", "tags": ["demo", null], "count": 3},
                "communication_mode": "remote", "features": [], "max_tokens": null, "language_support": null,
                "rate_limit": null, "requirements": null, "policy_tags": [], "status": "alive",
                "last_seen": "2026-11-20T15:33:49.334047", "registered_at": "2026-11-20T15:33:49.334047",
                "similarity": null, "metrics": {"agent_id": "gold-1", "success_rate": 0.0, "avg_response_time": 0.0,
                    "total_requests": 0, "last_active": "2026-11-20T15:33:49.334047", "reputation_score": 0.0,
                    "requests_processed": 0, "average_response_time": 0.0, "error_rate": 0.0},
            })
        );
        registration.requirements = AgentRequirements::check_opt(&json!({
            "minimum_memory_mb": 512, "network_ports": ["8080"],
            "required_fields": [{"name": "a", "label": "A", "type": "text"}, {"name": "b", "label": "B", "type": "text"}],
            "optional_fields": [{"name": "c", "label": "C", "type": "select", "options": ["x"]}],
        }))
        .unwrap();
        registration.max_tokens = Some(5);
        registration.ai_context = Some("more \"of it\"".to_owned());
        let full = view_of(&registration);
        assert_eq!(full["requirements"]["minimum_disk_space_mb"], Value::Null);
        assert_eq!(full["requirements"]["optional_fields"][0]["category"], Value::Null);
        let info: AgentInfo = serde_json::from_value(full).unwrap();
        assert_eq!(info.requirements, registration.requirements);
        assert_eq!(info.extra.len(), 0);
        assert_eq!(view(&registration).registration().requirements, registration.requirements);
    }

    /// Rules: REG-015, REG-073
    #[test]
    fn a_client_reads_an_agent_of_three_members() {
        let info: AgentInfo =
            serde_json::from_value(json!({"agent_id": "a", "name": "b", "status": "alive", "new": 1})).unwrap();
        assert_eq!((info.agent_id.as_str(), info.extra["new"].clone()), ("a", json!(1)));
        let info: AgentInfo = serde_json::from_value(json!({"agent_type": "of-my-own", "features": null})).unwrap();
        assert_eq!(info.agent_type, "of-my-own");
    }
}
