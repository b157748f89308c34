//! The core's own log, on stderr: warnings always, everything with `--verbose`.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU8, Ordering};

use clap::builder::styling::AnsiColor;
use tracing::field::{Field, Visit};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Level, Metadata, Subscriber, span};

use crate::output::{note, shown};

/// Makes this thread report, until the guard is dropped. No global subscriber: the process may belong to a host.
pub(crate) fn install(verbose: bool) -> DefaultGuard {
    tracing::subscriber::set_default(Stderr { least: if verbose { Level::TRACE } else { Level::WARN } })
}

struct Stderr {
    least: Level,
}

/// What LOG_LEVEL of a registry says, if any: 1 is error, 5 is trace.
static LEAST: AtomicU8 = AtomicU8::new(0);

/// From now on, lines of this level and graver are shown, unless --verbose shows all.
pub(crate) fn at_least(level: &str) {
    let number = match level {
        "trace" => 5,
        "debug" => 4,
        "info" => 3,
        "error" | "critical" => 1,
        _ => 2,
    };
    LEAST.store(number, Ordering::Relaxed);
    // What was decided by the level before is decided anew.
    tracing::callsite::rebuild_interest_cache();
}

fn least() -> Option<Level> {
    match LEAST.load(Ordering::Relaxed) {
        1 => Some(Level::ERROR),
        2 => Some(Level::WARN),
        3 => Some(Level::INFO),
        4 => Some(Level::DEBUG),
        5 => Some(Level::TRACE),
        _ => None,
    }
}

impl Subscriber for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event()
            && metadata.target().starts_with("arcp")
            && *metadata.level() <= least().filter(|_| self.least != Level::TRACE).unwrap_or(self.least)
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let level = event.metadata().level().as_str().to_ascii_lowercase();
        let yellow = AnsiColor::Yellow.on_default();
        note(&format!("{yellow}arcp: {level}:{yellow:#} {}{}", shown(&line.message), shown(&line.fields)));
    }

    fn new_span(&self, _span: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _span: &span::Id, _values: &span::Record<'_>) {}

    fn record_follows_from(&self, _span: &span::Id, _follows: &span::Id) {}

    fn enter(&self, _span: &span::Id) {}

    fn exit(&self, _span: &span::Id) {}
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a String does not fail.
        let _ = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            write!(self.fields, " {}={value:?}", field.name())
        };
    }
}
