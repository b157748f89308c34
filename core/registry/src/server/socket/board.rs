//! What goes to many sockets, made once for all of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Notify, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::frame::{SharedFrame, write_json};
use super::message::unix_now;
use crate::directory::{AgentView, DiscoverFilter, ListFilter, TimeForm};
use crate::model::AgentStatus;
use crate::server::dashboard::{Dashboard, Embedding, Figures, Health, Storage, data_frame, rounded};
use crate::server::metrics::Metrics;
use crate::service::Service;

/// Tells how the embedder is.
pub type EmbeddingState = Arc<dyn Fn() -> Embedding + Send + Sync>;

/// A list that is sent at intervals may be so old, as long as no agent came, went or changed its status.
pub(super) const RECENT: Duration = Duration::from_millis(250);

/// What a client asked for may be so old.
pub(super) const FRESH: Duration = Duration::from_millis(10);

/// Between two broadcasts, at least: what changes meanwhile goes out together.
const BETWEEN: Duration = Duration::from_millis(20);

/// And so much for each socket, as each has to be served.
const PER_SOCKET: Duration = Duration::from_micros(100);

/// Broadcasts take at most one part in so many of the time.
const SHARE: u32 = 10;

const LONGEST_BETWEEN: Duration = Duration::from_secs(1);

/// A frame that was made for one and serves others who come soon.
#[derive(Debug, Default)]
struct Kept(Mutex<Option<(u64, Instant, SharedFrame)>>);

impl Kept {
    async fn get(
        &self,
        service: &Service,
        oldest: Duration,
        make: impl FnOnce() -> SharedFrame + Send + 'static,
    ) -> SharedFrame {
        let mut kept = self.0.lock().await;
        let revision = service.revision();
        if let Some((of, made, frame)) = &*kept
            && *of == revision
            && made.elapsed() <= oldest
        {
            return frame.clone();
        }
        let began = Instant::now();
        // Lists of tens of thousands take tens of milliseconds, which no other socket should wait.
        let frame = spawn_blocking(make).await.unwrap_or_else(|_| SharedFrame::text("null"));
        *kept = Some((revision, began, frame.clone()));
        frame
    }
}

/// The frames.
pub(super) struct Board {
    pub(super) service: Service,
    pub(super) dashboard: Dashboard,
    embedding: EmbeddingState,
    pub(super) metrics: Arc<Metrics>,
    changed: Notify,
    updates: watch::Sender<Option<SharedFrame>>,
    lists: watch::Sender<Option<SharedFrame>>,
    list: Kept,
    monitoring: Kept,
    health: Kept,
    agents: Kept,
}

impl Board {
    pub(super) fn new(
        service: Service,
        dashboard: Dashboard,
        metrics: Arc<Metrics>,
        embedding: EmbeddingState,
    ) -> Self {
        Board {
            service,
            dashboard,
            embedding,
            metrics,
            changed: Notify::new(),
            updates: watch::Sender::new(None),
            lists: watch::Sender::new(None),
            list: Kept::default(),
            monitoring: Kept::default(),
            health: Kept::default(),
            agents: Kept::default(),
        }
    }

    /// An agent came, went, or changed its status.
    pub(super) fn changed(&self) {
        self.changed.notify_one();
    }

    /// The newest `agents_update`, one value for all public sockets (REG-313).
    pub(super) fn updates(&self) -> watch::Receiver<Option<SharedFrame>> {
        self.updates.subscribe()
    }

    /// The newest array after a change, one value for all agent sockets (REG-333).
    pub(super) fn lists(&self) -> watch::Receiver<Option<SharedFrame>> {
        self.lists.subscribe()
    }

    /// Makes lists when something changed, for as long as it is polled. A change after quiet goes out at once; changes in
    /// a row go out together.
    pub(super) async fn broadcast(self: Arc<Self>) {
        loop {
            self.changed.notified().await;
            let began = Instant::now();
            let sockets = self.publish().await;
            let rest = (began.elapsed() * SHARE).max(BETWEEN + PER_SOCKET * sockets).min(LONGEST_BETWEEN);
            sleep(rest).await;
        }
    }

    async fn publish(&self) -> u32 {
        let (public, agents) = (self.updates.receiver_count(), self.lists.receiver_count());
        if public > 0 {
            let service = self.service.clone();
            if let Ok(frame) = spawn_blocking(move || agents_update(&service)).await {
                self.updates.send_replace(Some(frame));
            }
        }
        if agents > 0 {
            let list = self.list(FRESH).await;
            self.lists.send_replace(Some(list));
        }
        u32::try_from(public + agents).unwrap_or(u32::MAX)
    }

    /// The bare array of all agents (REG-330).
    pub(super) async fn list(&self, oldest: Duration) -> SharedFrame {
        let service = self.service.clone();
        let make = move || SharedFrame::build(|out| write_agents(&all(&service), out, TimeForm::Socket));
        self.list.get(&self.service, oldest, make).await
    }

    /// `stats_update` (REG-311).
    pub(super) fn stats(&self) -> SharedFrame {
        let stats = self.service.stats();
        let types: Vec<&String> = stats.types.keys().collect();
        SharedFrame::build(|out| {
            let (total, unix) = (stats.total, unix_now());
            let head = format!(
                r#"{{"type":"stats_update","timestamp":{unix},"data":{{"total_agents":{total},"alive_agents":{},"dead_agents":{},"agent_types_count":{},"available_types":"#,
                stats.alive,
                stats.dead,
                types.len(),
            );
            out.extend_from_slice(head.as_bytes());
            write_json(out, &types);
            out.extend_from_slice(br#","system_status":"operational"}}"#);
        })
    }

    /// `discovery_data` (REG-317).
    pub(super) fn discovery(&self, wanted: &super::public::PageWanted) -> SharedFrame {
        SharedFrame::build(|out| {
            let head = format!(r#"{{"type":"discovery_data","timestamp":{},"data":{{"agents":"#, unix_now());
            out.extend_from_slice(head.as_bytes());
            let filter = DiscoverFilter { agent_type: wanted.agent_type.clone(), capabilities: Vec::new() };
            let place = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
            let page = self.service.discover(&filter, place(wanted.page_size), place(wanted.offset()));
            write_agents(&page.agents, out, TimeForm::Socket);
            let (pagination, filters) = wanted.pagination(page.total as u64);
            out.extend_from_slice(br#","pagination":"#);
            write_json(out, &pagination);
            out.extend_from_slice(br#","filters":"#);
            write_json(out, &filters);
            out.extend_from_slice(b"}}");
        })
    }

    /// `monitoring` (REG-343).
    pub(super) async fn monitoring(&self, oldest: Duration) -> SharedFrame {
        let (service, metrics) = (self.service.clone(), Arc::clone(&self.metrics));
        let make = move || {
            let (agents, used) = (all(&service), metrics.utilization());
            let work = Work::of(&agents);
            data_frame("monitoring", |out| {
                let head = format!(
                    r#"{{"total_requests":{},"avg_response_time":{:?},"error_rate":{:?},"agent_metrics":["#,
                    work.total_requests,
                    rounded(work.avg_response_time, 2),
                    rounded(work.error_rate, 3),
                );
                out.extend_from_slice(head.as_bytes());
                for (place, agent) in agents.iter().enumerate() {
                    if place > 0 {
                        out.push(b',');
                    }
                    agent.write_metrics(out, TimeForm::Http);
                }
                let tail = format!(
                    r#"],"agent_count":{},"resource_utilization":{{"cpu":{:?},"memory":{:?},"network":{:?},"storage":{:?}}}}}"#,
                    agents.len(),
                    used.cpu,
                    used.memory,
                    used.network,
                    used.storage,
                );
                out.extend_from_slice(tail.as_bytes());
            })
        };
        self.monitoring.get(&self.service, oldest, make).await
    }

    /// `health` (REG-344).
    pub(super) async fn health(&self, oldest: Duration) -> SharedFrame {
        let (service, embedding) = (self.service.clone(), Arc::clone(&self.embedding));
        let make = move || {
            let stats = service.stats();
            let health = Health::of(storage(&service), embedding(), stats.total, stats.alive);
            data_frame("health", |out| write_json(out, &health))
        };
        self.health.get(&self.service, oldest, make).await
    }

    /// `agents` (REG-345).
    pub(super) async fn agents(&self, oldest: Duration) -> SharedFrame {
        let service = self.service.clone();
        let make = move || {
            let agents = all(&service);
            let mut types: BTreeMap<&str, usize> = BTreeMap::new();
            for agent in &agents {
                *types.entry(agent.agent_type()).or_default() += 1;
            }
            let alive = agents.iter().filter(|agent| agent.status == AgentStatus::Alive).count();
            data_frame("agents", |out| {
                out.extend_from_slice(b"{\"agents\":");
                write_agents(&agents, out, TimeForm::Http);
                let head = format!(r#","total_count":{},"active_count":{alive},"agent_types":"#, agents.len());
                out.extend_from_slice(head.as_bytes());
                write_json(out, &types);
                let dead = agents.len() - alive;
                let tail = format!(r#","status_summary":{{"alive":{alive},"dead":{dead}}}}}"#);
                out.extend_from_slice(tail.as_bytes());
            })
        };
        self.agents.get(&self.service, oldest, make).await
    }

    /// What alerts are judged by; goes through all agents, so not from an async task.
    pub(super) fn figures(&self) -> Figures {
        let agents = all(&self.service);
        let work = Work::of(&agents);
        Figures {
            total_requests: work.total_requests,
            avg_response_time: work.avg_response_time,
            error_rate: work.error_rate,
            agents: agents.len(),
            alive: agents.iter().filter(|agent| agent.status == AgentStatus::Alive).count(),
            resources: self.metrics.utilization(),
            storage: storage(&self.service),
        }
    }
}

/// What agents say of their work, taken together (REG-343).
struct Work {
    /// The sum.
    total_requests: u64,
    /// The mean, in seconds.
    avg_response_time: f64,
    /// The mean, 0 to 1.
    error_rate: f64,
}

impl Work {
    fn of(agents: &[AgentView]) -> Self {
        let mut work = Work { total_requests: 0, avg_response_time: 0.0, error_rate: 0.0 };
        for figures in agents.iter().map(AgentView::figures) {
            work.total_requests = work.total_requests.saturating_add(figures.total_requests.max(0).cast_unsigned());
            work.avg_response_time += figures.avg_response_time;
            work.error_rate += figures.error_rate;
        }
        let count = agents.len().max(1) as f64;
        work.avg_response_time /= count;
        work.error_rate /= count;
        work
    }
}

fn all(service: &Service) -> Vec<AgentView> {
    service.list(&ListFilter::default())
}

fn storage(service: &Service) -> Storage {
    if service.store_stats().failing { Storage::Failing } else { Storage::Working }
}

/// With metrics, and without members that are null.
fn write_agents(agents: &[AgentView], out: &mut Vec<u8>, form: TimeForm) {
    AgentView::write_list(agents, out, form, true, false);
}

/// `agents_update`: all alive agents (REG-313).
fn agents_update(service: &Service) -> SharedFrame {
    let agents = service.list(&ListFilter { status: Some("alive".into()), ..ListFilter::default() });
    SharedFrame::build(|out| {
        let head = format!(r#"{{"type":"agents_update","timestamp":{},"data":{{"agents":"#, unix_now());
        out.extend_from_slice(head.as_bytes());
        write_agents(&agents, out, TimeForm::Socket);
        out.extend_from_slice(format!(r#","total_count":{}}}}}"#, agents.len()).as_bytes());
    })
}

#[cfg(test)]
mod tests {
    use arcp_store::registry::MemoryRegistryStore;
    use serde_json::json;

    use super::*;
    use crate::directory::Caller;
    use crate::model::Registration;
    use crate::search::SearchEngine;
    use crate::server::config::Config;
    use crate::server::dashboard::DashboardSettings;
    use crate::service::ServiceConfig;

    fn board() -> Arc<Board> {
        let (config, store) = (Config::dev(), Arc::new(MemoryRegistryStore::new()));
        let service = Service::open(ServiceConfig::default(), store, SearchEngine::new()).unwrap();
        let dashboard = Dashboard::new(DashboardSettings::from(&config));
        let metrics = Arc::new(Metrics::new(&config, "0.0.0"));
        Arc::new(Board::new(service, dashboard, metrics, Arc::new(|| Embedding::Local)))
    }

    async fn register(board: &Board, agent_id: &str) {
        let registration = json!({
            "agent_id": agent_id, "name": agent_id, "agent_type": "testing", "endpoint": "http://127.0.0.1:9978/ok",
            "capabilities": ["echo"], "context_brief": "An agent of the tests", "version": "1.0.0", "owner": "Tests",
            "public_key": "test-public-key-0123456789abcdef-ok", "metadata": {"a": 1}, "communication_mode": "remote",
        });
        let admin = Caller::Admin { user: "ARCP".into() };
        board.service.register(&admin, Registration::check(&registration).unwrap()).await.unwrap();
    }

    fn same(one: &SharedFrame, two: &SharedFrame) -> bool {
        one.bytes().as_ptr() == two.bytes().as_ptr()
    }

    /// Rules: REG-330, REG-333
    #[tokio::test]
    async fn sockets_that_ask_in_a_row_share_one_list_and_never_an_old_one() {
        let board = board();
        let long = Duration::from_secs(60);
        let (first, second) = (board.list(long).await, board.list(long).await);
        assert!(same(&first, &second));
        register(&board, "agent-1").await;
        let third = board.list(long).await;
        assert!(!same(&second, &third), "the list changed");
        assert!(String::from_utf8_lossy(third.payload()).contains("agent-1"));
        assert!(!same(&third, &board.list(Duration::ZERO).await), "too old for who wants it fresh");
    }

    /// Rules: REG-313, REG-333
    #[tokio::test(start_paused = true)]
    async fn one_change_is_one_frame_for_all() {
        let board = board();
        let mut public: Vec<_> = (0..3).map(|_| board.updates()).collect();
        let mut agents: Vec<_> = (0..3).map(|_| board.lists()).collect();
        let running = tokio::spawn(Arc::clone(&board).broadcast());
        register(&board, "agent-1").await;
        board.changed();
        for group in [&mut public, &mut agents] {
            let mut frames = Vec::new();
            for receiver in group.iter_mut() {
                receiver.changed().await.unwrap();
                frames.push(receiver.borrow_and_update().clone().unwrap());
            }
            assert!(same(&frames[0], &frames[1]) && same(&frames[1], &frames[2]));
        }
        running.abort();
    }
}
