"""What comes for one job: its events and the chunks of its result, each for its own readers."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from arcp import _native
from arcp._port import BATCH, logger, numbers, port
from arcp.events import Event, ResultChunkBody

MAX_ITEMS = 100_000
"""How many items wait for one kind of reader while the other kind reads on."""
MAX_BYTES = 16 << 20
"""How many bytes of them."""

Batch = tuple[Iterator[Any], int, int]
"""Items that were not handed out, how many there were, and their bytes."""


class _Queue:
    """Items of one kind. While nobody reads them, only the newest are kept."""

    def __init__(self) -> None:
        self.batches: deque[Batch] = deque()
        self.readers = 0
        self._items = 0
        self._bytes = 0

    def put(self, items: Sequence[Any], size: int) -> None:
        if not items:
            return
        self.batches.append((iter(items), len(items), size))
        self._items += len(items)
        self._bytes += size
        while self.readers == 0 and self.is_full and len(self.batches) > 1:
            self.drop(self.batches[0])

    def drop(self, batch: Batch) -> None:
        """Removes the oldest batch, if it is this one: another reader may have done so."""
        if self.batches and self.batches[0] is batch:
            self.batches.popleft()
            self._items -= batch[1]
            self._bytes -= batch[2]

    @property
    def is_full(self) -> bool:
        return self._items > MAX_ITEMS or self._bytes > MAX_BYTES


class Inbox:
    """Shares one job's stream between iterators of events and iterators of chunks."""

    def __init__(self, job: _native.Job) -> None:
        self._job = job
        self._stream = next(numbers)
        self._events = _Queue()
        self._chunks = _Queue()
        # Readers that wait because those of the other kind are behind.
        self._waiting: list[asyncio.Future[None]] = []
        self._told_dropped = 0

    def events(self) -> AsyncIterator[Event]:
        """Each event once."""
        return self._read(self._events, self._chunks)

    def batches(self) -> AsyncIterator[list[Event]]:
        """Each event once, as many at a time as there are."""
        return self._read(self._events, self._chunks, whole=True)

    async def chunks(self) -> AsyncIterator[ResultChunkBody]:
        """Each chunk once, and the job's error at the end."""
        self._job.leave_chunks()
        async for event in self._read(self._chunks, self._events):
            self._job.take_chunk(event)
            yield event.value
        await port().call(self._job.finish_chunks)

    async def _read(self, own: _Queue, others: _Queue, *, whole: bool = False) -> AsyncIterator[Any]:
        own.readers += 1
        self._tell_dropped()
        try:
            while True:
                while own.batches:
                    batch = own.batches[0]
                    # Shared by all readers, so that each item is given once.
                    if not whole:
                        for event in batch[0]:
                            yield event
                    elif events := list(batch[0]):
                        yield events
                    own.drop(batch)
                    self._let_go_on()
                if not await self._fill(others):
                    return
        finally:
            own.readers -= 1
            self._let_go_on()
            if own.readers + others.readers == 0:
                self._job.stop_reading()

    def _tell_dropped(self) -> None:
        """What is missing is said, not passed over."""
        if (dropped := self._job.dropped) > self._told_dropped:
            new, self._told_dropped = dropped - self._told_dropped, dropped
            logger.warning(
                "the oldest %d events of job %s were dropped before anybody read them; begin the loop over events() "
                "sooner, or slow the agent",
                new,
                self._job.job_id,
            )

    async def _fill(self, others: _Queue) -> bool:
        """Takes what the core has, or waits for something to change; `False` after the last."""
        if others.readers > 0 and others.is_full:
            waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiting)
            await waiting
            return True
        here = port()
        batch = self._job.next_batch(here.native, self._stream, BATCH)
        if batch is None:
            return False
        events, events_size, chunks, chunks_size = batch
        self._events.put(events, events_size)
        self._chunks.put(chunks, chunks_size)
        if events or chunks:
            # Other tasks get the loop between batches.
            await asyncio.sleep(0)
        else:
            await here.readable(self._stream)
        return True

    def _let_go_on(self) -> None:
        if self._waiting and not any(queue.readers > 0 and queue.is_full for queue in (self._events, self._chunks)):
            waiting, self._waiting = self._waiting, []
            for future in waiting:
                if not future.done():
                    future.set_result(None)
