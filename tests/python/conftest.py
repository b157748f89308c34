"""A runtime and a client in one process, and a bound on every test."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from arcp import ARCPClient, ARCPRuntime, ClientInfo, RuntimeInfo, pair_memory_transports
from arcp.client import JobEvent
from arcp.runtime import Agent, StaticBearerVerifier

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background job ignores Ctrl-C, and so would every program that the tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)


BOUND_SEC = 20.0
TOKEN = "tok-alice"
ALICE = "alice@example.com"


def make_runtime(agents: dict[str, Agent] | None = None, **options: Any) -> ARCPRuntime:
    options.setdefault("bearer", StaticBearerVerifier({TOKEN: ALICE}))
    runtime = ARCPRuntime(runtime=RuntimeInfo(name="test-runtime", version="1.0.0"), **options)
    for name, agent in (agents or {}).items():
        runtime.register_agent(name, agent)
    return runtime


def make_client(**options: Any) -> ARCPClient:
    options.setdefault("token", TOKEN)
    return ARCPClient(client=ClientInfo(name="test-client", version="1.0.0"), **options)


async def numbers_of(events: AsyncIterator[JobEvent]) -> list[Any]:
    """What the progress events say; a runtime adds events of its own when its client lags behind."""
    return [event.body["current"] async for event in events if event.kind == "progress"]


@contextlib.asynccontextmanager
async def session(runtime: ARCPRuntime, **options: Any) -> AsyncIterator[ARCPClient]:
    """A client connected to `runtime` through memory."""
    ours, theirs = pair_memory_transports()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(runtime.accept(theirs))
        async with make_client(**options) as client:
            await client.connect(ours)
            yield client


def run(main: Callable[[], Awaitable[None]], *, debug: bool | None = None) -> None:
    """Runs a test's coroutine within the bound."""

    async def bounded() -> None:
        async with asyncio.timeout(BOUND_SEC):
            await main()

    asyncio.run(bounded(), debug=debug)
