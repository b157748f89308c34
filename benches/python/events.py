"""Events per second of one job into `async for`, each by itself or in batches."""

import time

from session import connected, run


async def measure(url: str, count: int, batch: bool = False) -> float:
    async with connected(url) as client:
        begin = time.perf_counter()
        handle = await client.submit(agent="stream", input=count)
        seen = 0
        if batch:
            async for events in handle.events(batch=True):
                for event in events:
                    seen += event["kind"] == "log"
        else:
            async for event in handle.events():
                # There is a `status` too when a client lags.
                seen += event["kind"] == "log"
        took = time.perf_counter() - begin
        assert seen == count, f"{seen} of {count} events"
        return count / took


run(measure)
