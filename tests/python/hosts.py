"""Web servers for tests, and a WebSocket in the hands of the test."""

import asyncio
import base64
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import uvicorn


@contextlib.asynccontextmanager
async def uvicorn_serves(app: Any, **options: Any) -> AsyncIterator[int]:
    """Serves an ASGI application on a free port."""
    # Of this very protocol, else the loop leaves its small messages to wait for each other.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="wsproto", **options))
    started = asyncio.Event()
    startup = server.startup

    async def start(*arguments: Any, **named: Any) -> None:
        await startup(*arguments, **named)
        started.set()

    server.startup = start  # type: ignore[method-assign]
    # Else it takes over the signals of the test.
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        await started.wait()
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        await serving
        listening.close()


@contextlib.asynccontextmanager
async def hypercorn_serves(app: Any) -> AsyncIterator[int]:
    """As `uvicorn_serves`, with the server that comes with Quart."""
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    listening = socket.create_server(("127.0.0.1", 0))
    config = Config()
    config.bind = [f"fd://{listening.fileno()}"]
    config.graceful_timeout = 0.1
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(app, config, shutdown_trigger=stop.wait))  # type: ignore[arg-type]
    try:
        yield listening.getsockname()[1]
    finally:
        stop.set()
        await serving
        listening.detach()


class RawSocket:
    """A WebSocket that does only what it is told."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(
        cls, port: int, *, path: str = "/arcp", headers: dict[str, str] | None = None
    ) -> tuple["RawSocket", str]:
        """The socket, and the head of the answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        lines = {
            "Host": f"127.0.0.1:{port}",
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        } | (headers or {})
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
        writer.write(f"GET {path} HTTP/1.1\r\n{head}\r\n".encode())
        answer = await reader.readuntil(b"\r\n\r\n")
        return cls(reader, writer), answer.decode("latin-1")

    async def send(self, data: bytes, *, opcode: int = 1) -> None:
        length = len(data)
        if length < 126:
            head = bytes([0x80 | opcode, 0x80 | length])
        elif length < 1 << 16:
            head = bytes([0x80 | opcode, 0xFE]) + length.to_bytes(2, "big")
        else:
            head = bytes([0x80 | opcode, 0xFF]) + length.to_bytes(8, "big")
        self.writer.write(head + bytes(4) + data)
        await self.writer.drain()

    async def say(self, message: dict[str, Any]) -> None:
        await self.send(json.dumps(message).encode())

    async def frame(self) -> tuple[int, bytes]:
        """Opcode and data of the next frame."""
        first, second = await self.reader.readexactly(2)
        length = second & 0x7F
        if length > 125:
            length = int.from_bytes(await self.reader.readexactly(2 if length == 126 else 8), "big")
        return first & 0x0F, await self.reader.readexactly(length)

    async def hear(self, wanted: Callable[[dict[str, Any]], bool] = lambda _: True) -> dict[str, Any]:
        """The next message that is wanted."""
        while True:
            opcode, data = await self.frame()
            assert opcode in (1, 9), (opcode, data)
            if opcode == 1:
                message: dict[str, Any] = json.loads(data)
                if wanted(message):
                    return message

    def abort(self) -> None:
        self.writer.transport.abort()


def hello(token: str, **members: Any) -> dict[str, Any]:
    return {
        "arcp": "1.1",
        "id": "msg_01JX3000000000000000000001",
        "type": "session.hello",
        "payload": {
            "client": {"name": "raw", "version": "1"},
            "auth": {"scheme": "bearer", "token": token},
            "capabilities": {"encodings": ["json"], "features": ["progress", "ack"]},
            **members,
        },
    }


def submit(agent: str, value: Any = None, number: int = 2) -> dict[str, Any]:
    return {
        "arcp": "1.1",
        "id": f"msg_01JX30000000000000000{number:05d}",
        "type": "job.submit",
        "payload": {"agent": agent, "input": value},
    }
