//! What must hold when processes die, links break, disks fill up and readers stop (docs/durability.md).
//!
//! A short form by default; `ARCP_FAULTS=long` for the long one. Chance is seeded, and the seed printed:
//! `ARCP_FAULTS_SEED` plays a run again.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails where it fails")]
#![allow(clippy::print_stderr, reason = "seeds and figures are told to who runs it")]

mod credentials;
mod cuts;
mod disk;
mod kills;
mod raw;
mod stopped_reader;
mod support;
mod ticks;
