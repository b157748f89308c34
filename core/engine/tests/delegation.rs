//! Agents that delegate to other agents, end to end over a memory pair.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use arcp_engine::{Client, Delegate, JobContext, JobHandle, Runtime, StaticBearerVerifier};
use arcp_proto::json::RawJson;
use arcp_proto::machine::runtime::RuntimeConfig;
use arcp_proto::message::Submit;
use arcp_proto::{Error, ErrorCode};
use parking_lot::Mutex;
use support::{BOUND, connected, peer, submit};
use tokio::sync::Barrier;
use tokio::time::timeout;

const MAY_DELEGATE: &str = r#"{"agent.delegate":["*"]}"#;

fn json(text: &str) -> RawJson {
    RawJson::parse(text).unwrap()
}

fn runtime() -> Runtime {
    let runtime = Runtime::new(RuntimeConfig::new(peer("runtime")), StaticBearerVerifier::new([("tok", "me")]));
    runtime.register_agent("double", double).unwrap();
    runtime.register_agent("sleeper", sleeper).unwrap();
    runtime
}

async fn double(input: RawJson, ctx: JobContext) -> Result<RawJson, Error> {
    let number: u64 = input.get().parse().map_err(|_| Error::invalid("double takes a number"))?;
    ctx.log("info", "doubling").await?;
    RawJson::parse(&(2 * number).to_string())
}

/// Looks out for cancellation, and cleans up.
async fn sleeper(_: RawJson, ctx: JobContext) -> Result<RawJson, Error> {
    ctx.status("sleeping", None).await?;
    ctx.cancelled().await;
    ctx.log("info", "woken").await?;
    Ok(RawJson::null())
}

async fn run(client: &Client, agent: &str, lease: &str) -> JobHandle {
    let order = Submit { lease_request: json(lease), ..submit(agent, "null") };
    client.submit(&order, None).await.unwrap()
}

async fn bodies(handle: &JobHandle) -> Vec<String> {
    let mut bodies = Vec::new();
    while let Some(event) = timeout(BOUND, handle.next_event()).await.unwrap() {
        bodies.push(format!("{} {}", event.kind(), std::str::from_utf8(&event.body).unwrap()));
    }
    bodies
}

async fn result(handle: &JobHandle) -> Result<String, Error> {
    match timeout(BOUND, handle.result()).await.unwrap() {
        Ok(result) => Ok(result.result.unwrap().get().to_owned()),
        Err(error) => Err(error.protocol().unwrap().clone()),
    }
}

/// Rules: R-10.10
#[tokio::test]
async fn a_parent_awaits_its_children() {
    let runtime = runtime();
    runtime
        .register_agent("sum", |_: RawJson, ctx: JobContext| async move {
            let one = ctx.delegate(Delegate { delegate_id: Some("one".into()), ..Delegate::new("double", json("3")) });
            let one = one.await?;
            let two = ctx.delegate(Delegate::new("double", json("\"x\""))).await?;
            assert_eq!(one.delegate_id(), "one");
            assert!(two.delegate_id().starts_with("d_") && two.delegate_id().len() == 28, "{}", two.delegate_id());
            assert_eq!(one.accepted().parent_job_id.as_deref(), Some(&*ctx.start().job_id));
            assert_ne!(one.job_id(), two.job_id());
            let refused = two.result().await.unwrap_err();
            assert_eq!(refused.code, ErrorCode::InvalidRequest);
            let sum = one.result().await?;
            assert!(one.has_ended());
            // What has ended can be asked again, and no longer cancelled.
            one.cancel("too late");
            assert_eq!(one.clone().result().await?.get(), sum.get());
            Ok(sum)
        })
        .unwrap();
    let client = connected(&runtime).await;
    let handle = run(&client, "sum", MAY_DELEGATE).await;
    assert_eq!(result(&handle).await.unwrap(), "6");
    let bodies = bodies(&handle).await;
    assert_eq!(bodies.iter().filter(|body| body.starts_with("delegate ")).count(), 2, "{bodies:?}");
    assert!(
        bodies.iter().any(|body| body.starts_with("tool_result {\"call_id\":\"one\",\"result\":{\"child_job_id\":")
            && body.ends_with("\"result\":6}}")),
        "{bodies:?}"
    );
}

#[tokio::test]
async fn an_agent_may_write_the_event_itself() {
    let runtime = runtime();
    runtime
        .register_agent("writer", |_: RawJson, ctx: JobContext| async move {
            ctx.emit("delegate", &json(r#"{"delegate_id":"d","agent":"double","input":4}"#)).await?;
            let refused = ctx.emit("delegate", &json(r#"{"delegate_id":"e","agent":"nobody"}"#)).await;
            assert_eq!(refused.unwrap_err().code, ErrorCode::AgentNotAvailable);
            Ok(RawJson::null())
        })
        .unwrap();
    let client = connected(&runtime).await;
    let handle = run(&client, "writer", MAY_DELEGATE).await;
    result(&handle).await.unwrap();
    let bodies = bodies(&handle).await;
    for call_id in ["d", "e"] {
        let shown = bodies.iter().filter(|body| body.starts_with(&format!("tool_result {{\"call_id\":\"{call_id}\"")));
        assert_eq!(shown.count(), 1, "{bodies:?}");
    }
}

/// Rules: R-10.11
#[tokio::test]
async fn a_child_ends_with_a_parent_that_returns_early_unless_it_is_detached() {
    let runtime = runtime();
    let kept = Arc::new(Mutex::new(Vec::new()));
    runtime
        .register_agent("early", {
            let kept = Arc::clone(&kept);
            move |_: RawJson, ctx: JobContext| {
                let kept = Arc::clone(&kept);
                async move {
                    let bound = ctx.delegate(Delegate::new("sleeper", RawJson::null())).await?;
                    let free = Delegate { detached: true, ..Delegate::new("sleeper", RawJson::null()) };
                    let free = ctx.delegate(free).await?;
                    kept.lock().extend([bound, free]);
                    Ok(RawJson::null())
                }
            }
        })
        .unwrap();
    let client = connected(&runtime).await;
    let handle = run(&client, "early", MAY_DELEGATE).await;
    assert_eq!(result(&handle).await.unwrap(), "null");
    let children = kept.lock().clone();
    let [bound, free] = children.as_slice() else { panic!("two children") };
    // The parent's end waits for the child's.
    assert!(bound.has_ended() && !free.has_ended());
    assert_eq!(bound.result().await.unwrap_err().code, ErrorCode::Cancelled);
    free.cancel("enough");
    assert_eq!(timeout(BOUND, free.result()).await.unwrap().unwrap_err().code, ErrorCode::Cancelled);
}

/// Rules: R-10.8
#[tokio::test]
async fn an_agent_that_delegates_to_itself_stops_at_eight() {
    let runtime = runtime();
    runtime
        .register_agent("deep", |input: RawJson, ctx: JobContext| async move {
            let depth: u64 = input.get().parse().unwrap_or(0);
            let next =
                Delegate { lease_request: json(MAY_DELEGATE), ..Delegate::new("deep", json(&(depth + 1).to_string())) };
            match ctx.delegate(next).await {
                Ok(child) => child.result().await,
                Err(error) => {
                    assert!(error.details.unwrap().get().contains("delegation_depth"));
                    Ok(json(&depth.to_string()))
                }
            }
        })
        .unwrap();
    let client = connected(&runtime).await;
    let handle = run(&client, "deep", MAY_DELEGATE).await;
    assert_eq!(result(&handle).await.unwrap(), "8");
}

/// Rules: R-10.8
#[tokio::test]
async fn the_sixty_fifth_living_child_is_refused() {
    let runtime = runtime();
    runtime
        .register_agent("wide", |_: RawJson, ctx: JobContext| async move {
            let mut children = Vec::new();
            let refused = loop {
                match ctx.delegate(Delegate::new("sleeper", RawJson::null())).await {
                    Ok(child) => children.push(child),
                    Err(error) => break error,
                }
            };
            assert_eq!(refused.code, ErrorCode::InternalError);
            assert!(refused.details.unwrap().get().contains("live_children"));
            children[0].cancel("room for one more");
            children[0].result().await.unwrap_err();
            ctx.delegate(Delegate::new("sleeper", RawJson::null())).await?;
            RawJson::parse(&children.len().to_string())
        })
        .unwrap();
    let client = connected(&runtime).await;
    let handle = run(&client, "wide", MAY_DELEGATE).await;
    assert_eq!(result(&handle).await.unwrap(), "64");
}

/// Rules: R-9.4.8
#[tokio::test]
async fn a_child_without_a_budget_spends_its_ancestors() {
    let runtime = runtime();
    runtime
        .register_agent("spender", |_: RawJson, ctx: JobContext| async move {
            ctx.authorize("tool.call", "search")?;
            ctx.metric("cost.llm", "2.5", Some("USD")).await?;
            // At once, in the same thread (D-19).
            assert_eq!(ctx.authorize("tool.call", "search").unwrap_err().code, ErrorCode::BudgetExhausted);
            assert!(ctx.budget().is_none());
            Err(Error::new(ErrorCode::BudgetExhausted, "used up"))
        })
        .unwrap();
    runtime
        .register_agent("middle", |_: RawJson, ctx: JobContext| async move {
            let spender =
                Delegate { lease_request: json(r#"{"tool.call":["search"]}"#), ..Delegate::new("spender", json("1")) };
            let error = ctx.delegate(spender).await?.result().await.unwrap_err();
            assert_eq!(error.code, ErrorCode::BudgetExhausted);
            Ok(RawJson::null())
        })
        .unwrap();
    runtime
        .register_agent("payer", |_: RawJson, ctx: JobContext| async move {
            let middle = Delegate {
                lease_request: json(r#"{"tool.call":["search"],"agent.delegate":["spender"]}"#),
                ..Delegate::new("middle", json("1"))
            };
            ctx.delegate(middle).await?.result().await?;
            let refused = ctx.delegate(Delegate::new("double", json("1"))).await.err().unwrap();
            assert_eq!(refused.code, ErrorCode::BudgetExhausted);
            Ok(ctx.budget().unwrap())
        })
        .unwrap();
    let client = connected(&runtime).await;
    let lease = r#"{"tool.call":["search"],"agent.delegate":["*"],"cost.budget":["USD:2"]}"#;
    let handle = run(&client, "payer", lease).await;
    assert_eq!(result(&handle).await.unwrap(), r#"{"USD":-0.5}"#);
}

/// Rules: R-7.4.10
#[tokio::test]
async fn a_cancelled_parent_takes_its_children_along() {
    let runtime = runtime();
    let order = Arc::new(Mutex::new(Vec::new()));
    let ready = Arc::new(Barrier::new(3));
    let note = |name: &'static str, next: Option<&'static str>| {
        let (order, ready) = (Arc::clone(&order), Arc::clone(&ready));
        move |_: RawJson, ctx: JobContext| {
            let (order, ready) = (Arc::clone(&order), Arc::clone(&ready));
            async move {
                ctx.observe_cancellation();
                if let Some(next) = next {
                    let next = Delegate { lease_request: json(MAY_DELEGATE), ..Delegate::new(next, json("1")) };
                    ctx.delegate(next).await?;
                }
                ready.wait().await;
                ctx.status("ready", None).await?;
                ctx.cancelled().await;
                order.lock().push(name);
                Ok(RawJson::null())
            }
        }
    };
    runtime.register_agent("top", note("top", Some("mid"))).unwrap();
    runtime.register_agent("mid", note("mid", Some("leaf"))).unwrap();
    runtime.register_agent("leaf", note("leaf", None)).unwrap();
    let client = connected(&runtime).await;
    let handle = run(&client, "top", MAY_DELEGATE).await;
    while timeout(BOUND, handle.next_event()).await.unwrap().unwrap().kind() != "status" {}
    client.cancel_job(handle.job_id(), "enough").unwrap();
    assert_eq!(result(&handle).await.unwrap_err().code, ErrorCode::Cancelled);
    // All of them had their time to clean up before the parent's terminal.
    let mut cancelled = order.lock().clone();
    cancelled.sort_unstable();
    assert_eq!(cancelled, ["leaf", "mid", "top"]);
    timeout(BOUND, runtime.shutdown("done", Duration::from_secs(5))).await.unwrap();
}

#[tokio::test]
async fn a_child_takes_no_slot_of_the_running_jobs() {
    let config = RuntimeConfig { max_concurrent_jobs: 1, ..RuntimeConfig::new(peer("runtime")) };
    let runtime = Runtime::new(config, StaticBearerVerifier::new([("tok", "me")]));
    runtime.register_agent("double", double).unwrap();
    runtime
        .register_agent("one", |_: RawJson, ctx: JobContext| async move {
            ctx.delegate(Delegate::new("double", json("21"))).await?.result().await
        })
        .unwrap();
    let client = connected(&runtime).await;
    let handle = run(&client, "one", MAY_DELEGATE).await;
    assert_eq!(result(&handle).await.unwrap(), "42");
}
