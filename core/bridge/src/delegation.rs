//! Children of a host's agent.

use std::collections::VecDeque;

use arcp::message::Accepted;
use arcp::{ChildHandle, Delegate, LeaseConstraints, RawJson};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::{ErrorInfo, read};
use crate::invocation::Invocation;
use crate::port::{Port, Value};

/// A delegation as hosts write it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DelegateRequest<'a> {
    agent: String,
    #[serde(borrow, default)]
    input: Option<&'a RawValue>,
    #[serde(borrow, default)]
    lease_request: Option<&'a RawValue>,
    #[serde(default)]
    expires_at: Option<String>,
    #[serde(default)]
    delegate_id: Option<String>,
    #[serde(default)]
    detached: bool,
}

/// Children that can be asked for; beyond it the oldest that have ended are forgotten.
const KEPT_CHILDREN: usize = 1024;

/// The children one invocation has delegated.
#[derive(Default)]
pub(crate) struct Children {
    handles: Mutex<VecDeque<ChildHandle>>,
}

impl Children {
    fn add(&self, child: ChildHandle) {
        let mut handles = self.handles.lock();
        handles.push_back(child);
        if handles.len() > KEPT_CHILDREN
            && let Some(oldest) = handles.iter().position(ChildHandle::has_ended)
        {
            handles.remove(oldest);
        }
    }

    fn get(&self, job_id: &str) -> Result<ChildHandle, ErrorInfo> {
        let found = self.handles.lock().iter().find(|child| child.job_id() == job_id).cloned();
        found.ok_or_else(|| {
            let message = format!("job_id {job_id:?} is no child of this job; use one that delegate completed with");
            ErrorInfo::argument(message)
        })
    }
}

impl Invocation {
    /// Delegates to another agent, before this returns; completes with the payload of the child's `job.accepted` as JSON
    /// (`job_id`, `delegate_id`, `agent`, `lease` and so on) once this job may emit on. `request` is JSON with `agent` and,
    /// optionally, `input`, `lease_request`, `expires_at`, `delegate_id`, `detached`.
    ///
    /// # Errors
    /// At once for a request that cannot be read; else through the port: `PERMISSION_DENIED`, `LEASE_EXPIRED`,
    /// `BUDGET_EXHAUSTED`, `AGENT_NOT_AVAILABLE`, `AGENT_VERSION_NOT_AVAILABLE`, `LEASE_SUBSET_VIOLATION`,
    /// `INVALID_REQUEST`, `INTERNAL_ERROR` at a cap.
    pub fn delegate(&self, port: &Port, call: u64, request: &str) -> Result<(), ErrorInfo> {
        let handle = self.core().handle()?;
        let request: DelegateRequest<'_> = read("delegate", request)?;
        let delegate = Delegate {
            agent: request.agent,
            input: request.input.map_or_else(|| Ok(RawJson::null()), |input| RawJson::parse(input.get()))?,
            lease_request: request
                .lease_request
                .map_or_else(|| Ok(RawJson::empty_object()), |lease| RawJson::parse(lease.get()))?,
            lease_constraints: request.expires_at.map(|end| LeaseConstraints { expires_at: Some(end) }),
            delegate_id: request.delegate_id,
            detached: request.detached,
        };
        // In the caller's order: what it emits next follows the delegation.
        let granted = self.context().delegate_now(delegate).map(|(child, wait)| {
            let accepted = child.accepted().clone();
            self.children().add(child);
            (accepted, wait)
        });
        let context = self.context().clone();
        port.spawn(&handle, call, async move {
            let (accepted, wait) = granted?;
            if wait {
                context.drained().await;
            }
            Ok(Value::Json(accepted_json(accepted)?))
        });
        Ok(())
    }

    /// Waits for a child's end; completes with its result as JSON, or with its error.
    ///
    /// # Errors
    /// At once when the job is no child of this one, or the core is gone; else through the port.
    pub fn child_result(&self, port: &Port, call: u64, job_id: &str) -> Result<(), ErrorInfo> {
        let handle = self.core().handle()?;
        let child = self.children().get(job_id)?;
        port.spawn(&handle, call, async move { Ok(Value::Json(child.result().await?.get().to_owned())) });
        Ok(())
    }

    /// Makes a child give way; nothing happens when it has ended.
    ///
    /// # Errors
    /// When the job is no child of this one.
    pub fn cancel_child(&self, job_id: &str, reason: &str) -> Result<(), ErrorInfo> {
        self.children().get(job_id)?.cancel(reason);
        Ok(())
    }
}

fn accepted_json(accepted: Accepted) -> Result<String, ErrorInfo> {
    // The child's secrets are the child's.
    let accepted = Accepted { credentials: None, ..accepted };
    Ok(RawJson::from_serialize(&accepted)?.get().to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Duration;

    use super::*;
    use crate::port::Item;
    use crate::{Client, Core, Runtime, TransportHandle, VerifierChoice, Wake};

    struct Bell(std::sync::mpsc::Sender<()>);

    impl Wake for Bell {
        fn wake(&self) {
            // The host may have gone.
            self.0.send(()).ok();
        }
    }

    /// A host with one port, which handles its items in order.
    struct Host {
        port: Port,
        bell: Receiver<()>,
        items: VecDeque<Item>,
    }

    impl Host {
        fn new() -> Self {
            let (sender, bell) = channel();
            Host { port: Port::new(Bell(sender)), bell, items: VecDeque::new() }
        }

        /// The first item this picks from; the others wait.
        fn wait<T>(&mut self, pick: impl Fn(&Item) -> Option<T>) -> T {
            loop {
                if let Some(place) = self.items.iter().position(|item| pick(item).is_some()) {
                    return pick(&self.items.remove(place).unwrap()).unwrap();
                }
                self.bell.recv_timeout(Duration::from_secs(30)).unwrap();
                let mut batch = Vec::new();
                while self.port.drain(64, &mut batch) {}
                self.items.extend(batch);
            }
        }

        fn completed(&mut self, number: u64) -> Result<String, String> {
            self.wait(|item| match item {
                Item::Completed { call, outcome } if *call == number => Some(match outcome {
                    Ok(Value::Json(text)) => Ok(text.clone()),
                    Ok(_) => Ok(String::new()),
                    Err(error) => Err(error.code.clone()),
                }),
                _ => None,
            })
        }

        fn invoked(&mut self, agent: &str) -> Arc<Invocation> {
            self.wait(|item| match item {
                Item::Invoke(invocation) if invocation.start().agent == agent => Some(Arc::clone(invocation)),
                _ => None,
            })
        }
    }

    #[test]
    fn a_host_delegates_and_awaits_its_children() {
        let core = Core::new(1).unwrap();
        let mut host = Host::new();
        let port = host.port.clone();
        let runtime = Runtime::new(
            &core,
            serde_json::from_str(r#"{"name":"test","version":"1"}"#).unwrap(),
            VerifierChoice::Static(vec![("tok".into(), "me".into())]),
        )
        .unwrap();
        runtime.register_agent(&port, "parent", None, false).unwrap();
        runtime.register_agent(&port, "child", None, false).unwrap();
        let (left, right) = TransportHandle::memory_pair();
        runtime.accept(&port, 1, &right).unwrap();
        let client = Client::new(&core, serde_json::from_str(r#"{"name":"test","version":"1"}"#).unwrap()).unwrap();
        client.connect(&port, 2, &left, crate::TokenChoice::Fixed("tok".into()), None).unwrap();
        host.completed(2).unwrap();
        client.submit(&port, 3, r#"{"agent":"parent","lease_request":{"agent.delegate":["child"]}}"#).unwrap();
        let parent = host.invoked("parent");

        parent.delegate(&port, 4, r#"{"agent":"child","input":[1],"delegate_id":"one"}"#).unwrap();
        let one: serde_json::Value = serde_json::from_str(&host.completed(4).unwrap()).unwrap();
        assert_eq!((&one["delegate_id"], &one["parent_job_id"]), (&"one".into(), &(*parent.start().job_id).into()));
        let job_id = one["job_id"].as_str().unwrap().to_owned();
        let child = host.invoked("child");
        assert_eq!((child.input(), &*child.start().job_id), ("[1]", &*job_id));
        parent.child_result(&port, 5, &job_id).unwrap();
        child.complete("{\"done\":1.10}").unwrap();
        assert_eq!(host.completed(5).unwrap(), "{\"done\":1.10}");

        parent.delegate(&port, 6, r#"{"agent":"child"}"#).unwrap();
        let two: serde_json::Value = serde_json::from_str(&host.completed(6).unwrap()).unwrap();
        let child = host.invoked("child");
        let two = two["job_id"].as_str().unwrap();
        parent.cancel_child(two, "not needed").unwrap();
        host.wait(|item| matches!(item, Item::Cancel { invocation, .. } if *invocation == child.id()).then_some(()));
        child.cancelled();
        parent.child_result(&port, 7, two).unwrap();
        assert_eq!(host.completed(7).unwrap_err(), "CANCELLED");

        parent.delegate(&port, 8, r#"{"agent":"parent"}"#).unwrap();
        assert_eq!(host.completed(8).unwrap_err(), "PERMISSION_DENIED");
        assert!(parent.delegate(&port, 9, r#"{"agnet":"child"}"#).unwrap_err().message.contains("agnet"));
        assert!(parent.child_result(&port, 9, "job_x").unwrap_err().message.contains("job_x"));
        assert!(parent.cancel_child("job_x", "").is_err());
        parent.complete("null").unwrap();
    }
}
