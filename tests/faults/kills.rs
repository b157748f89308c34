//! SIGKILL at any moment, with many jobs under way.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use arcp::store::sqlite::Inspector;
use arcp::{Client, ErrorCode, Subscribe};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::raw::Raw;
use crate::support::{Chance, Place, connected, is_long, number, order, port_of, printed, until};
use crate::ticks::{Ended, Ticks, Told, end_of, follow};

/// Sessions, and jobs of each at any time: half of them outlive the process. Two jobs of a client by hand come on top.
const SESSIONS: u64 = 4;
const JOBS: u64 = 5;
const BY_HAND: &str = "by-hand";

/// A job that was submitted, and what came of it.
struct Ran {
    session: u64,
    agent: &'static str,
    key: String,
    input: Value,
    job_id: String,
    told: Told,
}

/// What all tasks of the run share.
struct Run {
    stopping: AtomicBool,
    seen: Arc<AtomicU64>,
}

/// Keeps one job under way: a restartable one to its end, others one after the other.
async fn keep_busy(run: Arc<Run>, client: Client, session: u64, place: u64, mut chance: Chance) -> Vec<Ran> {
    let agent = if place.is_multiple_of(2) { "again" } else { "once" };
    let mut all = Vec::new();
    for round in 0.. {
        let ticks = (agent == "once" && chance.below(3) > 0).then(|| chance.below(100));
        let (input, key) = (json!({"ticks": ticks}), format!("{session}-{place}-{round}"));
        let handle = client.submit(&order(agent, &input, Some(&key)), None).await;
        let handle = handle.unwrap_or_else(|error| panic!("submit {key}: {error}"));
        let told = follow(&handle, &run.seen).await;
        all.push(Ran { session, agent, key, input, job_id: handle.job_id().into(), told });
        if agent == "again" || run.stopping.load(Ordering::SeqCst) {
            break;
        }
    }
    all
}

/// The client by hand, until its last jobs have ended.
async fn by_hand(run: Arc<Run>, url: String, chance: Chance) -> Raw {
    let mut raw = Raw::new(&url, chance);
    raw.submit("again", &json!({"ticks": null}), BY_HAND);
    let mut round = 0;
    loop {
        let stopping = run.stopping.load(Ordering::SeqCst);
        let idle = raw.unanswered.is_empty();
        if idle && raw.jobs.len() == raw.ended.len() && stopping {
            return raw;
        }
        // The restartable one runs; the other is submitted anew.
        if idle && raw.jobs.len() <= raw.ended.len() + 1 && !stopping {
            round += 1;
            raw.submit("once", &json!({"ticks": 300}), &format!("{BY_HAND}-{round}"));
        }
        let enough = usize::from(!stopping);
        raw.connection(|raw| raw.unanswered.is_empty() && raw.jobs.len() <= raw.ended.len() + enough).await;
    }
}

/// That a job ended as its agent must, given what it said before.
fn check_end(ran: &Ran) {
    let Ran { agent, job_id, told: Told { ticks: Ticks(lives), ended, .. }, .. } = ran;
    match ended {
        Ok(result) => {
            let (life, ticks) = (result["life"].as_u64().unwrap(), result["ticks"].as_u64().unwrap());
            // A last run may have had nothing to say.
            let said = lives.last().filter(|(last, _)| *last == life).map_or(0, |(_, count)| *count);
            assert_eq!(said, ticks, "{job_id} ended with {result} after {lives:?}");
        }
        Err(error) => {
            assert_eq!((*agent, error), ("once", &(ErrorCode::InternalError, true)), "{job_id} after {lives:?}");
        }
    }
    assert!(*agent == "again" || lives.len() <= 1, "{job_id} was run again: {lives:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_killed_nothing_is_lost_doubled_or_left_open() {
    let kills = number("ARCP_FAULTS_KILLS").unwrap_or(if is_long() { 100 } else { 6 });
    let (begun, mut chance) = (Instant::now(), Chance::new("kills"));
    let place = Place::new();
    let db = place.db();
    let serve = |port, life| place.serve(&[], "ticker:runtime", port, life, &["--db", &db]);
    let mut life = 1;
    let mut server = serve(0, life);
    let url = server.listening().await;

    let run = Arc::new(Run { stopping: AtomicBool::new(false), seen: Arc::default() });
    let (mut clients, mut busy) = (Vec::new(), JoinSet::new());
    for session in 0..SESSIONS {
        let client = connected(&url).await;
        for slot in 0..JOBS {
            busy.spawn(keep_busy(Arc::clone(&run), client.clone(), session, slot, chance.split()));
        }
        let id = client.welcome().unwrap().session_id.clone();
        clients.push((client, id));
    }
    let raw = tokio::spawn(by_hand(Arc::clone(&run), url.clone(), chance.split()));
    // One more watches a restartable job of another session.
    let watcher = connected(&url).await;
    let find = async || watcher.list_jobs(&arcp::message::ListJobs::default()).await.unwrap().jobs;
    let mut watched = None;
    until("a restartable job is listed", async || {
        watched = find().await.into_iter().find(|job| job.agent.starts_with("again")).map(|job| job.job_id);
        watched.is_some()
    })
    .await;
    let request = Subscribe { job_id: watched.clone().unwrap(), from_event_seq: None, history: true };
    let subscription = watcher.subscribe(&request).await.unwrap();
    let watching = tokio::spawn(async move { follow(subscription.handle(), &AtomicU64::new(0)).await });

    let mut unborn = 0;
    for _ in 0..kills {
        // Most die at work, some while they start.
        if chance.below(4) > 0 || life == 1 {
            if life > 1 {
                server.listening().await;
            }
            let before = run.seen.load(Ordering::Relaxed);
            until("the jobs go on", async || run.seen.load(Ordering::Relaxed) > before).await;
            sleep(chance.millis(800)).await;
        } else {
            unborn += 1;
            sleep(chance.millis(800)).await;
        }
        server.kill().await;
        life += 1;
        server = serve(port_of(&url), life);
    }
    server.listening().await;
    let before = run.seen.load(Ordering::Relaxed);
    until("the jobs go on", async || run.seen.load(Ordering::Relaxed) > before).await;
    run.stopping.store(true, Ordering::SeqCst);
    place.stop();

    let all: Vec<Ran> = busy.join_all().await.into_iter().flatten().collect();
    let raw = raw.await.unwrap();
    raw.check();
    assert!(raw.resumes > 0 && raw.compared > 0);
    for (session, (client, id)) in clients.iter().enumerate() {
        assert_eq!(client.welcome().unwrap().session_id, *id, "a session was lost");
        // Every number once: an event's, or that of a job's end.
        let of_it: Vec<&Ran> = all.iter().filter(|ran| ran.session == session as u64).collect();
        let numbers: BTreeSet<u64> = of_it.iter().flat_map(|ran| ran.told.numbers.iter().copied()).collect();
        let events: usize = of_it.iter().map(|ran| ran.told.numbers.len()).sum();
        assert_eq!(numbers.len(), events, "a number came twice");
        assert_eq!((events + of_it.len()) as u64, client.latest_event_seq(), "a number is missing");
    }
    all.iter().for_each(check_end);
    let watched = all.iter().find(|ran| Some(&ran.job_id) == watched.as_ref());
    let seen = watching.await.unwrap();
    // The one by hand has no entry among these.
    if let Some(watched) = watched {
        assert_eq!((&seen.ticks, &seen.ended), (&watched.told.ticks, &watched.told.ended));
    }

    check_keys(&url, &all, &raw).await;
    server.stop().await;
    check_file(&db, &raw).await;
    let ends = |is: fn(&Ended) -> bool| all.iter().filter(|ran| is(&ran.told.ended)).count();
    eprintln!(
        "kills: {kills} ({unborn} before it listened) in {:.0} s; {} jobs ended, {} of them with their process; {} ticks; \
         by hand: {} messages, {} resumes, {} replayed messages compared",
        begun.elapsed().as_secs_f64(),
        all.len() + raw.jobs.len(),
        ends(Result::is_err),
        all.iter().map(|ran| ran.told.ticks.total()).sum::<u64>(),
        raw.frames.len(),
        raw.resumes,
        raw.compared,
    );
}

/// Every key gives the same job, and the same end of it, to another session.
async fn check_keys(url: &str, all: &[Ran], raw: &Raw) {
    let client = connected(url).await;
    for ran in all {
        let handle = client.submit(&order(ran.agent, &ran.input, Some(&ran.key)), None).await.unwrap();
        assert_eq!((handle.job_id(), end_of(&handle).await), (&*ran.job_id, ran.told.ended.clone()));
    }
    for (key, job_id) in &raw.jobs {
        let (agent, ticks) = if key == BY_HAND { ("again", Value::Null) } else { ("once", json!(300)) };
        let handle = client.submit(&order(agent, &json!({ "ticks": ticks }), Some(key)), None).await.unwrap();
        assert_eq!(handle.job_id(), job_id);
        end_of(&handle).await.ok();
    }
    client.close("done").await;
}

/// What is in the file is sound, without gaps, and what the client by hand was sent.
async fn check_file(db: &str, raw: &Raw) {
    let inspector = Inspector::open(db).unwrap();
    assert_eq!(inspector.check().unwrap().problems, [] as [String; 0]);
    for session in inspector.sessions().unwrap() {
        assert_eq!(session.freed + session.kept, session.last_event_seq);
    }
    let kept = printed(&["replay", "--db", db, "--session", raw.session_id(), "--after-seq", "0"]).await;
    let mut expected = None;
    for line in kept.lines() {
        let number = serde_json::from_str::<Value>(line).unwrap()["event_seq"].as_u64().unwrap();
        assert!(expected.is_none_or(|expected| expected == number), "the file has a gap before {number}");
        assert_eq!(raw.frames[&number], line, "number {number} is not as it was sent");
        expected = Some(number + 1);
    }
    assert_eq!(expected, raw.frames.last_key_value().map(|(last, _)| last + 1));
}
