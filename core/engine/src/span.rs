//! What a host's tracing sees: a span per session, job and operation. No subscriber is installed here (D-12).
//!
//! Spans hold ids, names and figures, never a token, a principal, an input or a target.
//!
//! A host's subscriber may be faulty; whatever it does in here, messages and jobs go on.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::OnceLock;

use arcp_proto::machine::job::JobStart;
use arcp_proto::trace::TraceContext;
use arcp_proto::{Error, ErrorCode};
use tracing::field::Empty;
use tracing::{Id, Span, info_span};

use crate::clock::random;

const TARGET: &str = "arcp";

/// Calls into a host's subscriber; `None` when it panics.
pub(crate) fn quietly<R>(call: impl FnOnce() -> R) -> Option<R> {
    catch_unwind(AssertUnwindSafe(call)).ok()
}

/// Reports an event, whatever a host's subscriber makes of it.
pub(crate) fn say(event: impl FnOnce()) {
    quietly(event);
}

/// A span whose subscriber cannot do harm.
pub(crate) struct Guarded(Option<Span>);

impl Guarded {
    fn new(make: impl FnOnce() -> Span) -> Self {
        Guarded(quietly(make).filter(|span| !span.is_disabled()))
    }

    fn id(&self) -> Option<Id> {
        self.0.as_ref().and_then(Span::id)
    }

    /// Whether anybody looks.
    pub(crate) fn is_seen(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn record(&self, field: &str, value: &str) {
        if let Some(span) = &self.0 {
            quietly(|| span.record(field, value));
        }
    }

    fn enter(&self) -> Inside<'_> {
        Inside(self.0.as_ref().and_then(|span| quietly(|| span.enter())))
    }

    /// Runs `future` inside the span.
    pub(crate) async fn around<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|cx| {
            let _inside = self.enter();
            future.as_mut().poll(cx)
        })
        .await
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let span = self.0.take();
        quietly(|| drop(span));
    }
}

struct Inside<'a>(Option<tracing::span::Entered<'a>>);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let entered = self.0.take();
        quietly(|| drop(entered));
    }
}

/// The span of a session on one connection; its id is recorded once there is one.
pub(crate) fn session() -> Guarded {
    Guarded::new(|| info_span!(target: TARGET, parent: None, "arcp.session", arcp.session_id = Empty))
}

/// What a job hands to its operations, its tools and its children.
pub(crate) struct JobTrace {
    span: Guarded,
    context: OnceLock<TraceContext>,
}

impl JobTrace {
    /// The span of a job is nobody's child, because it outlives the session that submitted it.
    pub(crate) fn new(start: &JobStart) -> Self {
        let span = Guarded::new(|| {
            info_span!(
                target: TARGET,
                parent: None,
                "arcp.job",
                arcp.session_id = &*start.session_id,
                arcp.job_id = &*start.job_id,
                arcp.agent = start.agent_ref(),
                arcp.trace_id = &*start.trace_id,
                arcp.parent_span_id = start.trace_context.as_ref().map(TraceContext::span_id),
                arcp.lease.expires_at =
                    start.lease_constraints.as_ref().and_then(|constraints| constraints.expires_at.as_deref()),
                arcp.budget.remaining = start.lease.budget().map(|budget| budget.to_json()),
            )
        });
        JobTrace { span, context: OnceLock::new() }
    }

    pub(crate) fn span(&self) -> &Guarded {
        &self.span
    }

    /// The job as the cause of what it does: in the trace of the submit, under a span id of its own.
    pub(crate) fn context(&self, start: &JobStart) -> Option<&TraceContext> {
        if self.context.get().is_none() {
            let mut span_id = [0; 8];
            random(&mut span_id);
            span_id[7] |= 1;
            let context = match &start.trace_context {
                Some(context) => context.child(span_id),
                None => TraceContext::new(&start.trace_id, span_id),
            };
            if let Some(context) = context {
                // Whoever was first, all see the same.
                drop(self.context.set(context));
            }
        }
        self.context.get()
    }

    /// Decides about one operation inside a span that tells what came of it.
    pub(crate) fn operation<T>(
        &self,
        start: &JobStart,
        namespace: &str,
        decide: impl FnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        let span = Guarded::new(|| {
            info_span!(
                target: TARGET,
                parent: self.span.id(),
                "arcp.operation",
                arcp.session_id = &*start.session_id,
                arcp.job_id = &*start.job_id,
                arcp.namespace = namespace.chars().take(128).collect::<String>(),
                arcp.decision = Empty,
            )
        });
        let inside = span.enter();
        let decided = decide();
        drop(inside);
        match &decided {
            Ok(_) => span.record("arcp.decision", "allowed"),
            Err(Error { code: ErrorCode::Other(_), .. }) => span.record("arcp.decision", "OTHER"),
            Err(error) => span.record("arcp.decision", error.code.as_str()),
        }
        decided
    }
}
