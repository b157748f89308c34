//! Lines on stdout for programs, lines on stderr for people.

use std::borrow::Cow;
use std::io::Write;

use arcp::JobEvent;
use arcp::message::JobResult;

use crate::exit::Failure;

/// Writes one line to stdout, at once.
pub(crate) fn print(line: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).map_err(Failure::Stdout)
}

/// Writes bytes to stdout and nothing else.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(Failure::Stdout)
}

/// Writes one line to stderr, in colour only on a terminal.
pub(crate) fn note(line: &str) {
    // There is nowhere left to tell that stderr is gone.
    drop(writeln!(anstream::stderr().lock(), "{line}"));
}

/// Text of the other side as it may be shown on a terminal: control characters would act on it, or end the line.
pub(crate) fn shown(text: &str) -> Cow<'_, str> {
    if text.contains(char::is_control) {
        let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
        Cow::Owned(text.chars().map(escape).collect())
    } else {
        Cow::Borrowed(text)
    }
}

/// `{"name":json}`.
pub(crate) fn member(name: &str, json: &str) -> String {
    format!("{{\"{name}\":{json}}}")
}

/// `{kind, body, ts}` on one line, the body as it came.
pub(crate) fn event_line(event: &JobEvent) -> String {
    let text = |text: &str| serde_json::Value::from(text).to_string();
    // A body may have been written over several lines; breaks stand only between tokens.
    let body = event.body().replace(['\r', '\n'], "");
    format!("{{\"kind\":{},\"body\":{body},\"ts\":{}}}", text(event.kind()), text(event.ts()))
}

/// The payload of `job.result` on one line, nulls left out.
pub(crate) fn result_line(mut result: JobResult) -> Result<String, Failure> {
    result.result = result.result.filter(|value| !value.is_null());
    serde_json::to_string(&result).map_err(|error| Failure::Other(format!("the result cannot be written: {error}")))
}

/// Cells of equal width, two spaces apart.
pub(crate) fn columns<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// JSON text over several lines, two spaces per level; every token stays as it is, so that no digit is lost.
pub(crate) fn indent(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let (mut depth, mut just_opened, mut in_string, mut escaped) = (0_usize, false, false, false);
    let new_line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    for c in json.chars() {
        if in_string {
            out.push(c);
            in_string = escaped || c != '"';
            escaped = c == '\\' && !escaped;
            continue;
        }
        match c {
            ' ' | '\t' | '\r' | '\n' => continue,
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                if !just_opened {
                    new_line(&mut out, depth);
                }
            }
            _ if just_opened => new_line(&mut out, depth),
            _ => {}
        }
        just_opened = matches!(c, '{' | '[');
        in_string = c == '"';
        out.push(c);
        match c {
            '{' | '[' => depth += 1,
            ',' => new_line(&mut out, depth),
            ':' => out.push(' '),
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indented_json_keeps_every_token() {
        let json = r#"{"a":[],"b":{} ,"c":[1.10,{"d":"x,\"{\\"}],"e":null}"#;
        let expected = "{\n  \"a\": [],\n  \"b\": {},\n  \"c\": [\n    1.10,\n    {\n      \"d\": \"x,\\\"{\\\\\"\n    }\n  ],\n  \"e\": null\n}";
        assert_eq!(indent(json), expected);
        assert_eq!(indent("123456789012345678901234567890"), "123456789012345678901234567890");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["ID", "NAME", "N"], ["1", "grün", "10"], ["200", "x", "3"]].map(|row| row.map(str::to_owned));
        assert_eq!(columns(&rows), ["ID   NAME  N", "1    grün  10", "200  x     3"]);
    }

    #[test]
    fn what_the_other_side_says_cannot_act_on_the_terminal() {
        assert_eq!(shown("a\u{1b}[2J\nb"), "a\\u{1b}[2J\\nb");
        assert_eq!(shown("grün"), "grün");
    }
}
