"""Agents that are async generators: they yield their events and the parts of their result (D-6)."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

import arcp
from arcp.runtime import JobContext
from conftest import make_runtime, run, session

Yields = AsyncGenerator[Any, None]


def of(agent: Any, use: Any) -> None:
    async def main() -> None:
        async with session(make_runtime({"agent": agent})) as client:
            await use(await client.submit(agent="agent", input=3))

    run(main)


def test_what_it_yields_are_events_and_the_parts_of_its_result() -> None:
    async def agent(count: int, ctx: JobContext) -> Yields:
        for n in range(count):
            yield {"kind": "progress", "body": {"current": n, "total": count}}
            yield f"part {n}\n"
        await ctx.log("info", "done")

    async def use(handle: arcp.client.JobHandle[Any]) -> None:
        seen = [(event.kind, event.body.get("current")) async for event in handle.events()]
        assert seen == [("progress", 0), ("progress", 1), ("progress", 2), ("log", None)]
        assert await handle.collect_chunks() == b"part 0\npart 1\npart 2\n"
        assert (await handle.done).result_size == 21

    of(agent, use)


def test_bytes_stay_bytes_and_a_callable_object_will_do() -> None:
    class Agent:
        async def __call__(self, count: int, ctx: JobContext) -> Yields:
            for _ in range(count):
                yield b"\x00\xff"

    async def use(handle: arcp.client.JobHandle[Any]) -> None:
        assert await handle.collect_chunks() == b"\x00\xff" * 3

    of(Agent(), use)
    of(lambda count, ctx: Agent()(count, ctx), use)


def test_without_parts_the_result_is_null() -> None:
    async def agent(count: int, ctx: JobContext) -> Yields:
        yield {"kind": "log", "body": {"level": "info", "message": "only this"}}

    async def use(handle: arcp.client.JobHandle[Any]) -> None:
        assert (await handle.done).result is None

    of(agent, use)


def test_one_that_fails_midway_has_no_result() -> None:
    closed: list[bool] = []

    async def raises(count: int, ctx: JobContext) -> Yields:
        yield "half"
        raise ValueError("no more")

    async def odd(count: int, ctx: JobContext) -> Yields:
        try:
            yield "half"
            yield 3
        finally:
            closed.append(True)

    async def refused(handle: arcp.client.JobHandle[Any]) -> None:
        with pytest.raises(arcp.InternalError, match="ValueError: no more"):
            await handle.done

    async def wrong(handle: arcp.client.JobHandle[Any]) -> None:
        with pytest.raises(arcp.InternalError, match=r"yields text or bytes.*got int"):
            await handle.done

    of(raises, refused)
    of(odd, wrong)
    assert closed == [True]


def test_a_cancelled_one_may_clean_up() -> None:
    cleaned: list[str] = []

    async def agent(count: int, ctx: JobContext) -> Yields:
        try:
            while True:
                yield {"kind": "status", "body": {"phase": "working"}}
                await asyncio.sleep(0.001)
        finally:
            cleaned.append("up")

    async def main() -> None:
        async with session(make_runtime({"agent": agent})) as client:
            handle = await client.submit(agent="agent")
            async for _ in handle.events():
                break
            await client.cancel_job(handle.job_id)
            with pytest.raises(arcp.CancelledError):
                await handle.done

    run(main)
    assert cleaned == ["up"]
