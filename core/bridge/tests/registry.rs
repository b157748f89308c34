//! A registry's client as hosts use it: calls through a port, a host's own HTTP client, sockets.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use arcp::registry::server::{Running, config::Config, start};
use arcp_bridge::{About, Core, ErrorInfo, ErrorKind, Item, NextBatch, Port, Registry, Value, Wake, registry_check};
use serde_json::{Value as Json, json};

const BOUND: Duration = Duration::from_secs(20);

struct Bell(Sender<()>);

impl Wake for Bell {
    fn wake(&self) {
        // The host may be gone.
        let _ = self.0.send(());
    }
}

struct Host {
    core: Core,
    port: Port,
    bell: Receiver<()>,
    calls: u64,
    /// What it was asked to send, as method and URL.
    asked: Vec<String>,
    /// How it answers that, in turn; the last one again and again.
    answers: Vec<Json>,
}

impl Host {
    fn new(answers: Vec<Json>) -> Self {
        let (sender, bell) = channel();
        let (core, port) = (Core::new(2).unwrap(), Port::new(Bell(sender)));
        Host { core, port, bell, calls: 0, asked: Vec::new(), answers }
    }

    fn registry(&self, url: &str) -> Registry {
        let options = json!({"base_url": url, "retry_delay": 0.001, "max_retry_delay": 0.01, "fingerprint": "print"});
        Registry::new(&self.core, &options.to_string()).unwrap()
    }

    /// The next item that is no request to be sent.
    fn next(&mut self) -> Item {
        loop {
            let mut items = Vec::new();
            self.port.drain(1, &mut items);
            match items.pop() {
                Some(Item::Ask(mut request)) => {
                    assert_eq!(request.about(), About::HttpRequest);
                    let arguments: Json = serde_json::from_str(request.arguments()).unwrap();
                    assert_eq!(arguments["headers"]["x-client-fingerprint"], "print");
                    self.asked.push(format!("{} {}", arguments["method"], arguments["url"]).replace('"', ""));
                    let answer = self.answers[(self.asked.len() - 1).min(self.answers.len() - 1)].clone();
                    request.answer(Ok(answer.to_string()));
                }
                Some(item) => return item,
                None => self.bell.recv_timeout(BOUND).unwrap(),
            }
        }
    }

    fn call(&mut self, registry: &Registry, name: &str, arguments: Json, own: bool) -> Result<Json, ErrorInfo> {
        self.calls += 1;
        let host = own.then_some(&self.port);
        if registry.perform_soon(&self.port, self.calls, name, &arguments.to_string(), host)? {
            self.port.flush();
        }
        match self.next() {
            Item::Completed { call, outcome } => {
                assert_eq!(call, self.calls);
                outcome.map(|value| match value {
                    Value::Json(text) => serde_json::from_str(&text).unwrap(),
                    _ => panic!("another value"),
                })
            }
            _ => panic!("another item"),
        }
    }
}

fn serve() -> (tokio::runtime::Runtime, Running) {
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let running = tokio.block_on(start(Config::dev())).unwrap();
    (tokio, running)
}

#[test]
fn calls_complete_through_the_port() {
    let (_tokio, server) = serve();
    let mut host = Host::new(Vec::new());
    let registry = host.registry(&server.url());
    assert_eq!(host.call(&registry, "health_check", json!({}), false).unwrap()["status"], "healthy");
    let error = host.call(&registry, "get_public_agent", json!({"agent_id": "nobody"}), false).unwrap_err();
    assert_eq!((error.kind, &*error.code), (ErrorKind::Registry, "agent-not-found"));
    let details: Json = serde_json::from_str(&error.details.unwrap()).unwrap();
    assert_eq!(
        (&details["area"], &details["kind"], &details["status"]),
        (&json!("general"), &json!("not_found"), &json!(404))
    );
    let error = host.call(&registry, "fly", json!({}), false).unwrap_err();
    assert!(error.message.contains("unknown variant `fly`"), "{}", error.message);
}

/// Rules: REG-011, REG-020
#[test]
fn a_host_s_own_client_carries_every_request_and_try() {
    let mut host = Host::new(vec![
        json!({"failed": "timeout", "message": "slow"}),
        json!({"status": 503, "headers": {"Retry-After": "0"}}),
        json!({"status": 200, "body": r#"{"status":"healthy"}"#}),
    ]);
    let registry = host.registry("http://nowhere.invalid/prefix");
    assert_eq!(host.call(&registry, "health_check", json!({}), true).unwrap()["status"], "healthy");
    assert_eq!(host.asked, ["GET http://nowhere.invalid/prefix/health"; 3]);
    host.answers = vec![json!({"failed": "lost", "message": "cut"})];
    let error = host.call(&registry, "health_check", json!({}), true).unwrap_err();
    assert_eq!(error.message, "Health check failed: Connection lost: cut");
    host.answers = vec![json!({"token": "s3cret"})];
    let error = host.call(&registry, "health_check", json!({}), true).unwrap_err();
    assert!(error.message.contains("another shape") && !error.message.contains("s3cret"), "{}", error.message);
}

/// Rules: REG-055, REG-060
#[test]
fn a_socket_says_when_it_can_be_read() {
    let (_tokio, server) = serve();
    let mut host = Host::new(Vec::new());
    let registry = host.registry(&server.url());
    let socket = registry.open_socket("public", "{}").unwrap();
    let mut batch = Vec::new();
    while batch.len() < 2 {
        match socket.next_batch(&host.port, 7, 64, &mut batch).unwrap() {
            NextBatch::Some => {}
            NextBatch::Empty => assert!(matches!(host.next(), Item::Ready { stream: 7 })),
            NextBatch::Ended => panic!("ended"),
        }
    }
    assert!(batch[0].contains(r#""type":"welcome""#) && batch[1].contains(r#""type":"discovery_data""#), "{batch:?}");
    socket.close();
    assert_eq!(socket.next_batch(&host.port, 7, 64, &mut batch).unwrap(), NextBatch::Ended);
    assert!(registry.open_socket("other", "{}").err().unwrap().message.contains("public, agent or dashboard"));
    assert!(registry.open_socket("public", r#"{"queue":0}"#).is_err());
}

/// Rules: REG-070
#[test]
fn models_are_checked_by_name() {
    let checked: Json =
        serde_json::from_str(&registry_check("search_request", r#"{"query":" ab "}"#).unwrap()).unwrap();
    assert_eq!(checked["value"]["query"], "ab");
    let checked: Json = serde_json::from_str(&registry_check("search_request", r#"{"query":"a"}"#).unwrap()).unwrap();
    assert_eq!(checked["errors"][0]["loc"], json!(["query"]));
    assert!(registry_check("search_request", "{").is_err());
}

#[test]
fn wrong_options_are_named() {
    let core = Core::new(1).unwrap();
    for (options, name) in [
        (json!({}), "base_url"),
        (json!({"base_url": "http://h", "timeout": 0}), "timeout"),
        (json!({"base_url": "http://h", "retry_delay": -1}), "retry_delay"),
        (json!({"base_url": "http://h", "ca_file": "/nowhere"}), "ca_file"),
        (json!({"base_url": "http://h", "other": 1}), "other"),
    ] {
        let error = Registry::new(&core, &options.to_string()).err().unwrap();
        assert!(error.message.contains(name), "{}", error.message);
    }
}
