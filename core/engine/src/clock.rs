//! The clocks and the randomness that the machines are given.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arcp_proto::id::Entropy;
use arcp_proto::time::{Now, Timestamp};

/// A deadline beyond what the system can express is one that never comes.
const FAR: Duration = Duration::from_secs(100 * 365 * 86_400);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Clock { start: Instant::now() }
    }

    pub(crate) fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { mono: self.start.elapsed(), wall: Timestamp(i64::try_from(wall.as_millis()).unwrap_or(i64::MAX)) }
    }

    /// The instant of a machine's deadline.
    pub(crate) fn instant(&self, mono: Duration) -> Instant {
        self.start.checked_add(mono).unwrap_or_else(|| self.start + FAR)
    }
}

/// The operating system's secure source.
pub(crate) struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&mut self, bytes: &mut [u8]) {
        if let Err(error) = getrandom::fill(bytes) {
            // Without randomness tokens would be guessable: there is nothing safe to go on with.
            tracing::error!(%error, "the operating system gave no randomness");
            std::process::abort();
        }
    }
}
