//! How much `arcp serve` takes on, and how long it remembers.

use std::time::Duration;

use arcp::RuntimeConfig;
use clap::Args;

/// Bounds; an app sets its own.
#[derive(Args)]
#[group(id = "limits")]
pub(crate) struct LimitArgs {
    /// Sessions one principal may have connected at a time [default: 64]
    #[arg(long, value_name = "NUMBER", value_parser = count(1))]
    max_sessions_per_principal: Option<u64>,
    /// Jobs that run at a time; more of them wait [default: 100]
    #[arg(long, value_name = "NUMBER", value_parser = count(1))]
    max_concurrent_jobs: Option<u64>,
    /// Jobs that may wait; more of them are refused [default: 1000]
    #[arg(long, value_name = "NUMBER", value_parser = count(0))]
    max_waiting_jobs: Option<u64>,
    /// How long a session that lost its connection can be resumed, up to 30 days [default: 600]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=LONGEST))]
    resume_window: Option<u64>,
    /// How long a job that ended is remembered, up to 30 days and never less than the resume window [default: 600]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=LONGEST))]
    retention: Option<u64>,
}

/// Thirty days.
const LONGEST: u64 = 30 * 24 * 3600;

/// What fits a counter on every platform.
fn count(least: u64) -> clap::builder::RangedU64ValueParser<u64> {
    clap::value_parser!(u64).range(least..=u64::from(u32::MAX))
}

impl LimitArgs {
    pub(crate) fn apply(&self, config: &mut RuntimeConfig) {
        let set = |limit: &mut usize, given: Option<u64>| {
            if let Some(given) = given.and_then(|given| usize::try_from(given).ok()) {
                *limit = given;
            }
        };
        set(&mut config.max_sessions_per_principal, self.max_sessions_per_principal);
        set(&mut config.max_concurrent_jobs, self.max_concurrent_jobs);
        set(&mut config.max_waiting_jobs, self.max_waiting_jobs);
        if let Some(seconds) = self.resume_window {
            config.resume_window = Duration::from_secs(seconds);
        }
        if let Some(seconds) = self.retention {
            config.retention = Duration::from_secs(seconds);
        }
    }
}
