//! The program as processes, and a runtime in this process for it to talk to.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

pub(crate) mod folder;

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use arcp::{
    CancelPolicy, JobContext, ListenOptions, Listener, ProtocolError, RawJson, Runtime, RuntimeConfig, RuntimeInfo,
    StaticBearerVerifier,
};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub(crate) const TOKEN: &str = "tok-5ecret";
/// No folder can be made here.
const NOWHERE: &str = "/dev/null/nowhere";
pub(crate) const BOUND: Duration = Duration::from_secs(20);

/// The program, with nothing of this process's settings in its way, and no place for a database that is not named.
pub(crate) fn arcp<'a>(args: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_arcp"));
    command
        .args(args)
        .env_remove("ARCP_TOKEN")
        .env_remove("ARCP_DB_KEY_FILE")
        .env("HOME", NOWHERE)
        .env_remove("XDG_STATE_HOME")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// What a process printed, and its exit status.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// Whatever happens, the program neither panics nor shows a token.
    fn checked(status: Option<i32>, stdout: String, stderr: String) -> Ran {
        let ran = Ran { status: status.expect("it ended by a signal"), stdout, stderr };
        for text in [&ran.stdout, &ran.stderr] {
            assert!(!text.contains(TOKEN) && !text.contains("panicked"), "{ran:?}");
        }
        ran
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// One value per line of stdout.
    pub(crate) fn json_lines(&self) -> Vec<serde_json::Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{self:?}"))).collect()
    }

    /// The job id that `submit` printed on stderr.
    pub(crate) fn job_id(&self) -> &str {
        self.stderr.trim().strip_prefix("job ").unwrap_or_else(|| panic!("{self:?}"))
    }
}

pub(crate) async fn run(args: &[&str]) -> Ran {
    finish(&mut arcp(args.iter().copied())).await
}

pub(crate) async fn finish(command: &mut Command) -> Ran {
    let output = timeout(BOUND, command.output()).await.expect("it did not end in time").unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran::checked(output.status.code(), text(output.stdout), text(output.stderr))
}

/// `submit`, `tail` or `cancel` with its session arguments.
pub(crate) fn session<'a>(command: &'a str, url: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&[command, "--url", url, "--token", TOKEN], more].concat()
}

/// Runs what must fail with this status, and returns the one line it says.
pub(crate) async fn fails(args: &[&str], status: i32) -> String {
    one_line(&run(args).await, status)
}

pub(crate) fn one_line(ran: &Ran, status: i32) -> String {
    assert_eq!(ran.status, status, "{ran:?}");
    let mut lines = ran.stderr.lines().filter(|line| !line.starts_with("job "));
    let line = lines.next().unwrap_or_else(|| panic!("{ran:?}"));
    assert!(line.starts_with("arcp: ") && lines.next().is_none(), "{ran:?}");
    line.to_owned()
}

/// A process that is watched while it runs.
pub(crate) struct Running {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    stderr: Lines<BufReader<ChildStderr>>,
    seen: (String, String),
}

impl Running {
    pub(crate) fn start(args: &[&str]) -> Running {
        Running::spawn(arcp(args.iter().copied()))
    }

    pub(crate) fn spawn(mut command: Command) -> Running {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        Running { child, stdout, stderr, seen: Default::default() }
    }

    /// `arcp serve` on a free port, in memory, and its URL.
    pub(crate) async fn serve(more: &[&str]) -> (Running, String) {
        Running::listen(&[&["--db", "memory"], more].concat()).await
    }

    /// `arcp serve` on a free port over this database, and its URL.
    pub(crate) async fn serve_on(db: &str, more: &[&str]) -> (Running, String) {
        let (mut server, url) = Running::listen(&[&["--db", db], more].concat()).await;
        let line = server.err_line().await;
        assert_eq!(line, format!("arcp serve keeps sessions and jobs in {db}"));
        (server, url)
    }

    async fn listen(more: &[&str]) -> (Running, String) {
        let args = [&["serve", "--port", "0", "--token", TOKEN], more].concat();
        let mut server = Running::start(&args);
        let line = server.err_line().await;
        let url = line.strip_prefix("arcp serve listening on ").unwrap_or_else(|| panic!("{line}")).to_owned();
        (server, url)
    }

    pub(crate) async fn out_line(&mut self) -> String {
        let line = timeout(BOUND, self.stdout.next_line()).await.expect("no line in time").unwrap();
        let line = line.expect("stdout ended");
        self.seen.0 += &line;
        line
    }

    pub(crate) async fn err_line(&mut self) -> String {
        let line = timeout(BOUND, self.stderr.next_line()).await.expect("no line in time").unwrap();
        let line = line.expect("stderr ended");
        self.seen.1 += &line;
        line
    }

    pub(crate) async fn signal(&self, name: &str) {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().await.unwrap().success());
    }

    /// Ends it as nothing can prepare for.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Waits for its end; the output is what was not taken before.
    pub(crate) async fn end(mut self) -> Ran {
        let (mut out, mut err) = (String::new(), String::new());
        let (mut stdout, mut stderr) = (self.stdout.into_inner(), self.stderr.into_inner());
        let ended = async {
            tokio::try_join!(stdout.read_to_string(&mut out), stderr.read_to_string(&mut err)).unwrap();
            self.child.wait().await.unwrap()
        };
        let status = timeout(BOUND, ended).await.expect("it did not end in time");
        Ran::checked(status.code(), self.seen.0, self.seen.1);
        Ran::checked(status.code(), out, err)
    }
}

/// A runtime in this process, so that a test can hold its agents.
pub(crate) struct Host {
    pub(crate) url: String,
    /// What the agents say they do.
    pub(crate) said: mpsc::UnboundedReceiver<&'static str>,
    /// Lets "waits" return, and "lingers" give way.
    pub(crate) release: Arc<Notify>,
    serving: JoinHandle<()>,
}

impl Host {
    pub(crate) async fn start(cancel_policy: CancelPolicy) -> Host {
        let mut config = RuntimeConfig::new(RuntimeInfo { name: "host".into(), version: "1".into() });
        config.cancel_policy = cancel_policy;
        let runtime = Runtime::new(config, StaticBearerVerifier::new([(TOKEN, "me@example.com")]));
        let (say, said) = mpsc::unbounded_channel();
        let release = Arc::new(Notify::new());
        let gate = (say, Arc::clone(&release));
        runtime.register_agent("waits", with(&gate, waits)).unwrap();
        runtime.register_agent("lingers", with(&gate, lingers)).unwrap();
        runtime.register_agent("streams", |_: RawJson, ctx: JobContext| streams(ctx)).unwrap();
        runtime
            .register_agent("fails", |_: RawJson, _: JobContext| async { Err(ProtocolError::internal("boom\nbang")) })
            .unwrap();
        let mut listener = Listener::bind(ListenOptions { port: 0, ..ListenOptions::default() }).await.unwrap();
        let url = listener.url().to_owned();
        let serving = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Some(transport) = listener.accept().await {
                let runtime = runtime.clone();
                connections.spawn(async move { runtime.accept(transport).await });
            }
        });
        Host { url, said, release, serving }
    }

    /// The next thing an agent says.
    pub(crate) async fn hear(&mut self) -> &'static str {
        timeout(BOUND, self.said.recv()).await.expect("the agents say nothing").unwrap()
    }

    /// Cuts every connection.
    pub(crate) async fn vanish(self) {
        self.serving.abort();
        drop(self.serving.await);
    }

    /// Submits without waiting for the end.
    pub(crate) async fn detached(&self, agent: &str) -> String {
        let ran = run(&session("submit", &self.url, &["--agent", agent, "--detach"])).await;
        assert_eq!((ran.status, &*ran.stderr), (0, ""), "{ran:?}");
        ran.stdout.trim().to_owned()
    }
}

type Gate = (mpsc::UnboundedSender<&'static str>, Arc<Notify>);

fn with<F, Fut>(gate: &Gate, agent: F) -> impl Fn(RawJson, JobContext) -> Fut + Send + Sync + 'static
where
    F: Fn(JobContext, Gate) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<RawJson, ProtocolError>> + Send + 'static,
{
    let gate = gate.clone();
    move |_, ctx| agent(ctx, gate.clone())
}

/// Its result comes in parts, one of them no text.
async fn streams(ctx: JobContext) -> Result<RawJson, ProtocolError> {
    let mut result = ctx.stream_result()?;
    result.write_text("one,").await?;
    result.write_bytes(b"two,\n").await?;
    result.write_text("three").await?;
    Ok(RawJson::null())
}

/// Works until it is released or cancelled; cleans up.
async fn waits(ctx: JobContext, (say, release): Gate) -> Result<RawJson, ProtocolError> {
    ctx.status("working", None).await?;
    say.send("started").unwrap();
    tokio::select! {
        () = release.notified() => RawJson::parse("\"released\""),
        _ = ctx.cancelled() => {
            ctx.log("info", "cleaned up").await?;
            say.send("cancelled").unwrap();
            Ok(RawJson::null())
        }
    }
}

/// Sees its cancellation, but gives way only when released.
async fn lingers(ctx: JobContext, (say, release): Gate) -> Result<RawJson, ProtocolError> {
    ctx.observe_cancellation();
    say.send("started").unwrap();
    ctx.cancelled().await;
    say.send("cancelled").unwrap();
    release.notified().await;
    Ok(RawJson::null())
}
