"""Run by the tests of scale: a runtime, and clients that ask much of it. What a client prints is JSON."""

import asyncio
import ctypes
import gc
import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from arcp import ARCPClient, ARCPRuntime, ClientInfo, RuntimeInfo, WebSocketTransport, serve_websocket
from arcp.runtime import JobContext, StaticBearerVerifier

PRINCIPALS = 10
TOKENS = {f"tok{number}": f"user{number}@example.com" for number in range(PRINCIPALS)}


def memory_of(process: int) -> int:
    """Bytes a process has in memory."""
    shown = subprocess.run(["ps", "-o", "rss=", "-p", str(process)], capture_output=True, text=True, check=True)
    return int(shown.stdout) * 1024


def settled_memory() -> dict[str, int]:
    """What this process holds once everything that can be given back is.

    Without the trim the allocator keeps pages that hold nothing, as many as the threads' luck wants, and a leak drowns.
    """
    gc.collect()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
    files = len(os.listdir("/dev/fd"))
    return {"bytes": memory_of(os.getpid()), "files": files}


# The runtime.

meetings: defaultdict[str, list[asyncio.Event]] = defaultdict(list)


async def count_up(end: int, ctx: JobContext) -> int:
    for number in range(end):
        await ctx.progress(number)
    return end


async def meet(value: dict[str, Any], ctx: JobContext) -> int:
    """Returns once so many run at the same time."""
    arrived = meetings[value["name"]]
    arrived.append(asyncio.Event())
    if len(arrived) == value["of"]:
        for event in meetings.pop(value["name"]):
            event.set()
    else:
        await arrived[-1].wait()
    return int(value["number"])


async def whose(value: Any, ctx: JobContext) -> str:
    for number in range(20):
        await ctx.log("info", f"line {number}")
    return ctx.job.submitter_principal


async def memory(value: Any, ctx: JobContext) -> dict[str, int]:
    return settled_memory()


async def serve() -> None:
    runtime = ARCPRuntime(
        runtime=RuntimeInfo(name="scale", version="1"),
        bearer=StaticBearerVerifier(TOKENS),
        max_concurrent_jobs=1000,
        # What has ended is soon forgotten, so that what is left can be compared. Six idle windows end a connection.
        resume_window_sec=1,
        retention_sec=1,
    )
    for agent in (count_up, meet, whose, memory):
        runtime.register_agent(agent.__name__, agent)
    server = await serve_websocket(runtime.accept, host="127.0.0.1", port=0, path="/arcp")
    async with server:
        print(server.url, flush=True)
        await server.serve_forever()


# The clients.


async def connect(url: str, number: int = 0) -> ARCPClient:
    client = ARCPClient(client=ClientInfo(name="scale", version="1"), token=f"tok{number % PRINCIPALS}")
    await client.connect(await WebSocketTransport.connect(url))
    return client


async def read_slowly(url: str, server: int, events: int) -> dict[str, Any]:
    """Reads one job's events more slowly than they are made; how far both processes grew meanwhile."""
    async with await connect(url) as client:
        before = {"client": memory_of(os.getpid()), "server": memory_of(server)}
        peak = dict(before)
        handle = await client.submit(agent="count_up", input=events)
        expected, lagged = 0, 0
        async for event in handle.events():
            if event.kind != "progress":
                # A client that lags is told so.
                lagged += event.kind == "status"
                continue
            assert event.body["current"] == expected, (event.body["current"], expected)
            expected += 1
            if expected % 64 == 0:
                await asyncio.sleep(0.001)
            if expected % (events // 50) == 0:
                peak["client"] = max(peak["client"], memory_of(os.getpid()))
                peak["server"] = max(peak["server"], memory_of(server))
        assert await handle.result() == events
        return {"grew": {name: peak[name] - before[name] for name in peak}, "read": expected, "lagged": lagged}


async def rounds(url: str, count: int, play: Callable[[int], Any]) -> list[dict[str, Any]]:
    """Plays rounds; what both processes hold after each."""
    held = []
    for number in range(count):
        await play(number)
        async with await connect(url) as client:
            # Until all of it has been forgotten.
            while (await client.list_jobs()).jobs:
                await asyncio.sleep(0.05)
            server = await (await client.submit(agent="memory")).result()
        held.append({"client": settled_memory(), "server": server})
    return held


async def jobs_at_once(url: str, jobs: int, count: int) -> list[dict[str, Any]]:
    """So many jobs of one client that run at the same time."""

    async def one(client: ARCPClient, name: str, number: int) -> None:
        handle = await client.submit(agent="meet", input={"name": name, "of": jobs, "number": number})
        assert await handle.result() == number

    async def play(turn: int) -> None:
        async with await connect(url) as client:
            await asyncio.gather(*(one(client, f"round {turn}", number) for number in range(jobs)))

    return await rounds(url, count, play)


async def clients_at_once(url: str, clients: int, count: int) -> list[dict[str, Any]]:
    """So many clients of several principals, each with jobs of its own and nobody else's answers."""

    async def one(client: ARCPClient, number: int) -> None:
        for _ in range(3):
            handle = await client.submit(agent="whose")
            lines = [event.body["message"] async for event in handle.events()]
            assert lines == [f"line {line}" for line in range(20)], lines
            assert await handle.result() == TOKENS[f"tok{number % PRINCIPALS}"]

    async def play(_: int) -> None:
        opened = await asyncio.gather(*(connect(url, number) for number in range(clients)))
        await asyncio.gather(*(one(client, number) for number, client in enumerate(opened)))
        await asyncio.gather(*(client.close() for client in opened))

    return await rounds(url, count, play)


if __name__ == "__main__":
    what, arguments = sys.argv[1], json.loads(sys.argv[2])
    print(json.dumps(asyncio.run(globals()[what](**arguments))))
