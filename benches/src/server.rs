//! The runtime under measurement: the agents the rows need, a store in memory or in a file.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arcp::message::PeerInfo;
use arcp::{
    JobContext, ListenOptions, Listener, ProtocolError, RawJson, Runtime, RuntimeConfig, SqliteOptions, SqliteStore,
    StaticBearerVerifier, event,
};
use tempfile::TempDir;
use tokio::sync::Notify;

use crate::single_threaded;

/// The token every session shows.
pub(crate) const TOKEN: &str = "tok";

/// Bytes of a streamed result, and of each write.
pub(crate) const RESULT: usize = 64_000_000;
const PIECE: usize = 1_000_000;

/// Where records are kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    InMemory,
    /// In a fresh SQLite file, with the settings a store has by default.
    InFile,
}

/// A runtime that listens on loopback.
pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) runtime: Runtime,
    /// Lets one run of the agent `gated` begin.
    pub(crate) gate: Arc<Notify>,
    tokio: tokio::runtime::Runtime,
    folder: Option<TempDir>,
}

impl Server {
    /// On one thread.
    pub(crate) fn start(kept: Kept) -> Self {
        Server::start_on(single_threaded(), kept)
    }

    pub(crate) fn start_on(tokio: tokio::runtime::Runtime, kept: Kept) -> Self {
        let mut config = RuntimeConfig::new(peer("bench"));
        // All the sessions of a row belong to one principal.
        config.max_sessions_per_principal = 4096;
        let verifier = StaticBearerVerifier::new([(TOKEN, "me")]);
        let (runtime, folder) = match kept {
            Kept::InMemory => (Runtime::new(config, verifier), None),
            Kept::InFile => {
                let folder = tempfile::tempdir().unwrap();
                let store = SqliteStore::new(folder.path().join("bench.db"), SqliteOptions::default());
                (Runtime::with_store(config, Arc::new(verifier), Box::new(store)).unwrap(), Some(folder))
            }
        };
        let gate = Arc::new(Notify::new());
        register(&runtime, &gate);
        let serving = runtime.clone();
        let url = tokio.block_on(async move {
            let listener = Listener::bind(ListenOptions { port: 0, ..ListenOptions::default() }).await.unwrap();
            let url = listener.url().to_owned();
            tokio::spawn(async move { serving.serve(listener).await });
            url
        });
        Server { url, runtime, gate, tokio, folder }
    }

    /// Waits until the runtime is so far, and checks often.
    pub(crate) async fn until(&self, what: &str, reached: impl Fn(&arcp::RuntimeStats) -> bool) {
        let start = Instant::now();
        while !reached(&self.runtime.stats()) {
            assert!(start.elapsed() < Duration::from_secs(30), "not reached: {what}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The store lets go of its file before the folder goes.
        if self.folder.is_some() {
            self.tokio.block_on(self.runtime.shutdown("measured", Duration::from_secs(1)));
        }
    }
}

pub(crate) fn peer(name: &str) -> PeerInfo {
    PeerInfo { name: name.into(), version: "1".into() }
}

fn register(runtime: &Runtime, gate: &Arc<Notify>) {
    runtime.register_agent("echo", async |input: RawJson, _: JobContext| Ok::<_, ProtocolError>(input)).unwrap();
    runtime.register_agent("stream", |input, ctx| async move { emit(input, &ctx).await }).unwrap();
    let gate = Arc::clone(gate);
    runtime
        .register_agent("gated", move |input: RawJson, ctx: JobContext| {
            let gate = Arc::clone(&gate);
            async move {
                gate.notified().await;
                emit(input, &ctx).await
            }
        })
        .unwrap();
    runtime.register_agent("text", |_: RawJson, ctx| async move { stream_result(&ctx, false).await }).unwrap();
    runtime.register_agent("bytes", |_: RawJson, ctx| async move { stream_result(&ctx, true).await }).unwrap();
}

/// As many log events as the input says, each about the length of the raw frames.
async fn emit(input: RawJson, ctx: &JobContext) -> Result<RawJson, ProtocolError> {
    let count: u64 = input.get().parse().map_err(|_| ProtocolError::invalid("input must be a count"))?;
    for i in 0..count {
        let body = event::log("info", &format!("line {i}"), None)?;
        ctx.emit("log", &body).await?;
    }
    Ok(input)
}

async fn stream_result(ctx: &JobContext, binary: bool) -> Result<RawJson, ProtocolError> {
    let piece = "0123456789".repeat(PIECE / 10);
    let mut writer = ctx.stream_result()?;
    for _ in 0..RESULT / PIECE {
        if binary {
            writer.write_bytes(piece.as_bytes()).await?;
        } else {
            writer.write_text(&piece).await?;
        }
    }
    writer.finish(None)?;
    Ok(RawJson::null())
}
