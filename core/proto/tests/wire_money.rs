//! Amounts and counters against the corpus and a digit-by-digit oracle.
#![allow(clippy::unwrap_used, clippy::panic)]

use arcp_proto::budget::{Budget, Charge, parse_amount};
use arcp_proto::decimal::Decimal;
use proptest::prelude::*;
use serde_json::Value;

const CORPUS: &str = include_str!("../../../tests/corpus/wire/budget.json");

fn decimal(text: &str) -> Decimal {
    Decimal::parse_json(text).unwrap()
}

#[test]
fn corpus() {
    let corpus: Value = serde_json::from_str(CORPUS).unwrap();
    let (mut amounts, mut sums) = (0, 0);
    for case in corpus["cases"].as_array().unwrap() {
        if case["given"]["amount"].is_string() {
            check_amount(case);
            amounts += 1;
        } else {
            check_sum(case);
            sums += 1;
        }
    }
    assert_eq!((amounts, sums), (41, 24));
}

fn check_amount(case: &Value) {
    let id = &case["id"];
    match parse_amount(case["given"]["amount"].as_str().unwrap()) {
        Ok((currency, amount)) => {
            assert_eq!(case["expect"]["valid"], true, "{id}");
            assert_eq!(case["expect"]["currency"], currency, "{id}");
            assert_eq!(decimal(case["expect"]["amount"].as_str().unwrap()), amount, "{id}");
        }
        Err(error) => {
            assert_eq!(case["expect"]["valid"], false, "{id}");
            assert_eq!(case["expect"]["code"], error.code.as_str(), "{id}");
        }
    }
}

fn check_sum(case: &Value) {
    let id = &case["id"];
    let texts: Vec<&str> = case["given"]["budget"].as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect();
    let mut budget = Budget::from_lease(&texts).unwrap();
    for _ in 0..case["given"]["repeat"].as_u64().unwrap() {
        for metric in case["given"]["metrics"].as_array().unwrap() {
            let value = metric["value_literal"].as_str().unwrap();
            let booked = budget.charge_metric(metric["name"].as_str().unwrap(), metric["unit"].as_str(), value);
            assert_eq!(booked.is_err(), value.starts_with('-'), "{id}");
        }
    }
    let left: serde_json::Map<String, Value> =
        budget.remaining().map(|(currency, left)| (currency.to_owned(), left.to_string().into())).collect();
    assert_eq!(case["expect"]["remaining"], Value::Object(left), "{id}");
    assert_eq!(case["expect"]["exhausted"], budget.exhausted().is_some(), "{id}");
}

#[test]
fn remaining_is_written_as_numbers() {
    let mut budget = Budget::from_lease(&["USD:5.00", "credits:1000"]).unwrap();
    budget.charge("USD", decimal("1.42")).unwrap();
    assert_eq!(budget.to_json(), r#"{"USD":3.58,"credits":1000}"#);
    assert_eq!(serde_json::to_string(&decimal("3.580e2")).unwrap(), "358");
}

#[test]
fn a_report_is_due_after_one_per_cent_or_at_zero() {
    let mut budget = Budget::from_lease(&["USD:1.00"]).unwrap();
    let mut due = |amount: &str| budget.charge("USD", decimal(amount)).unwrap().unwrap().report;
    assert!(!due("0.0099999"));
    assert!(due("0.0000001"), "small charges add up to one per cent");
    assert!(!due("0"));
    assert!(due("0.985"));
    assert!(!due("0.004"));
    assert!(due("0.001"), "zero is crossed");
    assert!(!due("0.001"), "already below zero");
    assert!(due("0.5"));
}

#[test]
fn one_per_cent_is_not_rounded_down() {
    let cap = format!("USD:0.{}150", "0".repeat(35));
    let mut budget = Budget::from_lease(&[cap]).unwrap();
    let step = decimal("1e-38");
    assert!(!budget.charge("USD", step).unwrap().unwrap().report, "1 of 150");
    assert!(budget.charge("USD", step).unwrap().unwrap().report, "2 of 150");
}

#[test]
fn a_cap_of_zero_reports_changes_only() {
    let mut budget = Budget::from_lease(&["USD:0"]).unwrap();
    assert!(!budget.charge("USD", Decimal::ZERO).unwrap().unwrap().report);
    assert!(budget.charge("USD", decimal("1e-38")).unwrap().unwrap().report);
}

#[test]
fn a_refused_charge_books_nothing() {
    let mut budget = Budget::from_lease(&["USD:1"]).unwrap();
    assert!(budget.charge("USD", decimal("-0.1")).is_err());
    assert!(budget.charge_metric("cost.x", Some("USD"), "1e99").is_err());
    assert!(budget.charge_metric("cost.x", Some("USD"), "1e-39").is_err());
    assert_eq!(budget.charge("EUR", decimal("1")).unwrap(), None);
    assert_eq!(budget.to_json(), r#"{"USD":1}"#);
    let most = decimal("99999999999999999999999999999999999999.99999999999999999999999999999999999999");
    let booked = budget.charge("USD", most).unwrap();
    assert!(matches!(booked, Some(Charge { report: true, .. })));
    assert!(budget.charge("USD", most).is_err());
    assert!(budget.exhausted().is_some());
}

#[test]
fn the_range_is_38_digits_on_each_side() {
    let nines = "9".repeat(38);
    let most = format!("{nines}.{nines}");
    assert_eq!(decimal(&most).to_string(), most);
    assert_eq!(decimal(&format!("-{most}")).to_string(), format!("-{most}"));
    assert!(decimal(&most).checked_add(decimal("1e-38")).is_none());
    assert!(decimal(&format!("-{most}")).checked_sub(decimal("1e-38")).is_none());
    for text in ["1e38", "-1e38", "1e-39", "1e999999999999999999999", "1e-999999999999999999999"] {
        assert!(Decimal::parse_json(text).is_err(), "{text}");
    }
    let point = format!("0.{}1e2001", "0".repeat(2000));
    assert_eq!(decimal(&point).to_string(), "1");
    assert_eq!(decimal("-0e999999999999999999999"), Decimal::ZERO);
}

#[test]
fn only_json_numbers_are_numbers() {
    for text in
        ["", "-", "+1", "01", "-01", "00.5", ".5", "5.", "1e", "1e+", "0x1", "1 ", "NaN", "--1", "1.2.3", "1e1.0", "١"]
    {
        assert!(Decimal::parse_json(text).is_err(), "{text}");
    }
}

/// A number as signed decimal digits, lowest first, the 39th the units.
type Digits = [i32; 80];

fn digits(text: &str) -> Digits {
    let (sign, text) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let (integer, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut all = [0; 80];
    for (index, digit) in integer.chars().rev().enumerate() {
        all[38 + index] = sign * digit.to_digit(10).unwrap().cast_signed();
    }
    for (index, digit) in fraction.chars().enumerate() {
        all[37 - index] = sign * digit.to_digit(10).unwrap().cast_signed();
    }
    all
}

fn text(mut all: Digits) -> String {
    let negative = all.iter().rev().find(|digit| **digit != 0).is_some_and(|digit| *digit < 0);
    if negative {
        all.iter_mut().for_each(|digit| *digit = -*digit);
    }
    for index in 0..79 {
        all[index + 1] += all[index].div_euclid(10);
        all[index] = all[index].rem_euclid(10);
    }
    let string = |part: &[i32]| part.iter().rev().map(i32::to_string).collect::<String>();
    let (fraction, integer) = (string(&all[..38]), string(&all[38..]));
    let (fraction, integer) = (fraction.trim_end_matches('0'), integer.trim_start_matches('0'));
    let integer = if integer.is_empty() { "0" } else { integer };
    let sign = if negative { "-" } else { "" };
    if fraction.is_empty() { format!("{sign}{integer}") } else { format!("{sign}{integer}.{fraction}") }
}

proptest! {
    #[test]
    fn sums_lose_no_digit(
        a in "-?(0|[1-9][0-9]{0,36})(\\.[0-9]{1,38})?",
        b in "-?(0|[1-9][0-9]{0,36})(\\.[0-9]{1,38})?",
    ) {
        let (x, y) = (decimal(&a), decimal(&b));
        let (mut sum, mut difference) = (digits(&a), digits(&a));
        for (index, digit) in digits(&b).into_iter().enumerate() {
            sum[index] += digit;
            difference[index] -= digit;
        }
        prop_assert_eq!(x.to_string(), text(digits(&a)));
        prop_assert_eq!(x.checked_add(y).unwrap().to_string(), text(sum));
        let left = x.checked_sub(y).unwrap();
        prop_assert_eq!(left.to_string(), text(difference));
        prop_assert_eq!(left.is_negative(), x < y);
        prop_assert_eq!(left.is_zero(), x == y);
        prop_assert_eq!(x.checked_neg().unwrap().checked_neg().unwrap(), x);
    }

    #[test]
    fn an_exponent_moves_the_point(digits in "[1-9][0-9]{0,18}", exponent in -19_i32..=19) {
        let moved = decimal(&format!("{digits}e{exponent}"));
        let zeros = "0".repeat(exponent.unsigned_abs() as usize);
        let plain = if exponent < 0 {
            let padded = format!("{zeros}{digits}");
            let (integer, fraction) = padded.split_at(padded.len() - zeros.len());
            Decimal::parse_amount(&format!("{integer}.{fraction}"))
        } else {
            Decimal::parse_amount(&format!("{digits}{zeros}"))
        };
        prop_assert_eq!(moved, plain.unwrap());
    }

    #[test]
    fn parsers_take_any_text(text in "\\PC{0,24}|[-+0-9.eE:A-Z]{0,24}") {
        if let Ok(number) = Decimal::parse_json(&text) {
            prop_assert_eq!(decimal(&number.to_string()), number);
            prop_assert!(serde_json::from_str::<serde_json::Number>(&text).is_ok());
        }
        if let Ok((currency, amount)) = parse_amount(&text) {
            let again = format!("{currency}:{amount}");
            prop_assert_eq!(parse_amount(&again).unwrap(), (currency, amount));
        }
    }
}
