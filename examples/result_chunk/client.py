"""Takes a result that comes in parts: whole, and part by part."""

import asyncio
import os

from arcp import ARCPClient, ClientInfo, WebSocketTransport

URL = os.environ.get("ARCP_DEMO_URL", "ws://127.0.0.1:7777/arcp")
TOKEN = os.environ.get("ARCP_DEMO_TOKEN", "demo-token")


async def main() -> None:
    client = ARCPClient(client=ClientInfo(name="result-chunk", version="1.0.0"), token=TOKEN)
    async with client:
        await client.connect(await WebSocketTransport.connect(URL))
        handle = await client.submit(agent="export", input={"rows": 30})
        data = await handle.collect_chunks()
        result = await handle.done
        print(f"{len(data)} bytes, {result.result_size} announced: {result.summary}")
        assert len(data) == result.result_size
        assert data.decode().splitlines()[-1] == "29,841"
        assert result.result_id
        assert result.result is None
        assert result.summary == "30 rows of squares"

        # For a result that is longer than memory.
        handle = await client.submit(agent="export", input={"rows": 30})
        parts = [chunk["data"] async for chunk in handle.chunks()]
        print(f"{len(parts)} parts")
        assert "".join(parts).encode() == data
        assert len(parts) >= 30


if __name__ == "__main__":
    asyncio.run(main())
