"""Logs of what sessions were sent."""

import asyncio
import contextlib
import json
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol, TypeVar, runtime_checkable

from arcp import _native
from arcp.errors import InvalidRequestError

__all__ = ["EventLog", "InMemoryEventLog", "SqliteEventLog"]


@runtime_checkable
class EventLog(Protocol):
    """A log of the host's own: a copy of every numbered message, made after it was stored (D-33).

    Runs on the event loop of the runtime. Jobs never wait for it: it is told in batches, again after a failure, and
    once too much waits messages are left out, which is logged. Resumes are served from the runtime's own store.
    """

    async def append(self, session_id: str, envelope: dict[str, Any]) -> None:
        """One message, with its `event_seq`; the same one may come twice."""
        ...

    def read_since_seq(self, session_id: str, after_seq: int) -> AsyncIterator[dict[str, Any]]:
        """The messages above `after_seq`, in order."""
        ...

    async def latest_seq(self, session_id: str) -> int:
        """The highest number; 0 for a session without any."""
        ...

    async def release_through(self, session_id: str, seq: int) -> None:
        """The client has acknowledged everything up to this number; a log that archives may keep it all the same."""
        ...

    async def drop_session(self, session_id: str) -> None:
        """The session is over and cannot be resumed."""
        ...

    async def close(self) -> None:
        """The runtime is closed."""
        ...


class InMemoryEventLog:
    """Keeps messages in memory until they are acknowledged, or their session is over."""

    def __init__(self) -> None:
        self._sessions: dict[str, dict[int, dict[str, Any]]] = {}
        self._latest: dict[str, int] = {}

    async def append(self, session_id: str, envelope: dict[str, Any]) -> None:
        """Keeps it."""
        seq = _seq(envelope)
        self._sessions.setdefault(session_id, {})[seq] = envelope
        self._latest[session_id] = max(seq, self._latest.get(session_id, 0))

    async def read_since_seq(self, session_id: str, after_seq: int) -> AsyncIterator[dict[str, Any]]:
        """The kept messages above `after_seq`, in order."""
        kept = self._sessions.get(session_id, {})
        for seq in sorted(seq for seq in kept if seq > after_seq):
            yield kept[seq]

    async def latest_seq(self, session_id: str) -> int:
        """The highest number seen; 0 for none."""
        return self._latest.get(session_id, 0)

    async def release_through(self, session_id: str, seq: int) -> None:
        """Drops everything up to this number."""
        kept = self._sessions.get(session_id, {})
        self._sessions[session_id] = {number: envelope for number, envelope in kept.items() if number > seq}

    async def drop_session(self, session_id: str) -> None:
        """Drops everything of the session."""
        self._sessions.pop(session_id, None)
        self._latest.pop(session_id, None)

    async def close(self) -> None:
        """Keeps what there is, to be read."""


T = TypeVar("T")

_APPLICATION_ID = 0x41524350

_TABLE = """
    CREATE TABLE IF NOT EXISTS events (
        session_id TEXT NOT NULL, event_seq INTEGER NOT NULL, job_id TEXT, type TEXT NOT NULL,
        envelope TEXT NOT NULL, created_at REAL NOT NULL, PRIMARY KEY (session_id, event_seq))
"""


class SqliteEventLog:
    """A log in a SQLite file.

    Given to a runtime, the file becomes the runtime's durable store, as with `db=`: sessions, jobs and events are back
    when a later runtime opens it. The runtime alone writes it then, and this object reads it.

    By itself it is one table, `events(session_id, event_seq, job_id, type, envelope, created_at)`, opened and made when
    it is first used, with one commit per message.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """`path` is the file. Nothing is opened yet."""
        self.path = os.fspath(path)
        if not isinstance(self.path, str) or self.path in ("", "memory", ":memory:"):
            raise ValueError("path must be the path of a file, as text; without one use InMemoryEventLog")
        self._connection: sqlite3.Connection | None = None
        self._using = asyncio.Lock()
        self._is_store = False
        self._key_file: str | None = None

    def __repr__(self) -> str:
        return f"SqliteEventLog({self.path!r})"

    async def append(self, session_id: str, envelope: dict[str, Any]) -> None:
        """Keeps it, once per number."""
        seq, text = _seq(envelope), json.dumps(envelope, separators=(",", ":"), ensure_ascii=False)
        row = (session_id, seq, envelope.get("job_id"), str(envelope.get("type", "")), text, time.time())
        await self._write("INSERT OR IGNORE INTO events VALUES (?, ?, ?, ?, ?, ?)", row)

    async def read_since_seq(self, session_id: str, after_seq: int) -> AsyncIterator[dict[str, Any]]:
        """The kept messages above `after_seq`, in order."""
        if await self._holds_store():
            texts, _ = await asyncio.to_thread(_native.read_event_log, self.path, self._key_file, session_id, after_seq)
        else:
            query = "SELECT envelope FROM events WHERE session_id = ? AND event_seq > ? ORDER BY event_seq"
            texts = [text for (text,) in await self._read(query, (session_id, after_seq))]
        for text in texts:
            yield json.loads(text)

    async def latest_seq(self, session_id: str) -> int:
        """The highest number; 0 for none."""
        if await self._holds_store():
            _, latest = await asyncio.to_thread(_native.read_event_log, self.path, self._key_file, session_id, 2**53)
            return latest
        rows = await self._read("SELECT MAX(event_seq) FROM events WHERE session_id = ?", (session_id,))
        return int(rows[0][0] or 0)

    async def release_through(self, session_id: str, seq: int) -> None:
        """Drops everything up to this number."""
        await self._write("DELETE FROM events WHERE session_id = ? AND event_seq <= ?", (session_id, seq))

    async def drop_session(self, session_id: str) -> None:
        """Drops everything of the session."""
        await self._write("DELETE FROM events WHERE session_id = ?", (session_id,))

    async def close(self) -> None:
        """Closes the file; a later call opens it again."""
        async with self._using:
            connection, self._connection = self._connection, None
            if connection is not None:
                await asyncio.to_thread(connection.close)

    def _become_store(self, key_file: str | None) -> str:
        """The path, for the runtime that has the file to itself from now on, and perhaps its key."""
        self._is_store = True
        self._key_file = key_file
        return self.path

    async def _holds_store(self) -> bool:
        return self._is_store or await asyncio.to_thread(_is_runtime_database, self.path)

    async def _write(self, statement: str, row: tuple[Any, ...]) -> None:
        if await self._holds_store():
            raise InvalidRequestError(f"a runtime keeps its store in {self.path!r} and writes it alone; read it here")

        def write(connection: sqlite3.Connection) -> None:
            with connection:
                connection.execute(statement, row)

        await self._use(write)

    async def _read(self, query: str, row: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        return await self._use(lambda connection: connection.execute(query, row).fetchall())

    async def _use(self, work: Callable[[sqlite3.Connection], T]) -> T:
        async with self._using:
            if self._connection is None:
                self._connection = await asyncio.to_thread(_open, self.path)
            return await asyncio.to_thread(work, self._connection)


def _open(path: str) -> sqlite3.Connection:
    # One call at a time, in whichever thread.
    connection = sqlite3.connect(path, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    with connection:
        connection.execute(_TABLE)
    return connection


def _is_runtime_database(path: str) -> bool:
    """Whether the file is the store of a runtime: SQLite's header says whose it is."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        header = file.read(72)
        return len(header) == 72 and int.from_bytes(header[68:72], "big") == _APPLICATION_ID
    return False


def _seq(envelope: dict[str, Any]) -> int:
    seq = envelope.get("event_seq")
    if not isinstance(seq, int) or isinstance(seq, bool) or seq < 1:
        raise ValueError(f"envelope.event_seq must be an int from 1 on, got {type(seq).__name__}")
    return seq
