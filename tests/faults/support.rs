//! The server as a process, clients that heal, and chance that can be played again.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use arcp::{Backoff, Client, ClientConfig, ClientInfo, ConnectOptions, RawJson, Submit, WebSocketTransport};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

pub(crate) const TOKEN: &str = "tok-faults";
/// No single step takes longer, on a machine with other work too.
pub(crate) const BOUND: Duration = Duration::from_secs(60);

/// The length of the run.
pub(crate) fn is_long() -> bool {
    match std::env::var("ARCP_FAULTS").as_deref() {
        Ok("long") => true,
        Ok("short") | Err(_) => false,
        Ok(other) => panic!("ARCP_FAULTS is {other:?}: give \"short\" or \"long\""),
    }
}

/// A number from the environment.
pub(crate) fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}: give a whole number")))
}

/// Chance from one seed (splitmix64).
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(what: &str) -> Chance {
        let clock = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
        let seed = number("ARCP_FAULTS_SEED").unwrap_or_else(clock);
        eprintln!("{what}: ARCP_FAULTS_SEED={seed}");
        Chance(seed)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    pub(crate) fn millis(&mut self, end: u64) -> Duration {
        Duration::from_millis(self.below(end))
    }

    /// Another, for a task of its own.
    pub(crate) fn split(&mut self) -> Chance {
        Chance(self.below(u64::MAX))
    }
}

/// `arcp` of the Python package, or what `ARCP_FAULTS_PROGRAM` names.
pub(crate) fn program() -> PathBuf {
    let installed = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.venv/bin/arcp");
    let program = std::env::var_os("ARCP_FAULTS_PROGRAM").map_or_else(installed, PathBuf::from);
    assert!(program.exists(), "{} is missing: run `make test-faults`", program.display());
    program
}

/// The program with these arguments, by way of these words in front.
pub(crate) fn arcp(front: &[&str], args: &[&str]) -> Command {
    let program = program();
    let mut words = front.iter().map(Path::new).chain([&*program]);
    let mut command = Command::new(words.next().unwrap());
    command.args(words).args(args).stdin(Stdio::null()).kill_on_drop(true);
    // The app lies here.
    command.current_dir(env!("CARGO_MANIFEST_DIR")).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// What a finished program printed; its status was 0.
pub(crate) async fn printed(args: &[&str]) -> String {
    let output = timeout(BOUND, arcp(&[], args).output()).await.expect("it did not end").unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Where a test keeps its database and its server's words.
pub(crate) struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Place {
        Place { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn at(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn db(&self) -> String {
        self.at("arcp.db")
    }

    /// Has the agents that wait for it end.
    pub(crate) fn stop(&self) {
        std::fs::write(self.at("stop"), "").unwrap();
    }

    /// What all servers of this place said on standard error.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(self.at("server.log")).unwrap_or_default()
    }

    /// `arcp serve --app` on this port, in its `life`-th process.
    pub(crate) fn serve(&self, front: &[&str], app: &str, port: u16, life: u64, more: &[&str]) -> Server {
        let port = port.to_string();
        let args = [&["serve", "--app", app, "--port", &port, "--output", "json"], more].concat();
        let mut command = arcp(front, &args);
        command.env("ARCP_FAULTS_LIFE", life.to_string()).env("ARCP_FAULTS_FOLDER", self.folder.path());
        self.spawn(command)
    }

    pub(crate) fn spawn(&self, mut command: Command) -> Server {
        let log = std::fs::File::options().create(true).append(true).open(self.at("server.log")).unwrap();
        Server { child: command.stdout(Stdio::piped()).stderr(log).spawn().unwrap() }
    }
}

/// A process that serves.
pub(crate) struct Server {
    pub(crate) child: Child,
}

impl Server {
    /// Waits until it listens, and returns where.
    pub(crate) async fn listening(&mut self) -> String {
        let stdout = self.child.stdout.take().unwrap();
        let mut lines = BufReader::new(stdout).lines();
        let told = async {
            loop {
                let line = lines.next_line().await.unwrap().expect("it ended instead of listening");
                // A test that serves has words of its harness in front.
                let Some(start) = line.find('{') else { continue };
                let told: Value = serde_json::from_str(&line[start..]).unwrap();
                return told["listening"]["url"].as_str().unwrap().to_owned();
            }
        };
        timeout(BOUND, told).await.expect("it does not listen")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// SIGKILL, and waits until it is gone.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// SIGTERM; it must leave in good order.
    pub(crate) async fn stop(mut self) {
        let told = Command::new("kill").args(["-s", "TERM", &self.pid().to_string()]).status().await.unwrap();
        assert!(told.success());
        let status = timeout(BOUND, self.child.wait()).await.expect("it did not stop").unwrap();
        assert!(status.success(), "{status}");
    }

    /// Its resident memory, in bytes.
    pub(crate) async fn memory(&self) -> u64 {
        let output = Command::new("ps").args(["-o", "rss=", "-p", &self.pid().to_string()]).output().await.unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.trim().parse::<u64>().unwrap_or_else(|_| panic!("ps said {text:?}")) * 1024
    }
}

pub(crate) fn port_of(url: &str) -> u16 {
    url.trim_start_matches("ws://127.0.0.1:").trim_end_matches("/arcp").parse().unwrap()
}

/// A client that takes up its session again as soon as it can.
pub(crate) async fn connected(url: &str) -> Client {
    connected_with(url, &[]).await
}

/// The same, with these features besides the usual ones.
pub(crate) async fn connected_with(url: &str, features: &[&str]) -> Client {
    let mut config = ClientConfig::new(ClientInfo { name: "faults".into(), version: "1".into() });
    let (initial, max) = (Duration::from_millis(5), Duration::from_millis(100));
    config.reconnect = Some(Backoff { initial, max, give_up_after: Some(BOUND) });
    config.request_timeout = BOUND;
    config.features.extend(features.iter().map(|feature| (*feature).to_owned()));
    let client = Client::new(config);
    let transport = WebSocketTransport::connect(url, ConnectOptions::default()).await.unwrap();
    client.connect(transport, TOKEN).await.unwrap();
    client
}

pub(crate) fn order(agent: &str, input: &Value, key: Option<&str>) -> Submit {
    let mut submit = Submit::new(agent, RawJson::parse(&input.to_string()).unwrap());
    submit.idempotency_key = key.map(str::to_owned);
    submit
}

/// Waits for what another process or task does.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let turned = async {
        while !is_so().await {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(BOUND, turned).await.unwrap_or_else(|_| panic!("never: {what}"));
}
