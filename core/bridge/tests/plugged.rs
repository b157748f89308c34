//! What a host plugs into a runtime is asked through its port, and silence takes the safe side.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use arcp_bridge::{
    About, Client, ClientOptions, Core, ErrorInfo, HostRequest, Invocation, Item, JobView, Port, Runtime,
    RuntimeOptions, TokenChoice, TransportHandle, Value, VerifierChoice, Wake,
};
use serde_json::{Value as Json, json};

const BOUND: Duration = Duration::from_secs(30);

struct Bell(Sender<()>);

impl Wake for Bell {
    fn wake(&self) {
        // The host may be gone.
        let _ = self.0.send(());
    }
}

/// A host with one loop, one runtime and one agent, `waits`.
struct Host {
    core: Core,
    port: Port,
    bell: Receiver<()>,
    items: Vec<Item>,
    calls: u64,
    runtime: Runtime,
}

impl Host {
    fn new() -> Self {
        let (sender, bell) = channel();
        let (core, port) = (Core::new(2).unwrap(), Port::new(Bell(sender)));
        let tokens = ["alice", "bob"].map(|name| (format!("tok-{name}"), name.to_owned()));
        let options = RuntimeOptions::from_json(r#"{"name":"test","version":"1"}"#).unwrap();
        let runtime = Runtime::new(&core, options, VerifierChoice::Static(tokens.to_vec())).unwrap();
        runtime.register_agent(&port, "waits", None, false).unwrap();
        Host { core, port, bell, items: Vec::new(), calls: 100, runtime }
    }

    /// The first item that `pick` takes; others wait.
    fn until<T>(&mut self, mut pick: impl FnMut(Item) -> Result<T, Item>) -> T {
        loop {
            while self.port.drain(64, &mut self.items) {}
            let mut found = None;
            for item in std::mem::take(&mut self.items) {
                if found.is_some() {
                    self.items.push(item);
                    continue;
                }
                match pick(item) {
                    Ok(value) => found = Some(value),
                    Err(item) => self.items.push(item),
                }
            }
            match found {
                Some(value) => return value,
                None => self.bell.recv_timeout(BOUND).unwrap(),
            }
        }
    }

    fn completed(&mut self, number: u64) -> Result<Value, ErrorInfo> {
        self.until(|item| match item {
            Item::Completed { call, outcome } if call == number => Ok(outcome),
            item => Err(item),
        })
    }

    fn asked(&mut self, about: About) -> (HostRequest, Json) {
        let request = self.until(|item| match item {
            Item::Ask(request) if request.about() == about => Ok(request),
            item => Err(item),
        });
        let arguments = serde_json::from_str(request.arguments()).unwrap();
        (request, arguments)
    }

    fn invoked(&mut self) -> Arc<Invocation> {
        self.until(|item| match item {
            Item::Invoke(invocation) => Ok(invocation),
            item => Err(item),
        })
    }

    fn begin(&mut self) -> u64 {
        self.calls += 1;
        self.calls
    }

    fn connect(&mut self, principal: &str) -> Client {
        let (left, right) = TransportHandle::memory_pair();
        let accept = self.begin();
        self.runtime.accept(&self.port, accept, &right).unwrap();
        let features = r#"["list_jobs","subscribe","model.use","provisioned_credentials"]"#;
        let options = format!(r#"{{"name":"test","version":"1","features":{features}}}"#);
        let client = Client::new(&self.core, ClientOptions::from_json(&options).unwrap()).unwrap();
        let connect = self.begin();
        let token = TokenChoice::Fixed(format!("tok-{principal}"));
        client.connect(&self.port, connect, &left, token, None).unwrap();
        self.completed(connect).unwrap();
        client
    }

    fn submit(&mut self, client: &Client) -> u64 {
        let call = self.begin();
        client.submit(&self.port, call, r#"{"agent":"waits"}"#).unwrap();
        call
    }
}

fn job(value: Result<Value, ErrorInfo>) -> Arc<JobView> {
    match value {
        Ok(Value::Job(job)) => job,
        Ok(_) => panic!("no job"),
        Err(error) => panic!("{error}"),
    }
}

fn code(value: Result<Value, ErrorInfo>) -> String {
    value.err().map(|error| error.code).unwrap_or_default()
}

/// Rules: R-7.6.12, R-7.6.24
#[test]
fn a_policy_behind_the_port_decides_and_its_silence_is_a_refusal() {
    let mut host = Host::new();
    host.runtime.set_policy(&host.port).unwrap();
    assert!(host.runtime.set_policy(&host.port).is_err());
    let (alice, bob) = (host.connect("alice"), host.connect("bob"));
    let submit = host.submit(&alice);
    let job_id = job(host.completed(submit)).job_id().to_owned();
    let _running = host.invoked();
    let follow = |host: &mut Host| {
        let call = host.begin();
        bob.subscribe(&host.port, call, &format!(r#"{{"job_id":"{job_id}"}}"#)).unwrap();
        call
    };

    let call = follow(&mut host);
    let (request, asked) = host.asked(About::Policy);
    assert_eq!((&asked["principal"], &asked["operation"]), (&json!("bob"), &json!("subscribe")));
    let about = &asked["jobs"][0];
    assert_eq!(
        (&about["job_id"], &about["principal"], &about["status"]),
        (&json!(job_id), &json!("alice"), &json!("running"))
    );
    drop(request);
    assert_eq!(code(host.completed(call)), "INTERNAL_ERROR");

    for (answer, expected) in
        [("[\"hidden\"]", "JOB_NOT_FOUND"), ("[\"known\"]", "PERMISSION_DENIED"), ("[\"maybe\"]", "INTERNAL_ERROR")]
    {
        let call = follow(&mut host);
        host.asked(About::Policy).0.answer(Ok(answer.to_owned()));
        assert_eq!(code(host.completed(call)), expected);
    }
    let call = follow(&mut host);
    host.asked(About::Policy).0.answer(Ok("[\"allowed\"]".to_owned()));
    job(host.completed(call));
    host.runtime.policy_changed().unwrap();
    let (mut request, asked) = host.asked(About::Policy);
    assert_eq!(asked["principal"], "bob");
    request.answer(Ok("[\"hidden\"]".to_owned()));

    let call = host.begin();
    bob.list_jobs(&host.port, call, "{}").unwrap();
    let (mut request, asked) = host.asked(About::Policy);
    assert_eq!(asked["operation"], "list");
    request.answer(Ok("[\"allowed\"]".to_owned()));
    match host.completed(call) {
        Ok(Value::Json(page)) => assert!(page.contains(&job_id), "{page}"),
        _ => panic!("no page"),
    }
}

const GIVEN: &str = r#"[{"id":"cred_1","scheme":"bearer","value":"s3cret","endpoint":"https://gate.example/"}]"#;

/// Rules: R-9.8.2.1, R-9.8.2.4, R-9.8.2.6, R-9.8.2.8
#[test]
fn credentials_are_written_down_before_they_leave_and_forgotten_with_their_last_value() {
    let mut host = Host::new();
    host.runtime.set_provisioner(&host.port, true).unwrap();
    let alice = host.connect("alice");
    let submit = host.submit(&alice);
    // Nothing is issued before what an earlier process left is known.
    let (mut outstanding, _) = host.asked(About::Outstanding);
    outstanding.answer(Ok(r#"[["job_old","cred_old"]]"#.to_owned()));
    let (mut revoke, asked) = host.asked(About::Revoke);
    assert_eq!(asked, json!({"job_id": "job_old", "id": "cred_old", "rotation": 0}));
    revoke.answer(Ok("null".to_owned()));
    let (mut forget, asked) = host.asked(About::Forget);
    assert_eq!(asked, json!({"job_id": "job_old", "id": "cred_old"}));
    forget.answer(Ok("null".to_owned()));

    let (mut issue, asked) = host.asked(About::Issue);
    let job_id = asked["job_id"].as_str().unwrap().to_owned();
    assert_eq!((&asked["principal"], &asked["agent"]), (&json!("alice"), &json!("waits")));
    issue.answer(Ok(GIVEN.to_owned()));
    let (mut record, asked) = host.asked(About::Record);
    assert_eq!(asked, json!({"job_id": job_id, "ids": ["cred_1"]}));
    assert!(host.items.iter().all(|item| !matches!(item, Item::Invoke(_) | Item::Completed { .. })));
    record.answer(Ok("null".to_owned()));
    assert_eq!(job(host.completed(submit)).job_id(), job_id);

    let running = host.invoked();
    assert!(running.credentials().contains("s3cret"));
    assert_eq!(running.rotate_credential("cred_1", "s3cret".into()).unwrap_err().code, "INVALID_REQUEST");
    assert_eq!(running.rotate_credential("cred_2", "fresh".into()).unwrap_err().code, "JOB_NOT_FOUND");
    running.rotate_credential("cred_1", "fresh".into()).unwrap();
    let (mut revoke, asked) = host.asked(About::Revoke);
    assert_eq!(asked, json!({"job_id": job_id, "id": "cred_1", "rotation": 0}));
    revoke.answer(Ok("null".to_owned()));
    running.complete("null").unwrap();
    // A revocation that fails is tried again; the id is forgotten with its last value, and not before.
    drop(host.asked(About::Revoke));
    let (mut revoke, asked) = host.asked(About::Revoke);
    assert_eq!(asked["rotation"], 1);
    assert!(host.items.iter().all(|item| !matches!(item, Item::Ask(_))));
    revoke.answer(Ok("null".to_owned()));
    host.asked(About::Forget).0.answer(Ok("null".to_owned()));
}

/// Rules: R-9.8.2.2
#[test]
fn a_provisioner_that_says_nothing_or_nonsense_refuses_the_submit() {
    let mut host = Host::new();
    host.runtime.set_provisioner(&host.port, true).unwrap();
    host.asked(About::Outstanding).0.answer(Ok("[]".to_owned()));
    let alice = host.connect("alice");
    for answer in
        [None, Some(r#"[{"id":"s3cret"}]"#), Some("s3cret"), Some(r#"[{"id":"a","scheme":"b","value":"s3cret"}]"#)]
    {
        let submit = host.submit(&alice);
        let (mut issue, _) = host.asked(About::Issue);
        if let Some(answer) = answer {
            issue.answer(Ok(answer.to_owned()));
        }
        drop(issue);
        let refused = host.completed(submit).err().unwrap();
        assert_eq!(refused.code, "INTERNAL_ERROR");
        assert!(!refused.message.contains("s3cret"), "{}", refused.message);
    }
    // What cannot be written down is taken back.
    let submit = host.submit(&alice);
    host.asked(About::Issue).0.answer(Ok(GIVEN.to_owned()));
    drop(host.asked(About::Record));
    let (mut revoke, asked) = host.asked(About::Revoke);
    assert_eq!(asked["id"], "cred_1");
    revoke.answer(Ok("null".to_owned()));
    host.asked(About::Forget).0.answer(Ok("null".to_owned()));
    assert_eq!(code(host.completed(submit)), "INTERNAL_ERROR");
}

#[test]
fn an_event_log_is_told_in_order_again_after_a_failure_and_never_waited_for() {
    let mut host = Host::new();
    host.runtime.set_event_log(&host.port).unwrap();
    let alice = host.connect("alice");
    let submit = host.submit(&alice);
    let view = job(host.completed(submit));
    let running = host.invoked();
    for number in 0..1000 {
        running.emit("thought", &format!(r#"{{"text":"{number}"}}"#)).unwrap();
    }
    running.complete("null").unwrap();
    let mut seen = Vec::new();
    let mut failed = false;
    while seen.len() < 1001 {
        let (mut request, entries) = host.asked(About::EventLog);
        if !failed {
            failed = true;
            drop(request);
            continue;
        }
        for entry in entries.as_array().unwrap() {
            let envelope: Json = serde_json::from_str(entry["envelope"].as_str().unwrap()).unwrap();
            assert_eq!((&envelope["event_seq"], &envelope["session_id"]), (&entry["event_seq"], &entry["append"]));
            assert_eq!(envelope["job_id"], view.job_id());
            seen.push(entry["event_seq"].as_u64().unwrap());
        }
        request.answer(Ok("null".to_owned()));
    }
    assert_eq!(seen, (1..=1001).collect::<Vec<u64>>());
    let flush = host.begin();
    host.runtime.flush_event_log(&host.port, flush, BOUND).unwrap();
    host.completed(flush).unwrap();
}
