//! What an agent can do while it runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arcp_proto::event::{self, EventKind};
use arcp_proto::feature::Feature;
use arcp_proto::json::RawJson;
use arcp_proto::machine::job::{Ending, JobStart};
use arcp_proto::machine::result_stream::ResultOptions;
use arcp_proto::machine::runtime::JobKey;
use arcp_proto::message::{Credential, SecretText};
use arcp_proto::time::Timestamp;
use arcp_proto::trace::TraceContext;
use arcp_proto::{Error, ErrorCode};
use serde::Serialize;
use tokio::sync::watch;

use crate::host::Shared;
use crate::result_writer::ResultWriter;
use crate::span::JobTrace;

/// One job's view of its runtime. Cheap to clone; emitters may be called from any thread.
#[derive(Clone)]
pub struct JobContext {
    shared: Arc<Shared>,
    job: JobKey,
    start: Arc<JobStart>,
    cancel: Arc<CancelSignal>,
    trace: Arc<JobTrace>,
}

/// Tells an agent that it is to give way.
pub(crate) struct CancelSignal {
    ending: watch::Sender<Option<Ending>>,
    /// Whether the agent looks out for cancellation, and so is given time to clean up.
    observed: AtomicBool,
}

impl CancelSignal {
    pub(crate) fn new() -> Self {
        CancelSignal { ending: watch::Sender::new(None), observed: AtomicBool::new(false) }
    }

    pub(crate) fn set(&self, ending: Ending) {
        self.ending.send_replace(Some(ending));
    }

    /// Its agent ends by itself after a cancellation.
    pub(crate) fn observe(&self) {
        self.observed.store(true, Ordering::Release);
    }

    /// Why the agent is to give way, if it is.
    pub(crate) fn now(&self) -> Option<Ending> {
        self.ending.borrow().clone()
    }

    pub(crate) fn is_observed(&self) -> bool {
        self.observed.load(Ordering::Acquire)
    }

    pub(crate) async fn wait(&self) -> Ending {
        let mut changes = self.ending.subscribe();
        loop {
            if let Some(ending) = changes.borrow_and_update().clone() {
                return ending;
            }
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// The session that submitted a job, at one moment.
#[derive(Clone, Debug)]
pub struct SessionView {
    /// What its token allows; empty after a restart, until the session is taken up.
    pub scopes: Arc<[String]>,
    /// What was negotiated, in the client's order.
    pub features: Vec<String>,
    /// `None` without heartbeats.
    pub heartbeat_interval: Option<Duration>,
    /// How long it can be taken up after its connection was lost.
    pub resume_window: Duration,
    /// When it was last welcomed; the epoch after a restart, until it is taken up.
    pub accepted_at: Timestamp,
    /// Highest number issued.
    pub event_seq: u64,
    /// Highest number its client has acknowledged.
    pub acked: u64,
}

impl JobContext {
    pub(crate) fn new(
        shared: Arc<Shared>,
        job: JobKey,
        start: Arc<JobStart>,
        cancel: Arc<CancelSignal>,
        trace: Arc<JobTrace>,
    ) -> Self {
        JobContext { shared, job, start, cancel, trace }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn job(&self) -> JobKey {
        self.job
    }

    /// What the job was started with: ids, principal, agent, lease, trace.
    pub fn start(&self) -> &JobStart {
        &self.start
    }

    /// What the agent hands to its tools and children: the trace of the submit, with this job as the cause. The
    /// same at every call. `None` only for a job whose trace id is no trace id.
    pub fn trace_context(&self) -> Option<&TraceContext> {
        self.trace.context(&self.start)
    }

    /// Current budget counters, `{"USD":3.58}`; `None` without a budget.
    pub fn budget(&self) -> Option<RawJson> {
        self.shared.peek(|machine| machine.budget_json(self.job))
    }

    /// Highest `event_seq` of the submitting session, and the highest its client acknowledged.
    pub fn session_progress(&self) -> Option<(u64, u64)> {
        self.shared.peek(|machine| machine.session_progress(self.job))
    }

    /// The submitting session as it stands; `None` once it is gone.
    pub fn session(&self) -> Option<SessionView> {
        self.shared.peek(|machine| {
            let (_, session) = machine.session_of_job(self.job)?;
            let config = machine.config();
            let heartbeat = config.heartbeat_interval.filter(|_| session.has(Feature::Heartbeat));
            Some(SessionView {
                scopes: Arc::clone(session.scopes()),
                features: session.features().to_vec(),
                heartbeat_interval: heartbeat,
                resume_window: config.resume_window,
                accepted_at: session.accepted_at(),
                event_seq: session.issued(),
                acked: session.acked(),
            })
        })
    }

    /// The credentials that were issued for this job, with their present values.
    pub fn credentials(&self) -> Vec<Credential> {
        self.shared.peek(|machine| machine.credentials_of(self.job))
    }

    /// Completes when the job is to give way, with the reason. Asking for it makes the agent responsible for ending
    /// within the grace time.
    pub async fn cancelled(&self) -> Ending {
        self.cancel.observe();
        self.cancel.wait().await
    }

    /// Marks the agent as one that ends by itself after a cancellation, before it first waits.
    pub fn observe_cancellation(&self) {
        self.cancel.observe();
    }

    /// Emits an event and waits while the submitting client lags behind (D-20).
    ///
    /// # Errors
    /// `INVALID_REQUEST` for a kind or body that breaks a rule; what a refused `tool_call` says;
    /// `INTERNAL_ERROR` while events cannot be stored.
    pub async fn emit(&self, kind: &str, body: &RawJson) -> Result<(), Error> {
        if self.emit_now(kind, body)? {
            self.drained().await;
        }
        // An agent that only emits still lets others run, and can be dropped (D-23).
        tokio::task::coop::consume_budget().await;
        Ok(())
    }

    /// Emits an event and returns at once: whether the caller should await [`JobContext::drained`] before the next.
    ///
    /// # Errors
    /// As [`JobContext::emit`].
    pub fn emit_now(&self, kind: &str, body: &RawJson) -> Result<bool, Error> {
        event::check_emitted(kind, body)?;
        let kind = EventKind::parse(kind);
        let emit = || self.emit_checked(&kind, body);
        match kind {
            EventKind::ToolCall => self.trace.operation(&self.start, "tool.call", emit),
            EventKind::Metric => {
                let wait = emit()?;
                self.record_budget();
                Ok(wait)
            }
            _ => emit(),
        }
    }

    /// Emits a `log` event as [`JobContext::emit_now`] does. It costs less than a body that has to be looked at.
    ///
    /// # Errors
    /// As [`JobContext::emit`].
    pub fn log_now(&self, level: &str, message: &str) -> Result<bool, Error> {
        self.emit_checked(&EventKind::Log, &event::log(level, message, None)?)
    }

    fn emit_checked(&self, kind: &EventKind, body: &RawJson) -> Result<bool, Error> {
        self.shared.act(|machine, now| {
            machine.emit(now, self.job, kind, body)?;
            Ok(machine.must_wait(self.job))
        })
    }

    /// Shows in the job's span what a metric may have left.
    fn record_budget(&self) {
        if self.trace.span().is_seen()
            && let Some(budget) = self.budget()
        {
            self.trace.span().record("arcp.budget.remaining", budget.get());
        }
    }

    /// Completes when this job's emitters may go on.
    pub async fn drained(&self) {
        loop {
            // Registered before the question is asked, so that no answer is missed.
            let drained = self.shared.drained().notified();
            tokio::pin!(drained);
            drained.as_mut().enable();
            if !self.shared.act(|machine, _| machine.must_wait(self.job)) {
                return;
            }
            drained.await;
        }
    }

    /// Opens the result of this job, to be written in parts: a job has one.
    ///
    /// # Errors
    /// `INVALID_REQUEST` when the job's result was opened before, or chunks were emitted by hand.
    pub fn stream_result(&self) -> Result<ResultWriter, Error> {
        self.stream_result_with(ResultOptions::default())
    }

    /// As [`JobContext::stream_result`], under an id of the agent's own, or cut elsewhere than at 256 KiB.
    ///
    /// # Errors
    /// As [`JobContext::stream_result`], and `INVALID_REQUEST` for an option out of bounds.
    pub fn stream_result_with(&self, options: ResultOptions) -> Result<ResultWriter, Error> {
        let opened = self.shared.act(|machine, now| machine.open_result(now, self.job, options))?;
        Ok(ResultWriter::new(self.clone(), opened))
    }

    /// The job, and the runtime that runs it.
    pub(crate) fn place(&self) -> (JobKey, &Arc<Shared>) {
        (self.job, &self.shared)
    }

    /// Completes when the job is to give way, whoever looks out for it.
    pub(crate) async fn given_up(&self) -> Ending {
        self.cancel.wait().await
    }

    /// Checks one operation against the lease.
    ///
    /// # Errors
    /// `LEASE_EXPIRED` (which also ends the job), `PERMISSION_DENIED`, `BUDGET_EXHAUSTED`, `INVALID_REQUEST`.
    pub fn authorize(&self, namespace: &str, target: &str) -> Result<(), Error> {
        self.trace.operation(&self.start, namespace, || {
            self.shared.act(|machine, now| machine.authorize(now, self.job, namespace, target))
        })
    }

    /// Replaces the value of one of the job's credentials by one the agent made: the client is told, then the old value is
    /// revoked (R-9.8.2.7). The new one is revoked when the job ends, as the provisioner knows it.
    ///
    /// # Errors
    /// `INVALID_REQUEST` when the provisioner cannot revoke such a value, or it was used before; `JOB_NOT_FOUND` when the
    /// job has no such credential; `INTERNAL_ERROR` while the store cannot keep what is needed to revoke it.
    pub fn rotate_credential(&self, id: &str, value: SecretText) -> Result<(), Error> {
        let handle = self.shared.handle_for(&value)?;
        self.shared.act(|machine, now| machine.rotate(now, &self.start.job_id, id, value, handle))
    }

    /// As [`JobContext::rotate_credential`], for a value whose handle the caller knows.
    ///
    /// # Errors
    /// As [`JobContext::rotate_credential`].
    pub fn rotate_credential_with(&self, id: &str, value: SecretText, handle: RawJson) -> Result<(), Error> {
        self.shared.act(|machine, now| machine.rotate(now, &self.start.job_id, id, value, handle))
    }

    /// A `log` event; level one of trace, debug, info, warn, error, critical.
    pub async fn log(&self, level: &str, message: &str) -> Result<(), Error> {
        self.emit("log", &event::log(level, message, None)?).await
    }

    /// A `thought` event.
    pub async fn thought(&self, text: &str) -> Result<(), Error> {
        self.emit("thought", &event::thought(text)?).await
    }

    /// A `status` event.
    pub async fn status(&self, phase: &str, message: Option<&str>) -> Result<(), Error> {
        self.emit("status", &event::status(phase, message, None)?).await
    }

    /// A `metric` event; `value` is a JSON number as text, so that no digit is lost.
    pub async fn metric(&self, name: &str, value: &str, unit: Option<&str>) -> Result<(), Error> {
        self.emit("metric", &event::metric(name, value, unit, None)?).await
    }

    /// A `progress` event; numbers as JSON text.
    pub async fn progress(&self, current: &str, total: Option<&str>, units: Option<&str>) -> Result<(), Error> {
        self.emit("progress", &event::progress(current, total, units, None)?).await
    }

    /// An `artifact_ref` event: where something the job made can be fetched.
    pub async fn artifact_ref(
        &self,
        uri: &str,
        content_type: &str,
        byte_size: Option<u64>,
        sha256: Option<&str>,
    ) -> Result<(), Error> {
        self.emit("artifact_ref", &event::artifact_ref(uri, content_type, byte_size, sha256)?).await
    }

    /// A `result_chunk` event by hand: the agent numbers its chunks and ends them itself, and what breaks the order is
    /// refused. [`JobContext::stream_result`] does this for it.
    pub async fn result_chunk(&self, result_id: &str, chunk_seq: u64, data: &[u8], more: bool) -> Result<(), Error> {
        self.emit("result_chunk", &event::result_chunk(result_id, chunk_seq, data, more)?).await
    }

    /// A `tool_call` event; refused, and shown as refused, when the lease does not cover `tool.call` of this tool.
    pub async fn tool_call(&self, tool: &str, args: &impl Serialize, call_id: &str) -> Result<(), Error> {
        self.emit("tool_call", &event::tool_call(tool, Some(&json(args)?), call_id)?).await
    }

    /// A `tool_result` event that carries a value.
    pub async fn tool_result(&self, call_id: &str, result: &impl Serialize) -> Result<(), Error> {
        self.emit("tool_result", &event::tool_result(call_id, Ok(Some(&json(result)?)))?).await
    }

    /// A `tool_result` event that carries an error.
    pub async fn tool_error(&self, call_id: &str, error: &Error) -> Result<(), Error> {
        self.emit("tool_result", &event::tool_result(call_id, Err(error))?).await
    }
}

fn json(value: &impl Serialize) -> Result<RawJson, Error> {
    RawJson::from_serialize(value).map_err(|error| Error::new(ErrorCode::InvalidRequest, error.message))
}
