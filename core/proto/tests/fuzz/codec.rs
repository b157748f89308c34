//! Bytes and messages: nothing received panics, and what is read can be written and read again.

use std::fmt::Debug;
use std::sync::LazyLock;

use arcp_proto::agent_ref::AgentRef;
use arcp_proto::envelope::{Envelope, Head, Header, write_message};
use arcp_proto::event::{EventBody, EventPayload, ResultChunk, check_emitted, result_chunk, write_event_payload};
use arcp_proto::json::{Limits, RawJson, canonical, check};
use arcp_proto::message::{ClientMessage, Payload, Receiver, RuntimeMessage, check_message};
use arcp_proto::time::Timestamp;
use arcp_proto::trace::TraceContext;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::Value;

use crate::runner::run;

const VALID: &str = include_str!("../../../../tests/corpus/wire/envelopes-valid.json");
const INVALID: &str = include_str!("../../../../tests/corpus/wire/envelopes-invalid.json");
const TRANSCRIPTS: &str = include_str!("../../../../tests/corpus/wire/transcripts.json");

/// Every message of the corpus as text, the invalid ones too.
pub(crate) static FRAMES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut frames = Vec::new();
    for file in [VALID, INVALID, TRANSCRIPTS] {
        collect(&serde_json::from_str(file).unwrap(), &mut frames);
    }
    assert!(frames.len() > 150, "the corpus has moved");
    frames
});

fn collect(value: &Value, frames: &mut Vec<String>) {
    match value {
        Value::Object(members) if members.contains_key("arcp") && members.contains_key("payload") => {
            frames.push(value.to_string());
        }
        Value::Object(members) => members.values().for_each(|value| collect(value, frames)),
        Value::Array(items) => items.iter().for_each(|value| collect(value, frames)),
        _ => {}
    }
}

/// JSON text, and what is nearly JSON: escapes of every kind, half surrogates, deep, wide and long.
pub(crate) fn tree() -> BoxedStrategy<String> {
    let escape = prop_oneof![
        Just("\\ud83d\\ude00".to_owned()),
        Just("\\ud800".to_owned()),
        Just("\\udc00x".to_owned()),
        Just("\\u0000".to_owned()),
        Just("\\\"".to_owned()),
        Just("\\\\".to_owned()),
        "[a-zé😀 ]{0,8}",
        "\\\\u[0-9a-fA-F]{3,4}",
        "[a-z]{1,3}".prop_map(|text| text.repeat(2000)),
    ];
    let text = vec(escape, 0..4).prop_map(|parts| format!("\"{}\"", parts.concat()));
    let scalar = prop_oneof![
        4 => text.clone(),
        2 => "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,4})?",
        1 => prop_oneof![Just("null"), Just("true"), Just("false"), Just("-"), Just("nan"), Just("")].prop_map(str::to_owned),
    ];
    let tree = scalar.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(|items| format!("[{}]", items.join(", "))),
            vec((text.clone(), inner.clone()), 0..5).prop_map(|members| {
                let members: Vec<String> = members.into_iter().map(|(name, value)| format!("{name}:{value}")).collect();
                format!("{{{}}}", members.join(",\n"))
            }),
            (1..100_usize, inner)
                .prop_map(|(depth, value)| { format!("{}{value}{}", "[".repeat(depth), "]".repeat(depth)) }),
        ]
    });
    tree.boxed()
}

/// What happens to bytes on the way: `how` and `byte` at a place.
pub(crate) type Damage = Vec<(Index, u8, u8)>;

pub(crate) fn damage() -> impl Strategy<Value = Damage> {
    vec((any::<Index>(), any::<u8>(), 0..7_u8), 0..5)
}

pub(crate) fn damaged(text: &str, damage: &Damage) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for (at, byte, how) in damage {
        if bytes.is_empty() {
            break;
        }
        let at = at.index(bytes.len());
        match how {
            0 => bytes[at] = *byte,
            1 => bytes[at] ^= 1 << (byte % 8),
            2 => bytes.insert(at, b"{}[]\",:\\u0-1"[usize::from(byte % 12)]),
            3 => drop(bytes.remove(at)),
            4 => bytes.truncate(at),
            5 => {
                let end = bytes.len().min(at + usize::from(*byte));
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            _ => drop(bytes.drain(at..(at + usize::from(byte % 16)).min(bytes.len()))),
        }
    }
    bytes
}

#[test]
fn no_bytes_panic_and_what_is_read_can_be_said_again() {
    let bytes =
        prop_oneof![vec(any::<u8>(), 0..300), vec(0x20_u8..0x7f, 0..300), any::<String>().prop_map(String::into_bytes)];
    run("codec_bytes", bytes, |bytes| every_way(&bytes));
}

#[test]
fn damaged_messages_are_read_or_refused() {
    // Most damage leaves no JSON; a changed member does.
    let change = (any::<Index>(), tree());
    run("codec_frames", (any::<Index>(), damage(), proptest::option::of(change)), |(which, damage, change)| {
        let mut frame = which.get(&FRAMES[..]).clone();
        if let Some((place, value)) = change {
            let starts: Vec<usize> = frame.match_indices("\":").map(|(at, mark)| at + mark.len()).collect();
            let start = *place.get(&starts);
            let mut values =
                serde_json::Deserializer::from_str(&frame[start..]).into_iter::<&serde_json::value::RawValue>();
            if let Some(Ok(old)) = values.next() {
                let end = start + old.get().len();
                frame.replace_range(start..end, &value);
            }
        }
        every_way(&damaged(&frame, &damage))
    });
}

#[test]
fn trees_are_read_as_another_parser_reads_them() {
    run("codec_trees", (tree(), damage()), |(text, damage)| {
        trees(&text)?;
        every_way(&damaged(&text, &damage))
    });
}

fn trees(text: &str) -> Result<(), String> {
    let ours = RawJson::parse(text);
    // A message puts up to four levels around a value.
    let passes = check(text.as_bytes(), &Limits { max_depth: 60, ..Limits::default() }).is_ok();
    let theirs = serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok();
    if ours.is_ok() != (passes && theirs) {
        return Err(format!("read: {}, checked: {passes}, JSON: {theirs}", ours.is_ok()));
    }
    let Ok(ours) = ours else { return Ok(()) };
    if ours.get().contains(['\n', '\r']) || RawJson::parse(ours.get()).as_ref() != Ok(&ours) {
        return Err(format!("kept as {}", ours.get()));
    }
    if let Ok(first) = canonical(ours.get()) {
        let again = canonical(std::str::from_utf8(&first).map_err(|error| error.to_string())?);
        if again.as_ref() != Ok(&first) || canonical(text).as_ref() != Ok(&first) {
            return Err(format!("canonical is {}, then {again:?}", String::from_utf8_lossy(&first)));
        }
    }
    Ok(())
}

/// Reads bytes in every way there is, and what is understood also as it would be said.
fn every_way(bytes: &[u8]) -> Result<(), String> {
    let limits = Limits::default();
    for limits in [limits, Limits { max_bytes: 100, max_depth: 3, max_members: 8, max_string: 20 }] {
        if let (Ok(text), Ok(head)) = (check(bytes, &limits), Head::parse(bytes, &limits))
            && serde_json::from_str::<Value>(text)
                .is_err_and(|error| !error.to_string().contains("number out of range"))
        {
            return Err(format!("{} is no JSON and is read as {head:?}", String::from_utf8_lossy(bytes)));
        }
    }
    if let Ok(head) = Head::parse(bytes, &limits) {
        client_message(&head)?;
        runtime_message(&head)?;
        if let Ok(event) = EventPayload::parse(head.payload.get()) {
            event_payload(&event)?;
        }
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return Ok(()) };
    let _ = (check_message(text, Receiver::Client), check_message(text, Receiver::Runtime));
    if let Ok(envelope) = Envelope::parse(text) {
        let said = envelope.to_json();
        same("envelope", &Envelope::parse(&said).map(|again| again.to_json()).ok(), &Some(said))?;
    }
    if let Some(time) = Timestamp::parse(text) {
        same("time", &Timestamp::parse(&time.to_string()), &Some(time))?;
    }
    if let Ok(agent) = AgentRef::parse(text) {
        same("agent", &AgentRef::parse(&agent.to_string()), &Ok(agent))?;
    }
    if let Some(trace) = TraceContext::parse(text, Some(text)) {
        same("trace", &TraceContext::parse(&trace.traceparent(), trace.tracestate()), &Some(trace))?;
    }
    Ok(())
}

fn same<T: PartialEq + Debug>(what: &str, again: &T, first: &T) -> Result<(), String> {
    if again == first { Ok(()) } else { Err(format!("{what}: {first:?}\ncomes back as {again:?}")) }
}

fn event_payload(event: &EventPayload<'_>) -> Result<(), String> {
    let _ = (EventBody::read(&event.kind, event.body), check_emitted(&event.kind, &RawJson::from_raw(event.body)));
    let Some(at) = event.time() else { return Err("an event's time is none".into()) };
    let mut payload = Vec::new();
    write_event_payload(&mut payload, &event.kind, at, event.body.get().as_bytes());
    let payload = String::from_utf8(payload).map_err(|error| error.to_string())?;
    let again = EventPayload::parse(&payload).map_err(|error| error.message)?;
    same("event", &(&again.kind, again.time(), again.body.get()), &(&event.kind, Some(at), event.body.get()))?;
    if let Ok(chunk) = ResultChunk::read(event.body) {
        let body = result_chunk(&chunk.result_id, chunk.chunk_seq, &chunk.data, chunk.more);
        let body = body.map_err(|error| error.message)?;
        same("chunk", &ResultChunk::read(body.as_raw()), &Ok(chunk))?;
    }
    Ok(())
}

/// Writes a payload under the same header and hands it to `read`.
fn said_again<P: Payload, T>(head: &Head<'_>, payload: &P, read: impl Fn(&Head<'_>) -> T) -> Result<T, String> {
    let header = Header {
        kind: P::KIND,
        id: &head.id,
        session_id: head.session_id.as_deref(),
        job_id: head.job_id.as_deref(),
        trace_id: head.trace_id.as_deref(),
        event_seq: head.event_seq,
        ..Header::default()
    };
    let mut frame = Vec::new();
    write_message(&mut frame, &header, payload).map_err(|error| error.message)?;
    let head = Head::parse(&frame, &Limits::default())
        .map_err(|refusal| format!("{} is refused: {refusal:?}", String::from_utf8_lossy(&frame)))?;
    Ok(read(&head))
}

fn client_message(head: &Head<'_>) -> Result<(), String> {
    let Ok(message) = ClientMessage::parse(head) else { return Ok(()) };
    let read = |head: &Head<'_>| ClientMessage::parse(head);
    let again = match &message {
        // We write neither the empty list of one published client nor a session.resume, which may lack the client.
        ClientMessage::Hello(hello) if hello.empty_agents_list || hello.client.is_none() => return Ok(()),
        ClientMessage::Hello(hello) => said_again(head, hello, read),
        ClientMessage::Ping(ping) => said_again(head, ping, read),
        ClientMessage::Pong(pong) => said_again(head, pong, read),
        ClientMessage::Ack(ack) => said_again(head, ack, read),
        ClientMessage::ListJobs(list) => said_again(head, list, read),
        ClientMessage::Close(close) => said_again(head, close, read),
        ClientMessage::Bye(bye) => said_again(head, bye, read),
        ClientMessage::Submit(submit) => said_again(head, submit, read),
        ClientMessage::Cancel(cancel) => said_again(head, cancel, read),
        ClientMessage::Subscribe(subscribe) => said_again(head, subscribe, read),
        ClientMessage::Unsubscribe(unsubscribe) => said_again(head, unsubscribe, read),
        ClientMessage::Ignored => return Ok(()),
    }?;
    same("message", &again, &Ok(message))
}

fn runtime_message(head: &Head<'_>) -> Result<(), String> {
    let Ok(message) = RuntimeMessage::parse(head) else { return Ok(()) };
    let read = |head: &Head<'_>| RuntimeMessage::parse(head);
    let again = match &message {
        RuntimeMessage::Welcome(welcome) => said_again(head, welcome, read),
        RuntimeMessage::Ping(ping) => said_again(head, ping, read),
        RuntimeMessage::Pong(pong) => said_again(head, pong, read),
        RuntimeMessage::Jobs(jobs) => said_again(head, jobs, read),
        RuntimeMessage::Closed(closed) => said_again(head, closed, read),
        RuntimeMessage::Bye(bye) => said_again(head, bye, read),
        RuntimeMessage::Error(error) => said_again(head, error, read),
        RuntimeMessage::Accepted(accepted) => said_again(head, accepted, read),
        RuntimeMessage::Cancelled(cancelled) => said_again(head, cancelled, read),
        RuntimeMessage::Result(result) => said_again(head, result, read),
        RuntimeMessage::JobError(error) => said_again(head, error, read),
        RuntimeMessage::Subscribed(subscribed) => said_again(head, subscribed, read),
        RuntimeMessage::Event | RuntimeMessage::Ignored => return Ok(()),
    }?;
    same("message", &again, &Ok(message))
}
