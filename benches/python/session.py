"""What the client scripts share; runs in either package."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from arcp import ClientInfo, WebSocketTransport
from arcp.client import ARCPClient


def client(token: str = "tok0", **options: Any) -> ARCPClient:
    return ARCPClient(client=ClientInfo(name="bench", version="1"), token=token, **options)


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[ARCPClient]:
    opened = client()
    await opened.connect(await WebSocketTransport.connect(url))
    try:
        yield opened
    finally:
        await opened.close()


def run(measure: Callable[..., Awaitable[float]]) -> None:
    """Runs a script: its arguments are JSON, what it prints is the figure."""
    figure: Any = asyncio.run(measure(**json.loads(sys.argv[1])))
    print(figure)
