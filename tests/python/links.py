"""Connections that are lost on purpose, and agents that go on when they are told to."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import arcp
from arcp.runtime import JobContext
from conftest import make_client


class Cutter:
    """A way to a server that can be cut, and closed to new connections."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._writers: set[asyncio.StreamWriter] = set()
        self.open = True
        self.connections = 0
        self.refused = 0

    @contextlib.asynccontextmanager
    async def listen(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._join, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        try:
            yield f"ws://{host}:{port}/arcp"
        finally:
            server.close()
            self.cut()

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.open:
            self.refused += 1
            writer.close()
            return
        self.connections += 1
        onward_reader, onward_writer = await asyncio.open_connection(*self._target)
        self._writers |= {writer, onward_writer}
        await asyncio.gather(self._carry(reader, onward_writer), self._carry(onward_reader, writer))
        self._writers -= {writer, onward_writer}

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def behind_a_cutter(runtime: arcp.ARCPRuntime) -> AsyncIterator[tuple[Cutter, str]]:
    async with await arcp.serve_websocket(runtime.accept, port=0) as server:
        cutter = Cutter(server.sockets[0].getsockname())
        async with cutter.listen() as url:
            yield cutter, url
    await runtime.close()


class Steps:
    """An agent that goes on when it is told to."""

    def __init__(self) -> None:
        self.told = asyncio.Semaphore(0)

    def tell(self, steps: int) -> None:
        for _ in range(steps):
            self.told.release()

    async def __call__(self, value: Any, ctx: JobContext) -> str:
        for number in range(value):
            await self.told.acquire()
            await ctx.progress(number)
        return "done"


_accepting: set[asyncio.Task[None]] = set()


def accept(runtime: arcp.ARCPRuntime, transport: arcp.Transport) -> None:
    """Has the runtime serve one connection, for as long as that lasts."""
    task = asyncio.create_task(runtime.accept(transport))
    _accepting.add(task)
    task.add_done_callback(_accepting.discard)


async def resumable(runtime: arcp.ARCPRuntime, **options: Any) -> tuple[arcp.ARCPClient, arcp.Transport]:
    """A client over memory, whose link can be lost by closing the transport."""
    ours, theirs = arcp.pair_memory_transports()
    client = make_client(**options)
    accept(runtime, theirs)
    await client.connect(ours)
    return client, ours


async def take_up(
    runtime: arcp.ARCPRuntime, client: arcp.ARCPClient, *, last_event_seq: int = 0, **changes: Any
) -> arcp.ARCPClient:
    assert client.welcome is not None
    resume = arcp.SessionResume(
        **{
            "session_id": client.welcome.session_id,
            "resume_token": client.welcome.resume_token,
            "last_event_seq": last_event_seq,
            **changes,
        }
    )
    ours, theirs = arcp.pair_memory_transports()
    accept(runtime, theirs)
    another = make_client()
    await another.resume(ours, resume=resume)
    return another
