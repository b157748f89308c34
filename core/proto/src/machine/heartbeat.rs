//! Heartbeats: an idle side pings, two silent intervals are a lost peer.

use std::time::Duration;

/// What a heartbeat timer asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Beat {
    /// Nothing to do before this instant.
    Wait(Duration),
    /// This side was idle for an interval: ping, and look again at this instant.
    Ping(Duration),
    /// The peer was silent for two intervals.
    Lost,
}

/// One side's watch over a connection.
#[derive(Debug)]
pub(super) struct Heartbeat {
    interval: Duration,
    last_received: Duration,
    last_sent: Duration,
}

impl Heartbeat {
    pub(super) fn new(interval: Duration, now: Duration) -> Self {
        Heartbeat { interval, last_received: now, last_sent: now }
    }

    /// Any message counts as life, not only pongs.
    pub(super) fn received(&mut self, now: Duration) {
        self.last_received = now;
    }

    pub(super) fn sent(&mut self, now: Duration) {
        self.last_sent = now;
    }

    pub(super) fn first_check(&self) -> Duration {
        self.last_sent + self.interval
    }

    pub(super) fn check(&self, now: Duration) -> Beat {
        let lost_at = self.last_received + self.interval * 2;
        if now >= lost_at {
            return Beat::Lost;
        }
        let idle_at = self.last_sent + self.interval;
        if now >= idle_at { Beat::Ping((now + self.interval).min(lost_at)) } else { Beat::Wait(idle_at.min(lost_at)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_idle_side_pings_and_a_busy_one_does_not() {
        let mut beat = Heartbeat::new(30 * SECOND, Duration::ZERO);
        assert_eq!(beat.check(29 * SECOND), Beat::Wait(30 * SECOND));
        assert_eq!(beat.check(30 * SECOND), Beat::Ping(60 * SECOND));
        beat.sent(25 * SECOND);
        assert_eq!(beat.check(30 * SECOND), Beat::Wait(55 * SECOND));
    }

    #[test]
    fn two_silent_intervals_are_a_lost_peer_and_any_message_is_life() {
        let mut beat = Heartbeat::new(30 * SECOND, Duration::ZERO);
        beat.sent(59 * SECOND);
        assert_eq!(beat.check(60 * SECOND), Beat::Lost);
        beat.received(10 * SECOND);
        assert_eq!(beat.check(60 * SECOND), Beat::Wait(70 * SECOND));
    }
}
