"""Events of a job: dicts to those who look at them so, typed to others, and never a surprise in the loop."""

import ast
import asyncio
import copy
import json
import pickle
from collections.abc import Callable, Mapping
from typing import Any

import pytest

import arcp
from arcp import events
from arcp.client import JobEvent
from arcp.events import (
    BODIES,
    EVENT_KINDS,
    LogBody,
    LogEvent,
    MetricEvent,
    ProgressEvent,
    StatusEvent,
    ToolResultEvent,
    VendorBody,
    VendorEvent,
)
from arcp.runtime import JobContext
from conftest import make_runtime, numbers_of, run, session

TS = "2026-05-13T19:30:00.000Z"


def event(kind: str, body: Any) -> JobEvent:
    return JobEvent(kind, body, TS, 7)


def of_agent(agent: Any) -> list[events.Event]:
    """What an agent's client sees."""
    seen: list[events.Event] = []

    async def main() -> None:
        async with session(make_runtime({"agent": agent})) as client:
            handle = await client.submit(agent="agent", lease_request={"tool.call": ["clock"]})
            seen.extend([event async for event in handle.events()])
            await handle.done

    run(main)
    return seen


def test_every_kind_is_typed() -> None:
    async def agent(value: Any, ctx: JobContext) -> None:
        await ctx.log("info", "hello", {"n": 1}, more=2)
        await ctx.thought("hm")
        await ctx.tool_call(tool="clock", args={"zone": "UTC"}, call_id="c1")
        await ctx.tool_result(call_id="c1", result="19:30")
        await ctx.status("working", "step one")
        await ctx.metric("files.read", 2.5, "files", dimensions={"disk": "a"})
        await ctx.artifact_ref(uri="file:///r.txt", content_type="text/plain", byte_size=12, sha256="ab")
        await ctx.progress(current=1, total=2, units="steps", message="on")
        await ctx.emit_event("x-vendor.acme.note", {"text": "a note"})

    log, thought, call, result, status, metric, artifact, progress, note = of_agent(agent)
    assert isinstance(log, LogEvent)
    assert (log.body.level, log.body.message, log.body.attributes) == ("info", "hello", {"n": 1, "more": 2})
    assert isinstance(thought, events.ThoughtEvent)
    assert thought.body.text == "hm"
    assert isinstance(call, events.ToolCallEvent)
    assert (call.body.tool, call.body.args, call.body.call_id) == ("clock", {"zone": "UTC"}, "c1")
    assert isinstance(result, ToolResultEvent)
    assert (result.body.call_id, result.body.result, result.body.error) == ("c1", "19:30", None)
    assert isinstance(status, StatusEvent)
    assert (status.body.phase, status.body.message) == ("working", "step one")
    assert isinstance(metric, MetricEvent)
    assert (metric.body.name, metric.body.value, metric.body.unit) == ("files.read", 2.5, "files")
    assert metric.body.dimensions == {"disk": "a"}
    assert isinstance(artifact, events.ArtifactRefEvent)
    assert (artifact.body.uri, artifact.body.content_type) == ("file:///r.txt", "text/plain")
    assert (artifact.body.byte_size, artifact.body.sha256) == (12, "ab")
    assert isinstance(progress, ProgressEvent)
    assert (progress.body.current, progress.body.total) == (1, 2)
    assert (progress.body.units, progress.body.message) == ("steps", "on")
    assert isinstance(note, VendorEvent)
    assert note.body.text == note["body"]["text"] == "a note"
    for seen in (log, thought, call, result, status, metric, artifact, progress, note):
        assert isinstance(seen, JobEvent)
        assert isinstance(seen, Mapping)
        assert seen["body"] is seen.body
        assert arcp.messages.parse_event(seen).kind == seen.kind


def test_a_body_is_a_dict() -> None:
    body = event("log", {"level": "info", "message": "m", "z": [1]}).body
    assert isinstance(body, dict)
    assert isinstance(body, LogBody)
    assert body == {"level": "info", "message": "m", "z": [1]}
    assert json.loads(json.dumps(body)) == body
    assert body | {"level": "warn"} == {"level": "warn", "message": "m", "z": [1]}
    match body:
        case {"level": level}:
            assert level == "info"
        case _:
            pytest.fail("a body does not match as a mapping")
    with pytest.raises(AttributeError):
        body.level = "warn"
    with pytest.raises(AttributeError):
        body.levle  # noqa: B018


UNREAD: list[Callable[[JobEvent], Any]] = [
    dict,
    lambda event: {**event},
    lambda event: json.loads(json.dumps(event)),
    lambda event: json.loads(json.dumps(event, indent=1, sort_keys=True)),
    lambda event: json.loads(event.to_json()),
    lambda event: {} | event,
    lambda event: event | {},
    lambda event: event.copy(),
    lambda event: copy.copy(event),
    lambda event: copy.deepcopy(event),
    lambda event: pickle.loads(pickle.dumps(event)),
    lambda event: dict(event.items()),
    lambda event: dict(zip(event.keys(), event.values(), strict=True)),
    lambda event: {key: event[key] for key in event},
    lambda event: {key: event.get(key) for key in event},
    lambda event: {key: event.pop(key) for key in list(event)},
    lambda event: dict(event.popitem() for _ in range(3)),
    lambda event: {key: event.setdefault(key, None) for key in event},
    lambda event: ast.literal_eval(repr(event)),
]


@pytest.mark.parametrize("read", UNREAD)
def test_an_event_is_a_dict_however_it_is_first_read(read: Callable[[JobEvent], Any]) -> None:
    assert read(event("log", {"level": "info"})) == {"kind": "log", "body": {"level": "info"}, "ts": TS}


def test_an_event_may_be_changed() -> None:
    changed = event("log", {"level": "info"})
    changed["body"] = {"level": "warn"}
    changed["seen"] = True
    assert json.loads(json.dumps(changed)) == json.loads(changed.to_json())
    assert changed == {"kind": "log", "body": {"level": "warn"}, "ts": TS, "seen": True}
    assert pickle.loads(pickle.dumps(changed)) == changed
    assert changed.event_seq == 7
    assert event("log", {}) != changed
    with pytest.raises(TypeError):
        hash(changed)


def test_both_spellings_of_a_member_are_read() -> None:
    call = event("tool_call", {"name": "clock", "arguments": {"a": 1}, "tool_call_id": "c"}).body
    assert (call.tool, call.args, call.call_id) == ("clock", {"a": 1}, "c")
    assert event("tool_result", {"tool_call_id": "c", "output": [1]}).body.result == [1]
    artifact = event("artifact_ref", {"uri": "u", "media_type": "t", "size_bytes": 3}).body
    assert (artifact.content_type, artifact.byte_size) == ("t", 3)
    assert event("metric", {"name": "m", "value": 1, "attributes": {"a": 1}}).body.dimensions == {"a": 1}


def test_a_refused_tool_tells_why() -> None:
    refusal = arcp.PermissionDeniedError("no", details={"why": "policy"})
    error = event("tool_result", {"call_id": "c", "error": refusal.to_payload()}).body.error
    assert (error.code, error.message, error.retryable) == ("PERMISSION_DENIED", "no", False)
    assert error.details == {"why": "policy"}
    assert isinstance(arcp.error_from_payload(error), arcp.PermissionDeniedError)


@pytest.mark.parametrize("kind", EVENT_KINDS)
@pytest.mark.parametrize("body", [{}, {"level": 1, "current": "x", "error": 3}, [], [1], "text", 4, True, None])
def test_an_odd_body_fails_no_loop(kind: str, body: Any) -> None:
    """As R-8.2.2 has it."""
    odd = event(kind, body)
    assert odd["body"] == body
    assert isinstance(odd.body, BODIES[kind])
    for name in vars(BODIES[kind]):
        if not name.startswith("_"):
            getattr(odd.body, name)
    assert json.loads(odd.to_json()) == {"kind": kind, "body": body, "ts": TS}
    assert f"{odd!r}"


@pytest.mark.parametrize("body", [{"a": 1}, [1], "text", 4, None])
def test_unknown_kinds_come_through(body: Any) -> None:
    """As R-8.2.3 has it."""
    for kind in ("x-vendor.acme.thing", "brand_new"):
        odd = event(kind, body)
        assert isinstance(odd, VendorEvent)
        assert not isinstance(odd, LogEvent)
        assert odd.body == odd["body"] == body
    attributes = event("brand_new", {"a": 1}).body
    assert isinstance(attributes, VendorBody)
    assert attributes.a == 1
    assert not hasattr(attributes, "b")
    assert copy.deepcopy(attributes) == {"a": 1}


def test_what_python_cannot_hold_stays_text() -> None:
    class Long(float):
        json_text = "9" * 5000

    huge = event("metric", {"name": "m", "value": Long(0)})
    assert huge["body"].startswith('{"name":"m","value":999')
    assert huge.body.value is None


def test_patterns_tell_events_apart() -> None:
    def describe(seen: object) -> str:
        match seen:
            case LogEvent(body=LogBody(level="error")):
                return "an error"
            case LogEvent():
                return "a line"
            case ProgressEvent(body=body):
                return f"at {body.current}"
            case VendorEvent(kind=kind):
                return kind
            case JobEvent():
                return "another"
        return "no event"

    assert describe(event("log", {"level": "error", "message": "m"})) == "an error"
    assert describe(event("log", {"level": "info", "message": "m"})) == "a line"
    assert describe(event("progress", {"current": 3})) == "at 3"
    assert describe(event("x-vendor.a.b", None)) == "x-vendor.a.b"
    assert describe(event("status", {"phase": "p"})) == "another"
    assert describe({"kind": "log"}) == "no event"
    with pytest.raises(TypeError, match="JobEvent"):
        LogEvent("log", {}, TS)


def test_an_event_can_be_kept_and_sent_on() -> None:
    seen = event("log", {"level": "info", "message": "é\u2028", "n": 1.5})
    for again in (pickle.loads(pickle.dumps(seen)), copy.copy(seen), copy.deepcopy(seen)):
        assert isinstance(again, LogEvent)
        assert again == seen
        assert again.event_seq == seen.event_seq == 7
        assert again.body.level == "info"
    assert json.loads(seen.to_json()) == dict(seen)
    assert json.loads(json.dumps(dict(seen))) == dict(seen) == seen
    with pytest.raises(TypeError, match="body"):
        event("log", {1, 2})


def test_events_in_batches() -> None:
    async def agent(value: Any, ctx: JobContext) -> None:
        for number in range(2000):
            await ctx.progress(number)

    async def main() -> None:
        async with session(make_runtime({"agent": agent})) as client:
            handle = await client.submit(agent="agent")
            numbers: list[Any] = []
            sizes = []
            async for batch in handle.events(batch=True):
                assert isinstance(batch, list)
                sizes.append(len(batch))
                numbers += [event.body.current for event in batch if isinstance(event, ProgressEvent)]
            assert numbers == list(range(2000))
            assert all(sizes)
            assert len(sizes) < 1000
            assert [batch async for batch in handle.events(batch=True)] == []

    run(main)


def test_batches_and_single_events_share_one_stream() -> None:
    async def agent(value: Any, ctx: JobContext) -> None:
        for number in range(500):
            await ctx.progress(number)

    async def main() -> None:
        async with session(make_runtime({"agent": agent})) as client:
            handle = await client.submit(agent="agent")
            await handle.done
            first = handle.events()
            taken = [(await anext(first))["body"]["current"] for _ in range(3)]
            async for batch in handle.events(batch=True):
                taken += [event["body"]["current"] for event in batch]
            assert taken == list(range(500))
            assert await numbers_of(first) == []

    run(main)


def test_a_waiting_batch_reader_can_be_cancelled() -> None:
    async def agent(value: Any, ctx: JobContext) -> None:
        await ctx.status("one")
        await go.wait()
        await ctx.status("two")

    go = asyncio.Event()

    async def main() -> None:
        async with session(make_runtime({"agent": agent})) as client:
            handle = await client.submit(agent="agent")
            batches = handle.events(batch=True)
            assert [event.body["phase"] for event in await anext(batches)] == ["one"]
            waiting = asyncio.ensure_future(anext(batches))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            go.set()
            phases = [event.body["phase"] async for event in handle.events()]
            assert phases == ["two"]

    run(main)


def test_chunks_are_typed_too() -> None:
    async def agent(value: Any, ctx: JobContext) -> None:
        async with ctx.stream_result() as result:
            await result.write("abc")

    async def main() -> None:
        async with session(make_runtime({"agent": agent})) as client:
            handle = await client.submit(agent="agent")
            chunks = [chunk async for chunk in handle.chunks()]
            assert "".join(chunk.data for chunk in chunks) == "abc"
            assert [chunk.chunk_seq for chunk in chunks] == list(range(len(chunks)))
            assert chunks[0]["encoding"] == chunks[0].encoding == "utf8"
            assert chunks[-1].more is False

    run(main)
