//! The harness's end of the line protocol of `tests/shims/README.md`.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::{Result, WAIT};

/// Lines of a shim's stderr kept for the report of a failure.
const STDERR_LINES: usize = 12;

/// What a shim answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The command's result.
    Ok(Value),
    /// `{code, message, retryable, details?}`.
    Error(Value),
}

/// A running shim.
pub struct Shim {
    language: String,
    capabilities: BTreeSet<String>,
    lines: mpsc::Sender<String>,
    open: Arc<Mutex<Open>>,
    stderr: Arc<Mutex<VecDeque<String>>>,
    child: Mutex<Option<Child>>,
}

/// Commands without an answer yet; `None` when the shim has ended.
#[derive(Default)]
struct Open {
    next: u64,
    waiting: Option<HashMap<u64, oneshot::Sender<Answer>>>,
    fault: Option<String>,
}

/// A command under way.
pub struct Pending {
    what: String,
    answer: oneshot::Receiver<Answer>,
    open: Arc<Mutex<Open>>,
    stderr: Arc<Mutex<VecDeque<String>>>,
}

impl Shim {
    /// Starts a shim's process in the repository's root and asks it for its capabilities.
    ///
    /// # Errors
    /// It does not start, or does not answer `hello` as itself.
    pub async fn spawn(language: &str, command: &[String], root: &Path) -> Result<Self> {
        let Some((program, arguments)) = command.split_first() else {
            return Err(format!("shims.json: {language} has an empty command"));
        };
        // A path is meant from the root, a bare name is looked up.
        let program = if program.contains('/') { root.join(program) } else { program.into() };
        let mut child = Command::new(&program)
            .args(arguments)
            .current_dir(root)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| format!("the {language} shim, {}, does not start: {e}", program.display()))?;
        let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(format!("the {language} shim has no pipes"));
        };
        let shim = Self::start(language, stdout, stdin);
        tokio::spawn(keep_tail(stderr, Arc::clone(&shim.stderr)));
        *locked(&shim.child) = Some(child);
        shim.introduced().await
    }

    /// Talks to a shim over any pair of pipes.
    ///
    /// # Errors
    /// It does not answer `hello` as itself.
    pub async fn over<R, W>(language: &str, reader: R, writer: W) -> Result<Self>
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        Self::start(language, reader, writer).introduced().await
    }

    fn start<R, W>(language: &str, reader: R, writer: W) -> Self
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let (lines, queue) = mpsc::channel(64);
        let open = Arc::new(Mutex::new(Open { waiting: Some(HashMap::new()), ..Open::default() }));
        tokio::spawn(write(queue, writer));
        tokio::spawn(read(reader, Arc::clone(&open)));
        Self {
            language: language.to_owned(),
            capabilities: BTreeSet::new(),
            lines,
            open,
            stderr: Arc::default(),
            child: Mutex::new(None),
        }
    }

    async fn introduced(mut self) -> Result<Self> {
        let Answer::Ok(hello) = self.ask("hello", Map::new()).await?.answer().await? else {
            return Err(format!("the {} shim refuses hello", self.language));
        };
        if hello["language"] != json!(self.language) {
            return Err(format!("the shim started for {} says it is {}", self.language, hello["language"]));
        }
        let listed = hello["capabilities"].as_array().cloned().unwrap_or_default();
        self.capabilities = listed.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect();
        Ok(self)
    }

    /// The language it speaks for.
    #[must_use]
    pub fn language(&self) -> &str {
        &self.language
    }

    /// What it said it can do.
    #[must_use]
    pub fn capabilities(&self) -> &BTreeSet<String> {
        &self.capabilities
    }

    /// Whether it can still be asked.
    #[must_use]
    pub fn is_running(&self) -> bool {
        locked(&self.open).waiting.is_some()
    }

    /// Gives a command; the answer is awaited apart, so that commands can overlap.
    ///
    /// # Errors
    /// The shim has ended.
    pub async fn ask(&self, command: &str, arguments: Map<String, Value>) -> Result<Pending> {
        let (sender, answer) = oneshot::channel();
        let pending = Pending {
            what: format!("the {} shim's {command}", self.language),
            answer,
            open: Arc::clone(&self.open),
            stderr: Arc::clone(&self.stderr),
        };
        let id = {
            let mut open = locked(&self.open);
            open.next += 1;
            let id = open.next;
            match open.waiting.as_mut() {
                Some(waiting) => waiting.insert(id, sender),
                None => return Err(pending.report_of(&open)),
            };
            id
        };
        let mut line = arguments;
        line.insert("id".to_owned(), json!(id));
        line.insert("do".to_owned(), json!(command));
        match self.lines.send(format!("{}\n", Value::Object(line))).await {
            Ok(()) => Ok(pending),
            Err(_) => Err(pending.report_of(&locked(&self.open))),
        }
    }

    /// Asks the process to end and waits for status 0.
    ///
    /// # Errors
    /// It stays, or ends otherwise.
    pub async fn exit(self) -> Result<()> {
        self.ask("exit", Map::new()).await?.answer().await?;
        let Some(mut child) = locked(&self.child).take() else { return Ok(()) };
        match timeout(WAIT, child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(format!("the {} shim exits with {status}", self.language)),
            Ok(Err(error)) => Err(format!("the {} shim cannot be waited for: {error}", self.language)),
            Err(_) => Err(format!("the {} shim is still there {WAIT:?} after exit", self.language)),
        }
    }
}

impl Pending {
    /// Waits for the answer, at most [`WAIT`].
    ///
    /// # Errors
    /// None came in time, or the shim ended.
    pub async fn answer(self) -> Result<Answer> {
        let Self { what, answer, open, stderr } = self;
        match timeout(WAIT, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(report(&what, &locked(&open), &stderr)),
            Err(_) => Err(format!("{what} has not answered within {WAIT:?}{}", tail(&stderr))),
        }
    }

    fn report_of(&self, open: &Open) -> String {
        report(&self.what, open, &self.stderr)
    }
}

fn report(what: &str, open: &Open, stderr: &Mutex<VecDeque<String>>) -> String {
    let fault = open.fault.as_deref().unwrap_or("its process ended");
    format!("{what} was not answered: {fault}{}", tail(stderr))
}

fn tail(stderr: &Mutex<VecDeque<String>>) -> String {
    let lines = locked(stderr);
    if lines.is_empty() {
        return String::new();
    }
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    format!("\nits stderr ends with:\n  {}", lines.join("\n  "))
}

async fn write(mut queue: mpsc::Receiver<String>, mut writer: impl AsyncWrite + Unpin) {
    while let Some(line) = queue.recv().await {
        // A broken pipe shows as the end of the answers.
        if writer.write_all(line.as_bytes()).await.is_err() || writer.flush().await.is_err() {
            return;
        }
    }
}

async fn read(reader: impl AsyncRead + Unpin, open: Arc<Mutex<Open>>) {
    let mut lines = BufReader::new(reader).lines();
    let fault = loop {
        match lines.next_line().await {
            Ok(Some(line)) => {
                if let Err(fault) = deliver(&line, &open) {
                    break Some(fault);
                }
            }
            Ok(None) => break None,
            Err(error) => break Some(error.to_string()),
        }
    };
    let mut open = locked(&open);
    open.fault = fault;
    open.waiting = None;
}

fn deliver(line: &str, open: &Mutex<Open>) -> Result<()> {
    let fault = || format!("it wrote a line that is not an answer: {line}");
    let mut message: Map<String, Value> = serde_json::from_str(line).map_err(|_| fault())?;
    let id = message.get("id").and_then(Value::as_u64).ok_or_else(fault)?;
    let answer = match (message.remove("ok"), message.remove("error")) {
        (Some(ok @ Value::Object(_)), None) => Answer::Ok(ok),
        (None, Some(error @ Value::Object(_))) => Answer::Error(error),
        _ => return Err(fault()),
    };
    let sender = locked(open).waiting.as_mut().and_then(|waiting| waiting.remove(&id)).ok_or_else(fault)?;
    // Nobody waits any more when the case has failed meanwhile.
    let _ = sender.send(answer);
    Ok(())
}

async fn keep_tail(stderr: impl AsyncRead + Unpin, kept: Arc<Mutex<VecDeque<String>>>) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let mut kept = locked(&kept);
        if kept.len() == STDERR_LINES {
            kept.pop_front();
        }
        kept.push_back(line);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
