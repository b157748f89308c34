"""What both sides' programs need: a bound on every step, and a link that can be cut."""

import asyncio
import contextlib
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterator

BOUND_SEC = 15.0


def play(*steps: Callable[[str, str], Awaitable[None]]) -> None:
    """Runs each step by itself, with the URL and the token of the command line, and tells of all."""
    failed = 0
    for step in steps:
        name = step.__name__.replace("_", " ")
        try:
            asyncio.run(bounded(step(sys.argv[1], sys.argv[2])))
        except BaseException:
            failed += 1
            print(f"FAILED {name}")
            traceback.print_exc()
        else:
            print(f"ok {name}")
    sys.exit(1 if failed else 0)


async def bounded(step: Awaitable[None]) -> None:
    async with asyncio.timeout(BOUND_SEC):
        await step


@contextlib.contextmanager
def raises(kind: type[BaseException], part: str = "") -> Iterator[None]:
    """This very class: a base class is not good enough."""
    caught: BaseException | None = None
    try:
        yield
    except kind as error:
        caught = error
    assert type(caught) is kind, f"{kind.__name__} was expected, got {caught!r}"
    assert part in str(caught), caught


class Link:
    """A TCP relay in front of a runtime, so that the connection can be cut while both ends are well."""

    def __init__(self, url: str) -> None:
        address, _, self._path = url.removeprefix("ws://").partition("/")
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._open = asyncio.Event()
        self._open.set()
        self._loses_answer = False
        self._ways: list[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = []

    async def __aenter__(self) -> "Link":
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        self.url = f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/{self._path}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def cut(self) -> None:
        """Without a goodbye; the next connection gets through."""
        for way in self._ways:
            for writer in way:
                writer.transport.abort()
        self._ways.clear()

    def hold(self) -> None:
        """Cuts, and makes those who come wait until `release`."""
        self._open.clear()
        self.cut()

    def release(self) -> None:
        self._open.set()

    def lose_next_welcome(self) -> None:
        """The next connection is cut when the runtime first answers on it."""
        self._loses_answer = True

    async def close(self) -> None:
        """For good."""
        self._server.close()
        self.cut()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._open.wait()
        far_reader, far_writer = await asyncio.open_connection(self._host, self._port)
        self._ways.append((writer, far_writer))
        # The link may be cut, or the program end, at any time.
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await asyncio.gather(self._copy(reader, far_writer), self._copy(far_reader, writer))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                if self._loses_answer and b"session.welcome" in data:
                    self._loses_answer = False
                    return self.cut()
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()
