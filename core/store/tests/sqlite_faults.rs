//! The SQLite store when things go wrong: processes die, disks fill up, files are not what they should be.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails where it fails")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::Child;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::RecvTimeoutError::Disconnected;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arcp_proto::machine::frame::{Record, RecordKind};
use arcp_proto::machine::kept::StoreOp;
use arcp_store::sqlite::{Inspector, vacuum};
use arcp_store::{SqliteOptions, SqliteStore, Store, StoreSink};
use common::{Open, again, child_path, job, places, record, record_of, refused, session};

/// Prints the `job_seq` of the last stored record: two operations make one.
struct Telling {
    before: u64,
}

impl StoreSink for Telling {
    fn stored(&self, ticket: u64, outcome: Result<(), String>) {
        outcome.unwrap();
        KEPT.store(ticket, Ordering::Release);
        let _ = writeln!(std::io::stderr(), "stored {}", self.before + ticket / 2);
    }

    fn history(&self, _request: u64, _records: Vec<Arc<Record>>) {}

    fn taken_over(&self) {}
}

/// The last ticket the store of the child has kept.
static KEPT: AtomicU64 = AtomicU64::new(0);

/// Appends until it is killed.
fn append_for_ever(path: &Path) {
    let store = SqliteStore::new(path, SqliteOptions::default());
    let last = Inspector::open(path).unwrap().sessions().unwrap()[0].last_event_seq;
    store.open(Arc::new(Telling { before: last })).unwrap();
    for seq in 1.. {
        let record = record("job_1", last + seq);
        let number = StoreOp::Number { session: "sess_1".into(), event_seq: last + seq, record: Arc::clone(&record) };
        store.apply_all(&mut [(2 * seq - 1, StoreOp::Append(record)), (2 * seq, number)].into_iter());
        // As a runtime's emitters do: a store that lags is waited for.
        while 2 * seq > KEPT.load(Ordering::Acquire) + 10_000 {
            std::thread::yield_now();
        }
    }
}

fn told(child: &mut Child) -> impl Iterator<Item = u64> + use<> {
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    lines.map_while(Result::ok).filter_map(|line| line.strip_prefix("stored ")?.parse().ok())
}

#[test]
fn whatever_was_told_as_stored_survives_a_kill() {
    if let Some(path) = child_path() {
        return append_for_ever(&path);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("arcp.db");
    let mut open = Open::new(&path);
    open.apply(StoreOp::SaveSession(Box::new(session("sess_1"))));
    open.apply(StoreOp::SaveJob(Box::new(job("job_1", "sess_1"))));
    drop(open);
    let mut least = 0;
    for round in 1..=8 {
        let me = std::env::current_exe().unwrap();
        let mut child = again(&[], &me, "whatever_was_told_as_stored_survives_a_kill", &path).spawn().unwrap();
        let mut stored = told(&mut child);
        let mut last = stored.by_ref().take(round * 7).last();
        child.kill().unwrap();
        child.wait().unwrap();
        last = stored.last().or(last);
        least = last.expect("the child told nothing");
        let open = Open::new(&path);
        let log = &open.kept.sessions[0].log;
        assert_eq!(open.kept.sessions[0].freed + log.len() as u64, open.kept.jobs[0].job_seq);
        assert!(open.kept.jobs[0].job_seq >= least, "{} of {least} in round {round}", open.kept.jobs[0].job_seq);
        for (expected, kept) in (open.kept.sessions[0].freed + 1..).zip(log) {
            assert_eq!(format!("{kept:?}"), format!("{:?}", record("job_1", expected)));
        }
        assert_eq!(Inspector::open(&path).unwrap().check().unwrap().problems, [] as [String; 0]);
    }
    assert!(least > 8);
}

/// Holds the database until its standard input ends.
fn hold(path: &Path) {
    let _open = Open::new(path);
    let _ = writeln!(std::io::stderr(), "stored 0");
    let _ = std::io::stdin().read(&mut [0]);
}

#[test]
fn a_second_process_is_refused_with_the_pid_of_the_first_until_that_dies() {
    if let Some(path) = child_path() {
        return hold(&path);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("arcp.db");
    let me = std::env::current_exe().unwrap();
    let test = "a_second_process_is_refused_with_the_pid_of_the_first_until_that_dies";
    let mut child = again(&[], &me, test, &path).spawn().unwrap();
    assert_eq!(told(&mut child).next(), Some(0));
    let holder = format!("belongs to the process with pid {}; stop it, or name another database file", child.id());
    for name in ["arcp.db", "./arcp.db", "sub/../arcp.db"] {
        fs::create_dir_all(folder.path().join("sub")).unwrap();
        let error = refused(&folder.path().join(name));
        assert!(error.contains(&holder), "{error}");
    }
    assert!(vacuum(&path, &SqliteOptions::default()).unwrap_err().to_string().contains(&holder));
    assert_eq!(Inspector::open(&path).unwrap().sessions().unwrap(), []);
    child.kill().unwrap();
    child.wait().unwrap();
    let open = Open::new(&path);
    assert_eq!(open.kept.epoch, 2);
    let again = refused(&path);
    assert!(again.contains(&format!("this process (pid {})", std::process::id())), "{again}");
}

/// Lets go of the store from the store's own thread.
struct LastOwner {
    store: Mutex<Option<Arc<SqliteStore>>>,
    gone: std::sync::mpsc::Sender<()>,
}

impl StoreSink for LastOwner {
    fn stored(&self, _ticket: u64, _outcome: Result<(), String>) {
        drop(self.store.lock().unwrap().take());
        self.gone.send(()).unwrap();
    }

    fn history(&self, _request: u64, _records: Vec<Arc<Record>>) {}

    fn taken_over(&self) {}
}

#[test]
fn a_store_dropped_by_its_own_thread_lets_go_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("arcp.db");
    let store = Arc::new(SqliteStore::new(&path, SqliteOptions::default()));
    let (gone, dropped) = std::sync::mpsc::channel();
    let sink = Arc::new(LastOwner { store: Mutex::new(Some(Arc::clone(&store))), gone });
    store.open(sink).unwrap();
    let weak = Arc::downgrade(&store);
    store.apply(1, StoreOp::SaveSession(Box::new(session("sess_1"))));
    drop(store);
    dropped.recv_timeout(Duration::from_secs(30)).unwrap();
    // The sender goes with the sink, which goes with the threads.
    assert!(dropped.recv_timeout(Duration::from_secs(30)).is_err_and(|error| error == Disconnected));
    assert!(weak.upgrade().is_none());
    let started = Instant::now();
    let next = SqliteStore::new(&path, SqliteOptions::default());
    while let Err(error) = next.open(Arc::new(common::Sink::default())) {
        assert!(started.elapsed() < Duration::from_secs(30), "{error}");
        std::thread::yield_now();
    }
}

#[test]
fn at_the_quota_nothing_is_lost_and_forgetting_makes_room() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("arcp.db");
    let quota_bytes = Some(2 << 20);
    let mut open = Open::with(&path, SqliteOptions { quota_bytes, ..SqliteOptions::default() });
    open.apply(StoreOp::SaveSession(Box::new(session("sess_1"))));
    for id in ["job_1", "job_2"] {
        open.apply(StoreOp::SaveJob(Box::new(job(id, "sess_1"))));
    }
    let big = |id: &str, seq| record_of(id, seq, RecordKind::Event, format!("\"{seq}{}\"", "x".repeat(1000)));
    for seq in 1..=1700 {
        open.apply(StoreOp::Append(big("job_1", seq)));
    }
    open.settle();
    // Forgotten pages count no longer, so it is asked before anything is forgotten.
    while !open.store.stats().quota_warning {
        std::thread::yield_now();
    }
    let before = open.ticket;
    for seq in 1..=1500 {
        open.emit("sess_1", seq, &big("job_2", seq));
    }
    let (kept, why) = open.sink.wait_failure();
    assert!(kept >= before, "what was stored stays stored");
    assert!(why.contains("quota is 2097152 bytes") && why.contains("raise the quota"), "{why}");
    open.apply(StoreOp::ForgetJob("job_1".into()));
    open.settle();
    assert!(open.store.stats().failures > 0);
    drop(open);
    let kept = Open::new(&path).kept;
    assert_eq!(places(&kept.sessions[0].log), (1..=1500).collect::<Vec<_>>());
    assert_eq!(kept.jobs.len(), 1);
}

#[cfg(unix)]
fn set_file_limit(bytes: Option<u64>) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Fsize).maximum;
    setrlimit(Resource::Fsize, Rlimit { current: bytes, maximum }).unwrap();
}

#[test]
#[cfg(unix)]
fn when_the_disk_takes_no_more_it_tries_again_until_it_does() {
    let test = "when_the_disk_takes_no_more_it_tries_again_until_it_does";
    let Some(path) = child_path() else {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("arcp.db");
        let me = std::env::current_exe().unwrap();
        // The limit on file sizes stands in for the disk; what is beyond it must fail and not kill.
        let ignoring = ["sh", "-c", "trap '' XFSZ; exec \"$0\" \"$@\""];
        let output = again(&ignoring, &me, test, &path).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let kept = Open::new(&path).kept;
        assert_eq!(places(&kept.sessions[0].log), (1..=3000).collect::<Vec<_>>());
        return;
    };
    let mut open = Open::new(&path);
    open.apply(StoreOp::SaveSession(Box::new(session("sess_1"))));
    open.apply(StoreOp::SaveJob(Box::new(job("job_1", "sess_1"))));
    open.settle();
    set_file_limit(Some(1 << 20));
    for seq in 1..=3000 {
        let record = record_of("job_1", seq, RecordKind::Event, format!("\"{}\"", "x".repeat(1000)));
        open.emit("sess_1", seq, &record);
    }
    let (kept, why) = open.sink.wait_failure();
    assert!(kept < open.ticket && why.contains("arcp.db"), "{kept}: {why}");
    set_file_limit(None);
    open.settle();
    let outcomes = open.sink.outcomes();
    assert_eq!(outcomes.last(), Some(&(open.ticket, Ok(()))));
}

#[test]
fn a_store_that_cannot_write_still_closes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("arcp.db");
    let closing_patience = Duration::from_millis(300);
    let options = SqliteOptions { quota_bytes: Some(400_000), closing_patience, ..SqliteOptions::default() };
    let mut open = Open::with(&path, options);
    open.apply(StoreOp::Append(record_of("job_1", 1, RecordKind::Event, "x".repeat(1 << 20))));
    open.sink.wait_failure();
    let started = Instant::now();
    open.store.close();
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_eq!(Open::new(&path).kept.jobs.len(), 0);
}

#[test]
#[cfg(unix)]
fn a_file_that_cannot_be_written_is_refused_but_can_be_inspected() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    if let Some(folder) = child_path() {
        let error = refused(&folder.join("open/arcp.db"));
        assert!(error.contains("is read-only for this user; make it writable"), "{error}");
        let error = refused(&folder.join("shut/arcp.db"));
        assert!(error.contains("make its folder writable"), "{error}");
        assert_eq!(Inspector::open(folder.join("shut/arcp.db")).unwrap().sessions().unwrap().len(), 1);
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    for name in ["open", "shut"] {
        let path = folder.path().join(name).join("arcp.db");
        let mut open = Open::new(&path);
        open.apply(StoreOp::SaveSession(Box::new(session("sess_1"))));
        drop(open);
        mode(&path, 0o444);
        fs::remove_file(path.with_extension("db.lock")).unwrap();
        mode(path.parent().unwrap(), if name == "open" { 0o777 } else { 0o555 });
    }
    // Nothing stops the superuser, so another user tries.
    mode(folder.path(), 0o755);
    let program = folder.path().join("test");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    mode(&program, 0o755);
    let test = "a_file_that_cannot_be_written_is_refused_but_can_be_inspected";
    let mut command = again(&[], &program, test, folder.path());
    command.current_dir("/");
    if rustix::process::geteuid().is_root() {
        command.uid(65534);
    }
    let output = command.output().unwrap();
    mode(&folder.path().join("shut"), 0o755);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn what_is_not_a_database_of_this_version_is_refused_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let path = at("arcp.db");
    drop(Open::new(&path));
    fs::copy(&path, at("newer.db")).unwrap();
    let newer = rusqlite::Connection::open(at("newer.db")).unwrap();
    newer.execute_batch("PRAGMA user_version = 7").unwrap();
    drop(newer);
    for error in [refused(&at("newer.db")), Inspector::open(at("newer.db")).unwrap_err().to_string()] {
        assert!(error.contains("schema version 7") && error.contains("versions up to 2"), "{error}");
        assert!(error.contains("use a newer program"), "{error}");
    }

    let other = rusqlite::Connection::open(at("other.db")).unwrap();
    other.execute_batch("CREATE TABLE theirs (x)").unwrap();
    drop(other);
    assert!(refused(&at("other.db")).contains("is a database of another program"));

    fs::write(at("notes.txt"), "not a database, but long enough to be looked at closely".repeat(100)).unwrap();
    let before = fs::read(at("notes.txt")).unwrap();
    for error in [refused(&at("notes.txt")), Inspector::open(at("notes.txt")).unwrap_err().to_string()] {
        assert!(error.contains("is not a database of this program; name another file"), "{error}");
    }
    assert_eq!(fs::read(at("notes.txt")).unwrap(), before);

    assert!(refused(folder.path()).contains("is a folder; name a file in it"));
    assert!(Inspector::open(folder.path()).unwrap_err().to_string().contains("is a folder"));
    fs::write(at("empty.db"), "").unwrap();
    assert!(Inspector::open(at("empty.db")).unwrap_err().to_string().contains("is empty"));
    assert_eq!(Open::new(&at("empty.db")).kept.epoch, 1);
}

/// A closed database with a session that numbers 1000 records.
fn filled(path: &Path) {
    let mut open = Open::new(path);
    open.apply(StoreOp::SaveSession(Box::new(session("sess_1"))));
    open.apply(StoreOp::SaveJob(Box::new(job("job_1", "sess_1"))));
    for seq in 1..=1000 {
        open.emit("sess_1", seq, &record("job_1", seq));
    }
}

#[test]
fn a_damaged_file_is_refused_and_named_by_the_check() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("arcp.db");
    for (damage, what) in [
        ("UPDATE segment SET data = zeroblob(length(data))", "records of job_1: its checksum does not match"),
        ("UPDATE segment SET data = substr(data, 1, length(data) - 1)", "records of job_1"),
        ("UPDATE segment SET data = 'text'", "Invalid column type"),
        ("UPDATE number SET runs = x''", "the numbers of session sess_1: it is cut short"),
        ("UPDATE session SET features = '{'", "the features of session sess_1"),
        ("UPDATE session SET token = x'00'", "token"),
        ("UPDATE job SET input = '{'", "the input of job_1: it is not JSON"),
        ("UPDATE job_state SET status = 9", "job job_1 has the unknown state 9"),
    ] {
        filled(&path);
        rusqlite::Connection::open(&path).unwrap().execute_batch(damage).unwrap();
        let error = refused(&path);
        assert!(error.contains("is damaged") && error.contains("restore a backup"), "{error}");
        assert!(error.contains(what) || what == "token", "{damage}: {error}");
        assert_ne!(Inspector::open(&path).unwrap().check().unwrap().problems, [] as [String; 0], "{damage}");
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_file_cut_anywhere_is_refused_or_opened_but_never_more() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("whole.db");
    filled(&path);
    let whole = fs::read(&path).unwrap();
    let cut = folder.path().join("cut.db");
    for length in [50, 99, 100, 4096, 8192, 10_000, whole.len() / 2, whole.len() - 8192, whole.len() - 1] {
        fs::write(&cut, &whole[..length]).unwrap();
        let store = SqliteStore::new(&cut, SqliteOptions::default());
        match store.open(Arc::new(common::Sink::default())) {
            Err(error) => {
                let error = error.to_string();
                assert!(error.contains("cut.db") && error.contains("; "), "{length}: {error}");
                let report = Inspector::open(&cut).and_then(|inspector| inspector.check());
                assert!(report.is_err() || report.is_ok_and(|report| !report.problems.is_empty()), "{length}");
            }
            // The last pages may be free ones, and then nothing is lost.
            Ok(kept) => assert_eq!(kept.sessions[0].log.len(), 1000, "{length}"),
        }
        store.close();
    }
    // Any page overwritten: an error or a sound answer, no panic and no hang.
    for page in 0..whole.len() / 8192 {
        let mut bytes = whole.clone();
        bytes[page * 8192 + 100..(page + 1) * 8192].fill(0xa5);
        fs::write(&cut, &bytes).unwrap();
        let sink = Arc::new(common::Sink::default());
        let _ = SqliteStore::new(&cut, SqliteOptions::default()).open(sink);
        let report = Inspector::open(&cut).and_then(|inspector| inspector.check());
        // What lies in the unused part of a page is nobody's loss.
        if report.is_ok_and(|report| report.problems.is_empty()) {
            assert_eq!(Inspector::open(&cut).unwrap().sessions().unwrap()[0].kept, 1000, "page {page}");
        }
    }
}
