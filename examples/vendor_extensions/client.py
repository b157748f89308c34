"""Runs one job with a handler that knows the vendor's events and one with a handler that does not."""

import asyncio
import os
from collections.abc import Callable

from arcp import ARCPClient, ClientInfo, WebSocketTransport
from arcp.client import JobEvent

URL = os.environ.get("ARCP_DEMO_URL", "ws://127.0.0.1:7777/arcp")
TOKEN = os.environ.get("ARCP_DEMO_TOKEN", "demo-token")


def handle_naively(event: JobEvent) -> str | None:
    """Knows the protocol's kinds; whatever else comes is not its business."""
    return event["body"]["phase"] if event["kind"] == "status" else None


def handle_awarely(event: JobEvent) -> str | None:
    """Knows this vendor's kind too."""
    if event["kind"] == "x-vendor.acme.progress":
        return f"{event['body']['pages']} pages"
    return handle_naively(event)


async def run(client: ARCPClient, show: Callable[[JobEvent], str | None]) -> list[str]:
    handle = await client.submit(agent="crawl", lease_request={"x-vendor.acme.metrics": ["crawl/**"]})
    shown = []
    async for event in handle.events():
        if (text := show(event)) is not None:
            shown.append(text)
    result = await handle.done
    print(f"{show.__name__}: {', '.join(shown)}; {result.final_status}")
    assert result.final_status == "success"
    return shown


async def main() -> None:
    client = ARCPClient(client=ClientInfo(name="vendor-extensions", version="1.0.0"), token=TOKEN)
    async with client:
        await client.connect(await WebSocketTransport.connect(URL))
        naive = await run(client, handle_naively)
        aware = await run(client, handle_awarely)

        assert naive == ["started", "finished"]
        assert aware == ["started", "10 pages", "20 pages", "30 pages", "finished"]


if __name__ == "__main__":
    asyncio.run(main())
