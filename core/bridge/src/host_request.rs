//! Questions to what a host has plugged into a runtime.

use arcp::ProtocolError;
use tokio::sync::oneshot;

use crate::error::ErrorInfo;
use crate::port::{Item, Port};

/// What a [`HostRequest`] is about, by its name; arguments and answers are JSON text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// `policy`: `{principal, operation, jobs}`, where `operation` is `list` or `subscribe` and a job is `{job_id,
    /// session_id, principal, agent, version, created_at, parent_job_id, status}`. Answer: a list as long as `jobs` of
    /// `allowed`, `known` (may know that it exists) or `hidden`.
    Policy,
    /// `issue`: `{intent, job_id, principal, agent, lease, expires_at, parent_job_id}`. Answer: a list of `{id, scheme,
    /// value, endpoint, profile, constraints}`; `constraints` is `{cost.budget, model.use, expires_at}`.
    Issue,
    /// `revoke`: `{job_id, id, rotation}`, where `rotation` counts the values this id has had, from 0; or `{intent}`:
    /// whatever an earlier process issued for it. The answer says nothing.
    Revoke,
    /// `record`: `{job_id, ids}`, to be written down before the answer, which says nothing.
    Record,
    /// `forget`: `{job_id, id}`, which needs no revocation any more. The answer says nothing.
    Forget,
    /// `outstanding`: `{}`. Answer: a list of `[job_id, id]` written down and not forgotten.
    Outstanding,
    /// `event_log`: a list of `{append, event_seq, envelope}`, `{release, through}` and `{drop}`, whose first members are
    /// session ids and whose `envelope` is JSON text. The answer says nothing.
    EventLog,
    /// `http_request`: `{method, url, params, headers, json, timeout}`, where `url` has no query, `params` is a list of
    /// `[name, text]`, and `json` is absent without a body. Answer: `{status, headers, body}`, with a body of text; or
    /// `{failed, message}`, where `failed` is `connect` (nothing was sent), `timeout`, `lost` or `other`.
    HttpRequest,
}

impl About {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            About::Policy => "policy",
            About::Issue => "issue",
            About::Revoke => "revoke",
            About::Record => "record",
            About::Forget => "forget",
            About::Outstanding => "outstanding",
            About::EventLog => "event_log",
            About::HttpRequest => "http_request",
        }
    }
}

/// One question. Its answer may hold secrets, so nothing here has a `Debug`.
pub struct HostRequest {
    about: About,
    arguments: String,
    answer: Option<oneshot::Sender<Result<String, ProtocolError>>>,
}

impl HostRequest {
    /// What it is about.
    pub fn about(&self) -> About {
        self.about
    }

    /// JSON text.
    pub fn arguments(&self) -> &str {
        &self.arguments
    }

    /// Answers with JSON text, or with an error. The first answer counts.
    pub fn answer(&mut self, answer: Result<String, ErrorInfo>) {
        if let Some(waiting) = self.answer.take() {
            // Nobody may wait any more.
            drop(waiting.send(answer.map_err(ErrorInfo::into_protocol)));
        }
    }
}

impl Port {
    /// Asks the host; its answer, or why there is none.
    pub(crate) async fn ask(&self, about: About, arguments: &serde_json::Value) -> Result<String, ProtocolError> {
        let (sender, answer) = oneshot::channel();
        let request = HostRequest { about, arguments: arguments.to_string(), answer: Some(sender) };
        self.push(Item::Ask(request));
        answer.await.unwrap_or_else(|_| {
            let about = about.as_str();
            Err(ProtocolError::internal(format!("the host gave no answer about {about}; its event loop may be closed")))
        })
    }
}

/// Reads an answer; the error shows none of it, since it may hold secrets.
pub(crate) fn read<T: serde::de::DeserializeOwned>(about: About, text: &str) -> Result<T, ProtocolError> {
    serde_json::from_str(text).map_err(|error| {
        let (about, line, column) = (about.as_str(), error.line(), error.column());
        ProtocolError::internal(format!("the host's answer about {about} has another shape at {line}:{column}"))
    })
}
