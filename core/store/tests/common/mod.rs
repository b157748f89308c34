//! What the tests of the SQLite store share.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails where it fails")]

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use arcp_proto::json::RawJson;
use arcp_proto::machine::frame::{Record, RecordKind, WireProfile};
use arcp_proto::machine::kept::{AskedBy, Kept, KeptFollow, KeptJob, KeptSession, StoreOp};
use arcp_proto::time::Timestamp;
use arcp_store::{AesGcmSealer, SqliteOptions, SqliteStore, Store, StoreSink};

/// Longer than anything here takes; reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Seen {
    stored: u64,
    outcomes: Vec<(u64, Result<(), String>)>,
    histories: HashMap<u64, Vec<Arc<Record>>>,
    /// While set, the store's writer waits in `stored`.
    blocked: bool,
}

/// Remembers what the store says.
#[derive(Default)]
pub(crate) struct Sink {
    seen: Mutex<Seen>,
    changed: Condvar,
}

impl Sink {
    fn until<T>(&self, mut ready: impl FnMut(&mut Seen) -> Option<T>) -> T {
        let started = Instant::now();
        let mut seen = self.seen.lock().unwrap();
        loop {
            if let Some(value) = ready(&mut seen) {
                return value;
            }
            assert!(started.elapsed() < PATIENCE, "the store did not answer: {:?}", seen.outcomes.last());
            seen = self.changed.wait_timeout(seen, Duration::from_secs(1)).unwrap().0;
        }
    }

    /// Waits until this is stored.
    pub(crate) fn wait(&self, ticket: u64) {
        self.until(|seen| (seen.stored >= ticket).then_some(()));
    }

    /// Waits for the first failure: the ticket it names, and why.
    pub(crate) fn wait_failure(&self) -> (u64, String) {
        self.until(|seen| seen.outcomes.iter().find_map(|(ticket, outcome)| Some((*ticket, outcome.clone().err()?))))
    }

    pub(crate) fn history(&self, request: u64) -> Vec<Arc<Record>> {
        self.until(|seen| seen.histories.remove(&request))
    }

    pub(crate) fn outcomes(&self) -> Vec<(u64, Result<(), String>)> {
        self.seen.lock().unwrap().outcomes.clone()
    }

    pub(crate) fn block(&self, blocked: bool) {
        self.seen.lock().unwrap().blocked = blocked;
        self.changed.notify_all();
    }
}

impl StoreSink for Sink {
    fn stored(&self, ticket: u64, outcome: Result<(), String>) {
        let mut seen = self.seen.lock().unwrap();
        if outcome.is_ok() {
            assert!(ticket > seen.stored, "a ticket is told once and in order");
            seen.stored = ticket;
        } else {
            assert_eq!(ticket, seen.stored, "a failure names what is kept");
        }
        seen.outcomes.push((ticket, outcome));
        self.changed.notify_all();
        while seen.blocked {
            seen = self.changed.wait(seen).unwrap();
        }
    }

    fn history(&self, request: u64, records: Vec<Arc<Record>>) {
        let mut seen = self.seen.lock().unwrap();
        assert!(seen.histories.insert(request, records).is_none(), "a question is answered once");
        self.changed.notify_all();
    }

    fn taken_over(&self) {
        panic!("nobody can take a file over");
    }
}

/// A store, what it says, and the next ticket.
pub(crate) struct Open {
    pub(crate) store: SqliteStore,
    pub(crate) sink: Arc<Sink>,
    pub(crate) kept: Kept,
    pub(crate) ticket: u64,
}

impl Open {
    pub(crate) fn new(path: &Path) -> Open {
        Open::with(path, SqliteOptions::default())
    }

    pub(crate) fn with(path: &Path, options: SqliteOptions) -> Open {
        let sink = Arc::new(Sink::default());
        let store = SqliteStore::new(path, options);
        let kept = store.open(Arc::clone(&sink) as Arc<dyn StoreSink>).unwrap();
        Open { store, sink, kept, ticket: 0 }
    }

    pub(crate) fn apply(&mut self, op: StoreOp) {
        self.ticket += 1;
        self.store.apply(self.ticket, op);
    }

    /// Appends a record and numbers it in this session.
    pub(crate) fn emit(&mut self, session: &str, event_seq: u64, record: &Arc<Record>) {
        self.apply(StoreOp::Append(Arc::clone(record)));
        self.number(session, event_seq, record);
    }

    pub(crate) fn number(&mut self, session: &str, event_seq: u64, record: &Arc<Record>) {
        self.apply(StoreOp::Number { session: session.into(), event_seq, record: Arc::clone(record) });
    }

    /// Waits until everything applied is stored.
    pub(crate) fn settle(&self) {
        self.sink.wait(self.ticket);
    }

    pub(crate) fn history(&self, request: u64, job_id: &str, after: u64) {
        assert!(self.store.history(request, &job_id.into(), after).is_none());
    }
}

pub(crate) fn refused(path: &Path) -> String {
    refused_with(path, SqliteOptions::default())
}

pub(crate) fn refused_with(path: &Path, options: SqliteOptions) -> String {
    let sink: Arc<dyn StoreSink> = Arc::new(Sink::default());
    let error = SqliteStore::new(path, options).open(sink).unwrap_err().to_string();
    assert!(!error.contains('\n'), "{error}");
    error
}

/// With a key made of this byte.
pub(crate) fn sealed(byte: u8) -> SqliteOptions {
    let sealer = AesGcmSealer::new(&[byte; 32]).unwrap();
    SqliteOptions { sealer: Some(Arc::new(sealer)), ..SqliteOptions::default() }
}

pub(crate) fn json(text: &str) -> RawJson {
    RawJson::parse(text).unwrap()
}

pub(crate) fn follow(session: &str, job_id: &str) -> KeptFollow {
    KeptFollow {
        session: session.into(),
        job_id: job_id.into(),
        request_id: format!("request of {session}"),
        asked_by: AskedBy::Submit,
        answer: format!("{{\"job_id\":\"{job_id}\"}}"),
        owed_after: Some(7),
    }
}

pub(crate) fn session(id: &str) -> KeptSession {
    KeptSession {
        id: id.into(),
        principal: "me".into(),
        seed: [7; 10],
        profile: WireProfile::Draft,
        features: vec!["ack".to_owned(), "x-vendor.one".to_owned()],
        token: [1; 32],
        resumed_by: None,
        detached_at: None,
    }
}

pub(crate) fn job(job_id: &str, session: &str) -> KeptJob {
    KeptJob {
        job_id: job_id.into(),
        session: session.into(),
        request_id: "msg_1".to_owned(),
        principal: "me".into(),
        agent: "echo".to_owned(),
        version: None,
        trace_id: "4bf92f3577b34da6a3ce929d0e0e4736".into(),
        input: json("{\"n\":1.10}"),
        lease: json("{}"),
        expires_at: None,
        max_runtime_sec: None,
        parent_job_id: None,
        delegate_id: None,
        created_at: Timestamp(1_700_000_000_000),
        key: None,
        trace_context: None,
    }
}

pub(crate) fn record_of(job_id: &str, job_seq: u64, kind: RecordKind, payload: String) -> Arc<Record> {
    Arc::new(Record {
        job_id: job_id.into(),
        trace_id: "4bf92f3577b34da6a3ce929d0e0e4736".into(),
        kind,
        job_seq,
        source_seq: job_seq * 2,
        at: Timestamp(1_700_000_000_000 + job_seq.cast_signed()),
        feature: None,
        payload: payload.into(),
    })
}

pub(crate) fn record(job_id: &str, job_seq: u64) -> Arc<Record> {
    record_of(job_id, job_seq, RecordKind::Event, format!("{{\"job\":{job_id:?},\"n\":{job_seq}}}"))
}

pub(crate) fn places(records: &[Arc<Record>]) -> Vec<u64> {
    records.iter().map(|record| record.job_seq).collect()
}

/// The variable that tells a test it runs as another test's child process; its value is the child's path.
const CHILD: &str = "ARCP_STORE_TEST_CHILD";

/// The path this process was given, when it is a child.
pub(crate) fn child_path() -> Option<std::path::PathBuf> {
    std::env::var_os(CHILD).map(Into::into)
}

/// Runs one test of this program again in another process, through these words if any.
pub(crate) fn again(through: &[&str], program: &Path, test: &str, path: &Path) -> Command {
    let mut words = through.iter().map(|word| (*word).into()).collect::<Vec<std::ffi::OsString>>();
    words.push(program.into());
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).args(["--exact", test, "--nocapture", "--test-threads=1"]);
    command.env(CHILD, path).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}
