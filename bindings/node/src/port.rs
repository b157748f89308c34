//! One JavaScript queue: completions, invocations and logs, drained in batches as one JSON text each.

use std::fmt::Write as _;

use arcp_bridge::{ErrorInfo, Item, LogLevel, Port, Value, Wake};
use napi::Status;
use napi::bindgen_prelude::{Buffer, Either7, Function, Unknown};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi_derive::napi;

use crate::core::core;
use crate::error::{thrown, to_json};
use crate::job::NativeJob;
use crate::runtime::{NativeInvocation, NativeTokenRequest, NativeVerifyRequest};
use crate::transport::{NativeListener, NativeTransport};

/// Weak: it never keeps Node alive by itself.
type WakeFunction = ThreadsafeFunction<(), Unknown<'static>, (), Status, false, true>;

struct WakeJavaScript(WakeFunction);

impl Wake for WakeJavaScript {
    fn wake(&self) {
        // It fails only while Node is ending, when nobody is left to wake.
        self.0.call((), ThreadsafeFunctionCallMode::NonBlocking);
    }
}

/// What an item carries besides text.
type Carried = Either7<
    NativeJob,
    NativeTransport,
    NativeListener,
    NativeInvocation,
    NativeVerifyRequest,
    NativeTokenRequest,
    Buffer,
>;

/// A batch of items.
#[napi(object, object_from_js = false)]
pub struct Drained {
    /// JSON: a list of items, each with a `type`.
    pub text: String,
    /// Whether `text` may hold integers that a JavaScript number cannot.
    pub wide: bool,
    /// What items point at with `object`.
    pub objects: Vec<Carried>,
    /// Whether more wait. Until it is false no wake-up comes.
    pub more: bool,
}

/// A queue with its wake-up.
#[napi]
pub struct NativePort {
    pub(crate) port: Port,
}

#[napi]
impl NativePort {
    /// `wake` is called once whenever the queue has become non-empty.
    #[napi(constructor)]
    pub fn new(wake: Function<'_, (), Unknown<'static>>) -> napi::Result<Self> {
        let wake = wake.build_threadsafe_function::<()>().weak::<true>().build()?;
        Ok(NativePort { port: Port::new(WakeJavaScript(wake)) })
    }

    /// Takes up to `max` items.
    #[napi]
    pub fn drain(&self, max: u32) -> Drained {
        let mut items = Vec::new();
        let more = self.port.drain(max as usize, &mut items);
        let mut batch = Batch::default();
        for item in items {
            batch.add(item);
        }
        let text = batch.text + if batch.started { "]" } else { "[]" };
        Drained { wide: is_wide(&text), text, objects: batch.objects, more }
    }

    /// Drops the work of a call; it completes no more.
    #[napi]
    pub fn cancel_call(&self, call: i64) {
        self.port.cancel_call(number(call));
    }

    /// Takes nothing more and drops what waits.
    #[napi]
    pub fn close(&self) {
        self.port.close();
    }

    /// Sends the core's logs from `level` (5, 10, 20, 30, 40) on here; the last port to ask gets them.
    #[napi]
    pub fn log_from(&self, level: u32) -> napi::Result<()> {
        let level = match level {
            0..=5 => LogLevel::Trace,
            6..=10 => LogLevel::Debug,
            11..=20 => LogLevel::Info,
            21..=30 => LogLevel::Warn,
            _ => LogLevel::Error,
        };
        thrown(core())?.log_to(&self.port, level);
        Ok(())
    }
}

/// JavaScript numbers calls and streams from 1 on.
pub(crate) fn number(number: i64) -> u64 {
    number.unsigned_abs()
}

/// Items joined to one text. Member names are written out: they are ours, and so are the JSON texts between them.
#[derive(Default)]
struct Batch {
    text: String,
    objects: Vec<Carried>,
    started: bool,
}

impl Batch {
    fn add(&mut self, item: Item) {
        // Nothing can be plugged into a runtime here; dropped, the safe side is taken.
        if let Item::Ask(_) = item {
            return;
        }
        self.text.push(if self.started { ',' } else { '[' });
        self.started = true;
        match item {
            Item::Completed { call, outcome } => self.completed(call, outcome),
            Item::Ready { stream } => self.write(format_args!(r#"{{"type":"ready","stream":{stream}}}"#)),
            Item::Invoke(invocation) => {
                self.write(format_args!(r#"{{"type":"invoke","invocation":{},"start":"#, invocation.id()));
                self.text.push_str(&NativeInvocation::start(&invocation));
                self.text.push_str(r#","input":"#);
                self.text.push_str(invocation.input());
                self.carry(Either7::D(NativeInvocation { invocation }));
            }
            Item::Cancel { invocation, cause, reason } => self.write(format_args!(
                r#"{{"type":"cancel","invocation":{invocation},"cause":"{cause}","reason":{}}}"#,
                quoted(&reason)
            )),
            Item::Abandoned { invocation } => {
                self.write(format_args!(r#"{{"type":"abandoned","invocation":{invocation}}}"#));
            }
            Item::Verify(request) => {
                self.write(format_args!(r#"{{"type":"verify","token":{}"#, quoted(request.token())));
                self.carry(Either7::E(NativeVerifyRequest::new(request)));
            }
            Item::Ask(_) => {}
            Item::Token(request) => {
                self.write(format_args!(r#"{{"type":"token""#));
                self.carry(Either7::F(NativeTokenRequest::new(request)));
            }
            Item::Log(record) => self.write(format_args!(
                r#"{{"type":"log","level":{},"target":{},"message":{}}}"#,
                record.level as u8,
                quoted(record.target),
                quoted(&record.message)
            )),
        }
    }

    fn completed(&mut self, call: u64, outcome: Result<Value, ErrorInfo>) {
        self.write(format_args!(r#"{{"type":"completed","call":{call}"#));
        match outcome {
            Err(error) => self.write(format_args!(r#","error":{}}}"#, to_json(&error))),
            Ok(Value::Nothing) => self.text.push('}'),
            // Out of band: bytes in JSON would be base64.
            Ok(Value::Bytes(bytes)) => self.carry(Either7::G(Vec::from(bytes).into())),
            Ok(Value::Json(text)) => self.write(format_args!(r#","value":{text}}}"#)),
            Ok(Value::Job(job)) => {
                self.write(format_args!(r#","value":{}"#, job.opening()));
                self.carry(Either7::A(NativeJob::new(job)));
            }
            Ok(Value::Transport(transport)) => self.carry(Either7::B(NativeTransport { transport })),
            Ok(Value::Listener(listener)) => {
                self.write(format_args!(
                    r#","value":{{"url":{},"host":"{}","port":{}}}"#,
                    quoted(listener.url()),
                    listener.address().ip(),
                    listener.address().port()
                ));
                self.carry(Either7::C(NativeListener { listener }));
            }
            Ok(Value::Frames(frames)) => {
                // Messages are JSON texts already.
                self.write(format_args!(r#","value":[{}]}}"#, frames.join(",")));
            }
        }
    }

    /// Ends the item with a pointer to its object.
    fn carry(&mut self, object: Carried) {
        self.write(format_args!(r#","object":{}}}"#, self.objects.len()));
        self.objects.push(object);
    }

    fn write(&mut self, piece: std::fmt::Arguments<'_>) {
        // Writing to a String does not fail.
        let _ = self.text.write_fmt(piece);
    }
}

/// Digits of the smallest integer beyond 2^53.
const WIDE: usize = 16;

/// Whether JSON text may hold integers beyond 2^53 (D-28): whether there are that many digits in a row. A run of them
/// covers a multiple of its length, so only those places are looked at.
pub(crate) fn is_wide(text: &str) -> bool {
    let bytes = text.as_bytes();
    (0..bytes.len()).step_by(WIDE).any(|at| {
        let (before, after) = bytes.split_at(at);
        let run = after.iter().take_while(|byte| byte.is_ascii_digit()).count();
        run > 0 && run + before.iter().rev().take_while(|byte| byte.is_ascii_digit()).count() >= WIDE
    })
}

/// `text` as a JSON string.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
