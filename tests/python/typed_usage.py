"""What type checkers make of the package: read by mypy and pyright in `test_typing.py`, and not run.

A line with an `ignore` is one they must refuse.
"""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any, Literal, assert_type

from pydantic import BaseModel

from arcp import AgentInfo, AgentMetrics, ARCPClient, ARCPError, ClientInfo, SessionResume
from arcp.client import JobHandle
from arcp.events import Event, JobEvent, LogBody, LogEvent, MetricEvent, ProgressBody, ProgressEvent, VendorEvent
from arcp.messages import EventPayload, JobResultPayload, LogPayload, parse_event
from arcp.runtime import JobContext
from arcp.sync import Registry


class Report(BaseModel):
    pages: int


async def by_kind(handle: JobHandle[Any]) -> None:
    async for event in handle.events():
        assert_type(event, Event)
        assert_type(event.ts, str)
        if event.kind == "log":
            assert_type(event, LogEvent)
            assert_type(event.body, LogBody)
            assert_type(event.body.level, str)
        elif event.kind == "progress":
            assert_type(event.body, ProgressBody)
        elif event["kind"] == "x-vendor.acme.thing" and event.kind == "x-vendor.*":
            assert_type(event, VendorEvent)
        match event.kind:
            case "metric":
                assert_type(event.body.value, float)
            case _:
                assert_type(event["kind"], str)


async def by_class(handle: JobHandle[Any]) -> None:
    async for event in handle.events():
        if isinstance(event, LogEvent):
            assert_type(event.kind, Literal["log"])
            assert_type(event.body, LogBody)
            assert_type(event.body.level, str)
            assert_type(event.body.attributes, dict[str, Any] | None)
            assert_type(event["kind"], str)
            assert_type(event["body"], LogBody)
            assert_type(event["ts"], str)
            event.body.levle  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType] # noqa: B018
        elif isinstance(event, VendorEvent):
            assert_type(event["kind"] == "x-vendor.acme.thing", bool)
            assert_type(event.body, Any)


async def by_pattern(events: AsyncIterator[Event]) -> list[str]:
    seen: list[str] = []
    async for event in events:
        match event:
            # Pyright takes keywords for wrong in patterns of any dict; they work.
            case LogEvent(body=body):  # pyright: ignore[reportGeneralTypeIssues]
                assert_type(body, LogBody)
                seen.append(body.message)
            case ProgressEvent():
                assert_type(event.body, ProgressBody)
                assert_type(event.body.total, float | None)
            case MetricEvent():
                assert_type(event.body.value, float)
            case _:
                seen.append(event.ts)
    return seen


def kind_of(event: JobEvent) -> str:
    assert_type(event.kind, str)
    return event.kind


async def batches(handle: JobHandle[Any]) -> None:
    async for batch in handle.events(batch=True):
        assert_type(batch, list[Event])
    async for event in handle.events(batch=False):
        assert_type(kind_of(event), str)
    async for chunk in handle.chunks():
        assert_type(chunk.encoding, Literal["utf8", "base64"])
        assert_type(chunk.data, str)


async def results(client: ARCPClient) -> None:
    plain = await client.submit(agent="report")
    assert_type(plain, JobHandle[Any])
    assert_type((await plain.done).result, Any)
    typed = await client.submit(agent="report", input={"week": "2026-W19"}, result_type=Report)
    assert_type(typed, JobHandle[Report])
    end = await typed.done
    assert_type(end, JobResultPayload[Report])
    assert_type(end.result.pages, int)
    assert_type((await typed.result()).pages, int)
    assert_type(await (await client.submit(agent="count", result_type=list[int])).result(), list[int])
    assert_type(typed.budget, dict[str, str] | None)
    assert_type(typed.budget_amounts, dict[str, Decimal] | None)
    unparametrized: JobHandle = plain
    assert_type(unparametrized, JobHandle[Any])


def checked(event: Event) -> str:
    payload = parse_event(event)
    assert_type(payload, EventPayload)
    if isinstance(payload, LogPayload):
        return payload.body.message
    match payload.kind:
        case "log":
            return "log"
        case _:
            return payload.ts


async def agent(value: Any, ctx: JobContext) -> Report:
    await ctx.log("info", "hello", week=value)
    await ctx.progress(1, total=2)
    await ctx.metric("cost.llm", Decimal("0.10"), "USD")
    await ctx.progress("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(ctx.job.session.negotiated_features, tuple[str, ...])
    assert_type(ctx.budget, dict[str, Decimal])
    return Report(pages=1)


resume = SessionResume(session_id="s", resume_token="t")


async def found_agents(client: ARCPClient) -> None:
    assert_type(await client.health_check(), dict[str, Any])
    agents = await client.discover_agents(capabilities=["text-analysis"], limit=10)
    assert_type(agents, list[AgentInfo])
    assert_type(agents[0].capabilities, list[str])
    assert_type(agents[0].metrics, AgentMetrics | None)
    found = await client.search_agents("words", weighted=True)
    assert_type(found[0].similarity, float | None)
    assert_type(await client.start_heartbeat_task("a-1"), asyncio.Task[None])
    async for message in client.websocket_public():
        assert_type(message, Any)
    await client.search_agents(8)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def two_halves() -> None:
    info = ClientInfo(name="a", version="1")
    assert_type(ARCPClient("http://localhost:8001"), ARCPClient)
    assert_type(ARCPClient("http://localhost:8001", client=info, token="t"), ARCPClient)
    assert_type(ARCPClient(client=info, token="t"), ARCPClient)
    ARCPClient(timeout=5.0)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]


class Pooled(ARCPClient):
    async def _ensure_client(self) -> None:
        self._client = object()


def without_a_loop() -> None:
    with Registry("http://localhost:8001") as registry:
        assert_type(registry.health_check(), dict[str, Any])
        assert_type(registry.discover_agents(limit=1), list[AgentInfo])
        registry.discover_agents(limits=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def refused(error: ARCPError) -> int | None:
    assert_type(error.details, dict[str, Any] | None)
    return error.status_code
