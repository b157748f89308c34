"""Microseconds of one `await ctx.log(...)`, as its agent sees it."""

from session import connected, run


async def measure(url: str, bursts: int) -> float:
    async with connected(url) as client:
        handle = await client.submit(agent="timed", input=bursts)
        return float((await handle.done).result)


run(measure)
