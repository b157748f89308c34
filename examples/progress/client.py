"""Draws a bar of how far a job has come."""

import asyncio
import os
import sys

from arcp import ARCPClient, ClientInfo, WebSocketTransport

URL = os.environ.get("ARCP_DEMO_URL", "ws://127.0.0.1:7777/arcp")
TOKEN = os.environ.get("ARCP_DEMO_TOKEN", "demo-token")


def draw(current: int, total: int, units: str) -> None:
    """Over the line before on a terminal, below it elsewhere."""
    start = "\r" if sys.stdout.isatty() else ""
    end = "" if sys.stdout.isatty() and current < total else "\n"
    print(f"{start}[{'#' * current}{'.' * (total - current)}] {current}/{total} {units}", end=end, flush=True)


async def main() -> None:
    client = ARCPClient(client=ClientInfo(name="progress", version="1.0.0"), token=TOKEN)
    async with client:
        await client.connect(await WebSocketTransport.connect(URL))
        handle = await client.submit(agent="indexer")
        seen = []
        async for event in handle.events():
            body = event["body"]
            seen.append(body["current"])
            draw(body["current"], body["total"], body["units"])
        result = await handle.done
        print(f"{result.final_status}: {result.result}")

        assert seen == list(range(1, 11))
        assert result.final_status == "success"


if __name__ == "__main__":
    asyncio.run(main())
