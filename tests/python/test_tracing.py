"""Spans of messages, on both sides, in one trace."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import arcp
from arcp.middleware.otel import OTEL_EXTENSION_KEY, with_tracing
from arcp.runtime import JobContext
from conftest import make_client, make_runtime, run


class Side:
    """A tracer of its own, as each process has one."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = provider.get_tracer("test")

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        return self._exporter.get_finished_spans()

    def named(self, name: str) -> ReadableSpan:
        (found,) = [span for span in self.spans if span.name == name]
        return found


def key(span: ReadableSpan) -> tuple[int, int]:
    return span.context.trace_id, span.context.span_id


def parent(span: ReadableSpan) -> tuple[int, int] | None:
    return None if span.parent is None else (span.parent.trace_id, span.parent.span_id)


async def traced_session(
    runtime: arcp.ARCPRuntime, ours: arcp.Transport, theirs: arcp.Transport, use: Any, **options: Any
) -> None:
    accepting = asyncio.create_task(runtime.accept(theirs))
    async with make_client(**options) as client:
        await client.connect(ours)
        await use(client)
    await accepting
    await runtime.close()


def test_a_job_is_in_the_trace_of_its_submit_on_both_sides() -> None:
    """Rules: R-11.3, R-11.4, R-11.5"""
    here, there = Side(), Side()
    seen: dict[str, Any] = {}

    async def agent(value: Any, ctx: JobContext) -> None:
        with there.tracer.start_as_current_span("agent work"):
            await ctx.log("info", "at work")
            seen["plain"] = await (await ctx.delegate("plain")).done
        seen["trace_id"] = ctx.trace_id

    def plain(value: Any, ctx: JobContext) -> str:
        with there.tracer.start_as_current_span("thread work"):
            return "done"

    async def use(client: arcp.ARCPClient) -> None:
        with here.tracer.start_as_current_span("request"):
            handle = await client.submit(agent="agent", lease_request={"agent.delegate": ["plain"]})
        await handle.done
        assert [event.kind async for event in handle.events()].count("log") == 1

    async def main() -> None:
        ours, theirs = arcp.pair_memory_transports()
        runtime = make_runtime({"agent": agent, "plain": plain})
        await traced_session(
            runtime, with_tracing(ours, tracer=here.tracer), with_tracing(theirs, tracer=there.tracer), use
        )

    run(main)
    request = here.named("request")
    trace_id = request.context.trace_id
    assert seen["trace_id"] == f"{trace_id:032x}"
    submitted, received = here.named("arcp.send job.submit"), there.named("arcp.recv job.submit")
    assert parent(submitted) == key(request)
    assert parent(received) == key(submitted)
    assert (submitted.kind, received.kind) == (trace.SpanKind.PRODUCER, trace.SpanKind.CONSUMER)
    work = there.named("agent work")
    assert parent(work) == key(received)
    assert there.named("thread work").context.trace_id == trace_id
    accepted = [span for span in there.spans if span.name == "arcp.send job.accepted"]
    assert parent(accepted[0]) == key(received)
    # Whatever is said of the job, both ways.
    for side in (here, there):
        jobs = [span for span in side.spans if " job." in span.name]
        assert {span.context.trace_id for span in jobs} == {trace_id}
        assert {span.name.split()[0] for span in jobs} == {"arcp.send", "arcp.recv"}
    # What arrives is a child of what was sent.
    assert parent(here.named("arcp.recv session.welcome")) == key(there.named("arcp.send session.welcome"))
    sent = {key(span) for span in there.spans if span.name == "arcp.send job.event"}
    assert {parent(span) for span in here.spans if span.name == "arcp.recv job.event"} == sent


def test_the_attributes_of_a_span() -> None:
    """Rules: R-11.6, R-14.11"""
    here = Side()

    async def agent(value: Any, ctx: JobContext) -> None:
        await ctx.metric("cost.llm", 0.25, "USD")

    async def use(client: arcp.ARCPClient) -> None:
        handle = await client.submit(
            agent="agent",
            input={"secret": "hush"},
            lease_request={"net.fetch": ["https://example.com/**"], "cost.budget": ["USD:1.10"]},
            lease_constraints=arcp.LeaseConstraints(expires_at="2099-01-01T00:00:00Z"),
        )
        await handle.done
        seen.update(job_id=handle.job_id, session_id=client.session_id, trace_id=handle.trace_id)

    seen: dict[str, Any] = {}

    async def main() -> None:
        ours, theirs = arcp.pair_memory_transports()
        await traced_session(make_runtime({"agent": agent}), with_tracing(ours, tracer=here.tracer), theirs, use)

    run(main)
    submitted = dict(here.named("arcp.send job.submit").attributes or {})
    assert submitted.pop("arcp.id", "").startswith("msg_")  # type: ignore[union-attr]
    assert submitted == {
        "arcp.direction": "out",
        "arcp.type": "job.submit",
        "arcp.session_id": seen["session_id"],
        "arcp.agent": "agent",
        "arcp.lease.capabilities": "cost.budget,net.fetch",
        "arcp.lease.expires_at": "2099-01-01T00:00:00Z",
    }
    accepted = dict(here.named("arcp.recv job.accepted").attributes or {})
    assert {name: accepted[f"arcp.{name}"] for name in ("direction", "job_id", "trace_id")} == {
        "direction": "in",
        "job_id": seen["job_id"],
        "trace_id": seen["trace_id"],
    }
    assert accepted["arcp.lease.capabilities"] == "cost.budget,net.fetch"
    assert json.loads(str(accepted["arcp.budget.remaining"])) == {"USD": 1.10}
    events = [dict(span.attributes or {}) for span in here.spans if span.name == "arcp.recv job.event"]
    assert [event["arcp.event_seq"] for event in events] == list(range(1, len(events) + 1))
    remaining = [event["arcp.budget.remaining"] for event in events if "arcp.budget.remaining" in event]
    assert [json.loads(str(text)) for text in remaining] == [{"USD": 0.85}]
    shown = " ".join(f"{span.name} {span.attributes}" for span in here.spans)
    for secret in ("hush", "tok-alice", "example.com"):
        assert secret not in shown


def test_one_side_alone_is_traced_and_names_are_chosen() -> None:
    here = Side()
    carried: list[Any] = []

    class Peeking:
        """Sees what the wire carries."""

        is_closed = False

        def __init__(self, inner: arcp.Transport) -> None:
            self.inner = inner

        async def send(self, message: dict[str, Any]) -> None:
            carried.append(message)
            await self.inner.send(message)

        async def recv(self) -> dict[str, Any]:
            return await self.inner.recv()

        async def close(self) -> None:
            await self.inner.close()

    async def use(client: arcp.ARCPClient) -> None:
        explicit = "0af7651916cd43dd8448eb211c80319c"
        handle = await client.submit(agent="echo", input=1, trace_id=explicit)
        assert (handle.trace_id, (await handle.done).result) == (explicit, 1)

    async def main() -> None:
        ours, theirs = arcp.pair_memory_transports()
        traced = with_tracing(
            Peeking(ours),
            tracer=here.tracer,
            send_span_name=lambda message: f"out {message['type']}",
            recv_span_name="in",
        )
        await traced_session(make_runtime({"echo": lambda inp, ctx: inp}), traced, theirs, use)

    run(main)
    assert {span.name for span in here.spans} >= {"in", "out session.hello", "out job.submit"}
    for message in carried:
        (traceparent,) = message["extensions"][OTEL_EXTENSION_KEY].values()
        assert traceparent.startswith("00-")
    # What comes back for the job is in its trace, though it carries none.
    submitted = here.named("out job.submit").context.trace_id
    assert len([span for span in here.spans if span.name == "in" and span.context.trace_id == submitted]) >= 2


def test_a_tracer_that_fails_disturbs_no_message(caplog: pytest.LogCaptureFixture) -> None:
    """Rules: R-11.7"""

    class Failing(trace.NoOpTracer):
        def start_span(self, *_: Any, **__: Any) -> trace.Span:
            raise RuntimeError("no spans today")

    async def use(client: arcp.ARCPClient) -> None:
        for number in range(3):
            assert (await (await client.submit(agent="echo", input=number)).done).result == number

    async def main() -> None:
        ours, theirs = arcp.pair_memory_transports()
        runtime = make_runtime({"echo": lambda inp, ctx: inp})
        await traced_session(runtime, with_tracing(ours, tracer=Failing()), with_tracing(theirs, tracer=Failing()), use)

    run(main)
    warnings = [record for record in caplog.records if "without tracing" in record.message]
    assert len(warnings) == 2


def test_without_a_provider_nothing_is_carried() -> None:
    async def main() -> None:
        ours, theirs = arcp.pair_memory_transports()
        traced = with_tracing(ours)
        assert isinstance(traced, arcp.Transport)
        await traced.send({"type": "x", "id": "1"})
        assert await theirs.recv() == {"type": "x", "id": "1"}
        await theirs.send({"type": "y", "id": "2", "extensions": {OTEL_EXTENSION_KEY: {"traceparent": 7}}})
        assert (await traced.recv())["extensions"] == {OTEL_EXTENSION_KEY: {"traceparent": 7}}
        await theirs.close()
        with pytest.raises(arcp.TransportClosed):
            await traced.recv()
        await traced.close()
        assert traced.is_closed
        with pytest.raises(TypeError, match="send_span_name"):
            with_tracing(ours, send_span_name=7)  # type: ignore[arg-type]

    run(main)


def test_a_span_of_a_failed_send_says_so() -> None:
    here = Side()

    async def main() -> None:
        ours, _ = arcp.pair_memory_transports()
        await ours.close()
        with pytest.raises(arcp.TransportClosed):
            await with_tracing(ours, tracer=here.tracer).send({"type": "x"})

    run(main)
    status = here.named("arcp.send x").status
    assert (status.status_code, status.description) == (trace.StatusCode.ERROR, "TransportClosed")


def test_what_cannot_be_traced_is_named() -> None:
    for arguments, text in (
        ((None, None), "inner must be a transport, got NoneType"),
        ((arcp.pair_memory_transports()[0], "x"), "tracer must be a tracer of OpenTelemetry, got str"),
    ):
        with pytest.raises(TypeError, match=text):
            with_tracing(arguments[0], tracer=arguments[1])  # type: ignore[arg-type]
