//! Clients that stop reading.

use std::time::{Duration, Instant};

use arcp::message::ListJobs;
use arcp::{Client, JobStatus};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::raw::{Socket, hear, hello, say};
use crate::support::{BOUND, Place, Server, connected, is_long, order, until};
use crate::ticks::end_of;

/// What a session may buffer (`buffer_cap`), and what the rest of the process may grow by meanwhile.
const CAP: u64 = 64 << 20;
const MARGIN: u64 = 64 << 20;
/// What the agent has to say: more than that.
fn said() -> u64 {
    if is_long() { 512 << 20 } else { 144 << 20 }
}
/// How long an echo of another session may take, on a machine with other work too.
const PATIENCE: Duration = Duration::from_secs(5);

/// A session whose job talks and talks; nothing after the job's acceptance is read.
async fn stops_reading(url: &str, features: &[&str]) -> (Socket, Value) {
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    assert!(say(&mut socket, &hello("h", features)).await);
    let welcome: Value = serde_json::from_str(&hear(&mut socket).await.unwrap()).unwrap();
    assert_eq!(welcome["type"], "session.welcome", "{welcome}");
    let payload = json!({"agent": "chatter", "input": {"bytes": said()}});
    assert!(say(&mut socket, &json!({"arcp": "1.1", "id": "s", "type": "job.submit", "payload": payload})).await);
    let accepted: Value = serde_json::from_str(&hear(&mut socket).await.unwrap()).unwrap();
    assert_eq!(accepted["type"], "job.accepted", "{accepted}");
    (socket, welcome)
}

/// How the talking job stands, and how much it has said.
async fn state(client: &Client) -> (JobStatus, u64) {
    let jobs = client.list_jobs(&ListJobs::default()).await.unwrap().jobs;
    let job = jobs.iter().find(|job| job.agent.starts_with("chatter")).expect("the job is listed");
    (job.status, job.last_event_seq)
}

async fn status(client: &Client) -> JobStatus {
    state(client).await.0
}

/// Watches a server while others use it.
struct Watch {
    base: u64,
    most: u64,
    slowest: Duration,
    echoes: u64,
}

impl Watch {
    async fn new(server: &Server, client: &Client) -> Watch {
        let mut watch = Watch { base: 0, most: 0, slowest: Duration::ZERO, echoes: 0 };
        watch.echo(client).await;
        watch.base = server.memory().await;
        watch
    }

    async fn echo(&mut self, client: &Client) {
        let begun = Instant::now();
        let handle = client.submit(&order("echo", &json!(self.echoes), None), None).await.unwrap();
        assert_eq!(end_of(&handle).await, Ok(json!(self.echoes)));
        self.slowest = self.slowest.max(begun.elapsed());
        self.echoes += 1;
    }

    /// An echo of another session, and a look at the memory.
    async fn look(&mut self, server: &Server, client: &Client) {
        self.echo(client).await;
        self.most = self.most.max(server.memory().await);
        sleep(Duration::from_millis(20)).await;
    }

    fn check(&self, what: &str) {
        let grown = self.most.saturating_sub(self.base);
        eprintln!("{what}: grew by {} MiB; {} echoes, the slowest {:?}", grown >> 20, self.echoes, self.slowest);
        assert!(grown < CAP + MARGIN, "it grew by {grown} bytes");
        assert!(self.slowest < PATIENCE, "an echo of another session took {:?}", self.slowest);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stops_holds_its_own_job_and_nobody_else() {
    let place = Place::new();
    let mut server = place.serve(&[], "ticker:runtime", 0, 1, &["--db", "memory"]);
    let url = server.listening().await;
    let client = connected(&url).await;
    let mut watch = Watch::new(&server, &client).await;
    let (socket, _) = stops_reading(&url, &[]).await;
    let until_then = Instant::now() + Duration::from_secs(if is_long() { 30 } else { 3 });
    while Instant::now() < until_then {
        watch.look(&server, &client).await;
    }
    let mut before = state(&client).await;
    until("the job is held", async || {
        sleep(Duration::from_millis(500)).await;
        let now = state(&client).await;
        std::mem::replace(&mut before, now) == now
    })
    .await;
    assert!(before.0 == JobStatus::Running && before.1 > 1000, "{before:?}");
    // With the reader gone there is nobody to wait for: the oldest go, and the job ends.
    drop(socket);
    while status(&client).await == JobStatus::Running {
        watch.look(&server, &client).await;
    }
    assert_eq!(status(&client).await, JobStatus::Success);
    watch.check("a reader that stops, then goes");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stops_is_given_up_when_it_is_silent_and_its_job_ends() {
    let place = Place::new();
    let mut server = place.serve(&[], "ticker:watchful", 0, 1, &["--db", &place.db()]);
    let url = server.listening().await;
    let client = connected(&url).await;
    let mut watch = Watch::new(&server, &client).await;
    let (mut socket, welcome) = stops_reading(&url, &["heartbeat"]).await;
    while status(&client).await == JobStatus::Running {
        watch.look(&server, &client).await;
    }
    assert_eq!(status(&client).await, JobStatus::Success);
    watch.check("a reader that stops, and is given up");
    // It still holds its end: there are only left-overs on it, without the job's end.
    let left = async {
        while let Some(text) = hear(&mut socket).await {
            assert!(!text.contains("\"job.result\""), "{text}");
        }
    };
    timeout(BOUND, left).await.expect("the connection was not ended");
    // What it missed is more than was kept for it, and it is told so.
    let mut late = hello("late", &[]);
    let payload = &welcome["payload"];
    late["payload"]["resume"] =
        json!({"session_id": payload["session_id"], "resume_token": payload["resume_token"], "last_event_seq": 0});
    let (mut socket, _) = tokio_tungstenite::connect_async(&url).await.unwrap();
    assert!(say(&mut socket, &late).await);
    let answer = hear(&mut socket).await.unwrap();
    assert!(answer.contains("session.error") && answer.contains("RESUME_WINDOW_EXPIRED"), "{answer}");
    until("the server is idle", async || status(&client).await.is_terminal()).await;
    server.stop().await;
}
