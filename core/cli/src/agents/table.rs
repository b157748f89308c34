//! Tables of agents for people, coloured only on a terminal.

use std::fmt::Write as _;
use std::io::Write as _;

use clap::builder::styling::{AnsiColor, Style};
use serde_json::Value;

use crate::exit::Failure;
use crate::output::shown;

/// One cell and how it is shown on a terminal.
pub(crate) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    pub(crate) fn plain(text: impl Into<String>) -> Cell {
        Cell { text: text.into(), style: Style::new() }
    }

    pub(crate) fn head(text: &str) -> Cell {
        Cell { text: text.to_owned(), style: Style::new().bold() }
    }

    /// A member of an object the registry sent.
    pub(crate) fn of(object: &Value, member: &str) -> Cell {
        Cell::plain(text(&object[member]))
    }

    /// `alive` in green, `dead` in red.
    pub(crate) fn status(status: &str) -> Cell {
        let style = match status {
            "alive" => AnsiColor::Green.on_default(),
            "dead" => AnsiColor::Red.on_default(),
            _ => Style::new(),
        };
        Cell { text: shown(status).into_owned(), style }
    }
}

/// What a value says in one line.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => shown(text).into_owned(),
        Value::Array(entries) => entries.iter().map(text).collect::<Vec<_>>().join(", "),
        other => shown(&other.to_string()).into_owned(),
    }
}

/// Prints rows of cells, two spaces apart and aligned.
pub(crate) fn print<const N: usize>(rows: &[[Cell; N]]) -> Result<(), Failure> {
    let width = |column: usize| rows.iter().map(|row| row[column].text.chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut out = String::new();
    for row in rows {
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            let style = cell.style;
            // Nothing behind the last cell of a line.
            let gap = if column + 1 == N { 0 } else { width - cell.text.chars().count() + 2 };
            // Writing to a String does not fail.
            let _ = write!(out, "{style}{}{style:#}{:gap$}", cell.text, "");
        }
        out.truncate(out.trim_end_matches(' ').len());
        out.push('\n');
    }
    styled(&out)
}

/// Writes text to stdout, its styles only on a terminal.
pub(crate) fn styled(text: &str) -> Result<(), Failure> {
    let mut stdout = anstream::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(Failure::Stdout)
}

/// One agent over several lines.
pub(crate) fn agent(agent: &Value) -> Result<(), Failure> {
    const MEMBERS: [&str; 18] = [
        "agent_id",
        "name",
        "agent_type",
        "status",
        "endpoint",
        "capabilities",
        "context_brief",
        "version",
        "owner",
        "communication_mode",
        "features",
        "language_support",
        "max_tokens",
        "rate_limit",
        "policy_tags",
        "last_seen",
        "registered_at",
        "metadata",
    ];
    let row = |member: &str| {
        let value = &agent[member];
        let cell = match member {
            "status" => Cell::status(value.as_str().unwrap_or_default()),
            _ => Cell::plain(text(value)),
        };
        let is_there = !value.is_null() && value != &Value::Array(Vec::new());
        is_there.then(|| [Cell::head(member), cell])
    };
    let mut rows: Vec<[Cell; 2]> = MEMBERS.iter().filter_map(|member| row(member)).collect();
    for member in ["requirements", "metrics"] {
        for (name, value) in agent[member].as_object().into_iter().flatten() {
            let is_empty = matches!(value, Value::Null)
                || value.as_array().is_some_and(Vec::is_empty)
                || value.as_object().is_some_and(serde_json::Map::is_empty);
            if !is_empty {
                rows.push([Cell::head(&format!("{member}.{}", shown(name))), Cell::plain(text(value))]);
            }
        }
    }
    print(&rows)
}
