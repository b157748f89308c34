//! A client for any host.

use std::sync::Arc;

use arcp::message::{JobFilter, JobStatus, ListJobs, Resume, Welcome};
use arcp::{
    Error, JobHandle, LeaseConstraints, RawJson, Submit, SubmitCall, SubmitTrace, Subscribe, Timestamp, Token,
    TokenSource, TraceContext,
};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use crate::core::Core;
use crate::error::{ErrorInfo, read};
use crate::job::JobView;
use crate::options::ClientOptions;
use crate::port::{Deferred, Item, Port, Value};
use crate::transport::TransportHandle;

/// One session with a runtime.
pub struct Client {
    core: Core,
    client: arcp::Client,
}

/// A submit as hosts write it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SubmitRequest<'a> {
    agent: String,
    #[serde(borrow, default)]
    input: Option<&'a RawValue>,
    #[serde(borrow, default)]
    lease_request: Option<&'a RawValue>,
    #[serde(default)]
    expires_at: Option<String>,
    #[serde(default)]
    idempotency_key: Option<String>,
    #[serde(default)]
    max_runtime_sec: Option<u64>,
    #[serde(default)]
    parent_job_id: Option<String>,
    #[serde(default)]
    trace_id: Option<String>,
    #[serde(default)]
    traceparent: Option<String>,
    #[serde(default)]
    tracestate: Option<String>,
}

/// A subscribe as hosts write it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SubscribeRequest {
    job_id: String,
    #[serde(default)]
    history: bool,
    #[serde(default)]
    from_event_seq: Option<u64>,
}

/// A resume as hosts write it. The token is secret, so there is no `Debug`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ResumeRequest {
    session_id: String,
    resume_token: String,
    last_event_seq: u64,
}

impl From<ResumeRequest> for Resume {
    fn from(request: ResumeRequest) -> Self {
        let ResumeRequest { session_id, resume_token, last_event_seq } = request;
        Resume { session_id, resume_token, last_event_seq }
    }
}

/// A listing as hosts write it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListRequest {
    #[serde(default)]
    filter: Option<FilterRequest>,
    #[serde(default)]
    limit: Option<u64>,
    #[serde(default)]
    cursor: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FilterRequest {
    #[serde(default)]
    status: Option<Vec<String>>,
    #[serde(default)]
    agent: Option<String>,
    #[serde(default)]
    created_after: Option<String>,
    #[serde(default)]
    created_before: Option<String>,
}

impl ListRequest {
    fn into_message(self) -> Result<ListJobs, ErrorInfo> {
        let filter = self.filter.map(|filter| {
            Ok::<_, ErrorInfo>(JobFilter {
                status: filter.status,
                agent: filter.agent,
                created_after: time("created_after", filter.created_after)?,
                created_before: time("created_before", filter.created_before)?,
            })
        });
        Ok(ListJobs { filter: filter.transpose()?, limit: self.limit, cursor: self.cursor })
    }
}

fn time(name: &str, text: Option<String>) -> Result<Option<Timestamp>, ErrorInfo> {
    let read = |text: String| {
        let wrong = || ErrorInfo::argument(format!("{name} must be a time such as 2026-05-13T19:30:00Z"));
        Timestamp::parse(&text).ok_or_else(wrong)
    };
    text.map(read).transpose()
}

/// Where a client's bearer token comes from.
pub enum TokenChoice {
    /// Always this one.
    Fixed(String),
    /// The host, through [`Item::Token`], asked anew at each connection (D-24).
    Host(Port),
}

impl TokenChoice {
    fn into_token(self) -> Token {
        match self {
            TokenChoice::Fixed(token) => token.into_token(),
            TokenChoice::Host(port) => (move || {
                let (request, answer) = TokenRequest::new();
                port.push(Item::Token(request));
                async move {
                    let gone = || Error::Closed("the event loop that gives tokens is closed".into());
                    answer.await.unwrap_or_else(|_| Err(gone()))
                }
            })
            .into_token(),
        }
    }
}

/// A token the host is asked for. Dropped without an answer, the attempt to connect has failed.
pub struct TokenRequest {
    answer: Option<oneshot::Sender<Result<String, Error>>>,
}

impl TokenRequest {
    fn new() -> (Self, oneshot::Receiver<Result<String, Error>>) {
        let (sender, answer) = oneshot::channel();
        (TokenRequest { answer: Some(sender) }, answer)
    }

    /// Answers with the token, or with why there is none.
    pub fn answer(&mut self, token: Result<String, ErrorInfo>) {
        if let Some(answer) = self.answer.take() {
            // The client may be gone.
            drop(answer.send(token.map_err(|error| Error::Protocol(error.into_protocol()))));
        }
    }
}

impl Client {
    /// A client that is not connected.
    ///
    /// # Errors
    /// Names the option that is wrong.
    pub fn new(core: &Core, options: ClientOptions) -> Result<Self, ErrorInfo> {
        core.handle()?;
        Ok(Client { core: core.clone(), client: arcp::Client::new(options.into_config()?) })
    }

    /// Shakes hands; completes with the welcome as JSON. The transport is used up; one that can be opened again is, when
    /// the link is lost (D-7). `resume` is JSON with `session_id`, `resume_token` and `last_event_seq`, to take up a
    /// session of an earlier client.
    ///
    /// # Errors
    /// At once when the transport is used already or the core is gone; else through the port.
    pub fn connect(
        &self,
        port: &Port,
        call: u64,
        transport: &TransportHandle,
        token: TokenChoice,
        resume: Option<&str>,
    ) -> Result<(), ErrorInfo> {
        let handle = self.core.handle()?;
        let resume = resume.map(|text| read::<ResumeRequest>("resume", text)).transpose()?;
        let transport = transport.take()?;
        let client = self.client.clone();
        let token = token.into_token();
        port.spawn(&handle, call, async move {
            let welcome = match resume {
                None => client.connect(transport, token).await?,
                Some(resume) => client.connect_resuming(transport, token, resume.into()).await?,
            };
            Ok(Value::Json(welcome_json(&welcome)?))
        });
        Ok(())
    }

    /// A view of a job of a session that was taken up: what came since then, and what comes.
    ///
    /// # Errors
    /// `INVALID_REQUEST` when no session was taken up; when there is no session.
    pub fn job(&self, job_id: &str) -> Result<Arc<JobView>, ErrorInfo> {
        self.core.handle()?;
        Ok(Arc::new(JobView::submitted(self.client.job(job_id)?)))
    }

    /// The ids of the jobs this session knows of.
    pub fn jobs(&self) -> Vec<String> {
        self.client.jobs()
    }

    /// One page of jobs; completes with the payload of `session.jobs` as JSON. `request` is JSON with, all optional,
    /// `filter` (`status`, `agent`, `created_after`, `created_before`), `limit` and `cursor`.
    ///
    /// # Errors
    /// At once for a request that cannot be read; else through the port.
    pub fn list_jobs(&self, port: &Port, call: u64, request: &str) -> Result<(), ErrorInfo> {
        let handle = self.core.handle()?;
        let list = read::<ListRequest>("list_jobs", request)?.into_message()?;
        let client = self.client.clone();
        port.spawn(&handle, call, async move {
            let jobs = client.list_jobs(&list).await?;
            let text = serde_json::to_string(&jobs).map_err(|error| Error::Transport(error.to_string()))?;
            Ok(Value::Json(text))
        });
        Ok(())
    }

    /// The welcome as JSON, while the session is open. Holds the resume token, a secret.
    pub fn welcome(&self) -> Option<String> {
        self.client.welcome().and_then(|welcome| welcome_json(&welcome).ok())
    }

    /// Whether a feature was negotiated.
    pub fn has_feature(&self, name: &str) -> bool {
        self.client.has_feature(name)
    }

    /// What was negotiated, in this client's order; empty before the welcome.
    pub fn negotiated_features(&self) -> Vec<String> {
        self.client.negotiated_features()
    }

    /// The highest `event_seq` received.
    pub fn latest_event_seq(&self) -> u64 {
        self.client.latest_event_seq()
    }

    /// Submits a job; completes with [`Value::Job`] once it is accepted. `request` is JSON with `agent` and, optionally,
    /// `input`, `lease_request`, `expires_at`, `idempotency_key`, `max_runtime_sec`, `parent_job_id`, `trace_id`; or,
    /// instead of the last, `traceparent` and `tracestate`, which ride along and are left out when malformed.
    ///
    /// # Errors
    /// At once for a request that cannot be read; else through the port.
    pub fn submit(&self, port: &Port, call: u64, request: &str) -> Result<(), ErrorInfo> {
        self.core.handle()?;
        self.submit_soon(port, call, request)?;
        port.flush();
        Ok(())
    }

    /// As [`Client::submit`], but it leaves with the next [`Port::flush`], together with others; whether it is the first
    /// thing that waits for one. For hosts that see by themselves that their process was not forked.
    ///
    /// # Errors
    /// As [`Client::submit`].
    pub fn submit_soon(&self, port: &Port, call: u64, request: &str) -> Result<bool, ErrorInfo> {
        let request: SubmitRequest<'_> = read("submit", request)?;
        let lease_request = request.lease_request.map_or_else(|| Ok(RawJson::empty_object()), raw)?;
        let submit = Submit {
            agent: request.agent,
            input: request.input.map_or_else(|| Ok(RawJson::null()), raw)?,
            lease_request,
            lease_constraints: request.expires_at.map(|end| LeaseConstraints { expires_at: Some(end) }),
            idempotency_key: request.idempotency_key,
            max_runtime_sec: request.max_runtime_sec,
            parent_job_id: request.parent_job_id,
            delegate_id: None,
        };
        let parent = request.traceparent.filter(|_| request.trace_id.is_none());
        let context = parent.and_then(|parent| TraceContext::parse(&parent, request.tracestate.as_deref()));
        let trace = match context {
            Some(context) => Some(SubmitTrace::Context(context)),
            None => request.trace_id.map(SubmitTrace::Id),
        };
        self.defer_submit(port, call, submit, trace)
    }

    /// As [`Client::submit_soon`], for a job that has nothing but an agent and an input, which is JSON text.
    ///
    /// # Errors
    /// As [`Client::submit`].
    pub fn submit_plain_soon(&self, port: &Port, call: u64, agent: &str, input: &str) -> Result<bool, ErrorInfo> {
        let submit = Submit {
            agent: agent.to_owned(),
            input: RawJson::parse(input)?,
            lease_request: RawJson::empty_object(),
            lease_constraints: None,
            idempotency_key: None,
            max_runtime_sec: None,
            parent_job_id: None,
            delegate_id: None,
        };
        self.defer_submit(port, call, submit, None)
    }

    fn defer_submit(
        &self,
        port: &Port,
        call: u64,
        submit: Submit,
        trace: Option<SubmitTrace>,
    ) -> Result<bool, ErrorInfo> {
        let told = port.clone();
        let then = Box::new(move |outcome: Result<JobHandle, Error>| {
            let outcome = outcome.map_err(ErrorInfo::from);
            told.complete(call, outcome.map(|job| Value::Job(Arc::new(JobView::submitted(job)))));
        });
        let submit = Box::new(SubmitCall { submit, trace, then });
        Ok(port.defer(Deferred::Submit { call, client: self.client.clone(), submit }))
    }

    /// Follows a job; completes with [`Value::Job`]. `request` is JSON with `job_id` and, optionally, `history` and
    /// `from_event_seq`.
    ///
    /// # Errors
    /// As [`Client::submit`].
    pub fn subscribe(&self, port: &Port, call: u64, request: &str) -> Result<(), ErrorInfo> {
        let handle = self.core.handle()?;
        let request: SubscribeRequest = read("subscribe", request)?;
        let subscribe =
            Subscribe { job_id: request.job_id, from_event_seq: request.from_event_seq, history: request.history };
        let client = self.client.clone();
        port.spawn(&handle, call, async move {
            let job = client.subscribe(&subscribe).await?;
            Ok(Value::Job(Arc::new(JobView::followed(&job)?)))
        });
        Ok(())
    }

    /// Stops following a job; silent when that was not negotiated.
    pub fn unsubscribe(&self, job_id: &str) {
        self.client.unsubscribe(job_id);
    }

    /// Asks to cancel a job and returns at once.
    ///
    /// # Errors
    /// When there is no session.
    pub fn cancel_job(&self, job_id: &str, reason: &str) -> Result<(), ErrorInfo> {
        self.core.handle()?;
        Ok(self.client.cancel_job(job_id, reason)?)
    }

    /// Asks to cancel a job; completes with JSON: the state of a job that had already ended, else `null`.
    ///
    /// # Errors
    /// At once when the core is gone; else through the port.
    pub fn cancel_job_acknowledged(
        &self,
        port: &Port,
        call: u64,
        job_id: String,
        reason: String,
    ) -> Result<(), ErrorInfo> {
        let handle = self.core.handle()?;
        let client = self.client.clone();
        port.spawn(&handle, call, async move {
            let status = client.cancel_job_acknowledged(&job_id, &reason).await?;
            let text = status.map_or("null".to_owned(), |status: JobStatus| format!("\"{}\"", status.as_str()));
            Ok(Value::Json(text))
        });
        Ok(())
    }

    /// Acknowledges by hand; silent when that was not negotiated.
    pub fn ack(&self, last_processed_seq: u64) {
        self.client.ack(last_processed_seq);
    }

    /// Ends the session politely; completes within bounded time. Idempotent.
    ///
    /// # Errors
    /// At once when the core is gone.
    pub fn close(&self, port: &Port, call: u64, reason: String) -> Result<(), ErrorInfo> {
        let handle = self.core.handle()?;
        let client = self.client.clone();
        port.spawn(&handle, call, async move {
            client.close(&reason).await;
            Ok(Value::Nothing)
        });
        Ok(())
    }

    /// Completes with the reason, as an error, when the session is over.
    ///
    /// # Errors
    /// At once when the core is gone.
    pub fn closed(&self, port: &Port, call: u64) -> Result<(), ErrorInfo> {
        let handle = self.core.handle()?;
        let client = self.client.clone();
        port.spawn(&handle, call, async move { Err(client.closed().await.into()) });
        Ok(())
    }
}

fn raw(value: &RawValue) -> Result<RawJson, ErrorInfo> {
    Ok(RawJson::parse(value.get())?)
}

fn welcome_json(welcome: &Welcome) -> Result<String, ErrorInfo> {
    serde_json::to_string(welcome).map_err(|error| Error::Transport(error.to_string()).into())
}
