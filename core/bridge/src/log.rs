//! The core's logs, handed to the host's own logging (D-12). No global subscriber is installed: only the core's threads
//! report here.

use std::fmt::Write as _;
use std::sync::Arc;

use parking_lot::RwLock;
use tracing::field::{Field, Visit};
use tracing::span;
use tracing::{Event, Level, Metadata, Subscriber};

use crate::port::{Item, Port};

/// Severity, with the numbers hosts sort by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum LogLevel {
    /// Everything.
    Trace = 5,
    /// For developers.
    Debug = 10,
    /// For operators.
    Info = 20,
    /// Something to look at.
    Warn = 30,
    /// Something failed.
    Error = 40,
}

/// One line.
#[derive(Clone, Debug)]
pub struct LogRecord {
    /// Severity.
    pub level: LogLevel,
    /// The module it comes from.
    pub target: &'static str,
    /// The line, with its fields as `name=value` behind it.
    pub message: String,
}

pub(crate) type Logs = Arc<RwLock<LogFilter>>;

/// Where logs go, and from which level on.
pub(crate) struct LogFilter(Option<(Port, LogLevel)>);

impl LogFilter {
    pub(crate) fn off() -> Self {
        LogFilter(None)
    }

    pub(crate) fn to(port: Port, level: LogLevel) -> Self {
        LogFilter(Some((port, level)))
    }
}

/// Makes this thread report to `logs` for as long as it lives.
pub(crate) fn install(logs: &Logs) {
    let guard = tracing::subscriber::set_default(Forward(Arc::clone(logs)));
    // The guard would end the reporting; the thread's end does.
    std::mem::forget(guard);
}

/// Makes this thread report to `logs` for as long as the call takes.
pub(crate) fn reporting<R>(logs: &Logs, call: impl FnOnce() -> R) -> R {
    tracing::subscriber::with_default(Forward(Arc::clone(logs)), call)
}

struct Forward(Logs);

impl Subscriber for Forward {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let least = self.0.read().0.as_ref().map(|(_, least)| *least);
        metadata.is_event()
            && metadata.target().starts_with("arcp")
            && least.is_some_and(|least| level(*metadata.level()) >= least)
    }

    fn register_callsite(&self, _metadata: &'static Metadata<'static>) -> tracing::subscriber::Interest {
        // The port and its level may be set later.
        tracing::subscriber::Interest::sometimes()
    }

    fn event(&self, event: &Event<'_>) {
        let port = self.0.read().0.as_ref().map(|(port, _)| port.clone());
        if let Some(port) = port {
            let mut line = Line::default();
            event.record(&mut line);
            let metadata = event.metadata();
            let message = line.message + &line.fields;
            port.push(Item::Log(LogRecord { level: level(*metadata.level()), target: metadata.target(), message }));
        }
    }

    fn new_span(&self, _span: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _span: &span::Id, _values: &span::Record<'_>) {}

    fn record_follows_from(&self, _span: &span::Id, _follows: &span::Id) {}

    fn enter(&self, _span: &span::Id) {}

    fn exit(&self, _span: &span::Id) {}
}

fn level(level: Level) -> LogLevel {
    match level {
        Level::ERROR => LogLevel::Error,
        Level::WARN => LogLevel::Warn,
        Level::INFO => LogLevel::Info,
        Level::DEBUG => LogLevel::Debug,
        Level::TRACE => LogLevel::Trace,
    }
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
