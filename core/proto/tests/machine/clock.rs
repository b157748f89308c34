//! Virtual time and predictable randomness.

use std::time::Duration;

use arcp_proto::id::Entropy;
use arcp_proto::time::{Now, Timestamp};
use serde_json::Value;

use crate::Result;

/// When every case begins unless it says otherwise.
pub(crate) const START: &str = "2026-05-13T19:30:00.000Z";

/// Two clocks, moved only by the case.
pub(crate) struct Clock(pub(crate) Now);

impl Clock {
    pub(crate) fn new() -> Self {
        Clock(Now { mono: Duration::ZERO, wall: Timestamp::parse(START).unwrap() })
    }

    /// Lets time pass on both clocks up to this instant of the monotonic one.
    pub(crate) fn pass_to(&mut self, mono: Duration) {
        let passed = mono.saturating_sub(self.0.mono);
        self.0.mono += passed;
        self.0.wall.0 += i64::try_from(passed.as_millis()).unwrap();
    }

    /// Sets the time of day without letting time pass, as an operator would.
    pub(crate) fn step_wall(&mut self, ms: &Value) -> Result<()> {
        self.0.wall.0 += ms.as_i64().ok_or("step_wall_ms is a whole number")?;
        Ok(())
    }

    /// The next deadline, as the case writes it: milliseconds since its start, or null.
    pub(crate) fn check_deadline(expected: &Value, deadline: Option<Duration>) -> Result<()> {
        let found = deadline.map_or(Value::Null, |at| u64::try_from(at.as_millis()).unwrap().into());
        if found == *expected { Ok(()) } else { Err(format!("the next timeout is at {found}, expected {expected}")) }
    }
}

/// Milliseconds of a step.
pub(crate) fn millis(value: &Value) -> Result<Duration> {
    value.as_u64().map(Duration::from_millis).ok_or_else(|| format!("{value} is no number of milliseconds"))
}

/// The same ids in every run of a case, and no two alike (splitmix64).
pub(crate) struct Seeded(pub(crate) u64);

impl Entropy for Seeded {
    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = self.0;
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(word ^ (word >> 31)).to_le_bytes()[..chunk.len()]);
        }
    }
}
