"""KiB by which a server grows with every session that does nothing."""

import asyncio
import subprocess

from session import client, run

from arcp import WebSocketTransport


def kibibytes(process: int) -> int:
    shown = subprocess.run(["ps", "-o", "rss=", "-p", str(process)], capture_output=True, text=True, check=True)
    return int(shown.stdout)


async def open_sessions(url: str, count: int) -> list[object]:
    opened = []
    for number in range(count):
        one = client(f"tok{number % 50}")
        await one.connect(await WebSocketTransport.connect(url))
        opened.append(one)
    return opened


async def measure(url: str, server: int, sessions: int) -> float:
    # The first sessions bring what all use.
    kept = await open_sessions(url, 50)
    before = kibibytes(server)
    kept += await open_sessions(url, sessions)
    await asyncio.sleep(0.2)
    figure = (kibibytes(server) - before) / sessions
    await asyncio.gather(*(one.close() for one in kept))
    return figure


run(measure)
