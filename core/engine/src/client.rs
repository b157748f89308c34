//! The client: what an application asks of one session.

use std::sync::Arc;
use std::time::Duration;

use arcp_proto::Error as ProtocolError;
use arcp_proto::machine::ClientMachine;
use arcp_proto::machine::client::{ClientConfig, Ticket};
use arcp_proto::message::{JobStatus, Jobs, ListJobs, Resume, Submit, Subscribe, Welcome};
use arcp_proto::time::Now;
use arcp_proto::trace::TraceContext;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use crate::error::Error;
use crate::job::{JobHandle, Subscription, View};
use crate::link::run;
use crate::session::{Answer, Asker, ConnectionState, Owner, Shared};
use crate::token::TokenSource;
use crate::transport::Transport;

/// One session with a runtime. Cheap to clone; all clones are one session.
#[derive(Clone)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
    pub(crate) owner: Arc<Owner>,
}

impl Client {
    /// A client that is not connected.
    pub fn new(config: ClientConfig) -> Self {
        let shared = Arc::new(Shared::new(config));
        let owner = Arc::new(Owner::of(&shared));
        Client { shared, owner }
    }

    /// Shakes hands over this transport and begins to read. A client connects once. If the transport knows how to reopen
    /// itself, a lost link is healed from the welcome on, and the token source is asked anew each time (D-7, D-24).
    ///
    /// # Errors
    /// The runtime's own error when it refuses; `Timeout` when no welcome comes in time; `Transport` when the
    /// connection ends before it; what the token source says.
    pub async fn connect(&self, transport: impl Transport, token: impl TokenSource) -> Result<Arc<Welcome>, Error> {
        self.begin(transport, token, None).await
    }

    /// Takes up a session of an earlier client, which then has that session's jobs, subscriptions and right to cancel
    /// (D-24). [`Client::job`] gives handles for its jobs; what comes for a job nobody asked for waits, up to 10 000
    /// events or 64 MiB in all.
    ///
    /// # Errors
    /// `RESUME_WINDOW_EXPIRED` when the session is not kept any more; else as [`Client::connect`].
    pub async fn connect_resuming(
        &self,
        transport: impl Transport,
        token: impl TokenSource,
        resume: Resume,
    ) -> Result<Arc<Welcome>, Error> {
        self.begin(transport, token, Some(resume)).await
    }

    async fn begin(
        &self,
        transport: impl Transport,
        token: impl TokenSource,
        resume: Option<Resume>,
    ) -> Result<Arc<Welcome>, Error> {
        let token = token.into_token();
        let shared = &self.shared;
        let mut fresh = false;
        shared.state.send_if_modified(|state| {
            fresh = matches!(state, ConnectionState::Idle);
            if fresh {
                *state = ConnectionState::Connecting;
            }
            fresh
        });
        if !fresh {
            return Err(Error::Closed("this client was connected before; make a new one".into()));
        }
        // Dropped with this call, the connection must not outlive it half open.
        let guard = AbandonGuard { shared };
        let first = token.get().await?;
        let reopener = transport.reopener();
        shared.act(|machine, now| {
            if reopener.is_none() {
                machine.never_reconnect();
            }
            if let Some(resume) = &resume {
                machine.resume(resume);
            }
            machine.connected(now, &first);
        });
        tokio::spawn(run(Arc::clone(shared), transport, reopener, token));
        let mut state = shared.state.subscribe();
        let outcome = loop {
            match &*state.borrow_and_update() {
                ConnectionState::Open(welcome) => break Ok(Arc::clone(welcome)),
                ConnectionState::Closed(error) => break Err(error.clone()),
                _ => {}
            }
            if state.changed().await.is_err() {
                break Err(Error::Closed("the client was dropped".into()));
            }
        };
        std::mem::forget(guard);
        outcome
    }

    /// The last welcome, while the session is not over.
    pub fn welcome(&self) -> Option<Arc<Welcome>> {
        match &*self.shared.state.borrow() {
            ConnectionState::Open(welcome) => return Some(Arc::clone(welcome)),
            ConnectionState::Reconnecting { .. } => {}
            _ => return None,
        }
        self.shared.core.lock().machine.welcome().cloned()
    }

    /// How it stands with the session, now and at every change. Watching does not keep the session open.
    pub fn connection_state(&self) -> watch::Receiver<ConnectionState> {
        self.shared.state.subscribe()
    }

    /// Whether a feature was negotiated.
    pub fn has_feature(&self, name: &str) -> bool {
        self.shared.core.lock().machine.has_feature(name)
    }

    /// What was negotiated, in this client's order; empty before the welcome.
    pub fn negotiated_features(&self) -> Vec<String> {
        self.shared.core.lock().machine.negotiated_features().to_vec()
    }

    /// The highest `event_seq` received.
    pub fn latest_event_seq(&self) -> u64 {
        self.shared.core.lock().machine.latest_event_seq()
    }

    /// Submits a job and waits until it is accepted. `trace_id` is 32 hex digits or a whole `traceparent`.
    ///
    /// # Errors
    /// The refusal; `Timeout` after the request time; `Closed` or `Transport` when the session ends first.
    pub async fn submit(&self, submit: &Submit, trace_id: Option<&str>) -> Result<JobHandle, Error> {
        // A retry under the same key finds the job again, so it is left to run.
        let abandon = submit.idempotency_key.is_none();
        self.submitted(self.ask(abandon, |machine, now| Ok(machine.submit(now, submit, trace_id))).await?)
    }

    /// Submits a job in the trace of `context`, which rides along for the agent.
    ///
    /// # Errors
    /// As [`Client::submit`].
    pub async fn submit_traced(&self, submit: &Submit, context: &TraceContext) -> Result<JobHandle, Error> {
        let abandon = submit.idempotency_key.is_none();
        self.submitted(self.ask(abandon, |machine, now| Ok(machine.submit_traced(now, submit, context))).await?)
    }

    pub(crate) fn submitted(&self, answer: Answer) -> Result<JobHandle, Error> {
        match answer {
            Answer::Accepted(key, queue, accepted) => {
                let job_id = accepted.job_id.clone();
                Ok(JobHandle::submitted(View::new(self, key, queue, job_id), *accepted))
            }
            other => Err(other.into_error()),
        }
    }

    /// Follows a job of the same principal, with the kept history first if asked.
    ///
    /// # Errors
    /// `JOB_NOT_FOUND`, `PERMISSION_DENIED`; `INVALID_REQUEST` when not negotiated; else as [`Client::submit`].
    pub async fn subscribe(&self, subscribe: &Subscribe) -> Result<Subscription, Error> {
        let answer = self.ask(false, |machine, now| machine.subscribe(now, subscribe)).await?;
        match answer {
            Answer::Subscribed(key, queue, subscribed) => {
                let job_id = subscribed.job_id.clone();
                Ok(Subscription::new(View::new(self, key, queue, job_id), *subscribed))
            }
            other => Err(other.into_error()),
        }
    }

    /// A handle for a job of a session this client took up with [`Client::connect_resuming`]: what came since then, and
    /// what comes. A job that had ended by then has no more to say here; subscribe to it with history instead.
    ///
    /// # Errors
    /// `INVALID_REQUEST` when this client did not take up a session, or had to begin another; `Closed` or `Transport` when
    /// there is no session.
    pub fn job(&self, job_id: &str) -> Result<JobHandle, Error> {
        self.shared.open()?;
        let made = self.shared.act_on_core(|core, now| {
            core.machine.took_up().then(|| {
                let key = core.machine.job(now, job_id);
                (key, Arc::clone(core.handles.entry(key).or_default()))
            })
        });
        let (key, queue) = made.ok_or_else(|| {
            ProtocolError::invalid(
                "this client took up no session of another; keep the handle of the submit, or subscribe",
            )
        })?;
        Ok(JobHandle::found(View::new(self, key, queue, job_id.to_owned())))
    }

    /// The jobs this session knows of: those with handles, and after [`Client::connect_resuming`] those something came for.
    pub fn jobs(&self) -> Vec<String> {
        self.shared.core.lock().machine.jobs()
    }

    /// One page of the jobs this principal may see; `next_cursor` of the answer asks for the next.
    ///
    /// # Errors
    /// `INVALID_REQUEST` for a bad cursor or limit, or when `list_jobs` was not negotiated; else as [`Client::submit`].
    pub async fn list_jobs(&self, list: &ListJobs) -> Result<Jobs, Error> {
        match self.ask(false, |machine, now| machine.list_jobs(now, list)).await? {
            Answer::Jobs(jobs) => Ok(*jobs),
            other => Err(other.into_error()),
        }
    }

    /// Stops following a job; silent when that was not negotiated.
    pub fn unsubscribe(&self, job_id: &str) {
        self.shared.act(|machine, now| machine.unsubscribe(now, job_id));
    }

    /// Asks to cancel a job and returns at once; the job's own end tells what came of it.
    ///
    /// # Errors
    /// `Closed` or `Transport` when there is no session.
    pub fn cancel_job(&self, job_id: &str, reason: &str) -> Result<(), Error> {
        self.shared.open()?;
        self.shared.act(|machine, now| {
            if !machine.has_room() {
                return Err(too_many());
            }
            machine.cancel(now, job_id, reason);
            Ok(())
        })
    }

    /// Asks to cancel a job and waits for the acknowledgement: the state of a job that had already ended, else `None`.
    ///
    /// # Errors
    /// The refusal; `Timeout` with a runtime that never acknowledges.
    pub async fn cancel_job_acknowledged(&self, job_id: &str, reason: &str) -> Result<Option<JobStatus>, Error> {
        match self.ask(false, |machine, now| Ok(machine.cancel(now, job_id, reason))).await? {
            Answer::Cancelled(status) => Ok(status),
            other => Err(other.into_error()),
        }
    }

    /// Acknowledges by hand; silent when that was not negotiated.
    pub fn ack(&self, last_processed_seq: u64) {
        self.shared.act(|machine, now| machine.ack(now, last_processed_seq));
    }

    /// Ends the session politely, within the close time whatever the peer does. Jobs go on. Idempotent.
    pub async fn close(&self, reason: &str) {
        if matches!(*self.shared.state.borrow(), ConnectionState::Idle | ConnectionState::Closed(_)) {
            self.shared.finish(Error::Closed("the client was closed".into()));
            return;
        }
        self.shared.act(|machine, now| machine.close(now, reason));
        let mut state = self.shared.state.subscribe();
        // The machine keeps its own close time; this only guards against a transport that hangs.
        let bound = self.shared.core.lock().machine.config().close_timeout + Duration::from_secs(1);
        let closed = state.wait_for(|state| matches!(state, ConnectionState::Closed(_)));
        if timeout(bound, closed).await.is_err() {
            self.shared.finish(Error::Closed("the client was closed".into()));
        }
    }

    /// Completes when the session is over, with the reason.
    pub async fn closed(&self) -> Error {
        let mut state = self.shared.state.subscribe();
        match state.wait_for(|state| matches!(state, ConnectionState::Closed(_))).await.as_deref() {
            Ok(ConnectionState::Closed(error)) => error.clone(),
            _ => Error::Closed("the client was dropped".into()),
        }
    }

    /// Sends a request and waits for its answer. With `abandon`, dropping the wait undoes a submit.
    async fn ask(
        &self,
        abandon: bool,
        request: impl FnOnce(&mut ClientMachine, Now) -> Result<Ticket, ProtocolError>,
    ) -> Result<Answer, Error> {
        self.shared.open()?;
        let (sender, answer) = oneshot::channel();
        let ticket = self.shared.act_on_core(|core, now| {
            // Again, under the lock: whoever ends the session answers what is registered by then.
            self.shared.open()?;
            if !core.machine.has_room() {
                return Err(too_many());
            }
            let ticket = request(&mut core.machine, now)?;
            core.requests.insert(ticket, Asker::Waits(sender));
            Ok::<_, Error>(ticket)
        })?;
        let mut waiting = Waiting { shared: &self.shared, ticket: abandon.then_some(ticket) };
        let answered = answer.await;
        waiting.ticket = None;
        match answered {
            Ok(Answer::Failed(error)) => Err(error),
            Ok(answer) => Ok(answer),
            Err(_) => Err(self.shared.why_closed()),
        }
    }
}

pub(crate) fn too_many() -> Error {
    Error::Transport("the connection is lost and too many requests wait for the next one; try again later".into())
}

impl Answer {
    /// An answer of another request's kind.
    fn into_error(self) -> Error {
        match self {
            Answer::Failed(error) => error,
            _ => Error::Transport("the runtime answered another request than was asked".into()),
        }
    }
}

/// Undoes a submit whose caller stops waiting for it.
struct Waiting<'a> {
    shared: &'a Arc<Shared>,
    ticket: Option<Ticket>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.shared.act(|machine, _| machine.abandon_submit(ticket));
        }
    }
}

/// Ends a half open session when its `connect` is dropped.
struct AbandonGuard<'a> {
    shared: &'a Arc<Shared>,
}

impl Drop for AbandonGuard<'_> {
    fn drop(&mut self) {
        self.shared.finish(Error::Closed("the connection attempt was abandoned".into()));
    }
}
