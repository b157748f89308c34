"""Carries the messages of transports the core cannot carry itself, in batches (D-32)."""

import asyncio
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from arcp import _native, _port
from arcp._json import loads_exact
from arcp._port import BATCH, logger
from arcp.errors import TransportClosed

if TYPE_CHECKING:
    from arcp.transport import Transport

END_SEC = 2.0
"""How long a transport may take to end with its session."""

CLOSE_SEC = 1.0
"""How much of that its closing may take; a peer that does not read is left behind."""


class TextTransport(ABC):
    """A transport that has its messages as text anyway, which then go to the core as they are."""

    is_private = False
    """Whether secrets may travel over it (R-9.8.2.11)."""

    @abstractmethod
    async def send_text(self, frame: str) -> None:
        """Sends one message. `TransportClosed` when that is over."""

    @abstractmethod
    async def recv_text(self) -> str:
        """Waits for one message. `TransportClosed` at the end."""

    async def send(self, message: dict[str, Any]) -> None:
        """Sends one message. `TransportClosed` when that is over."""
        await self.send_text(_native.encode(message, "message"))

    async def recv(self) -> dict[str, Any]:
        """Waits for one message. `TransportClosed` at the end, and for what is no object."""
        return read_message(await self.recv_text())


def read_message(text: str) -> dict[str, Any]:
    """A message as a dict. `TransportClosed` for what is none."""
    try:
        message: Any = loads_exact(text)
    except ValueError:
        raise TransportClosed("a message must be a JSON object") from None
    if not isinstance(message, dict):
        raise TransportClosed(f"a message must be an object, got {type(message).__name__}")
    return cast(dict[str, Any], message)


def start(transport: "Transport", frames: _native.Frames) -> asyncio.Task[None]:
    """Carries messages both ways until either side ends, then closes the transport."""
    return asyncio.get_running_loop().create_task(_Pump(transport, frames).run())


async def finish(pump: asyncio.Task[None]) -> None:
    """Lets a pump bring out what was said last, within bounds."""
    await asyncio.wait([pump], timeout=END_SEC)
    await stop(pump)


async def stop(pump: asyncio.Task[None]) -> None:
    """Ends a pump now."""
    if not pump.done():
        pump.cancel()
        await asyncio.wait([pump], timeout=END_SEC)


class _Pump:
    def __init__(self, transport: "Transport", frames: _native.Frames) -> None:
        self._transport = transport
        self._frames = frames
        self._text = transport if isinstance(transport, TextTransport) and _is_untouched(transport) else None

    async def run(self) -> None:
        inward = asyncio.get_running_loop().create_task(self._inward())
        try:
            while batch := await _port.port().call(self._frames.recv, BATCH):
                for frame in batch:
                    await self._send(frame)
        except TransportClosed:
            pass
        except Exception:
            self._warn()
        finally:
            self._frames.close()
            inward.cancel()
            with suppress(Exception):
                async with asyncio.timeout(CLOSE_SEC):
                    await asyncio.wait([inward])
                    await self._transport.close()

    async def _inward(self) -> None:
        taken = 0
        try:
            while True:
                frame = await self._recv()
                if not self._frames.try_send(frame):
                    await _port.port().call(self._frames.send, frame)
                taken += 1
                if taken % BATCH == 0:
                    # A host that has messages lying ready would keep the loop to itself.
                    await asyncio.sleep(0)
        except TransportClosed:
            pass
        except Exception:
            self._warn()
        finally:
            # The core sees the end, and ends the other direction.
            self._frames.close()

    async def _send(self, frame: str) -> None:
        if self._text is None:
            await self._transport.send(loads_exact(frame))
        else:
            await self._text.send_text(frame)

    async def _recv(self) -> str:
        if self._text is None:
            return _native.encode(await self._transport.recv(), "message")
        return await self._text.recv_text()

    def _warn(self) -> None:
        logger.warning("the transport %s failed", type(self._transport).__name__, exc_info=True)


def _is_untouched(transport: TextTransport) -> bool:
    """Whether nobody has put a `send` or `recv` of their own over those of the base."""
    cls = type(transport)
    return (
        cls.send is TextTransport.send
        and cls.recv is TextTransport.recv
        and not {"send", "recv"} & getattr(transport, "__dict__", {}).keys()
    )
