//! Every message of the corpus, read by the side it is for.
#![allow(clippy::unwrap_used, clippy::panic)]

use arcp_proto::Error;
use arcp_proto::envelope::{Envelope, Head};
use arcp_proto::event::{EventPayload, ResultChunk};
use arcp_proto::json::Limits;
use arcp_proto::message::{ClientMessage, RuntimeMessage};
use serde_json::{Value, json};

const VALID: &str = include_str!("../../../tests/corpus/wire/envelopes-valid.json");
const INVALID: &str = include_str!("../../../tests/corpus/wire/envelopes-invalid.json");

fn cases(corpus: &str) -> Vec<Value> {
    let corpus: Value = serde_json::from_str(corpus).unwrap();
    corpus["cases"].as_array().unwrap().clone()
}

/// What one side makes of a frame.
#[derive(Debug)]
struct Seen {
    kind: String,
    /// The payload as it would be written again.
    payload: Value,
    trace_id: Option<String>,
}

/// The refusal, and the number the message uses up all the same.
type Refused = (Error, Option<u64>);

fn read(receiver: &str, frame: &[u8]) -> Result<Seen, Refused> {
    let head = Head::parse(frame, &Limits::default()).map_err(|refusal| (refusal.error, refusal.event_seq))?;
    let refused = |error| (error, head.event_seq);
    let (kind, payload) = if receiver == "runtime" {
        let message = ClientMessage::parse(&head).map_err(refused)?;
        (message.kind(), client_payload(&message))
    } else {
        let message = RuntimeMessage::parse(&head).map_err(refused)?;
        if message == RuntimeMessage::Event {
            let event = EventPayload::parse(head.payload.get()).map_err(refused)?;
            if event.kind == "result_chunk" {
                ResultChunk::read(event.body).map_err(refused)?;
            }
        }
        (message.kind(), runtime_payload(&message, &head))
    };
    Ok(Seen { kind: kind.unwrap_or("").into(), payload, trace_id: head.trace_id.as_deref().map(Into::into) })
}

fn client_payload(message: &ClientMessage) -> Value {
    match message {
        ClientMessage::Hello(m) => json!(m),
        ClientMessage::Ping(m) => json!(m),
        ClientMessage::Pong(m) => json!(m),
        ClientMessage::Ack(m) => json!(m),
        ClientMessage::ListJobs(m) => json!(m),
        ClientMessage::Close(m) => json!(m),
        ClientMessage::Bye(m) => json!(m),
        ClientMessage::Submit(m) => json!(m),
        ClientMessage::Cancel(m) => json!(m),
        ClientMessage::Subscribe(m) => json!(m),
        ClientMessage::Unsubscribe(m) => json!(m),
        ClientMessage::Ignored => Value::Null,
    }
}

fn runtime_payload(message: &RuntimeMessage, head: &Head<'_>) -> Value {
    match message {
        RuntimeMessage::Welcome(m) => json!(m),
        RuntimeMessage::Ping(m) => json!(m),
        RuntimeMessage::Pong(m) => json!(m),
        RuntimeMessage::Jobs(m) => json!(m),
        RuntimeMessage::Closed(m) => json!(m),
        RuntimeMessage::Bye(m) => json!(m),
        RuntimeMessage::Error(m) => json!(m),
        RuntimeMessage::Accepted(m) => json!(m),
        RuntimeMessage::Cancelled(m) => json!(m),
        RuntimeMessage::Event => serde_json::from_str(head.payload.get()).unwrap(),
        RuntimeMessage::Result(m) => json!(m),
        RuntimeMessage::JobError(m) => json!(m),
        RuntimeMessage::Subscribed(m) => json!(m),
        RuntimeMessage::Ignored => Value::Null,
    }
}

/// Whether `actual` has everything `expected` names; numbers compare as numbers, and `null` is absent.
fn includes(actual: &Value, expected: &Value) -> bool {
    match (actual, expected) {
        (Value::Object(actual), Value::Object(expected)) => {
            expected.iter().all(|(name, value)| includes(actual.get(name).unwrap_or(&Value::Null), value))
        }
        (Value::Array(actual), Value::Array(expected)) => {
            actual.len() == expected.len()
                && actual.iter().zip(expected).all(|(actual, expected)| includes(actual, expected))
        }
        (Value::Number(actual), Value::Number(expected)) => actual.as_f64() == expected.as_f64(),
        _ => actual == expected,
    }
}

#[test]
fn valid_messages_are_read_in_the_drafts_form() {
    let mut read_by = (0, 0);
    for case in cases(VALID) {
        let (id, expect, message) = (&case["id"], &case["expect"], &case["given"]["message"]);
        for receiver in case["given"]["receivers"].as_array().unwrap() {
            let seen = read(receiver.as_str().unwrap(), message.to_string().as_bytes())
                .unwrap_or_else(|error| panic!("{id}: {error:?}"));
            assert_eq!(seen.kind, expect["type"], "{id}");
            assert!(
                includes(&seen.payload, &expect["payload"]),
                "{id}: {} lacks part of {}",
                seen.payload,
                expect["payload"]
            );
            if let Some(trace_id) = expect.get("trace_id") {
                assert_eq!(seen.trace_id.as_deref(), trace_id.as_str(), "{id}");
            }
            if receiver == "runtime" { read_by.0 += 1 } else { read_by.1 += 1 }
        }
    }
    assert_eq!(read_by, (34, 62));
}

#[test]
fn valid_messages_survive_the_generic_envelope() {
    for case in cases(VALID) {
        let (id, message) = (&case["id"], &case["given"]["message"]);
        let envelope = Envelope::parse(&message.to_string()).unwrap();
        let again: Value = serde_json::from_str(&envelope.to_json()).unwrap();
        let mut expected = message.clone();
        if let Some(trace_id) = case["expect"].get("trace_id") {
            expected["trace_id"] = trace_id.clone();
        }
        assert!(includes(&again, &expected), "{id}: {again}");
    }
}

#[test]
fn invalid_messages_are_refused_with_their_code() {
    let (mut refused, mut left_to_machines) = (0, 0);
    for case in cases(INVALID) {
        let (id, expect, given) = (&case["id"], &case["expect"], &case["given"]);
        let seen = read(given["receiver"].as_str().unwrap(), given["message"].to_string().as_bytes());
        if case.get("needs").is_some() {
            assert!(seen.is_ok(), "{id} is no fault of the message, yet it was refused: {seen:?}");
            left_to_machines += 1;
            continue;
        }
        let Err((error, event_seq)) = seen else { panic!("{id} was read: {seen:?}") };
        assert_eq!(error.code.as_str(), expect["code"], "{id}: {}", error.message);
        assert_eq!(event_seq, expect["advances_to"].as_u64(), "{id}");
        assert!(!error.message.is_empty() && error.message.len() < 300, "{id}: {}", error.message);
        refused += 1;
    }
    assert_eq!((refused, left_to_machines), (81, 20));
}

#[test]
fn messages_to_nobody() {
    let frame = |kind: &str, optional: bool| {
        json!({"arcp": "1.1", "id": "m", "type": kind, "payload": {}, "extensions": {"optional": optional}}).to_string()
    };
    // R-5.16 and R-5.15: a runtime ignores only what it may.
    assert_eq!(read("runtime", frame("x-vendor.acme.hint", true).as_bytes()).unwrap().kind, "");
    for (kind, optional, says) in [
        ("x-vendor.acme.hint", false, "extensions.optional"),
        ("session.pause", true, "not part of the protocol"),
        ("session.open", true, "another protocol"),
        ("session.welcome", true, "runtimes only"),
        ("tool.invoke", true, "not part of the protocol"),
    ] {
        let (error, _) = read("runtime", frame(kind, optional).as_bytes()).unwrap_err();
        assert!(error.code.as_str() == "INVALID_REQUEST" && error.message.contains(says), "{kind}: {}", error.message);
    }
    // R-5.17 and R-5.18: a client ignores them all.
    for kind in ["session.news", "session.hello", "job.submit", "x-vendor.acme.hint", "tool.invoke"] {
        assert_eq!(read("client", frame(kind, false).as_bytes()).unwrap().kind, "");
    }
}

#[test]
fn spellings_of_published_peers_are_read() {
    for (kind, payload, expected) in [
        (
            "job.accepted",
            json!({"lease": {}, "budget": {"USD": "5.00", "EUR": "EUR:007.50", "GBP": -1.5}}),
            json!({"budget": {"USD": 5.0, "EUR": 7.5, "GBP": -1.5}}),
        ),
        (
            "job.accepted",
            json!({"lease": {}, "credentials": [
                {"id": "c", "scheme": "bearer", "value": "v", "endpoint": "https://e/",
                 "constraints": {"allowed_models": ["m/*"], "max_spend": {"currency": "USD", "amount": 2.50}, "expires_at": "2099-01-01T00:00:00Z"}},
                {"id": "d", "scheme": "signed_url"}]}),
            json!({"credentials": [{"id": "c", "value": "v", "constraints": {"model.use": ["m/*"], "cost.budget": ["USD:2.5"], "expires_at": "2099-01-01T00:00:00Z"}}]}),
        ),
        (
            "job.subscribed",
            json!({"current_status": "running", "agent": "a", "subscribed_from": 0, "replayed": 3}),
            json!({"replayed": true, "lease": {}}),
        ),
        (
            "job.subscribed",
            json!({"current_status": "running", "agent": "a", "subscribed_from": 0, "replayed": 0}),
            json!({"replayed": false}),
        ),
        (
            "session.jobs",
            json!({"request_id": "r", "jobs": [{"job_id": "j", "agent": "a", "status": "pending", "submitted_at": "2026-05-13T19:30:00.123456+00:00"}]}),
            json!({"jobs": [{"created_at": "2026-05-13T19:30:00.123Z", "submitted_at": "2026-05-13T19:30:00.123Z", "lease": {}, "last_event_seq": 0}]}),
        ),
        (
            "job.error",
            json!({"final_status": "error", "code": "LEASE_EXPIRED", "message": "m", "retryable": true}),
            json!({"retryable": false}),
        ),
        (
            "job.error",
            json!({"final_status": "error", "code": "INTERNAL", "message": "", "retryable": false}),
            json!({"code": "INTERNAL_ERROR", "message": "INTERNAL_ERROR", "retryable": true}),
        ),
        (
            "session.error",
            json!({"code": "ACME_QUOTA", "message": "m", "retryable": true}),
            json!({"code": "ACME_QUOTA", "retryable": true}),
        ),
        ("job.result", json!({"final_status": "timed_out"}), json!({"final_status": "timed_out"})),
    ] {
        let frame = json!({"arcp": "1.1", "id": "m", "type": kind, "job_id": "j", "event_seq": 1, "payload": payload})
            .to_string();
        let seen = read("client", frame.as_bytes()).unwrap_or_else(|error| panic!("{payload}: {error:?}"));
        assert!(includes(&seen.payload, &expected), "{} lacks part of {expected}", seen.payload);
    }
}

#[test]
fn two_different_ids_are_refused() {
    for (receiver, kind, envelope, payload) in [
        ("client", "session.welcome", json!({"session_id": "s1"}), json!({"session_id": "s2"})),
        ("client", "job.accepted", json!({"job_id": "j1"}), json!({"job_id": "j2", "lease": {}})),
        ("runtime", "job.subscribe", json!({"job_id": "j1"}), json!({"job_id": "j2"})),
        ("runtime", "session.resume", json!({"session_id": "s1"}), json!({"session_id": "s2"})),
    ] {
        let mut message = json!({"arcp": "1.1", "id": "m", "type": kind, "payload": payload});
        message.as_object_mut().unwrap().extend(envelope.as_object().unwrap().clone());
        let (error, _) = read(receiver, message.to_string().as_bytes()).unwrap_err();
        assert!(error.message.contains("differ"), "{kind}: {}", error.message);
    }
}

#[test]
fn duplicate_members_and_half_surrogates() {
    let last = br#"{"arcp":"2.0","id":1,"type":"session.ack","payload":{"last_processed_seq":1,"last_processed_seq":9007199254740993},"id":"m","arcp":"1.1"}"#;
    assert_eq!(read("runtime", last).unwrap().payload, json!({"last_processed_seq": 9_007_199_254_740_993_u64}));
    let lone = br#"{"arcp":"1.1","id":"m","type":"job.submit","payload":{"agent":"a","input":{"x":["\ud800"]}}}"#;
    assert!(read("runtime", lone).unwrap_err().0.message.contains("surrogate"));
    let too_large =
        br#"{"arcp":"1.1","id":"m","type":"session.ack","payload":{"last_processed_seq":9223372036854775808}}"#;
    assert!(read("runtime", too_large).unwrap_err().0.message.contains("a number too large"));
}

#[test]
fn no_error_shows_a_secret() {
    for payload in [
        json!({"client": {"name": "c", "version": "1"}, "auth": {"scheme": "basic", "token": "hush"}}),
        json!({"client": {"name": "c", "version": "1"}, "auth": {"scheme": "bearer", "token": ["hush"]}}),
        json!({"client": {"name": "c", "version": "1"}, "auth": "hush"}),
        json!({"client": "hush", "auth": {"scheme": "bearer", "token": "hush"}}),
        json!({"client": {"name": "c", "version": "1"}, "auth": {"scheme": "bearer", "token": "hush"}, "resume": {"resume_token": {"hush": 1}, "session_id": "s", "last_event_seq": 0}}),
    ] {
        let frame = json!({"arcp": "1.1", "id": "m", "type": "session.hello", "payload": payload}).to_string();
        let (error, _) = read("runtime", frame.as_bytes()).unwrap_err();
        assert!(!error.message.contains("hush"), "{}", error.message);
    }
}
