//! What is measured, in which order, and how it is shown.

use std::collections::HashMap;

use crate::Measured;

/// One measurement, which gives a figure for each of its rows.
pub(crate) struct Measurement {
    pub(crate) rows: Vec<Row>,
    pub(crate) run: fn() -> Measured,
}

#[derive(Clone, Copy)]
pub(crate) struct Row {
    pub(crate) what: &'static str,
    pub(crate) unit: Unit,
    pub(crate) against: Against,
}

#[derive(Clone, Copy)]
pub(crate) enum Unit {
    /// Things per second.
    Rate,
    /// Per second.
    Megabytes,
    Milliseconds,
    Microseconds,
    Kibibytes,
}

/// What a row is compared with.
#[derive(Clone, Copy)]
pub(crate) enum Against {
    Nothing,
    /// A part of another row, and what that is called in short.
    Share(&'static str, &'static str),
    /// So many times another row.
    Times(&'static str),
    /// What is to be reached.
    Wanted(&'static str),
}

/// A row and its median.
pub(crate) struct Line<'a> {
    row: &'a Row,
    figure: Result<f64, String>,
}

impl Measurement {
    fn has(&self, words: &[String]) -> bool {
        self.rows.iter().any(|row| words.iter().any(|word| row.what.contains(word.as_str())))
    }

    fn references(&self) -> impl Iterator<Item = &'static str> {
        self.rows.iter().filter_map(|row| match row.against {
            Against::Share(what, _) | Against::Times(what) => Some(what),
            Against::Nothing | Against::Wanted(_) => None,
        })
    }
}

impl Unit {
    fn show(self, figure: f64) -> String {
        match self {
            Unit::Rate if figure >= 10_000.0 => format!("{:.0} k/s", figure / 1000.0),
            Unit::Rate => format!("{:.2} k/s", figure / 1000.0),
            Unit::Megabytes => format!("{figure:.0} MB/s"),
            Unit::Milliseconds => format!("{figure:.1} ms"),
            Unit::Microseconds => format!("{figure:.0} us"),
            Unit::Kibibytes => format!("{figure:.1} KiB"),
        }
    }
}

/// The measurements that have any of the words in a row, and those they are compared with; all without words.
pub(crate) fn choose(all: Vec<Measurement>, words: &[String]) -> Vec<Measurement> {
    if words.is_empty() {
        return all;
    }
    let references: Vec<&str> = all.iter().filter(|m| m.has(words)).flat_map(Measurement::references).collect();
    all.into_iter().filter(|m| m.has(words) || m.rows.iter().any(|row| references.contains(&row.what))).collect()
}

/// Takes every measurement so many times, in turn.
pub(crate) fn measure(chosen: &[Measurement], rounds: usize) -> Vec<Line<'_>> {
    let mut taken: Vec<Vec<Vec<f64>>> = chosen.iter().map(|m| vec![Vec::new(); m.rows.len()]).collect();
    let mut faults: Vec<Option<String>> = vec![None; chosen.len()];
    for _ in 0..rounds {
        for ((measurement, taken), fault) in chosen.iter().zip(&mut taken).zip(&mut faults) {
            match (measurement.run)() {
                Ok(figures) => taken.iter_mut().zip(figures).for_each(|(all, figure)| all.push(figure)),
                Err(why) => *fault = Some(why),
            }
        }
    }
    let mut lines = Vec::new();
    for ((measurement, taken), fault) in chosen.iter().zip(taken).zip(faults) {
        for (row, figures) in measurement.rows.iter().zip(taken) {
            let figure = fault.clone().map_or_else(|| Ok(median(figures)), Err);
            lines.push(Line { row, figure });
        }
    }
    lines
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Prints the table, and what could not be measured to standard error.
pub(crate) fn print(lines: &[Line<'_>]) {
    let known: HashMap<&str, f64> =
        lines.iter().filter_map(|line| Some((line.row.what, *line.figure.as_ref().ok()?))).collect();
    println!("| what | figure | against |");
    println!("| --- | ---: | --- |");
    for Line { row, figure } in lines {
        let figure = match figure {
            Ok(figure) => *figure,
            Err(why) => {
                eprintln!("{}: not measured: {why}", row.what);
                continue;
            }
        };
        let against = match row.against {
            Against::Nothing => None,
            Against::Share(what, name) => known.get(what).map(|all| format!("{:.0} % of {name}", 100.0 * figure / all)),
            Against::Times(what) => known.get(what).map(|base| format!("{:.1} times that alone", figure / base)),
            Against::Wanted(wanted) => Some(format!("wanted: {wanted}")),
        };
        println!("| {} | {} | {} |", row.what, row.unit.show(figure), against.unwrap_or_default());
    }
}
