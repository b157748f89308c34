"""A runtime with the agents the rows need, in either package; durable with the path of a database as its argument."""

import asyncio
import inspect
import statistics
import sys
import time

from arcp import RuntimeInfo, serve_websocket
from arcp.runtime import ARCPRuntime, StaticBearerVerifier

# Many principals: one of them may not hold any number of sessions.
TOKENS = {f"tok{number}": f"user{number}" for number in range(50)}
LINE = "an agent says something that is about as long as such lines are"
PIECE = 256 * 1024
BURST = 800


async def echo(value, ctx):
    return value


async def stream(count, ctx):
    for _ in range(count):
        await ctx.log("info", LINE)


async def timed(bursts, ctx):
    """Says something in bursts that no client lags behind; how many microseconds a line took, in the agent's eyes."""
    took = []
    for _ in range(bursts):
        begin = time.perf_counter()
        for _ in range(BURST):
            await ctx.log("info", LINE)
        took.append(time.perf_counter() - begin)
        # The burst leaves before the next one.
        await asyncio.sleep(0.01)
    return statistics.median(took) / BURST * 1e6


async def chunks(value, ctx):
    """Streams so many bytes, as text or as bytes."""
    piece = "x" * PIECE if value["text"] else bytes(PIECE)
    left = value["bytes"]
    async with ctx.stream_result() as out:
        while left > 0:
            await out.write(piece[:left])
            left -= PIECE


def runtime(database: str | None) -> ARCPRuntime:
    options = {"runtime": RuntimeInfo(name="bench", version="1"), "bearer": StaticBearerVerifier(TOKENS)}
    if database is not None and "db" in inspect.signature(ARCPRuntime).parameters:
        options["db"] = database
    elif database is not None:
        from arcp.runtime import SqliteEventLog

        options["event_log"] = SqliteEventLog(database)
    made = ARCPRuntime(**options)
    for agent in (echo, stream, timed, chunks):
        made.register_agent(agent.__name__, agent)
    return made


async def main(database: str | None = None) -> None:
    server = await serve_websocket(runtime(database).accept, host="127.0.0.1", port=0, path="/arcp")
    async with server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


asyncio.run(main(*sys.argv[1:]))
