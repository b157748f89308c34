"""The agents of both runtimes; what they call is the same in both packages."""

import asyncio
from decimal import Decimal

gates: dict[str, asyncio.Event] = {}


def gate(name: str) -> asyncio.Event:
    return gates.setdefault(name, asyncio.Event())


async def echo(value, ctx):
    await ctx.log("info", "echo started")
    return {"echoed": value}


async def spender(value, ctx):
    """Spends in steps until the money is gone, and says what was left before each."""
    left = []
    for _ in range(10):
        ctx.authorize("tool.call", "model", cost={"USD": Decimal(str(value))})
        left.append(str(ctx.budget["USD"]))
        await ctx.metric({"name": "cost.inference", "value": value, "unit": "USD"})
    return left


async def sleeper(value, ctx):
    await ctx.status("sleeping")
    await asyncio.sleep(3600)


async def chatty(value, ctx):
    """Says so many numbers, then waits for the gate of its name if there is one, then says as many more."""
    for number in range(value["events"]):
        await ctx.progress(number)
    if "gate" in value:
        await gate(value["gate"]).wait()
        for number in range(value["events"], 2 * value["events"]):
            await ctx.progress(number)
    return "said"


async def opener(value, ctx):
    gate(value).set()
    return value


async def streams(value, ctx):
    async with ctx.stream_result() as out:
        await out.write("one,")
        await out.write(b"\xfftwo")
        await out.write("three" * value)


async def failing(value, ctx):
    raise RuntimeError("boom")


ALL = {agent.__name__: agent for agent in (echo, spender, sleeper, chatty, opener, streams, failing)}
