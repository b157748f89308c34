//! The SQLite store: what is applied is there after a reopening.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails where it fails")]

mod common;

use std::fs;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use arcp_proto::feature::Feature;
use arcp_proto::machine::frame::{Frame, Receiver, Record, RecordKind, SessionName, WireProfile};
use arcp_proto::machine::kept::{KeptCredential, KeptKey, ResumedBy, StoreOp};
use arcp_proto::message::JobStatus;
use arcp_proto::time::Timestamp;
use arcp_proto::trace::TraceContext;
use arcp_store::sqlite::{Inspector, vacuum};
use arcp_store::{PerJobCap, SqliteOptions, Store, Synchronous};
use common::{Open, follow, job, json, places, record, record_of, refused_with, sealed, session};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// Rules
#[test]
fn everything_applied_comes_back_as_it_was() {
    for options in [SqliteOptions::default(), sealed(7)] {
        everything_comes_back(&options);
    }
}

fn everything_comes_back(options: &SqliteOptions) {
    let folder = folder();
    let path = folder.path().join("arcp.db");
    let mut whole_session = session("sess_1");
    whole_session.profile = WireProfile::Py11;
    whole_session.resumed_by = Some(ResumedBy { hello_id: "msg_9".to_owned(), token: [3; 32] });
    whole_session.detached_at = Some(Timestamp(-5));
    let mut whole_job = job("job_1", "sess_1");
    whole_job.version = Some("1.2.3".to_owned());
    whole_job.expires_at = Some("2030-01-01T00:00:00Z".to_owned());
    whole_job.max_runtime_sec = Some(u64::MAX);
    whole_job.parent_job_id = Some("job_0".into());
    whole_job.delegate_id = Some("part".to_owned());
    whole_job.key = Some("once".to_owned());
    whole_job.lease = json("{\"cost.budget\":[\"USD:1.50\"]}");
    let caused_by = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    whole_job.trace_context = TraceContext::parse(caused_by, Some("vendor=1"));
    let mut older_job = job("job_2", "sess_1");
    older_job.created_at = Timestamp(1);
    let terminal = record_of("job_1", 4, RecordKind::Error(JobStatus::TimedOut), "{\"final\":1}".to_owned());
    let chunk = Arc::new(Record {
        job_id: "job_1".into(),
        trace_id: "".into(),
        kind: RecordKind::Event,
        job_seq: 3,
        source_seq: 9,
        at: Timestamp(77),
        feature: Some(Feature::ResultChunk),
        payload: "{\"chunk\":\"ä\"}".into(),
    });
    let key = KeptKey {
        principal: "me".into(),
        key: "once".to_owned(),
        fingerprint: [5; 32],
        job_id: "job_1".into(),
        trace_id: "4bf9".into(),
        accepted: json("{\"job_id\":\"job_1\"}"),
        expires_at: Timestamp(99),
        terminal: Some(Arc::clone(&terminal)),
    };
    let credential = KeptCredential {
        id: "cred_1".to_owned(),
        job_id: "job_1".into(),
        handle: json("{\"key_id\":\"k\"}"),
        issued_at: Timestamp(12),
    };

    let mut first = Open::with(&path, options.clone());
    assert!(first.store.is_durable());
    assert_eq!(first.kept.epoch, 1);
    first.apply(StoreOp::SaveSession(Box::new(session("sess_1"))));
    first.apply(StoreOp::SaveSession(Box::new(session("sess_2"))));
    first.apply(StoreOp::SaveSession(Box::new(session("sess_gone"))));
    first.apply(StoreOp::SaveJob(Box::new(whole_job.clone())));
    first.apply(StoreOp::SaveJob(Box::new(older_job.clone())));
    first.apply(StoreOp::UpdateJob {
        job_id: "job_2".into(),
        status: JobStatus::Running,
        budget: Some(json("{\"USD\":\"0.50\"}")),
    });
    for session in ["sess_2", "sess_1"] {
        first.apply(StoreOp::Follow(Box::new(follow(session, "job_2"))));
    }
    first.apply(StoreOp::Unfollow { session: "sess_1".into(), job_id: "job_2".into() });
    let records = [record("job_1", 1), record("job_1", 2), chunk, Arc::clone(&terminal)];
    for (at, record) in records.iter().enumerate() {
        first.emit("sess_1", at as u64 + 1, record);
        first.number("sess_gone", at as u64 + 1, record);
        if at >= 2 {
            first.number("sess_2", at as u64 - 1, record);
        }
    }
    first.apply(StoreOp::Free { session: "sess_1".into(), through: 1 });
    first.apply(StoreOp::SaveSession(Box::new(whole_session.clone())));
    first.apply(StoreOp::ForgetSession("sess_gone".into()));
    first.apply(StoreOp::SaveKey(Box::new(key.clone())));
    first.apply(StoreOp::SaveKey(Box::new(KeptKey { key: "other".to_owned(), ..key.clone() })));
    first.apply(StoreOp::ForgetKey { principal: "me".into(), key: "other".to_owned() });
    first.apply(StoreOp::SaveCredential(Box::new(credential.clone())));
    first.apply(StoreOp::SaveCredential(Box::new(KeptCredential { id: "cred_2".to_owned(), ..credential.clone() })));
    first.apply(StoreOp::ForgetCredential("cred_2".to_owned()));
    first.store.close();
    first.store.close();

    let kept = Open::with(&path, options.clone()).kept;
    assert_eq!(kept.epoch, 2);
    let [one, two] = &kept.sessions[..] else { panic!("{:?}", kept.sessions) };
    assert_eq!(one.session, whole_session);
    assert_eq!((one.freed, format!("{:?}", one.log)), (1, format!("{:?}", &records[1..])));
    assert!(one.follows.is_empty());
    assert_eq!((two.freed, places(&two.log)), (0, vec![3, 4]));
    assert_eq!(two.follows, [follow("sess_2", "job_2")]);
    assert!(Arc::ptr_eq(&one.log[2], &two.log[1]), "a record is read once");
    let [old, new] = &kept.jobs[..] else { panic!("{:?}", kept.jobs) };
    assert_eq!(
        (&old.job, old.status, &old.budget),
        (&older_job, JobStatus::Running, &Some(json("{\"USD\":\"0.50\"}")))
    );
    assert_eq!((old.job_seq, old.source_seq, old.chunked), (0, 0, false));
    assert_eq!((&new.job, new.job_seq, new.source_seq, new.chunked), (&whole_job, 4, 8, true));
    assert_eq!(new.status, JobStatus::TimedOut);
    assert!(Arc::ptr_eq(new.terminal.as_ref().unwrap(), &one.log[2]));
    assert_eq!(format!("{:?}", kept.keys), format!("{:?}", [key]));
    assert_eq!(kept.credentials, [credential]);
}

#[test]
fn a_file_of_version_1_is_brought_up_to_date() {
    let folder = folder();
    let path = folder.path().join("arcp.db");
    let mut first = Open::new(&path);
    first.apply(StoreOp::SaveSession(Box::new(session("sess_1"))));
    first.apply(StoreOp::SaveJob(Box::new(job("job_1", "sess_0"))));
    first.apply(StoreOp::Follow(Box::new(follow("sess_1", "job_1"))));
    first.emit("sess_1", 1, &record("job_1", 1));
    drop(first);
    let old = rusqlite::Connection::open(&path).unwrap();
    let later = [
        ("subscription", "request_id"),
        ("subscription", "asked_by"),
        ("subscription", "answer"),
        ("subscription", "owed_after"),
        ("job", "traceparent"),
        ("job", "tracestate"),
        ("meta", "proof"),
    ];
    for (table, column) in later {
        old.execute_batch(&format!("ALTER TABLE {table} DROP COLUMN {column}")).unwrap();
    }
    old.execute_batch("PRAGMA user_version = 1").unwrap();
    drop(old);
    let plain = refused_with(&path, sealed(7));
    assert!(plain.contains("is not encrypted"), "{plain}");

    let mut next = Open::new(&path);
    let [of_old] = &next.kept.sessions[0].follows[..] else { panic!("{:?}", next.kept.sessions) };
    assert_eq!((&*of_old.job_id, &*of_old.request_id, of_old.owed_after), ("job_1", "", None));
    assert_eq!(places(&next.kept.sessions[0].log), [1]);
    assert_eq!(next.kept.jobs[0].job, job("job_1", "sess_0"));
    next.apply(StoreOp::Follow(Box::new(follow("sess_1", "job_1"))));
    drop(next);
    assert_eq!(Open::new(&path).kept.sessions[0].follows, [follow("sess_1", "job_1")]);
}

#[test]
fn a_log_begins_after_the_last_record_that_is_gone() {
    let folder = folder();
    let path = folder.path().join("arcp.db");
    let mut open = Open::new(&path);
    open.apply(StoreOp::SaveSession(Box::new(session("sess_1"))));
    open.apply(StoreOp::SaveSession(Box::new(session("sess_2"))));
    for id in ["job_1", "job_2"] {
        open.apply(StoreOp::SaveJob(Box::new(job(id, "sess_1"))));
    }
    for (event_seq, (id, job_seq)) in (1..).zip([("job_1", 1), ("job_2", 1), ("job_1", 2), ("job_1", 3)]) {
        open.emit("sess_1", event_seq, &record(id, job_seq));
    }
    open.number("sess_2", 1, &record("job_2", 1));
    open.settle();
    open.apply(StoreOp::ForgetJob("job_2".into()));
    // The same id once more is another job.
    open.apply(StoreOp::SaveJob(Box::new(job("job_2", "sess_1"))));
    open.emit("sess_1", 5, &record("job_2", 1));
    drop(open);
    let kept = Open::new(&path).kept;
    assert_eq!((kept.sessions[0].freed, places(&kept.sessions[0].log)), (2, vec![2, 3, 1]));
    assert_eq!((kept.sessions[1].freed, kept.sessions[1].log.len()), (1, 0));
}

#[test]
fn one_commit_takes_all_that_waits() {
    let folder = folder();
    let mut open = Open::new(&folder.path().join("arcp.db"));
    open.sink.block(true);
    open.apply(StoreOp::SaveJob(Box::new(job("job_1", "sess_1"))));
    open.sink.wait(1);
    for seq in 1..=5000 {
        open.apply(StoreOp::Append(record("job_1", seq)));
    }
    assert_eq!(open.store.stats().commits, 1);
    open.sink.block(false);
    open.settle();
    assert_eq!(open.sink.outcomes(), [(1, Ok(())), (5001, Ok(()))]);
    let stats = open.store.stats();
    assert_eq!((stats.commits, stats.operations, stats.failures), (2, 5001, 0));
}

#[test]
fn a_history_holds_exactly_what_was_applied_before_it_while_commits_go_on() {
    let folder = folder();
    let mut open = Open::with(
        &folder.path().join("arcp.db"),
        SqliteOptions { synchronous: Synchronous::Full, ..SqliteOptions::default() },
    );
    for id in ["job_1", "job_2"] {
        open.apply(StoreOp::SaveJob(Box::new(job(id, "sess_1"))));
    }
    let mut asked = Vec::new();
    for seq in 1..=20_000_u64 {
        open.apply(StoreOp::Append(record("job_1", seq)));
        open.apply(StoreOp::Append(record("job_2", seq)));
        if seq % 997 == 0 {
            let after = if seq % 2 == 0 { 0 } else { seq };
            open.history(seq, "job_1", after);
            asked.push((seq, after));
        }
    }
    open.history(1, "job_none", 0);
    for (seq, after) in asked {
        let expected: Vec<u64> = (1..=seq).filter(|one| after == 0 || one * 2 > after).collect();
        assert_eq!(places(&open.sink.history(seq)), expected, "as of {seq} after {after}");
    }
    assert!(open.sink.history(1).is_empty());
}

#[test]
fn a_job_keeps_its_newest_records_within_the_cap() {
    let folder = folder();
    let path = folder.path().join("arcp.db");
    let cap = PerJobCap { records: 160, bytes: usize::MAX };
    let mut open = Open::with(&path, SqliteOptions { per_job: cap, ..SqliteOptions::default() });
    open.apply(StoreOp::SaveSession(Box::new(session("sess_1"))));
    open.apply(StoreOp::SaveJob(Box::new(job("job_1", "sess_1"))));
    for seq in 1..=1000 {
        open.emit("sess_1", seq, &record("job_1", seq));
    }
    open.history(1, "job_1", 0);
    let kept = places(&open.sink.history(1));
    assert!((140..=160).contains(&kept.len()), "{}", kept.len());
    assert_eq!(kept.last(), Some(&1000));
    drop(open);
    let mut open = Open::with(&path, SqliteOptions { per_job: cap, ..SqliteOptions::default() });
    assert_eq!(open.kept.sessions[0].freed, kept[0] - 1);
    assert_eq!(places(&open.kept.sessions[0].log), kept);
    // By bytes, with a terminal larger than the whole cap.
    drop(open);
    let cap = PerJobCap { records: usize::MAX, bytes: 10_000 };
    open = Open::with(&path, SqliteOptions { per_job: cap, ..SqliteOptions::default() });
    open.apply(StoreOp::Append(record("job_1", 1001)));
    open.history(1, "job_1", 0);
    let records = open.sink.history(1);
    assert!(records.iter().map(|record| record.cost()).sum::<usize>() <= 10_000);
    open.apply(StoreOp::Append(record_of("job_1", 1002, RecordKind::Result, format!("\"{}\"", "x".repeat(20_000)))));
    drop(open);
    assert_eq!(Open::new(&path).kept.jobs[0].terminal.as_ref().unwrap().job_seq, 1002);
}

/// Rules
#[test]
fn freed_numbers_and_forgotten_jobs_leave_no_rows() {
    let folder = folder();
    let path = folder.path().join("arcp.db");
    let mut open = Open::new(&path);
    open.apply(StoreOp::SaveSession(Box::new(session("sess_1"))));
    open.apply(StoreOp::SaveJob(Box::new(job("job_1", "sess_1"))));
    for seq in 1..=100 {
        open.emit("sess_1", seq, &record("job_1", seq));
        if seq % 10 == 0 {
            open.settle();
        }
    }
    open.apply(StoreOp::Free { session: "sess_1".into(), through: 95 });
    open.settle();
    let look = rusqlite::Connection::open(&path).unwrap();
    let count = |sql: &str| look.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert!((1..=2).contains(&count("SELECT count(*) FROM number")));
    open.apply(StoreOp::Free { session: "sess_1".into(), through: 100 });
    open.apply(StoreOp::ForgetJob("job_1".into()));
    open.settle();
    for table in ["number", "segment", "job", "job_state"] {
        assert_eq!(count(&format!("SELECT count(*) FROM {table}")), 0, "{table}");
    }
    drop(look);
    drop(open);
    let kept = Open::new(&path).kept;
    assert_eq!((kept.sessions[0].freed, kept.sessions[0].log.len()), (100, 0));
}

#[test]
fn the_file_gives_back_what_is_forgotten() {
    let folder = folder();
    let path = folder.path().join("arcp.db");
    let mut open = Open::new(&path);
    for seq in 1..=4000 {
        open.apply(StoreOp::Append(record_of("job_1", seq, RecordKind::Event, "x".repeat(5000))));
    }
    open.settle();
    open.apply(StoreOp::ForgetJob("job_1".into()));
    drop(open);
    let size = fs::metadata(&path).unwrap().len();
    assert!(size < 4_000_000, "{size} bytes after 20 MB were forgotten");
    assert!(!path.with_extension("db-wal").exists(), "closing empties the log");
}

#[test]
fn an_inspector_reads_while_the_owner_writes() {
    let folder = folder();
    let path = folder.path().join("arcp.db");
    let missing = Inspector::open(&path).unwrap_err().to_string();
    assert!(missing.contains("there is no database at") && !path.exists(), "{missing}");
    assert!(vacuum(&path, &SqliteOptions::default()).is_err() && !path.exists());

    let mut open = Open::new(&path);
    open.apply(StoreOp::SaveSession(Box::new(session("sess_1"))));
    open.apply(StoreOp::SaveSession(Box::new(session("sess_2"))));
    open.apply(StoreOp::SaveJob(Box::new(job("job_1", "sess_1"))));
    for seq in 1..=10 {
        open.emit("sess_1", seq, &record("job_1", seq));
        open.number("sess_2", seq, &record("job_1", seq));
    }
    open.apply(StoreOp::Free { session: "sess_1".into(), through: 4 });
    open.settle();

    // As the runtime writes it while it lives.
    let sent = |id: &str, event_seq| {
        let kept = session(id);
        let session = Arc::new(SessionName::new(kept.id, kept.seed, kept.profile));
        let receiver = if id == "sess_1" { Receiver::Submitter } else { Receiver::Principal };
        let mut frame = Vec::new();
        Frame::Event { session, event_seq, record: record("job_1", event_seq), receiver }.write(&mut frame);
        String::from_utf8(frame).unwrap()
    };
    let inspector = Inspector::open(&path).unwrap();
    let sessions = inspector.sessions().unwrap();
    assert_eq!((sessions[0].freed, sessions[0].kept, sessions[0].last_event_seq), (4, 6, 10));
    assert_eq!((&sessions[0].jobs[..], sessions[1].jobs.len()), (&["job_1".into()][..], 0));
    let replayed = |id: &str, after| {
        let mut told = Vec::new();
        let replay = inspector.replay(id, after, &mut |one| {
            assert_eq!(one.record.job_seq, one.event_seq);
            let mut frame = Vec::new();
            one.frame().write(&mut frame);
            assert_eq!(String::from_utf8(frame).unwrap(), sent(id, one.event_seq));
            told.push((one.event_seq, one.receiver.is_foreign()));
            if told.len() == 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        (replay, told)
    };
    let (replay, told) = replayed("sess_1", 7);
    assert_eq!(told, [(8, false), (9, false), (10, false)]);
    let replay = replay.unwrap();
    assert_eq!((replay.session, replay.freed, replay.last_event_seq), (session("sess_1"), 4, 10));
    assert_eq!(replayed("sess_2", 0).1, [1, 2, 3, 4, 5].map(|seq| (seq, true)));
    let unknown = replayed("sess_9", 0).0.unwrap_err().to_string();
    assert!(unknown.contains("knows no session \"sess_9\""), "{unknown}");
    let report = inspector.check().unwrap();
    assert_eq!((report.sessions, report.jobs, report.records), (2, 1, 10));
    assert_eq!(report.problems, [] as [String; 0]);

    let copy = folder.path().join("copy.db");
    inspector.backup(&copy).unwrap();
    assert!(inspector.backup(&copy).unwrap_err().to_string().contains("exists"));
    assert_eq!(Open::new(&copy).kept.sessions.len(), 2);
    assert!(
        vacuum(&path, &SqliteOptions::default())
            .unwrap_err()
            .to_string()
            .contains(&format!("pid {}", std::process::id()))
    );
    open.store.close();
    vacuum(&path, &SqliteOptions::default()).unwrap();
    assert_eq!(inspector.sessions().unwrap(), sessions);
}

/// Rules
#[test]
#[cfg(unix)]
fn nobody_else_can_read_the_files() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder();
    let path = folder.path().join("state/arcp/arcp.db");
    let mut open = Open::new(&path);
    open.apply(StoreOp::SaveJob(Box::new(job("job_1", "sess_1"))));
    open.settle();
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for end in ["", "-wal", "-shm", ".lock"] {
        assert_eq!(mode(&folder.path().join(format!("state/arcp/arcp.db{end}"))), 0o600, "{end}");
    }
    assert_eq!((mode(path.parent().unwrap()), mode(&folder.path().join("state"))), (0o700, 0o700));
    let copy = folder.path().join("copy.db");
    Inspector::open(&path).unwrap().backup(&copy).unwrap();
    assert_eq!(mode(&copy), 0o600);
}

#[test]
fn it_keeps_many_thousand_events_a_second() {
    let folder = folder();
    let mut open = Open::new(&folder.path().join("arcp.db"));
    open.apply(StoreOp::SaveSession(Box::new(session("sess_1"))));
    open.apply(StoreOp::SaveJob(Box::new(job("job_1", "sess_1"))));
    let records: Vec<_> = (1..=100_000).map(|seq| record("job_1", seq)).collect();
    let id: Arc<str> = "sess_1".into();
    let started = Instant::now();
    for record in &records {
        open.apply(StoreOp::Append(Arc::clone(record)));
        let session = Arc::clone(&id);
        open.apply(StoreOp::Number { session, event_seq: record.job_seq, record: Arc::clone(record) });
    }
    open.settle();
    let rate = records.len() as f64 / started.elapsed().as_secs_f64();
    // Far below what an idle machine does even without optimisation, which is several hundred thousand.
    assert!(rate > 50_000.0, "{rate:.0} per second");
}
