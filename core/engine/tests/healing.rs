//! A client over links that break, against a runtime by hand.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use arcp_engine::transport::{
    ConnectOptions, MemoryTransport, Received, Reopen, Reopening, Transport, TransportError, WebSocketTransport, join,
    pair_memory_transports,
};
use arcp_engine::{Client, ConnectionState, Error, JobHandle, ListenOptions, Listener};
use arcp_proto::ErrorCode;
use arcp_proto::json::RawJson;
use arcp_proto::machine::client::{Backoff, ClientConfig};
use arcp_proto::message::{ListJobs, PeerInfo, Resume, Submit};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// No wait of a test is longer.
const BOUND: Duration = Duration::from_secs(20);
const JOB: &str = "job_1";

/// Where a client finds its runtime again.
struct Door {
    ends: mpsc::UnboundedSender<MemoryTransport>,
    /// So many attempts fail first.
    shut: AtomicUsize,
    asked: AtomicUsize,
    closed: AtomicBool,
}

impl Door {
    fn new() -> (Arc<Door>, mpsc::UnboundedReceiver<MemoryTransport>) {
        let (ends, arrivals) = mpsc::unbounded_channel();
        let door = Door { ends, shut: AtomicUsize::new(0), asked: AtomicUsize::new(0), closed: AtomicBool::new(false) };
        (Arc::new(door), arrivals)
    }

    fn open(self: &Arc<Self>) -> Link {
        let (ours, theirs) = pair_memory_transports();
        self.ends.send(theirs).unwrap();
        Link { inner: ours, door: Arc::clone(self) }
    }
}

struct Opener(Arc<Door>);

impl Reopen for Opener {
    fn reopen(&self) -> Reopening<'_> {
        Box::pin(async {
            self.0.asked.fetch_add(1, Ordering::SeqCst);
            let shut = self.0.shut.load(Ordering::SeqCst);
            if shut > 0 {
                self.0.shut.store(shut - 1, Ordering::SeqCst);
                return Err(TransportError("the door is shut".into()));
            }
            Ok(Box::new(self.0.open()) as Box<dyn Transport>)
        })
    }

    fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::SeqCst)
    }
}

struct Link {
    inner: MemoryTransport,
    door: Arc<Door>,
}

impl Transport for Link {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Received, TransportError>>> {
        self.inner.poll_recv(cx)
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.inner.poll_ready(cx)
    }

    fn start_send(&mut self, frame: Bytes) -> Result<(), TransportError> {
        self.inner.start_send(frame)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.inner.poll_flush(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.inner.poll_close(cx)
    }

    fn reopener(&self) -> Option<Arc<dyn Reopen>> {
        Some(Arc::new(Opener(Arc::clone(&self.door))))
    }
}

/// The runtime's end of one connection; dropping it cuts the link.
struct Peer {
    incoming: mpsc::Receiver<Bytes>,
    outgoing: mpsc::Sender<Bytes>,
}

impl Peer {
    fn over(end: MemoryTransport) -> Peer {
        let (incoming, outgoing) = end.into_queues();
        Peer { incoming, outgoing: outgoing.unwrap() }
    }

    async fn arrives(arrivals: &mut mpsc::UnboundedReceiver<MemoryTransport>) -> Peer {
        Peer::over(timeout(BOUND, arrivals.recv()).await.unwrap().unwrap())
    }

    /// The next message that is not an ack.
    async fn hears(&mut self, kind: &str) -> Value {
        loop {
            let frame = timeout(BOUND, self.incoming.recv()).await.unwrap().unwrap();
            let frame: Value = serde_json::from_slice(&frame).unwrap();
            if frame["type"] == "session.ack" && kind != "session.ack" {
                continue;
            }
            assert_eq!(frame["type"], kind, "{frame}");
            return frame;
        }
    }

    async fn says(&self, mut message: Value) {
        message["arcp"] = "1.1".into();
        message["session_id"] = "sess_1".into();
        if message["id"].is_null() {
            message["id"] = format!("r{}", message["event_seq"]).into();
        }
        self.outgoing.send(message.to_string().into()).await.unwrap();
    }

    async fn welcomes(&self, token: &str) {
        let features = ["ack", "subscribe", "list_jobs", "result_chunk"];
        self.says(json!({"type": "session.welcome", "payload": {
            "session_id": "sess_1", "runtime": {"name": "r", "version": "1"}, "resume_token": token,
            "resume_window_sec": 600, "capabilities": {"encodings": ["json"], "features": features, "agents": []},
        }}))
        .await;
    }

    async fn accepts(&mut self) -> String {
        let submit = self.hears("job.submit").await;
        let id = submit["id"].as_str().unwrap().to_owned();
        let payload = json!({"job_id": JOB, "agent": "echo", "lease": {}, "request_id": id});
        self.says(json!({"type": "job.accepted", "job_id": JOB, "payload": payload})).await;
        id
    }

    async fn tells(&self, seq: u64) {
        let body = json!({"level": "info", "message": format!("m{seq}")});
        self.tells_of(seq, "log", body).await;
    }

    async fn tells_of(&self, seq: u64, kind: &str, body: Value) {
        let payload = json!({"kind": kind, "ts": "2026-05-13T19:30:01.000Z", "body": body});
        self.says(json!({"type": "job.event", "job_id": JOB, "event_seq": seq, "payload": payload})).await;
    }

    async fn ends(&self, seq: u64, mut payload: Value) {
        payload["final_status"] = "success".into();
        self.says(json!({"type": "job.result", "job_id": JOB, "event_seq": seq, "payload": payload})).await;
    }
}

fn client(change: impl FnOnce(&mut ClientConfig)) -> Client {
    let mut config = ClientConfig::new(PeerInfo { name: "client".into(), version: "1".into() });
    let (initial, max) = (Duration::from_millis(2), Duration::from_millis(20));
    config.reconnect = Some(Backoff { initial, max, give_up_after: Some(BOUND) });
    change(&mut config);
    Client::new(config)
}

/// A client with a session, and the runtime's end of it.
async fn session(change: impl FnOnce(&mut ClientConfig)) -> Session {
    let (door, mut arrivals) = Door::new();
    let client = client(change);
    let link = door.open();
    let connecting = tokio::spawn({
        let client = client.clone();
        async move { client.connect(link, "tok").await }
    });
    let mut peer = Peer::arrives(&mut arrivals).await;
    peer.hears("session.hello").await;
    peer.welcomes("rt_1").await;
    connecting.await.unwrap().unwrap();
    Session { door, arrivals, client, peer }
}

struct Session {
    door: Arc<Door>,
    arrivals: mpsc::UnboundedReceiver<MemoryTransport>,
    client: Client,
    peer: Peer,
}

impl Session {
    async fn submits(&mut self) -> JobHandle {
        let submitting = tokio::spawn({
            let client = self.client.clone();
            async move { client.submit(&Submit::new("echo", RawJson::null()), None).await }
        });
        self.peer.accepts().await;
        submitting.await.unwrap().unwrap()
    }

    /// Cuts the link and waits for the hello over the next.
    async fn cut(&mut self) -> Value {
        // The old end must be gone before the next is waited for.
        let (lost, _) = mpsc::channel(1);
        self.peer.outgoing = lost;
        self.peer.incoming.close();
        self.comes_back().await
    }

    async fn comes_back(&mut self) -> Value {
        self.peer = Peer::arrives(&mut self.arrivals).await;
        self.peer.hears("session.hello").await
    }
}

fn reading(handle: &JobHandle) -> tokio::task::JoinHandle<Vec<u64>> {
    let handle = handle.clone();
    tokio::spawn(async move {
        let mut numbers = Vec::new();
        while let Some(event) = handle.next_event().await {
            numbers.push(event.event_seq);
        }
        numbers
    })
}

/// Rules: R-8.3.4
#[tokio::test]
async fn an_iterator_goes_on_over_cuts_and_gaps() {
    let mut session = session(|_| {}).await;
    let handle = session.submits().await;
    let numbers = reading(&handle);
    session.peer.tells(1).await;
    session.peer.tells(2).await;
    while session.client.latest_event_seq() < 2 {
        sleep(Duration::from_millis(1)).await;
    }
    let hello = session.cut().await;
    let resume = json!({"session_id": "sess_1", "resume_token": "rt_1", "last_event_seq": 2});
    assert_eq!(hello["payload"]["resume"], resume);
    session.peer.welcomes("rt_2").await;
    session.peer.tells(2).await;
    session.peer.tells(3).await;
    // Number 4 is missing: the client itself closes this connection.
    session.peer.tells(5).await;
    let hello = session.comes_back().await;
    let resume = json!({"session_id": "sess_1", "resume_token": "rt_2", "last_event_seq": 3});
    assert_eq!(hello["payload"]["resume"], resume);
    session.peer.welcomes("rt_3").await;
    for seq in 4..=6 {
        session.peer.tells(seq).await;
    }
    session.peer.ends(7, json!({"result": 1})).await;
    assert_eq!(timeout(BOUND, numbers).await.unwrap().unwrap(), [1, 2, 3, 4, 5, 6]);
    assert_eq!(handle.result().await.unwrap().result.unwrap().get(), "1");
    // Acks come now and then; the last is of everything.
    while session.peer.hears("session.ack").await["payload"]["last_processed_seq"] != 7 {}
}

#[tokio::test]
async fn requests_made_without_a_link_wait_for_the_next() {
    let mut session = session(|_| {}).await;
    let mut state = session.client.connection_state();
    session.door.shut.store(3, Ordering::SeqCst);
    drop(session.peer);
    let tried = |state: &ConnectionState| matches!(state, ConnectionState::Reconnecting { attempt: 2.., .. });
    timeout(BOUND, state.wait_for(tried)).await.unwrap().unwrap();
    assert!(session.client.welcome().is_some());
    let submitting = tokio::spawn({
        let client = session.client.clone();
        async move { client.submit(&Submit::new("echo", RawJson::null()), None).await }
    });
    session.peer = Peer::arrives(&mut session.arrivals).await;
    session.peer.hears("session.hello").await;
    session.peer.welcomes("rt_2").await;
    session.peer.accepts().await;
    assert_eq!(timeout(BOUND, submitting).await.unwrap().unwrap().unwrap().job_id(), JOB);
    assert!(matches!(*state.borrow(), ConnectionState::Open(_)));
    assert_eq!(session.door.asked.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn an_answer_lost_with_the_link_is_asked_for_again() {
    let mut session = session(|_| {}).await;
    let submitting = tokio::spawn({
        let client = session.client.clone();
        async move { client.submit(&Submit::new("echo", RawJson::null()), None).await }
    });
    let first = session.peer.hears("job.submit").await;
    session.cut().await;
    session.peer.welcomes("rt_2").await;
    session.peer.tells(1).await;
    let id = session.peer.accepts().await;
    assert_eq!(first["id"], id);
    let handle = timeout(BOUND, submitting).await.unwrap().unwrap().unwrap();
    assert_eq!(timeout(BOUND, handle.next_event()).await.unwrap().unwrap().event_seq, 1);
}

#[tokio::test]
async fn a_token_is_asked_for_anew_and_may_fail_for_a_while() {
    let (door, mut arrivals) = Door::new();
    let client = client(|_| {});
    let asked = Arc::new(AtomicUsize::new(0));
    let source = {
        let asked = Arc::clone(&asked);
        move || {
            let n = asked.fetch_add(1, Ordering::SeqCst);
            async move { if n == 1 { Err(Error::Transport("the issuer is away".into())) } else { Ok(format!("tok-{n}")) } }
        }
    };
    let link = door.open();
    let connecting = tokio::spawn({
        let client = client.clone();
        async move { client.connect(link, source).await }
    });
    let mut peer = Peer::arrives(&mut arrivals).await;
    assert_eq!(peer.hears("session.hello").await["payload"]["auth"]["token"], "tok-0");
    peer.welcomes("rt_1").await;
    connecting.await.unwrap().unwrap();
    drop(peer);
    let mut peer = Peer::arrives(&mut arrivals).await;
    assert_eq!(peer.hears("session.hello").await["payload"]["auth"]["token"], "tok-2");
    assert_eq!(door.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_link_that_stays_away_ends_everything_with_the_reason() {
    let bound = Duration::from_millis(300);
    let mut session = session(|config| {
        config.reconnect.as_mut().unwrap().give_up_after = Some(bound);
    })
    .await;
    let handle = session.submits().await;
    session.door.shut.store(usize::MAX, Ordering::SeqCst);
    drop(session.peer);
    let error = timeout(BOUND, handle.result()).await.unwrap().unwrap_err();
    assert!(matches!(&error, Error::Transport(why) if why.contains("the door is shut")), "{error}");
    assert!(session.client.submit(&Submit::new("echo", RawJson::null()), None).await.is_err());
    assert!(matches!(timeout(BOUND, session.client.closed()).await.unwrap(), Error::Transport(_)));
}

#[tokio::test]
async fn a_token_that_is_no_longer_valid_ends_everything_with_its_code() {
    let mut session = session(|_| {}).await;
    let handle = session.submits().await;
    session.cut().await;
    let payload = json!({"code": "UNAUTHENTICATED", "message": "no", "retryable": false});
    session.peer.says(json!({"type": "session.error", "payload": payload})).await;
    let error = timeout(BOUND, handle.result()).await.unwrap().unwrap_err();
    assert_eq!(error.protocol().map(|error| &error.code), Some(&ErrorCode::Unauthenticated));
}

#[tokio::test]
async fn a_close_without_a_link_is_at_once_and_ends_the_task() {
    let mut session = session(|_| {}).await;
    let handle = session.submits().await;
    session.door.shut.store(usize::MAX, Ordering::SeqCst);
    drop(session.peer);
    let mut state = session.client.connection_state();
    let cut = |state: &ConnectionState| matches!(state, ConnectionState::Reconnecting { .. });
    timeout(BOUND, state.wait_for(cut)).await.unwrap().unwrap();
    timeout(Duration::from_secs(1), session.client.close("done")).await.unwrap();
    assert!(matches!(handle.result().await, Err(Error::Closed(_))));
    released(&session.door).await;
}

#[tokio::test]
async fn a_client_nobody_holds_stops_connecting() {
    let session = session(|_| {}).await;
    session.door.shut.store(usize::MAX, Ordering::SeqCst);
    drop(session.peer);
    drop(session.client);
    released(&session.door).await;
}

/// Waits until nobody but the test holds the door.
async fn released(door: &Arc<Door>) {
    let gone = async {
        while Arc::strong_count(door) > 1 {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(BOUND, gone).await.unwrap();
}

#[tokio::test]
async fn a_transport_the_application_closed_is_not_opened_again() {
    let mut session = session(|_| {}).await;
    let handle = session.submits().await;
    session.door.closed.store(true, Ordering::SeqCst);
    drop(session.peer);
    assert!(matches!(timeout(BOUND, handle.result()).await.unwrap(), Err(Error::Closed(_))));
    assert_eq!(session.door.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_fresh_client_takes_up_a_session_and_its_jobs() {
    let (door, mut arrivals) = Door::new();
    let client = client(|_| {});
    let link = door.open();
    let resume = Resume { session_id: "sess_1".into(), resume_token: "rt_old".into(), last_event_seq: 4 };
    let connecting = tokio::spawn({
        let client = client.clone();
        async move { client.connect_resuming(link, "tok", resume).await }
    });
    let mut peer = Peer::arrives(&mut arrivals).await;
    let hello = peer.hears("session.hello").await;
    assert_eq!(hello["payload"]["resume"]["resume_token"], "rt_old");
    peer.welcomes("rt_1").await;
    connecting.await.unwrap().unwrap();
    peer.tells(5).await;
    peer.tells(6).await;
    while client.latest_event_seq() < 6 {
        sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(client.jobs(), [JOB]);
    let handle = client.job(JOB).unwrap();
    peer.ends(7, json!({"result": true})).await;
    assert_eq!(timeout(BOUND, reading(&handle)).await.unwrap().unwrap(), [5, 6]);
    assert_eq!(handle.result_value().await.unwrap().get(), "true");
    let other = session(|_| {}).await;
    assert_eq!(other.client.job(JOB).err().unwrap().protocol().unwrap().code, ErrorCode::InvalidRequest);
}

#[tokio::test]
async fn a_page_of_jobs_is_asked_for_and_answered() {
    let mut session = session(|_| {}).await;
    let listing = tokio::spawn({
        let client = session.client.clone();
        async move { client.list_jobs(&ListJobs { limit: Some(2), ..ListJobs::default() }).await }
    });
    let request = session.peer.hears("session.list_jobs").await;
    assert_eq!(request["payload"], json!({"limit": 2}));
    let payload = json!({"request_id": request["id"], "jobs": [], "next_cursor": "c"});
    session.peer.says(json!({"type": "session.jobs", "payload": payload})).await;
    assert_eq!(timeout(BOUND, listing).await.unwrap().unwrap().unwrap().next_cursor.as_deref(), Some("c"));
}

fn chunk(seq: u64, data: &str, more: bool) -> Value {
    json!({"result_id": "res_1", "chunk_seq": seq, "data": data, "encoding": "utf8", "more": more})
}

#[tokio::test]
async fn a_streamed_result_is_had_whole_or_chunk_by_chunk() {
    for by_chunks in [false, true] {
        let mut session = session(|config| config.max_result_bytes = 16).await;
        let handle = session.submits().await;
        let taking = by_chunks.then(|| {
            let handle = handle.clone();
            tokio::spawn(async move {
                let mut all = Vec::new();
                while let Some(chunk) = handle.next_chunk().await.unwrap() {
                    all.extend(chunk.data);
                }
                String::from_utf8(all).unwrap()
            })
        });
        session.peer.tells_of(1, "result_chunk", chunk(0, "{\"a\":", true)).await;
        session.peer.tells(2).await;
        session.peer.tells_of(3, "result_chunk", chunk(1, "[1]}", false)).await;
        session.peer.ends(4, json!({"result_id": "res_1", "result_size": 9})).await;
        match taking {
            Some(taking) => {
                assert_eq!(timeout(BOUND, taking).await.unwrap().unwrap(), "{\"a\":[1]}");
                assert!(handle.result_bytes().await.is_err());
            }
            None => {
                assert_eq!(timeout(BOUND, handle.result_bytes()).await.unwrap().unwrap(), "{\"a\":[1]}");
                assert_eq!(handle.result_value().await.unwrap().get(), "{\"a\":[1]}");
            }
        }
        assert_eq!(handle.result().await.unwrap().result_id.as_deref(), Some("res_1"));
    }
}

/// Rules: R-8.4.13
#[tokio::test]
async fn a_streamed_result_over_the_bound_says_what_to_do() {
    let mut session = session(|config| config.max_result_bytes = 4).await;
    let handle = session.submits().await;
    session.peer.tells_of(1, "result_chunk", chunk(0, "12345", false)).await;
    session.peer.ends(2, json!({"result_id": "res_1", "result_size": 5})).await;
    let error = timeout(BOUND, handle.result()).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("max_result_bytes"), "{error}");
}

#[tokio::test]
async fn a_handle_nobody_reads_is_bounded_in_bytes() {
    let mut session = session(|_| {}).await;
    let handle = session.submits().await;
    for seq in 1..=20 {
        session.peer.tells_of(seq, "thought", json!({"text": "x".repeat(1 << 20)})).await;
    }
    session.peer.ends(21, json!({"result": 1})).await;
    timeout(BOUND, handle.result()).await.unwrap().unwrap();
    let numbers = timeout(BOUND, reading(&handle)).await.unwrap().unwrap();
    assert_eq!(numbers, (6..=20).collect::<Vec<u64>>());
    assert_eq!(handle.dropped(), 5);
}

#[tokio::test]
async fn a_websocket_knows_its_way_back() {
    let mut listener = Listener::bind(ListenOptions { port: 0, ..ListenOptions::default() }).await.unwrap();
    let url = listener.url().to_owned();
    let (arrive, mut arrivals) = mpsc::unbounded_channel();
    let accepting = tokio::spawn(async move {
        while let Some(transport) = listener.accept().await {
            let (left, right) = pair_memory_transports();
            arrive.send(right).unwrap();
            tokio::spawn(join(transport, left));
        }
    });
    let client = client(|_| {});
    let transport = WebSocketTransport::connect(&url, ConnectOptions::default()).await.unwrap();
    let connecting = tokio::spawn({
        let client = client.clone();
        async move { client.connect(transport, "tok").await }
    });
    let mut peer = Peer::arrives(&mut arrivals).await;
    peer.hears("session.hello").await;
    peer.welcomes("rt_1").await;
    connecting.await.unwrap().unwrap();
    for token in ["rt_1", "rt_2", "rt_3"] {
        drop(peer);
        peer = Peer::arrives(&mut arrivals).await;
        let hello = peer.hears("session.hello").await;
        assert_eq!(hello["payload"]["resume"]["resume_token"], token);
        let next = ["rt_2", "rt_3", "rt_4"][["rt_1", "rt_2", "rt_3"].iter().position(|known| *known == token).unwrap()];
        peer.welcomes(next).await;
        let mut state = client.connection_state();
        timeout(BOUND, state.wait_for(|state| matches!(state, ConnectionState::Open(_)))).await.unwrap().unwrap();
    }
    accepting.abort();
}
