//! Exact decimals for money: 38 digits before the point and 38 after (D-28).

use std::fmt;

use serde::ser::Error as _;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::error::Error;

/// Digits kept on each side of the point.
const DIGITS: i64 = 38;
/// One, counted in the smallest step.
const UNIT: u128 = 10_u128.pow(38);

/// A decimal number of up to 38 integer and 38 fraction digits, never rounded.
///
/// It is `floor + fraction / 10^38`, so that the derived order is the numeric one and every sum
/// fits two machine words: no big-integer crate is needed for a range this size.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Decimal {
    /// The greatest integer not above the value.
    floor: i128,
    /// What is left of it, always below `UNIT`.
    fraction: u128,
}

impl Decimal {
    /// Nothing.
    pub const ZERO: Decimal = Decimal { floor: 0, fraction: 0 };

    /// Reads the text of a JSON number, exponents included.
    ///
    /// `INVALID_REQUEST` when it is no JSON number, or needs more than 38 digits on a side.
    pub fn parse_json(text: &str) -> Result<Decimal, Error> {
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, parse_exponent(exponent)),
            None => (unsigned, Some(0)),
        };
        let leading_zero = mantissa.len() > 1 && mantissa.starts_with('0') && !mantissa.starts_with("0.");
        match (split_digits(mantissa), exponent) {
            (Some((integer, fraction)), Some(exponent)) if !leading_zero => {
                let magnitude = from_digits(integer, fraction, exponent)?;
                if negative { magnitude.checked_neg().ok_or_else(out_of_range) } else { Ok(magnitude) }
            }
            _ => Err(Error::invalid("not a number in JSON form, such as 0.42 or 1e-7")),
        }
    }

    /// Reads an amount: digits, then perhaps a point and more digits. No sign, no exponent (section 9.6).
    ///
    /// `INVALID_REQUEST` for any other form, or more than 38 digits on a side.
    pub fn parse_amount(text: &str) -> Result<Decimal, Error> {
        match split_digits(text) {
            Some((integer, fraction)) => from_digits(integer, fraction, 0),
            None => Err(Error::invalid("not an amount of plain digits, such as 5 or 5.00")),
        }
    }

    /// The exact sum, or `None` beyond 38 integer digits.
    #[must_use]
    pub fn checked_add(self, other: Decimal) -> Option<Decimal> {
        let fraction = self.fraction + other.fraction;
        let carry = i128::from(fraction >= UNIT);
        Decimal { floor: self.floor.checked_add(other.floor)?.checked_add(carry)?, fraction: fraction % UNIT }
            .in_range()
    }

    /// The exact difference, or `None` beyond 38 integer digits.
    #[must_use]
    pub fn checked_sub(self, other: Decimal) -> Option<Decimal> {
        self.checked_add(other.checked_neg()?)
    }

    /// The number of opposite sign. Every value in range has one.
    #[must_use]
    pub fn checked_neg(self) -> Option<Decimal> {
        let negated = match self.fraction {
            0 => Decimal { floor: self.floor.checked_neg()?, fraction: 0 },
            fraction => Decimal { floor: self.floor.checked_neg()?.checked_sub(1)?, fraction: UNIT - fraction },
        };
        negated.in_range()
    }

    /// Whether it is nothing.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self == Decimal::ZERO
    }

    /// Whether it is below zero.
    #[must_use]
    pub fn is_negative(self) -> bool {
        self.floor < 0
    }

    /// A hundredth of a value that is not negative, rounded up to the smallest step.
    pub(crate) fn percent_rounded_up(self) -> Decimal {
        let whole = self.floor / 100;
        // Below 100, so the product stays below UNIT.
        let rest = (self.floor % 100).unsigned_abs() * (UNIT / 100);
        let fraction = rest + self.fraction.div_ceil(100);
        Decimal { floor: whole + i128::from(fraction >= UNIT), fraction: fraction % UNIT }
    }

    fn in_range(self) -> Option<Decimal> {
        let limit = UNIT.cast_signed();
        let low = Decimal { floor: -limit, fraction: 0 };
        (low < self && self.floor < limit).then_some(self)
    }
}

fn out_of_range() -> Error {
    Error::invalid("a number beyond 38 digits before or after the point")
}

/// `digits` or `digits.digits`.
fn split_digits(text: &str) -> Option<(&str, &str)> {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    match text.split_once('.') {
        Some((integer, fraction)) => (digits(integer) && digits(fraction)).then_some((integer, fraction)),
        None => digits(text).then_some((text, "")),
    }
}

/// Exponents saturate far beyond any mantissa a message can hold; the range check follows.
fn parse_exponent(text: &str) -> Option<i64> {
    const CEILING: i64 = 1 << 40;
    let (sign, digits) = match text.as_bytes() {
        [b'-', digits @ ..] => (-1, digits),
        [b'+', digits @ ..] | digits => (1, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits.iter().fold(0, |n: i64, b| (n * 10 + i64::from(b - b'0')).min(CEILING));
    Some(sign * value)
}

fn from_digits(integer: &str, fraction: &str, exponent: i64) -> Result<Decimal, Error> {
    let all = [integer, fraction].concat();
    let significant = all.trim_start_matches('0');
    // The value is 0.DIGITS times ten to the power of `point`.
    let point = integer.len() as i64 - (all.len() - significant.len()) as i64 + exponent;
    let digits = significant.trim_end_matches('0').as_bytes();
    if digits.is_empty() {
        return Ok(Decimal::ZERO);
    }
    if point > DIGITS || digits.len() as i64 - point > DIGITS {
        return Err(out_of_range());
    }
    let digit = |index: i64| {
        let byte = usize::try_from(index).ok().and_then(|index| digits.get(index));
        byte.map_or(0, |byte| byte - b'0')
    };
    let floor = (0..point).fold(0, |n, index| n * 10 + i128::from(digit(index)));
    let fraction = (point..point + DIGITS).fold(0, |n, index| n * 10 + u128::from(digit(index)));
    Ok(Decimal { floor, fraction })
}

/// The shortest plain text, a JSON number: `3.58`, `-0.12`, never an exponent.
impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, integer, fraction) = match (self.is_negative(), self.fraction) {
            (false, fraction) => ("", self.floor.unsigned_abs(), fraction),
            (true, 0) => ("-", self.floor.unsigned_abs(), 0),
            (true, fraction) => ("-", self.floor.unsigned_abs() - 1, UNIT - fraction),
        };
        write!(f, "{sign}{integer}")?;
        if fraction == 0 {
            return Ok(());
        }
        let digits = format!("{fraction:038}");
        write!(f, ".{}", digits.trim_end_matches('0'))
    }
}

impl fmt::Debug for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A JSON number by its text; only for `serde_json`.
impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw = RawValue::from_string(self.to_string()).map_err(S::Error::custom)?;
        raw.serialize(serializer)
    }
}
