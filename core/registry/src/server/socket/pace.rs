//! How fast a socket's commands are taken.

use std::time::Duration;

/// Commands of one socket in a row before they are spaced.
const BURST: u32 = 20;

/// The space between two answers then (REG-320).
const SPACE: Duration = Duration::from_millis(100);

/// A bucket of commands: a burst is answered at once, a flood every 0.1 s. What is not taken yet waits in the client's
/// own connection.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When the bucket is full again.
    full_at: Duration,
}

impl Pace {
    /// Counts one command.
    pub(super) fn count(&mut self, now: Duration) {
        self.full_at = self.full_at.max(now) + SPACE;
    }

    /// When the next command may be read, if not now.
    pub(super) fn held_until(&self, now: Duration) -> Option<Duration> {
        let free = self.full_at.saturating_sub(SPACE * BURST);
        (free > now).then_some(free)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules: REG-320
    #[test]
    fn a_burst_is_free_and_a_flood_is_spaced() {
        let (mut pace, now) = (Pace::default(), Duration::from_secs(5));
        for _ in 0..BURST {
            assert_eq!(pace.held_until(now), None);
            pace.count(now);
        }
        pace.count(now);
        let until = pace.held_until(now).unwrap();
        assert_eq!(until, now + SPACE);
        assert_eq!(pace.held_until(until), None);
        pace.count(until);
        assert_eq!(pace.held_until(until), Some(until + SPACE));
    }
}
