"""Megabytes per second of a result that an agent streams and a client puts together."""

import time

from session import connected, run


async def measure(url: str, bytes: int, text: bool) -> float:
    async with connected(url) as client:
        begin = time.perf_counter()
        handle = await client.submit(agent="chunks", input={"bytes": bytes, "text": text})
        got = await handle.collect_chunks()
        took = time.perf_counter() - begin
        assert len(got) == bytes, len(got)
        return bytes / took / 1e6


run(measure)
