//! An agent that runs in the host.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arcp::{
    Ending, HostedAgent, HostedJob, Identity, JobContext, JobStart, Outcome, ProtocolError, RawJson, ResultData,
    ResultOptions, ResultWriter, Written,
};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::core::Core;
use crate::delegation::Children;
use crate::error::ErrorInfo;
use crate::port::{Deferred, Item, Port, Value};
use crate::runtime::Plugged;

/// One job for an agent of the host. Dropped without an answer, it ends as `INTERNAL_ERROR`.
pub struct Invocation {
    id: u64,
    core: Core,
    context: JobContext,
    input: RawJson,
    port: Port,
    answered: Arc<AtomicBool>,
    children: Children,
    result: Mutex<Option<ResultWriter>>,
    /// How often each credential was replaced.
    rotations: Mutex<HashMap<String, u64>>,
    plugged: Arc<Plugged>,
}

impl Invocation {
    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    pub(crate) fn context(&self) -> &JobContext {
        &self.context
    }

    pub(crate) fn plugged(&self) -> &Plugged {
        &self.plugged
    }

    pub(crate) fn rotations(&self) -> &Mutex<HashMap<String, u64>> {
        &self.rotations
    }

    pub(crate) fn children(&self) -> &Children {
        &self.children
    }

    /// Names this invocation in later items.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Ids, principal, agent, lease and trace of the job.
    pub fn start(&self) -> &JobStart {
        self.context.start()
    }

    /// The input's JSON text.
    pub fn input(&self) -> &str {
        self.input.get()
    }

    /// The effective lease as JSON.
    pub fn lease(&self) -> String {
        self.start().lease.to_json()
    }

    /// Current budget counters as JSON; `None` without a budget.
    pub fn budget(&self) -> Option<String> {
        self.context.budget().map(|budget| budget.get().to_owned())
    }

    /// Highest `event_seq` of the submitting session, and the highest its client acknowledged.
    pub fn session_progress(&self) -> Option<(u64, u64)> {
        self.context.session_progress()
    }

    /// The submitting session as JSON: `scopes`, `features`, `heartbeat_interval_sec` or null, `resume_window_sec`,
    /// `accepted_at` or null, `event_seq`, `acked`; `None` once it is gone.
    pub fn session(&self) -> Option<String> {
        let session = self.context.session()?;
        let accepted_at = Some(session.accepted_at).filter(|at| at.0 > 0);
        let view = serde_json::json!({
            "scopes": *session.scopes,
            "features": session.features,
            "heartbeat_interval_sec": session.heartbeat_interval.map(|interval| interval.as_secs().max(1)),
            "resume_window_sec": session.resume_window.as_secs(),
            "accepted_at": accepted_at.map(|at| at.to_string()),
            "event_seq": session.event_seq,
            "acked": session.acked,
        });
        Some(view.to_string())
    }

    /// The job's credentials as JSON, as its acceptance shows them: with their values, which are secret.
    pub fn credentials(&self) -> String {
        serde_json::to_string(&self.context.credentials()).unwrap_or_else(|_| "[]".into())
    }

    /// Emits an event whose body is JSON text and returns at once: whether to wait with [`Invocation::drained`] before
    /// the next.
    ///
    /// # Errors
    /// `INVALID_REQUEST` for a bad kind or body; what a refused `tool_call` says.
    pub fn emit(&self, kind: &str, body: &str) -> Result<bool, ErrorInfo> {
        Ok(self.context.emit_now(kind, &RawJson::parse(body)?)?)
    }

    /// As [`Invocation::emit`], for a `log` event of a level and a message.
    ///
    /// # Errors
    /// `INVALID_REQUEST` for a level that is none.
    pub fn log(&self, level: &str, message: &str) -> Result<bool, ErrorInfo> {
        Ok(self.context.log_now(level, message)?)
    }

    /// Opens the result of the job, to be written in parts, and returns its id. `result_id` is the agent's own, or `None`
    /// for a fresh one; `chunk_bytes` is where it is cut, 256 KiB when `None`.
    ///
    /// # Errors
    /// `INVALID_REQUEST` when the job's result was opened before, or an option is out of bounds.
    pub fn open_result(&self, result_id: Option<String>, chunk_bytes: Option<usize>) -> Result<String, ErrorInfo> {
        let writer = self.context.stream_result_with(ResultOptions { result_id, chunk_bytes })?;
        let result_id = writer.result_id().to_owned();
        *self.result.lock() = Some(writer);
        Ok(result_id)
    }

    /// Writes as much of `data` as may be written at once: how much that was, in bytes, and whether to wait with
    /// [`Invocation::drained`] before the rest, or the next. What is left is [`ResultData::skip`] of what was taken.
    ///
    /// # Errors
    /// `INTERNAL_ERROR` with `details.cap` over a cap, in which the job then ends; `INVALID_REQUEST` when no result is
    /// open.
    pub fn write_result(&self, data: ResultData<'_>) -> Result<Written, ErrorInfo> {
        let mut result = self.result.lock();
        let writer = result.as_mut().ok_or_else(no_result)?;
        Ok(writer.write_now(data)?)
    }

    /// Sends what is kept back of the result until more is written.
    ///
    /// # Errors
    /// `INVALID_REQUEST` when no result is open.
    pub fn flush_result(&self) -> Result<(), ErrorInfo> {
        self.result.lock().as_ref().ok_or_else(no_result)?.flush();
        Ok(())
    }

    /// Ends the result; `summary` is a sentence for the `job.result`. What the agent returns after this is not sent.
    ///
    /// # Errors
    /// `INVALID_REQUEST` when no result is open or the summary has more than 64 KiB; the cap the result went over.
    pub fn finish_result(&self, summary: Option<&str>) -> Result<(), ErrorInfo> {
        let writer = self.result.lock().take().ok_or_else(no_result)?;
        Ok(writer.finish(summary)?)
    }

    /// Completes when the client has caught up enough for this job to emit on.
    ///
    /// # Errors
    /// At once when the core is gone.
    pub fn drained(&self, port: &Port, call: u64) -> Result<(), ErrorInfo> {
        let handle = self.core.handle()?;
        let context = self.context.clone();
        port.spawn(&handle, call, async move {
            context.drained().await;
            Ok(Value::Nothing)
        });
        Ok(())
    }

    /// Checks one operation against the lease.
    ///
    /// # Errors
    /// `LEASE_EXPIRED`, `PERMISSION_DENIED`, `BUDGET_EXHAUSTED`, `INVALID_REQUEST`.
    pub fn authorize(&self, namespace: &str, target: &str) -> Result<(), ErrorInfo> {
        Ok(self.context.authorize(namespace, target)?)
    }

    /// The agent returned this JSON text. The first answer counts.
    ///
    /// # Errors
    /// When the text is not JSON; the job then ends as `INTERNAL_ERROR`.
    pub fn complete(&self, result: &str) -> Result<(), ErrorInfo> {
        self.complete_soon(result)?;
        self.port.flush();
        Ok(())
    }

    /// As [`Invocation::complete`], but the core hears of it with the next [`Port::flush`] of the port it came from,
    /// together with others; whether this is the first thing that waits for one.
    ///
    /// # Errors
    /// As [`Invocation::complete`].
    pub fn complete_soon(&self, result: &str) -> Result<bool, ErrorInfo> {
        match RawJson::parse(result) {
            Ok(_) if self.answered.swap(true, Ordering::AcqRel) => Ok(false),
            Ok(result) => {
                let answer = Box::new((self.context.clone(), Outcome::Success(result)));
                Ok(self.port.defer(Deferred::Finish(answer)))
            }
            Err(error) => {
                self.answer(Outcome::Failed(ProtocolError::internal(format!(
                    "the result is not JSON: {}",
                    error.message
                ))));
                Err(error.into())
            }
        }
    }

    /// The agent failed. The first answer counts.
    pub fn fail(&self, error: ErrorInfo) {
        self.answer(Outcome::Failed(error.into_protocol()));
    }

    /// The agent gave way to a cancellation. The first answer counts.
    pub fn cancelled(&self) {
        self.answer(Outcome::Cancelled);
    }

    fn answer(&self, outcome: Outcome) {
        if !self.answered.swap(true, Ordering::AcqRel) {
            JobContext::finish_all(vec![(self.context.clone(), outcome)]);
        }
    }
}

impl Drop for Invocation {
    fn drop(&mut self) {
        self.answer(Outcome::Failed(ProtocolError::internal("the agent's host dropped the job unanswered")));
    }
}

fn no_result() -> ProtocolError {
    ProtocolError::invalid("no result is open; open it once, and write before it is finished")
}

/// An agent behind a port.
pub(crate) struct HostAgent {
    pub(crate) core: Core,
    pub(crate) port: Port,
    pub(crate) plugged: Arc<Plugged>,
}

impl HostedAgent for HostAgent {
    fn begin(&self, input: RawJson, context: JobContext) -> Box<dyn HostedJob> {
        let id = self.core.number();
        let answered = Arc::new(AtomicBool::new(false));
        let running = RunningInHost { port: self.port.clone(), id, answered: Arc::clone(&answered) };
        let invocation = Invocation {
            id,
            core: self.core.clone(),
            context,
            input,
            port: self.port.clone(),
            answered,
            children: Children::default(),
            result: Mutex::default(),
            rotations: Mutex::default(),
            plugged: Arc::clone(&self.plugged),
        };
        if self.port.is_closed() {
            let error = ProtocolError::internal("the event loop that hosts this agent is closed");
            invocation.answer(Outcome::Failed(error));
        } else {
            self.port.push(Item::Invoke(Arc::new(invocation)));
        }
        Box::new(running)
    }
}

struct RunningInHost {
    port: Port,
    id: u64,
    answered: Arc<AtomicBool>,
}

impl HostedJob for RunningInHost {
    fn cancel(&self, ending: Ending) {
        if !self.answered.load(Ordering::Acquire) {
            let (cause, reason) = describe(ending);
            self.port.push(Item::Cancel { invocation: self.id, cause, reason });
        }
    }

    fn ended(&self) {
        // Before its agent answered.
        if !self.answered.swap(true, Ordering::AcqRel) {
            self.port.push(Item::Abandoned { invocation: self.id });
        }
    }
}

fn describe(ending: Ending) -> (&'static str, String) {
    match ending {
        Ending::Cancelled { reason } => ("cancelled", reason),
        Ending::TimedOut => ("timed_out", String::new()),
        Ending::LeaseExpired => ("lease_expired", String::new()),
    }
}

/// A token the host is asked about. Dropped without an answer, the hello is refused with `INTERNAL_ERROR`.
pub struct VerifyRequest {
    token: String,
    answer: Option<oneshot::Sender<Result<Identity, ProtocolError>>>,
}

impl VerifyRequest {
    pub(crate) fn new(token: String) -> (Self, oneshot::Receiver<Result<Identity, ProtocolError>>) {
        let (sender, answer) = oneshot::channel();
        (VerifyRequest { token, answer: Some(sender) }, answer)
    }

    /// The secret.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Answers with whose the token is, or with the error to send.
    pub fn answer(&mut self, verdict: Result<impl Into<Identity>, ErrorInfo>) {
        if let Some(answer) = self.answer.take() {
            // The connection may be gone.
            drop(answer.send(verdict.map(Into::into).map_err(ErrorInfo::into_protocol)));
        }
    }
}
