//! The SQLite store with a key: what is on the disk is of no use without it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails where it fails")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arcp_proto::machine::frame::RecordKind;
use arcp_proto::machine::kept::{KeptCredential, KeptFollow, KeptKey, StoreOp};
use arcp_proto::time::Timestamp;
use arcp_store::seal::make_key_file;
use arcp_store::sqlite::{Inspector, vacuum};
use arcp_store::{AesGcmSealer, SealError, Sealer, SqliteOptions, Store};
use common::{Open, again, child_path, follow, job, json, places, record_of, refused_with, sealed, session};

/// In everything below that somebody said.
const MARKER: &str = "findable-9f3c";

fn said(what: &str) -> String {
    format!("{{\"{what}\":\"{MARKER}\"}}")
}

/// Two jobs in two sessions, with everything a store keeps of what was said.
fn fill(open: &mut Open) {
    for (id, its) in [("sess_1", "job_1"), ("sess_2", "job_2")] {
        open.apply(StoreOp::SaveSession(Box::new(session(id))));
        let mut job = job(its, id);
        job.input = json(&said("input"));
        job.lease = json(&format!("{{\"fs.read\":[\"/{MARKER}/**\"]}}"));
        open.apply(StoreOp::SaveJob(Box::new(job)));
        open.apply(StoreOp::Follow(Box::new(KeptFollow { answer: said("answer"), ..follow(id, its) })));
        for seq in 1..=20 {
            open.emit(id, seq, &record_of(its, seq, RecordKind::Event, said("event")));
            if seq == 10 {
                // Two segments of one job.
                open.settle();
            }
        }
        let terminal = record_of(its, 21, RecordKind::Result, said("result"));
        open.emit(id, 21, &terminal);
        open.apply(StoreOp::SaveKey(Box::new(KeptKey {
            principal: "me".into(),
            key: format!("once {its}"),
            fingerprint: [5; 32],
            job_id: its.into(),
            trace_id: "4bf9".into(),
            accepted: json(&said("accepted")),
            expires_at: Timestamp(99),
            terminal: Some(terminal),
        })));
        open.apply(StoreOp::SaveCredential(Box::new(KeptCredential {
            id: format!("cred of {its}"),
            job_id: its.into(),
            handle: json(&said("handle")),
            issued_at: Timestamp(12),
        })));
    }
    open.settle();
}

fn filled(path: &Path) {
    fill(&mut Open::with(path, sealed(7)));
}

/// How often the marker is in any file of this folder.
fn found(folder: &Path) -> usize {
    let files = fs::read_dir(folder).unwrap().map(|file| fs::read(file.unwrap().path()).unwrap());
    files.map(|bytes| bytes.windows(MARKER.len()).filter(|window| *window == MARKER.as_bytes()).count()).sum()
}

/// Fills a database, says so, and waits to be killed.
fn fill_and_wait(folder: &Path) {
    let options = if folder.ends_with("sealed") { sealed(7) } else { SqliteOptions::default() };
    let mut open = Open::with(&folder.join("arcp.db"), options);
    fill(&mut open);
    let _ = writeln!(std::io::stderr(), "filled");
    let _ = std::io::stdin().read(&mut [0]);
}

/// Rules
#[test]
fn what_was_said_is_in_no_file_while_it_is_kept_and_after_a_kill() {
    if let Some(folder) = child_path() {
        return fill_and_wait(&folder);
    }
    let folder = tempfile::tempdir().unwrap();
    let me = std::env::current_exe().unwrap();
    for name in ["plain", "sealed"] {
        let folder = folder.path().join(name);
        let path = folder.join("arcp.db");
        let test = "what_was_said_is_in_no_file_while_it_is_kept_and_after_a_kill";
        let mut child = again(&[], &me, test, &folder).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == "filled"), "the child did not come so far");
        let wal = fs::metadata(path.with_extension("db-wal")).unwrap().len();
        assert!(wal > 10_000, "it is in the log: {wal}");
        let whenever = |when: &str| {
            // The search finds what there is to be found.
            assert_eq!(found(&folder) > 0, name == "plain", "{name}, {when}");
        };
        whenever("while it is kept");
        child.kill().unwrap();
        child.wait().unwrap();
        whenever("after a kill");
        if name == "sealed" {
            let kept = Open::with(&path, sealed(7)).kept;
            assert_eq!(places(&kept.sessions[0].log), (1..=21).collect::<Vec<_>>());
            assert_eq!(format!("{kept:?}").matches(MARKER).count(), 2 * (21 + 6) + 2, "it is there with the key");
            whenever("after it was closed");
        }
    }
}

/// Rules
#[test]
fn a_database_opens_with_its_own_key_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (path, plain) = (folder.path().join("arcp.db"), folder.path().join("plain.db"));
    filled(&path);
    drop(Open::new(&plain));
    let before = [fs::read(&path).unwrap(), fs::read(&plain).unwrap()];
    let everyone = |path: &Path, options: SqliteOptions| {
        let inspector = Inspector::open_with(path, &options).unwrap_err().to_string();
        let vacuumed = vacuum(path, &options).unwrap_err().to_string();
        let opened = refused_with(path, options);
        assert!(opened == inspector && opened == vacuumed, "{opened}\n{inspector}\n{vacuumed}");
        opened
    };
    let missing = everyone(&path, SqliteOptions::default());
    assert!(missing.contains("arcp.db is encrypted; name its key with --db-key-file"), "{missing}");
    let wrong = everyone(&path, sealed(8));
    assert!(wrong.contains("arcp.db is encrypted and does not open with this key (another key"), "{wrong}");
    let needless = everyone(&plain, sealed(7));
    assert!(needless.contains("plain.db is not encrypted; open it without a key"), "{needless}");
    assert_eq!(before, [fs::read(&path).unwrap(), fs::read(&plain).unwrap()], "what is refused is left as it is");

    rusqlite::Connection::open(&path)
        .unwrap()
        .execute_batch("UPDATE meta SET value = 9 WHERE name = 'sealed'")
        .unwrap();
    let newer = everyone(&path, sealed(7));
    assert!(newer.contains("form 9") && newer.contains("use a newer program"), "{newer}");
}

/// Rules
#[test]
fn what_is_damaged_or_moved_is_refused_and_named_by_the_check() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("arcp.db");
    let swap = |table: &str, column: &str, one: &str, other: &str| {
        format!(
            "UPDATE {table} SET {column} = (SELECT {column} FROM {table} AS t WHERE t.rowid = (SELECT min(rowid) FROM \
             {table} WHERE {other})) WHERE rowid = (SELECT min(rowid) FROM {table} WHERE {one})"
        )
    };
    let jobs = ("id = 'job_1'", "id = 'job_2'");
    let keyed = |table: &str, column: &str, id: &str| {
        format!(
            "UPDATE {table} SET {column} = (SELECT {column} FROM {table} AS t WHERE t.{id} LIKE '%job_2') \
             WHERE {id} LIKE '%job_1'"
        )
    };
    let first = "job IN (SELECT key FROM job WHERE id = 'job_1')";
    let second = "job IN (SELECT key FROM job WHERE id = 'job_2')";
    let of_one = |first: u64| format!("{} AND first = {first}", "job IN (SELECT key FROM job WHERE id = 'job_1')");
    for (change, what) in [
        ("UPDATE segment SET data = zeroblob(length(data))".to_owned(), "records of job_"),
        ("UPDATE segment SET data = substr(data, 1, length(data) - 1)".to_owned(), "records of job_"),
        ("UPDATE segment SET data = x''".to_owned(), "records of job_"),
        (swap("segment", "data", first, second), "records of job_1: it does not open"),
        (swap("segment", "data", &of_one(1), &of_one(11)), "records of job_1: it does not open"),
        (swap("job", "input", jobs.0, jobs.1), "the input of job_1: it does not open"),
        (swap("job", "lease", jobs.0, jobs.1), "the lease of job_1: it does not open"),
        ("UPDATE job SET input = lease".to_owned(), "the input of job_"),
        ("UPDATE job SET principal = 'thief'".to_owned(), "the input of job_"),
        ("UPDATE job SET session = 'sess_2'".to_owned(), "the input of job_1"),
        ("UPDATE job SET input = '{}'".to_owned(), "Invalid column type"),
        (
            "UPDATE subscription SET answer = (SELECT t.answer FROM subscription AS t ORDER BY session DESC LIMIT 1)"
                .to_owned(),
            "the answer that lets sess_1 follow job_1: it does not open",
        ),
        (keyed("idempotency_key", "fingerprint", "key"), "what the request of job_1 is known by: it does not open"),
        (keyed("idempotency_key", "accepted", "key"), "the answer that made job_1: it does not open"),
        (keyed("idempotency_key", "terminal", "key"), "the end of job_1: it does not open"),
        ("UPDATE idempotency_key SET principal = 'thief'".to_owned(), "the request of job_"),
        (keyed("credential", "handle", "id"), "the handle of credential cred of job_1: it does not open"),
    ] {
        filled(&path);
        let changed = rusqlite::Connection::open(&path).unwrap().execute(&change, []).unwrap();
        assert!(changed > 0, "{change}");
        let error = refused_with(&path, sealed(7));
        assert!(error.contains("is damaged") && error.contains("restore a backup"), "{error}");
        assert!(error.contains(what) && !error.contains(MARKER), "{change}: {error}");
        let problems = Inspector::open_with(&path, &sealed(7)).unwrap().check().unwrap().problems;
        assert!(!problems.is_empty(), "{change}");
        fs::remove_file(&path).unwrap();
    }
}

/// Rules
#[test]
fn an_inspector_reads_and_copies_with_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copies) = (folder.path().join("arcp.db"), folder.path().join("copies"));
    let mut open = Open::with(&path, sealed(7));
    fill(&mut open);
    open.history(1, "job_1", 10);
    let history = open.sink.history(1);
    assert_eq!(places(&history), (6..=21).collect::<Vec<_>>());
    assert_eq!(history[0].payload, said("event"));

    let inspector = Inspector::open_with(&path, &sealed(7)).unwrap();
    let report = inspector.check().unwrap();
    assert_eq!((report.sessions, report.jobs, report.records, report.problems), (2, 2, 42, Vec::new()));
    let mut frames = Vec::new();
    let each = &mut |one: arcp_store::sqlite::ReplayedRecord| {
        frames.push(one.record.payload.clone());
        ControlFlow::Continue(())
    };
    inspector.replay("sess_2", 19, each).unwrap();
    assert_eq!(frames, [said("event"), said("result")]);

    fs::create_dir(&copies).unwrap();
    let copy = copies.join("copy.db");
    inspector.backup(&copy).unwrap();
    assert!(refused_with(&copy, SqliteOptions::default()).contains("is encrypted"));
    assert_eq!(Open::with(&copy, sealed(7)).kept.jobs.len(), 2);
    open.store.close();
    vacuum(&path, &sealed(7)).unwrap();
    assert_eq!(Open::with(&path, sealed(7)).kept.jobs.len(), 2);
    assert_eq!((found(&copies), found(folder.path().join("copies").as_path())), (0, 0));
}

/// Turns every letter, and fails at first.
struct Rot {
    failures: AtomicU64,
}

impl Sealer for Rot {
    fn seal(&self, context: &[u8], plain: &[u8]) -> Result<Vec<u8>, SealError> {
        if context.windows(12).any(|window| window == b"segment.data")
            && self.failures.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1)).is_ok()
        {
            return Err(SealError("the key service does not answer".to_owned()));
        }
        Ok(plain.iter().map(|byte| byte ^ 0x55).collect())
    }

    fn open(&self, _context: &[u8], sealed: Vec<u8>) -> Result<Vec<u8>, SealError> {
        Ok(sealed.into_iter().map(|byte| byte ^ 0x55).collect())
    }
}

#[test]
fn what_cannot_be_sealed_now_is_not_told_as_kept_and_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("arcp.db");
    let options =
        SqliteOptions { sealer: Some(Arc::new(Rot { failures: AtomicU64::new(2) })), ..SqliteOptions::default() };
    let mut open = Open::with(&path, options.clone());
    fill(&mut open);
    let (_, why) = open.sink.wait_failure();
    assert!(why.contains("arcp.db failed (the key service does not answer)"), "{why}");
    assert!(open.store.stats().failures >= 2);
    drop(open);
    assert_eq!(places(&Open::with(&path, options).kept.sessions[1].log), (1..=21).collect::<Vec<_>>());
    assert_eq!(found(folder.path()), 0);
}

/// Rules
#[test]
fn a_key_file_is_made_once_and_read_if_it_is_its_owners_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("arcp.key");
    make_key_file(&path).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!((text.len(), text.trim_end().bytes().all(|byte| byte.is_ascii_hexdigit())), (65, true));
    let again = make_key_file(&path).unwrap_err().to_string();
    assert!(again.contains("exists, and a key is never overwritten"), "{again}");
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    let other = folder.path().join("other.key");
    make_key_file(&other).unwrap();
    assert_ne!(fs::read_to_string(&other).unwrap(), text);

    // Every form of a key is the same key.
    let bytes: Vec<u8> = (0..32).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect();
    fs::write(&other, &bytes).unwrap();
    let sealed = AesGcmSealer::from_key_file(&path).unwrap().seal(b"here", b"plain").unwrap();
    assert_eq!(AesGcmSealer::from_key_file(&other).unwrap().open(b"here", sealed).unwrap(), b"plain");

    fs::write(&other, &text[..40]).unwrap();
    let half = AesGcmSealer::from_key_file(&other).unwrap_err().to_string();
    assert!(half.contains("holds a text of 40 characters") && half.contains("arcp db key"), "{half}");
    assert!(!half.contains(&text[..8]), "{half}");
    let missing = AesGcmSealer::from_key_file(folder.path().join("none")).unwrap_err().to_string();
    assert!(missing.contains("none cannot be read"), "{missing}");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        for mode in [0o640, 0o604, 0o660, 0o622] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let open = AesGcmSealer::from_key_file(&path).unwrap_err().to_string();
            assert!(open.contains("other users may use") && open.contains("run chmod 600"), "{open}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        AesGcmSealer::from_key_file(&path).unwrap();
    }
}
