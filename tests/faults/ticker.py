"""Agents that say where they are, hosted by `arcp serve --app ticker:runtime` to be killed, cut and held up."""

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from arcp import ARCPRuntime, RuntimeInfo
from arcp.runtime import JobContext, StaticBearerVerifier

# Which start of the server this is: what an earlier one said is told from what this one says.
LIFE = int(os.environ["ARCP_FAULTS_LIFE"])
STOP = Path(os.environ["ARCP_FAULTS_FOLDER"], "stop")


async def tick(value: dict[str, Any], ctx: JobContext) -> Any:
    """Says `LIFE index` until the file `stop` exists or `ticks` were said."""
    index = 0
    while index != value["ticks"] and not STOP.exists():
        await ctx.log("info", f"{LIFE} {index}")
        index += 1
        await asyncio.sleep(0.01)
    return {"life": LIFE, "ticks": index}


async def spread(value: dict[str, Any], ctx: JobContext) -> Any:
    """Says `LIFE index`, `ticks` times, evenly over so many `seconds`."""
    begun = time.monotonic()
    for index in range(value["ticks"]):
        await ctx.log("info", f"{LIFE} {index}")
        early = value["seconds"] * index / value["ticks"] - (time.monotonic() - begun)
        if early > 0.01:
            await asyncio.sleep(early)
    return {"life": LIFE, "ticks": value["ticks"]}


async def chatter(value: dict[str, Any], ctx: JobContext) -> Any:
    """Says `bytes` in events of 1 KiB, as fast as it is let."""
    for _ in range(value["bytes"] // 1024):
        await ctx.log("info", "x" * 1024)
    return "all said"


async def echo(value: Any, ctx: JobContext) -> Any:
    """On the loop, as the others are: it shows how long that is kept from somebody else's job."""
    return value


def make(**options: Any) -> ARCPRuntime:
    """A runtime with these agents, "again" the one that outlives its process."""
    runtime = ARCPRuntime(
        runtime=RuntimeInfo(name="ticker", version="1.0"),
        bearer=StaticBearerVerifier({"tok-faults": "faults@example.com"}),
        **options,
    )
    runtime.register_agent("again", tick, restartable=True)
    runtime.register_agent("once", tick)
    runtime.register_agent("spread", spread)
    runtime.register_agent("chatter", chatter)
    return runtime.register_agent("echo", echo)


def runtime() -> ARCPRuntime:
    """As it comes."""
    return make()


def watchful() -> ARCPRuntime:
    """Gives a silent client up after two seconds."""
    return make(heartbeat_interval_sec=1)
