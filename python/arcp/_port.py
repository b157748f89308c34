"""One event loop's way to the core: calls as futures, and one wake-up per batch of news."""

import asyncio
import atexit
import itertools
import logging
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec

from arcp import _native

P = ParamSpec("P")

BATCH = 256
"""Items taken at once, before other tasks get the loop."""

numbers = itertools.count(1)
"""Numbers for calls and event streams, each used once."""

logger = logging.getLogger("arcp")


class Port:
    """The core's side of one loop at a time."""

    def __init__(self, handle: Callable[[tuple[Any, ...]], None] | None = None) -> None:
        """`handle` takes the items that belong to no call: agents to run, tokens to verify and to give."""
        wake = weakref.WeakMethod(self._wake)
        self.native = _native.Port(lambda: (method := wake()) and method())
        self._handle = handle
        self._adopting = threading.Lock()
        self._loop: weakref.ref[asyncio.AbstractEventLoop] | None = None
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._readers: dict[int, list[asyncio.Future[None]]] = {}

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop that drains this port, while it is open."""
        loop = None if self._loop is None else self._loop()
        return None if loop is None or loop.is_closed() else loop

    def adopt(self, loop: asyncio.AbstractEventLoop) -> None:
        """Lets `loop` drain this port, unless an open loop does."""
        with self._adopting:
            if self.loop is not None:
                return
            self._loop = weakref.ref(loop)
        descriptor = self.native.fileno()
        if descriptor is not None:
            try:
                loop.add_reader(descriptor, self._drain)
            except NotImplementedError:
                self.native.use_callback()
        # What came, and what was left, while no loop was there.
        loop.call_soon(self._drain)
        loop.call_soon(self.native.flush)

    def release(self) -> None:
        """Leaves the loop; a later `adopt` comes back."""
        with self._adopting:
            loop, self._loop = self.loop, None
        descriptor = self.native.fileno()
        if loop is not None and descriptor is not None:
            loop.remove_reader(descriptor)

    async def call(
        self, start: Callable[Concatenate[_native.Port, int, P], bool | None], *args: P.args, **kwargs: P.kwargs
    ) -> Any:
        """Starts a call and waits for its outcome; cancelled, it drops the call's work.

        `start` says whether to flush, if it leaves something for that.
        """
        number, future = self.begin()
        try:
            if start(self.native, number, *args, **kwargs):
                self.flush_soon()
            return await future
        finally:
            self.end(number)

    def begin(self) -> tuple[int, asyncio.Future[Any]]:
        """A number for a call that is started by hand, and what its outcome will be in; `end` must follow."""
        number = next(numbers)
        future = self._calls[number] = self._future()
        return number, future

    def end(self, number: int) -> None:
        """Drops the work of a call, unless it is done."""
        if self._calls.pop(number, None) is not None:
            self.native.cancel_call(number)

    def flush_soon(self) -> None:
        """Sends what this turn of the loop leaves to be sent, once all that is ready has run."""
        asyncio.get_running_loop().call_soon(self.native.flush)

    async def readable(self, stream: int) -> None:
        """Waits until a stream whose reader found nothing has something, or has ended."""
        future = self._future()
        self._readers.setdefault(stream, []).append(future)
        await future

    def _future(self) -> asyncio.Future[Any]:
        loop = None if self._loop is None else self._loop()
        if loop is None or loop.is_closed():
            raise RuntimeError("the event loop this belongs to is closed")
        return loop.create_future()

    def _wake(self) -> None:
        loop = self.loop
        if loop is not None:
            try:
                loop.call_soon_threadsafe(self._drain)
            except RuntimeError:
                # Closed since.
                return

    def _drain(self) -> None:
        items, more = self.native.drain(BATCH)
        if more and (loop := self.loop) is not None:
            loop.call_soon(self._drain)
        calls = self._calls
        for item in items:
            match item[0]:
                case "completed":
                    future = calls.pop(item[1], None)
                    if future is not None and not future.done():
                        future.set_result(item[2])
                case "failed":
                    future = calls.pop(item[1], None)
                    if future is not None and not future.done():
                        future.set_exception(item[2])
                case "ready":
                    for reader in self._readers.pop(item[1], ()):
                        if not reader.done():
                            reader.set_result(None)
                case "log":
                    logger.log(item[1], "%s", item[2])
                case _ if self._handle is not None:
                    try:
                        self._handle(item)
                    except Exception:
                        logger.exception("could not handle %s", item[0])


_ports: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Port] = weakref.WeakKeyDictionary()


def _nothing() -> None:
    return None


class _Recent(threading.local):
    """The loop that this thread ran last, and its port: looking that up costs more than a call. Keeps neither alive."""

    loop: Callable[[], asyncio.AbstractEventLoop | None] = staticmethod(_nothing)
    port: Callable[[], Port | None] = staticmethod(_nothing)


_recent = _Recent()


def port() -> Port:
    """The running loop's port, made on first use."""
    loop = asyncio.get_running_loop()
    if _recent.loop() is loop and (recent := _recent.port()) is not None:
        return recent
    found = _ports.get(loop)
    if found is None:
        found = _ports[loop] = Port()
        found.adopt(loop)
        _native.log_to(found.native, logger.getEffectiveLevel())
    _recent.loop, _recent.port = weakref.ref(loop), weakref.ref(found)
    return found


def _after_fork() -> None:
    _native.after_fork()
    _ports.clear()
    _recent.loop = _nothing


atexit.register(_native.shutdown, 2.0)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
