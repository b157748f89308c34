//! How much a session may send, how far its application may lag, and how long it may do nothing (R-6.5.9, R-14.3,
//!

use std::time::Duration;

use super::{ConnKey, JobKey, RuntimeMachine, SessionKey, Timer, details};
use crate::error::Error;
use crate::event;
use crate::feature::Feature;
use crate::json::RawJson;
use crate::machine::frame::RecordKind;
use crate::message::{Bye, ClientMessage, kind};
use crate::time::Now;

/// A bound on messages per second: a token bucket, kept as the instant at which it will be full again.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::machine) struct Rate {
    full_at: Duration,
}

impl Rate {
    /// Takes one message at `per_second`; two seconds' worth may come at once. 0 is no bound.
    fn take(&mut self, now: Duration, per_second: u32) -> bool {
        let Some(cost) = Duration::from_secs(1).checked_div(per_second) else { return true };
        let full_at = self.full_at.max(now) + cost;
        let fits = full_at - now <= Duration::from_secs(2);
        if fits {
            self.full_at = full_at;
        }
        fits
    }
}

impl RuntimeMachine {
    /// Counts a received message.
    ///
    /// # Errors
    /// `INTERNAL_ERROR`, retryable, when this second has had its share.
    pub(super) fn admit_message(&mut self, now: Now, key: SessionKey) -> Result<(), Error> {
        let cap = self.config.max_messages_per_second;
        if self.sessions.get_mut(&key).is_none_or(|session| session.rate.take(now.mono, cap)) {
            return Ok(());
        }
        let error = Error::internal(format!("a session may send {cap} messages per second; slow down"));
        Err(error.with_details(details("cap", "messages_per_second")))
    }

    // ---- back pressure -----------------------------------------------------------------------------------------

    /// Tells a connected submitter once that its application lags, on the job that made it so. The telling
    /// is an event itself, and cannot set off another.
    pub(super) fn watch_lag(&mut self, now: Now, job: JobKey, kind: RecordKind) {
        let threshold = self.config.backpressure_threshold;
        let Some(session) = self.jobs.get(&job).and_then(|job| job.session) else { return };
        let Some(session) = self.sessions.get_mut(&session) else { return };
        let lag = session.event_seq.saturating_sub(session.acked);
        let tell = !session.told_to_read
            && lag > threshold
            && !kind.is_terminal()
            && session.conn.is_some()
            && session.features.has(Feature::Ack);
        if !tell {
            return;
        }
        session.told_to_read = true;
        let figures = RawJson::from_serialize(&serde_json::json!({ "lag": lag, "threshold": threshold }));
        let message = "events are made faster than they are acknowledged";
        if let Ok(body) = figures.and_then(|figures| event::status("back_pressure", Some(message), Some(&figures))) {
            self.append_event(now, job, "status", None, &body);
        }
    }

    /// An ack came: under half the threshold the next crossing is told again.
    pub(super) fn lag_fell(&mut self, key: SessionKey) {
        let half = self.config.backpressure_threshold / 2;
        if let Some(session) = self.sessions.get_mut(&key)
            && session.event_seq.saturating_sub(session.acked) < half.max(1)
        {
            session.told_to_read = false;
        }
    }

    // ---- idleness ----------------------------------------------------------------------------------------------

    fn idle_limit(&self) -> Duration {
        self.config.resume_window.saturating_mul(self.config.idle_windows)
    }

    /// A session was opened on this connection, or taken up again. One without heartbeats says nothing by its silence,
    /// and is left alone.
    pub(super) fn watch_idleness(&mut self, now: Now, conn: ConnKey) {
        let limit = self.idle_limit();
        if let Some(entry) = self.conns.get_mut(&conn)
            && entry.heartbeat.is_some()
            && !limit.is_zero()
        {
            entry.active_at = now.mono;
            self.timers.set(Timer::Idle(conn), now.mono.saturating_add(limit));
        }
    }

    /// A message was taken; whatever is no heartbeat is activity.
    pub(super) fn took(&mut self, now: Now, conn: ConnKey, message: &ClientMessage) {
        let Some(entry) = self.conns.get_mut(&conn) else { return };
        entry.refused_in_row = 0;
        if !matches!(message, ClientMessage::Ping(_) | ClientMessage::Pong(_)) {
            entry.active_at = now.mono;
        }
    }

    /// Says goodbye to a session that has only sent heartbeats for [`super::RuntimeConfig::idle_windows`] and has
    /// neither jobs nor subscriptions.
    pub(super) fn check_idleness(&mut self, now: Now, conn: ConnKey) {
        let limit = self.idle_limit();
        let Some((_, session)) = self.session_of(conn) else { return };
        let busy = !session.running.is_empty() || !session.subscriptions.is_empty();
        let Some(entry) = self.conns.get_mut(&conn) else { return };
        // What kept it busy may have ended at any instant since the last look.
        if std::mem::replace(&mut entry.was_busy, busy) || busy {
            entry.active_at = now.mono;
        }
        let due = entry.active_at.saturating_add(limit);
        if due > now.mono {
            return self.timers.set(Timer::Idle(conn), due);
        }
        let seconds = limit.as_secs();
        let reason = format!("idle: no job, no subscription and nothing but heartbeats for {seconds} s");
        self.answer(now, conn, kind::SESSION_BYE, None, None, &Bye { reason, code: None });
        self.close_conn(now, conn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_lets_two_seconds_worth_pass_at_once_and_then_the_average() {
        let mut rate = Rate::default();
        let start = Duration::from_secs(9);
        assert_eq!((0..100).filter(|_| rate.take(start, 10)).count(), 20);
        let later = start + Duration::from_secs(1);
        assert_eq!((0..100).filter(|_| rate.take(later, 10)).count(), 10);
        let much_later = start + Duration::from_secs(60);
        assert_eq!((0..100).filter(|_| rate.take(much_later, 10)).count(), 20);
    }

    #[test]
    fn no_rate_is_no_bound() {
        let mut rate = Rate::default();
        assert!((0..100).all(|_| rate.take(Duration::ZERO, 0)));
    }
}
