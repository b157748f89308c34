"""Runtimes and sessions in this process."""

import asyncio
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from arcp import _native
from arcp._background import Background
from arcp.client import ARCPClient
from arcp.messages import ClientInfo, RuntimeInfo
from arcp.runtime import Agent, ARCPRuntime, StaticBearerVerifier
from arcp.transport import Transport, WebSocketTransport, pair_memory_transports, serve_websocket

TOKEN = "test-token"
"""The token a runtime of `make_runtime` takes."""

PRINCIPAL = "tester@example.com"
"""Who that token belongs to."""

Agents = ARCPRuntime | Mapping[str, Agent] | None


def make_runtime(agents: Mapping[str, Agent] | None = None, **options: Any) -> ARCPRuntime:
    """A runtime that takes `TOKEN`, with these agents by name.

    `options` are those of `ARCPRuntime`; `bearer=StaticBearerVerifier({...})` for tokens of your own.
    """
    options.setdefault("bearer", StaticBearerVerifier({TOKEN: PRINCIPAL}))
    options.setdefault("runtime", RuntimeInfo(name="arcp.testing", version=_native.IMPL_VERSION))
    runtime = ARCPRuntime(**options)
    for name, agent in (agents or {}).items():
        runtime.register_agent(name, agent)
    return runtime


def make_client(token: str = TOKEN, **options: Any) -> ARCPClient:
    """A client that is not connected; `options` are those of `ARCPClient`."""
    options.setdefault("client", ClientInfo(name="arcp.testing", version=_native.IMPL_VERSION))
    return ARCPClient(token=token, **options)


@asynccontextmanager
async def session(agents: Agents = None, *, token: str = TOKEN, **options: Any) -> AsyncGenerator[ARCPClient, None]:
    """A client connected through memory to a runtime with these agents, or to a runtime of yours.

    `options` are those of `ARCPClient`. A runtime that was made for this is closed at the end, one of yours is not.
    """
    runtime = agents if isinstance(agents, ARCPRuntime) else make_runtime(agents)
    ours, theirs = pair_memory_transports()
    accepting = asyncio.create_task(runtime.accept(theirs))
    try:
        async with make_client(token, **options) as client:
            await client.connect(ours)
            yield client
    finally:
        await ours.close()
        await accepting
        if runtime is not agents:
            await runtime.close()


@dataclass(frozen=True)
class Served:
    """A runtime that listens."""

    url: str
    """Where, such as `ws://127.0.0.1:40123/arcp`."""
    runtime: ARCPRuntime
    """Which."""
    token: str = field(default=TOKEN, repr=False)
    """What clients present to it."""

    @asynccontextmanager
    async def session(self, **options: Any) -> AsyncGenerator[ARCPClient, None]:
        """A client connected to it; `options` are those of `ARCPClient`."""
        async with make_client(options.pop("token", self.token), **options) as client:
            await client.connect(await WebSocketTransport.connect(self.url))
            yield client


@asynccontextmanager
async def serve(
    agents: Agents = None, *, port: int = 0, token: str = TOKEN, **options: Any
) -> AsyncGenerator[Served, None]:
    """A runtime with these agents, or one of yours, on a free port of this machine, or `port`.

    `options` are those of `serve_websocket`. A runtime that was made for this is closed at the end, one of yours is
    not.
    """
    runtime = agents if isinstance(agents, ARCPRuntime) else make_runtime(agents)
    async with await serve_websocket(runtime.accept, port=port, **options) as server:
        yield Served(server.url, runtime, token)
    if runtime is not agents:
        await runtime.close()


@contextmanager
def serve_in_thread(
    agents: Agents = None, *, port: int = 0, token: str = TOKEN, **options: Any
) -> Generator[Served, None, None]:
    """As `serve`, on an event loop in a thread of its own, for tests without a loop and for blocking clients.

    A runtime of yours is closed too: its agents' loop ends with this.
    """
    runtime = agents if isinstance(agents, ARCPRuntime) else make_runtime(agents)
    home = Background()
    try:
        server = home.call(lambda: serve_websocket(runtime.accept, port=port, **options))
        try:
            yield Served(server.url, runtime, token)
        finally:
            server.close()
            home.call(server.wait_closed)
            home.call(runtime.close)
    finally:
        home.stop()


def close_runtime(runtime: ARCPRuntime) -> None:
    """Closes a runtime where there is no loop."""
    home = Background()
    try:
        home.call(runtime.close)
    finally:
        home.stop()


def as_transport(transport: Any) -> Transport:
    """`TypeError` for what is no transport."""
    if not isinstance(transport, Transport):
        raise TypeError(
            f"transport must have async send, recv and close and is_closed; {type(transport).__name__} has not"
        )
    return transport
