//! Times as the registry counts them and as it tells them.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A moment on both clocks. Liveness goes by `mono`, so that a step of the system's clock changes nothing; `wall` is
/// what people are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Since some start, never going back.
    pub mono: Duration,
    /// The system's time.
    pub wall: Timestamp,
}

/// How times are written (REG-203), both in the server's zone and without naming it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeForm {
    /// `2026-11-20T15:33:53.023001`, as in HTTP bodies.
    Http,
    /// `2026-11-20 15:33:53.023001`, as on the public and the agents' socket.
    Socket,
}

/// Writes a time in a zone, in this form, with microseconds, without quotes.
pub fn write_time(out: &mut Vec<u8>, at: Timestamp, zone: &TimeZone, form: TimeForm) {
    let local = zone.to_datetime(at);
    let between = match form {
        TimeForm::Http => b'T',
        TimeForm::Socket => b' ',
    };
    let mut text = *b"0000-00-00T00:00:00.000000";
    text[10] = between;
    let year = u32::from(local.year().clamp(0, 9999).unsigned_abs());
    digits(&mut text[0..4], year);
    digits(&mut text[5..7], u32::from(local.month().unsigned_abs()));
    digits(&mut text[8..10], u32::from(local.day().unsigned_abs()));
    digits(&mut text[11..13], u32::from(local.hour().unsigned_abs()));
    digits(&mut text[14..16], u32::from(local.minute().unsigned_abs()));
    digits(&mut text[17..19], u32::from(local.second().unsigned_abs()));
    digits(&mut text[20..26], local.subsec_nanosecond().unsigned_abs() / 1000);
    out.extend_from_slice(&text);
}

/// The same as text.
pub fn time_text(at: Timestamp, zone: &TimeZone, form: TimeForm) -> String {
    let mut out = Vec::with_capacity(26);
    write_time(&mut out, at, zone, form);
    String::from_utf8_lossy(&out).into_owned()
}

fn digits(places: &mut [u8], mut number: u32) {
    for place in places.iter_mut().rev() {
        *place = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
    }
}

/// Microseconds since 1970, as stores keep times.
pub fn micros(at: Timestamp) -> i64 {
    at.as_microsecond()
}

/// The time of so many microseconds since 1970; 1970 for what is no time.
pub fn from_micros(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules: REG-203
    #[test]
    fn times_are_local_without_a_zone() {
        let at: Timestamp = "2026-11-20T15:33:53.023001Z".parse().unwrap();
        let tokyo = TimeZone::get("Asia/Tokyo").unwrap_or(TimeZone::fixed(jiff::tz::offset(9)));
        assert_eq!(time_text(at, &TimeZone::UTC, TimeForm::Http), "2026-11-20T15:33:53.023001");
        assert_eq!(time_text(at, &tokyo, TimeForm::Socket), "2026-11-21 00:33:53.023001");
    }
}
