"""Serves a runtime inside an ASGI application: Starlette, FastAPI, Litestar, Quart, or none."""

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any

from arcp._port import logger
from arcp._pump import TextTransport
from arcp.errors import TransportClosed
from arcp.middleware._host import AllowedHosts, choose_subprotocol, expect_runtime, is_private
from arcp.transport import MAX_MESSAGE_BYTES

if TYPE_CHECKING:
    from arcp.runtime import ARCPRuntime

__all__ = ["arcp_asgi_app"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

NORMAL, POLICY, TOO_BIG = 1000, 1008, 1009
"""Close codes of RFC 6455."""


class arcp_asgi_app:  # noqa: N801
    """A runtime as an ASGI 3 application, to be mounted on a WebSocket route.

    Every connection is one `runtime.accept`, on the event loop of the server. The server's own cap on a message holds;
    beyond 16 MiB the connection is closed with 1009. A peer that reads slowly makes its own session wait and no other.
    When the server stops, connections are cut and sessions can be taken up again; close the runtime where your
    application shuts down.
    """

    def __init__(self, runtime: "ARCPRuntime", *, allowed_hosts: Iterable[str] | None = None) -> None:
        """Serves `runtime` to requests whose `Host` is one of `allowed_hosts`; `None` lets any in.

        An entry is a name or an address, with a port (`localhost:8000`, `[::1]:8000`) where that has to match too.
        Others are refused before the connection is accepted, which the server answers with status 403 (R-4.9).
        `TypeError` for what is no runtime, `ValueError` for an entry that is no host.
        """
        expect_runtime(runtime)
        self.runtime = runtime
        self._hosts = AllowedHosts(allowed_hosts)

    def __repr__(self) -> str:
        return f"<arcp_asgi_app of {self.runtime!r}>"

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serves one connection.

        A `lifespan` scope is answered, so that the object can also be a server's only application; `ValueError` for any
        other scope that is no WebSocket.
        """
        kind = scope.get("type")
        if kind == "lifespan":
            await _live(receive, send)
            return
        if kind != "websocket":
            raise ValueError(f"arcp_asgi_app serves WebSockets, got a scope of type {kind!r}: mount it on such a route")
        if (await receive())["type"] != "websocket.connect":
            return
        headers = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]
        if not self._hosts.allow([value for name, value in headers if name == "host"]):
            await send({"type": "websocket.close", "code": POLICY, "reason": "this Host is not allowed"})
            return
        subprotocol = choose_subprotocol(scope.get("subprotocols") or ())
        await send({"type": "websocket.accept", "subprotocol": subprotocol})
        peer = (scope.get("client") or (None,))[0]
        private = is_private(scope.get("scheme", "ws"), peer, [name for name, _ in headers])
        await self.runtime.accept(_Connection(receive, send, private))


async def _live(receive: Receive, send: Send) -> None:
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


class _Connection(TextTransport):
    """One accepted WebSocket of an ASGI server."""

    def __init__(self, receive: Receive, send: Send, private: bool) -> None:
        self._receive = receive
        self._send = send
        self._open = True
        self._code = NORMAL
        self.is_private = private
        self.is_closed = False

    async def send_text(self, frame: str) -> None:
        await self._say({"type": "websocket.send", "text": frame})

    async def recv_text(self) -> str:
        event = await self._receive()
        if event["type"] != "websocket.receive":
            self._open = False
            raise TransportClosed("the peer has closed the connection")
        text: str | None = event.get("text")
        data = event.get("bytes") or b"" if text is None else text
        if len(data) > MAX_MESSAGE_BYTES:
            self._code = TOO_BIG
            raise TransportClosed(f"a message of more than {MAX_MESSAGE_BYTES} bytes was received")
        return text if text is not None else _decoded(data)

    async def close(self) -> None:
        self.is_closed = True
        if self._open:
            try:
                await self._say({"type": "websocket.close", "code": self._code})
            except TransportClosed:
                return
            finally:
                self._open = False

    async def _say(self, message: Message) -> None:
        if not self._open:
            raise TransportClosed("the connection is closed")
        try:
            await self._send(message)
        except Exception as error:
            # Servers have errors of their own for a peer that has gone.
            self._open = False
            logger.debug("a connection ended while something was sent: %s", type(error).__name__)
            raise TransportClosed("the connection is closed") from error


def _decoded(data: Any) -> str:
    try:
        return bytes(data).decode()
    except UnicodeDecodeError:
        # What is no text is no message, and the core says so.
        return "(no UTF-8)"
