//! Sockets by the thousand, in a process of their own so that figures are theirs.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a failed step is a failed test; figures are shown"
)]
#![allow(dead_code, reason = "the support serves two programs")]

#[path = "socket/support.rs"]
mod support;

use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::support::{Client, PATIENCE, Server, calm, upgraded};

/// One at a time.
static ALONE: Mutex<()> = Mutex::const_new(());

async fn open(server: &Server, count: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = server.connect("/public/ws").await;
        client.text().await;
        clients.push(client);
    }
    clients
}

/// One change reaches 1000 sockets. The time is printed; a build without optimisation on a busy machine is given fifty times
/// what an optimised one on a quiet one is held to.
///
/// Rules: REG-313
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_change_to_a_thousand_sockets() {
    let _alone = ALONE.lock().await;
    let mut limits = calm();
    limits.public.max_connections = 1000;
    let server = Server::start(limits).await;
    for n in 0..99 {
        server.register(&format!("agent-{n}"), "testing").await;
    }
    let (done, mut all) = tokio::sync::mpsc::channel(1000);
    for _ in 0..1000 {
        let (done, mut tcp) = (done.clone(), upgraded(server.address, "/public/ws", None).await);
        tokio::spawn(async move {
            // Reading must cost less than what is measured.
            let (mut part, mut tail, mut size) = (vec![0; 64 << 10], Vec::new(), 0);
            let last = br#""total_count":100}}"#;
            while !tail.ends_with(last) {
                let read = tcp.read(&mut part).await.unwrap();
                assert!(read > 0, "closed");
                size += read;
                tail.extend_from_slice(&part[read.saturating_sub(last.len())..read]);
                tail.drain(..tail.len().saturating_sub(last.len()));
            }
            done.send((Instant::now(), size)).await.ok();
            // Kept open until all have it.
            tokio::time::sleep(PATIENCE).await;
            drop(tcp);
        });
    }
    server.settled(1000).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let start = Instant::now();
    server.register("agent-99", "testing").await;
    let (mut last, mut size) = (start, 0);
    for _ in 0..1000 {
        let (at, length) = timeout(PATIENCE, all.recv()).await.unwrap().unwrap();
        (last, size) = (last.max(at), length);
    }
    println!("one change to 1000 sockets, {size} bytes each: {:?} to the last", last - start);
    assert!(last - start < Duration::from_secs(5), "{:?}", last - start);
}

/// Rules: REG-300, REG-202
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_that_come_and_go_leave_nothing() {
    let _alone = ALONE.lock().await;
    let mut limits = calm();
    limits.public.max_connections = 2000;
    let server = Server::start(limits).await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let idle = tasks();
    let memory = || {
        let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        status.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4
    };
    // What is kept for the next ones levels off after some thousands.
    for _ in 0..3 {
        drop(open(&server, 1000).await);
        server.settled(0).await;
    }
    let before = memory();
    for _ in 0..7 {
        let clients = open(&server, 1000).await;
        assert_eq!(server.sockets.live(), 1000);
        drop(clients);
        server.settled(0).await;
    }
    let after = memory();
    // The connections' own tasks end a moment later.
    let end = Instant::now() + PATIENCE;
    while tasks() > idle && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(tasks() <= idle, "{} tasks are left of {idle}", tasks());
    println!("memory after 3000 sockets: {before} KiB; after 10000: {after} KiB");
    assert!(server.metrics.text().contains("arcp_websocket_connections 0"));
    // What the allocator keeps back varies by some megabytes; 7000 connections with their buffers would be over 100.
    assert!(after < before + 40_000, "{before} KiB, then {after} KiB");
}
