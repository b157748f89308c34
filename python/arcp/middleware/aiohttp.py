"""Serves a runtime inside an `aiohttp` application, or with one of its own."""

import weakref
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

from arcp._port import logger
from arcp._pump import CLOSE_SEC, TextTransport
from arcp.errors import TransportClosed
from arcp.middleware._host import LOOPBACK, SUBPROTOCOLS, AllowedHosts, expect_runtime, is_private, require
from arcp.transport import MAX_MESSAGE_BYTES

if TYPE_CHECKING:
    from aiohttp import web

    from arcp.runtime import ARCPRuntime

__all__ = ["arcp_aiohttp_handler", "serve_arcp_aiohttp"]


def arcp_aiohttp_handler(
    runtime: "ARCPRuntime", *, allowed_hosts: Iterable[str] | None = None
) -> "Callable[[web.Request], Awaitable[web.StreamResponse]]":
    """A handler for `app.router.add_get(path, handler)`.

    Every connection is one `runtime.accept`, on the application's event loop. `allowed_hosts` are the names or
    addresses a request's `Host` may be, with a port (`localhost:8080`, `[::1]:8080`) where that has to match too;
    others get status 403 (R-4.9), and `None` lets any in. A message is bounded to 16 MiB.

    aiohttp waits for open connections when it stops, so close the runtime in the application's `on_shutdown`.

    `ModuleNotFoundError` without aiohttp; `TypeError` for what is no runtime; `ValueError` for an entry that is no
    host.
    """
    return _Handler(runtime, allowed_hosts).serve


async def serve_arcp_aiohttp(
    runtime: "ARCPRuntime",
    *,
    host: str = "127.0.0.1",
    port: int = 7777,
    path: str = "/arcp",
    allowed_hosts: Iterable[str] | None = None,
) -> "web.AppRunner":
    """Listens with an application of its own, and returns its started `AppRunner`.

    Port 0 takes a free one: `runner.addresses[0]` tells which. With `allowed_hosts` of `None`, a server on this
    machine alone (`127.0.0.1`, `::1`, `localhost`) answers to these names, any other to all (R-4.10). `await
    runner.cleanup()` stops it at once: connections are cut, and their sessions can be taken up again, unless the
    runtime was closed first.

    Raises as `arcp_aiohttp_handler`, and `OSError` when the port is in use.
    """
    if allowed_hosts is None and host in LOOPBACK:
        allowed_hosts = LOOPBACK
    handler = _Handler(runtime, allowed_hosts)
    app = handler.web.Application()
    app.router.add_get(path, handler.serve)
    app.on_shutdown.append(handler.leave)
    runner: web.AppRunner = handler.web.AppRunner(app)
    await runner.setup()
    try:
        await handler.web.TCPSite(runner, host, port).start()
    except BaseException:
        await runner.cleanup()
        raise
    return runner


class _Handler:
    def __init__(self, runtime: "ARCPRuntime", allowed_hosts: Iterable[str] | None) -> None:
        self.web = require("aiohttp.web", "aiohttp", "arcp.middleware.aiohttp")
        expect_runtime(runtime)
        self._runtime = runtime
        self._hosts = AllowedHosts(allowed_hosts)
        self._connections: weakref.WeakSet[_Connection] = weakref.WeakSet()

    async def serve(self, request: "web.Request") -> "web.StreamResponse":
        if not self._hosts.allow(request.headers.getall("Host", [])):
            raise self.web.HTTPForbidden(text="this Host is not allowed")
        socket = self.web.WebSocketResponse(
            protocols=SUBPROTOCOLS, max_msg_size=MAX_MESSAGE_BYTES, compress=False, timeout=CLOSE_SEC
        )
        await socket.prepare(request)
        connection = _Connection(socket, is_private(request.scheme, request.remote, request.headers))
        self._connections.add(connection)
        await self._runtime.accept(connection)
        response: web.StreamResponse = socket
        return response

    async def leave(self, _: "web.Application") -> None:
        """Cuts every connection, for a server that stops."""
        for connection in tuple(self._connections):
            await connection.close()


class _Connection(TextTransport):
    """One accepted WebSocket of aiohttp."""

    def __init__(self, socket: Any, private: bool) -> None:
        self._socket = socket
        self.is_private = private
        self.is_closed = False

    async def send_text(self, frame: str) -> None:
        try:
            await self._socket.send_str(frame)
        except (OSError, RuntimeError) as error:
            # It has an error of either kind for a peer that has gone.
            logger.debug("a connection ended while something was sent: %s", type(error).__name__)
            raise TransportClosed("the connection is closed") from error

    async def recv_text(self) -> str:
        message = await self._socket.receive()
        match message.type.name:
            case "TEXT":
                return str(message.data)
            case "BINARY":
                try:
                    return str(message.data.decode())
                except UnicodeDecodeError:
                    # What is no text is no message, and the core says so.
                    return "(no UTF-8)"
        raise TransportClosed("the peer has closed the connection")

    async def close(self) -> None:
        self.is_closed = True
        await self._socket.close()
