"""Jobs per second from submit to result, so many of them in flight."""

import asyncio
import time

from session import connected, run


async def measure(url: str, in_flight: int, seconds: float) -> float:
    done = 0

    async def one_after_another(end: float) -> None:
        nonlocal done
        while time.perf_counter() < end:
            handle = await client.submit(agent="echo", input={"hi": 1})
            result = await handle.done
            assert result.result == {"hi": 1}, result
            done += 1

    async with connected(url) as client:
        # The first jobs meet cold code.
        await asyncio.gather(*(one_after_another(time.perf_counter() + 0.2) for _ in range(in_flight)))
        done = 0
        begin = time.perf_counter()
        await asyncio.gather(*(one_after_another(begin + seconds) for _ in range(in_flight)))
        return done / (time.perf_counter() - begin)


run(measure)
