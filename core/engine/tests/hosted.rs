//! Agents of a host, and submits and ends that are told to callbacks.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use arcp_engine::{HostedAgent, HostedJob, JobContext, JobHandle, Runtime, StaticBearerVerifier, SubmitCall};
use arcp_proto::json::RawJson;
use arcp_proto::machine::job::{Ending, Outcome};
use arcp_proto::machine::runtime::RuntimeConfig;
use arcp_proto::{Error as ProtocolError, ErrorCode};
use support::{BOUND, connected, peer, submit};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::time::timeout;

enum Heard {
    Began(JobContext, RawJson),
    Cancelled(Ending),
    Ended,
}

struct Agent(UnboundedSender<Heard>);

struct Job(UnboundedSender<Heard>);

impl HostedAgent for Agent {
    fn begin(&self, input: RawJson, ctx: JobContext) -> Box<dyn HostedJob> {
        self.0.send(Heard::Began(ctx, input)).unwrap();
        Box::new(Job(self.0.clone()))
    }
}

impl HostedJob for Job {
    fn cancel(&self, ending: Ending) {
        self.0.send(Heard::Cancelled(ending)).unwrap();
    }

    fn ended(&self) {
        // The test may be over.
        drop(self.0.send(Heard::Ended));
    }
}

fn runtime(change: impl FnOnce(&mut RuntimeConfig)) -> (Runtime, UnboundedReceiver<Heard>) {
    let mut config = RuntimeConfig::new(peer("runtime"));
    change(&mut config);
    let runtime = Runtime::new(config, StaticBearerVerifier::new([("tok", "me")]));
    let (sender, heard) = unbounded_channel();
    runtime.register_hosted("hosted", None, Arc::new(Agent(sender)), false).unwrap();
    (runtime, heard)
}

async fn next(heard: &mut UnboundedReceiver<Heard>) -> Heard {
    timeout(BOUND, heard.recv()).await.unwrap().unwrap()
}

async fn began(heard: &mut UnboundedReceiver<Heard>) -> (JobContext, RawJson) {
    match next(heard).await {
        Heard::Began(ctx, input) => (ctx, input),
        _ => panic!("no job began"),
    }
}

fn code(error: &arcp_engine::Error) -> ErrorCode {
    error.protocol().unwrap().code.clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_jobs_are_finished_at_once_and_the_first_answer_counts() {
    let (runtime, mut heard) = runtime(|_| {});
    let client = connected(&runtime).await;
    let mut handles = Vec::new();
    let mut answers = Vec::new();
    for number in 0..50 {
        handles.push(client.submit(&submit("hosted", &number.to_string()), None).await.unwrap());
        let (ctx, input) = began(&mut heard).await;
        answers.push((ctx.clone(), Outcome::Success(input)));
        answers.push((ctx, Outcome::Failed(ProtocolError::internal("too late"))));
    }
    JobContext::finish_all(answers);
    for (number, handle) in handles.into_iter().enumerate() {
        let result = timeout(BOUND, handle.result()).await.unwrap().unwrap();
        assert_eq!(result.result.unwrap().get(), number.to_string());
        assert!(matches!(next(&mut heard).await, Heard::Ended));
    }
}

/// Rules
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_job_is_told_once_and_still_answers() {
    let (runtime, mut heard) = runtime(|_| {});
    let client = connected(&runtime).await;
    let handle = client.submit(&submit("hosted", "1"), None).await.unwrap();
    let (ctx, _) = began(&mut heard).await;
    for _ in 0..3 {
        client.cancel_job_acknowledged(handle.job_id(), "enough").await.unwrap();
    }
    assert!(matches!(next(&mut heard).await, Heard::Cancelled(Ending::Cancelled { reason }) if reason == "enough"));
    ctx.status("cleaning up", None).await.unwrap();
    JobContext::finish_all(vec![(ctx, Outcome::Cancelled)]);
    assert_eq!(code(&timeout(BOUND, handle.result()).await.unwrap().unwrap_err()), ErrorCode::Cancelled);
    assert!(matches!(next(&mut heard).await, Heard::Ended));
    assert!(heard.try_recv().is_err());
}

/// Rules
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_ignores_its_cancellation_is_ended_without_it() {
    let (runtime, mut heard) = runtime(|config| config.cancel_grace = Duration::from_millis(20));
    let client = connected(&runtime).await;
    let handle = client.submit(&submit("hosted", "1"), None).await.unwrap();
    let (ctx, input) = began(&mut heard).await;
    client.cancel_job(handle.job_id(), "enough").unwrap();
    assert!(timeout(BOUND, handle.result()).await.unwrap().is_err());
    assert!(matches!(next(&mut heard).await, Heard::Cancelled(_)));
    assert!(matches!(next(&mut heard).await, Heard::Ended));
    // Nothing it does counts any more.
    JobContext::finish_all(vec![(ctx, Outcome::Success(input))]);
    let other = client.submit(&submit("hosted", "2"), None).await.unwrap();
    let (ctx, input) = began(&mut heard).await;
    JobContext::finish_all(vec![(ctx, Outcome::Success(input))]);
    assert!(timeout(BOUND, other.result()).await.unwrap().is_ok());
}

/// Rules
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_value_goes_out_in_parts() {
    let (runtime, mut heard) = runtime(|_| {});
    let client = connected(&runtime).await;
    let handle = client.submit(&submit("hosted", "1"), None).await.unwrap();
    let (ctx, _) = began(&mut heard).await;
    let text = format!("\"{}\"", "x".repeat(3 << 20));
    JobContext::finish_all(vec![(ctx, Outcome::Success(RawJson::parse(&text).unwrap()))]);
    assert!(timeout(BOUND, handle.result()).await.unwrap().unwrap().result_id.is_some());
    assert_eq!(handle.result_value().await.unwrap().get(), text);
}

// One thread: nothing is answered between the submits and the cancellation of the last.
#[tokio::test]
async fn submits_are_told_in_order_refusals_too_and_a_dropped_one_is_undone() {
    let (runtime, mut heard) = runtime(|_| {});
    let client = connected(&runtime).await;
    let (sender, mut told) = unbounded_channel();
    let calls = ["hosted", "nobody", "hosted"].into_iter().map(|agent| {
        let sender = sender.clone();
        let then = Box::new(move |outcome: Result<JobHandle, arcp_engine::Error>| sender.send(outcome).unwrap());
        SubmitCall { submit: submit(agent, "1"), trace: None, then }
    });
    let mut pending = client.submit_all(calls.collect());
    assert!(pending.iter().all(Option::is_some));
    // Nobody waits for the last any more.
    pending.pop().flatten().unwrap().cancel();
    let first = timeout(BOUND, told.recv()).await.unwrap().unwrap().unwrap();
    let second = timeout(BOUND, told.recv()).await.unwrap().unwrap();
    assert_eq!(code(&second.err().unwrap()), ErrorCode::AgentNotAvailable);
    let (ctx, input) = began(&mut heard).await;

    // Its end is told to all who ask, before and after it comes, and not to one who stopped asking.
    let (before, ended) = oneshot::channel();
    let waits = first.result_then(Box::new(move |end| before.send(end).unwrap()));
    let stopped = first.result_then(Box::new(|_| panic!("told after it was cancelled"))).unwrap();
    stopped.cancel();
    assert!(waits.is_some() && first.result_now().is_none());
    JobContext::finish_all(vec![(ctx, Outcome::Success(input))]);
    assert_eq!(timeout(BOUND, ended).await.unwrap().unwrap().unwrap().result.unwrap().get(), "1");
    assert!(first.result_now().unwrap().is_ok());
    let (after, ended) = oneshot::channel();
    assert!(first.result_then(Box::new(move |end| after.send(end).unwrap())).is_none());
    assert!(timeout(BOUND, ended).await.unwrap().unwrap().is_ok());

    client.close("over").await;
    let late = client.submit_all(vec![SubmitCall {
        submit: submit("hosted", "1"),
        trace: None,
        then: Box::new(move |outcome| sender.send(outcome).unwrap()),
    }]);
    assert!(late[0].is_none());
    assert!(timeout(BOUND, told.recv()).await.unwrap().unwrap().is_err());
}
