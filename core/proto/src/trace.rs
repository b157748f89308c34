//! Trace context in the W3C form, as it rides in a message's `extensions` (R-11.1, R-11.5).
//!
//! Tracing never fails a message (R-11.7): a context that cannot be read is treated as absent.

use std::fmt;

use serde_json::value::RawValue;

use crate::json::{Fields, ObjectWriter, RawJson};

/// The member of `extensions` that carries a context as `{traceparent, tracestate?}` (R-11.5).
pub const EXTENSION: &str = "x-vendor.opentelemetry.tracecontext";

/// A longer `tracestate` is dropped, and the rest of the context kept; in bytes, the length W3C asks to be passed on.
pub const MAX_TRACESTATE: usize = 512;

const SAMPLED: u8 = 1;

/// Where in a trace something happens: the trace, the span that caused it, and whether that span is recorded.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TraceContext {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    flags: u8,
    tracestate: Option<Box<str>>,
}

impl TraceContext {
    /// A context in the trace of `trace_id` (32 lower-case hex, not all zero), not sampled. `None` for other text, and
    /// for a span id of zeros.
    pub fn new(trace_id: &str, span_id: [u8; 8]) -> Option<TraceContext> {
        let trace_id = bytes::<16>(trace_id)?;
        (span_id != [0; 8]).then_some(TraceContext { trace_id, span_id, flags: 0, tracestate: None })
    }

    /// Reads a `traceparent` of any version but `ff` (R-11.1), and keeps `tracestate` as it is: opaque, unless it is
    /// longer than [`MAX_TRACESTATE`] or holds a control or non-ASCII character.
    pub fn parse(traceparent: &str, tracestate: Option<&str>) -> Option<TraceContext> {
        let parts = Parts::of(traceparent)?;
        Some(TraceContext {
            trace_id: bytes(parts.trace_id)?,
            span_id: bytes(parts.span_id)?,
            flags: bytes::<1>(parts.flags).map_or(0, |[flags]| flags),
            tracestate: tracestate.filter(|text| is_tracestate(text)).map(Into::into),
        })
    }

    /// The context among a message's `extensions`, a JSON object. `None` when there is none or it is malformed.
    pub fn from_extensions(extensions: &RawValue) -> Option<TraceContext> {
        let context = Fields::read("extensions", extensions).ok()?.opt_object(EXTENSION).ok()??;
        let tracestate = context.opt_str("tracestate", "").ok().flatten();
        TraceContext::parse(&context.opt_str("traceparent", "").ok()??, tracestate.as_deref())
    }

    /// `{"x-vendor.opentelemetry.tracecontext":{...}}`, to be sent as a message's `extensions`.
    pub fn to_extensions(&self) -> RawJson {
        let mut context = ObjectWriter::new();
        context.text("traceparent", &self.traceparent());
        context.opt_text("tracestate", self.tracestate());
        let mut extensions = ObjectWriter::new();
        extensions.json(EXTENSION, &context.into_text());
        extensions.finish().unwrap_or_else(|_| RawJson::empty_object())
    }

    /// The same trace with another span as the cause: what a span hands on. `None` for a span id of zeros.
    pub fn child(&self, span_id: [u8; 8]) -> Option<TraceContext> {
        (span_id != [0; 8]).then(|| TraceContext { span_id, ..self.clone() })
    }

    /// Version `00` of the header of that name.
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-{:02x}", self.trace_id(), self.span_id(), self.flags & SAMPLED)
    }

    /// Vendors' own data; at most [`MAX_TRACESTATE`] bytes.
    pub fn tracestate(&self) -> Option<&str> {
        self.tracestate.as_deref()
    }

    /// 32 lower-case hex characters.
    pub fn trace_id(&self) -> String {
        hex(&self.trace_id)
    }

    /// 16 lower-case hex characters: the span that caused what carries this context.
    pub fn span_id(&self) -> String {
        hex(&self.span_id)
    }

    /// Whether the causing span is recorded.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }
}

/// Shows no `tracestate`: it is foreign data.
impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceContext({})", self.traceparent())
    }
}

/// The checked parts of a `traceparent`.
struct Parts<'a> {
    trace_id: &'a str,
    span_id: &'a str,
    flags: &'a str,
}

impl Parts<'_> {
    fn of(text: &str) -> Option<Parts<'_>> {
        let mut parts = text.split('-');
        let (version, trace_id) = (parts.next()?, parts.next()?);
        let (span_id, flags) = (parts.next()?, parts.next()?);
        let whole = is_hex(trace_id, 32) && is_some(trace_id) && is_hex(span_id, 16) && is_some(span_id);
        // Only versions after 00 may carry more parts; ff is none.
        let versioned = is_hex(version, 2) && version != "ff" && (version != "00" || parts.next().is_none());
        (whole && versioned && is_hex(flags, 2)).then_some(Parts { trace_id, span_id, flags })
    }
}

/// A trace id, or the one inside a `traceparent` (R-11.1).
pub(crate) fn trace_id_of(text: &str) -> Option<&str> {
    match text.contains('-') {
        true => Parts::of(text).map(|parts| parts.trace_id),
        false => (is_hex(text, 32) && is_some(text)).then_some(text),
    }
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_some(hex: &str) -> bool {
    hex.bytes().any(|byte| byte != b'0')
}

fn is_tracestate(text: &str) -> bool {
    (1..=MAX_TRACESTATE).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~'))
}

fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    if !is_hex(text, N * 2) || (N > 1 && !is_some(text)) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn from(extensions: &str) -> Option<TraceContext> {
        TraceContext::from_extensions(RawJson::parse(extensions).unwrap().as_raw())
    }

    #[test]
    fn a_context_survives_the_way_through_extensions() {
        let context = TraceContext::parse(PARENT, Some("acme=1,other=t\"2")).unwrap();
        assert_eq!((context.traceparent(), context.is_sampled()), (PARENT.to_owned(), true));
        assert_eq!((&*context.trace_id(), &*context.span_id()), (TRACE, "00f067aa0ba902b7"));
        let extensions = context.to_extensions();
        assert_eq!(from(extensions.get()), Some(context.clone()));
        assert_eq!(
            extensions.get(),
            format!(r#"{{"{EXTENSION}":{{"traceparent":"{PARENT}","tracestate":"acme=1,other=t\"2"}}}}"#)
        );
        let bare = TraceContext::parse(PARENT, None).unwrap();
        assert_eq!(bare.to_extensions().get(), format!(r#"{{"{EXTENSION}":{{"traceparent":"{PARENT}"}}}}"#));
    }

    #[test]
    fn a_child_keeps_the_trace_and_names_another_span() {
        let context = TraceContext::parse(PARENT, Some("a=b")).unwrap();
        let child = context.child([0xab; 8]).unwrap();
        assert_eq!(child.traceparent(), format!("00-{TRACE}-abababababababab-01"));
        assert_eq!((child.tracestate(), context.child([0; 8])), (Some("a=b"), None));
    }

    #[test]
    fn a_context_can_begin_from_a_trace_id() {
        let context = TraceContext::new(TRACE, [1; 8]).unwrap();
        assert_eq!(context.traceparent(), format!("00-{TRACE}-0101010101010101-00"));
        for (trace, span) in [("x", [1; 8]), (&*"0".repeat(32), [1; 8]), (TRACE, [0; 8]), (&TRACE[1..], [1; 8])] {
            assert_eq!(TraceContext::new(trace, span), None, "{trace}");
        }
    }

    #[test]
    fn a_later_version_is_read_and_answered_in_ours() {
        let later = PARENT.replacen("00", "cc", 1).replace("-01", "-ff") + "-what-comes";
        assert_eq!(TraceContext::parse(&later, None).unwrap().traceparent(), PARENT);
    }

    #[test]
    fn what_cannot_be_read_is_absent_and_never_an_error() {
        for extensions in [
            "{}".to_owned(),
            "{\"optional\":true}".to_owned(),
            format!("{{\"{EXTENSION}\":3}}"),
            format!("{{\"{EXTENSION}\":null}}"),
            format!("{{\"{EXTENSION}\":{{}}}}"),
            format!("{{\"{EXTENSION}\":{{\"traceparent\":7}}}}"),
            format!("{{\"{EXTENSION}\":{{\"traceparent\":\"{TRACE}\"}}}}"),
            format!("{{\"{EXTENSION}\":{{\"traceparent\":\"{PARENT}-x\"}}}}"),
            format!("{{\"{EXTENSION}\":{{\"traceparent\":\"{}\"}}}}", PARENT.to_uppercase()),
        ] {
            assert_eq!(from(&extensions), None, "{extensions}");
        }
    }

    #[test]
    fn a_foreign_state_is_kept_within_bounds_only() {
        let state = |state: &str| TraceContext::parse(PARENT, Some(state)).unwrap().tracestate().map(str::to_owned);
        assert_eq!(state(&"s".repeat(512)), Some("s".repeat(512)));
        for refused in ["", "a=\n", "a=é", &"s".repeat(513)] {
            assert_eq!(state(refused), None, "{refused}");
        }
        let odd = format!("{{\"{EXTENSION}\":{{\"traceparent\":\"{PARENT}\",\"tracestate\":[]}}}}");
        assert_eq!(from(&odd).unwrap().tracestate(), None);
        let shown = format!("{:?}", TraceContext::parse(PARENT, Some("pass=word")).unwrap());
        assert!(shown.contains(TRACE) && !shown.contains("word"), "{shown}");
    }
}
