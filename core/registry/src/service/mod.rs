//! The registry: one method for each thing a caller can do.
//!
//! HTTP and sockets hold no state of their own: they find out who calls, check the form of what is asked, and call this.
//! What is acknowledged is kept: [`Service::register`], [`Service::unregister`] and the metrics answer once the store has
//! it. Heartbeats are kept with the next [`Service::tick`].

mod config;
mod transfer;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arcp_store::StoreError;
use arcp_store::registry::{
    Completion, KeptAgent, NotKept, RegistryKept, RegistryOp, RegistryStore, RegistryStoreStats,
};
use jiff::Timestamp;
use parking_lot::{Mutex, RwLock, RwLockWriteGuard};
use tokio::sync::broadcast;

use crate::directory::time::{from_micros, micros};
use crate::directory::{
    AgentView, Caller, Change, ChangeKind, Counted, Directory, DirectoryConfig, DiscoverFilter, Figures, Leaving,
    ListFilter, Moment, Page, Refusal, Reservation, Returning, Stats, TimeForm,
};
use crate::model::check::shown;
use crate::model::{AgentStatus, Invalid, MetricsUpdate, Registration, SearchRequest, SearchResponse};
use crate::search::{Hit, SearchEngine};

pub use config::{Clock, DEFAULT_TYPES, ServiceConfig, SystemClock};
pub use transfer::{ImportReport, Skipped};

/// How often the store is told at least that the registry runs.
const RUN_NOTE: Duration = Duration::from_secs(5);
/// Agents removed in one go; nobody waits for more.
const CLEANED_AT_ONCE: usize = 1000;

/// The registry; a clone is the same one.
#[derive(Clone)]
pub struct Service(Arc<Inner>);

struct Inner {
    config: ServiceConfig,
    store: Arc<dyn RegistryStore>,
    search: SearchEngine,
    clock: Box<dyn Clock>,
    directory: RwLock<State>,
    changes: broadcast::Sender<Arc<Change>>,
    kept: Mutex<RegistryKept>,
}

struct State {
    agents: Directory,
    revision: u64,
    cleaned_at: Duration,
    noted_at: Duration,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("config", &self.0.config).finish_non_exhaustive()
    }
}

/// A registration that is kept.
#[derive(Clone, Debug)]
pub struct Registered {
    /// The agent as it is now.
    pub agent: AgentView,
    /// The hash of the key it has.
    pub key_hash: Option<Arc<str>>,
}

impl Service {
    /// Opens the store, and goes on where an earlier process stopped.
    ///
    /// # Errors
    /// When the store cannot be opened.
    pub fn open(
        config: ServiceConfig,
        store: Arc<dyn RegistryStore>,
        search: SearchEngine,
    ) -> Result<Service, StoreError> {
        Service::open_with_clock(config, store, search, Box::new(SystemClock::default()))
    }

    /// The same by another clock.
    ///
    /// # Errors
    /// When the store cannot be opened.
    pub fn open_with_clock(
        config: ServiceConfig,
        store: Arc<dyn RegistryStore>,
        search: SearchEngine,
        clock: Box<dyn Clock>,
    ) -> Result<Service, StoreError> {
        let mut kept = store.open()?;
        let now = clock.now();
        let mut agents = Directory::new(DirectoryConfig {
            heartbeat_timeout: config.heartbeat_timeout,
            max_agents: config.max_agents,
            zone: config.zone.clone(),
        });
        let returning: Vec<Returning> = std::mem::take(&mut kept.agents).into_iter().filter_map(returning).collect();
        for agent in &returning {
            search.insert(&agent.registration);
        }
        let tokens = std::mem::take(&mut kept.tokens).into_iter().map(|(id, at)| (id, from_micros(at))).collect();
        agents.restore(returning, tokens, kept.last_key, from_micros(kept.last_run), now);
        let (changes, _) = broadcast::channel(config.change_backlog.max(1));
        let state = State { agents, revision: 0, cleaned_at: now.mono, noted_at: now.mono };
        let (directory, kept) = (RwLock::new(state), Mutex::new(kept));
        Ok(Service(Arc::new(Inner { config, store, search, clock, directory, changes, kept })))
    }

    /// How it works.
    pub fn config(&self) -> &ServiceConfig {
        &self.0.config
    }

    /// Now, by its clock.
    pub fn now(&self) -> Moment {
        self.0.clock.now()
    }

    /// What an earlier process kept beside the agents: sessions, accounts, settings, secrets, journals. Given once;
    /// empty after that.
    pub fn take_kept(&self) -> RegistryKept {
        std::mem::take(&mut self.0.kept.lock())
    }

    /// Keeps what the server needs to go on after a restart.
    pub fn keep(&self, ops: Vec<RegistryOp>) -> Completion {
        self.0.store.submit(ops)
    }

    /// Whether what it keeps outlives the process.
    pub fn is_durable(&self) -> bool {
        self.0.store.is_durable()
    }

    /// How the store does.
    pub fn store_stats(&self) -> RegistryStoreStats {
        self.0.store.stats()
    }

    /// Changes from now on, in order. One who falls too far behind is told that some are missing, and reads the list
    /// anew.
    pub fn changes(&self) -> broadcast::Receiver<Arc<Change>> {
        self.0.changes.subscribe()
    }

    // Writing

    /// The directory, with everybody dead who is by now.
    fn write(&self, now: Moment) -> RwLockWriteGuard<'_, State> {
        let mut state = self.0.directory.write();
        self.bury(&mut state, now);
        state
    }

    fn bury(&self, state: &mut State, now: Moment) {
        for agent in state.agents.expire(now.mono) {
            self.tell(state, ChangeKind::StatusChanged(AgentStatus::Dead), agent, now.wall);
        }
    }

    /// Tells the watchers; under the lock, so that all see one order.
    fn tell(&self, state: &mut State, kind: ChangeKind, agent: AgentView, at: Timestamp) {
        state.revision += 1;
        let agent_id = Arc::clone(agent.agent_id());
        // Nobody may be watching.
        let _ = self.0.changes.send(Arc::new(Change { revision: state.revision, kind, agent_id, agent, at }));
    }

    /// Registers an agent (REG-170, REG-192, REG-193). Durable when it returns; a caller that stops waiting changes
    /// nothing.
    ///
    /// # Errors
    /// Why not; nothing has happened then.
    pub async fn register(&self, caller: &Caller, registration: Registration) -> Result<Registered, Refusal> {
        self.check_type(&registration.agent_type)?;
        let now = self.now();
        let reservation = self.write(now).agents.begin_register(caller, &registration, now)?;
        let mut ops = Vec::with_capacity(2);
        if let Caller::Temporary { token_id, expires_at, .. } = caller {
            ops.push(RegistryOp::UseToken { token_id: Arc::clone(token_id), expires_at: micros(*expires_at) });
        }
        self.admit(reservation, registration, ops, now).await
    }

    /// Keeps a reserved agent, then makes it true.
    async fn admit(
        &self,
        reservation: Reservation,
        registration: Registration,
        mut ops: Vec<RegistryOp>,
        now: Moment,
    ) -> Result<Registered, Refusal> {
        let record = &reservation.record;
        ops.push(RegistryOp::PutAgent(KeptAgent {
            key: reservation.key,
            agent_id: Arc::clone(&record.agent_id),
            registration: record.json(),
            registered_at: micros(record.registered_at),
            last_seen: micros(now.wall),
            key_hash: reservation.key_hash.clone(),
            metrics: None,
        }));
        let service = self.clone();
        settle(self.0.store.submit(ops), move |outcome| service.end_register(reservation, &registration, outcome)).await
    }

    fn end_register(
        &self,
        reservation: Reservation,
        registration: &Registration,
        outcome: Result<(), NotKept>,
    ) -> Result<Registered, Refusal> {
        if let Err(why) = outcome {
            self.0.directory.write().agents.abandon_register(reservation);
            return Err(refused(why));
        }
        // Found as soon as it is there; until then nobody else changes what the search knows of this id.
        self.0.search.insert(registration);
        let now = self.now();
        let mut state = self.0.directory.write();
        let key_hash = reservation.key_hash.clone();
        let agent = state.agents.finish_register(reservation);
        self.tell(&mut state, ChangeKind::Registered, agent.clone(), now.wall);
        Ok(Registered { agent, key_hash })
    }

    fn check_type(&self, agent_type: &str) -> Result<(), Refusal> {
        let allowed = &self.0.config.allowed_types;
        if allowed.iter().any(|known| known.to_lowercase() == agent_type.to_lowercase()) {
            return Ok(());
        }
        let mut words = allowed.iter().take(20).map(String::as_str).collect::<Vec<_>>().join(", ");
        if allowed.len() > 20 {
            words.push_str(", …");
        }
        let fault = format!("agent_type {:?} is not allowed here; use one of: {words}", shown(agent_type));
        Err(Refusal::Invalid(vec![Invalid::new("agent_type", "value_error", fault)]))
    }

    /// Lets an agent go (REG-174). Durable when it returns.
    ///
    /// # Errors
    /// Why not; nothing has happened then.
    pub async fn unregister(&self, caller: &Caller, agent_id: &str) -> Result<(), Refusal> {
        let now = self.now();
        let leaving = self.write(now).agents.begin_unregister(caller, agent_id)?;
        let service = self.clone();
        let ops = vec![RegistryOp::RemoveAgent { key: leaving.key }];
        settle(self.0.store.submit(ops), move |outcome| service.end_unregister(leaving, outcome)).await
    }

    fn end_unregister(&self, leaving: Leaving, outcome: Result<(), NotKept>) -> Result<(), Refusal> {
        if let Err(why) = outcome {
            self.0.directory.write().agents.abandon_unregister(leaving);
            return Err(refused(why));
        }
        self.0.search.remove(&leaving.agent_id);
        let now = self.now();
        let mut state = self.0.directory.write();
        if let Some(agent) = state.agents.finish_unregister(leaving) {
            self.tell(&mut state, ChangeKind::Unregistered, agent, now.wall);
        }
        Ok(())
    }

    /// An agent is heard of; gives the time (REG-175, REG-190).
    ///
    /// # Errors
    /// When there is no such agent, which is how it learns to register again, or the caller is another.
    pub fn heartbeat(&self, caller: &Caller, agent_id: &str) -> Result<Timestamp, Refusal> {
        let now = self.now();
        let mut state = self.write(now);
        let (seen, revived) = state.agents.heartbeat(caller, agent_id, now)?;
        if let Some(agent) = revived {
            self.tell(&mut state, ChangeKind::StatusChanged(AgentStatus::Alive), agent, now.wall);
        }
        Ok(seen)
    }

    /// Changes metrics (REG-176); the agent with the new ones. Durable when it returns.
    ///
    /// # Errors
    /// Why not.
    pub async fn set_metrics(
        &self,
        caller: &Caller,
        agent_id: &str,
        update: &MetricsUpdate,
    ) -> Result<AgentView, Refusal> {
        if update.agent_id.as_ref().is_some_and(|named| named != agent_id) {
            let fault = "agent_id must be the agent of the path; correct it, or leave it out";
            return Err(Refusal::Invalid(vec![Invalid::new("agent_id", "value_error", fault)]));
        }
        let now = self.now();
        let counted = self.write(now).agents.set_metrics(caller, agent_id, update, now)?;
        self.keep_metrics(counted).await
    }

    /// Counts one answered request (REG-178, REG-194); the agent with its new metrics. Durable when it returns.
    ///
    /// # Errors
    /// Why not.
    pub async fn report_metrics(
        &self,
        caller: &Caller,
        agent_id: &str,
        response_time: f64,
        success: bool,
    ) -> Result<AgentView, Refusal> {
        if !(0.0..=3600.0).contains(&response_time) {
            let fault = "response_time must be between 0 and 3600 seconds; choose another value";
            return Err(Refusal::Invalid(vec![Invalid::new("response_time", "value_error", fault)]));
        }
        let now = self.now();
        let counted = self.write(now).agents.report_metrics(caller, agent_id, response_time, success, now)?;
        self.keep_metrics(counted).await
    }

    async fn keep_metrics(&self, counted: Counted) -> Result<AgentView, Refusal> {
        let metrics = serde_json::to_string(&counted.agent.figures()).unwrap_or_default();
        let ops = vec![RegistryOp::PutMetrics { key: counted.key, metrics }];
        let service = self.clone();
        settle(self.0.store.submit(ops), move |outcome| match outcome {
            Ok(()) => Ok(counted.agent),
            Err(why) => {
                service.0.directory.write().agents.abandon_metrics(counted);
                Err(refused(why))
            }
        })
        .await
    }

    /// Liveness, clean-up, and what is kept of heartbeats. To be called at least once a second: `last_seen` may lag that
    /// much behind after a crash.
    pub fn tick(&self, now: Moment) {
        let mut ops = Vec::new();
        {
            let mut state = self.write(now);
            let state = &mut *state;
            if now.mono.saturating_sub(state.cleaned_at) >= self.0.config.cleanup_interval {
                let gone = state.agents.clean_up(now.mono, CLEANED_AT_ONCE);
                if gone.len() < CLEANED_AT_ONCE {
                    state.cleaned_at = now.mono;
                }
                for (key, agent) in gone {
                    ops.push(RegistryOp::RemoveAgent { key });
                    self.0.search.remove(agent.agent_id());
                    self.tell(state, ChangeKind::Removed, agent, now.wall);
                }
                if state.agents.forget_tokens(now.wall) {
                    ops.push(RegistryOp::ForgetTokens { before: micros(now.wall) });
                }
            }
            let seen = state.agents.take_seen();
            if !seen.is_empty() || now.mono.saturating_sub(state.noted_at) >= RUN_NOTE {
                state.noted_at = now.mono;
                let seen = seen.into_iter().map(|(key, at)| (key, micros(at))).collect();
                ops.push(RegistryOp::LastSeen { seen, now: micros(now.wall) });
            }
        }
        if !ops.is_empty() {
            // Should the store refuse, the next heartbeats are kept in their place.
            drop(self.0.store.submit(ops));
        }
    }

    /// Keeps what is left to keep, and lets go of the store. Blocks; what follows is refused.
    pub fn close(&self) {
        self.tick(self.now());
        self.0.store.close();
    }

    // Reading

    fn read<T>(&self, look: impl FnOnce(&Directory) -> T) -> T {
        match self.write_if_due(self.now()) {
            Some(state) => look(&state.agents),
            None => look(&self.0.directory.read().agents),
        }
    }

    /// Nobody is shown alive who is dead by now.
    fn write_if_due(&self, now: Moment) -> Option<RwLockWriteGuard<'_, State>> {
        let due = self.0.directory.read().agents.next_death().is_some_and(|at| at <= now.mono);
        due.then(|| self.write(now))
    }

    /// An agent, alive or dead (REG-173).
    pub fn agent(&self, agent_id: &str) -> Option<AgentView> {
        self.read(|agents| agents.agent(agent_id))
    }

    /// Whether an agent registered with the key of this hash (REG-193).
    pub fn is_bound(&self, agent_id: &str, key_hash: &str) -> bool {
        self.read(|agents| agents.is_bound(agent_id, key_hash))
    }

    /// Whether an agent's token may be renewed (REG-163).
    ///
    /// # Errors
    /// When there is no such agent, or another has its id by now.
    pub fn may_renew(&self, caller: &Caller, agent_id: &str) -> Result<(), Refusal> {
        self.read(|agents| agents.may_renew(caller, agent_id))
    }

    /// A live agent (REG-185).
    ///
    /// # Errors
    /// When there is none of this id, or it is dead.
    pub fn available(&self, agent_id: &str) -> Result<AgentView, Refusal> {
        self.read(|agents| agents.available(agent_id))
    }

    /// An agent for one who may see its metrics (REG-177).
    ///
    /// # Errors
    /// When there is no such agent, or the caller is another.
    pub fn metrics(&self, caller: &Caller, agent_id: &str) -> Result<AgentView, Refusal> {
        self.read(|agents| agents.metrics(caller, agent_id))
    }

    /// The agents that pass, in the order they registered, the dead too unless said otherwise (REG-171).
    pub fn list(&self, filter: &ListFilter) -> Vec<AgentView> {
        self.read(|agents| agents.list(filter))
    }

    /// Up to `limit` live agents that pass, from the `offset`th on (REG-183).
    pub fn discover(&self, filter: &DiscoverFilter, limit: usize, offset: usize) -> Page {
        self.read(|agents| agents.discover(filter, limit, offset))
    }

    /// Counts the changes so far: another number means another list of agents (see [`Change::revision`]).
    pub fn revision(&self) -> u64 {
        // Who is dead by now is a change too.
        self.read(|_| ());
        self.0.directory.read().revision
    }

    /// How many agents there are.
    pub fn stats(&self) -> Stats {
        self.read(Directory::stats)
    }

    /// The live agents that answer a question best (REG-197, REG-198); one that is registered is found at once.
    pub async fn search(&self, request: &SearchRequest) -> Vec<SearchResponse> {
        let now = self.now();
        drop(self.write_if_due(now));
        let look = &self.0.directory;
        let alive = |id: &str| look.read().agents.is_alive(id);
        let reputation = |id: &str| look.read().agents.agent(id).map_or(0.0, |agent| agent.reputation() as f32);
        let hits = self.0.search.search(request, alive, reputation).await;
        let agents: Vec<Option<AgentView>> = {
            let state = self.0.directory.read();
            hits.iter().map(|hit| state.agents.available(&hit.id).ok()).collect()
        };
        let answer = |(hit, agent): (Hit, Option<AgentView>)| {
            agent.map(|agent| agent.answer(hit.similarity, request.weighted, TimeForm::Http))
        };
        hits.into_iter().zip(agents).filter_map(answer).collect()
    }

    /// What the search knows; for figures and health.
    pub fn search_engine(&self) -> &SearchEngine {
        &self.0.search
    }
}

fn refused(why: NotKept) -> Refusal {
    Refusal::NotKept(why.to_string())
}

/// Goes on once the store has spoken, also when nobody waits for the answer any more.
async fn settle<T: Send + 'static>(
    completion: Completion,
    end: impl FnOnce(Result<(), NotKept>) -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    if let Some(outcome) = completion.peek() {
        return end(outcome);
    }
    let task = tokio::spawn(async move { end(completion.await) });
    task.await.unwrap_or_else(|_| Err(Refusal::NotKept("the registry is stopping; try again".to_owned())))
}

fn returning(kept: KeptAgent) -> Option<Returning> {
    let registration = match serde_json::from_str::<Registration>(&kept.registration) {
        Ok(registration) if registration.agent_id == *kept.agent_id => registration,
        _ => {
            tracing::error!(agent_id = %kept.agent_id, "what the store kept of an agent cannot be read; it is left out");
            return None;
        }
    };
    let figures = kept.metrics.as_deref().and_then(|json| serde_json::from_str::<Figures>(json).ok());
    Some(Returning {
        key: kept.key,
        registration,
        registered_at: from_micros(kept.registered_at),
        last_seen: from_micros(kept.last_seen),
        key_hash: kept.key_hash,
        figures,
    })
}
