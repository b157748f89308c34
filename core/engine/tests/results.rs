//! Streamed results, end to end.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arcp_engine::transport::{StdioTransport, pair_memory_transports};
use arcp_engine::{Client, JobContext, JobHandle, ResultData, Runtime, StaticBearerVerifier, Written};
use arcp_proto::event::ResultChunk;
use arcp_proto::json::RawJson;
use arcp_proto::machine::client::ClientConfig;
use arcp_proto::machine::result_stream::ResultOptions;
use arcp_proto::machine::runtime::RuntimeConfig;
use arcp_proto::message::JobResult;
use arcp_proto::{Error as ProtocolError, ErrorCode};
use support::{BOUND, connected, peer, submit};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::sync::Notify;
use tokio::time::timeout;

const MIB: usize = 1 << 20;

fn runtime(set: impl FnOnce(&mut RuntimeConfig)) -> Runtime {
    let mut config = RuntimeConfig::new(peer("runtime"));
    set(&mut config);
    Runtime::new(config, StaticBearerVerifier::new([("tok", "me")]))
}

fn plain() -> Runtime {
    runtime(|_| {})
}

/// The chunks of a job as they arrived: their bodies, and what they decode to.
struct Arrived {
    bodies: Vec<String>,
    chunks: Vec<ResultChunk>,
    end: Result<JobResult, ProtocolError>,
}

impl Arrived {
    /// The result, if the chunks are in order, of one id, and end where they should (R-8.4.1, R-8.4.2, R-8.4.8).
    fn whole(&self) -> Vec<u8> {
        let end = self.end.as_ref().unwrap();
        for (at, chunk) in self.chunks.iter().enumerate() {
            assert_eq!(chunk.chunk_seq, at as u64);
            assert_eq!(Some(&chunk.result_id), end.result_id.as_ref());
            assert_eq!(chunk.more, at + 1 < self.chunks.len());
        }
        let data: Vec<u8> = self.chunks.iter().flat_map(|chunk| chunk.data.iter().copied()).collect();
        assert_eq!(end.result_size, Some(data.len() as u64));
        assert!(end.result.is_none(), "an inline result beside chunks");
        data
    }

    fn failure(&self) -> &ProtocolError {
        self.end.as_ref().unwrap_err()
    }
}

async fn all(handle: &JobHandle) -> Arrived {
    let mut arrived = Arrived { bodies: Vec::new(), chunks: Vec::new(), end: Err(ProtocolError::internal("none")) };
    while let Some(event) = timeout(BOUND, handle.next_event()).await.unwrap() {
        assert_eq!(event.kind(), "result_chunk");
        let body = RawJson::parse(std::str::from_utf8(&event.body).unwrap()).unwrap();
        arrived.chunks.push(ResultChunk::read(body.as_raw()).unwrap());
        arrived.bodies.push(body.get().to_owned());
    }
    arrived.end = timeout(BOUND, handle.result()).await.unwrap().map_err(|error| error.protocol().unwrap().clone());
    arrived
}

/// Runs an agent once for a client with the default features.
async fn run<A, F>(runtime: &Runtime, agent: A) -> Arrived
where
    A: Fn(RawJson, JobContext) -> F + Send + Sync + 'static,
    F: Future<Output = Result<RawJson, ProtocolError>> + Send + 'static,
{
    runtime.register_agent("writer", agent).unwrap();
    let client = connected(runtime).await;
    all(&client.submit(&submit("writer", "null"), None).await.unwrap()).await
}

async fn without_chunks(runtime: &Runtime) -> Client {
    let (left, right) = pair_memory_transports();
    let host = runtime.clone();
    tokio::spawn(async move { host.accept(right).await });
    let mut config = ClientConfig::new(peer("client"));
    config.features.retain(|feature| feature != "result_chunk");
    let client = Client::new(config);
    client.connect(left, "tok").await.unwrap();
    client
}

/// Rules: R-8.4.1, R-8.4.4, R-8.4.5
#[tokio::test]
async fn encodings_alternate_and_the_last_chunk_with_data_says_so() {
    let arrived = run(&plain(), async |_: RawJson, ctx: JobContext| {
        let mut writer = ctx.stream_result()?;
        writer.write_text("id,name\n").await?;
        writer.write_bytes(b"1,alice\n").await?;
        writer.write_text("").await?;
        writer.finish(Some("one table"))?;
        Ok(RawJson::null())
    })
    .await;
    assert_eq!(arrived.whole(), b"id,name\n1,alice\n");
    assert_eq!(arrived.end.as_ref().unwrap().summary.as_deref(), Some("one table"));
    let id = &arrived.chunks[0].result_id;
    assert!(id.starts_with("res_"), "{id}");
    assert_eq!(
        arrived.bodies,
        [
            format!(r#"{{"result_id":"{id}","chunk_seq":0,"data":"id,name\n","encoding":"utf8","more":true}}"#),
            format!(r#"{{"result_id":"{id}","chunk_seq":1,"data":"MSxhbGljZQo=","encoding":"base64","more":false}}"#),
        ]
    );
}

/// Rules: R-8.4.6
#[tokio::test]
async fn text_is_cut_between_code_points_at_the_size_asked_for() {
    let arrived = run(&plain(), async |_: RawJson, ctx: JobContext| {
        let options = ResultOptions { result_id: Some("mine".into()), chunk_bytes: Some(6) };
        let mut writer = ctx.stream_result_with(options)?;
        assert_eq!(writer.result_id(), "mine");
        writer.write_text("abc😀déf😀😀").await?;
        writer.finish(None)?;
        Ok(RawJson::null())
    })
    .await;
    assert_eq!(arrived.whole(), "abc😀déf😀😀".as_bytes());
    let texts: Vec<&str> = arrived.chunks.iter().map(|chunk| std::str::from_utf8(&chunk.data).unwrap()).collect();
    assert_eq!(texts, ["abc", "😀d", "éf", "😀", "😀"]);
    assert!(arrived.chunks.iter().all(|chunk| chunk.result_id == "mine"));
}

/// Rules: R-8.4.12
#[tokio::test]
async fn no_frame_is_longer_than_common_libraries_accept_and_every_chunk_decodes_alone() {
    let text = "é\"\n😀x".repeat(MIB / 8);
    let size = text.len();
    let sent = text.clone();
    let arrived = run(&plain(), move |_: RawJson, ctx: JobContext| {
        let text = sent.clone();
        async move {
            let mut writer = ctx.stream_result()?;
            writer.write_text(&text).await?;
            writer.write_bytes(text.as_bytes()).await?;
            Ok(RawJson::null())
        }
    })
    .await;
    let whole = arrived.whole();
    assert!(whole[..size] == *text.as_bytes() && whole[size..] == *text.as_bytes());
    let longest = arrived.bodies.iter().map(String::len).max().unwrap();
    assert!(longest + 1024 < MIB, "a body of {longest} bytes");
    let cuts = size.div_ceil(256 << 10);
    assert!((2 * cuts..=2 * cuts + 2).contains(&arrived.chunks.len()), "{} chunks", arrived.chunks.len());
}

#[tokio::test]
async fn text_of_control_characters_stays_below_the_text_cap_even_with_the_widest_cut() {
    let arrived = run(&plain(), async |_: RawJson, ctx: JobContext| {
        let options = ResultOptions { chunk_bytes: Some(MIB), ..ResultOptions::default() };
        let mut writer = ctx.stream_result_with(options)?;
        writer.write_text(&"\u{1}".repeat(2 * MIB)).await?;
        Ok(RawJson::null())
    })
    .await;
    assert_eq!(arrived.whole(), vec![1; 2 * MIB]);
    assert!(arrived.bodies.iter().all(|body| body.len() < 3 * MIB / 2 + 256));
}

#[tokio::test]
async fn text_of_control_characters_is_cut_shorter_so_that_its_frames_are_no_longer() {
    let arrived = run(&plain(), async |_: RawJson, ctx: JobContext| {
        ctx.stream_result()?.write_text(&"\u{1}".repeat(MIB)).await?;
        Ok(RawJson::null())
    })
    .await;
    assert_eq!(arrived.whole(), vec![1; MIB]);
    assert!(arrived.bodies.iter().all(|body| body.len() + 1024 < MIB));
}

/// Rules: R-8.4.9
#[tokio::test]
async fn a_writer_that_is_dropped_unfinished_loses_nothing_and_the_returned_value_is_not_sent() {
    let arrived = run(&plain(), async |_: RawJson, ctx: JobContext| {
        let mut writer = ctx.stream_result()?;
        writer.write_text("one").await?;
        writer.write_text("two").await?;
        drop(writer);
        RawJson::parse("{\"ignored\":true}")
    })
    .await;
    assert_eq!(arrived.whole(), b"onetwo");
}

#[tokio::test]
async fn a_flushed_chunk_arrives_before_the_next_is_written() {
    let runtime = plain();
    let seen = Arc::new(Notify::new());
    let gate = Arc::clone(&seen);
    runtime
        .register_agent("writer", move |_: RawJson, ctx: JobContext| {
            let gate = Arc::clone(&gate);
            async move {
                let mut writer = ctx.stream_result()?;
                writer.write_text("first").await?;
                writer.flush();
                gate.notified().await;
                writer.finish(None)?;
                Ok(RawJson::null())
            }
        })
        .unwrap();
    let client = connected(&runtime).await;
    let handle = client.submit(&submit("writer", "null"), None).await.unwrap();
    let first = timeout(BOUND, handle.next_event()).await.unwrap().unwrap();
    assert!(std::str::from_utf8(&first.body).unwrap().contains(r#""data":"first""#));
    seen.notify_one();
    let arrived = all(&handle).await;
    assert_eq!((arrived.chunks.len(), arrived.chunks[0].data.len(), arrived.chunks[0].more), (1, 0, false));
    assert_eq!(arrived.end.unwrap().result_size, Some(5));
}

/// Rules: R-8.4.10
#[tokio::test]
async fn an_agent_that_fails_after_two_chunks_has_failed() {
    let arrived = run(&plain(), async |_: RawJson, ctx: JobContext| {
        let mut writer = ctx.stream_result()?;
        writer.write_text("one").await?;
        writer.write_text("two").await?;
        writer.write_text("three").await?;
        Err(ProtocolError::invalid("boom"))
    })
    .await;
    assert_eq!(arrived.failure().message, "boom");
    assert_eq!(arrived.chunks.len(), 2);
    assert!(arrived.chunks.iter().all(|chunk| chunk.more), "a failed result looks whole");
}

/// Rules: R-8.4.2
#[tokio::test]
async fn a_second_writer_is_refused_and_the_first_goes_on() {
    let arrived = run(&plain(), async |_: RawJson, ctx: JobContext| {
        let mut writer = ctx.stream_result()?;
        let refused = ctx.stream_result().unwrap_err();
        assert_eq!(refused.code, ErrorCode::InvalidRequest);
        let by_hand = ctx.result_chunk("r", 0, b"x", true).await.unwrap_err();
        assert_eq!(by_hand.code, ErrorCode::InvalidRequest);
        writer.write_text("mine").await?;
        writer.finish(None)?;
        assert_eq!(ctx.stream_result().unwrap_err().code, ErrorCode::InvalidRequest);
        Ok(RawJson::null())
    })
    .await;
    assert_eq!(arrived.whole(), b"mine");
}

/// Rules: R-8.4.11
#[tokio::test]
async fn over_the_total_cap_the_job_ends_though_its_agent_goes_on_as_if_nothing_were() {
    let runtime = runtime(|config| config.results.total = 1000);
    let arrived = run(&runtime, async |_: RawJson, ctx: JobContext| {
        let mut writer = ctx.stream_result()?;
        writer.write_bytes(&[7; 1000]).await?;
        let over = writer.write_bytes(&[7]).await.unwrap_err();
        assert_eq!(over.code, ErrorCode::InternalError);
        Ok(RawJson::null())
    })
    .await;
    let failure = arrived.failure();
    assert_eq!(failure.code, ErrorCode::InternalError);
    assert_eq!(failure.details.as_ref().unwrap().get(), r#"{"cap":"result_bytes"}"#);
}

/// Rules: R-8.4.11
#[tokio::test]
async fn a_chunk_by_hand_may_have_one_mebibyte_and_no_byte_more() {
    let arrived = run(&plain(), async |_: RawJson, ctx: JobContext| {
        ctx.result_chunk("r", 0, &vec![b'x'; MIB], true).await?;
        ctx.result_chunk("r", 1, &vec![0xff; MIB], true).await?;
        ctx.result_chunk("r", 2, &vec![b'x'; MIB + 1], false).await?;
        Ok(RawJson::null())
    })
    .await;
    assert_eq!(arrived.chunks.len(), 2);
    assert_eq!(arrived.failure().details.as_ref().unwrap().get(), r#"{"cap":"result_chunk_bytes"}"#);
}

/// Rules: R-8.4.15
#[tokio::test]
async fn a_client_without_the_feature_gets_the_result_whole() {
    let runtime = plain();
    runtime
        .register_agent("text", async |_: RawJson, ctx: JobContext| {
            let mut writer = ctx.stream_result()?;
            writer.write_text("né").await?;
            writer.write_text("\n😀").await?;
            writer.finish(Some("short"))?;
            Ok(RawJson::null())
        })
        .unwrap();
    runtime
        .register_agent("bytes", async |_: RawJson, ctx: JobContext| {
            ctx.stream_result()?.write_bytes(&[0xff, 0xef]).await?;
            Ok(RawJson::null())
        })
        .unwrap();
    runtime
        .register_agent("long", async |_: RawJson, ctx: JobContext| {
            let mut writer = ctx.stream_result()?;
            writer.write_bytes(&vec![b'x'; MIB]).await?;
            assert_eq!(writer.write_text("x").await.unwrap_err().code, ErrorCode::InternalError);
            Ok(RawJson::null())
        })
        .unwrap();
    runtime
        .register_agent("value", async |_: RawJson, _: JobContext| RawJson::from_serialize(&"x".repeat(MIB)))
        .unwrap();
    let client = without_chunks(&runtime).await;
    let ask = async |agent: &str| all(&client.submit(&submit(agent, "null"), None).await.unwrap()).await;

    let text = ask("text").await;
    assert!(text.chunks.is_empty());
    let end = text.end.unwrap();
    assert_eq!(end.result.unwrap().get(), r#""né\n😀""#);
    assert_eq!((end.result_id, end.result_size, end.summary.as_deref()), (None, None, Some("short")));

    let bytes = ask("bytes").await.end.unwrap();
    assert_eq!(bytes.result.unwrap().get(), r#"{"encoding":"base64","data":"/+8="}"#);

    for agent in ["long", "value"] {
        let end = ask(agent).await;
        assert_eq!(end.failure().details.as_ref().unwrap().get(), r#"{"cap":"inline_result"}"#, "{agent}");
    }
}

#[tokio::test]
async fn a_returned_value_over_one_mebibyte_comes_in_chunks_of_its_text() {
    let value = RawJson::from_serialize(&"é😀".repeat(MIB)).unwrap();
    let returned = value.clone();
    let arrived = run(&plain(), move |_: RawJson, _: JobContext| {
        let value = returned.clone();
        async move { Ok(value) }
    })
    .await;
    assert!(arrived.whole() == value.get().as_bytes());
    assert!(arrived.bodies.iter().all(|body| body.len() < 257 << 10));

    let small = run(&plain(), async |_: RawJson, _: JobContext| RawJson::from_serialize(&"x".repeat(MIB - 2))).await;
    assert!(small.chunks.is_empty());
    assert_eq!(small.end.unwrap().result.unwrap().get().len(), MIB);
}

#[tokio::test]
async fn what_is_written_at_once_says_how_far_it_got() {
    let runtime = runtime(|config| config.outgoing_high_water = 1);
    let arrived = run(&runtime, async |_: RawJson, ctx: JobContext| {
        let mut writer = ctx.stream_result_with(ResultOptions { chunk_bytes: Some(4), ..ResultOptions::default() })?;
        let mut left = ResultData::Text("😀😀😀😀");
        let mut waits = 0;
        while !left.is_empty() {
            let Written { taken, must_wait } = writer.write_now(left)?;
            assert!(taken % 4 == 0 && taken > 0);
            left = left.skip(taken);
            if must_wait {
                waits += 1;
                ctx.drained().await;
            }
        }
        assert!(waits > 0, "nobody had to wait");
        writer.finish(None)?;
        Ok(RawJson::null())
    })
    .await;
    assert_eq!(arrived.whole(), "😀😀😀😀".as_bytes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_64_mib_waits_for_its_reader_in_bounded_memory_and_arrives_whole() {
    const CHUNKS: usize = 256;
    let runtime = plain();
    let (written, waits) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let told = (Arc::clone(&written), Arc::clone(&waits));
    runtime
        .register_agent("big", move |_: RawJson, ctx: JobContext| {
            let (written, waits) = told.clone();
            async move {
                let mut writer = ctx.stream_result()?;
                let data = vec![b'x'; 256 << 10];
                for _ in 0..CHUNKS {
                    let one = writer.write_now(ResultData::Bytes(&data))?;
                    assert_eq!(one.taken, data.len());
                    written.fetch_add(1, Ordering::AcqRel);
                    if one.must_wait {
                        waits.notify_one();
                        ctx.drained().await;
                    }
                    tokio::task::yield_now().await;
                }
                writer.finish(None)?;
                Ok(RawJson::null())
            }
        })
        .unwrap();

    // A peer by hand behind a narrow pipe: it says hello and submits, and reads nothing of what follows.
    let (theirs, ours) = tokio::io::duplex(64 << 10);
    let (reader, writer) = tokio::io::split(ours);
    let host = runtime.clone();
    let serving = tokio::spawn(async move { host.accept(StdioTransport::new(reader, writer, 16 * MIB)).await });
    let (reader, mut writer) = tokio::io::split(theirs);
    let mut lines = BufReader::new(reader).lines();
    let hello = r#"{"arcp":"1.1","id":"h","type":"session.hello","payload":{"client":{"name":"x","version":"1"},"auth":{"scheme":"bearer","token":"tok"},"capabilities":{"encodings":["json"],"features":["result_chunk"]}}}"#;
    writer.write_all(format!("{hello}\n").as_bytes()).await.unwrap();
    let welcome = timeout(BOUND, lines.next_line()).await.unwrap().unwrap().unwrap();
    let welcome: serde_json::Value = serde_json::from_str(&welcome).unwrap();
    let session = welcome["session_id"].as_str().unwrap();
    let ask = format!(
        r#"{{"arcp":"1.1","id":"s","type":"job.submit","session_id":"{session}","payload":{{"agent":"big"}}}}"#
    );
    writer.write_all(format!("{ask}\n").as_bytes()).await.unwrap();

    timeout(BOUND, waits.notified()).await.unwrap();
    // A quarter of the 64 MiB buffer waits in the queue, as much was taken for the transport, and some is on its way.
    const ROOM: usize = 2 * (16 * MIB / 349_000) + 8;
    let mut size = 0;
    let mut chunks = 0;
    let result = loop {
        let line = timeout(BOUND, lines.next_line()).await.unwrap().unwrap().unwrap();
        let message: serde_json::Value = serde_json::from_str(&line).unwrap();
        match message["type"].as_str().unwrap() {
            "job.event" => {
                let body = RawJson::parse(&message["payload"]["body"].to_string()).unwrap();
                let chunk = ResultChunk::read(body.as_raw()).unwrap();
                assert_eq!(chunk.chunk_seq, chunks);
                assert!(chunk.data.iter().all(|byte| *byte == b'x'));
                chunks += 1;
                let waiting = written.load(Ordering::Acquire).saturating_sub(chunks as usize);
                assert!(waiting <= ROOM, "{waiting} chunks wait for a peer that has read {chunks}");
                size += chunk.data.len();
            }
            "job.result" => break message,
            _ => {}
        }
    };
    assert_eq!((chunks, size), (CHUNKS as u64, 64 * MIB));
    assert_eq!(result["payload"]["result_size"], 64 * MIB);
    serving.abort();
}
