"""Logs of a host's own, and the file that is the runtime's store."""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import arcp
from arcp.runtime import EventLog, InMemoryEventLog, JobContext, SqliteEventLog
from conftest import make_client, make_runtime, run, session


async def ticks(value: Any, ctx: JobContext) -> Any:
    for number in range(value):
        await ctx.progress(number)
    return "done"


async def logged(log: EventLog, session_id: str, after: int = 0) -> list[dict[str, Any]]:
    return [envelope async for envelope in log.read_since_seq(session_id, after)]


@pytest.mark.parametrize("link", ["memory", "websocket"])
def test_a_log_of_ones_own_gets_a_copy_of_everything(link: str) -> None:
    async def main() -> None:
        log = InMemoryEventLog()
        assert isinstance(log, EventLog)
        runtime = make_runtime({"ticks": ticks}, event_log=log)
        assert runtime.event_log is log

        async def use(client: arcp.ARCPClient) -> str:
            handle = await client.submit(agent="ticks", input=700)
            assert (await handle.done).result == "done"
            assert client.session_id is not None
            return client.session_id

        if link == "memory":
            async with session(runtime, auto_ack=False) as client:
                session_id = await use(client)
        else:
            server = await arcp.serve_websocket(runtime.accept, port=0)
            async with server, make_client(auto_ack=False) as client:
                await client.connect(await arcp.WebSocketTransport.connect(server.url))
                session_id = await use(client)
        await runtime.close()
        kept = await logged(log, session_id)
        assert [envelope["event_seq"] for envelope in kept] == list(range(1, len(kept) + 1))
        assert {envelope["session_id"] for envelope in kept} == {session_id}
        currents = [e["payload"]["body"]["current"] for e in kept if e["payload"].get("kind") == "progress"]
        assert currents == list(range(700))
        assert kept[-1]["type"] == "job.result"
        assert await log.latest_seq(session_id) == len(kept)
        assert len(await logged(log, session_id, after=len(kept) - 3)) == 3

    run(main)


def test_what_a_client_has_acknowledged_is_released() -> None:
    async def main() -> None:
        released: asyncio.Queue[tuple[str, int]] = asyncio.Queue()

        class Telling(InMemoryEventLog):
            async def release_through(self, session_id: str, seq: int) -> None:
                await super().release_through(session_id, seq)
                released.put_nowait((session_id, seq))

        log = Telling()
        runtime = make_runtime({"ticks": ticks}, event_log=log)
        async with session(runtime, auto_ack=False) as client:
            await (await client.submit(agent="ticks", input=10)).done
            await client.ack(4)
            assert await released.get() == (client.session_id, 4)
            assert client.session_id is not None
            assert [envelope["event_seq"] for envelope in await logged(log, client.session_id)][:1] == [5]
        await runtime.close()

    run(main)


def test_a_session_that_is_over_is_dropped() -> None:
    async def main() -> None:
        dropped: asyncio.Queue[str] = asyncio.Queue()

        class Telling(InMemoryEventLog):
            async def drop_session(self, session_id: str) -> None:
                await super().drop_session(session_id)
                dropped.put_nowait(session_id)

        log = Telling()
        runtime = make_runtime({"ticks": ticks}, event_log=log, resume_window_sec=0.05)
        async with session(runtime) as client:
            await (await client.submit(agent="ticks", input=1)).done
            session_id = client.session_id
        assert await dropped.get() == session_id
        assert await logged(log, session_id or "") == []
        await runtime.close()

    run(main)


class Failing(InMemoryEventLog):
    """Fails for a while."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.failures = failures
        self.closed = False

    async def append(self, session_id: str, envelope: dict[str, Any]) -> None:
        if self.failures:
            self.failures -= 1
            raise OSError("the log is away")
        await super().append(session_id, envelope)

    async def close(self) -> None:
        self.closed = True


def test_a_log_that_fails_stops_nothing_and_is_told_again(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        log = Failing(3)
        runtime = make_runtime({"ticks": ticks}, event_log=log)
        async with session(runtime, auto_ack=False) as client:
            assert (await (await client.submit(agent="ticks", input=100)).done).result == "done"
            session_id = client.session_id or ""
        await runtime.close()
        assert log.closed
        kept = await logged(log, session_id)
        assert [envelope["event_seq"] for envelope in kept] == list(range(1, len(kept) + 1))
        assert len(kept) >= 101

    with caplog.at_level(logging.INFO, "arcp"):
        run(main)
    assert caplog.text.count("the event log fails") == 1
    assert caplog.text.count("the event log works again") == 1


def test_a_log_that_never_answers_holds_up_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        class Stuck(InMemoryEventLog):
            async def append(self, session_id: str, envelope: dict[str, Any]) -> None:
                await asyncio.Event().wait()

        runtime = make_runtime({"ticks": ticks}, event_log=Stuck())
        async with session(runtime) as client:
            assert (await (await client.submit(agent="ticks", input=20_000)).done).result == "done"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("arcp.runtime.EVENT_LOG_END_SEC", 0.05)
            await runtime.close()

    with caplog.at_level(logging.WARNING, "arcp"):
        run(main)
    assert "the event log was not told of everything in time" in caplog.text


def test_a_sqlite_log_is_the_runtimes_store(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "arcp.db"
        log = SqliteEventLog(path)
        runtime = make_runtime({"ticks": ticks}, event_log=log)
        assert (runtime.event_log, runtime.db) == (log, str(path))
        async with session(runtime, auto_ack=False) as client:
            handle = await client.submit(agent="ticks", input=30)
            await handle.done
            session_id = client.session_id or ""
            kept = await logged(log, session_id)
            assert [envelope["event_seq"] for envelope in kept] == list(range(1, 32))
            assert kept[-1]["type"] == "job.result"
            with pytest.raises(arcp.InvalidRequestError, match="writes it alone"):
                await log.append(session_id, {"event_seq": 99, "type": "job.event"})
        await runtime.close()
        # Another object reads the file too, and another runtime goes on from it.
        again = SqliteEventLog(str(path))
        assert (await again.latest_seq(session_id), len(await logged(again, session_id, 30))) == (31, 1)
        assert await again.latest_seq("sess_unknown") == 0
        assert await logged(again, "sess_unknown") == []
        later = make_runtime({"ticks": ticks}, db=path)
        async with session(later) as client:
            assert [job.job_id for job in (await client.list_jobs()).jobs] == [handle.job_id]
        await later.close()

    run(main)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_a_log_by_itself(kind: str, tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "events.db"
        log: EventLog = InMemoryEventLog() if kind == "memory" else SqliteEventLog(path)
        assert isinstance(log, EventLog)
        for seq in (1, 2, 2, 3):
            await log.append(
                "sess_a", {"event_seq": seq, "type": "job.event", "job_id": "job_1", "payload": {"n": seq}}
            )
        await log.append("sess_b", {"event_seq": 7, "type": "job.result"})
        assert [envelope["payload"] for envelope in await logged(log, "sess_a", 1)] == [{"n": 2}, {"n": 3}]
        assert [await log.latest_seq(name) for name in ("sess_a", "sess_b", "sess_c")] == [3, 7, 0]
        await log.release_through("sess_a", 2)
        assert [envelope["event_seq"] for envelope in await logged(log, "sess_a")] == [3]
        await log.drop_session("sess_b")
        assert await logged(log, "sess_b") == []
        with pytest.raises(ValueError, match="event_seq"):
            await log.append("sess_a", {"type": "job.event"})
        await log.close()
        if kind == "sqlite":
            with sqlite3.connect(path) as connection:
                rows = connection.execute("SELECT session_id, event_seq, job_id, type FROM events").fetchall()
            connection.close()
            assert rows == [("sess_a", 3, "job_1", "job.event")]

    run(main)


def test_what_is_no_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="event_log"):
        make_runtime(event_log=object())
    with pytest.raises(ValueError, match="leave db out"):
        make_runtime(event_log=SqliteEventLog(tmp_path / "one.db"), db=tmp_path / "two.db")
    with pytest.raises(ValueError, match="InMemoryEventLog"):
        SqliteEventLog(":memory:")


def test_the_iterator_of_a_log_of_ones_own_may_be_a_generator() -> None:
    class Log(InMemoryEventLog):
        async def read_since_seq(self, session_id: str, after_seq: int) -> AsyncIterator[dict[str, Any]]:
            async for envelope in super().read_since_seq(session_id, after_seq):
                yield envelope

    assert isinstance(Log(), EventLog)
