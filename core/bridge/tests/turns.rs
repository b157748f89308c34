//! What one turn of a host's loop leaves crosses at once.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use arcp_bridge::{
    Client, ClientOptions, Core, ErrorInfo, Invocation, Item, JobView, Port, Runtime, RuntimeOptions, TokenChoice,
    TransportHandle, Value, VerifierChoice, Wake,
};

const BOUND: Duration = Duration::from_secs(30);

struct Bell(Sender<()>);

impl Wake for Bell {
    fn wake(&self) {
        // The host may be gone.
        let _ = self.0.send(());
    }
}

fn port() -> (Port, Receiver<()>) {
    let (sender, bell) = channel();
    (Port::new(Bell(sender)), bell)
}

/// What comes until there are so many items.
fn wait(port: &Port, bell: &Receiver<()>, count: usize) -> Vec<Item> {
    let mut items = Vec::new();
    loop {
        while port.drain(64, &mut items) {}
        if items.len() >= count {
            return items;
        }
        bell.recv_timeout(BOUND).unwrap();
    }
}

fn completed(item: Item) -> (u64, Result<Value, ErrorInfo>) {
    match item {
        Item::Completed { call, outcome } => (call, outcome),
        _ => panic!("no completion"),
    }
}

fn job(value: Value) -> Arc<JobView> {
    match value {
        Value::Job(job) => job,
        _ => panic!("no job"),
    }
}

fn invocation(item: Item) -> Arc<Invocation> {
    match item {
        Item::Invoke(invocation) => invocation,
        _ => panic!("no invocation"),
    }
}

/// A client at a runtime whose agent runs behind a port of its own.
fn connected(core: &Core, agents: &Port, near: &(Port, Receiver<()>)) -> Client {
    let options = RuntimeOptions::from_json(r#"{"name":"r","version":"1"}"#).unwrap();
    let tokens = VerifierChoice::Static(vec![("tok".into(), "me".into())]);
    let runtime = Runtime::new(core, options, tokens).unwrap();
    runtime.register_agent(agents, "echo", None, false).unwrap();
    let (here, there) = TransportHandle::memory_pair();
    let (serving, _) = port();
    runtime.accept(&serving, 1, &there).unwrap();
    // It serves for as long as its port is there.
    std::mem::forget(serving);
    let client = ClientOptions::from_json(r#"{"name":"c","version":"1","features":[]}"#).unwrap();
    let client = Client::new(core, client).unwrap();
    client.connect(&near.0, 1, &here, TokenChoice::Fixed("tok".into()), None).unwrap();
    completed(wait(&near.0, &near.1, 1).remove(0)).1.unwrap();
    client
}

#[test]
fn submits_and_answers_wait_for_the_flush() {
    let core = Core::new(2).unwrap();
    let (agents, near) = (port(), port());
    let client = connected(&core, &agents.0, &near);
    assert!(client.submit_plain_soon(&near.0, 2, "echo", "2").unwrap(), "the first has to be flushed");
    assert!(!client.submit_plain_soon(&near.0, 3, "echo", "3").unwrap());
    assert!(!client.submit_soon(&near.0, 4, r#"{"agent":"echo","input":4}"#).unwrap());
    // Nobody waits for this one: it is never sent.
    near.0.cancel_call(3);
    near.0.flush();
    let jobs: Vec<_> = wait(&near.0, &near.1, 2).into_iter().map(completed).collect();
    assert_eq!(jobs.iter().map(|(call, _)| *call).collect::<Vec<_>>(), [2, 4]);
    let jobs: Vec<_> = jobs.into_iter().map(|(_, value)| job(value.unwrap())).collect();

    let invocations: Vec<_> = wait(&agents.0, &agents.1, 2).into_iter().map(invocation).collect();
    assert_eq!(invocations.iter().map(|invocation| invocation.input()).collect::<Vec<_>>(), ["2", "4"]);
    for (call, job) in jobs.iter().enumerate() {
        assert!(job.result_now().unwrap().is_none());
        job.result(&core, &near.0, 10 + call as u64).unwrap();
    }
    assert!(invocations[0].complete_soon("20").unwrap());
    assert!(!invocations[1].complete_soon("40").unwrap());
    assert!(!invocations[1].complete_soon("41").unwrap(), "the first answer counts");
    agents.0.flush();
    let ends: Vec<_> = wait(&near.0, &near.1, 2).into_iter().map(completed).collect();
    for (place, (call, end)) in ends.into_iter().enumerate() {
        assert_eq!(call, 10 + place as u64);
        let Value::Json(end) = end.unwrap() else { panic!("no JSON") };
        assert!(end.contains(["\"result\":20", "\"result\":40"][place]), "{end}");
        assert_eq!(jobs[place].result_now().unwrap().unwrap(), end);
    }
    core.shutdown(BOUND);
}

#[test]
fn a_closed_port_drops_its_submits_and_keeps_its_answers() {
    let core = Core::new(2).unwrap();
    let (agents, near) = (port(), port());
    let client = connected(&core, &agents.0, &near);
    for call in 2..5 {
        client.submit(&near.0, call, r#"{"agent":"echo"}"#).unwrap();
    }
    let jobs: Vec<_> = wait(&near.0, &near.1, 3).into_iter().map(|item| job(completed(item).1.unwrap())).collect();
    let mut invocations: Vec<_> = wait(&agents.0, &agents.1, 3).into_iter().map(invocation).collect();
    for (call, job) in jobs.iter().enumerate() {
        job.result(&core, &near.0, 10 + call as u64).unwrap();
    }
    // Answered before and after the loop is gone, and never.
    assert!(invocations[0].complete_soon("1").unwrap());
    agents.0.close();
    invocations[1].complete_soon("2").unwrap();
    drop(invocations.pop());
    let mut ends = wait(&near.0, &near.1, 3).into_iter().map(completed).collect::<Vec<_>>();
    ends.sort_by_key(|(call, _)| *call);
    let [first, second, third] = <[_; 3]>::try_from(ends).map_err(drop).unwrap().map(|(_, end)| end);
    assert!(matches!(first.unwrap(), Value::Json(end) if end.contains("\"result\":1")));
    assert!(matches!(second.unwrap(), Value::Json(end) if end.contains("\"result\":2")));
    assert_eq!(third.err().unwrap().code, "INTERNAL_ERROR");
    // A job that comes now fails, since nobody runs it.
    client.submit(&near.0, 5, r#"{"agent":"echo"}"#).unwrap();
    let late = job(completed(wait(&near.0, &near.1, 1).remove(0)).1.unwrap());
    late.result(&core, &near.0, 13).unwrap();
    let end = completed(wait(&near.0, &near.1, 1).remove(0)).1.err().unwrap();
    assert!(end.message.contains("event loop"), "{end:?}");
    // Whoever has gone waits for nothing.
    near.0.close();
    client.submit(&near.0, 6, r#"{"agent":"echo"}"#).unwrap();
    core.shutdown(BOUND);
}
