//! Ours against the raw limit, in one run: the same frames through bare tokio-tungstenite and through ARCP.
//!
//! Two threads on loopback, one for each side, as two processes would have, unless a row says otherwise. Prints a table of
//! figures, each the median of the rounds, and what it is measured against. Words given as arguments choose the rows they occur in: `cargo run --release -p arcp-benches --
//! durable`.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, reason = "a program that measures")]

mod chatty;
mod fanout;
mod idle;
mod ours;
mod peer;
mod python;
mod raw;
mod result;
mod resume;
mod server;
mod store;
mod table;

use std::time::Duration;

use server::Kept;
use table::{Against, Measurement, Row, Unit};

/// How long each measurement of a rate runs.
const RUN: Duration = Duration::from_millis(1000);

/// Measurements of each kind, taken in turn, so that a machine whose speed drifts drifts for all; the median counts.
const ROUNDS: usize = 5;

/// One figure for each of a measurement's rows, or why there is none.
type Measured = Result<Vec<f64>, String>;

/// A rate per second, from how much was done and how long it took.
fn rate(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

fn megabytes(bytes: usize, took: Duration) -> f64 {
    bytes as f64 / 1e6 / took.as_secs_f64()
}

fn milliseconds(took: Duration) -> f64 {
    took.as_secs_f64() * 1e3
}

fn microseconds(took: Duration) -> f64 {
    took.as_secs_f64() * 1e6
}

fn single_threaded() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// As many threads as cores, as a host has that chooses nothing.
fn default_threads() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

const PING_PONG: &str = "raw WebSocket, ping-pong";
const FRAMES: &str = "raw WebSocket, 332-byte frames in batches";
const EVENTS: &str = "events of one job, Rust to Rust";
const MANY: &str = "submit to result, 64 in flight";
const OF_PING_PONG: Against = Against::Share(PING_PONG, "raw ping-pong");
const OF_FRAMES: Against = Against::Share(FRAMES, "raw frames");
const OF_MEMORY: Against = Against::Share(EVENTS, "the same in memory");

const ECHOES: [Row; 6] = [
    Row { what: "echo alone, median", unit: Unit::Microseconds, against: Against::Nothing },
    Row { what: "echo alone, 99 of 100", unit: Unit::Microseconds, against: Against::Nothing },
    Row { what: "echo alone, worst of 3 s", unit: Unit::Microseconds, against: Against::Nothing },
    Row {
        what: "echo beside a chatty agent, median",
        unit: Unit::Microseconds,
        against: Against::Times("echo alone, median"),
    },
    Row {
        what: "echo beside a chatty agent, 99 of 100",
        unit: Unit::Microseconds,
        against: Against::Times("echo alone, 99 of 100"),
    },
    Row {
        what: "echo beside a chatty agent, worst of 3 s",
        unit: Unit::Microseconds,
        against: Against::Times("echo alone, worst of 3 s"),
    },
];

const ECHOES_ON_ONE_THREAD: [Row; 6] = [
    Row { what: "echo alone, one server thread, median", unit: Unit::Microseconds, against: Against::Nothing },
    Row { what: "echo alone, one server thread, 99 of 100", unit: Unit::Microseconds, against: Against::Nothing },
    Row { what: "echo alone, one server thread, worst of 3 s", unit: Unit::Microseconds, against: Against::Nothing },
    Row {
        what: "echo beside a chatty agent, one server thread, median",
        unit: Unit::Microseconds,
        against: Against::Times("echo alone, one server thread, median"),
    },
    Row {
        what: "echo beside a chatty agent, one server thread, 99 of 100",
        unit: Unit::Microseconds,
        against: Against::Times("echo alone, one server thread, 99 of 100"),
    },
    Row {
        what: "echo beside a chatty agent, one server thread, worst of 3 s",
        unit: Unit::Microseconds,
        against: Against::Times("echo alone, one server thread, worst of 3 s"),
    },
];

fn measurements() -> Vec<Measurement> {
    use Against::{Nothing, Share, Wanted};
    use Unit::{Kibibytes, Megabytes, Milliseconds, Rate};
    let one = |what, unit, against, run| Measurement { rows: vec![Row { what, unit, against }], run };
    vec![
        one(PING_PONG, Rate, Nothing, || Ok(vec![raw::ping_pong()])),
        one("submit to result, one at a time", Rate, OF_PING_PONG, || ours::in_flight(Kept::InMemory, 1)),
        one(MANY, Rate, OF_PING_PONG, || ours::in_flight(Kept::InMemory, 64)),
        one("submit to result, 64 in flight, durable", Rate, Share(MANY, "the same in memory"), || {
            ours::in_flight(Kept::InFile, 64)
        }),
        one(FRAMES, Rate, Nothing, || Ok(vec![raw::stream()])),
        one(EVENTS, Rate, OF_FRAMES, || ours::events(Kept::InMemory)),
        one("events of one job, Rust to Rust, durable", Rate, OF_MEMORY, || ours::events(Kept::InFile)),
        one("events into the durable store alone", Rate, Nothing, store::appends),
        one("events of one job, into Python `async for`", Rate, OF_FRAMES, python::events),
        one("one job's events to 100 subscribers", Rate, OF_FRAMES, fanout::fan_out),
        one("64 MB result in chunks, text, bare reader", Megabytes, Nothing, || result::bare("text")),
        one("64 MB result in chunks, text, Rust client", Megabytes, Wanted("600 MB/s"), || ours::result("text")),
        one("64 MB result in chunks, bytes, bare reader", Megabytes, Nothing, || result::bare("bytes")),
        one("64 MB result in chunks, bytes, Rust client", Megabytes, Wanted("600 MB/s"), || ours::result("bytes")),
        one("resume of 10 000 events, memory, bare reader", Milliseconds, Wanted("50 ms"), || {
            resume::bare(Kept::InMemory)
        }),
        one("resume of 10 000 events, memory, Rust client", Milliseconds, Wanted("50 ms"), || {
            resume::client(Kept::InMemory)
        }),
        one("resume of 10 000 events, durable, bare reader", Milliseconds, Wanted("50 ms"), || {
            resume::bare(Kept::InFile)
        }),
        one("resume of 10 000 events, durable, Rust client", Milliseconds, Wanted("50 ms"), || {
            resume::client(Kept::InFile)
        }),
        Measurement { rows: ECHOES.to_vec(), run: || chatty::echoes(default_threads) },
        Measurement { rows: ECHOES_ON_ONE_THREAD.to_vec(), run: || chatty::echoes(single_threaded) },
        one("an idle session of 1000, server memory", Kibibytes, Wanted("20 KiB"), idle::sessions),
    ]
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|word| word == idle::SERVE) {
        return idle::serve();
    }
    let chosen = table::choose(measurements(), &words);
    if chosen.is_empty() {
        eprintln!("no row has any of these words in it: {}", words.join(", "));
        std::process::exit(2);
    }
    table::print(&table::measure(&chosen, ROUNDS));
}
