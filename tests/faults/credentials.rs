//! Credentials that outlive the process which issued them must not outlive their jobs.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arcp::message::{Credential, SecretText};
use arcp::{
    Client, Error, IssueFuture, IssueRequest, Issued, JobContext, ListenOptions, Listener, ProtocolError, Provisioner,
    RawJson, Revocation, RevokeFuture, Runtime, RuntimeConfig, RuntimeInfo, SqliteOptions, SqliteStore,
    StaticBearerVerifier,
};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::support::{BOUND, Chance, Place, TOKEN, connected_with, is_long, order, port_of, until};

/// Names the place of its files to [`the_issuer_that_dies`], and its port.
const FOLDER: &str = "ARCP_FAULTS_FOLDER";
const PORT: &str = "ARCP_FAULTS_PORT";
/// Every value begins so, to be looked for.
const VALUE: &str = "sk-findable";
const SLOTS: u64 = 8;

/// Writes what it does into a file, as a gateway would remember it.
struct Gateway {
    book: String,
    issued: AtomicU64,
}

impl Gateway {
    fn note(&self, what: &str, intent: &str) {
        let mut book = std::fs::File::options().create(true).append(true).open(&self.book).unwrap();
        // One write per line: whatever is killed, a line is whole or absent.
        book.write_all(format!("{what} {intent}\n").as_bytes()).unwrap();
    }
}

impl Provisioner for Gateway {
    fn issue(&self, request: IssueRequest) -> IssueFuture {
        self.note("issued", &request.intent);
        let number = self.issued.fetch_add(1, Ordering::Relaxed);
        let credential = Credential {
            id: "cred".into(),
            scheme: "bearer".into(),
            value: SecretText::new(format!("{VALUE}-{}-{number}", std::process::id())),
            endpoint: "http://127.0.0.1:4000".into(),
            profile: None,
            constraints: None,
        };
        let handle = RawJson::parse(&json!({"intent": &*request.intent}).to_string()).unwrap();
        Box::pin(async move {
            // Time to be killed in, after it was issued and before anybody was told.
            sleep(Duration::from_millis(number % 4 * 10)).await;
            Ok(vec![Issued { credential, handle }])
        })
    }

    fn revoke(&self, what: Revocation) -> RevokeFuture {
        let intent = match what {
            Revocation::Intent(intent) => intent,
            Revocation::Handle(handle) => {
                let handle: Value = serde_json::from_str(handle.get()).unwrap();
                handle["intent"].as_str().unwrap().to_owned()
            }
        };
        self.note("revoked", &intent);
        Box::pin(std::future::ready(Ok(())))
    }
}

async fn naps(input: RawJson, ctx: JobContext) -> Result<RawJson, ProtocolError> {
    ctx.log("info", "I hold a credential").await?;
    sleep(Duration::from_millis(input.get().parse().unwrap())).await;
    Ok(RawJson::null())
}

/// No test by itself: the other one runs it in a process of its own, to kill it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_issuer_that_dies() {
    let (Ok(folder), Ok(port)) = (std::env::var(FOLDER), std::env::var(PORT)) else { return };
    let config = RuntimeConfig::new(RuntimeInfo { name: "doomed".into(), version: "1".into() });
    let verifier = StaticBearerVerifier::new([(TOKEN, "faults@example.com")]);
    let store = Box::new(SqliteStore::new(format!("{folder}/arcp.db"), SqliteOptions::default()));
    let runtime = Runtime::with_store(config, Arc::new(verifier), store).unwrap();
    runtime.register_agent("naps", naps).unwrap();
    let gateway = Gateway { book: format!("{folder}/book"), issued: AtomicU64::new(0) };
    runtime.set_provisioner(Arc::new(gateway)).unwrap();
    let options = ListenOptions { port: port.parse().unwrap(), ..ListenOptions::default() };
    let listener = Listener::bind(options).await.unwrap();
    runtime.begin();
    let line = json!({"listening": {"url": listener.url()}});
    std::io::stdout().write_all(format!("{line}\n").as_bytes()).unwrap();
    // Longer than whoever kills it is patient.
    tokio::time::timeout(BOUND * 10, runtime.serve(listener)).await.unwrap();
}

/// Jobs one after the other; returns how many ended well, and how many died.
async fn keep_busy(client: Client, slot: u64, stopping: Arc<AtomicBool>, mut chance: Chance) -> (u64, u64) {
    let (mut well, mut died) = (0, 0);
    while !stopping.load(Ordering::SeqCst) {
        let mut order = order("naps", &json!(chance.below(200)), Some(&format!("{slot}-{well}-{died}")));
        order.lease_request = RawJson::parse(r#"{"model.use":["gpt-4o"],"cost.budget":["USD:1"]}"#).unwrap();
        let handle = client.submit(&order, None).await.unwrap();
        match handle.result().await {
            Ok(_) => well += 1,
            Err(Error::Protocol(error)) if error.retryable => died += 1,
            Err(error) => panic!("{error}"),
        }
    }
    (well, died)
}

/// What the gateway remembers.
fn book(place: &Place) -> (BTreeSet<String>, BTreeSet<String>) {
    let text = std::fs::read_to_string(place.at("book")).unwrap_or_default();
    let of = |what: &str| text.lines().filter_map(|line| line.strip_prefix(what)).map(str::to_owned).collect();
    (of("issued "), of("revoked "))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_killed_every_credential_is_revoked() {
    let kills = if is_long() { 40 } else { 5 };
    let (place, mut chance) = (Place::new(), Chance::new("credentials"));
    let serve = |port: u16| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "credentials::the_issuer_that_dies", "--nocapture"]).kill_on_drop(true);
        command.env(FOLDER, place.at("")).env(PORT, port.to_string());
        place.spawn(command)
    };
    let mut server = serve(0);
    let url = server.listening().await;
    let client = connected_with(&url, &["provisioned_credentials"]).await;
    let (stopping, mut busy) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
    for slot in 0..SLOTS {
        busy.spawn(keep_busy(client.clone(), slot, Arc::clone(&stopping), chance.split()));
    }
    let mut left_behind = 0;
    for _ in 0..kills {
        let before = book(&place).0.len();
        until("more is issued", async || book(&place).0.len() > before).await;
        sleep(chance.millis(300)).await;
        server.kill().await;
        let (issued, revoked) = book(&place);
        left_behind += issued.difference(&revoked).count();
        server = serve(port_of(&url));
        server.listening().await;
    }
    stopping.store(true, Ordering::SeqCst);
    let ended = busy.join_all().await;
    until("every credential is revoked", async || {
        let (issued, revoked) = book(&place);
        issued.is_subset(&revoked)
    })
    .await;
    assert!(left_behind > 0, "every process died with nothing outstanding");
    // No process wrote a value anywhere.
    server.kill().await;
    for name in ["arcp.db", "arcp.db-wal", "server.log"] {
        let bytes = std::fs::read(place.at(name)).unwrap_or_default();
        assert!(!bytes.windows(VALUE.len()).any(|window| window == VALUE.as_bytes()), "a value is in {name}");
    }
    let (well, died) = ended.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    eprintln!(
        "credentials: {} issued, {left_behind} outstanding at {kills} kills, all revoked; {well} jobs ended well, {died} died",
        book(&place).0.len(),
    );
}
