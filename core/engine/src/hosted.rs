//! Agents that run outside the core's threads, in a host: no task waits for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arcp_proto::json::RawJson;
use arcp_proto::machine::job::{Ending, JobStart, Outcome};
use arcp_proto::machine::runtime::JobKey;

use crate::context::{CancelSignal, JobContext};
use crate::host::Shared;
use crate::result_writer::write_value;
use crate::span::JobTrace;

/// An agent of a host. It is told of its jobs and answers with [`JobContext::finish_all`].
pub trait HostedAgent: Send + Sync + 'static {
    /// Begins one job, without waiting for anything.
    fn begin(&self, input: RawJson, ctx: JobContext) -> Box<dyn HostedJob>;
}

/// A job of a host's agent, as the core sees it. Called from any thread, never with a lock held.
pub trait HostedJob: Send + Sync + 'static {
    /// The job is to give way; its agent still answers, within the grace time.
    fn cancel(&self, ending: Ending);

    /// The job has its terminal, and nothing its agent does counts any more. Called also after an answer.
    fn ended(&self);
}

/// A job that was begun, told of one cancellation at most.
pub(crate) struct Begun {
    job: Box<dyn HostedJob>,
    cancelled: AtomicBool,
}

impl Begun {
    /// Whoever of the two that may come first asks: the beginning and the cancellation are carried out in any order.
    fn tell(&self, cancel: &CancelSignal) {
        if let Some(ending) = cancel.now()
            && !self.cancelled.swap(true, Ordering::AcqRel)
        {
            self.job.cancel(ending);
        }
    }

    pub(crate) fn ended(&self) {
        self.job.ended();
    }
}

impl Shared {
    pub(crate) fn begin_hosted(self: &Arc<Self>, agent: &dyn HostedAgent, job: JobKey, start: &Arc<JobStart>) {
        let Some(cancel) = self.jobs.lock().get(&job).map(|running| Arc::clone(&running.cancel)) else { return };
        cancel.observe();
        let trace = Arc::new(JobTrace::new(start));
        let context = JobContext::new(Arc::clone(self), job, Arc::clone(start), Arc::clone(&cancel), trace);
        let hosted = agent.begin(start.input.clone(), context);
        let begun = Arc::new(Begun { job: hosted, cancelled: AtomicBool::new(false) });
        match self.jobs.lock().get_mut(&job) {
            Some(running) => running.hosted = Some(Arc::clone(&begun)),
            // Ended meanwhile, and nobody else can tell.
            None => return begun.ended(),
        }
        begun.tell(&cancel);
    }

    /// A cancellation was decided.
    pub(crate) fn cancel_hosted(&self, job: JobKey) {
        let running = self.jobs.lock().get(&job).map(|running| (running.hosted.clone(), Arc::clone(&running.cancel)));
        if let Some((Some(begun), cancel)) = running {
            begun.tell(&cancel);
        }
    }

    /// Ends these jobs under one lock; long results go out in parts.
    fn finish(self: &Arc<Self>, finished: Vec<(JobContext, Outcome)>) {
        let long = self.act(|machine, now| {
            let mut long = Vec::new();
            for (context, outcome) in finished {
                match outcome {
                    Outcome::Success(value) if machine.should_stream(context.job(), value.get().len()) => {
                        long.push((context, value));
                    }
                    outcome => machine.finish(now, context.job(), outcome),
                }
            }
            long
        });
        for (context, value) in long {
            let (shared, job) = (Arc::clone(self), context.job());
            let task = self.tokio().spawn(async move {
                let outcome = write_value(&context, &value).await;
                shared.act(|machine, now| machine.finish(now, job, outcome));
            });
            if let Some(running) = self.jobs.lock().get_mut(&job) {
                running.task = Some(task.abort_handle());
            }
        }
    }
}

impl JobContext {
    /// What hosted agents have to say for the ends of their jobs, told together. The first answer of a job counts.
    pub fn finish_all(mut finished: Vec<(JobContext, Outcome)>) {
        while let Some((first, _)) = finished.first() {
            let shared = Arc::clone(first.shared());
            let (of_one, others) =
                finished.into_iter().partition(|(context, _)| Arc::ptr_eq(context.shared(), &shared));
            finished = others;
            shared.finish(of_one);
        }
    }
}
