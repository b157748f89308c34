"""A registry that says what a test tells it to, and keeps what it was asked."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

DROP = "drop"
"""An answer: the connection ends."""
HANG = "hang"
"""An answer: nothing comes."""

AGENT: dict[str, Any] = {
    "agent_id": "a-1",
    "name": "Agent A",
    "agent_type": "testing",
    "endpoint": "http://h.example",
    "capabilities": ["echo"],
    "context_brief": "A context brief here",
    "version": "1.0.0",
    "owner": "Own",
    "public_key": "k" * 32,
    "metadata": {"a": "b"},
    "communication_mode": "remote",
    "status": "alive",
    "last_seen": "2025-01-01T00:00:00",
    "registered_at": "2025-01-01T00:00:00",
}


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    params: list[tuple[str, str]]
    headers: dict[str, str]
    json: Any

    @property
    def line(self) -> str:
        return f"{self.method} {self.path}"


Answer = Any
"""A JSON value for 200, a text, `(status, value)`, `(status, value, headers)`, DROP or HANG."""


@dataclass
class Peer:
    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    answer: Callable[[Asked], Answer] = lambda asked: {}

    def lines(self) -> list[str]:
        return [asked.line for asked in self.asked]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while asked := await _read(reader):
                self.asked.append(asked)
                answer = self.answer(asked)
                if answer == DROP:
                    return
                if answer == HANG:
                    await reader.read()
                    return
                writer.write(_written(answer))
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            return
        finally:
            writer.close()


async def _read(reader: asyncio.StreamReader) -> Asked | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
    except asyncio.IncompleteReadError:
        return None
    first, *rest = head.split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest if line)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    parts = urlsplit(target)
    value = json.loads(body) if body else None
    return Asked(method, parts.path, parse_qsl(parts.query, keep_blank_values=True), headers, value)


def _written(answer: Answer) -> bytes:
    status, value, headers = 200, answer, {}
    if isinstance(answer, tuple):
        status, value, headers = (*answer, {})[:3]
    if isinstance(value, str):
        body, kind = value.encode(), "text/plain"
    else:
        body, kind = json.dumps(value).encode(), "application/json"
    headers = {"Content-Type": kind, "Content-Length": str(len(body)), **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} Said\r\n{lines}\r\n".encode() + body


@contextlib.asynccontextmanager
async def scripted(answer: Answer | Callable[[Asked], Answer]) -> AsyncIterator[Peer]:
    """A peer that answers every request so, or as the function says."""
    said: Callable[[Asked], Answer] = answer if callable(answer) else lambda asked: answer
    peer = Peer(answer=said)
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
    peer.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield peer
    finally:
        server.close()


def by_path(answers: dict[str, Answer]) -> Callable[[Asked], Answer]:
    """Answers by the beginning of `METHOD /path`, the longest first; 404 for others."""
    keys = sorted(answers, key=len, reverse=True)

    def answer(asked: Asked) -> Answer:
        for key in keys:
            if asked.line.startswith(key):
                return answers[key]
        return 404, {"detail": "Not Found"}

    return answer
