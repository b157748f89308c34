"""Daemon threads for agents that are plain functions (D-25): a stuck one does not keep the process alive."""

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable
from typing import Any

Task = tuple[contextvars.Context, Callable[[], Any], asyncio.Future[Any]]


class DaemonPool:
    """Up to `size` threads, each started when no idle one is left, that end after a while without work."""

    def __init__(self, size: int, *, idle_sec: float = 10.0) -> None:
        self._size = size
        self._idle_sec = idle_sec
        self._tasks: queue.SimpleQueue[Task] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        # Threads that wait and have no task put for them; tasks put while no thread could be had.
        self._idle = 0
        self._backlog = 0

    def run(self, work: Callable[[], Any]) -> asyncio.Future[Any]:
        """Runs `work` in a thread, with the caller's context variables."""
        future = asyncio.get_running_loop().create_future()
        with self._lock:
            if self._idle > 0:
                self._idle -= 1
            elif self._threads < self._size:
                self._threads += 1
                threading.Thread(target=self._serve, name="arcp-agent", daemon=True).start()
            else:
                self._backlog += 1
            self._tasks.put((contextvars.copy_context(), work, future))
        return future

    def _serve(self) -> None:
        while True:
            try:
                context, work, future = self._tasks.get(timeout=self._idle_sec)
            except queue.Empty:
                with self._lock:
                    if self._idle > 0:
                        self._idle -= 1
                        self._threads -= 1
                        return
                # A task was put for this thread just now.
                continue
            try:
                outcome, error = context.run(work), None
            except BaseException as raised:
                outcome, error = None, raised
            with self._lock:
                if self._backlog > 0:
                    self._backlog -= 1
                else:
                    self._idle += 1
            _settle(future, outcome, error)
            del context, work, future, outcome, error


def _settle(future: asyncio.Future[Any], outcome: Any, error: BaseException | None) -> None:
    def settle() -> None:
        if future.done():
            return
        if error is None:
            future.set_result(outcome)
        elif isinstance(error, StopIteration):
            # A future refuses to carry it.
            future.set_exception(RuntimeError(f"StopIteration: {error}"))
        else:
            future.set_exception(error)

    try:
        future.get_loop().call_soon_threadsafe(settle)
    except RuntimeError:
        # The loop is closed: nobody waits any more.
        return
