//! Random input for everything a peer can reach: whatever arrives, nothing panics, nothing hangs, and the answers hold
//! against a simpler reference. `make fuzz` runs it for an hour; the schedules are in `tests/machine`.
#![allow(clippy::unwrap_used, clippy::panic)]

mod codec;
mod cursor;
mod lease;
mod machine;
mod money;
mod runner;
