"""Transports: what carries messages between a client and a runtime.

The native ones below never enter Python once a client or runtime has taken them. Any other object with `send`, `recv`,
`close` and `is_closed` works too: its messages are pumped to and from the core (D-32).
"""

import asyncio
import os
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, Self, cast, runtime_checkable

from arcp import _native, _port, _pump
from arcp._check import expect, expect_range, expect_seconds
from arcp._port import BATCH, logger
from arcp.errors import TransportClosed

if TYPE_CHECKING:
    import ssl

__all__ = [
    "MemoryTransport",
    "StdioTransport",
    "Transport",
    "TransportClosed",
    "WebSocketServer",
    "WebSocketTransport",
    "pair_memory_transports",
    "serve_websocket",
]

MAX_MESSAGE_BYTES = 16 * 1024 * 1024


@runtime_checkable
class Transport(Protocol):
    """Messages as dicts of JSON values. `recv` raises `TransportClosed` at the end, `send` after it.

    One of your own may also have an attribute `is_private`: `True` where secrets, such as provisioned credentials, may
    travel over it.
    """

    async def send(self, message: dict[str, Any]) -> None:
        """Sends one message."""

    async def recv(self) -> dict[str, Any]:
        """Waits for one message."""
        ...

    async def close(self) -> None:
        """Ends both directions. Idempotent."""

    @property
    def is_closed(self) -> bool:
        """Whether it was closed on this side."""
        ...


class _NativeTransport:
    """An end the core carries. By hand it can be used until a client or runtime has taken it."""

    # The task that carries the messages, where the core does not.
    _pump: asyncio.Task[None] | None = None

    def __init__(self, handle: _native.TransportHandle) -> None:
        self._handle = handle
        self._frames: _native.Frames | None = None
        self._received: list[str] = []
        self._closed = False

    async def send(self, message: dict[str, Any]) -> None:
        """Sends one message. `TransportClosed` when it is closed, or taken by a client or runtime."""
        frame = _native.encode(message, "message")
        frames = self._by_hand()
        if not frames.try_send(frame):
            await _port.port().call(frames.send, frame)

    async def recv(self) -> dict[str, Any]:
        """Waits for one message. One receiver at a time. `TransportClosed` as for `send`, and at the end."""
        frames = self._by_hand()
        if not self._received:
            batch: list[str] = await _port.port().call(frames.recv, BATCH)
            if not batch:
                self._closed = True
                raise TransportClosed("the other side has closed the transport")
            self._received = batch[::-1]
        return _pump.read_message(self._received.pop())

    async def close(self) -> None:
        """Ends the connection without a word, also under a client or runtime, which see a lost link. Idempotent."""
        self._closed = True
        if self._frames is not None:
            self._frames.close()
        else:
            self._handle.close()

    @property
    def is_closed(self) -> bool:
        """Whether it was closed on this side."""
        return self._closed

    @property
    def is_private(self) -> bool:
        """Whether it is encrypted, or stays within this machine, so that secrets may travel over it (R-9.8.2.11)."""
        return self._handle.is_private

    def _by_hand(self) -> _native.Frames:
        if self._closed:
            raise TransportClosed("the transport is closed")
        if self._frames is None:
            if self._handle.is_used:
                raise TransportClosed("a client or runtime uses this transport; it carries the messages itself")
            self._frames = self._handle.take_frames()
        return self._frames


class MemoryTransport(_NativeTransport):
    """One end of a pair in this process; see `pair_memory_transports`."""


def pair_memory_transports() -> tuple[MemoryTransport, MemoryTransport]:
    """Two connected ends, each direction bounded to 1024 messages."""
    left, right = _native.TransportHandle.memory_pair()
    return MemoryTransport(left), MemoryTransport(right)


class WebSocketTransport(_NativeTransport):
    """A WebSocket; see `connect`."""

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        additional_headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        ssl: "ssl.SSLContext | None" = None,
        max_size: int | None = None,
        open_timeout: float | None = None,
    ) -> Self:
        """Connects to `ws://` or `wss://`.

        `ssl` adds the authorities of a context to those of the platform, and nothing else of it: no certificate of the
        client's own, and what would verify less or more is refused. `max_size` bounds a received message in bytes
        (16 MiB), `open_timeout` the wait in seconds (10). `arcp.ConnectionError` when there is no connection, the
        builtin `TimeoutError` when it takes too long, `ValueError` for an option that cannot be honoured.
        """
        headers = cast(Any, additional_headers)
        headers = headers.items() if isinstance(additional_headers, Mapping) else headers
        options = {
            "headers": [list(pair) for pair in headers or ()],
            "ca_pem": None if ssl is None else _authorities(ssl),
            "max_message_bytes": expect_range("max_size", max_size, 0, 2**53),
            "timeout_sec": expect_seconds("open_timeout", open_timeout),
        }
        connect = _native.TransportHandle.connect_websocket
        return cls(await _port.port().call(connect, expect("url", url, str), _native.encode(options)))

    def write_buffer_size(self) -> int | None:
        """`None`: what waits to be sent waits in the core, which bounds it and makes agents wait (D-20)."""
        return None


class StdioTransport(_NativeTransport):
    """Newline-delimited JSON: over this process's standard streams, a child's pipes, or any pair of streams."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        max_size: int = MAX_MESSAGE_BYTES,
        private: bool = False,
    ) -> None:
        """Takes both streams over, and closes `writer` at the end; made on the loop they belong to.

        `max_size` bounds a line in bytes, whatever the reader's own limit. `private` says that secrets may travel over
        them.
        """
        expect_range("max_size", max_size, 1, 2**53)
        handle, frames = _native.TransportHandle.foreign(private)
        super().__init__(handle)
        self._pump = _pump.start(_Lines(reader, writer, max_size), frames)

    @classmethod
    async def from_process_pipes(
        cls, process: asyncio.subprocess.Process, *, max_size: int = MAX_MESSAGE_BYTES
    ) -> Self:
        """Speaks with a child made by `asyncio.create_subprocess_exec` with pipes for `stdin` and `stdout`.

        Closing ends the child's input, at which a runtime there ends its session. Waiting for the child is the
        caller's, and so is its standard error. `ValueError` for a child without these pipes.
        """
        if process.stdin is None or process.stdout is None:
            raise ValueError("the child has no pipes; start it with stdin=PIPE and stdout=PIPE")
        return cls(process.stdout, process.stdin, max_size=max_size, private=True)

    @classmethod
    async def from_std_streams(cls, *, max_size: int = MAX_MESSAGE_BYTES) -> Self:
        """Takes this process's own streams; `max_size` bounds a line in bytes. What else it prints goes to
        standard error (Unix); elsewhere nothing else may print.
        """
        transport = cls.__new__(cls)
        _NativeTransport.__init__(transport, _native.TransportHandle.std_streams(max_size))
        return transport


class _Lines(_pump.TextTransport):
    """Lines of text, as the core takes and gives them."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, max_size: int) -> None:
        self._reader = reader
        self._writer = writer
        self._max_size = max_size
        self._begun = bytearray()
        self._lines: deque[bytes] = deque()
        self.is_closed = False

    async def send_text(self, frame: str) -> None:
        try:
            self._writer.write(frame.encode() + b"\n")
            await self._writer.drain()
        except OSError:
            raise TransportClosed("the other side has closed its end") from None

    async def recv_text(self) -> str:
        # Not `readline`, whose limit is the maker's of the reader.
        while True:
            while self._lines:
                line = self._lines.popleft().strip()
                if line:
                    return line.decode()
            part = await self._read()
            *whole, rest = part.split(b"\n")
            if len(self._begun) + len(whole[0] if whole else rest) > self._max_size:
                raise ValueError(f"a line is over {self._max_size} bytes")
            if whole:
                self._lines.append(bytes(self._begun + whole[0]))
                self._lines.extend(whole[1:])
                self._begun.clear()
            self._begun += rest

    async def _read(self) -> bytes:
        try:
            part = await self._reader.read(65536)
        except OSError:
            part = b""
        if not part:
            raise TransportClosed("the other side has closed its end")
        return part

    async def close(self) -> None:
        self.is_closed = True
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()


def pair_with_core(transport: Transport) -> tuple[_native.TransportHandle, asyncio.Task[None] | None]:
    """The core's end of a transport, and the task that pumps it, for one the core cannot carry itself."""
    if type(transport) in (MemoryTransport, WebSocketTransport, StdioTransport):
        native = cast(_NativeTransport, transport)
        if native._frames is None and not {"send", "recv", "close"} & vars(native).keys():
            return native._handle, native._pump
    elif isinstance(transport, type) or not isinstance(transport, Transport):
        raise TypeError(f"transport must have async send, recv and close and is_closed; {_kind(transport)} has not")
    handle, frames = _native.TransportHandle.foreign(getattr(transport, "is_private", False) is True)
    return handle, _pump.start(transport, frames)


def _kind(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


class _Socket:
    """What `WebSocketServer.sockets` holds: enough to learn the port."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address

    def getsockname(self) -> tuple[str, int]:
        """Host and port."""
        return self._address


class WebSocketServer:
    """A running server; `serve_websocket` makes it. Leaving its `async with` closes it."""

    def __init__(self, listener: _native.Listener, serving: asyncio.Task[None]) -> None:
        self._listener = listener
        self._serving = serving

    @property
    def url(self) -> str:
        """What a client connects to."""
        return self._listener.url

    @property
    def sockets(self) -> tuple[_Socket, ...]:
        """The listening socket: `server.sockets[0].getsockname()` gives host and port."""
        return (_Socket(self._listener.address),)

    async def serve_forever(self) -> None:
        """Waits until the server is closed, or this task is cancelled."""
        await self.wait_closed()

    def close(self) -> None:
        """Stops listening. Sessions that are open go on until they end, or their runtime is closed. Idempotent."""
        self._listener.close()

    async def wait_closed(self) -> None:
        """Waits until it no longer listens."""
        await asyncio.wait([self._serving])
        if not self._serving.cancelled():
            self._serving.result()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
        await self.wait_closed()


async def serve_websocket(
    on_transport: Callable[[WebSocketTransport], Awaitable[None]],
    *,
    host: str = "127.0.0.1",
    port: int = 7777,
    path: str = "/arcp",
    allowed_hosts: Iterable[str] | None = None,
    ssl: "tuple[str | os.PathLike[str], str | os.PathLike[str]] | None" = None,
    max_size: int | None = None,
) -> WebSocketServer:
    """Listens, and hands every connection to `on_transport` in a task of its own.

    `runtime.accept` of an `ARCPRuntime` is served by the core's threads. Port 0 takes a free one. A connection to
    another `path`, or with a `Host` that is not in `allowed_hosts`, is refused. `ssl` is the PEM files of a certificate
    chain and its key, for `wss://`. `max_size` bounds a received message in bytes (16 MiB). `arcp.ConnectionError` when
    the port is in use, `ValueError` for an option that is wrong.
    """
    if not callable(on_transport):
        kind = type(on_transport).__name__
        raise TypeError(f"on_transport must be a function of the transport, such as runtime.accept; got {kind}")
    if isinstance(allowed_hosts, str):
        raise TypeError('allowed_hosts must be a list of names, got a text; write ["example.com"]')
    cert_pem, key_pem = (None, None) if ssl is None else _certificate(ssl)
    options = {
        "host": expect("host", host, str),
        "port": expect_range("port", port, 0, 65535),
        "path": expect("path", path, str),
        "allowed_hosts": None if allowed_hosts is None else list(allowed_hosts),
        "cert_pem": cert_pem,
        "key_pem": key_pem,
        "max_message_bytes": expect_range("max_size", max_size, 0, 2**53),
    }
    return await serve_with(on_transport, _native.encode(options))


async def serve_with(on_transport: Callable[[WebSocketTransport], Awaitable[None]], options: str) -> WebSocketServer:
    """As `serve_websocket`, with the core's own options as JSON."""
    home = _port.port()
    listener: _native.Listener = await home.call(_native.Listener.bind, options)
    runtime = _native_runtime(on_transport)
    work = _accept_all(listener, on_transport) if runtime is None else home.call(runtime.serve, listener)
    return WebSocketServer(listener, asyncio.get_running_loop().create_task(work))


def _native_runtime(on_transport: Callable[..., Any]) -> _native.Runtime | None:
    """The core's runtime, for the very `accept` of an `ARCPRuntime`; anything wrapped or replaced is called instead."""
    runtime_module = sys.modules.get("arcp.runtime")
    if runtime_module is None:
        return None
    cls: Any = runtime_module.ARCPRuntime
    runtime: Any = getattr(on_transport, "__self__", None)
    if type(runtime) is not cls or getattr(on_transport, "__func__", None) is not cls.accept:
        return None
    return cast(_native.Runtime, runtime.attach())


async def _accept_all(
    listener: _native.Listener, on_transport: Callable[[WebSocketTransport], Awaitable[None]]
) -> None:
    tasks: set[asyncio.Task[None]] = set()
    home = _port.port()
    with suppress(TransportClosed):
        while True:
            transport = WebSocketTransport(await home.call(listener.accept))
            task = asyncio.get_running_loop().create_task(_hand_over(on_transport, transport))
            tasks.add(task)
            task.add_done_callback(tasks.discard)


async def _hand_over(
    on_transport: Callable[[WebSocketTransport], Awaitable[None]], transport: WebSocketTransport
) -> None:
    try:
        await on_transport(transport)
    except Exception:
        logger.exception("a connection failed")
    finally:
        await transport.close()


def _authorities(context: "ssl.SSLContext") -> str:
    """The authorities of a context, as PEM. What the core cannot honour is refused by name."""
    ssl = sys.modules["ssl"]
    if not isinstance(context, ssl.SSLContext):
        raise TypeError(f"ssl must be an ssl.SSLContext or None, got {type(context).__name__}")
    if context.verify_mode != ssl.CERT_REQUIRED or not context.check_hostname:
        raise ValueError("ssl must verify certificates and host names; load the server's authority into it instead")
    crl_checks = ssl.VERIFY_CRL_CHECK_LEAF | ssl.VERIFY_CRL_CHECK_CHAIN
    if context.verify_flags & crl_checks:
        raise ValueError("ssl.verify_flags asks for revocation lists, which are not looked at; clear these flags")
    if context.minimum_version > ssl.TLSVersion.TLSv1_2:
        raise ValueError("ssl.minimum_version must be TLSv1_2 or lower: 1.2 and 1.3 are both offered")
    if ssl.TLSVersion.MAXIMUM_SUPPORTED != context.maximum_version < ssl.TLSVersion.TLSv1_3:
        raise ValueError("ssl.maximum_version must be TLSv1_3 or higher: 1.2 and 1.3 are both offered")
    return "".join(ssl.DER_cert_to_PEM_cert(der) for der in context.get_ca_certs(binary_form=True))


def _certificate(files: tuple[Any, Any]) -> tuple[str, str]:
    """Certificate chain and key, as PEM."""
    if not isinstance(files, tuple) or len(files) != 2:
        kind = type(files).__name__
        raise TypeError(
            f"ssl must be a pair of PEM files, (certificate chain, key), got {kind}: it does not give its key"
        )
    texts: list[str] = []
    for file in files:
        with open(file, encoding="ascii") as text:
            texts.append(text.read())
    return texts[0], texts[1]
