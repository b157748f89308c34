//! What a person at a terminal sees of a job while it runs.

use std::io::IsTerminal;

use arcp::JobEvent;
use arcp::event::{EventBody, ToolOutcome};
use clap::builder::styling::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::value::RawValue;

use crate::output::{note, shown};

/// Event lines and one progress bar on stderr; neither when stderr is no terminal.
pub(crate) struct Screen {
    shows_events: bool,
    bar: Option<ProgressBar>,
}

/// The bar counts in thousandths: progress may come in any unit and with fractions.
const STEPS: u64 = 1000;

/// Characters of a JSON value shown on one line.
const SHORT: usize = 160;

impl Screen {
    pub(crate) fn new(quiet: bool) -> Self {
        Screen { shows_events: !quiet && std::io::stderr().is_terminal(), bar: None }
    }

    pub(crate) fn event(&mut self, event: &JobEvent) {
        if !self.shows_events {
            return;
        }
        let Ok(body) = serde_json::from_str::<&RawValue>(event.body()) else { return };
        match EventBody::read(event.kind(), body) {
            EventBody::Progress { current, total, units, message } => {
                self.progress(current, total, units.as_deref(), message.as_deref());
            }
            body => self.line(&describe(event.kind(), &body)),
        }
    }

    /// A line above the bar.
    pub(crate) fn line(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| note(line)),
            None => note(line),
        }
    }

    fn progress(&mut self, current: &str, total: Option<&str>, units: Option<&str>, message: Option<&str>) {
        let total = total.map(|total| (total, total.parse::<f64>().unwrap_or_default()));
        let mut text = match total {
            Some((total, _)) => format!("{current}/{total}"),
            None => current.to_owned(),
        };
        for more in [units, message].into_iter().flatten() {
            text.push(' ');
            text.push_str(&shown(more));
        }
        let bar = self.bar.get_or_insert_with(|| ProgressBar::new(STEPS));
        match total {
            Some((_, total)) if total > 0.0 => {
                let part = (current.parse::<f64>().unwrap_or_default() / total).clamp(0.0, 1.0);
                bar.set_style(style("{bar:32} {msg}"));
                // Between 0 and STEPS.
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded above")]
                bar.set_position((part * STEPS as f64) as u64);
            }
            _ => {
                bar.set_style(style("{spinner} {msg}"));
                bar.tick();
            }
        }
        bar.set_message(text);
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// One line, the kind in colour.
fn describe(kind: &str, body: &EventBody<'_>) -> String {
    let (color, text) = match body {
        EventBody::Log { level, message, .. } => {
            let color = match &**level {
                "error" | "critical" => AnsiColor::Red,
                "warn" => AnsiColor::Yellow,
                _ => AnsiColor::Cyan,
            };
            return styled(color.on_default(), level, message);
        }
        EventBody::Thought { text } => (AnsiColor::Magenta, text.to_string()),
        EventBody::ToolCall { tool, args, .. } => (AnsiColor::Blue, join([Some(&**tool), args.map(RawValue::get)])),
        EventBody::ToolResult { outcome, .. } => match outcome {
            ToolOutcome::Result(value) => (AnsiColor::Blue, value.get().to_owned()),
            ToolOutcome::Error(error) => (AnsiColor::Red, error.to_string()),
            ToolOutcome::Nothing => (AnsiColor::Blue, "done".to_owned()),
        },
        EventBody::Status { phase, message } => (AnsiColor::Green, join([Some(&**phase), message.as_deref()])),
        EventBody::Metric { name, value, unit, .. } => {
            (AnsiColor::Cyan, join([Some(&*format!("{name} = {value}")), unit.as_deref()]))
        }
        EventBody::ArtifactRef { uri, .. } => (AnsiColor::Cyan, uri.to_string()),
        EventBody::Delegate { agent, .. } => (AnsiColor::Magenta, agent.to_string()),
        EventBody::ResultChunk(chunk) => {
            (AnsiColor::Cyan, format!("part {}, {} bytes", chunk.chunk_seq, chunk.data.len()))
        }
        EventBody::Progress { current, .. } => (AnsiColor::Cyan, (*current).to_owned()),
        EventBody::Other(body) => (AnsiColor::Cyan, body.get().to_owned()),
    };
    styled(color.on_default(), kind, &text)
}

fn styled(style: Style, label: &str, text: &str) -> String {
    let text = match text.char_indices().nth(SHORT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    };
    format!("{style}{}{style:#} {}", shown(label), shown(&text))
}

fn join<'a>(parts: impl IntoIterator<Item = Option<&'a str>>) -> String {
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(kind: &str, body: &str) -> String {
        let styled = describe(kind, &EventBody::read(kind, serde_json::from_str(body).unwrap()));
        anstream::adapter::strip_str(&styled).to_string()
    }

    #[test]
    fn events_are_told_in_a_line_each() {
        assert_eq!(line("log", r#"{"level":"warn","message":"low\ndisk"}"#), "warn low\\ndisk");
        assert_eq!(line("status", r#"{"phase":"reading","message":"a.txt"}"#), "status reading a.txt");
        assert_eq!(line("metric", r#"{"name":"files","value":3.50}"#), "metric files = 3.50");
        assert_eq!(line("tool_call", r#"{"tool":"t","call_id":"c","args":{"x":1}}"#), "tool_call t {\"x\":1}");
        let error = r#"{"call_id":"c","error":{"code":"PERMISSION_DENIED","message":"no","retryable":false}}"#;
        assert_eq!(line("tool_result", error), "tool_result PERMISSION_DENIED: no");
        assert_eq!(line("x-vendor.acme.heat", "[1]"), "x-vendor.acme.heat [1]");
        assert!(line("thought", &format!("{{\"text\":\"{}\"}}", "ä".repeat(500))).ends_with("ä…"));
    }
}
