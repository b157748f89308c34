"""A registry's sockets, as async iterators of what they say (REG-055, REG-056, REG-060)."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from types import TracebackType
from typing import Any, Self

from arcp import _native
from arcp._check import expect
from arcp._port import BATCH, numbers, port

__all__ = ["RegistryStream"]


class RegistryStream:
    """The messages of one socket, for `async for`; begun by the first `async for`.

    A connection that is lost is made anew. The socket closes as soon as nobody holds the stream, so `break` is enough;
    `async with` and `aclose` do it where the stream is kept. A reader that is slow is dropped by the registry in time.
    """

    def __init__(self, core: _native.RegistryHttp, kind: str, options: str) -> None:
        """Made by `RegistryClient`."""
        self._open = (core, kind, options)
        self._socket: _native.RegistrySocket | None = None
        self._stream = next(numbers)
        self._ready: deque[str] = deque()
        self._given = 0
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        """The next message. `StopAsyncIteration` after `aclose`; what the socket's failure raises."""
        ready = self._ready
        if self._given >= BATCH:
            # Other tasks run too.
            self._given = 0
            await asyncio.sleep(0)
        if not ready:
            await self._fill()
        if not ready:
            raise StopAsyncIteration
        self._given += 1
        return json.loads(ready.popleft())

    async def _fill(self) -> None:
        socket = self._connected()
        while socket is not None:
            here = port()
            batch = socket.next_batch(here.native, self._stream, BATCH)
            if batch is None:
                return
            if batch:
                self._ready.extend(batch)
                return
            await here.readable(self._stream)

    def _connected(self) -> _native.RegistrySocket | None:
        if self._closed:
            return None
        if self._socket is None:
            core, kind, options = self._open
            self._socket = core.open_socket(kind, options)
        return self._socket

    async def send(self, message: Any) -> None:
        """Sends a command: a text as it is, anything else as JSON, such as `{"type": "get_discovery", "page": 2}`."""
        socket = self._connected()
        if socket is None:
            raise RuntimeError("the stream is closed; open another")
        socket.send(
            message if isinstance(message, str) else _native.encode(expect("message", message, dict), "message")
        )

    async def aclose(self) -> None:
        """Closes the socket at once. Idempotent."""
        self._closed = True
        self._ready.clear()
        if self._socket is not None:
            self._socket.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
