"""Runtimes that keep what they know in a file."""

import asyncio
import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import arcp
from arcp.runtime import JobContext
from conftest import BOUND_SEC, make_client, make_runtime, run, session

APP = """
import asyncio, os
from arcp import ARCPRuntime, RuntimeInfo
from arcp.runtime import StaticBearerVerifier

async def ticker(value, ctx):
    for number in range(value or 0):
        await ctx.progress(number)
    # Killed before it ends.
    await asyncio.Event().wait()

async def again(value, ctx):
    await ctx.status(f"begun by {os.getpid()}")
    if value["killed"] == os.getpid() or not os.path.exists("second"):
        await asyncio.Event().wait()
    return "done"

def make(**options):
    runtime = ARCPRuntime(
        runtime=RuntimeInfo(name="app", version="1.0"),
        bearer=StaticBearerVerifier({"tok": "me@example.com"}),
        **options,
    )
    runtime.register_agent("echo", lambda inp, ctx: {"echoed": inp})
    runtime.register_agent("ticker", ticker)
    return runtime.register_agent("again", again, restartable=True)

runtime = make()

def own():
    return make(db="own.db")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


class Served:
    """`arcp serve --app` in a folder."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "arcp", "serve", "--output", "json", *arguments]
            + ([] if "--port" in arguments else ["--port", "0"]),
            cwd=folder,
            env={key: value for key, value in os.environ.items() if not key.startswith("ARCP_")},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate(timeout=BOUND_SEC)
        self.listening = json.loads(line)["listening"]

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=BOUND_SEC)

    def stop(self) -> int:
        self.process.terminate()
        self.process.communicate(timeout=BOUND_SEC)
        return self.process.returncode

    async def client(self, **options: Any) -> arcp.ARCPClient:
        client = make_client(token="tok", **options)
        await client.connect(await arcp.WebSocketTransport.connect(self.listening["url"]))
        return client


async def echo(value: Any, ctx: JobContext) -> Any:
    await ctx.log("info", "echo started")
    return {"echoed": value}


def test_a_later_runtime_knows_what_an_earlier_one_kept(tmp_path: Path) -> None:
    async def main() -> None:
        runtime = make_runtime({"echo": echo}, db=tmp_path / "arcp.db", synchronous="full")
        async with session(runtime) as client:
            first = await client.submit(agent="echo", input=1, idempotency_key="once")
            await first.done
        await runtime.close()
        runtime = make_runtime({"echo": echo}, db=str(tmp_path / "arcp.db"))
        async with session(runtime) as client:
            second = await client.submit(agent="echo", input=1, idempotency_key="once")
            assert second.job_id == first.job_id
            assert (await second.done).result == {"echoed": 1}
            followed = await client.subscribe(first.job_id, history=True)
            assert [event.body["message"] async for event in followed.handle.events()] == ["echo started"]
            with pytest.raises(arcp.DuplicateKeyError):
                await client.submit(agent="echo", input=2, idempotency_key="once")
        await runtime.close()

    run(main)


def test_a_database_with_a_key_opens_with_it_alone(tmp_path: Path) -> None:
    """Rules: R-14.9"""
    db, key = tmp_path / "arcp.db", tmp_path / "arcp.key"
    key.write_bytes(os.urandom(32))
    key.chmod(0o600)

    def kept() -> bytes:
        return b"".join(path.read_bytes() for path in tmp_path.glob("arcp.db*"))

    async def main() -> None:
        runtime = make_runtime({"echo": echo}, db=db, db_key_file=key)
        async with session(runtime) as client:
            first = await client.submit(agent="echo", input="findable", idempotency_key="once")
            await first.done
        assert b"findable" not in kept()
        assert b"echo started" not in kept()
        await runtime.close()
        with pytest.raises(ValueError, match=r"arcp\.db is encrypted; name its key"):
            make_runtime(db=db)
        runtime = make_runtime({"echo": echo}, db=db, db_key_file=str(key))
        async with session(runtime) as client:
            second = await client.submit(agent="echo", input="findable", idempotency_key="once")
            assert (await second.done).result == {"echoed": "findable"}
            assert second.job_id == first.job_id
        await runtime.close()
        key.chmod(0o644)
        with pytest.raises(ValueError, match="run chmod 600"):
            make_runtime(db=db, db_key_file=key)

    run(main)


def test_a_database_has_one_owner(tmp_path: Path) -> None:
    path = tmp_path / "arcp.db"

    async def main() -> None:
        runtime = make_runtime(db=path)
        with pytest.raises(ValueError, match=rf"this process \(pid {os.getpid()}\)"):
            make_runtime(db=path)
        source = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from conftest import make_runtime
try:
    make_runtime(db={str(path)!r})
except ValueError as error:
    print(error)
"""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", source, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        output, errors = await process.communicate()
        assert (f"pid {os.getpid()}" in output.decode(), errors) == (True, b"")
        await runtime.close()
        # Closed, it belongs to nobody.
        await make_runtime(db=path).close()

    run(main)


def _in_child(path: Path, runtime: arcp.ARCPRuntime, answers: Any) -> None:
    async def use() -> None:
        await runtime.accept(arcp.pair_memory_transports()[0])

    for attempt in (lambda: run(use), lambda: make_runtime(db=path)):
        try:
            attempt()
        except Exception as error:
            answers.put(f"{type(error).__name__}: {error}")
        else:
            answers.put("nothing")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_may_not_use_the_database(tmp_path: Path) -> None:
    path = tmp_path / "arcp.db"
    runtime = make_runtime({"echo": echo}, db=path)
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    child = context.Process(target=_in_child, args=(path, runtime, answers))
    child.start()
    used, opened = answers.get(), answers.get()
    child.join(BOUND_SEC)
    assert "belongs to the process that was forked" in used
    assert opened.startswith("ValueError: the database ")
    assert f"pid {os.getpid()}" in opened
    run(lambda: runtime.close())


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"db": ""}, "db must"),
        ({"db": b"x"}, "db must"),
        ({"db": 3}, "int"),
        ({"db": "x.db", "synchronous": "never"}, "synchronous"),
        ({"db": "."}, "folder"),
        ({"db_key_file": "x.key"}, "db_key_file is about a database file"),
        ({"db": "x.db", "db_key_file": "/nowhere/x.key"}, "x.key cannot be read"),
        ({"db": "x.db", "db_key_file": b"x"}, "db_key_file must"),
    ],
)
def test_what_a_database_option_refuses(options: dict[str, Any], named: str) -> None:
    with pytest.raises((TypeError, ValueError), match=named):
        make_runtime(**options)


def test_a_killed_server_comes_back(folder: Path) -> None:
    async def main() -> None:
        served = Served(folder, "--app", "app:own")
        assert served.listening["db"] == str(folder / "own.db")
        client = await served.client()
        done = await client.submit(agent="echo", input=1, idempotency_key="once")
        assert (await done.done).result == {"echoed": 1}
        ticker = await client.submit(agent="ticker", input=50)
        events = ticker.events()
        for number in range(50):
            assert (await anext(events)).body["current"] == number
        again = await client.submit(agent="again", input={"killed": served.process.pid})
        first = await anext(again.events())
        assert first.body["phase"] == f"begun by {served.process.pid}"
        served.kill()
        await client.close()

        (folder / "second").touch()
        served = Served(folder, "--app", "app:own")
        client = await served.client()
        repeated = await client.submit(agent="echo", input=1, idempotency_key="once")
        assert repeated.job_id == done.job_id
        assert (await repeated.done).result == {"echoed": 1}

        # It died with its process; what it said is kept, and so is its end.
        died = (await client.subscribe(ticker.job_id, history=True)).handle
        assert [event.body["current"] async for event in died.events()] == list(range(50))
        with pytest.raises(arcp.InternalError) as ended:
            await died.done
        assert ended.value.retryable

        # This one runs again.
        rerun = (await client.subscribe(again.job_id, history=True)).handle
        phases = [event.body["phase"] async for event in rerun.events() if event.kind == "status"]
        assert phases[0] == first.body["phase"]
        assert phases[-1] == f"begun by {served.process.pid}"
        assert (await rerun.done).result == "done"
        await client.close()
        assert served.stop() == 0

    run(main)


def test_a_client_goes_on_when_its_server_comes_back(folder: Path) -> None:
    async def main() -> None:
        served = Served(folder, "--app", "app:own")
        port = served.listening["url"].split(":")[2].split("/")[0]
        async with await served.client() as client:
            session_id = client.session_id
            ticker = await client.submit(agent="ticker", input=20)
            again = await client.submit(agent="again", input={"killed": served.process.pid})
            events, phases = ticker.events(), again.events()
            for number in range(10):
                assert (await anext(events)).body["current"] == number
            assert (await anext(phases)).body["phase"] == f"begun by {served.process.pid}"
            served.kill()
            (folder / "second").touch()
            served = Served(folder, "--app", "app:own", "--port", port)
            # The same handles, in the same session.
            assert [event.body["current"] async for event in events] == list(range(10, 20))
            with pytest.raises(arcp.InternalError):
                await ticker.done
            assert (await anext(phases)).body["phase"] == f"begun by {served.process.pid}"
            assert (await again.done).result == "done"
            assert client.session_id == session_id
            assert (await (await client.submit(agent="echo", input=1)).done).result == {"echoed": 1}
        assert served.stop() == 0

    run(main)


def test_the_program_lends_an_app_its_database(folder: Path) -> None:
    async def main() -> None:
        jobs = []
        for _ in range(2):
            served = Served(folder, "--app", "app:runtime", "--db", "arcp.db", "--synchronous", "full")
            assert served.listening["db"] == str(folder / "arcp.db")
            async with await served.client() as client:
                handle = await client.submit(agent="echo", input=1, idempotency_key="once")
                assert (await handle.done).result == {"echoed": 1}
                jobs.append(handle.job_id)
            served.kill()
        assert jobs[0] == jobs[1]

    run(main)


def serve_in_vain(folder: Path, *arguments: str) -> str:
    """What the program says that refuses to serve, in one line."""
    process = subprocess.run(
        [sys.executable, "-m", "arcp", "serve", "--port", "0", *arguments],
        cwd=folder,
        text=True,
        capture_output=True,
        timeout=BOUND_SEC,
    )
    assert process.returncode != 0
    assert process.stderr.count("\n") == 1, process.stderr
    return process.stderr


def test_a_database_that_cannot_be_had_is_told_in_a_line(folder: Path) -> None:
    assert "its own database" in serve_in_vain(folder, "--app", "app:own", "--db", "arcp.db")
    assert not (folder / "arcp.db").exists()
    served = Served(folder, "--app", "app:own")
    for arguments in [("--app", "app:own"), ("--app", "app:runtime", "--db", "own.db")]:
        assert f"pid {served.process.pid}" in serve_in_vain(folder, *arguments)
    served.kill()


def test_an_app_in_memory_has_no_database(folder: Path) -> None:
    served = Served(folder, "--app", "app:runtime", "--db", "memory")
    assert served.listening["db"] is None
    assert served.stop() == 0
