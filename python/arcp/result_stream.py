"""A job's result, written in parts by its agent (R-8.4)."""

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Self

from arcp._check import expect_optional

if TYPE_CHECKING:
    from arcp.context import JobContext

__all__ = ["ResultStream"]


class ResultStream:
    """The result of a job in parts; `JobContext.stream_result` makes it.

    Usable as `async with`, and in a plain function as `with`: leaving it ends the result; left by an exception, the job
    fails whatever the agent returns. What the agent returns after a result was written is not sent. A client without
    the feature `result_chunk` gets the whole in one piece, up to 1 MiB.
    """

    summary: str | None
    """A sentence of at most 64 KiB that goes with the result; may be set until it is closed."""

    def __init__(self, context: "JobContext", result_id: str) -> None:
        """Made by `JobContext.stream_result`."""
        self._context = context
        self._result_id = result_id
        self._writing = False
        self._closed = False
        self.summary = None

    def __repr__(self) -> str:
        return f"<ResultStream result_id={self._result_id!r}>"

    @property
    def result_id(self) -> str:
        """Names the result; its chunks and the job's end carry it."""
        return self._result_id

    def write(self, data: str | bytes | bytearray | memoryview, *, encoding: str | None = None) -> Awaitable[None]:
        """Writes text, or bytes, which travel as base64, cut into chunks where they are long.

        What fits is sent before this returns; what it returns is to be awaited, for the rest and for a client that lags
        behind. A plain function is held here instead, until it is cancelled, which raises `asyncio.CancelledError`.
        `encoding` of `utf8` takes bytes as text, `base64` text as bytes. `InternalError` when the result grows over the
        runtime's cap, in which the job then ends; `InvalidRequestError` once it is closed; `RuntimeError` while another
        write is under way.
        """
        if self._writing:
            raise RuntimeError("another write to this result is under way; await it first")
        exact = _encoded(data, encoding)
        try:
            start, must_wait = self._context._invocation.write_result(exact, 0)
        except UnicodeEncodeError:
            raise ValueError('data holds a lone surrogate; decode bytes with errors="replace"') from None
        if start is None and not must_wait:
            return self._context._turn()
        if self._context._on_loop:
            self._writing = True
            return self._rest(exact, start)
        while True:
            self._context._drained()
            if start is None:
                return self._context._turn()
            if self._context.cancelled:
                raise asyncio.CancelledError
            start, _ = self._context._invocation.write_result(exact, start)

    async def _rest(self, data: str | bytes, start: int | None) -> None:
        try:
            while True:
                await self._context._drained()
                if start is None:
                    return
                start, _ = self._context._invocation.write_result(data, start)
        except BaseException as error:
            if start is not None:
                # Only a part of it was written, so what follows would not be the result.
                self._context._broken_result = type(error).__name__
            raise
        finally:
            self._writing = False

    def flush(self) -> None:
        """Sends the newest chunk too, which else is kept back until more is written or the result ends."""
        self._context._invocation.flush_result()

    def close(self, *, summary: str | None = None) -> Awaitable[None]:
        """Ends the result, before this returns; `summary` takes the place of the attribute. Idempotent."""
        if self._writing:
            raise RuntimeError("a write to this result is under way; await it before the result is closed")
        if not self._closed:
            expect_optional("summary", summary, str)
            self._context._invocation.finish_result(self.summary if summary is None else summary)
            self._closed = True
        return self._context._turn()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._leave(error)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._leave(error)

    def _leave(self, error: BaseException | None) -> None:
        if error is None:
            self.close()
        elif not self._closed:
            # Partial data must not pass for a result, also where the agent handles the error.
            self._context._broken_result = type(error).__name__


def _encoded(data: str | bytes | bytearray | memoryview, encoding: str | None) -> str | bytes:
    if isinstance(data, bytearray | memoryview):
        data = bytes(data)
    if not isinstance(data, str | bytes):
        raise TypeError(f"data must be a text or bytes, got {type(data).__name__}")
    match expect_optional("encoding", encoding, str):
        case "utf8" if isinstance(data, bytes):
            return data.decode()
        case "base64" if isinstance(data, str):
            return data.encode()
        case None | "utf8" | "base64":
            return data
        case _:
            raise ValueError(f"encoding must be 'utf8' or 'base64', got {encoding!r}")
