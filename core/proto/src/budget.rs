//! Budgets: amounts and the counters they start (runtime-protocol section 9.6).

use std::collections::BTreeMap;

use crate::decimal::Decimal;
use crate::error::Error;
use crate::lease::quoted;

/// The metric by which the runtime tells what is left; agents may not emit it.
pub const REMAINING_METRIC: &str = "cost.budget.remaining";

const CURRENCY_LENGTH: usize = 32;

/// Reads `USD:5.00` into currency and amount.
///
/// The currency is `[A-Za-z][A-Za-z0-9_-]{0,31}`, the amount plain digits with an optional fraction.
pub fn parse_amount(text: &str) -> Result<(String, Decimal), Error> {
    let bad = |reason: &str| {
        let form = "expected `CURRENCY:AMOUNT`, such as USD:5.00";
        Error::invalid(format!("budget {} {reason}; {form}", quoted(text)))
    };
    let (currency, amount) = text.split_once(':').ok_or_else(|| bad("has no colon"))?;
    if !is_currency(currency) {
        return Err(bad("does not begin with a currency [A-Za-z][A-Za-z0-9_-]{0,31}"));
    }
    let amount = Decimal::parse_amount(amount).map_err(|error| bad(&format!("holds {}", error.message)))?;
    Ok((currency.to_owned(), amount))
}

fn is_currency(text: &str) -> bool {
    text.len() <= CURRENCY_LENGTH
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// The currency a metric charges: its unit, when its name begins with `cost.`.
pub fn charged_currency<'a>(name: &str, unit: Option<&'a str>) -> Option<&'a str> {
    unit.filter(|_| name.starts_with("cost.") && name != REMAINING_METRIC)
}

/// One charge as it was booked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    /// What the counter holds now; negative after an overspend.
    pub remaining: Decimal,
    /// Whether `cost.budget.remaining` is due: at least 1 % of the cap since the last one, or zero crossed.
    pub report: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Counter {
    cap: Decimal,
    remaining: Decimal,
    reported: Decimal,
}

/// The counters of one job, a currency each; they do not touch one another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    counters: BTreeMap<String, Counter>,
}

impl Budget {
    /// Counters for the entries of `cost.budget`; entries of one currency add up.
    pub fn from_lease<T: AsRef<str>>(entries: &[T]) -> Result<Budget, Error> {
        let mut caps = BTreeMap::new();
        for entry in entries {
            let (currency, amount) = parse_amount(entry.as_ref())?;
            let cap = caps.entry(currency).or_insert(Decimal::ZERO);
            *cap = cap.checked_add(amount).ok_or_else(|| {
                Error::invalid(format!("budget {} brings its currency beyond 38 digits", quoted(entry.as_ref())))
            })?;
        }
        let counter = |cap| Counter { cap, remaining: cap, reported: cap };
        Ok(Budget { counters: caps.into_iter().map(|(currency, cap)| (currency, counter(cap))).collect() })
    }

    /// Counters that stand at these amounts, for checks outside a job.
    pub fn from_remaining(remaining: BTreeMap<String, Decimal>) -> Budget {
        let counter = |left| Counter { cap: left, remaining: left, reported: left };
        Budget { counters: remaining.into_iter().map(|(currency, left)| (currency, counter(left))).collect() }
    }

    /// Books a cost. `None` when the currency has no counter.
    ///
    /// `INVALID_REQUEST`, and nothing booked, when the amount is negative or the counter would pass
    /// 38 digits, which only one far below zero can.
    pub fn charge(&mut self, currency: &str, amount: Decimal) -> Result<Option<Charge>, Error> {
        if amount.is_negative() {
            return Err(Error::invalid(format!("a cost of {amount} is negative; costs only add up")));
        }
        let Some(counter) = self.counters.get_mut(currency) else { return Ok(None) };
        let before = counter.remaining;
        let overflow = || Error::invalid(format!("a cost of {amount} brings {currency} beyond 38 digits"));
        counter.remaining = before.checked_sub(amount).ok_or_else(overflow)?;
        let crossed = before > Decimal::ZERO && counter.remaining <= Decimal::ZERO;
        // A difference out of range is more than one per cent of any cap.
        let material = counter
            .reported
            .checked_sub(counter.remaining)
            .is_none_or(|change| !change.is_zero() && change >= counter.cap.percent_rounded_up());
        let report = crossed || material;
        if report {
            counter.reported = counter.remaining;
        }
        Ok(Some(Charge { remaining: counter.remaining, report }))
    }

    /// Books a metric as it stands on the wire: `value` is the text of its JSON number.
    ///
    /// `None` when the metric is no cost in a budgeted currency; then its value is not looked at.
    pub fn charge_metric(&mut self, name: &str, unit: Option<&str>, value: &str) -> Result<Option<Charge>, Error> {
        let Some(currency) = charged_currency(name, unit).filter(|unit| self.counters.contains_key(*unit)) else {
            return Ok(None);
        };
        let amount = Decimal::parse_json(value)
            .map_err(|error| Error::invalid(format!("metric {}: {}", quoted(name), error.message)))?;
        self.charge(currency, amount)
    }

    /// Sets the counters to what was left before a restart: a JSON object as [`Budget::to_json`] writes it.
    ///
    /// # Errors
    /// `INVALID_REQUEST` when it is not such an object.
    pub fn restore(&mut self, left: &str) -> Result<(), Error> {
        let left: BTreeMap<String, Box<serde_json::value::RawValue>> = serde_json::from_str(left)
            .map_err(|error| Error::invalid(format!("kept counters cannot be read: {error}")))?;
        for (currency, amount) in left {
            if let Some(counter) = self.counters.get_mut(&currency) {
                counter.remaining = Decimal::parse_json(amount.get())?;
                counter.reported = counter.remaining;
            }
        }
        Ok(())
    }

    /// The first currency at or below zero; it blocks every gated operation.
    pub fn exhausted(&self) -> Option<(&str, &Decimal)> {
        self.remaining().find(|(_, remaining)| **remaining <= Decimal::ZERO)
    }

    /// What is left, by currency.
    pub fn remaining(&self) -> impl Iterator<Item = (&str, &Decimal)> {
        self.counters.iter().map(|(currency, counter)| (currency.as_str(), &counter.remaining))
    }

    /// What the lease granted, by currency.
    pub fn caps(&self) -> impl Iterator<Item = (&str, &Decimal)> {
        self.counters.iter().map(|(currency, counter)| (currency.as_str(), &counter.cap))
    }

    /// Whether there is no counter at all.
    pub fn is_empty(&self) -> bool {
        self.counters.is_empty()
    }

    /// What is left as a JSON object of numbers, `{"USD":3.58}`.
    pub fn to_json(&self) -> String {
        let members: Vec<String> = self.remaining().map(|(currency, left)| format!("\"{currency}\":{left}")).collect();
        format!("{{{}}}", members.join(","))
    }
}
