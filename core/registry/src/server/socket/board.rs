//! What goes to many sockets, made once for all of them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Notify, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::frame::{SharedFrame, write_json};
use super::message::unix_now;
use super::registry::{Registry, Times};
use crate::server::dashboard::{Dashboard, Figures, Health, data_frame, rounded};
use crate::server::metrics::Metrics;

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
        registry: &Arc<dyn Registry>,
        oldest: Duration,
        make: impl FnOnce() -> SharedFrame + Send + 'static,
    ) -> SharedFrame {
        let mut kept = self.0.lock().await;
        let revision = registry.revision();
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
    pub(super) registry: Arc<dyn Registry>,
    pub(super) dashboard: Dashboard,
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
    pub(super) fn new(registry: Arc<dyn Registry>, dashboard: Dashboard, metrics: Arc<Metrics>) -> Self {
        Board {
            registry,
            dashboard,
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
            let registry = Arc::clone(&self.registry);
            if let Ok(frame) = spawn_blocking(move || agents_update(registry.as_ref())).await {
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
        let registry = Arc::clone(&self.registry);
        let make = move || {
            SharedFrame::build(|out| {
                registry.write_all(Times::Blank, out);
            })
        };
        self.list.get(&self.registry, oldest, make).await
    }

    /// `stats_update` (REG-311).
    pub(super) fn stats(&self) -> SharedFrame {
        let counts = self.registry.counts();
        let types: Vec<&String> = counts.types.keys().collect();
        SharedFrame::build(|out| {
            let (total, unix) = (counts.alive + counts.dead, unix_now());
            let head = format!(
                r#"{{"type":"stats_update","timestamp":{unix},"data":{{"total_agents":{total},"alive_agents":{},"dead_agents":{},"agent_types_count":{},"available_types":"#,
                counts.alive,
                counts.dead,
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
            let agent_type = wanted.agent_type.as_deref();
            let total = self.registry.write_page(agent_type, wanted.offset(), wanted.page_size, out);
            let (pagination, filters) = wanted.pagination(total);
            out.extend_from_slice(br#","pagination":"#);
            write_json(out, &pagination);
            out.extend_from_slice(br#","filters":"#);
            write_json(out, &filters);
            out.extend_from_slice(b"}}");
        })
    }

    /// `monitoring` (REG-343).
    pub(super) async fn monitoring(&self, oldest: Duration) -> SharedFrame {
        let (registry, metrics) = (Arc::clone(&self.registry), Arc::clone(&self.metrics));
        let make = move || {
            let (work, counts, used) = (registry.work(), registry.counts(), metrics.utilization());
            data_frame("monitoring", |out| {
                let head = format!(
                    r#"{{"total_requests":{},"avg_response_time":{:?},"error_rate":{:?},"agent_metrics":"#,
                    work.total_requests,
                    rounded(work.avg_response_time, 2),
                    rounded(work.error_rate, 3),
                );
                out.extend_from_slice(head.as_bytes());
                registry.write_metrics(out);
                let tail = format!(
                    r#","agent_count":{},"resource_utilization":{{"cpu":{:?},"memory":{:?},"network":{:?},"storage":{:?}}}}}"#,
                    counts.alive + counts.dead,
                    used.cpu,
                    used.memory,
                    used.network,
                    used.storage,
                );
                out.extend_from_slice(tail.as_bytes());
            })
        };
        self.monitoring.get(&self.registry, oldest, make).await
    }

    /// `health` (REG-344).
    pub(super) async fn health(&self, oldest: Duration) -> SharedFrame {
        let registry = Arc::clone(&self.registry);
        let make = move || {
            let counts = registry.counts();
            let total = counts.alive + counts.dead;
            let health = Health::of(registry.storage(), registry.embedding(), total, counts.alive);
            data_frame("health", |out| write_json(out, &health))
        };
        self.health.get(&self.registry, oldest, make).await
    }

    /// `agents` (REG-345).
    pub(super) async fn agents(&self, oldest: Duration) -> SharedFrame {
        let registry = Arc::clone(&self.registry);
        let make = move || {
            data_frame("agents", |out| {
                out.extend_from_slice(b"{\"agents\":");
                let written = registry.write_all(Times::Iso, out);
                let counts = registry.counts();
                let head = format!(r#","total_count":{written},"active_count":{},"agent_types":"#, counts.alive);
                out.extend_from_slice(head.as_bytes());
                write_json(out, &counts.types);
                let tail = format!(r#","status_summary":{{"alive":{},"dead":{}}}}}"#, counts.alive, counts.dead);
                out.extend_from_slice(tail.as_bytes());
            })
        };
        self.agents.get(&self.registry, oldest, make).await
    }

    /// What alerts are judged by; looks at the machine, so not from an async task.
    pub(super) fn figures(&self) -> Figures {
        self.metrics.sample();
        let (work, counts) = (self.registry.work(), self.registry.counts());
        Figures {
            total_requests: work.total_requests,
            avg_response_time: work.avg_response_time,
            error_rate: work.error_rate,
            agents: counts.alive + counts.dead,
            alive: counts.alive,
            resources: self.metrics.utilization(),
            storage: self.registry.storage(),
        }
    }
}

/// `agents_update`: all alive agents (REG-313).
fn agents_update(registry: &dyn Registry) -> SharedFrame {
    SharedFrame::build(|out| {
        let head = format!(r#"{{"type":"agents_update","timestamp":{},"data":{{"agents":"#, unix_now());
        out.extend_from_slice(head.as_bytes());
        let count = registry.write_alive(out);
        out.extend_from_slice(format!(r#","total_count":{count}}}}}"#).as_bytes());
    })
}
