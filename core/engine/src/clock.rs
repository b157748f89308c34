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
pub(crate) fn random(bytes: &mut [u8]) {
    if let Err(error) = getrandom::fill(bytes) {
        // Without randomness tokens would be guessable: there is nothing safe to go on with.
        tracing::error!(%error, "the operating system gave no randomness");
        std::process::abort();
    }
}

/// What the secure source gives, asked for many ids at once: a call of the system for each would cost more than the id.
pub(crate) struct OsEntropy {
    pool: [u8; 512],
    /// How much of the pool, at its end, is not used yet.
    left: usize,
}

impl OsEntropy {
    pub(crate) fn new() -> Self {
        OsEntropy { pool: [0; 512], left: 0 }
    }
}

impl Entropy for OsEntropy {
    fn fill(&mut self, bytes: &mut [u8]) {
        if bytes.len() > self.pool.len() {
            return random(bytes);
        }
        if bytes.len() > self.left {
            random(&mut self.pool);
            self.left = self.pool.len();
        }
        let unused = self.pool.len() - self.left;
        let taken = &mut self.pool[unused..unused + bytes.len()];
        bytes.copy_from_slice(taken);
        // No secret stays behind.
        taken.fill(0);
        self.left -= bytes.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_byte_of_the_pool_is_given_twice() {
        let mut entropy = OsEntropy::new();
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..500 {
            let mut id = [0; 10];
            entropy.fill(&mut id);
            assert!(seen.insert(id));
            assert!(entropy.pool[..entropy.pool.len() - entropy.left].iter().all(|byte| *byte == 0));
        }
        let mut long = [0; 1024];
        entropy.fill(&mut long);
        assert!(long.iter().any(|byte| *byte != 0));
    }
}
