//! When a request is tried again, and after how long.

use std::time::Duration;

use super::transport::TransportFault;

/// The waits between tries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retry {
    /// Tries after the first.
    pub(crate) attempts: u32,
    /// The longest wait before the second try; it doubles.
    pub(crate) delay: Duration,
    /// No wait is longer.
    pub(crate) max_delay: Duration,
}

/// How one try ended, as far as it matters here.
pub(crate) enum Ended<'a> {
    Status { status: u16, retry_after: Option<Duration> },
    Fault(&'a TransportFault),
}

impl Retry {
    /// How long to wait before the next try, or `None` to leave it. `tried` counts the tries made, from 1; `repeatable`
    /// says that doing it twice does no harm; `random` is from 0 to 1.
    pub(crate) fn next(&self, tried: u32, repeatable: bool, ended: &Ended<'_>, random: f64) -> Option<Duration> {
        if tried > self.attempts {
            return None;
        }
        let jittered = || self.ceiling(tried).mul_f64(random.clamp(0.0, 1.0));
        match ended {
            Ended::Fault(TransportFault::Connect(_)) => Some(jittered()),
            Ended::Fault(TransportFault::Timeout(_)) if repeatable => Some(jittered()),
            // Nothing is wrong with the registry: its end of an idle connection was closed.
            Ended::Fault(TransportFault::Lost { stale: true, .. }) if repeatable => Some(Duration::ZERO),
            Ended::Status { status: 429 | 502..=504, retry_after } if repeatable => match retry_after {
                // Coming back earlier than asked would only be refused again.
                Some(wait) => (*wait <= self.max_delay).then_some(*wait),
                None => Some(jittered()),
            },
            _ => None,
        }
    }

    fn ceiling(&self, tried: u32) -> Duration {
        let doubled = 2u32.checked_pow(tried.saturating_sub(1)).and_then(|factor| self.delay.checked_mul(factor));
        doubled.unwrap_or(self.max_delay).min(self.max_delay)
    }
}

/// The seconds or the date of a `Retry-After` header.
pub(crate) fn retry_after(text: &str, now: jiff::Timestamp) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(Duration::try_from(at.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: Retry = Retry { attempts: 3, delay: Duration::from_secs(1), max_delay: Duration::from_secs(3) };

    fn status(status: u16, after: Option<u64>) -> Ended<'static> {
        Ended::Status { status, retry_after: after.map(Duration::from_secs) }
    }

    /// Rules: REG-020
    #[test]
    fn waits_double_up_to_their_bound_and_are_spread_from_nothing() {
        let fault = TransportFault::Connect(String::new());
        let wait = |tried, random| RETRY.next(tried, false, &Ended::Fault(&fault), random);
        assert_eq!(wait(1, 1.0), Some(Duration::from_secs(1)));
        assert_eq!(wait(2, 1.0), Some(Duration::from_secs(2)));
        assert_eq!(wait(3, 1.0), Some(Duration::from_secs(3)));
        assert_eq!(wait(3, 0.0), Some(Duration::ZERO));
        assert_eq!(wait(4, 0.5), None);
        let many = Retry { attempts: u32::MAX, ..RETRY };
        assert_eq!(many.next(1000, false, &Ended::Fault(&fault), 1.0), Some(Duration::from_secs(3)));
    }

    /// Rules: REG-020
    #[test]
    fn what_may_have_been_done_is_done_again_only_where_that_is_harmless() {
        let timeout = TransportFault::Timeout(String::new());
        let lost = TransportFault::Lost { message: String::new(), stale: false };
        let stale = TransportFault::Lost { message: String::new(), stale: true };
        for ended in [Ended::Fault(&timeout), Ended::Fault(&stale), status(503, None), status(429, Some(1))] {
            assert!(RETRY.next(1, true, &ended, 0.5).is_some());
            assert!(RETRY.next(1, false, &ended, 0.5).is_none());
        }
        for ended in [Ended::Fault(&lost), status(500, None), status(404, None), status(200, None)] {
            assert!(RETRY.next(1, true, &ended, 0.5).is_none());
        }
    }

    #[test]
    fn a_wait_that_was_asked_for_is_kept_or_refused() {
        assert_eq!(RETRY.next(1, true, &status(503, Some(3)), 0.0), Some(Duration::from_secs(3)));
        assert_eq!(RETRY.next(1, true, &status(503, Some(4)), 0.0), None);
        let now: jiff::Timestamp = "1994-11-06T08:49:30Z".parse().unwrap();
        assert_eq!(retry_after(" 7 ", now), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT", now), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(retry_after("-1", now), None);
        assert_eq!(retry_after("soon", now), None);
    }
}
