"""The blocking client: scripts, threads, notebooks."""

import asyncio
import contextlib
import contextvars
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

import arcp
import arcp.sync
from arcp._background import Background, background
from arcp.client import JobEvent
from arcp.runtime import JobContext
from arcp.testing import serve_in_thread
from conftest import BOUND_SEC, TOKEN, make_runtime, run
from links import accept

HERE = Path(__file__).parent


async def echo(value: Any, ctx: JobContext) -> Any:
    await ctx.log("info", "echo started")
    return {"echoed": value}


async def counts(value: Any, ctx: JobContext) -> str:
    for number in range(value):
        await ctx.progress(number)
    return "counted"


async def streams(value: Any, ctx: JobContext) -> None:
    async with ctx.stream_result() as result:
        await result.write(b"\x00\x01" * value)


async def fails(value: Any, ctx: JobContext) -> None:
    raise arcp.BudgetExhaustedError("spent")


class Held:
    """An agent that goes on when the test says so, and tells how it ended."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.cancelled = False

    async def __call__(self, value: Any, ctx: JobContext) -> None:
        await ctx.status("holding")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        finally:
            self.ended.set()


def numbers_of(events: Iterable[JobEvent]) -> list[Any]:
    return [event.body["current"] for event in events if event.kind == "progress"]


@contextlib.contextmanager
def served(**agents: Any) -> Iterator[str]:
    """A runtime on a loop of its own; its URL."""
    home = Background()
    runtime = make_runtime(agents)

    async def begin() -> arcp.transport.WebSocketServer:
        return await arcp.serve_websocket(runtime.accept, port=0)

    async def end() -> None:
        server.close()
        await server.wait_closed()
        await runtime.close()

    server = home.call(begin)
    try:
        yield server.url
    finally:
        home.call(end)
        home.stop()


def test_a_session() -> None:
    with served(echo=echo, counts=counts, streams=streams, fails=fails) as url:
        with arcp.sync.Client.connect(url, token=TOKEN, name="script") as client:
            assert client.session_id is not None
            assert "progress" in client.negotiated_features
            job = client.submit("echo", {"hi": 1})
            assert job.result() == {"echoed": {"hi": 1}}
            assert job.wait().final_status == "success"
            assert [event.kind for event in job.events()] == ["log"]
            assert [event.kind for event in job.events()] == []
            numbers = client.submit(agent="counts", input=20_000)
            assert numbers_of(numbers.events()) == list(range(20_000))
            assert client.submit("streams", 3000).result() == b"\x00\x01" * 3000
            failing = client.submit("fails")
            with pytest.raises(arcp.BudgetExhaustedError, match="spent"):
                failing.result()
            listed = client.list_jobs().jobs
            assert [entry.job_id for entry in listed][:2] == [job.job_id, numbers.job_id]
            followed = client.subscribe(numbers.job_id, history=True)
            assert (followed.result(), followed.job_id) == ("counted", numbers.job_id)
            assert job.handle.trace_id in repr(listed)
            assert TOKEN not in repr(client)
        client.close()
        with pytest.raises(arcp.TransportClosed):
            client.submit("echo")


def test_a_loop_over_events_that_is_left_goes_on_later() -> None:
    with served(counts=counts) as url, arcp.sync.Client.connect(url, token=TOKEN) as client:
        job = client.submit("counts", 5000)
        taken = numbers_of(itertools.islice(job.events(), 10))
        assert job.result() == "counted"
        assert taken + numbers_of(job.events()) == list(range(5000))


def test_run() -> None:
    seen: list[str] = []
    with served(echo=echo, fails=fails) as url:
        assert arcp.sync.run("echo", 7, url=url, token=TOKEN) == {"echoed": 7}
        arcp.sync.run("echo", url=url, token=TOKEN, on_event=lambda event: seen.append(event.kind))
        assert seen == ["log"]
        with pytest.raises(arcp.BudgetExhaustedError):
            arcp.sync.run("fails", url=url, token=TOKEN)
        with pytest.raises(arcp.AgentNotAvailableError):
            arcp.sync.run("nobody", url=url, token=TOKEN)


def test_where_the_token_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ARCP_TOKEN", raising=False)
    with served(echo=echo) as url:
        with pytest.raises(ValueError, match="ARCP_TOKEN"):
            arcp.sync.run("echo", url=url)
        with pytest.raises(arcp.UnauthenticatedError):
            arcp.sync.run("echo", url=url, token="no")
        monkeypatch.setenv("ARCP_TOKEN", TOKEN)
        assert arcp.sync.run("echo", 1, url=url) == {"echoed": 1}
        assert arcp.sync.run("echo", 1, url=url, token=lambda: TOKEN) == {"echoed": 1}
    with pytest.raises(arcp.ConnectionError):
        arcp.sync.run("echo", url=url)


def test_a_timeout_ends_the_wait() -> None:
    held = Held()
    with served(held=held) as url:
        with arcp.sync.Client.connect(url, token=TOKEN) as client:
            job = client.submit("held")
            with pytest.raises(TimeoutError, match=r"0\.05 s"):
                job.result(0.05)
            with pytest.raises(TimeoutError):
                list(job.events(0.05))
            assert not held.ended.is_set()
            job.cancel()
            with pytest.raises(arcp.CancelledError):
                job.result()
            assert held.cancelled
        for on_event in (None, lambda _: None):
            held.ended.clear()
            with pytest.raises(TimeoutError):
                arcp.sync.run("held", url=url, token=TOKEN, timeout=0.05, on_event=on_event)
            assert held.ended.wait(BOUND_SEC)


def test_an_error_of_on_event_cancels_the_job() -> None:
    held = Held()
    with served(held=held) as url:
        with pytest.raises(ZeroDivisionError):
            arcp.sync.run("held", url=url, token=TOKEN, on_event=lambda _: 1 // 0)
        assert held.ended.wait(BOUND_SEC)
        assert held.cancelled


def test_inside_a_running_loop() -> None:
    async def main() -> None:
        with served(echo=echo) as url:
            # As a cell of a notebook does.
            assert arcp.sync.run("echo", 1, url=url, token=TOKEN) == {"echoed": 1}

    run(main)


def test_from_many_threads() -> None:
    results: list[Any] = []
    with served(echo=echo) as url, arcp.sync.Client.connect(url, token=TOKEN) as client:

        def work(number: int) -> None:
            results.extend(client.submit("echo", number * 100 + step).result()["echoed"] for step in range(20))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(BOUND_SEC)
    assert sorted(results) == sorted(number * 100 + step for number in range(8) for step in range(20))


def test_a_transport_of_ones_own() -> None:
    async def main() -> None:
        ours, theirs = arcp.pair_memory_transports()
        runtime = make_runtime({"echo": echo})
        accept(runtime, theirs)
        value = await asyncio.to_thread(lambda: arcp.sync.run("echo", 1, url=ours, token=TOKEN))
        assert value == {"echoed": 1}
        await runtime.close()

    run(main)


def test_a_call_that_would_wait_for_itself_says_so() -> None:
    home = background()

    async def inside() -> None:
        home.call(lambda: asyncio.sleep(0))

    with pytest.raises(RuntimeError, match="wait for itself"):
        home.call(inside)


def test_context_variables_of_the_caller_are_seen() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("mine")

    async def inside() -> str:
        return variable.get()

    assert background().call(inside) == "mine"


PREFACE = f"""
import signal, sys
sys.path.insert(0, {str(HERE)!r})
signal.signal(signal.SIGINT, signal.default_int_handler)
# What asyncio finds slow is so on a busy machine; its errors still show.
import logging
logging.getLogger("asyncio").setLevel(logging.ERROR)
import arcp.sync
url = sys.argv[1]
"""


def script(source: str, url: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-X", "dev", "-W", "error", "-u", "-c", f"{PREFACE}\n{source}", url]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.parametrize(
    ("wait", "cancels"),
    [
        ("arcp.sync.run('held', url=url, token='tok-alice', on_event=lambda _: print('ready'))", True),
        ("print('ready') or job.result()", False),
        ("[print('ready') for _ in job.events()]", False),
    ],
)
def test_ctrl_c_ends_a_wait_at_once(wait: str, cancels: bool) -> None:
    held = Held()
    with served(held=held) as url:
        source = f"""
with arcp.sync.Client.connect(url, token="tok-alice") as client:
    job = None if {cancels} else client.submit("held")
    try:
        {wait}
    except KeyboardInterrupt:
        print("interrupted")
"""
        process = script(source, url)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=BOUND_SEC)
        assert (output, errors, process.returncode) == ("interrupted\n", "", 0)
        assert time.monotonic() - begun < 3
        if cancels:
            assert held.ended.wait(BOUND_SEC)
            assert held.cancelled
        else:
            assert not held.ended.is_set()


def test_a_script_that_closes_nothing_ends() -> None:
    with served(echo=echo, held=Held()) as url:
        source = """
client = arcp.sync.Client.connect(url, token="tok-alice")
job = client.submit("held")
events = job.events()
next(events)
print(client.submit("echo", 1).result())
"""
        output, errors = script(source, url).communicate(timeout=BOUND_SEC)
        assert (output, errors) == ("{'echoed': 1}\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_connects_anew() -> None:
    with served(echo=echo) as url, arcp.sync.Client.connect(url, token=TOKEN) as client:
        assert client.submit("echo", 1).result() == {"echoed": 1}
        child = os.fork()
        if child == 0:
            status = 1
            with contextlib.suppress(BaseException):
                with pytest.raises(RuntimeError, match="forked"):
                    client.submit("echo")
                assert arcp.sync.run("echo", 2, url=url, token=TOKEN) == {"echoed": 2}
                status = 0
            os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        assert client.submit("echo", 3).result() == {"echoed": 3}


def test_a_wrong_timeout_is_named_before_anything_is_sent() -> None:
    with serve_in_thread({"echo": lambda value, ctx: value}) as served:
        for timeout, error in (("1", TypeError), (float("nan"), ValueError)):
            with pytest.raises(error, match="timeout must be a number of seconds, got"):
                arcp.sync.run("echo", url=served.url, token=served.token, timeout=timeout)  # type: ignore[arg-type]
        with arcp.sync.Client.connect(served.url, token=served.token) as client:
            assert client.list_jobs().jobs == ()
