"""Takes the events of one job with `async for`; prints how many and how many seconds it took."""

import asyncio
import sys
import time

from arcp import ARCPClient, ClientInfo, WebSocketTransport

EVENTS = 400_000


async def main(url: str) -> None:
    transport = await WebSocketTransport.connect(url)
    client = ARCPClient(client=ClientInfo(name="bench", version="1"), token="tok")
    await client.connect(transport)
    start = time.perf_counter()
    handle = await client.submit(agent="stream", input=EVENTS)
    count = 0
    async for event in handle.events():
        # The runtime adds one `status` when its client lags.
        count += event.kind == "log"
    took = time.perf_counter() - start
    assert count == EVENTS, count
    await client.close()
    print(count, took)


asyncio.run(main(sys.argv[1]))
