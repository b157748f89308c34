//! A host's agent writes its result in parts.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use arcp_bridge::{
    Client, ClientOptions, Core, ErrorInfo, ErrorKind, Invocation, Item, NextBatch, Port, ResultData, Runtime,
    RuntimeOptions, TransportHandle, Value, VerifierChoice, Wake,
};

const BOUND: Duration = Duration::from_secs(30);

struct Bell(Sender<()>);

impl Wake for Bell {
    fn wake(&self) {
        // The host may be gone.
        let _ = self.0.send(());
    }
}

/// A host with one loop.
struct Host {
    core: Core,
    port: Port,
    bell: Receiver<()>,
    items: Vec<Item>,
    calls: u64,
}

impl Host {
    fn new() -> Self {
        let (sender, bell) = channel();
        Host { core: Core::new(2).unwrap(), port: Port::new(Bell(sender)), bell, items: Vec::new(), calls: 0 }
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

    fn call(&mut self, call: impl FnOnce(&Core, &Port, u64) -> Result<(), ErrorInfo>) -> Result<Value, ErrorInfo> {
        self.calls += 1;
        let number = self.calls;
        call(&self.core, &self.port, number)?;
        self.until(|item| match item {
            Item::Completed { call, outcome } if call == number => Ok(outcome),
            item => Err(item),
        })
    }

    fn invoked(&mut self) -> Arc<Invocation> {
        self.until(|item| match item {
            Item::Invoke(invocation) => Ok(invocation),
            item => Err(item),
        })
    }
}

/// Runs one job of an agent of the host: the chunks' bodies, and the payload of its end.
fn run(
    options: &str,
    features: &str,
    agent: impl FnOnce(&mut Host, &Invocation),
) -> (Vec<String>, Result<String, ErrorInfo>) {
    let mut host = Host::new();
    let options = RuntimeOptions::from_json(options).unwrap();
    let tokens = VerifierChoice::Static(vec![("tok".into(), "me".into())]);
    let runtime = Runtime::new(&host.core, options, tokens).unwrap();
    runtime.register_agent(&host.port, "writer", None, false).unwrap();
    let (near, far) = TransportHandle::memory_pair();
    runtime.accept(&host.port, 1000, &far).unwrap();
    let client = format!(r#"{{"name":"c","version":"1","features":{features}}}"#);
    let client = Client::new(&host.core, ClientOptions::from_json(&client).unwrap()).unwrap();
    host.call(|_, port, call| client.connect(port, call, &near, arcp_bridge::TokenChoice::Fixed("tok".into()), None))
        .unwrap();
    let Value::Job(job) = host.call(|_, port, call| client.submit(port, call, r#"{"agent":"writer"}"#)).unwrap() else {
        panic!("no job")
    };
    let invocation = host.invoked();
    agent(&mut host, &invocation);

    let mut events = Vec::new();
    loop {
        match job.next_batch(&host.port, 7, 64, &mut events) {
            NextBatch::Some => {}
            NextBatch::Ended => break,
            NextBatch::Empty => host.until(|item| match item {
                Item::Ready { stream: 7 } => Ok(()),
                item => Err(item),
            }),
        }
    }
    let bodies = events.iter().map(|event| String::from_utf8(event.body.to_vec()).unwrap()).collect();
    let end = host.call(|core, port, call| job.result(core, port, call)).map(|end| match end {
        Value::Json(end) => end,
        _ => panic!("no JSON"),
    });
    host.core.shutdown(BOUND);
    (bodies, end)
}

const PLAIN: &str = r#"{"name":"r","version":"1"}"#;
const CHUNKS: &str = r#"["result_chunk"]"#;

#[test]
fn a_result_in_parts_has_one_writer_an_id_and_an_end() {
    let (bodies, end) = run(PLAIN, CHUNKS, |_, agent| {
        let refused = agent.write_result(ResultData::Text("x")).unwrap_err();
        assert_eq!((refused.kind, &*refused.code), (ErrorKind::Protocol, "INVALID_REQUEST"));
        assert_eq!(agent.open_result(None, Some(0)).unwrap_err().code, "INVALID_REQUEST");
        assert_eq!(agent.open_result(Some("mine".into()), Some(4)).unwrap(), "mine");
        assert_eq!(agent.open_result(None, None).unwrap_err().code, "INVALID_REQUEST");
        let written = agent.write_result(ResultData::Text("ab😀")).unwrap();
        assert_eq!((written.taken, written.must_wait), (6, false));
        agent.write_result(ResultData::Bytes(&[255])).unwrap();
        agent.flush_result().unwrap();
        agent.finish_result(Some("done")).unwrap();
        assert_eq!(agent.finish_result(None).unwrap_err().code, "INVALID_REQUEST");
        agent.complete("\"not sent\"").unwrap();
    });
    assert_eq!(
        bodies,
        [
            r#"{"result_id":"mine","chunk_seq":0,"data":"ab","encoding":"utf8","more":true}"#,
            r#"{"result_id":"mine","chunk_seq":1,"data":"😀","encoding":"utf8","more":true}"#,
            r#"{"result_id":"mine","chunk_seq":2,"data":"/w==","encoding":"base64","more":true}"#,
            r#"{"result_id":"mine","chunk_seq":3,"data":"","encoding":"utf8","more":false}"#,
        ]
    );
    let end = end.unwrap();
    assert!(end.contains(r#""result_id":"mine","result_size":7,"summary":"done""#), "{end}");
}

#[test]
fn a_host_writes_sixteen_mebibytes_and_waits_where_it_is_told_to() {
    let options = r#"{"name":"r","version":"1","result_chunk_cap":65536}"#;
    let text = "é".repeat(8 << 20);
    let (bodies, end) = run(options, CHUNKS, |host, agent| {
        agent.open_result(None, Some(65_536)).unwrap();
        let mut left = ResultData::Text(&text);
        while !left.is_empty() {
            let written = agent.write_result(left).unwrap();
            left = left.skip(written.taken);
            if written.must_wait {
                host.call(|_, port, call| agent.drained(port, call)).unwrap();
            }
        }
        agent.complete("null").unwrap();
    });
    assert_eq!(bodies.len(), 256);
    assert!(bodies[255].ends_with(r#""encoding":"utf8","more":false}"#));
    assert!(end.unwrap().contains(r#""result_size":16777216"#));
}

#[test]
fn caps_are_settings_and_end_the_job() {
    let options = r#"{"name":"r","version":"1","result_cap":10,"inline_result_cap":5}"#;
    for (features, cap) in [(CHUNKS, r#"{"cap":"result_bytes"}"#), ("[]", r#"{"cap":"inline_result"}"#)] {
        let (_, end) = run(options, features, |_, agent| {
            agent.open_result(None, None).unwrap();
            let over = agent.write_result(ResultData::Bytes(&[0; 11])).unwrap_err();
            assert_eq!(over.code, "INTERNAL_ERROR");
            agent.complete("null").unwrap();
        });
        assert_eq!(end.unwrap_err().details.as_deref(), Some(cap));
    }
    assert!(RuntimeOptions::from_json(r#"{"name":"r","version":"1","result_chunk_cap":-1}"#).is_err());
}

#[test]
fn without_the_feature_the_result_is_whole() {
    let (bodies, end) = run(PLAIN, "[]", |_, agent| {
        agent.open_result(None, None).unwrap();
        agent.write_result(ResultData::Text("one ")).unwrap();
        agent.write_result(ResultData::Bytes(b"two")).unwrap();
        agent.finish_result(None).unwrap();
        agent.complete("null").unwrap();
    });
    assert!(bodies.is_empty());
    let end = end.unwrap();
    assert!(end.contains(r#""result":"one two""#) && !end.contains("result_id"), "{end}");
}
