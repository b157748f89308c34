"""An event loop in a thread of its own, for code that has none."""

import asyncio
import atexit
import concurrent.futures
import os
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from arcp._check import expect_timeout

T = TypeVar("T")

POLL_SEC = 0.5
"""How long a wait goes on before it looks for an interrupt, where the platform does not end it by itself."""


class Background:
    """A running loop. Calls from other threads wait for their outcome."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._process = os.getpid()
        self._thread = threading.Thread(target=self._run, name="arcp-background", daemon=True)
        self._thread.start()

    def call(self, work: Callable[[], Coroutine[Any, Any, T]], timeout: float | None = None) -> T:
        """Runs `work()` on the loop, with the caller's context variables, and waits.

        The wait ends at once with Ctrl-C, and with the builtin `TimeoutError` after `timeout` seconds; the work is
        cancelled then. `RuntimeError` in a forked child and on the loop's own thread.
        """
        self._expect_another_thread()
        expect_timeout(timeout)
        ends = None if timeout is None else time.monotonic() + timeout
        call = _Call(work)
        try:
            self.loop.call_soon_threadsafe(call.begin)
            while not call.outcome.done():
                left = POLL_SEC if ends is None else min(POLL_SEC, ends - time.monotonic())
                if left <= 0:
                    raise TimeoutError(f"no outcome within {timeout:.3g} s")
                concurrent.futures.wait([call.outcome], left)
        except BaseException:
            self.soon(call.drop)
            raise
        return call.outcome.result()

    def soon(self, work: Callable[[], object]) -> None:
        """Has the loop call `work()`; silent when it has stopped."""
        try:
            self.loop.call_soon_threadsafe(work)
        except RuntimeError:
            return

    def stop(self) -> None:
        """Ends the loop, cancelling what runs on it."""
        if self._process == os.getpid():
            self.soon(self.loop.stop)
            self._thread.join(2.0)

    def _expect_another_thread(self) -> None:
        if self._process != os.getpid():
            raise RuntimeError("this object belongs to the process that was forked; connect anew in the child")
        if self._thread is threading.current_thread():
            raise RuntimeError(
                "a blocking call from arcp.sync's own thread would wait for itself; use the async client"
            )

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
            tasks = asyncio.all_tasks(self.loop)
            for task in tasks:
                task.cancel()
            self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        finally:
            self.loop.close()


class _Call(Generic[T]):
    """Work that is begun on the loop's thread, so that an interrupt of the caller's leaves no coroutine behind."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self.outcome: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._work = work
        self._task: asyncio.Task[T] | None = None
        self._dropped = False

    def begin(self) -> None:
        if not self._dropped:
            self._task = asyncio.get_running_loop().create_task(self._work())
            self._task.add_done_callback(self._ended)

    def drop(self) -> None:
        self._dropped = True
        if self._task is not None:
            self._task.cancel()

    def _ended(self, task: asyncio.Task[T]) -> None:
        if task.cancelled():
            self.outcome.cancel()
        elif (error := task.exception()) is not None:
            self.outcome.set_exception(error)
        else:
            self.outcome.set_result(task.result())


_shared: Background | None = None
_starting = threading.Lock()


def background() -> Background:
    """The one of this process, started on first use."""
    global _shared
    with _starting:
        if _shared is None:
            _shared = Background()
            atexit.register(_shared.stop)
        return _shared


def _after_fork() -> None:
    global _shared, _starting
    _shared, _starting = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
