"""A good citizen of asyncio: loops of other makes, task groups, timeouts, and nothing left behind."""

import asyncio
import contextlib
import os
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

import arcp
from arcp.runtime import ARCPRuntime, JobContext
from conftest import BOUND_SEC, TOKEN, make_client, make_runtime, numbers_of, run, session
from links import Steps

HERE = Path(__file__).parent
TLS = HERE / "tls"


async def counts(value: Any, ctx: JobContext) -> str:
    for number in range(value):
        await ctx.progress(number)
    return "counted"


def plain(value: Any, ctx: JobContext) -> Any:
    ctx.log("info", "from a thread")
    return value


async def held(value: Any, ctx: JobContext) -> None:
    await asyncio.Event().wait()


class Passing:
    """A transport of the user's own that passes everything on."""

    def __init__(self, inner: arcp.Transport) -> None:
        self._inner = inner

    async def send(self, message: dict[str, Any]) -> None:
        await self._inner.send(message)

    async def recv(self) -> dict[str, Any]:
        return await self._inner.recv()

    async def close(self) -> None:
        await self._inner.close()

    @property
    def is_closed(self) -> bool:
        return self._inner.is_closed


async def tour() -> None:
    """Jobs of every kind, over transports of every kind."""
    runtime = make_runtime({"counts": counts, "plain": plain, "held": held})

    async def use(transport: arcp.Transport) -> None:
        async with make_client() as client:
            await client.connect(transport)
            handle = await client.submit(agent="counts", input=3000)
            assert await numbers_of(handle.events()) == list(range(3000))
            assert (await handle.done).result == "counted"
            handles = await asyncio.gather(*(client.submit(agent="plain", input=n) for n in range(20)))
            assert [(await handle.done).result for handle in handles] == list(range(20))
            waiting = await client.submit(agent="held")
            await client.cancel_job(waiting.job_id)
            with pytest.raises(arcp.CancelledError):
                await waiting.done

    async with await arcp.serve_websocket(runtime.accept, port=0) as server:
        await use(await arcp.WebSocketTransport.connect(server.url))
    for wrap in (lambda end: end, Passing):
        ours, theirs = arcp.pair_memory_transports()
        accepting = asyncio.create_task(runtime.accept(wrap(theirs)))
        await use(wrap(ours))
        await accepting
    await runtime.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def within_bound(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async with asyncio.timeout(BOUND_SEC):
        await main()


def test_under_uvloop() -> None:
    uvloop = pytest.importorskip("uvloop", reason="uvloop has no build for this platform")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert type(runner.get_loop()).__module__.startswith("uvloop")
        runner.run(within_bound(tour))


def test_under_the_loop_of_asyncio() -> None:
    run(tour)


def test_debug_mode_has_nothing_to_say() -> None:
    source = f"""
import sys
sys.path.insert(0, {str(HERE)!r})
import asyncio, logging
logging.basicConfig(level=logging.WARNING)
from conftest import run
from test_asyncio import tour
# A slow machine is no fault of the program's.
asyncio.BaseEventLoop.slow_callback_duration = 5
async def main():
    asyncio.get_running_loop().slow_callback_duration = 5.0
    await tour()
run(main)
"""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", source],
        env=os.environ | {"PYTHONASYNCIODEBUG": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_is_not_awaited_warns_of_nothing() -> None:
    async def careless(value: Any, ctx: JobContext) -> None:
        ctx.log("info", "x")
        ctx.progress(1)
        ctx.status("careless")

    async def main() -> None:
        async with session(make_runtime({"careless": careless})) as client:
            handle = await client.submit(agent="careless")
            handle.done  # noqa: B018
            handle.events()
            handle.chunks()
            await handle.done

    run(main, debug=True)


def test_a_timeout_ends_a_wait_and_not_the_job() -> None:
    async def main() -> None:
        steps = Steps()
        async with session(make_runtime({"steps": steps})) as client:
            handle = await client.submit(agent="steps", input=1)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await handle.done
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(numbers_of(handle.events()), 0.02)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(handle.collect_chunks(), 0.02)
            steps.tell(1)
            assert (await handle.done).result == "done"

    run(main)


def test_a_task_group_takes_its_tasks_down() -> None:
    async def main() -> None:
        steps = Steps()
        async with session(make_runtime({"steps": steps})) as client:
            handle = await client.submit(agent="steps", input=2)

            async def wait() -> None:
                await handle.done

            async def fail() -> None:
                await asyncio.sleep(0)
                raise ZeroDivisionError

            async def together() -> None:
                async with asyncio.TaskGroup() as group:
                    group.create_task(numbers_of(handle.events()))
                    for work in (wait, wait, fail):
                        group.create_task(work())

            with pytest.raises(ExceptionGroup) as caught:
                await together()
            assert [type(error) for error in caught.value.exceptions] == [ZeroDivisionError]
            # The session is as it was.
            steps.tell(2)
            assert await numbers_of(handle.events()) == [0, 1]
            assert (await handle.done).result == "done"

    run(main)


def test_agents_stay_on_their_loop_and_clients_on_theirs() -> None:
    where: dict[str, Any] = {}

    async def agent(value: Any, ctx: JobContext) -> None:
        where["agent"] = asyncio.get_running_loop()

    async def main() -> None:
        runtime = make_runtime({"agent": agent})
        async with await arcp.serve_websocket(runtime.accept, port=0) as server:

            async def elsewhere() -> None:
                async with make_client() as client:
                    await client.connect(await arcp.WebSocketTransport.connect(server.url))
                    await (await client.submit(agent="agent")).done
                    where["client"] = asyncio.get_running_loop()

            await asyncio.to_thread(run, elsewhere)
        await runtime.close()
        assert where["agent"] is asyncio.get_running_loop()
        assert where["client"] is not where["agent"]

    run(main)


def test_an_agent_gives_the_loop_back_by_time_too() -> None:
    """One that does much between two events is not allowed 256 of them (D-23)."""

    async def main() -> None:
        turns = 0
        done = asyncio.Event()

        async def count() -> None:
            nonlocal turns
            while not done.is_set():
                turns += 1
                await asyncio.sleep(0)

        async def busy(value: Any, ctx: JobContext) -> None:
            for number in range(40):
                ends = time.perf_counter() + 0.001
                while time.perf_counter() < ends:
                    pass
                await ctx.progress(number)
            done.set()

        async with session(make_runtime({"busy": busy})) as client:
            counter = asyncio.create_task(count())
            await (await client.submit(agent="busy")).done
            await counter
        assert turns >= 39

    run(main)


INTERPRETERS = """
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
import arcp
number = interpreters.create()
try:
    failure = interpreters.run_string(number, "import arcp")
except Exception as error:
    failure = error
print(failure)
"""


def test_another_interpreter_is_refused_clearly() -> None:
    done = subprocess.run([sys.executable, "-c", INTERPRETERS], capture_output=True, text=True, timeout=BOUND_SEC)
    assert done.returncode == 0, done.stderr
    assert "ImportError" in done.stdout
    assert "arcp cannot be used in a sub-interpreter" in done.stdout


@contextlib.asynccontextmanager
async def accepted(runtime: ARCPRuntime, transport: arcp.Transport) -> AsyncIterator[None]:
    accepting = asyncio.create_task(runtime.accept(transport))
    yield
    await accepting
    await runtime.close()


def test_a_native_end_that_was_touched_is_not_bypassed() -> None:
    """Subclassed, or with a method put over its own (D-32)."""
    sent: list[str] = []

    class Mine(arcp.MemoryTransport):
        async def send(self, message: dict[str, Any]) -> None:
            sent.append(message["type"])
            await super().send(message)

    def subclassed(end: arcp.MemoryTransport) -> arcp.Transport:
        return Mine(end._handle)

    def patched(end: arcp.MemoryTransport) -> arcp.Transport:
        send = end.send

        async def noting(message: dict[str, Any]) -> None:
            sent.append(message["type"])
            await send(message)

        end.send = noting  # type: ignore[method-assign]
        return end

    async def main(touch: Callable[[arcp.MemoryTransport], arcp.Transport]) -> None:
        ours, theirs = arcp.pair_memory_transports()
        async with accepted(make_runtime({"plain": plain}), theirs), make_client() as client:
            await client.connect(touch(ours))
            assert (await (await client.submit(agent="plain", input=1)).done).result == 1

    for touch in (subclassed, patched):
        sent.clear()
        run(lambda touch=touch: main(touch))  # type: ignore[misc]
        assert sent[:2] == ["session.hello", "job.submit"]


def test_an_accept_that_was_replaced_is_called() -> None:
    """Subclassed, or put over the instance's own (D-32)."""
    called: list[str] = []

    class Mine(ARCPRuntime):
        async def accept(self, transport: arcp.Transport) -> None:
            called.append("subclassed")
            await super().accept(transport)

    def replaced() -> ARCPRuntime:
        runtime = make_runtime({"plain": plain})
        accept = runtime.accept

        async def noting(transport: arcp.Transport) -> None:
            called.append("replaced")
            await accept(transport)

        runtime.accept = noting  # type: ignore[method-assign]
        return runtime

    async def main() -> None:
        template = make_runtime()
        mine = Mine(runtime=template.runtime_info, bearer=template.bearer).register_agent("plain", plain)
        for runtime in (mine, replaced()):
            async with await arcp.serve_websocket(runtime.accept, port=0) as server, make_client() as client:
                await client.connect(await arcp.WebSocketTransport.connect(server.url))
                assert (await (await client.submit(agent="plain", input=1)).done).result == 1
            await runtime.close()

    run(main)
    assert called == ["subclassed", "replaced"]


def test_memory_pairs_are_bounded() -> None:
    async def main() -> None:
        ours, theirs = arcp.pair_memory_transports()
        sent = 0

        async def flood() -> None:
            nonlocal sent
            while True:
                await ours.send({"n": sent})
                sent += 1

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(flood(), 0.5)
        assert 1024 <= sent < 10_000
        # In order; what was on its way when the wait ended may have gone too.
        for number in range(sent):
            assert await theirs.recv() == {"n": number}

    run(main)


def secured(work: Callable[[str], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        runtime = make_runtime({"plain": plain})
        files = (TLS / "cert.pem", TLS / "key.pem")
        async with await arcp.serve_websocket(runtime.accept, port=0, ssl=files) as server:
            await work(f"wss://localhost:{server.sockets[0].getsockname()[1]}/arcp")
        await runtime.close()

    run(main)


def test_the_authorities_of_a_context_are_imported() -> None:
    async def work(url: str) -> None:
        with pytest.raises(arcp.ConnectionError, match="certificate"):
            await arcp.WebSocketTransport.connect(url)
        context = ssl.create_default_context(cafile=TLS / "ca.pem")
        async with make_client(token=TOKEN) as client:
            transport = await arcp.WebSocketTransport.connect(url, ssl=context)
            assert transport.is_private
            await client.connect(transport)
            assert (await (await client.submit(agent="plain", input=1)).done).result == 1

    secured(work)


def unverified(context: ssl.SSLContext) -> None:
    context.check_hostname = False


def with_revocation_lists(context: ssl.SSLContext) -> None:
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF


def only_1_3(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_3


def only_1_2(context: ssl.SSLContext) -> None:
    context.maximum_version = ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (unverified, "verify certificates and host names"),
        (with_revocation_lists, "verify_flags"),
        (only_1_3, "minimum_version"),
        (only_1_2, "maximum_version"),
    ],
)
def test_what_cannot_be_honoured_of_a_context_is_named(change: Callable[[ssl.SSLContext], None], named: str) -> None:
    context = ssl.create_default_context()
    change(context)
    with pytest.raises(ValueError, match=named):
        asyncio.run(arcp.WebSocketTransport.connect("wss://localhost:1/arcp", ssl=context))
