//! The machines of both sides in virtual time: `tests/corpus/machine`, the cases of `tests/corpus/wire` that need a
//! machine, and random schedules.
#![allow(clippy::unwrap_used, clippy::panic)]

// One language of matchers for the whole corpus; the harness documents it.
#[path = "../../../../tests/harness/src/matcher.rs"]
#[allow(dead_code, unreachable_pub)]
mod matcher;

// The schedules are targets of `make fuzz` too.
#[path = "../fuzz/runner.rs"]
mod runner;

mod client;
mod clock;
mod corpus;
mod credentials;
mod cuts;
mod delegation;
mod disk;
mod healing;
mod judging;
mod listing;
mod runtime;
mod schedule;
mod step;
mod store;
mod transcript;
mod wire;
mod witness;
mod world;

/// What a case says when it fails.
type Result<T, E = String> = std::result::Result<T, E>;

#[test]
fn runtime_cases() {
    corpus::play("runtime", runtime::play);
}

#[test]
fn client_cases() {
    corpus::play("client", client::play);
}
