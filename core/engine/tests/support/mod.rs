//! What the tests of sessions share.

#![allow(dead_code, reason = "each test file uses its part")]

use std::time::Duration;

use arcp_engine::transport::pair_memory_transports;
use arcp_engine::{Client, Runtime};
use arcp_proto::json::RawJson;
use arcp_proto::machine::client::ClientConfig;
use arcp_proto::message::{PeerInfo, Submit};

/// No wait of a test is longer.
pub(crate) const BOUND: Duration = Duration::from_secs(30);

pub(crate) fn peer(name: &str) -> PeerInfo {
    PeerInfo { name: name.into(), version: "1".into() }
}

pub(crate) async fn connected(runtime: &Runtime) -> Client {
    let (left, right) = pair_memory_transports();
    let host = runtime.clone();
    tokio::spawn(async move { host.accept(right).await });
    let client = Client::new(ClientConfig::new(peer("client")));
    client.connect(left, "tok").await.unwrap();
    client
}

pub(crate) fn submit(agent: &str, input: &str) -> Submit {
    Submit::new(agent, RawJson::parse(input).unwrap())
}
