//! Instants: the wall clock on the wire, a monotonic clock for every decision.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

/// Milliseconds since 1970-01-01T00:00:00Z, written as `YYYY-MM-DDThh:mm:ss.sssZ`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

/// The present, as the caller's clocks show it. Decisions never read a clock themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Time since an arbitrary start, never stepped.
    pub mono: Duration,
    /// Time of day, for what goes on the wire.
    pub wall: Timestamp,
}

const DAY_MS: i64 = 86_400_000;

impl Timestamp {
    /// 0000-01-01T00:00:00.000Z, the first instant four year digits can show.
    pub const MIN: Timestamp = Timestamp(-62_167_219_200_000);
    /// 9999-12-31T23:59:59.999Z, the last one.
    pub const MAX: Timestamp = Timestamp(253_402_300_799_999);

    /// This long after.
    pub fn after(self, duration: std::time::Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// Reads an RFC 3339 date-time with 0 to 9 fraction digits and `Z` or a numeric offset.
    ///
    /// The whole text must match and the date must exist; what is finer than a millisecond is cut off. A leap second
    /// (`:60`) and an instant outside [`Timestamp::MIN`] to [`Timestamp::MAX`] are refused.
    pub fn parse(text: &str) -> Option<Timestamp> {
        let bytes = text.as_bytes();
        let (date, rest) = bytes.split_at_checked(19)?;
        if date[4] != b'-'
            || date[7] != b'-'
            || !matches!(date[10], b'T' | b't')
            || date[13] != b':'
            || date[16] != b':'
        {
            return None;
        }
        let (year, month, day) = (digits(&date[..4])?, digits(&date[5..7])?, digits(&date[8..10])?);
        let (hour, minute, second) = (digits(&date[11..13])?, digits(&date[14..16])?, digits(&date[17..19])?);
        if !(1..=12).contains(&month)
            || day < 1
            || day > days_in_month(year, month)
            || hour > 23
            || minute > 59
            || second > 59
        {
            return None;
        }
        let (millis, zone) = match rest.split_first() {
            Some((b'.', rest)) => {
                let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
                if !(1..=9).contains(&count) {
                    return None;
                }
                let (fraction, zone) = rest.split_at(count);
                (digits(fraction)? * 1_000_000_000 / 10_i64.pow(count as u32) / 1_000_000, zone)
            }
            _ => (0, rest),
        };
        let offset_minutes = match zone {
            b"Z" | b"z" => 0,
            [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
                let (hours, minutes) = (digits(&[*h1, *h2])?, digits(&[*m1, *m2])?);
                if hours > 23 || minutes > 59 {
                    return None;
                }
                (hours * 60 + minutes) * if *sign == b'+' { 1 } else { -1 }
            }
            _ => return None,
        };
        let seconds = hour * 3600 + (minute - offset_minutes) * 60 + second;
        let instant = Timestamp(days_from_civil(year, month, day) * DAY_MS + seconds * 1000 + millis);
        (Timestamp::MIN..=Timestamp::MAX).contains(&instant).then_some(instant)
    }

    /// Like [`Timestamp::parse`], but the text must end in `Z`: the form of `expires_at`.
    pub fn parse_utc(text: &str) -> Option<Timestamp> {
        text.ends_with('Z').then(|| Timestamp::parse(text)).flatten()
    }

    /// Appends the 24 characters. Instants that four year digits cannot show are written as the nearest that they can.
    pub fn push_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.text());
    }

    fn text(self) -> [u8; 24] {
        let ms = self.clamp(Timestamp::MIN, Timestamp::MAX).0;
        let (year, month, day) = civil_from_days(ms.div_euclid(DAY_MS));
        let of_day = ms.rem_euclid(DAY_MS);
        let mut text = *b"0000-00-00T00:00:00.000Z";
        put(&mut text[..4], year);
        put(&mut text[5..7], month);
        put(&mut text[8..10], day);
        put(&mut text[11..13], of_day / 3_600_000);
        put(&mut text[14..16], of_day / 60_000 % 60);
        put(&mut text[17..19], of_day / 1000 % 60);
        put(&mut text[20..23], of_day % 1000);
        text
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(str::from_utf8(&self.text()).map_err(|_| fmt::Error)?)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn digits(bytes: &[u8]) -> Option<i64> {
    bytes.iter().try_fold(0, |all, byte| byte.is_ascii_digit().then(|| all * 10 + i64::from(byte - b'0')))
}

fn put(place: &mut [u8], mut value: i64) {
    for byte in place.iter_mut().rev() {
        *byte = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + i64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

// Years are counted from March, so that the leap day is the last of its year and months need no table.

fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_written_with_three_fraction_digits() {
        assert_eq!(Timestamp(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Timestamp(-1).to_string(), "1969-12-31T23:59:59.999Z");
        assert_eq!(Timestamp(1_709_210_096_007).to_string(), "2024-02-29T12:34:56.007Z");
        assert_eq!(Timestamp(i64::MAX).to_string(), "9999-12-31T23:59:59.999Z");
        assert_eq!(Timestamp(i64::MIN).to_string(), "0000-01-01T00:00:00.000Z");
    }

    #[test]
    fn every_day_of_four_centuries_follows_the_one_before() {
        let (mut year, mut month, mut day) = (1600, 1, 1);
        let first = days_from_civil(year, month, day);
        for days in first..first + 146_097 {
            assert_eq!((civil_from_days(days), days_from_civil(year, month, day)), ((year, month, day), days));
            day += 1;
            if day > days_in_month(year, month) {
                (day, month) = (1, month + 1);
            }
            if month > 12 {
                (month, year) = (1, year + 1);
            }
        }
        assert_eq!((year, month, day), (2000, 1, 1));
    }

    #[test]
    fn received_times_may_have_fractions_and_offsets() {
        let noon = Timestamp::parse("2026-05-13T12:00:00Z");
        assert!(noon.is_some());
        for text in [
            "2026-05-13T12:00:00.000000000Z",
            "2026-05-13T14:30:00+02:30",
            "2026-05-12T22:00:00.0-14:00",
            "2026-05-13t12:00:00z",
        ] {
            assert_eq!(Timestamp::parse(text), noon, "{text}");
        }
        assert_eq!(Timestamp::parse("1970-01-01T00:00:00.123987Z"), Some(Timestamp(123)));
        assert_eq!(Timestamp::parse("1970-01-01T00:00:00.5Z"), Some(Timestamp(500)));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "yesterday",
            "2099-02-03",
            "2099-02-30T00:00:00Z",
            "2023-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T19:60:01Z",
            "2026-01-01T00:00:60Z",
            "2026-01-01T00:00:00",
            "2026-01-01 00:00:00Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00.1234567890Z",
            "2026-01-01T00:00:00Z\n",
            "2026-01-01T00:00:00+0200",
            "2026-01-01T00:00:00+24:00",
            "2026-01-01T00:00:00+01:60",
            "+026-01-01T00:00:00Z",
            "2026-01-01T00:00:00ZZ",
            "２026-01-01T00:00:00Z",
            "0000-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-00:01",
        ] {
            assert_eq!(Timestamp::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn an_expiry_must_end_in_z() {
        assert!(Timestamp::parse_utc("2099-01-01T00:00:00Z").is_some());
        for text in
            ["2099-01-01T00:00:00+00:00", "2099-01-01T00:00:00", "2099-01-01T00:00:00z", "2099-01-01T00:00:00Z\n"]
        {
            assert_eq!(Timestamp::parse_utc(text), None, "{text:?}");
        }
    }
}
