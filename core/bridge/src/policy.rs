//! A policy of the host.

use arcp::{AskedPolicy, DecideFuture, Decision, ObservedJob, Observing, PolicyQuestion};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::host_request::{About, read};
use crate::port::Port;

pub(crate) struct HostPolicy {
    pub(crate) port: Port,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Allowed,
    Known,
    Hidden,
}

impl AskedPolicy for HostPolicy {
    fn decide(&self, question: PolicyQuestion) -> DecideFuture {
        let port = self.port.clone();
        let operation = match question.observing {
            Observing::List => "list",
            Observing::Subscribe => "subscribe",
        };
        let jobs: Vec<Value> = question.jobs.iter().map(described).collect();
        let arguments = json!({"principal": *question.principal, "operation": operation, "jobs": jobs});
        Box::pin(async move {
            let verdicts: Vec<Verdict> = read(About::Policy, &port.ask(About::Policy, &arguments).await?)?;
            let decisions = verdicts.into_iter().map(|verdict| match verdict {
                Verdict::Allowed => Decision::Allowed,
                Verdict::Known => Decision::Known,
                Verdict::Hidden => Decision::Hidden,
            });
            Ok(decisions.collect())
        })
    }
}

fn described(job: &ObservedJob) -> Value {
    json!({
        "job_id": *job.job_id,
        "session_id": *job.session_id,
        "principal": *job.principal,
        "agent": job.agent,
        "version": job.version,
        "created_at": job.created_at.to_string(),
        "parent_job_id": job.parent_job_id.as_deref(),
        "status": job.status.as_str(),
    })
}
