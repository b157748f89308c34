//! Ours against the raw limit, in one run: the same frames through bare tokio-tungstenite and through ARCP.
//!
//! Two threads on loopback, one for each side, as two processes would have. Prints a table of rates and ratios.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, reason = "a program that measures")]

mod ours;
mod python;
mod raw;

use std::time::Duration;

/// How long each measurement runs.
const RUN: Duration = Duration::from_millis(1000);

/// Measurements of each kind, taken in turn, so that a machine whose speed drifts drifts for all; the median counts.
const ROUNDS: usize = 5;

/// A rate per second, from how much was done and how long it took.
fn rate((count, took): (u64, Duration)) -> f64 {
    count as f64 / took.as_secs_f64()
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
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
    let mut rates: [Vec<f64>; 6] = Default::default();
    let mut fault = None;
    for _ in 0..ROUNDS {
        let measured = [
            rate(raw::ping_pong()),
            rate(ours::in_flight(1)),
            rate(ours::in_flight(64)),
            rate(raw::stream()),
            rate(ours::events()),
            python::events().map(rate).unwrap_or_else(|why| {
                fault = Some(why);
                0.0
            }),
        ];
        for (all, one) in rates.iter_mut().zip(measured) {
            all.push(one);
        }
    }
    let [ping_pong, one, many, frames, events, python] = rates.map(median);
    println!("| what | rate | against |");
    println!("| --- | ---: | --- |");
    row("raw WebSocket, ping-pong", ping_pong, None);
    row("submit to result, one at a time", one, Some((ping_pong, "raw ping-pong")));
    row("submit to result, 64 in flight", many, Some((ping_pong, "raw ping-pong")));
    row("raw WebSocket, 332-byte frames in batches", frames, None);
    row("events of one job, Rust to Rust", events, Some((frames, "raw frames")));
    match fault {
        None => row("events of one job, into Python `async for`", python, Some((frames, "raw frames"))),
        Some(why) => eprintln!("into Python: not measured: {why}"),
    }
}
