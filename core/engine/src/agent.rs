//! What a runtime runs.

use std::future::Future;
use std::pin::Pin;

use arcp_proto::Error;
use arcp_proto::json::RawJson;
use arcp_proto::machine::job::Outcome;

use crate::context::JobContext;

/// A running agent.
pub type AgentFuture = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// Does a job. Implemented for async functions of `(input, ctx)` that return `Result<RawJson, Error>`.
///
/// A cancelled agent that has asked for [`JobContext::cancelled`] may clean up and emit within the grace time; any
/// other is dropped where it waits.
pub trait Agent: Send + Sync + 'static {
    /// Starts one job.
    fn run(&self, input: RawJson, ctx: JobContext) -> AgentFuture;
}

impl<F, Fut> Agent for F
where
    F: Fn(RawJson, JobContext) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<RawJson, Error>> + Send + 'static,
{
    fn run(&self, input: RawJson, ctx: JobContext) -> AgentFuture {
        let running = self(input, ctx);
        Box::pin(async move {
            match running.await {
                Ok(result) => Outcome::Success(result),
                Err(error) => Outcome::Failed(error),
            }
        })
    }
}
