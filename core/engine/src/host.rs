//! What every task of a runtime shares, and how the machine's decisions are carried out.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Once, OnceLock, Weak};
use std::time::Duration;

use arcp_proto::Error;
use arcp_proto::json::RawJson;
use arcp_proto::machine::RuntimeMachine;
use arcp_proto::machine::job::{Job, JobStart, Outcome};
use arcp_proto::machine::policy::PolicyQuestion;
use arcp_proto::machine::provision::{IssueRequest, Revocation};
use arcp_proto::machine::runtime::{ConnKey, JobKey, RuntimeEvent, Unrevoked};
use arcp_proto::machine::session::Identity;
use arcp_proto::message::SecretText;
use arcp_proto::time::Now;
use arcp_store::Store;
use futures_util::FutureExt;
use parking_lot::{Mutex, RwLock};
use rustc_hash::FxHashMap;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::AbortHandle;
use tokio::time::{sleep_until, timeout};

use crate::agent::Agent;
use crate::asked_policy::AskedPolicy;
use crate::clock::Clock;
use crate::connection::Signal;
use crate::context::{CancelSignal, JobContext};
use crate::delegation::ChildOutcome;
use crate::hosted::{Begun, HostedAgent};
use crate::mirror::{Mirror, Mirrored};
use crate::notes::Notes;
use crate::provision::Provisioner;
use crate::result_writer::write_value;
use crate::span::{JobTrace, say};
use crate::verifier::Verifier;

/// What every task of a runtime shares: one machine behind one lock, held for a decision at a time.
pub(crate) struct Shared {
    pub(crate) machine: Mutex<RuntimeMachine>,
    pub(crate) clock: Clock,
    pub(crate) store: Box<dyn Store>,
    /// Whether what an earlier process left was settled.
    pub(crate) begun: Once,
    pub(crate) agents: RwLock<HashMap<String, Registered>>,
    pub(crate) verifier: Arc<dyn Verifier>,
    pub(crate) provisioner: OnceLock<Arc<dyn Provisioner>>,
    pub(crate) policy: OnceLock<Arc<dyn AskedPolicy>>,
    pub(crate) mirror: OnceLock<Arc<dyn Mirror>>,
    pub(crate) revocations: Semaphore,
    /// A revocation was answered.
    pub(crate) revoked: Notify,
    pub(crate) signals: Mutex<FxHashMap<ConnKey, Arc<Signal>>>,
    pub(crate) jobs: Mutex<FxHashMap<JobKey, RunningJob>>,
    /// Delegated children whose end is waited for.
    pub(crate) children: Mutex<HashMap<JobKey, watch::Sender<ChildOutcome>>>,
    pub(crate) drained: Notify,
    pub(crate) timer: Arc<Timer>,
    /// Where timers run, since an emitter may call from a thread that is none of tokio's.
    pub(crate) tokio: OnceLock<Handle>,
    pub(crate) ended: Notify,
    /// A connection is gone.
    pub(crate) closed: Notify,
    pub(crate) notes: Notes,
}

/// The deadline the timer task sleeps to, and what makes it look again. Apart from [`Shared`], so that sleeping keeps no
/// runtime alive.
#[derive(Default)]
pub(crate) struct Timer {
    pub(crate) deadline: Mutex<Option<Duration>>,
    pub(crate) rescheduled: Notify,
}

/// An agent, and whether it may be started again for a job that died with its process (D-26).
pub(crate) struct Registered {
    pub(crate) agent: Runs,
    pub(crate) restartable: bool,
}

/// Where an agent runs.
#[derive(Clone)]
pub(crate) enum Runs {
    /// In a task.
    Here(Arc<dyn Agent>),
    /// In a host.
    Hosted(Arc<dyn HostedAgent>),
}

pub(crate) struct RunningJob {
    pub(crate) cancel: Arc<CancelSignal>,
    pub(crate) task: Option<AbortHandle>,
    pub(crate) hosted: Option<Arc<Begun>>,
}

/// A verifier that takes longer has failed.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(10);

/// A policy that takes longer lets nobody in.
const POLICY_TIMEOUT: Duration = Duration::from_secs(10);

/// A provisioner that takes longer has failed.
const REVOKE_TIMEOUT: Duration = Duration::from_secs(30);

/// Revocations that run at a time.
pub(crate) const REVOCATIONS: usize = 16;

impl Shared {
    pub(crate) fn drained(&self) -> &Notify {
        &self.drained
    }

    /// Tells this channel how the child ends.
    pub(crate) fn watch_child(&self, child: JobKey, ended: watch::Sender<ChildOutcome>) {
        self.children.lock().insert(child, ended);
    }

    /// The present, on both clocks.
    pub(crate) fn now(&self) -> Now {
        self.clock.now()
    }

    /// Reads the machine.
    pub(crate) fn peek<R>(&self, look: impl FnOnce(&RuntimeMachine) -> R) -> R {
        look(&self.machine.lock())
    }

    /// Takes one decision under the lock, then carries out what follows from it outside.
    pub(crate) fn act<R>(self: &Arc<Self>, decide: impl FnOnce(&mut RuntimeMachine, Now) -> R) -> R {
        let now = self.clock.now();
        let mut todo = Vec::new();
        let mut machine = self.machine.lock();
        let result = decide(&mut machine, now);
        loop {
            // Before any history is read, so that it holds everything decided so far.
            self.store.apply_all(&mut std::iter::from_fn(|| {
                let (ticket, op) = machine.poll_store()?;
                if self.store.is_durable() {
                    self.notes.applied(ticket, now.mono);
                }
                Some((ticket, op))
            }));
            match machine.poll_event() {
                Some(RuntimeEvent::ReadHistory { ticket, job_id, after_source_seq }) => {
                    if let Some(records) = self.store.history(ticket, &job_id, after_source_seq) {
                        machine.handle_history(now, ticket, &records);
                    }
                }
                // Under the lock, so that a cancel never meets a job that another thread has yet to start.
                Some(RuntimeEvent::Start { job, start }) => {
                    let running = RunningJob { cancel: Arc::new(CancelSignal::new()), task: None, hosted: None };
                    self.jobs.lock().insert(job, running);
                    todo.push(RuntimeEvent::Start { job, start });
                }
                Some(RuntimeEvent::Cancel { job, ending }) => {
                    if let Some(running) = self.jobs.lock().get(&job) {
                        running.cancel.set(ending.clone());
                        todo.push(RuntimeEvent::Cancel { job, ending });
                    }
                }
                // Under the lock, so that a mirror gets them in order.
                Some(RuntimeEvent::Mirror { session_id, event_seq, frame }) => {
                    self.mirror(Mirrored::Append { session_id, event_seq, frame: *frame });
                }
                Some(RuntimeEvent::MirrorRelease { session_id, through }) => {
                    self.mirror(Mirrored::Release { session_id, through });
                }
                Some(RuntimeEvent::MirrorDrop(session_id)) => self.mirror(Mirrored::Drop(session_id)),
                Some(event) => todo.push(event),
                None => break,
            }
        }
        if let Some(at) = machine.poll_timeout() {
            self.schedule(at);
        }
        drop(machine);
        for event in todo {
            self.carry_out(event);
        }
        result
    }

    pub(crate) fn carry_out(self: &Arc<Self>, event: RuntimeEvent) {
        match event {
            RuntimeEvent::Writable(conn) => {
                if let Some(signal) = self.signals.lock().get(&conn) {
                    signal.writable();
                }
            }
            RuntimeEvent::Close(conn) => {
                if let Some(signal) = self.signals.lock().get(&conn) {
                    signal.close();
                }
            }
            RuntimeEvent::Audit(entry) => self.notes.audit(&entry),
            RuntimeEvent::Drained(_) => self.drained.notify_waiters(),
            RuntimeEvent::Verify { conn, token } => self.verify(conn, &token.0),
            RuntimeEvent::Judge { ticket, question } => self.judge(ticket, *question),
            RuntimeEvent::Start { job, start } => self.start(job, start),
            RuntimeEvent::Provision { job, request } => self.provision(job, *request),
            RuntimeEvent::Revoke { id, what } => self.revoke(id, what),
            RuntimeEvent::RevocationFailed(Unrevoked { id, job_id, error }) => {
                say(|| tracing::error!(id, %job_id, error, "a credential could not be revoked and may still work"));
                self.revoked.notify_waiters();
            }
            RuntimeEvent::Ended(job) => {
                if let Some(status) = self.peek(|machine| machine.job(job).map(Job::status)) {
                    self.notes.job_ended(status);
                }
                let running = self.jobs.lock().remove(&job);
                if let Some(RunningJob { task, hosted, .. }) = running {
                    if let Some(task) = task {
                        task.abort();
                    }
                    if let Some(hosted) = hosted {
                        hosted.ended();
                    }
                }
                self.ended.notify_waiters();
                // Emitters of an ended job have nothing to wait for.
                self.drained.notify_waiters();
            }
            RuntimeEvent::ChildEnded { child, outcome, .. } => {
                if let Some(ended) = self.children.lock().remove(&child) {
                    ended.send_replace(Some(outcome));
                }
            }
            RuntimeEvent::Cancel { job, .. } => self.cancel_hosted(job),
            // Done under the lock.
            RuntimeEvent::ReadHistory { .. }
            | RuntimeEvent::Mirror { .. }
            | RuntimeEvent::MirrorRelease { .. }
            | RuntimeEvent::MirrorDrop(_) => {}
        }
    }

    /// The first connection brings it, and nothing is spawned before.
    pub(crate) fn tokio(&self) -> &Handle {
        self.tokio.get_or_init(Handle::current)
    }

    pub(crate) fn verify(self: &Arc<Self>, conn: ConnKey, token: &str) {
        // Whichever thread brought the token, a verifier may use timers and tasks.
        let _guard = self.tokio().enter();
        let mut verdict = self.verifier.verify(token);
        // A verifier that knows at once needs no task.
        if let Some(verdict) = (&mut verdict).now_or_never() {
            return self.verified(conn, verdict);
        }
        let shared = Arc::clone(self);
        self.tokio().spawn(async move {
            let verdict = timeout(VERIFY_TIMEOUT, verdict)
                .await
                .unwrap_or_else(|_| Err(Error::internal("the token could not be verified in time")));
            shared.verified(conn, verdict);
        });
    }

    fn mirror(&self, mirrored: Mirrored) {
        if let Some(mirror) = self.mirror.get() {
            mirror.push(mirrored);
        }
    }

    fn judge(self: &Arc<Self>, ticket: u64, question: PolicyQuestion) {
        let Some(policy) = self.policy.get().map(Arc::clone) else {
            let error = Err(Error::internal("this runtime has no policy to ask"));
            return self.act(|machine, now| machine.handle_verdicts(now, ticket, error));
        };
        let shared = Arc::clone(self);
        self.tokio().spawn(async move {
            let decide = AssertUnwindSafe(async move { policy.decide(question).await }).catch_unwind();
            let verdicts = match timeout(POLICY_TIMEOUT, decide).await {
                Ok(Ok(verdicts)) => verdicts,
                Ok(Err(_)) => Err(Error::internal("the runtime's policy panicked")),
                Err(_) => Err(Error::internal("the runtime's policy gave no answer in time")),
            };
            if let Err(error) = &verdicts {
                say(|| tracing::warn!(error = error.message, "the policy did not decide"));
            }
            shared.act(|machine, now| machine.handle_verdicts(now, ticket, verdicts));
        });
    }

    pub(crate) fn provision(self: &Arc<Self>, job: JobKey, request: IssueRequest) {
        let Some(provisioner) = self.provisioner.get().map(Arc::clone) else {
            let error = Err(Error::internal("this runtime has no provisioner"));
            return self.act(|machine, now| machine.handle_provisioned(now, job, error));
        };
        // Longer than the submit waits: what is issued too late must be known to be revoked.
        let patience = self.peek(|machine| machine.config().provision_timeout) * 2;
        let shared = Arc::clone(self);
        self.tokio().spawn(async move {
            let issue = AssertUnwindSafe(async move { provisioner.issue(request).await }).catch_unwind();
            let answer = match timeout(patience, issue).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) => Err(Error::internal("the provisioner panicked")),
                Err(_) => Err(Error::internal("the provisioner gave no answer in time")),
            };
            if let Err(error) = &answer {
                say(|| tracing::warn!(error = error.message, "no credentials could be issued"));
            }
            shared.act(|machine, now| machine.handle_provisioned(now, job, answer));
        });
    }

    /// The handle by which a value made elsewhere can be revoked.
    pub(crate) fn handle_for(&self, value: &SecretText) -> Result<RawJson, Error> {
        let handle = self.provisioner.get().and_then(|provisioner| provisioner.handle_for(value));
        handle.ok_or_else(|| {
            Error::invalid("the provisioner cannot revoke a value it did not make; let the runtime's host rotate it")
        })
    }

    pub(crate) fn revoke(self: &Arc<Self>, id: String, what: Revocation) {
        let Some(provisioner) = self.provisioner.get().map(Arc::clone) else {
            let error = Err(Error::internal("this runtime has no provisioner"));
            return self.act(|machine, now| machine.handle_revoked(now, &id, error));
        };
        let shared = Arc::clone(self);
        self.tokio().spawn(async move {
            // Never closed, so that the permit is always had.
            let permit = shared.revocations.acquire().await;
            let revoke = AssertUnwindSafe(async move { provisioner.revoke(what).await }).catch_unwind();
            let outcome = match timeout(REVOKE_TIMEOUT, revoke).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(_)) => Err(Error::internal("the provisioner panicked")),
                Err(_) => Err(Error::internal("the provisioner gave no answer in time")),
            };
            drop(permit);
            shared.act(|machine, now| machine.handle_revoked(now, &id, outcome));
            shared.revoked.notify_waiters();
        });
    }

    pub(crate) fn verified(self: &Arc<Self>, conn: ConnKey, verdict: Result<Identity, Error>) {
        self.notes.verified(self.clock.now().wall, &verdict);
        self.act(|machine, now| machine.handle_verified(now, conn, verdict));
    }

    pub(crate) fn start(self: &Arc<Self>, job: JobKey, start: Arc<JobStart>) {
        let agent = self.agents.read().get(&start.agent_ref()).map(|registered| registered.agent.clone());
        let agent = match agent {
            Some(Runs::Here(agent)) => agent,
            Some(Runs::Hosted(agent)) => return self.begin_hosted(&*agent, job, &start),
            None => {
                let error = Error::internal(format!("agent {} was unregistered", start.agent_ref()));
                return self.act(|machine, now| machine.finish(now, job, Outcome::Failed(error)));
            }
        };
        let Some(cancel) = self.jobs.lock().get(&job).map(|running| Arc::clone(&running.cancel)) else { return };
        let trace = Arc::new(JobTrace::new(&start));
        let context = JobContext::new(Arc::clone(self), job, Arc::clone(&start), Arc::clone(&cancel), trace.clone());
        let shared = Arc::clone(self);
        let task = self.tokio().spawn(async move {
            let inner = context.clone();
            let run = AssertUnwindSafe(async move { agent.run(start.input.clone(), inner).await });
            let outcome = trace.span().around(run_to_end(run.catch_unwind(), &cancel)).await;
            let long = shared.act(|machine, now| match outcome {
                Outcome::Success(value) if machine.should_stream(job, value.get().len()) => Some(value),
                outcome => {
                    machine.finish(now, job, outcome);
                    None
                }
            });
            if let Some(value) = long {
                let outcome = write_value(&context, &value).await;
                shared.act(|machine, now| machine.finish(now, job, outcome));
            }
        });
        if let Some(running) = self.jobs.lock().get_mut(&job) {
            running.task = Some(task.abort_handle());
        }
    }

    /// Makes sure that the machine is asked again at this deadline, or before.
    pub(crate) fn schedule(self: &Arc<Self>, at: Duration) {
        let mut deadline = self.timer.deadline.lock();
        match *deadline {
            Some(armed) if armed <= at => {}
            Some(_) => {
                *deadline = Some(at);
                self.timer.rescheduled.notify_one();
            }
            None => {
                *deadline = Some(at);
                let time = keep_time(Arc::downgrade(self), Arc::clone(&self.timer), self.clock);
                self.tokio().spawn(time);
            }
        }
    }
}

/// Sleeps from deadline to deadline until there is none, or until the runtime is gone.
pub(crate) async fn keep_time(shared: Weak<Shared>, timer: Arc<Timer>, clock: Clock) {
    loop {
        let Some(at) = *timer.deadline.lock() else { return };
        tokio::select! {
            () = sleep_until(clock.instant(at).into()) => {}
            () = timer.rescheduled.notified() => continue,
        }
        let Some(shared) = shared.upgrade() else { return };
        // Already due for everybody else: what the machine sets now must not start a second task.
        *timer.deadline.lock() = Some(Duration::ZERO);
        shared.act(|machine, now| machine.handle_timeout(now));
        // Read and stored under the machine's lock, so that no deadline set meanwhile is overwritten.
        let more = shared.peek(|machine| {
            let next = machine.poll_timeout();
            *timer.deadline.lock() = next;
            next.is_some()
        });
        if !more {
            return;
        }
    }
}

/// Runs an agent to its outcome. A cancelled one that does not look out for it is dropped where it waits.
pub(crate) async fn run_to_end(
    run: impl Future<Output = Result<Outcome, Box<dyn std::any::Any + Send>>>,
    cancel: &CancelSignal,
) -> Outcome {
    tokio::pin!(run);
    let finished = tokio::select! {
        finished = &mut run => finished,
        _ = cancel.wait() => {
            if !cancel.is_observed() {
                return Outcome::Cancelled;
            }
            run.await
        }
    };
    finished.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Outcome::Failed(Error::internal(format!("the agent panicked: {}", text.unwrap_or("no message"))))
    })
}
