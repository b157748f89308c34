//! The Rust shim: one JSON command per line in, one JSON answer per line out (see ../README.md).
#![allow(clippy::print_stdout, reason = "standard output is the protocol")]

mod agents;
mod functions;
mod registry;

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arcp::message::{JobFilter, ListJobs, PeerInfo, Resume};
use arcp::{
    Client, ClientConfig, ConnectOptions, Error, JobHandle, LeaseConstraints, ListenOptions, Listener, ProtocolError,
    RawJson, Runtime, RuntimeConfig, StaticBearerVerifier, Submit, Subscribe, WebSocketTransport,
};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::task::AbortHandle;

/// Why a command failed, as the answer's `error`.
pub(crate) struct Failure(Value);

impl Failure {
    pub(crate) fn local(code: &str, message: impl std::fmt::Display) -> Self {
        Failure(json!({"code": code, "message": message.to_string(), "retryable": false}))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Protocol(error) => error.into(),
            Error::Closed(message) => Failure::local("CLOSED", message),
            Error::Timeout(message) => Failure::local("TIMEOUT_LOCAL", message),
            Error::Transport(message) => Failure::local("TRANSPORT", message),
        }
    }
}

impl From<ProtocolError> for Failure {
    fn from(error: ProtocolError) -> Self {
        Failure(json!(error))
    }
}

impl From<arcp::TransportError> for Failure {
    fn from(error: arcp::TransportError) -> Self {
        Error::from(error).into()
    }
}

type Answer = Result<Value, Failure>;

struct Served {
    runtime: Runtime,
    task: AbortHandle,
}

#[derive(Default)]
struct Handles {
    next: u64,
    sessions: HashMap<String, Client>,
    jobs: HashMap<String, (Client, JobHandle)>,
    runtimes: HashMap<String, Served>,
}

#[derive(Clone, Default)]
struct Shim {
    handles: Arc<Mutex<Handles>>,
}

#[tokio::main]
async fn main() {
    let shim = Shim::default();
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let Ok(command) = serde_json::from_str::<Value>(&line) else { continue };
        let shim = shim.clone();
        if command["do"] == "exit" {
            answer(&command, Ok(json!({})));
            break;
        }
        // Commands overlap: one that waits holds up no other.
        tokio::spawn(async move {
            let done = shim.carry_out(&command).await;
            answer(&command, done);
        });
    }
    std::process::exit(0);
}

fn answer(command: &Value, done: Answer) {
    let line = match done {
        Ok(value) => json!({"id": command["id"], "ok": value}),
        Err(Failure(error)) => json!({"id": command["id"], "error": error}),
    };
    let mut out = std::io::stdout().lock();
    // Nobody reads any more: the harness has gone.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

impl Shim {
    async fn carry_out(&self, command: &Value) -> Answer {
        match command["do"].as_str().unwrap_or_default() {
            "hello" => Ok(json!({"language": "rust", "capabilities": capabilities()})),
            "connect" => self.connect(command).await,
            "submit" => self.submit(command).await,
            "events" => self.events(command).await,
            "result" => self.result(command).await,
            "cancel" => {
                let reason = command["reason"].as_str().unwrap_or("cancelled by the harness");
                self.session(command)?.cancel_job(&text(command, "job_id")?, reason)?;
                Ok(json!({}))
            }
            "attach" => self.attach(command),
            "list_jobs" => self.list_jobs(command).await,
            "subscribe" => self.subscribe(command).await,
            "unsubscribe" => {
                let (client, job) = self.job(command)?;
                client.unsubscribe(job.job_id());
                Ok(json!({}))
            }
            "close" => {
                self.session(command)?.close("harness").await;
                Ok(json!({}))
            }
            "serve" => self.serve(command).await,
            "stop" => self.stop(command).await,
            "health" => registry::health(command).await,
            "register" => registry::register(command).await,
            "discover" => registry::discover(command).await,
            "call" => functions::call(&text(command, "function")?, &command["args"]),
            other => Err(Failure::local("UNSUPPORTED", format!("no command \"{other}\""))),
        }
    }

    async fn connect(&self, command: &Value) -> Answer {
        let mut config = ClientConfig::new(peer("arcp-shim"));
        if let Some(features) = strings(&command["features"]) {
            config.features = features;
        }
        if let Some(wait) = command["timeout_ms"].as_u64() {
            config.handshake_timeout = Duration::from_millis(wait);
        }
        if command["reconnect"] == false {
            config.reconnect = None;
        }
        let client = Client::new(config);
        let transport = WebSocketTransport::connect(&text(command, "url")?, ConnectOptions::default()).await?;
        let token = text(command, "token")?;
        let welcome = match &command["resume"] {
            Value::Null => client.connect(transport, &token).await?,
            resume => {
                let resume = Resume {
                    session_id: text(resume, "session_id")?,
                    resume_token: text(resume, "resume_token")?,
                    last_event_seq: resume["last_event_seq"].as_u64().unwrap_or_default(),
                };
                client.connect_resuming(transport, &token, resume).await?
            }
        };
        let features = client.negotiated_features();
        let session = self.keep("s", |handles, name| handles.sessions.insert(name, client).map(drop));
        Ok(json!({
            "session": session, "session_id": welcome.session_id, "features": features,
            "resume_token": welcome.resume_token,
        }))
    }

    fn attach(&self, command: &Value) -> Answer {
        let client = self.session(command)?;
        let handle = client.job(&text(command, "job_id")?)?;
        Ok(json!({"job": self.keep("j", |handles, name| handles.jobs.insert(name, (client, handle)).map(drop))}))
    }

    async fn list_jobs(&self, command: &Value) -> Answer {
        let filter = JobFilter {
            status: strings(&command["status"]),
            agent: command["agent"].as_str().map(str::to_owned),
            ..JobFilter::default()
        };
        let list = ListJobs {
            filter: Some(filter).filter(|filter| *filter != JobFilter::default()),
            limit: command["limit"].as_u64(),
            cursor: command["cursor"].as_str().map(str::to_owned),
        };
        let page = self.session(command)?.list_jobs(&list).await?;
        Ok(json!({"jobs": page.jobs, "next_cursor": page.next_cursor}))
    }

    async fn submit(&self, command: &Value) -> Answer {
        let client = self.session(command)?;
        let raw = |name: &str| RawJson::parse(&command[name].to_string());
        let submit = Submit {
            agent: text(command, "agent")?,
            input: raw("input")?,
            lease_request: if command["lease_request"].is_null() {
                RawJson::empty_object()
            } else {
                raw("lease_request")?
            },
            lease_constraints: command["lease_constraints"]["expires_at"]
                .as_str()
                .map(|end| LeaseConstraints { expires_at: Some(end.to_owned()) }),
            idempotency_key: command["idempotency_key"].as_str().map(str::to_owned),
            max_runtime_sec: command["max_runtime_sec"].as_u64(),
            parent_job_id: None,
            delegate_id: None,
        };
        let handle = client.submit(&submit, None).await?;
        let accepted = json!(handle.accepted());
        let job_id = handle.job_id().to_owned();
        let job = self.keep("j", |handles, name| handles.jobs.insert(name, (client, handle)).map(drop));
        Ok(json!({
            "job": job, "job_id": job_id, "agent": accepted["agent"], "lease": accepted["lease"],
            "budget": accepted["budget"],
        }))
    }

    async fn subscribe(&self, command: &Value) -> Answer {
        let client = self.session(command)?;
        let subscribe = Subscribe {
            job_id: text(command, "job_id")?,
            from_event_seq: command["from_event_seq"].as_u64(),
            history: command["history"].as_bool().unwrap_or(false),
        };
        let followed = client.subscribe(&subscribe).await?;
        let opening = json!(followed.subscribed());
        let job =
            self.keep("j", |handles, name| handles.jobs.insert(name, (client, followed.handle().clone())).map(drop));
        let (status, agent, replayed) = (&opening["current_status"], &opening["agent"], &opening["replayed"]);
        Ok(json!({"job": job, "status": status, "agent": agent, "replayed": replayed}))
    }

    async fn events(&self, command: &Value) -> Answer {
        let (_, job) = self.job(command)?;
        let max = command["max"].as_u64().and_then(|max| usize::try_from(max).ok()).unwrap_or(usize::MAX);
        let mut events = Vec::new();
        let mut ended = false;
        while events.len() < max && !ended {
            let wanted = (max - events.len()).min(256);
            ended = !job.next_events(wanted, &mut events).await;
        }
        let shown: Vec<_> = events
            .iter()
            .map(|event| json!({"kind": event.kind(), "body": serde_json::from_str::<Value>(event.body()).ok()}))
            .collect();
        Ok(json!({"events": shown, "ended": ended}))
    }

    async fn result(&self, command: &Value) -> Answer {
        let (_, job) = self.job(command)?;
        let result = job.result().await?;
        let value = match &result.result_id {
            Some(_) => Some(job.result_value().await?),
            None => result.result,
        };
        Ok(json!({"status": result.final_status, "result": value, "summary": result.summary}))
    }

    async fn serve(&self, command: &Value) -> Answer {
        let tokens = command["tokens"].as_object().cloned().unwrap_or_default();
        let tokens = tokens.into_iter().map(|(token, principal)| (token, principal.as_str().unwrap_or("").to_owned()));
        let runtime = Runtime::new(RuntimeConfig::new(peer("arcp-shim")), StaticBearerVerifier::new(tokens));
        for agent in strings(&command["agents"]).unwrap_or_default() {
            agents::register(&runtime, &agent)?;
        }
        let listener = Listener::bind(ListenOptions { port: 0, ..ListenOptions::default() }).await?;
        let url = listener.url().to_owned();
        let serving = runtime.clone();
        let task = tokio::spawn(async move { serving.serve(listener).await }).abort_handle();
        let served = Served { runtime, task };
        let name = self.keep("r", |handles, name| handles.runtimes.insert(name, served).map(drop));
        Ok(json!({"runtime": name, "url": url}))
    }

    async fn stop(&self, command: &Value) -> Answer {
        let name = text(command, "runtime")?;
        let served = self.lock().runtimes.remove(&name);
        if let Some(served) = served {
            served.task.abort();
            served.runtime.shutdown("stopped by the harness", Duration::from_secs(1)).await;
        }
        Ok(json!({}))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Handles> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, letter: &str, insert: impl FnOnce(&mut Handles, String) -> Option<()>) -> String {
        let mut handles = self.lock();
        handles.next += 1;
        let name = format!("{letter}{}", handles.next);
        insert(&mut handles, name.clone());
        name
    }

    fn session(&self, command: &Value) -> Result<Client, Failure> {
        let name = text(command, "session")?;
        let found = self.lock().sessions.get(&name).cloned();
        found.ok_or_else(|| Failure::local("BAD_ARGUMENT", format!("no session \"{name}\"")))
    }

    fn job(&self, command: &Value) -> Result<(Client, JobHandle), Failure> {
        let name = text(command, "job")?;
        let found = self.lock().jobs.get(&name).cloned();
        found.ok_or_else(|| Failure::local("BAD_ARGUMENT", format!("no job \"{name}\"")))
    }
}

fn peer(name: &str) -> PeerInfo {
    PeerInfo { name: name.into(), version: arcp::IMPL_VERSION.into() }
}

pub(crate) fn text(value: &Value, name: &str) -> Result<String, Failure> {
    let found = value[name].as_str().map(str::to_owned);
    found.ok_or_else(|| Failure::local("BAD_ARGUMENT", format!("{name} must be text")))
}

pub(crate) fn strings(value: &Value) -> Option<Vec<String>> {
    Some(value.as_array()?.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect())
}

fn capabilities() -> Vec<String> {
    let mut all: Vec<String> = [
        "client",
        "runtime",
        "subscribe",
        "submit.lease",
        "agent_versions",
        "heal",
        "resume",
        "listing",
        "result_chunk",
        "registry",
    ]
    .map(str::to_owned)
    .to_vec();
    all.extend(agents::NAMES.iter().map(|name| format!("agent.{name}")));
    all.extend(functions::NAMES.iter().map(|name| format!("call.{name}")));
    all
}
