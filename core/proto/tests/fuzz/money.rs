//! Exact money against whole numbers of any size.

use std::collections::BTreeMap;

use arcp_proto::budget::{Budget, parse_amount};
use arcp_proto::decimal::Decimal;
use num_bigint::BigInt;
use num_bigint::Sign;
use proptest::prelude::*;

use crate::runner::run;

const DIGITS: usize = 38;

/// Steps of ten to the power of -38.
fn unit() -> BigInt {
    BigInt::from(10).pow(38)
}

fn is_in_range(steps: &BigInt) -> bool {
    steps.magnitude() < (unit() * unit()).magnitude()
}

/// What a number is worth in steps; `None` when it is no JSON number, or does not fit.
fn reference(text: &str) -> Option<BigInt> {
    let value: &serde_json::value::RawValue = serde_json::from_str(text).ok()?;
    if value.get() != text {
        return None;
    }
    let (negative, rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (mantissa, exponent) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
    let (integer, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits: BigInt = format!("{integer}{fraction}").parse().ok()?;
    if digits.sign() == Sign::NoSign {
        return Some(digits);
    }
    let places = exponent.parse::<i64>().ok()? - i64::try_from(fraction.len()).ok()? + 38;
    let steps = match u32::try_from(places) {
        Ok(places) if places > 200 => return None,
        Ok(places) => digits * BigInt::from(10).pow(places),
        Err(_) => {
            let divisor = BigInt::from(10).pow(u32::try_from(-places).ok()?);
            if &digits % &divisor != BigInt::ZERO {
                return None;
            }
            digits / divisor
        }
    };
    is_in_range(&steps).then_some(if negative { -steps } else { steps })
}

fn steps(value: Decimal) -> BigInt {
    reference(&value.to_string()).unwrap()
}

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,40})?([eE][+-]?[0-9]{1,2})?",
        2 => "-?(0|[1-9][0-9]{0,3})(\\.[0-9]{1,3})?",
        1 => "-?9{37,39}(\\.9{37,39})?",
        1 => "-?[0-9.eE+-]{0,12}",
        1 => "-?0\\.0{30,37}[1-9]{1,3}([eE]-?[0-9])?",
    ]
}

#[test]
fn decimals_are_whole_numbers_of_steps() {
    run("money_decimals", (number(), number()), |(left, right)| {
        let mut read = Vec::new();
        for text in [&left, &right] {
            let (ours, expected) = (Decimal::parse_json(text), reference(text));
            match (&ours, &expected) {
                (Ok(value), Some(expected)) if steps(*value) == *expected => read.push((*value, expected.clone())),
                (Err(_), None) => return Ok(()),
                _ => return Err(format!("{text} is {ours:?}, expected {expected:?} steps")),
            }
            let amount = Decimal::parse_amount(text);
            let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
            if plain && amount != ours || !plain && amount.is_ok() {
                return Err(format!("{text} as an amount is {amount:?}"));
            }
        }
        let [(a, x), (b, y)] = &read[..] else { return Ok(()) };
        for (name, ours, expected) in [
            ("sum", a.checked_add(*b), x + y),
            ("difference", a.checked_sub(*b), x - y),
            ("negation", a.checked_neg(), -x.clone()),
        ] {
            let expected = is_in_range(&expected).then_some(expected);
            if ours.map(steps) != expected {
                return Err(format!("the {name} of {a} and {b} is {ours:?}"));
            }
        }
        let holds = (a.cmp(b), a == b, a.is_zero(), a.is_negative())
            == (x.cmp(y), x == y, *x == BigInt::ZERO, x.sign() == Sign::Minus);
        if holds { Ok(()) } else { Err(format!("{a} and {b} compare otherwise than their steps")) }
    });
}

/// A counter as the contract says it: what is left, and what was last told.
struct Counter {
    cap: BigInt,
    left: BigInt,
    told: BigInt,
}

#[test]
fn budgets_are_charged_to_the_last_digit() {
    let currency = "(A|B|C)";
    let entries = prop::collection::vec((currency, "[0-9]{1,3}(\\.[0-9]{1,38})?"), 0..4);
    let charges = prop::collection::vec((currency, number()), 0..24);
    run("money_budgets", (entries, charges), |(entries, charges)| {
        let texts: Vec<String> = entries.iter().map(|(unit, amount)| format!("{unit}:{amount}")).collect();
        let mut budget = Budget::from_lease(&texts).map_err(|error| error.message)?;
        let mut counters: BTreeMap<String, Counter> = BTreeMap::new();
        for ((unit, _), text) in entries.iter().zip(&texts) {
            let amount = steps(parse_amount(text).map_err(|error| error.message)?.1);
            let counter = counters.entry(unit.clone()).or_insert_with(|| Counter {
                cap: BigInt::ZERO,
                left: BigInt::ZERO,
                told: BigInt::ZERO,
            });
            for part in [&mut counter.cap, &mut counter.left, &mut counter.told] {
                *part += &amount;
            }
        }
        for (unit, text) in &charges {
            let charged = budget.charge_metric("cost.x", Some(unit), text);
            let Some(counter) = counters.get_mut(unit) else {
                if charged == Ok(None) {
                    continue;
                }
                return Err(format!("{text} {unit} without a counter: {charged:?}"));
            };
            let amount = reference(text).filter(|amount| amount.sign() != Sign::Minus);
            let left = amount.map(|amount| &counter.left - amount).filter(is_in_range);
            let (charge, left) = match (&charged, left) {
                (Err(_), None) => continue,
                (Ok(Some(charge)), Some(left)) => (charge, left),
                (charged, _) => return Err(format!("{text} {unit}: {charged:?}")),
            };
            let change = &counter.told - &left;
            let crossed = counter.left > BigInt::ZERO && left <= BigInt::ZERO;
            let due = crossed || change > BigInt::ZERO && &change * 100 >= counter.cap;
            if (steps(charge.remaining), charge.report) != (left.clone(), due) {
                return Err(format!("{text} {unit}: {charge:?}, expected {left} steps, told: {due}"));
            }
            if due {
                counter.told = left.clone();
            }
            counter.left = left;
        }
        let used_up = counters.iter().find(|(_, counter)| counter.left <= BigInt::ZERO).map(|(unit, _)| unit.as_str());
        if budget.exhausted().map(|(unit, _)| unit) != used_up {
            return Err(format!("{:?} is used up, expected {used_up:?}", budget.exhausted()));
        }
        // What is kept over a restart is what was left.
        let mut again = Budget::from_lease(&texts).map_err(|error| error.message)?;
        again.restore(&budget.to_json()).map_err(|error| error.message)?;
        let same = again.remaining().eq(budget.remaining());
        if same && budget.to_json().len() < 4096 { Ok(()) } else { Err(format!("kept as {}", budget.to_json())) }
    });
}

#[test]
fn the_reference_knows_the_range() {
    let nines = "9".repeat(DIGITS);
    assert!(reference(&nines).is_some() && reference(&format!("1{}", "0".repeat(DIGITS))).is_none());
    assert!(reference("1e-38").is_some() && reference("1e-39").is_none() && reference("01").is_none());
}
