"""How jobs are made to give way."""

import asyncio
import threading
from typing import Any

import pytest

import arcp
from arcp.runtime import JobContext
from conftest import make_client, make_runtime, run, session


def test_an_agent_cleans_up_before_its_job_ends() -> None:
    seen: list[str] = []

    async def agent(value: Any, ctx: JobContext) -> None:
        await ctx.status("running")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append(f"{ctx.cancelled} {ctx.signal.is_set()}")
            await asyncio.sleep(0)
            await ctx.log("info", "cleaned up")
            raise

    async def main() -> None:
        async with session(make_runtime({"agent": agent})) as client:
            handle = await client.submit(agent="agent")
            events = handle.events()
            assert (await anext(events)).kind == "status"
            await client.cancel_job(handle.job_id, reason="enough")
            assert [event["body"] async for event in events] == [{"level": "info", "message": "cleaned up"}]
            with pytest.raises(arcp.CancelledError) as caught:
                await handle.done
            assert caught.value.code == "CANCELLED"

    run(main)
    assert seen == ["True True"]


def test_a_plain_function_sees_the_flag() -> None:
    running = threading.Event()

    def agent(value: Any, ctx: JobContext) -> None:
        running.set()
        while not ctx.cancelled:
            # Emitting is a point where a thread gives way.
            ctx.status("running")
        ctx.log("info", "cleaned up")
        raise arcp.CancelledError("gave way")

    async def main() -> None:
        async with session(make_runtime({"agent": agent})) as client:
            handle = await client.submit(agent="agent")
            await asyncio.to_thread(running.wait, 10)
            await client.cancel_job(handle.job_id)
            with pytest.raises(arcp.CancelledError):
                await handle.done
            assert [event.kind async for event in handle.events()][-1] == "log"

    run(main)


def test_an_agent_that_runs_too_long() -> None:
    async def agent(value: Any, ctx: JobContext) -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        async with session(make_runtime({"agent": agent})) as client:
            handle = await client.submit(agent="agent", max_runtime_sec=1)
            with pytest.raises(arcp.TimeoutError):
                await handle.done

    run(main)


def test_an_agent_that_never_gives_way_is_left_behind() -> None:
    ended = threading.Event()

    async def agent(value: Any, ctx: JobContext) -> None:
        await ctx.status("running")
        try:
            while True:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    if ctx.job.state != "running" or ended.is_set():
                        raise
                    ended.set()
        finally:
            await asyncio.sleep(0)

    async def main() -> None:
        async with session(make_runtime({"agent": agent}, cancel_grace_sec=0.2)) as client:
            handle = await client.submit(agent="agent")
            await anext(handle.events())
            await client.cancel_job(handle.job_id)
            with pytest.raises(arcp.ARCPError):
                await handle.done

    run(main)
    assert ended.is_set()


def test_cancelling_a_waiter_leaves_the_job_alone() -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def agent(value: Any, ctx: JobContext) -> str:
            await go.wait()
            return "done"

        async with session(make_runtime({"agent": agent})) as client:
            handle = await client.submit(agent="agent")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(handle.done, 0.01)
            go.set()
            results = await asyncio.gather(handle.done, handle.done, handle.done)
            assert [result.result for result in results] == ["done"] * 3
            assert (await handle.done).final_status == "success"

    run(main)


def test_a_cancelled_call_is_dropped() -> None:
    from arcp._port import port

    async def main() -> None:
        async def agent(value: Any, ctx: JobContext) -> None:
            await asyncio.Event().wait()

        async with session(make_runtime({"agent": agent})) as client:
            handle = await client.submit(agent="agent")
            here = port()
            before = len(here._calls)

            async def wait() -> None:
                await handle.done

            waiter = asyncio.create_task(wait())
            await asyncio.sleep(0)
            assert len(here._calls) == before + 1
            waiter.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiter
            assert len(here._calls) == before
            await client.cancel_job(handle.job_id)

    run(main)


def test_closing_a_runtime_cancels_its_jobs() -> None:
    async def agent(value: Any, ctx: JobContext) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await ctx.log("info", "stopping")

    begun = asyncio.Event()

    async def main() -> None:
        runtime = make_runtime({"agent": agent})
        async with session(runtime) as client:
            handle = await client.submit(agent="agent")
            await begun.wait()
            await runtime.close()
            await runtime.close()
            with pytest.raises((arcp.CancelledError, arcp.TransportClosed)):
                await handle.done
            assert [event.body["message"] async for event in handle.events()] == ["stopping"]

    run(main)


def test_a_job_cancelled_before_its_agent_began() -> None:
    began: list[str] = []

    async def agent(value: Any, ctx: JobContext) -> None:
        began.append(ctx.job_id)
        await asyncio.Event().wait()

    async def main() -> None:
        runtime = make_runtime({"agent": agent})
        asked = threading.Event()

        async def client(url: str) -> None:
            async with make_client() as client:
                await client.connect(await arcp.WebSocketTransport.connect(url))
                handle = await client.submit(agent="agent")
                await client.cancel_job(handle.job_id)
                with pytest.raises(arcp.AgentNotAvailableError):
                    # Answered behind the cancellation.
                    await client.submit(agent="nobody")
                asked.set()
                with pytest.raises(arcp.CancelledError):
                    await handle.done

        async with await arcp.serve_websocket(runtime.accept, port=0) as server:
            url = server.url
            asking = asyncio.create_task(asyncio.to_thread(run, lambda: client(url)))
            await asyncio.sleep(0)
            # The loop of the agents stands still, so that both arrive in one batch.
            assert asked.wait(10)
            await asking
        assert runtime._running == {}

    run(main)
    assert began == []
