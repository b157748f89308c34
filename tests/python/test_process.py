"""Processes, threads and loops: what happens around the core."""

import asyncio
import collections
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import arcp
from arcp._port import Port, port
from arcp.runtime import JobContext
from conftest import BOUND_SEC, make_client, make_runtime, numbers_of, run, session

HERE = Path(__file__).parent


async def echo(value: Any, ctx: JobContext) -> Any:
    await ctx.log("info", "echo started")
    return {"echoed": value}


async def one_job(runtime: arcp.ARCPRuntime) -> None:
    async with session(runtime) as client:
        handle = await client.submit(agent="echo", input=1)
        assert (await handle.done).result == {"echoed": 1}


# A shell's background job ignores interrupts, and so would its children.
PREFACE = f"""
import signal, sys
sys.path.insert(0, {str(HERE)!r})
signal.signal(signal.SIGINT, signal.default_int_handler)
"""


def python(source: str, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, *options, "-u", "-c", f"{PREFACE}\n{source}"]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_importing_is_quick_and_loads_nothing_else() -> None:
    source = """
import time
begun = time.perf_counter()
import arcp
took = time.perf_counter() - begun
loaded = [name for name in ("pydantic", "asyncio", "ssl", "logging") if name in sys.modules]
print(took, loaded)
assert "ARCPClient" in dir(arcp)
"""
    times = []
    for _ in range(3):
        output, errors = python(source).communicate(timeout=BOUND_SEC)
        took, loaded = output.split(maxsplit=1)
        assert (loaded.strip(), errors) == ("[]", "")
        times.append(float(took))
    assert min(times) < 0.060


def test_every_name_is_there() -> None:
    for name in arcp.__all__:
        assert getattr(arcp, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        arcp.nothing  # noqa: B018


def test_loops_in_threads() -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            run(lambda: one_job(make_runtime({"echo": echo})))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(BOUND_SEC)
    assert failures == []


def test_a_runtime_outlives_its_first_loop() -> None:
    runtime = make_runtime({"echo": echo})
    for _ in range(3):
        run(lambda: one_job(runtime))


def test_one_runtime_from_two_loops() -> None:
    runtime = make_runtime({"echo": echo})

    async def main() -> None:
        await one_job(runtime)
        # The agents stay on this loop.
        await asyncio.to_thread(run, lambda: one_job(runtime))

    run(main)


def test_a_loop_without_readers() -> None:
    class Proactor(asyncio.SelectorEventLoop):
        """As the loops of Windows: it can watch no descriptor."""

        def add_reader(self, fd: Any, callback: Any, *args: Any) -> None:
            raise NotImplementedError

        def _add_reader(self, fd: Any, callback: Any, *args: Any) -> Any:
            return super()._add_reader(fd, callback, *args)  # type: ignore[misc]

    with asyncio.Runner(loop_factory=Proactor) as runner:
        runner.run(asyncio.wait_for(one_job(make_runtime({"echo": echo})), BOUND_SEC))


def test_a_batch_costs_one_wake_up(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 20_000
    wake_ups: dict[Port, int] = collections.Counter()
    drain = Port._drain

    def counting(self: Port) -> None:
        wake_ups[self] += 1
        drain(self)

    monkeypatch.setattr(Port, "_drain", counting)

    async def agent(value: Any, ctx: JobContext) -> None:
        for number in range(count):
            await ctx.progress(number)

    async def main() -> None:
        # The agent has a loop of its own, so that the client's is woken for events only.
        runtime = make_runtime({"agent": agent})
        url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        stop = threading.Event()

        async def serve() -> None:
            async with await arcp.serve_websocket(runtime.accept, port=0) as server:
                url.get_loop().call_soon_threadsafe(url.set_result, server.url)
                await asyncio.to_thread(stop.wait, BOUND_SEC)

        serving = asyncio.create_task(asyncio.to_thread(run, serve))
        async with make_client() as client:
            await client.connect(await arcp.WebSocketTransport.connect(await url))
            handle = await client.submit(agent="agent")
            assert len(await numbers_of(handle.events())) == count
            woken = wake_ups[port()]
        stop.set()
        await serving
        assert woken < count / 8

    run(main)


def test_emitters_let_other_tasks_run() -> None:
    async def main() -> None:
        turns = 0
        done = asyncio.Event()

        async def count() -> None:
            nonlocal turns
            while not done.is_set():
                turns += 1
                await asyncio.sleep(0)

        async def agent(value: Any, ctx: JobContext) -> None:
            for number in range(10_000):
                await ctx.progress(number)
            done.set()

        async with session(make_runtime({"agent": agent})) as client:
            counter = asyncio.create_task(count())
            handle = await client.submit(agent="agent")
            await handle.done
            await counter
        assert turns >= 10_000 // 256

    run(main)


def test_a_burst_can_be_cancelled() -> None:
    async def agent(value: Any, ctx: JobContext) -> None:
        while True:
            await ctx.status("busy")

    async def main() -> None:
        async with session(make_runtime({"agent": agent})) as client:
            handle = await client.submit(agent="agent")
            await client.cancel_job(handle.job_id)
            with pytest.raises(arcp.CancelledError):
                await handle.done

    run(main)


@pytest.mark.parametrize("form", ["async", "plain"])
def test_an_agent_waits_for_a_client_that_lags_behind(form: str) -> None:
    # More than half of what a runtime keeps for a session (D-20).
    count = 55_000

    async def on_loop(value: Any, ctx: JobContext) -> None:
        for number in range(count):
            await ctx.progress(number)

    def in_thread(value: Any, ctx: JobContext) -> None:
        for number in range(count):
            ctx.progress(number)

    async def main() -> None:
        runtime = make_runtime({"async": on_loop, "plain": in_thread})
        async with session(runtime) as client:
            handle = await client.submit(agent=form)
            events = handle.events()
            first = await anext(events)
            while not runtime._port._calls:
                # Until the agent waits.
                await asyncio.sleep(0.01)
            assert runtime._running
            taken = [first.body["current"], *await numbers_of(events)]
            assert taken == list(range(count))
            await handle.done

    run(main)


def test_a_job_does_not_wait_for_an_iterator_that_was_left() -> None:
    count = 60_000

    async def agent(value: Any, ctx: JobContext) -> None:
        for number in range(count):
            await ctx.progress(number)

    async def main() -> None:
        async with session(make_runtime({"agent": agent})) as client:
            handle = await client.submit(agent="agent")
            async for event in handle.events():
                assert event.body["current"] == 0
                break
            await handle.done
            rest = await numbers_of(handle.events())
            # The newest are kept, in order.
            assert rest[-1] == count - 1
            assert rest == sorted(set(rest))

    run(main)


def _in_child(runtime: arcp.ARCPRuntime, client: arcp.ARCPClient, answers: Any) -> None:
    def attempt(call: Any) -> str:
        try:
            call()
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return "nothing"

    answers.put(attempt(lambda: runtime.register_agent("other", echo)))
    answers.put(attempt(lambda: client.latest_event_seq))
    answers.put(attempt(lambda: asyncio.run(runtime.accept(arcp.pair_memory_transports()[0]))))
    # What is made here works here.
    answers.put(attempt(lambda: run(lambda: one_job(make_runtime({"echo": echo})))))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child() -> None:
    runtime = make_runtime({"echo": echo})
    run(lambda: one_job(runtime))
    client = make_client()
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    child = context.Process(target=_in_child, args=(runtime, client, answers))
    child.start()
    got = [answers.get() for _ in range(4)]
    child.join(BOUND_SEC)
    assert child.exitcode == 0
    for answer in got[:3]:
        assert answer.startswith("RuntimeError: this object belongs to the process that was forked"), answer
    assert got[3] == "nothing"
    # And the parent goes on.
    run(lambda: one_job(runtime))


@pytest.mark.parametrize("busy", ["agent", "thread", "events"])
def test_ctrl_c_ends_the_process_soon(busy: str) -> None:
    source = f"""
import asyncio, threading
from conftest import make_runtime, session
async def agent(value, ctx):
    await asyncio.Event().wait()
def thread(value, ctx):
    threading.Event().wait()
async def events(value, ctx):
    while True:
        await ctx.status("busy")
async def main():
    async with session(make_runtime({{"agent": agent, "thread": thread, "events": events}})) as client:
        handle = await client.submit(agent={busy!r})
        print("ready")
        async for event in handle.events():
            pass
        await handle.done
asyncio.run(main())
"""
    with python(source) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        try:
            _, errors = process.communicate(timeout=BOUND_SEC)
        finally:
            process.kill()
    assert time.monotonic() - begun < 5
    assert "KeyboardInterrupt" in errors
    assert process.returncode in (1, 130, -signal.SIGINT)


def test_a_process_that_forgets_everything_ends_soon() -> None:
    source = """
import asyncio
from conftest import make_client, make_runtime
import arcp
async def agent(value, ctx):
    await asyncio.Event().wait()
async def main():
    ours, theirs = arcp.pair_memory_transports()
    runtime = make_runtime({"agent": agent})
    accepting = asyncio.create_task(runtime.accept(theirs))
    client = make_client()
    await client.connect(ours)
    handle = await client.submit(agent="agent")
    server = await arcp.serve_websocket(runtime.accept, port=0)
    print("left")
asyncio.run(main())
"""
    begun = time.monotonic()
    output, errors = python(source, "-X", "dev").communicate(timeout=BOUND_SEC)
    assert (output, errors) == ("left\n", "")
    assert time.monotonic() - begun < 5


def test_nothing_is_left_unawaited_in_debug_mode() -> None:
    run(
        lambda: one_job(make_runtime({"echo": echo, "plain": lambda inp, ctx: ctx.log("info", "x") and None})),
        debug=True,
    )


def test_logs_of_the_core_reach_logging(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        runtime = make_runtime({"echo": echo})
        async with await arcp.serve_websocket(runtime.accept, port=0) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"nonsense\r\n\r\n")
            await reader.read()
            writer.close()
            await writer.wait_closed()
            while not caplog.records:
                await asyncio.sleep(0.001)

    with caplog.at_level("DEBUG", logger="arcp"):
        run(main)
    assert {record.name for record in caplog.records} == {"arcp"}
