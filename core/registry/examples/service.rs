//! How fast the registry's service is without HTTP, and what an agent costs in memory.
//!
//! `cargo run --release -p arcp-registry --example service [agents]`

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::expect_used, reason = "figures for people")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use arcp_registry::directory::{AgentView, Caller, DiscoverFilter, TimeForm};
use arcp_registry::model::{Registration, SearchRequest};
use arcp_registry::search::SearchEngine;
use arcp_registry::service::{Service, ServiceConfig};
use arcp_store::{MemoryRegistryStore, RegistrySqliteOptions, RegistryStore, SqliteRegistryStore};
use serde_json::json;

const WORDS: [&str; 8] =
    ["file-conversion", "text-analysis", "packet-capture", "echo", "compute", "translation", "alerts", "backups"];

fn registration(number: usize) -> Registration {
    let kind = ["testing", "security", "monitoring"][number % 3];
    let skill = |at: usize| WORDS[(number + at) % WORDS.len()];
    Registration::check(&json!({
        "agent_id": format!("agent-{number:06}"), "name": format!("Agent {number}"),
        "agent_type": kind,
        "endpoint": format!("http://10.0.{}.{}:8000/agent", number / 250 % 250, number % 250),
        "capabilities": [skill(0), skill(3), skill(5)],
        "context_brief": format!("Agent number {number}: {} and {} for the users of the northern office", skill(0), skill(3)),
        "version": "1.0.0", "owner": "Bench Owner", "public_key": "bench-public-key-0123456789abcdef-0123456789",
        "metadata": {"framework": "fastapi", "tags": ["demo", "bench"], "count": number}, "communication_mode": "remote",
        "features": ["http-api", "websocket"], "policy_tags": ["bench"], "max_tokens": 2000, "rate_limit": 100,
    }))
    .unwrap()
}

fn resident() -> Option<usize> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    statm.split(' ').nth(1)?.parse::<usize>().ok().map(|pages| pages * 4096)
}

fn open(store: impl RegistryStore) -> Service {
    let config = ServiceConfig { heartbeat_timeout: Duration::from_secs(3600), ..ServiceConfig::default() };
    Service::open(config, Arc::new(store), SearchEngine::new()).unwrap()
}

/// Calls per second over about a second.
fn rate(mut call: impl FnMut(usize)) -> f64 {
    let start = Instant::now();
    let mut count = 0;
    while start.elapsed() < Duration::from_secs(1) {
        for _ in 0..16 {
            call(count);
            count += 1;
        }
    }
    count as f64 / start.elapsed().as_secs_f64()
}

async fn register(service: &Service, numbers: std::ops::Range<usize>, in_flight: usize) -> f64 {
    let admin = Caller::Admin { user: "bench".into() };
    let sent: Vec<Registration> = numbers.map(registration).collect();
    let total = sent.len();
    let queue = Arc::new(parking_lot::Mutex::new(sent.into_iter()));
    let start = Instant::now();
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..in_flight {
        let (service, queue, admin) = (service.clone(), Arc::clone(&queue), admin.clone());
        workers.spawn(async move {
            loop {
                let next = queue.lock().next();
                let Some(next) = next else { break };
                service.register(&admin, next).await.unwrap();
            }
        });
    }
    while let Some(done) = workers.join_next().await {
        done.unwrap();
    }
    total as f64 / start.elapsed().as_secs_f64()
}

#[tokio::main]
async fn main() {
    let most: usize = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(100_000);
    let service = open(MemoryRegistryStore::new());
    // The table of words is loaded once, whatever the number of agents.
    let warm = SearchRequest::check(&json!({"query": "convert files to another format"})).unwrap();
    service.search(&warm).await;
    let mut known = 0;
    for agents in [10_000, most] {
        let before = resident();
        let added = agents - known;
        println!("register, memory, {known} to {agents}: {:.0}/s", register(&service, known..agents, 64).await);
        if let (Some(before), Some(after)) = (before, resident()) {
            println!("  resident per agent: {} bytes", after.saturating_sub(before) / added.max(1));
        }
        known = agents;
        let callers: Vec<Caller> =
            (0..agents).map(|n| Caller::Agent { agent_id: format!("agent-{n:06}").into(), key_hash: None }).collect();
        let beats = rate(|n| {
            let caller = &callers[n.wrapping_mul(7919) % agents];
            service.heartbeat(caller, caller.agent_id().unwrap()).unwrap();
        });
        println!("  heartbeat: {beats:.0}/s");
        let mut out = Vec::new();
        let discover = |out: &mut Vec<u8>, filter: &DiscoverFilter, offset: usize| {
            let page = service.discover(filter, 50, offset);
            out.clear();
            AgentView::write_list(&page.agents, out, TimeForm::Http, true, true);
        };
        let all = DiscoverFilter::default();
        println!("  discover 50: {:.0}/s", rate(|n| discover(&mut out, &all, n.wrapping_mul(7919) % agents)));
        let some = DiscoverFilter { agent_type: Some("security".into()), capabilities: vec!["echo".into()] };
        println!("  discover 50 by type and capability: {:.0}/s", rate(|_| discover(&mut out, &some, 0)));
        let start = Instant::now();
        for _ in 0..200 {
            service.search(&warm).await;
        }
        println!("  search: {:.0}/s", 200.0 / start.elapsed().as_secs_f64());
        let start = Instant::now();
        service.tick(service.now());
        println!("  tick after {} heartbeats: {:?}", agents, start.elapsed());
    }
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteRegistryStore::new(folder.path().join("registry.db"), RegistrySqliteOptions::default());
    let service = open(store);
    register(&service, 0..10_000, 64).await;
    println!("register, SQLite, at 10000 agents, 64 in flight: {:.0}/s", register(&service, 10_000..30_000, 64).await);
    println!("register, SQLite, one at a time: {:.0}/s", register(&service, 30_000..32_000, 1).await);
    let stats = service.store_stats();
    println!("  {} operations in {} commits", stats.operations, stats.commits);
    service.close();
    let store = SqliteRegistryStore::new(folder.path().join("registry.db"), RegistrySqliteOptions::default());
    let start = Instant::now();
    let service = open(store);
    println!("restart with {} agents: {:?}", service.stats().total, start.elapsed());
    service.close();
}
