//! A policy that is asked and answers later, as one in another language or in a database is.

use std::future::Future;
use std::pin::Pin;

use arcp_proto::Error;
use arcp_proto::machine::policy::{Decision, PolicyQuestion};

/// The answer to [`AskedPolicy::decide`]: a decision for each of the question's jobs, in their order.
pub type DecideFuture = Pin<Box<dyn Future<Output = Result<Vec<Decision>, Error>> + Send>>;

/// Decides who may observe which job, without the runtime's lock: a request waits for its verdict, and nothing is
/// remembered beyond it. An answer has 10 s; without one, or with an error, nobody is let in.
pub trait AskedPolicy: Send + Sync + 'static {
    /// What the principal may know of each job. A job of the asking session itself is never asked about.
    fn decide(&self, question: PolicyQuestion) -> DecideFuture;
}
