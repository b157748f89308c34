"""Asks the host application for its health over HTTP, then runs a job over its WebSocket route."""

import asyncio
import json
import os
import urllib.request

from arcp import ARCPClient, ClientInfo, WebSocketTransport

URL = os.environ.get("ARCP_DEMO_URL", "ws://127.0.0.1:7777/arcp")
TOKEN = os.environ.get("ARCP_DEMO_TOKEN", "demo-token")


def health() -> dict[str, str]:
    address = URL.replace("ws://", "http://").replace("/arcp", "/health")
    with urllib.request.urlopen(address, timeout=10) as answer:
        read: dict[str, str] = json.load(answer)
        return read


async def main() -> None:
    status = await asyncio.to_thread(health)
    print(f"health: {status['status']}")
    assert status == {"status": "ok"}

    client = ARCPClient(client=ClientInfo(name="host-aiohttp", version="1.0.0"), token=TOKEN)
    async with client:
        await client.connect(await WebSocketTransport.connect(URL))
        handle = await client.submit(agent="echo", input={"hi": 1})
        messages = [event["body"]["message"] async for event in handle.events()]
        result = await handle.done
        print(f"{messages}, {result.final_status}: {result.result}")
        assert messages == ["echo started"]
        assert result.result == {"echoed": {"hi": 1}}


if __name__ == "__main__":
    asyncio.run(main())
