//! The registry's service over its stores: what is acknowledged is kept, and what is refused never happened.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails where it fails")]

use std::sync::Arc;
use std::time::Duration;

use arcp_registry::directory::{Caller, ChangeKind, DiscoverFilter, ListFilter, Moment, Refusal};
use arcp_registry::model::{AgentStatus, MetricsUpdate, Registration, SearchRequest};
use arcp_registry::problem::Problem;
use arcp_registry::search::SearchEngine;
use arcp_registry::service::{Clock, Service, ServiceConfig};
use arcp_store::registry::{
    Completion, KeptSession, NotKept, Promise, RegistryKept, RegistryOp, RegistryStore, RegistryStoreStats,
};
use arcp_store::{MemoryRegistryStore, RegistrySqliteOptions, SqliteRegistryStore, StoreError};
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use serde_json::{Value, json};

/// A clock that goes when it is told to.
#[derive(Clone)]
struct Hand(Arc<Mutex<Moment>>);

impl Hand {
    fn new(wall: i64) -> Hand {
        let wall = Timestamp::from_second(1_800_000_000 + wall).unwrap();
        Hand(Arc::new(Mutex::new(Moment { mono: Duration::ZERO, wall })))
    }

    fn forward(&self, seconds: u64) {
        let mut now = self.0.lock();
        now.mono += Duration::from_secs(seconds);
        now.wall = now.wall.checked_add(SignedDuration::from_secs(seconds.cast_signed())).unwrap();
    }

    fn step(&self, seconds: i64) {
        let mut now = self.0.lock();
        now.wall = now.wall.checked_add(SignedDuration::from_secs(seconds)).unwrap();
    }
}

impl Clock for Hand {
    fn now(&self) -> Moment {
        *self.0.lock()
    }
}

/// A store that answers when it is told to.
#[derive(Clone, Default)]
struct Late(Arc<Mutex<Vec<Promise>>>);

impl Late {
    fn answer(&self, outcome: Result<(), NotKept>) -> usize {
        let promises = std::mem::take(&mut *self.0.lock());
        let count = promises.len();
        promises.into_iter().for_each(|promise| promise.settle(outcome.clone()));
        count
    }
}

impl RegistryStore for Late {
    fn is_durable(&self) -> bool {
        true
    }

    fn open(&self) -> Result<RegistryKept, StoreError> {
        Ok(RegistryKept::default())
    }

    fn submit(&self, _: Vec<RegistryOp>) -> Completion {
        let (promise, completion) = Completion::pending();
        self.0.lock().push(promise);
        completion
    }

    fn stats(&self) -> RegistryStoreStats {
        RegistryStoreStats::default()
    }

    fn close(&self) {}
}

fn registration(id: &str) -> Registration {
    Registration::check(&json!({
        "agent_id": id, "name": "Tester", "agent_type": "Testing", "endpoint": "http://127.0.0.1:9977/ok",
        "capabilities": ["text-analysis", "echo"], "context_brief": "Analyses texts and converts files for users",
        "version": "1.0.0", "owner": "Owner", "public_key": "a-public-key-0123456789abcdefghi",
        "metadata": {"framework": "fastapi"}, "communication_mode": "remote",
    }))
    .unwrap()
}

fn admin() -> Caller {
    Caller::Admin { user: "ARCP".into() }
}

fn agent(id: &str) -> Caller {
    Caller::Agent { agent_id: id.into(), key_hash: None }
}

fn temporary(id: &str, token: &str) -> Caller {
    Caller::Temporary {
        agent_id: id.into(),
        agent_type: "testing".into(),
        key_hash: "hash".into(),
        token_id: token.into(),
        expires_at: Timestamp::from_second(4_000_000_000).unwrap(),
    }
}

fn open(store: impl RegistryStore, clock: &Hand) -> Service {
    let config = ServiceConfig::default();
    Service::open_with_clock(config, Arc::new(store), SearchEngine::new(), Box::new(clock.clone())).unwrap()
}

fn sqlite(folder: &tempfile::TempDir) -> SqliteRegistryStore {
    SqliteRegistryStore::new(folder.path().join("registry.db"), RegistrySqliteOptions::default())
}

fn ids(service: &Service) -> Vec<String> {
    service.list(&ListFilter::default()).iter().map(|agent| agent.agent_id().to_string()).collect()
}

fn found(query: &str) -> SearchRequest {
    SearchRequest::check(&json!({"query": query, "min_similarity": 0.0})).unwrap()
}

/// Rules: REG-170, REG-174, REG-313
#[tokio::test]
async fn a_life_is_told_to_watchers_and_found_by_searches() {
    let clock = Hand::new(0);
    let service = open(MemoryRegistryStore::new(), &clock);
    let mut changes = service.changes();
    service.register(&admin(), registration("agent-1")).await.unwrap();
    assert_eq!(service.search(&found("analyse texts")).await[0].id, "agent-1");
    clock.forward(60);
    assert_eq!(service.discover(&DiscoverFilter::default(), 10, 0).total, 0);
    assert_eq!(service.search(&found("analyse texts")).await, []);
    assert_eq!(service.available("agent-1").unwrap_err(), Refusal::NotAvailable("agent-1".into()));
    service.tick(service.now());
    service.heartbeat(&agent("agent-1"), "agent-1").unwrap();
    assert_eq!(service.search(&found("analyse texts")).await.len(), 1);
    service.unregister(&agent("agent-1"), "agent-1").await.unwrap();
    assert_eq!(service.search(&found("analyse texts")).await, []);
    service.register(&admin(), registration("agent-2")).await.unwrap();
    clock.forward(60);
    service.tick(service.now());
    clock.forward(61);
    service.tick(service.now());
    assert_eq!((service.stats().total, service.agent("agent-2").is_none()), (0, true));
    let mut told = Vec::new();
    while let Ok(change) = changes.try_recv() {
        told.push((change.revision, change.kind, change.agent_id.to_string(), change.agent.status));
    }
    let (alive, dead) = (AgentStatus::Alive, AgentStatus::Dead);
    let expected = [
        (1, ChangeKind::Registered, "agent-1", alive),
        (2, ChangeKind::StatusChanged(dead), "agent-1", dead),
        (3, ChangeKind::StatusChanged(alive), "agent-1", alive),
        (4, ChangeKind::Unregistered, "agent-1", alive),
        (5, ChangeKind::Registered, "agent-2", alive),
        (6, ChangeKind::StatusChanged(dead), "agent-2", dead),
        (7, ChangeKind::Removed, "agent-2", dead),
    ];
    assert_eq!(told, expected.map(|(revision, kind, id, status)| (revision, kind, id.to_owned(), status)));
}

/// Rules: REG-070, REG-170
#[tokio::test]
async fn a_type_must_be_allowed_in_any_case() {
    let service = open(MemoryRegistryStore::new(), &Hand::new(0));
    let view = service.register(&admin(), registration("agent-1")).await.unwrap().agent;
    assert_eq!(&**view.agent_type(), "Testing");
    let strange = Registration { agent_type: "nonsense".to_owned(), ..registration("agent-2") };
    let problem = Problem::from(service.register(&admin(), strange).await.unwrap_err());
    assert_eq!((problem.status, problem.errors[0].place().as_str()), (422, "agent_type"));
    assert!(problem.detail.contains("\"nonsense\"") && problem.detail.contains("automation"), "{}", problem.detail);
}

/// Rules: REG-201
#[tokio::test]
async fn what_the_store_refuses_never_happened() {
    let late = Late::default();
    let service = open(late.clone(), &Hand::new(0));
    let refuse = || Err(NotKept("the disk is full; free some".into()));
    let registering = |service: &Service, caller: Caller| {
        let service = service.clone();
        tokio::spawn(async move { service.register(&caller, registration("agent-1")).await })
    };
    let settled = async |late: &Late, outcome: Result<(), NotKept>| {
        while late.answer(outcome.clone()) == 0 {
            tokio::task::yield_now().await;
        }
    };

    let first = registering(&service, temporary("agent-1", "t"));
    settled(&late, refuse()).await;
    let problem = Problem::from(first.await.unwrap().unwrap_err());
    assert_eq!((problem.status, problem.slug()), (500, "internal-error"));
    assert!(problem.detail.contains("the disk is full; free some"), "{}", problem.detail);
    assert_eq!(service.stats().total, 0);
    assert_eq!(service.search(&found("analyse texts")).await, []);

    // Not there before it is kept, and the id is taken meanwhile; the token is good still.
    let second = registering(&service, temporary("agent-1", "t"));
    while late.0.lock().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(service.stats().total, 0);
    let busy = service.register(&admin(), registration("agent-1")).await.unwrap_err();
    assert_eq!(busy, Refusal::Busy("agent-1".into()));
    // Whoever asked went away: it is registered all the same.
    second.abort();
    settled(&late, Ok(())).await;
    while service.stats().total == 0 {
        tokio::task::yield_now().await;
    }

    let unregister = tokio::spawn({
        let service = service.clone();
        async move { service.unregister(&admin(), "agent-1").await }
    });
    settled(&late, refuse()).await;
    assert!(matches!(unregister.await.unwrap(), Err(Refusal::NotKept(_))));
    assert_eq!(service.search(&found("analyse texts")).await.len(), 1);

    let report = tokio::spawn({
        let service = service.clone();
        async move { service.report_metrics(&admin(), "agent-1", 0.5, true).await }
    });
    settled(&late, refuse()).await;
    assert!(report.await.unwrap().is_err());
    assert_eq!(service.agent("agent-1").unwrap().figures().total_requests, 0);
}

/// Rules: REG-178
#[tokio::test]
async fn a_report_has_bounds() {
    let service = open(MemoryRegistryStore::new(), &Hand::new(0));
    service.register(&admin(), registration("agent-1")).await.unwrap();
    for time in [-0.1, 3600.1, f64::NAN, f64::INFINITY] {
        let refused = service.report_metrics(&admin(), "agent-1", time, true).await.unwrap_err();
        assert_eq!(Problem::from(refused).status, 422, "{time}");
    }
    let view = service.report_metrics(&admin(), "agent-1", 0.2, true).await.unwrap();
    assert_eq!((view.figures().total_requests, view.figures().reputation_score), (1, 1.0));
}

/// Rules: REG-190, REG-193, REG-201
#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Hand::new(0);
    let service = open(sqlite(&folder), &clock);
    service.register(&temporary("agent-1", "token-1"), registration("agent-1")).await.unwrap();
    service.register(&admin(), registration("agent-2")).await.unwrap();
    service.register(&admin(), registration("agent-3")).await.unwrap();
    let update = MetricsUpdate::check(&json!({"total_requests": 9, "mine": [1]})).unwrap();
    service.set_metrics(&agent("agent-1"), "agent-1", &update).await.unwrap();
    service.unregister(&admin(), "agent-3").await.unwrap();
    clock.forward(50);
    service.heartbeat(&agent("agent-1"), "agent-1").unwrap();
    clock.forward(40);
    let seen = service.agent("agent-1").unwrap().last_seen;
    let session = KeptSession { id: "s".into(), data: "{}".into(), expires_at: i64::MAX };
    service.keep(vec![RegistryOp::PutSession(session)]).await.unwrap();
    service.close();
    assert!(service.register(&admin(), registration("agent-9")).await.is_err(), "the store is closed");
    drop(service);

    // A day later, by a clock that was set back in between.
    let clock = Hand::new(-1_000_000);
    let service = open(sqlite(&folder), &clock);
    assert_eq!(service.take_kept().sessions.len(), 1);
    assert_eq!(service.take_kept().sessions.len(), 0);
    assert_eq!(ids(&service), ["agent-1", "agent-2"]);
    let view = service.agent("agent-1").unwrap();
    assert_eq!((view.status, view.last_seen), (AgentStatus::Alive, seen));
    assert_eq!(view.figures().total_requests, 9);
    assert_eq!(view.figures().custom.unwrap()["mine"], json!([1]));
    // It was dead before, and is as long dead as it was.
    assert_eq!(service.agent("agent-2").unwrap().status, AgentStatus::Dead);
    assert_eq!(service.search(&found("analyse texts")).await.len(), 1);
    // A whole time-out to be heard of again.
    clock.forward(59);
    assert_eq!(service.agent("agent-1").unwrap().status, AgentStatus::Alive);
    let refused = service.register(&temporary("agent-4", "token-2"), registration("agent-4")).await.unwrap_err();
    assert_eq!(refused, Refusal::KeyInUse { agent_id: "agent-4".into(), by: "agent-1".into() });
    clock.forward(1);
    assert_eq!(service.agent("agent-1").unwrap().status, AgentStatus::Dead);
    let refused = service.register(&temporary("agent-1", "token-1"), registration("agent-1")).await.unwrap_err();
    assert_eq!(refused, Refusal::TokenUsed);
    clock.step(1_000_000);
    service.tick(service.now());
    assert_eq!(ids(&service), ["agent-1"]);
    service.close();
}

/// Rules: REG-201
#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_survives_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let service = open(sqlite(&folder), &Hand::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..200 {
        let service = service.clone();
        tasks.spawn(async move {
            let id = format!("agent-{number}");
            service.register(&admin(), registration(&id)).await.unwrap();
            if number % 3 == 0 {
                service.unregister(&admin(), &id).await.unwrap();
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    // What a process leaves that is killed now.
    let left = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), left.path().join(entry.file_name())).unwrap();
    }
    let next = open(sqlite(&left), &Hand::new(0));
    assert_eq!(ids(&next), ids(&service));
    assert_eq!(next.stats().total, 133);
}

/// Reads go on while the disk is full.
#[tokio::test]
async fn a_full_disk_stops_changes_only() {
    let folder = tempfile::tempdir().unwrap();
    let options = RegistrySqliteOptions { quota_bytes: Some(300 * 1024), ..RegistrySqliteOptions::default() };
    let store = SqliteRegistryStore::new(folder.path().join("registry.db"), options);
    let service = open(store, &Hand::new(0));
    let mut count = 0;
    let refused = loop {
        let mut sent = registration(&format!("agent-{count}"));
        sent.ai_context = Some("long ".repeat(900));
        match service.register(&admin(), sent).await {
            Ok(_) => count += 1,
            Err(refused) => break refused,
        }
    };
    assert!(refused.to_string().contains("no space left"), "{refused}");
    assert_eq!(service.discover(&DiscoverFilter::default(), 1000, 0).agents.len(), count);
    service.heartbeat(&admin(), "agent-0").unwrap();
    assert!(service.store_stats().failing);
    for number in 0..3 {
        service.unregister(&admin(), &format!("agent-{number}")).await.unwrap();
    }
    service.register(&admin(), registration("agent-new")).await.unwrap();
    assert!(!service.store_stats().failing);
}

/// Rules: REG-201
#[tokio::test]
async fn a_state_file_of_the_published_server_is_taken_over() {
    let file = json!({
        "agents": {
            "imp-2": {"agent_id": "imp-2", "name": "Import two", "agent_type": "testing", "endpoint": "http://127.0.0.1:9/x",
                "capabilities": ["echo"], "context_brief": "An agent to be imported here", "version": "1.0.0",
                "owner": "Owner", "public_key": "k".repeat(40), "metadata": {"a": 1}, "communication_mode": "remote",
                "features": [], "max_tokens": null, "language_support": null, "rate_limit": null, "requirements": null,
                "policy_tags": [], "last_seen": "2026-11-28T13:28:19.239785",
                "registered_at": "2026-11-28T13:28:19.239785"},
            "imp-1": {"agent_id": "imp-1", "name": "Import one", "agent_type": "testing", "endpoint": "http://127.0.0.1:9/x",
                "capabilities": ["echo"], "context_brief": "An agent to be imported here", "version": "1.0.0",
                "owner": "Owner", "public_key": "k".repeat(40), "metadata": {"a": 1}, "communication_mode": "remote",
                "features": ["http"], "requirements": {"minimum_memory_mb": 5}, "policy_tags": [],
                "last_seen": "2026-11-28T13:28:21.212695", "registered_at": "2026-11-28T13:28:21.212695"},
            "broken": {"agent_id": "broken"},
            "strange": Value::Null,
        },
        "info_hashes": {},
    });
    let folder = tempfile::tempdir().unwrap();
    let zone = jiff::tz::TimeZone::fixed(jiff::tz::offset(9));
    let config = ServiceConfig { zone: zone.clone(), ..ServiceConfig::default() };
    let clock = Hand::new(0);
    let open = || {
        let clock = Box::new(clock.clone());
        Service::open_with_clock(config.clone(), Arc::new(sqlite(&folder)), SearchEngine::new(), clock).unwrap()
    };
    let service = open();
    let report = service.import_state(&file).await.unwrap();
    assert_eq!(report.imported, ["imp-2", "imp-1"]);
    let skipped: Vec<&str> = report.skipped.iter().map(|skipped| skipped.agent_id.as_str()).collect();
    assert_eq!(skipped, ["broken", "strange"]);
    assert!(report.skipped[0].why.contains("name is missing"), "{}", report.skipped[0].why);
    let report = service.import_state(&file).await.unwrap();
    assert_eq!((report.imported.len(), report.skipped.len()), (0, 4));
    let exported = service.export_state();
    assert_eq!(exported["agents"]["imp-2"]["registered_at"], "2026-11-28T13:28:19.239785");
    assert!(service.import_state(&json!({"agents": []})).await.is_err());
    service.close();
    drop(service);
    // A day later a server starts with it: the agents have a whole time-out to be heard of.
    clock.step(86_400);
    let service = open();
    assert_eq!(ids(&service), ["imp-2", "imp-1"]);
    assert_eq!(service.stats().alive, 2);
    let at: Timestamp = "2026-11-28T04:28:21.212695Z".parse().unwrap();
    assert_eq!(service.agent("imp-1").unwrap().registered_at(), at);
    let other = self::open(MemoryRegistryStore::new(), &clock);
    assert_eq!(other.import_state(&exported).await.unwrap().imported.len(), 2);
}
