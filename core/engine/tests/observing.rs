//! What an operator and a host's tracing see of a runtime, and that looking breaks nothing.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

mod support;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use arcp_engine::transport::pair_memory_transports;
use arcp_engine::{AuditSink, Client, JobContext, Observed, Runtime, StaticBearerVerifier};
use arcp_proto::Error;
use arcp_proto::json::RawJson;
use arcp_proto::machine::audit::AuditEntry;
use arcp_proto::machine::client::ClientConfig;
use arcp_proto::machine::frame::Record;
use arcp_proto::machine::kept::{Kept, StoreOp};
use arcp_proto::machine::runtime::RuntimeConfig;
use arcp_proto::message::{JobStatus, LeaseConstraints, Submit};
use arcp_proto::trace::{EXTENSION, TraceContext};
use arcp_store::{Store, StoreError, StoreSink};
use serde_json::json;
use support::{BOUND, peer, submit};
use tokio::time::timeout;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record as Recorded};
use tracing::{Event, Metadata, Subscriber};

const TOKEN: &str = "tok-5ecret";
const INPUT: &str = "{\"password\":\"hunter2\"}";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const EXPIRES: &str = "2999-01-01T00:00:00Z";

fn runtime() -> Runtime {
    let runtime =
        Runtime::new(RuntimeConfig::new(peer("runtime")), StaticBearerVerifier::new([(TOKEN, "me@example.com")]));
    runtime.register_agent("works", works).unwrap();
    runtime.register_agent("traced", traced).unwrap();
    runtime
}

/// Uses every part of its lease once, and once what it has not.
async fn works(_: RawJson, ctx: JobContext) -> Result<RawJson, Error> {
    ctx.tool_call("search.web", &json!({"password": "hunter2"}), "c1").await?;
    ctx.metric("cost.search", "1.25", Some("USD")).await?;
    ctx.authorize("tool.call", "search.web?hunter2").unwrap();
    ctx.authorize("fs.read", "/etc/hunter2").unwrap_err();
    tokio::task::yield_now().await;
    Ok(RawJson::null())
}

/// Tells what it would hand on: its own trace, what came with the submit, and what it sees twice.
async fn traced(_: RawJson, ctx: JobContext) -> Result<RawJson, Error> {
    let context = ctx.trace_context().unwrap().clone();
    assert_eq!(ctx.clone().trace_context(), Some(&context));
    let came = ctx.start().trace_context.as_ref().map(TraceContext::traceparent);
    RawJson::from_serialize(&(context.traceparent(), context.tracestate(), came, &*ctx.start().trace_id))
}

async fn connected(runtime: &Runtime, token: &str) -> Result<Client, arcp_engine::Error> {
    let (left, right) = pair_memory_transports();
    let host = runtime.clone();
    tokio::spawn(async move { host.accept(right).await });
    let client = Client::new(ClientConfig::new(peer("client")));
    client.connect(left, token).await?;
    Ok(client)
}

fn leased() -> Submit {
    let mut submit = submit("works", INPUT);
    submit.lease_request = RawJson::parse(r#"{"tool.call":["search.**"],"cost.budget":["USD:5.00"]}"#).unwrap();
    submit.lease_constraints = Some(LeaseConstraints { expires_at: Some(EXPIRES.into()) });
    submit
}

/// The result of a job, read as JSON.
async fn outcome(handle: &arcp_engine::JobHandle) -> serde_json::Value {
    let result = timeout(BOUND, handle.result()).await.unwrap().unwrap();
    serde_json::from_str(result.result.unwrap().get()).unwrap()
}

#[derive(Clone, Default)]
struct Seen(Arc<Spans>);

#[derive(Default)]
struct Spans {
    next: AtomicU64,
    spans: Mutex<BTreeMap<u64, SeenSpan>>,
    /// What panics.
    fault: Mutex<Option<&'static str>>,
    faults: AtomicU64,
}

#[derive(Clone, Debug, Default)]
struct SeenSpan {
    name: &'static str,
    parent: Option<u64>,
    fields: BTreeMap<String, String>,
    entered: u64,
    left: u64,
    closed: bool,
}

impl Seen {
    fn step(&self, step: &'static str) {
        if *self.0.fault.lock().unwrap() == Some(step) {
            self.0.faults.fetch_add(1, Ordering::Relaxed);
            panic!("a faulty subscriber, on purpose");
        }
    }

    fn change(&self, id: &Id, change: impl FnOnce(&mut SeenSpan)) {
        change(self.0.spans.lock().unwrap().get_mut(&id.into_u64()).unwrap());
    }

    fn named(&self, name: &str) -> Vec<(u64, SeenSpan)> {
        let spans = self.0.spans.lock().unwrap();
        spans.iter().filter(|(_, span)| span.name == name).map(|(id, span)| (*id, span.clone())).collect()
    }
}

struct Fields<'a>(&'a mut BTreeMap<String, String>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }
}

impl Subscriber for Seen {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("arcp")
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        self.step("new_span");
        let id = self.0.next.fetch_add(1, Ordering::Relaxed) + 1;
        let parent = attributes.parent().map(Id::into_u64);
        let mut span = SeenSpan { name: attributes.metadata().name(), parent, ..SeenSpan::default() };
        attributes.record(&mut Fields(&mut span.fields));
        self.0.spans.lock().unwrap().insert(id, span);
        Id::from_u64(id)
    }

    fn record(&self, id: &Id, values: &Recorded<'_>) {
        self.step("record");
        self.change(id, |span| values.record(&mut Fields(&mut span.fields)));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {
        self.step("event");
    }

    fn enter(&self, id: &Id) {
        self.step("enter");
        self.change(id, |span| span.entered += 1);
    }

    fn exit(&self, id: &Id) {
        self.step("exit");
        self.change(id, |span| span.left += 1);
    }

    fn try_close(&self, id: Id) -> bool {
        self.step("try_close");
        self.change(&id, |span| span.closed = true);
        true
    }
}

/// Rules: R-11.6, R-14.11
#[tokio::test]
async fn sessions_jobs_and_operations_are_seen_with_the_contracts_attributes() {
    let seen = Seen::default();
    let guard = tracing::subscriber::set_default(seen.clone());
    let runtime = runtime();
    let client = connected(&runtime, TOKEN).await.unwrap();
    let welcome = client.welcome().unwrap();
    let handle = client.submit(&leased(), None).await.unwrap();
    timeout(BOUND, handle.result()).await.unwrap().unwrap();
    client.close("done").await;
    timeout(BOUND, runtime.shutdown("done", BOUND)).await.unwrap();
    drop(guard);

    let field =
        |span: &SeenSpan, name: &str| span.fields.get(name).cloned().unwrap_or_else(|| panic!("{name}: {span:?}"));
    let [(_, session)] = &seen.named("arcp.session")[..] else { panic!("one session") };
    assert_eq!(field(session, "arcp.session_id"), welcome.session_id);
    let [(job_span, job)] = &seen.named("arcp.job")[..] else { panic!("one job") };
    assert_eq!(field(job, "arcp.session_id"), welcome.session_id);
    assert_eq!(field(job, "arcp.job_id"), handle.job_id());
    assert_eq!(field(job, "arcp.agent"), "works");
    assert_eq!(field(job, "arcp.lease.expires_at"), EXPIRES);
    assert_eq!(field(job, "arcp.budget.remaining"), "{\"USD\":3.75}");
    assert_eq!(Some(field(job, "arcp.trace_id")), handle.accepted().unwrap().trace_id);
    let decisions: Vec<_> = seen
        .named("arcp.operation")
        .into_iter()
        .map(|(_, span)| {
            assert_eq!((span.parent, field(&span, "arcp.job_id")), (Some(*job_span), handle.job_id().to_owned()));
            (field(&span, "arcp.namespace"), field(&span, "arcp.decision"))
        })
        .collect();
    let decided = |namespace: &str, decision: &str| (namespace.to_owned(), decision.to_owned());
    assert_eq!(
        decisions,
        [decided("tool.call", "allowed"), decided("tool.call", "allowed"), decided("fs.read", "PERMISSION_DENIED")]
    );
    // Every span is left as often as entered, the agent ran inside its own, and all are over.
    for (_, span) in seen.0.spans.lock().unwrap().clone() {
        assert!(span.entered == span.left && span.entered > 0 && span.closed, "{span:?}");
    }
    let all = format!("{:?}", seen.0.spans.lock().unwrap());
    for secret in [TOKEN, "hunter2", "me@example.com", "rt_"] {
        assert!(!all.contains(secret), "{all}");
    }
}

/// Rules: R-11.7
#[tokio::test]
async fn a_faulty_subscriber_fails_no_message_and_no_job() {
    for fault in ["new_span", "record", "enter", "exit", "try_close", "event"] {
        let seen = Seen::default();
        let guard = tracing::subscriber::set_default(seen.clone());
        let runtime = runtime();
        runtime.set_audit(Arc::new(arcp_engine::AuditLog));
        *seen.0.fault.lock().unwrap() = Some(fault);
        let client = connected(&runtime, TOKEN).await.unwrap();
        for _ in 0..2 {
            let handle = client.submit(&leased(), None).await.unwrap();
            let mut kinds = Vec::new();
            while let Some(event) = timeout(BOUND, handle.next_event()).await.unwrap() {
                kinds.push(event.kind().to_owned());
            }
            assert_eq!(kinds, ["tool_call", "metric", "metric"], "{fault}");
            timeout(BOUND, handle.result()).await.unwrap().unwrap();
        }
        timeout(BOUND, client.close("done")).await.unwrap();
        timeout(BOUND, runtime.shutdown("done", BOUND)).await.unwrap();
        *seen.0.fault.lock().unwrap() = None;
        drop(guard);
        assert!(seen.0.faults.load(Ordering::Relaxed) > 0, "{fault} was never met");
    }
}

/// Rules: R-11.5
#[tokio::test]
async fn the_context_of_a_submit_reaches_the_agent_which_hands_it_on() {
    let runtime = runtime();
    let client = connected(&runtime, TOKEN).await.unwrap();
    let context = TraceContext::parse(PARENT, Some("acme=1")).unwrap();
    let handle = client.submit_traced(&submit("traced", "null"), &context).await.unwrap();
    assert_eq!(handle.accepted().unwrap().trace_id, Some(context.trace_id()));
    let told = outcome(&handle).await;
    let handed_on = TraceContext::parse(told[0].as_str().unwrap(), told[1].as_str()).unwrap();
    assert_eq!((told[2].as_str(), told[3].as_str()), (Some(PARENT), Some(&*context.trace_id())));
    assert_eq!((handed_on.trace_id(), handed_on.tracestate()), (context.trace_id(), Some("acme=1")));
    assert!(handed_on.is_sampled() && handed_on.span_id() != context.span_id());

    // Without one, the job's trace id is where the agent's context begins.
    let handle = client.submit(&submit("traced", "null"), None).await.unwrap();
    let told = outcome(&handle).await;
    let handed_on = TraceContext::parse(told[0].as_str().unwrap(), None).unwrap();
    assert!(told[1].is_null() && told[2].is_null() && !handed_on.is_sampled());
    assert_eq!(Some(handed_on.trace_id()), handle.accepted().unwrap().trace_id);
}

#[tokio::test]
async fn a_context_alone_names_the_trace_and_a_broken_one_is_ignored() {
    let runtime = runtime();
    let (theirs, ours) = pair_memory_transports();
    let host = runtime.clone();
    tokio::spawn(async move { host.accept(ours).await });
    let (mut incoming, outgoing) = theirs.into_queues();
    let outgoing = outgoing.unwrap();
    let hello = json!({
        "client": {"name": "x", "version": "1"}, "auth": {"scheme": "bearer", "token": TOKEN},
        "capabilities": {"encodings": ["json"], "features": []},
    });
    let submit = json!({"agent": "traced"});
    for (kind, id, extensions, payload) in [
        ("session.hello", "m1", json!({}), &hello),
        ("job.submit", "m2", json!({EXTENSION: {"traceparent": PARENT}}), &submit),
        ("job.submit", "m3", json!({EXTENSION: {"traceparent": "00-broken", "tracestate": 7}}), &submit),
        ("job.submit", "m4", json!({EXTENSION: "broken"}), &submit),
    ] {
        // The answer comes first, so that nothing follows a hello too early.
        let message = json!({"arcp": "1.1", "id": id, "type": kind, "extensions": extensions, "payload": payload});
        outgoing.try_send(message.to_string().into()).unwrap();
        let answer: serde_json::Value =
            serde_json::from_slice(&timeout(BOUND, incoming.recv()).await.unwrap().unwrap()).unwrap();
        if kind == "session.hello" {
            assert_eq!(answer["type"], "session.welcome", "{answer}");
            continue;
        }
        assert_eq!(answer["type"], "job.accepted", "{answer}");
        let own = answer["trace_id"].as_str().unwrap();
        assert_eq!(own == &PARENT[3..35], id == "m2", "{answer}");
        let result: serde_json::Value =
            serde_json::from_slice(&timeout(BOUND, incoming.recv()).await.unwrap().unwrap()).unwrap();
        let came = result["payload"]["result"][2].as_str();
        assert_eq!((came, &result["trace_id"]), ((id == "m2").then_some(PARENT), &answer["trace_id"]));
    }
}

#[derive(Default)]
struct Collect(Mutex<Vec<String>>);

impl AuditSink for Collect {
    fn record(&self, entry: &AuditEntry) {
        self.0.lock().unwrap().push(entry.to_json());
    }
}

/// Rules: R-6.1.7, R-14.5
#[tokio::test]
async fn who_was_let_in_is_recorded_without_a_token() {
    let runtime = runtime();
    let audit = Arc::new(Collect::default());
    runtime.set_audit(audit.clone());
    let client = connected(&runtime, TOKEN).await.unwrap();
    assert!(connected(&runtime, "another-5ecret").await.is_err());
    let handle = client.submit(&leased(), None).await.unwrap();
    timeout(BOUND, handle.result()).await.unwrap().unwrap();
    let entries = audit.0.lock().unwrap().clone();
    let decided: Vec<(serde_json::Value, serde_json::Value)> = entries
        .iter()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter(|entry| entry["action"] == "authenticate")
        .map(|entry| (entry["decision"].clone(), entry["principal"].clone()))
        .collect();
    assert_eq!(decided, [(json!("allowed"), json!("me@example.com")), (json!("refused"), json!(null))]);
    let actions: Vec<_> =
        entries.iter().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["action"].clone()).collect();
    assert_eq!(actions, ["authenticate", "authenticate", "submit", "operation"]);
    for secret in ["5ecret", "password", "rt_"] {
        assert!(!entries.concat().contains(secret), "{entries:?}");
    }
}

#[tokio::test]
async fn a_runtime_counts_what_happens_and_says_when_it_takes_no_more() {
    let runtime = runtime();
    let client = connected(&runtime, TOKEN).await.unwrap();
    assert!(connected(&runtime, "wrong").await.is_err());
    let handle = client.submit(&leased(), None).await.unwrap();
    timeout(BOUND, handle.result()).await.unwrap().unwrap();
    let stats = runtime.stats();
    assert_eq!((stats.jobs_running, stats.jobs_pending), (0, 0));
    assert!(stats.sessions_connected >= 1);
    assert_eq!((stats.totals.ended(JobStatus::Success), stats.totals.ended(JobStatus::Error)), (1, 0));
    assert_eq!(stats.totals.authentication_failures, 1);
    assert_eq!(runtime.ready(), Ok(()));
    timeout(BOUND, runtime.shutdown("done", BOUND)).await.unwrap();
    assert!(runtime.ready().unwrap_err().contains("stopping"));
}

/// Keeps nothing, and says what the test wants it to say.
#[derive(Clone, Default)]
struct Disk(Arc<DiskState>);

#[derive(Default)]
struct DiskState {
    sink: Mutex<Option<Arc<dyn StoreSink>>>,
    applied: AtomicU64,
}

impl Disk {
    fn says(&self, outcome: Result<(), String>) {
        let sink = self.0.sink.lock().unwrap().clone().unwrap();
        sink.stored(self.0.applied.load(Ordering::Acquire), outcome);
    }

    /// Keeps whatever is decided, for as long as `during` takes.
    async fn keeps<T>(&self, during: impl Future<Output = T>) -> T {
        let keep = async {
            loop {
                self.says(Ok(()));
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            done = timeout(BOUND, during) => done.unwrap(),
            () = keep => unreachable!(),
        }
    }
}

impl Store for Disk {
    fn is_durable(&self) -> bool {
        true
    }

    fn open(&self, sink: Arc<dyn StoreSink>) -> Result<Kept, StoreError> {
        *self.0.sink.lock().unwrap() = Some(sink);
        Ok(Kept::default())
    }

    fn apply(&self, ticket: u64, _: StoreOp) {
        self.0.applied.store(ticket, Ordering::Release);
    }

    fn history(&self, _: u64, _: &Arc<str>, _: u64) -> Option<Vec<Arc<Record>>> {
        Some(Vec::new())
    }

    fn close(&self) {}
}

#[tokio::test]
async fn a_store_that_fails_is_told_until_it_works_again_and_its_commits_are_timed() {
    let disk = Disk::default();
    let verifier = Arc::new(StaticBearerVerifier::new([(TOKEN, "me@example.com")]));
    let runtime = Runtime::with_store(RuntimeConfig::new(peer("runtime")), verifier, Box::new(disk.clone())).unwrap();
    runtime.register_agent("works", works).unwrap();
    assert_eq!(runtime.ready(), Ok(()));
    disk.says(Err("the disk is full".into()));
    assert!(runtime.ready().unwrap_err().ends_with("the disk is full"));
    disk.says(Ok(()));
    assert_eq!((runtime.ready(), runtime.stats().store_commits), (Ok(()), 0));
    disk.keeps(async {
        let client = connected(&runtime, TOKEN).await.unwrap();
        let handle = client.submit(&leased(), None).await.unwrap();
        handle.result().await.unwrap();
    })
    .await;
    let stats = runtime.stats();
    assert!(stats.store_commits > 0 && stats.store_commit_seconds > 0.0, "{stats:?}");
    assert_eq!(runtime.commits().count(), stats.store_commits);
    disk.0.sink.lock().unwrap().clone().unwrap().taken_over();
    assert!(runtime.ready().is_err());
}
