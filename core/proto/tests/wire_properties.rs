//! What holds for all messages: they survive the wire, and nothing received can panic.
#![allow(clippy::unwrap_used, clippy::panic)]

use arcp_proto::envelope::{Envelope, Head, Header, write_frame, write_message};
use arcp_proto::event::{EventBody, EventPayload, ResultChunk, check_emitted, result_chunk, write_event_payload};
use arcp_proto::id::{Entropy, IdGenerator, Ulid};
use arcp_proto::json::{Limits, RawJson, canonical};
use arcp_proto::message::*;
use arcp_proto::time::Timestamp;
use arcp_proto::{Error, ErrorCode};
use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;
use serde_json::Value;

fn text() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "[a-z\"\\\\\n\t/é😀]{0,12}"]
}

fn non_empty() -> impl Strategy<Value = String> {
    text().prop_map(|text| if text.is_empty() { "x".into() } else { text })
}

fn id() -> impl Strategy<Value = String> {
    "[ -~é😀]{1,128}"
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text().prop_map(Value::from)
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map(text(), inner, 0..4).prop_map(|members| Value::Object(members.into_iter().collect()))
        ]
    })
}

fn raw() -> impl Strategy<Value = RawJson> {
    value().prop_map(|value| RawJson::from_serialize(&value).unwrap())
}

fn object() -> impl Strategy<Value = RawJson> {
    btree_map(text(), value(), 0..4).prop_map(|members| RawJson::from_serialize(&members).unwrap())
}

fn lease() -> impl Strategy<Value = RawJson> {
    btree_map(text(), vec(text(), 0..3), 0..3).prop_map(|lease| RawJson::from_serialize(&lease).unwrap())
}

fn amounts() -> impl Strategy<Value = RawJson> {
    btree_map("[A-Z]{3}", any::<f64>(), 0..3).prop_map(|budget| RawJson::from_serialize(&budget).unwrap())
}

fn time() -> impl Strategy<Value = Timestamp> {
    (Timestamp::MIN.0..=Timestamp::MAX.0).prop_map(Timestamp)
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..1000_u64, 0..=i64::MAX as u64, Just(i64::MAX as u64)]
}

fn constraints() -> impl Strategy<Value = LeaseConstraints> {
    of(time()).prop_map(|at| LeaseConstraints { expires_at: at.map(|at| at.to_string()) })
}

fn status() -> impl Strategy<Value = JobStatus> {
    use JobStatus::*;
    proptest::sample::select(vec![Pending, Running, Success, Error, Cancelled, TimedOut])
}

fn error() -> impl Strategy<Value = Error> {
    (proptest::sample::select(ErrorCode::ALL), "[A-Z_]{20}", any::<bool>(), non_empty(), any::<bool>(), of(object()))
        .prop_map(|(known, foreign, is_known, message, retryable, details)| {
            let code = if is_known { known } else { ErrorCode::parse(&foreign) };
            let retryable = code.pinned_retryable().unwrap_or(retryable);
            Error { code, message, retryable, details }
        })
}

fn peer() -> impl Strategy<Value = PeerInfo> {
    (non_empty(), non_empty()).prop_map(|(name, version)| PeerInfo { name, version })
}

/// Writes `payload` as a message and hands its head to `read`.
fn through<P: Payload, T>(payload: &P, job_id: Option<&str>, read: impl Fn(&Head<'_>) -> T) -> T {
    let event_seq = kind::is_numbered(P::KIND).then_some(1);
    let header = Header { kind: P::KIND, id: "msg_1", session_id: None, job_id, event_seq, ..Header::default() };
    let mut frame = Vec::new();
    write_message(&mut frame, &header, payload).unwrap();
    let head = Head::parse(&frame, &Limits::default()).unwrap_or_else(|refusal| panic!("{refusal:?}"));
    assert_eq!(head.kind, P::KIND);
    read(&head)
}

fn client<P: Payload>(payload: &P) -> ClientMessage {
    through(payload, None, |head| {
        ClientMessage::parse(head).unwrap_or_else(|error| panic!("{error}: {}", head.payload))
    })
}

fn runtime<P: Payload>(payload: &P) -> RuntimeMessage {
    through(payload, Some("j"), |head| {
        RuntimeMessage::parse(head).unwrap_or_else(|error| panic!("{error}: {}", head.payload))
    })
}

proptest! {
    #[test]
    fn session_messages_of_a_client_survive(
        client_info in peer(), token in non_empty(), features in vec(text(), 0..4), resume in of((id(), non_empty(), number())),
        nonce in id(), at in of(time()), seq in number(), reason in of(text()), code in of(text()), cursor in of(text()),
        filter in of((of(vec(text(), 0..3)), of(text()), of(time()), of(time()))), limit in of(1..=i64::MAX as u64),
    ) {
        let hello = Hello {
            client: Some(client_info),
            auth: Auth { scheme: "bearer".into(), token },
            capabilities: ClientCapabilities { encodings: vec!["cbor".into(), "json".into()], features },
            resume: resume.map(|(session_id, resume_token, last_event_seq)| Resume { session_id, resume_token, last_event_seq }),
            empty_agents_list: false,
        };
        prop_assert_eq!(client(&hello), ClientMessage::Hello(hello));
        let ping = Ping { nonce: nonce.clone(), sent_at: at };
        prop_assert_eq!(client(&ping), ClientMessage::Ping(ping.clone()));
        prop_assert_eq!(runtime(&ping), RuntimeMessage::Ping(ping));
        let pong = Pong { ping_nonce: nonce, received_at: at };
        prop_assert_eq!(client(&pong), ClientMessage::Pong(pong.clone()));
        prop_assert_eq!(runtime(&pong), RuntimeMessage::Pong(pong));
        let ack = Ack { last_processed_seq: seq };
        prop_assert_eq!(client(&ack), ClientMessage::Ack(ack));
        let filter = filter.map(|(status, agent, created_after, created_before)| JobFilter { status, agent, created_after, created_before });
        let list = ListJobs { filter, limit, cursor };
        prop_assert_eq!(client(&list), ClientMessage::ListJobs(list));
        let close = Close { reason: reason.clone() };
        prop_assert_eq!(client(&close), ClientMessage::Close(close));
        let bye = Bye { reason: reason.unwrap_or_default(), code };
        prop_assert_eq!(client(&bye), ClientMessage::Bye(bye.clone()));
        prop_assert_eq!(runtime(&bye), RuntimeMessage::Bye(bye));
    }

    #[test]
    fn job_messages_of_a_client_survive(
        agent in non_empty(), input in raw(), lease_request in lease(), lease_constraints in of(constraints()), key in of("[ -~]{1,256}"),
        max_runtime_sec in of(1..=i64::MAX as u64), parent_job_id in of(id()), delegate_id in of(id()),
        job_id in id(), reason in of(text()), code in of(text()), from_event_seq in of(number()), history in any::<bool>(),
    ) {
        let submit = Submit { agent, input, lease_request, lease_constraints, idempotency_key: key, max_runtime_sec, parent_job_id, delegate_id };
        prop_assert_eq!(client(&submit), ClientMessage::Submit(submit));
        let cancel = Cancel { reason, job_id: job_id.clone(), code };
        prop_assert_eq!(client(&cancel), ClientMessage::Cancel(cancel));
        let subscribe = Subscribe { job_id: job_id.clone(), from_event_seq, history };
        prop_assert_eq!(client(&subscribe), ClientMessage::Subscribe(subscribe));
        let unsubscribe = Unsubscribe { job_id };
        prop_assert_eq!(client(&unsubscribe), ClientMessage::Unsubscribe(unsubscribe));
    }

    #[test]
    fn session_messages_of_a_runtime_survive(
        session_id in id(), runtime_info in peer(), resume_token in non_empty(), window in number(), interval in of(1..=i64::MAX as u64),
        features in vec(text(), 0..4), agents in vec((non_empty(), vec(text(), 0..3), of(text())), 0..3), at in of(time()),
        request_id in of(text()), reason in of(text()), error in error(),
        entries in vec((id(), non_empty(), status(), lease(), of(object()), of(amounts()), of(text()), time(), time(), number()), 0..3),
    ) {
        let agents = agents.into_iter().map(|(name, versions, default)| AgentEntry { name, versions, default }).collect();
        let welcome = Welcome {
            session_id,
            runtime: runtime_info,
            resume_token,
            resume_window_sec: window,
            heartbeat_interval_sec: interval,
            capabilities: RuntimeCapabilities { encodings: vec!["json".into()], features, agents },
            accepted_at: at,
        };
        prop_assert_eq!(runtime(&welcome), RuntimeMessage::Welcome(welcome));
        let entry = |(job_id, agent, status, lease, lease_constraints, budget, parent_job_id, created_at, submitted_at, last_event_seq)| JobEntry {
            job_id, agent, status, lease, lease_constraints, budget, parent_job_id, created_at, submitted_at, trace_id: None, last_event_seq,
        };
        let jobs = Jobs { request_id: "r".into(), jobs: entries.into_iter().map(entry).collect(), next_cursor: reason.clone() };
        prop_assert_eq!(runtime(&jobs), RuntimeMessage::Jobs(jobs));
        let closed = Closed { reason, request_id: request_id.clone() };
        prop_assert_eq!(runtime(&closed), RuntimeMessage::Closed(closed));
        let error = SessionError { error, request_id };
        prop_assert_eq!(runtime(&error), RuntimeMessage::Error(error));
    }

    #[test]
    fn job_messages_of_a_runtime_survive(
        agent in non_empty(), lease in lease(), lease_constraints in of(constraints()), budget in of(amounts()), at in of(time()),
        request_id in of(text()), max_runtime_sec in of(1..=i64::MAX as u64), reason in of(text()), current in status(), error in error(),
        result in raw(), result_id in of(id()), size in number(), seq in number(), replayed in any::<bool>(),
    ) {
        let accepted = Accepted {
            job_id: "j".into(), agent: Some(agent.clone()), lease: lease.clone(), lease_constraints: lease_constraints.clone(), budget: budget.clone(),
            credentials: Some(Secret(RawJson::parse(r#"[{"id":"c","scheme":"bearer","value":"v","endpoint":"https://e/"}]"#).unwrap())),
            accepted_at: at, trace_id: None, parent_job_id: None, delegate_id: None, request_id: request_id.clone(), max_runtime_sec,
        };
        prop_assert_eq!(runtime(&accepted), RuntimeMessage::Accepted(accepted));
        let cancelled = Cancelled { job_id: "j".into(), reason: reason.clone(), current_status: Some(current), request_id: request_id.clone() };
        prop_assert_eq!(runtime(&cancelled), RuntimeMessage::Cancelled(cancelled));
        let inline = JobResult { final_status: JobStatus::Success, result: Some(result), result_id: None, result_size: None, summary: reason.clone(), completed_at: at };
        prop_assert_eq!(runtime(&inline), RuntimeMessage::Result(inline));
        let streamed = JobResult { final_status: JobStatus::Success, result: None, result_id, result_size: Some(size), summary: reason, completed_at: at };
        prop_assert_eq!(runtime(&streamed), RuntimeMessage::Result(streamed));
        let failed = JobError { final_status: JobStatus::TimedOut, error, completed_at: at };
        prop_assert_eq!(runtime(&failed), RuntimeMessage::JobError(failed));
        let subscribed = Subscribed {
            job_id: "j".into(), current_status: current, agent, lease, lease_constraints, budget, credentials: None, parent_job_id: None, trace_id: None,
            subscribed_from: seq, replayed, request_id,
        };
        prop_assert_eq!(runtime(&subscribed), RuntimeMessage::Subscribed(subscribed));
    }

    #[test]
    fn an_event_survives_with_its_body_untouched(
        id in id(), session in of(id()), job in id(), seq in 1..=i64::MAX as u64, kind in non_empty(), ts in time(), body in raw(),
    ) {
        let (mut payload, mut frame) = (Vec::new(), Vec::new());
        write_event_payload(&mut payload, &kind, ts, body.get().as_bytes());
        let trace_id = Some("4bf92f3577b34da6a3ce929d0e0e4736");
        let header = Header { kind: kind::JOB_EVENT, id: &id, session_id: session.as_deref(), job_id: Some(&job), trace_id, event_seq: Some(seq), ..Header::default() };
        write_frame(&mut frame, &header, &payload);
        let head = Head::parse(&frame, &Limits::default()).unwrap();
        prop_assert_eq!(RuntimeMessage::parse(&head), Ok(RuntimeMessage::Event));
        prop_assert_eq!((&*head.id, head.session_id.as_deref(), head.job_id.as_deref()), (&*id, session.as_deref(), Some(&*job)));
        prop_assert_eq!((head.trace_id.as_deref(), head.event_seq), (trace_id, Some(seq)));
        let event = EventPayload::parse(head.payload.get()).unwrap();
        prop_assert_eq!((&*event.kind, event.time(), event.body.get()), (&*kind, Some(ts), body.get()));
        let envelope = Envelope::parse(std::str::from_utf8(&frame).unwrap()).unwrap();
        prop_assert_eq!(envelope.to_json().into_bytes(), frame);
    }

    #[test]
    fn chunks_survive(data in vec(any::<u8>(), 0..64), seq in number(), more in any::<bool>()) {
        let body = result_chunk("res_1", seq, &data, more).unwrap();
        prop_assert_eq!(ResultChunk::read(body.as_raw()), Ok(ResultChunk { result_id: "res_1".into(), chunk_seq: seq, data, more }));
    }

    #[test]
    fn equal_values_have_equal_canonical_texts(value in value()) {
        let compact = canonical(&value.to_string()).unwrap();
        prop_assert_eq!(&canonical(&serde_json::to_string_pretty(&value).unwrap()).unwrap(), &compact);
        prop_assert_eq!(&canonical(std::str::from_utf8(&compact).unwrap()).unwrap(), &compact);
    }

    #[test]
    fn numbers_are_canonical_by_value(digits in 1..=i64::MAX, left in 0..30_usize, right in 0..30_usize, other in any::<i64>()) {
        let shifted = |places: usize| format!("{digits}{}e-{places}", "0".repeat(places));
        prop_assert_eq!(canonical(&shifted(left)).unwrap(), canonical(&shifted(right)).unwrap());
        prop_assert_eq!(canonical(&digits.to_string()).unwrap() == canonical(&other.to_string()).unwrap(), digits == other);
    }

    #[test]
    fn times_survive(at in time(), offset in -1439..=1439_i64) {
        prop_assert_eq!(Timestamp::parse(&at.to_string()), Some(at));
        prop_assert_eq!(Timestamp::parse_utc(&at.to_string()), Some(at));
        let local = Timestamp(at.0 + offset * 60_000);
        if (Timestamp::MIN..=Timestamp::MAX).contains(&local) {
            let sign = if offset < 0 { '-' } else { '+' };
            let zone = format!("{sign}{:02}:{:02}", offset.abs() / 60, offset.abs() % 60);
            prop_assert_eq!(Timestamp::parse(&local.to_string().replace('Z', &zone)), Some(at));
        }
    }

    /// Rules: R-5.6
    #[test]
    fn ulids_increase_whatever_the_clock_does(clock in vec(any::<i64>(), 1..50), seed in any::<u8>()) {
        struct Counter(u8);
        impl Entropy for Counter {
            fn fill(&mut self, bytes: &mut [u8]) {
                self.0 = self.0.wrapping_mul(5).wrapping_add(113);
                bytes.fill(self.0);
            }
        }
        let mut ids = IdGenerator::new(Box::new(Counter(seed)));
        let made: Vec<Ulid> = clock.into_iter().map(|ms| ids.ulid(Timestamp(ms / 1_000_000))).collect();
        prop_assert!(made.windows(2).all(|pair| pair[0] < pair[1] && pair[0].to_string() < pair[1].to_string()));
    }

    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 0..200)) {
        read_every_way(&bytes);
    }

    #[test]
    fn no_damaged_message_panics(case in any::<proptest::sample::Index>(), damage in vec((any::<proptest::sample::Index>(), any::<u8>(), 0..3_u8), 1..4)) {
        const VALID: &str = include_str!("../../../tests/corpus/wire/envelopes-valid.json");
        let corpus: Value = serde_json::from_str(VALID).unwrap();
        let cases = corpus["cases"].as_array().unwrap();
        let mut frame = case.get(cases)["given"]["message"].to_string().into_bytes();
        for (at, byte, how) in damage {
            let at = at.index(frame.len());
            match how {
                0 => frame[at] = byte,
                1 => frame.insert(at, b"{}[]\",:\\u0-1"[usize::from(byte % 12)]),
                _ => {
                    frame.remove(at);
                }
            }
        }
        read_every_way(&frame);
    }
}

fn read_every_way(bytes: &[u8]) {
    if let Ok(head) = Head::parse(bytes, &Limits::default()) {
        let _ = ClientMessage::parse(&head);
        let _ = RuntimeMessage::parse(&head);
        if let Ok(event) = EventPayload::parse(head.payload.get()) {
            let _ = EventBody::read(&event.kind, event.body);
            let _ = check_emitted(&event.kind, &RawJson::from_raw(event.body));
        }
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = (
            Envelope::parse(text),
            canonical(text),
            Timestamp::parse(text),
            EventPayload::parse(text),
            RawJson::parse(text),
        );
    }
}

#[test]
fn deep_and_wide_texts_are_refused_without_harm() {
    for text in [
        "[".repeat(1_000_000),
        "{\"a\":".repeat(200_000),
        format!("[{}1]", "1,".repeat(2_000_000)),
        "\"\\".repeat(1000),
    ] {
        read_every_way(text.as_bytes());
        assert!(RawJson::parse(&text).is_err());
    }
}
