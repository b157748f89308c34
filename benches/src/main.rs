//! Ours against the raw limit, in one run: the same frames through bare tokio-tungstenite and through ARCP.
//!
//! Two threads on loopback, one for each side, as two processes would have. Prints a table of rates and ratios.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, reason = "a program that measures")]

mod ours;
mod python;
mod raw;

use std::time::Duration;

/// How long each measurement runs.
const RUN: Duration = Duration::from_millis(1500);

/// Measurements of each kind; the best counts, since a shared machine only ever takes away.
const ROUNDS: usize = 3;

/// A rate per second, measured by `work`, which returns how much it did and how long it took.
fn best(mut work: impl FnMut() -> (u64, Duration)) -> f64 {
    (0..ROUNDS).map(|_| work()).map(|(count, took)| count as f64 / took.as_secs_f64()).fold(0.0, f64::max)
}

fn single_threaded() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

fn row(what: &str, rate: f64, reference: Option<(f64, &str)>) {
    let shown =
        if rate >= 10_000.0 { format!("{:.0} k/s", rate / 1000.0) } else { format!("{:.2} k/s", rate / 1000.0) };
    let ratio = reference.map(|(limit, name)| format!("{:.0} % of {name}", 100.0 * rate / limit)).unwrap_or_default();
    println!("| {what} | {shown} | {ratio} |");
}

fn main() {
    println!("| what | rate | against |");
    println!("| --- | ---: | --- |");
    let ping_pong = raw::ping_pong();
    row("raw WebSocket, ping-pong", ping_pong, None);
    let frames = raw::stream();
    row("raw WebSocket, 332-byte frames in batches", frames, None);
    row("submit to result, one at a time", ours::one_at_a_time(), Some((ping_pong, "raw ping-pong")));
    row("submit to result, 64 in flight", ours::in_flight(64), Some((ping_pong, "raw ping-pong")));
    row("events of one job, Rust to Rust", ours::events(), Some((frames, "raw frames")));
    match python::events() {
        Ok(rate) => row("events of one job, into Python `async for`", rate, Some((frames, "raw frames"))),
        Err(why) => eprintln!("into Python: not measured: {why}"),
    }
}
