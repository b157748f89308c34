//! A provisioner of the host, and its log of what must still be revoked.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arcp::message::{Credential, CredentialConstraints, SecretText};
use arcp::{IssueFuture, IssueRequest, Issued, ProtocolError, Provisioner, RawJson, Revocation, RevokeFuture};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

use crate::error::ErrorInfo;
use crate::host_request::{About, read};
use crate::invocation::Invocation;
use crate::port::Port;

/// The pause after the log could not be read; it doubles with each further failure.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// No pause is longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

pub(crate) struct HostProvisioner {
    tokio: Handle,
    host: Arc<Host>,
    /// Whether what the log has left from an earlier process was handed over.
    settled: watch::Sender<bool>,
}

struct Host {
    port: Port,
    logs: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Intents of this process whose credentials are not told of yet: what comes late is revoked by its id.
    intents: HashSet<String>,
    /// Values that share an id and are not revoked: the log forgets the id with the last of them.
    values: HashMap<(String, String), usize>,
}

/// How a value is found again. It is stored, and holds no secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Named {
    job_id: String,
    id: String,
    #[serde(default)]
    rotation: u64,
}

impl Named {
    fn handle(&self) -> Result<RawJson, ProtocolError> {
        RawJson::from_serialize(self)
    }
}

/// A credential as hosts write it.
#[derive(Deserialize)]
struct Given {
    id: String,
    scheme: String,
    value: String,
    endpoint: String,
    #[serde(default)]
    profile: Option<String>,
    #[serde(default)]
    constraints: Option<Limits>,
}

#[derive(Deserialize)]
struct Limits {
    #[serde(default, rename = "cost.budget")]
    cost_budget: Option<Vec<String>>,
    #[serde(default, rename = "model.use")]
    model_use: Option<Vec<String>>,
    #[serde(default)]
    expires_at: Option<String>,
}

impl Given {
    fn issued(self, job_id: &str) -> Result<Issued, ProtocolError> {
        let named = Named { job_id: job_id.to_owned(), id: self.id.clone(), rotation: 0 };
        let constraints = self.constraints.map(|limits| CredentialConstraints {
            cost_budget: limits.cost_budget,
            model_use: limits.model_use,
            expires_at: limits.expires_at,
        });
        let credential = Credential {
            id: self.id,
            scheme: self.scheme,
            value: SecretText::new(self.value),
            endpoint: self.endpoint,
            profile: self.profile,
            constraints,
        };
        Ok(Issued { credential, handle: named.handle()? })
    }
}

impl HostProvisioner {
    pub(crate) fn new(tokio: Handle, port: Port, logs: bool) -> Arc<Self> {
        let host = Arc::new(Host { port, logs, state: Mutex::default() });
        Arc::new(HostProvisioner { tokio, host, settled: watch::Sender::new(!logs) })
    }

    /// Hands over what the log says an earlier process left; nothing is issued before.
    pub(crate) async fn settle_outstanding(&self, runtime: &arcp::Runtime) {
        let mut pause = FIRST_PAUSE;
        let outstanding = loop {
            let answer = self.host.port.ask(About::Outstanding, &json!({})).await;
            match answer.and_then(|text| read::<Vec<(String, String)>>(About::Outstanding, &text)) {
                Ok(outstanding) => break outstanding,
                Err(_) if self.host.port.is_closed() => return,
                Err(error) => {
                    tracing::error!(
                        error = error.message,
                        "the revocation log cannot be read; no credentials until then"
                    );
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        };
        let handles = outstanding.into_iter().filter_map(|(job_id, id)| {
            let handle = Named { job_id: job_id.clone(), id, rotation: 0 }.handle().ok()?;
            Some((Arc::from(job_id), handle))
        });
        runtime.revoke_outstanding(handles.collect());
        self.settled.send_replace(true);
    }
}

impl Provisioner for HostProvisioner {
    fn issue(&self, request: IssueRequest) -> IssueFuture {
        let (host, mut settled) = (Arc::clone(&self.host), self.settled.subscribe());
        let (sender, answer) = oneshot::channel();
        host.state.lock().intents.insert(request.intent.to_string());
        // In a task of its own: what is issued must be known, also when nobody waits for it any more.
        self.tokio.spawn(async move {
            if settled.wait_for(|settled| *settled).await.is_err() || sender.is_closed() {
                // Nobody waits for it any more, and nothing was issued.
                return;
            }
            if let Err(Ok(unwanted)) = sender.send(host.issue(request).await) {
                for issued in unwanted {
                    if let Err(error) = host.revoke(issued.handle).await {
                        tracing::error!(error = error.message, "a credential issued too late could not be revoked");
                    }
                }
            }
        });
        Box::pin(async move {
            answer.await.unwrap_or_else(|_| Err(ProtocolError::internal("the host gave no answer about issue")))
        })
    }

    fn revoke(&self, what: Revocation) -> RevokeFuture {
        let host = Arc::clone(&self.host);
        Box::pin(async move {
            match what {
                Revocation::Handle(handle) => host.revoke(handle).await,
                // A failure of this process has issued nothing, and what comes late is revoked by its id.
                Revocation::Intent(intent) if host.state.lock().intents.remove(&intent) => Ok(()),
                Revocation::Intent(intent) => host.port.ask(About::Revoke, &json!({"intent": intent})).await.map(drop),
            }
        })
    }
}

impl Host {
    async fn issue(&self, request: IssueRequest) -> Result<Vec<Issued>, ProtocolError> {
        let job_id = request.job_id.to_string();
        let lease: Value = serde_json::from_str(&request.lease.to_json()).unwrap_or_default();
        let arguments = json!({
            "intent": *request.intent,
            "job_id": job_id,
            "principal": *request.principal,
            "agent": request.agent,
            "lease": lease,
            "expires_at": request.expires_at.map(|at| at.to_string()),
            "parent_job_id": request.parent_job_id.as_deref(),
        });
        let given: Vec<Given> = read(About::Issue, &self.port.ask(About::Issue, &arguments).await?)?;
        let ids: Vec<String> = given.iter().map(|one| one.id.clone()).collect();
        let issued = given.into_iter().map(|one| one.issued(&job_id)).collect::<Result<Vec<_>, _>>()?;
        for id in &ids {
            *self.state.lock().values.entry((job_id.clone(), id.clone())).or_default() += 1;
        }
        if self.logs
            && !ids.is_empty()
            && let Err(error) = self.port.ask(About::Record, &json!({"job_id": job_id, "ids": ids})).await
        {
            // What is not written down must not be handed out (R-9.8.2.6).
            for one in issued {
                if self.revoke(one.handle).await.is_err() {
                    // Whatever the intent stands for is then revoked, with retries, or left to operators.
                    self.state.lock().intents.remove(&*request.intent);
                }
            }
            return Err(error);
        }
        self.state.lock().intents.remove(&*request.intent);
        Ok(issued)
    }

    async fn revoke(&self, handle: RawJson) -> Result<(), ProtocolError> {
        let named: Named = serde_json::from_str(handle.get())
            .map_err(|_| ProtocolError::internal("this credential was issued by another provisioner"))?;
        let arguments = json!({"job_id": named.job_id, "id": named.id, "rotation": named.rotation});
        self.port.ask(About::Revoke, &arguments).await?;
        let shared = (named.job_id, named.id);
        let last = self.state.lock().values.get(&shared).is_none_or(|values| *values <= 1);
        if last && self.logs {
            self.port.ask(About::Forget, &json!({"job_id": shared.0, "id": shared.1})).await?;
        }
        let mut state = self.state.lock();
        match state.values.get_mut(&shared) {
            Some(values) if *values > 1 => *values -= 1,
            _ => drop(state.values.remove(&shared)),
        }
        Ok(())
    }
}

impl Invocation {
    /// Replaces the value of one of the job's credentials: the client is told, then the old value is revoked
    /// (R-9.8.2.7, R-9.8.2.8).
    ///
    /// # Errors
    /// `JOB_NOT_FOUND` when the job has no such credential; `INVALID_REQUEST` for a value that was used before, or is in
    /// its id; `INTERNAL_ERROR` while the store cannot keep what is needed to revoke it.
    pub fn rotate_credential(&self, id: &str, value: String) -> Result<(), ErrorInfo> {
        let job_id = self.start().job_id.to_string();
        if !self.context().credentials().iter().any(|credential| credential.id == id) {
            let message = format!("this job has no credential {id:?} that works");
            return Err(ProtocolError::new(arcp::ErrorCode::JobNotFound, message).into());
        }
        if self.context().credentials().iter().any(|credential| credential.value.expose() == value) {
            return Err(
                ProtocolError::invalid("the new value of a credential was used before; make a fresh one").into()
            );
        }
        let rotation = {
            let mut rotations = self.rotations().lock();
            let count = rotations.entry(id.to_owned()).or_default();
            *count += 1;
            *count
        };
        if let Some(provisioner) = self.plugged().provisioner.get() {
            // Before the old one is revoked, so that the log keeps the id they share.
            *provisioner.host.state.lock().values.entry((job_id.clone(), id.to_owned())).or_default() += 1;
        }
        let handle = Named { job_id, id: id.to_owned(), rotation }.handle()?;
        Ok(self.context().rotate_credential_with(id, SecretText::new(value), handle)?)
    }
}
