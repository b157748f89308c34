//! Credentials from end to end: a client, a runtime over a file, and a stand-in for a gateway.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

#[path = "support/gateway.rs"]
mod gateway;
mod support;

use std::future::ready;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arcp_engine::provision::{IssueFuture, LiteLlmOptions, LiteLlmProvisioner, Provisioner, RevokeFuture};
use arcp_engine::store::{SqliteOptions, SqliteStore};
use arcp_engine::transport::pair_memory_transports;
use arcp_engine::{AuditSink, Client, Error, JobContext, Runtime, StaticBearerVerifier};
use arcp_proto::json::RawJson;
use arcp_proto::machine::audit::AuditEntry;
use arcp_proto::machine::client::ClientConfig;
use arcp_proto::machine::provision::{IssueRequest, Issued, Revocation};
use arcp_proto::machine::runtime::RuntimeConfig;
use arcp_proto::message::{Credential, SecretText, Submit};
use arcp_proto::{Error as ProtocolError, ErrorCode};
use gateway::{ADMIN, Gateway, Mood};
use parking_lot::Mutex;
use serde_json::Value;
use support::{BOUND, peer, submit};
use tokio::time::{sleep, timeout};

const FEATURE: &str = "provisioned_credentials";

fn runtime(path: &Path, provisioner: Arc<dyn Provisioner>) -> Runtime {
    runtime_with(RuntimeConfig::new(peer("runtime")), path, provisioner)
}

fn runtime_with(config: RuntimeConfig, path: &Path, provisioner: Arc<dyn Provisioner>) -> Runtime {
    let store = SqliteStore::new(path, SqliteOptions::default());
    let verifier = Arc::new(StaticBearerVerifier::new([("tok", "me")]));
    let runtime = Runtime::with_store(config, verifier, Box::new(store)).unwrap();
    runtime.register_agent("quick", quick).unwrap();
    runtime.register_agent("waiter", waiter).unwrap();
    runtime.register_agent("rotator", rotator).unwrap();
    runtime.set_provisioner(provisioner).unwrap();
    runtime
}

async fn quick(_: RawJson, _: JobContext) -> Result<RawJson, ProtocolError> {
    Ok(RawJson::null())
}

async fn waiter(_: RawJson, ctx: JobContext) -> Result<RawJson, ProtocolError> {
    ctx.cancelled().await;
    Ok(RawJson::null())
}

/// Replaces the credential its input names.
async fn rotator(id: RawJson, ctx: JobContext) -> Result<RawJson, ProtocolError> {
    let id: String = serde_json::from_str(id.get()).unwrap();
    ctx.rotate_credential(&id, SecretText::new("sk-by-agent"))?;
    Ok(RawJson::null())
}

fn litellm(gateway: &Gateway) -> Arc<dyn Provisioner> {
    Arc::new(LiteLlmProvisioner::new(LiteLlmOptions::new(&gateway.url, SecretText::new(ADMIN))).unwrap())
}

async fn connected(runtime: &Runtime) -> Client {
    let (left, right) = pair_memory_transports();
    let host = runtime.clone();
    tokio::spawn(async move { host.accept(right).await });
    let mut config = ClientConfig::new(peer("client"));
    config.features.push(FEATURE.into());
    let client = Client::new(config);
    client.connect(left, "tok").await.unwrap();
    client
}

fn order(agent: &str) -> Submit {
    let lease_request = RawJson::parse(r#"{"model.use":["gpt-4o"],"cost.budget":["USD:1"]}"#).unwrap();
    Submit { lease_request, ..submit(agent, "null") }
}

/// Waits for what another task does.
async fn eventually(what: impl Fn() -> bool) {
    let turned = async {
        while !what() {
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(BOUND, turned).await.unwrap();
}

fn value(handle: &arcp_engine::JobHandle) -> String {
    let credentials = handle.accepted().unwrap().credentials.clone().unwrap();
    let list: Value = serde_json::from_str(credentials.0.get()).unwrap();
    list[0]["value"].as_str().unwrap().to_owned()
}

/// Whether the file or what stands beside it holds this text.
fn on_disk(path: &Path, text: &str) -> bool {
    ["", "-wal", "-shm"].iter().any(|ending| {
        let bytes = std::fs::read(format!("{}{ending}", path.display())).unwrap_or_default();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    })
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("arcp.db");
    (folder, file)
}

#[derive(Default)]
struct Audit(Mutex<Vec<String>>);

impl AuditSink for Audit {
    fn record(&self, entry: &AuditEntry) {
        self.0.lock().push(entry.to_json());
    }
}

/// Rules: R-9.8.2.1, R-9.8.2.4, R-9.8.2.8, R-9.8.2.10, R-9.8.2.12, R-14.5
#[tokio::test]
async fn a_job_has_a_key_while_it_runs_and_nothing_secret_is_written() {
    let ((_folder, file), gateway) = (folder(), Gateway::open().await);
    let runtime = runtime(&file, litellm(&gateway));
    let audit = Arc::new(Audit::default());
    runtime.set_audit(Arc::clone(&audit) as Arc<dyn AuditSink>);
    let client = connected(&runtime).await;
    let handle = client.submit(&order("waiter"), None).await.unwrap();
    let key = value(&handle);
    assert_eq!(gateway.state.lock().keys.values().next().unwrap().0, key);
    let id = gateway.state.lock().keys.keys().next().unwrap().trim_start_matches("arcp-").to_owned();
    let handle_json = RawJson::parse(r#"{"key_alias":"arcp-second"}"#).unwrap();
    runtime.rotate_credential(handle.job_id(), &id, SecretText::new("sk-second-value"), handle_json).unwrap();
    let event = timeout(BOUND, handle.next_event()).await.unwrap().unwrap();
    let body: Value = serde_json::from_slice(&event.body).unwrap();
    assert_eq!((body["id"].as_str(), body["value"].as_str()), (Some(id.as_str()), Some("sk-second-value")));
    eventually(|| gateway.keys() == 0).await;
    client.cancel_job(handle.job_id(), "enough").unwrap();
    eventually(|| gateway.state.lock().asked.iter().filter(|path| *path == "/key/delete").count() == 2).await;
    runtime.shutdown("over", Duration::from_secs(1)).await;
    for secret in [key.as_str(), "sk-second-value", ADMIN] {
        assert!(!on_disk(&file, secret), "a secret is in the file");
        assert!(!audit.0.lock().iter().any(|line| line.contains(secret)), "a secret is in the audit");
    }
    assert!(on_disk(&file, handle.job_id()));
    for action in ["credential_issue", "credential_rotate", "credential_revoke"] {
        assert!(audit.0.lock().iter().any(|line| line.contains(action)), "{action}");
    }
}

#[tokio::test]
async fn a_quick_job_gets_its_key_too_and_none_is_left() {
    let ((_folder, file), gateway) = (folder(), Gateway::open().await);
    let runtime = runtime(&file, litellm(&gateway));
    let client = connected(&runtime).await;
    for _ in 0..20 {
        let handle = client.submit(&order("quick"), None).await.unwrap();
        assert!(value(&handle).starts_with("sk-made-"));
    }
    eventually(|| gateway.keys() == 0).await;
    runtime.shutdown("over", Duration::from_secs(1)).await;
}

/// Rules: R-9.8.2.5, R-9.8.2.6
#[tokio::test]
async fn the_next_process_revokes_what_this_one_left() {
    let ((_folder, file), gateway) = (folder(), Gateway::open().await);
    {
        let runtime = runtime(&file, litellm(&gateway));
        let client = connected(&runtime).await;
        client.submit(&order("waiter"), None).await.unwrap();
        // The gateway goes away before the runtime does: nothing can be revoked.
        gateway.mood(Mood::Answers(503, "{}".into(), usize::MAX));
        runtime.shutdown("over", Duration::from_secs(1)).await;
        assert_eq!(gateway.keys(), 1);
    }
    gateway.mood(Mood::Answers(503, "{}".into(), 2));
    let next = runtime(&file, litellm(&gateway));
    next.begin();
    eventually(|| gateway.keys() == 0).await;
    next.shutdown("over", Duration::from_secs(1)).await;
}

/// Rules: R-9.8.2.2
#[tokio::test]
async fn a_gateway_that_refuses_refuses_the_submit_and_the_session_goes_on() {
    let ((_folder, file), gateway) = (folder(), Gateway::open().await);
    let runtime = runtime(&file, litellm(&gateway));
    let client = connected(&runtime).await;
    for mood in [Mood::Answers(500, "{}".into(), 1), Mood::LosesAnswers] {
        gateway.mood(mood);
        let error = client.submit(&order("quick"), None).await.err().unwrap();
        let Error::Protocol(error) = error else { panic!("{error}") };
        assert_eq!(error.code, ErrorCode::InternalError);
        gateway.mood(Mood::Well);
        eventually(|| gateway.keys() == 0).await;
    }
    client.submit(&order("quick"), None).await.unwrap();
    runtime.shutdown("over", Duration::from_secs(1)).await;
}

#[tokio::test]
async fn a_gateway_that_hangs_costs_the_submit_and_not_the_session() {
    let ((_folder, file), gateway) = (folder(), Gateway::open().await);
    let mut config = RuntimeConfig::new(peer("runtime"));
    config.provision_timeout = Duration::from_millis(100);
    let runtime = runtime_with(config, &file, litellm(&gateway));
    let client = connected(&runtime).await;
    gateway.mood(Mood::Hangs);
    assert!(client.submit(&order("quick"), None).await.is_err());
    gateway.mood(Mood::Well);
    client.submit(&order("quick"), None).await.unwrap();
    runtime.shutdown("over", Duration::from_secs(1)).await;
}

/// One credential of a known id.
#[derive(Default)]
struct Counting {
    revoked: Arc<Mutex<Vec<Revocation>>>,
}

impl Provisioner for Counting {
    fn issue(&self, _: IssueRequest) -> IssueFuture {
        let credential = Credential {
            id: "c".into(),
            scheme: "bearer".into(),
            value: SecretText::new("sk-first"),
            endpoint: "https://gate.example".into(),
            profile: None,
            constraints: None,
        };
        Box::pin(ready(Ok(vec![Issued { credential, handle: RawJson::parse("1").unwrap() }])))
    }

    fn revoke(&self, what: Revocation) -> RevokeFuture {
        self.revoked.lock().push(what);
        Box::pin(ready(Ok(())))
    }

    fn handle_for(&self, value: &SecretText) -> Option<RawJson> {
        (value.expose() == "sk-by-agent").then(|| RawJson::parse("2").unwrap())
    }
}

#[tokio::test]
async fn an_agent_replaces_its_credential_and_both_values_are_revoked() {
    let (_folder, file) = folder();
    let provisioner = Counting::default();
    let revoked = Arc::clone(&provisioner.revoked);
    let runtime = runtime(&file, Arc::new(provisioner));
    let client = connected(&runtime).await;
    let handle = client.submit(&submit("rotator", r#""c""#), None).await.unwrap();
    assert_eq!(value(&handle), "sk-first");
    let event = timeout(BOUND, handle.next_event()).await.unwrap().unwrap();
    assert!(event.kind() == "status" && event.body.windows(4).any(|part| part == b"\"id\""));
    eventually(|| revoked.lock().len() == 2).await;
    let handles = ["1", "2"].map(|text| Revocation::Handle(RawJson::parse(text).unwrap()));
    assert!(handles.iter().all(|handle| revoked.lock().contains(handle)));
    // The provisioner gives the same value again, which is refused.
    assert!(client.submit(&submit("rotator", r#""c""#), None).await.is_err());
    runtime.shutdown("over", Duration::from_secs(1)).await;
}

struct Panics;

impl Provisioner for Panics {
    fn issue(&self, _: IssueRequest) -> IssueFuture {
        panic!("a provisioner's fault")
    }

    fn revoke(&self, _: Revocation) -> RevokeFuture {
        Box::pin(async { Ok(()) })
    }
}

#[tokio::test]
async fn a_provisioner_that_panics_costs_one_submit() {
    let (_folder, file) = folder();
    let runtime = runtime(&file, Arc::new(Panics));
    let client = connected(&runtime).await;
    for _ in 0..2 {
        assert!(client.submit(&order("quick"), None).await.is_err());
    }
    runtime.shutdown("over", Duration::from_secs(1)).await;
}

#[tokio::test]
async fn credentials_are_not_offered_over_a_store_that_forgets_nor_over_frames_a_host_carries() {
    let gateway = Gateway::open().await;
    let config = RuntimeConfig::new(peer("runtime"));
    let forgetful = Runtime::new(config, StaticBearerVerifier::new([("tok", "me")]));
    forgetful.register_agent("quick", quick).unwrap();
    forgetful.set_provisioner(litellm(&gateway)).unwrap();
    assert!(forgetful.set_provisioner(litellm(&gateway)).is_err());
    let client = connected(&forgetful).await;
    assert!(!client.has_feature(FEATURE));
    let handle = client.submit(&order("quick"), None).await.unwrap();
    assert_eq!(handle.accepted().unwrap().credentials, None);
    assert_eq!(gateway.state.lock().asked, [""; 0]);

    let (ours, theirs) = pair_memory_transports();
    use arcp_engine::transport::Transport;
    assert!(ours.is_private());
    drop(theirs.into_queues());
    assert!(!ours.is_private());
}
