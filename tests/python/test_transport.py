"""Native ends by hand, foreign transports, and servers."""

import asyncio
import ssl
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import arcp
from arcp.runtime import JobContext
from conftest import BOUND_SEC, TOKEN, make_client, make_runtime, run, session


async def echo(value: Any, ctx: JobContext) -> Any:
    await ctx.log("info", "echo started")
    return {"echoed": value}


class Wrapped:
    """A transport of the user's own, around a native end."""

    def __init__(self, inner: arcp.Transport) -> None:
        self.inner = inner
        self.sent: list[dict[str, Any]] = []
        self.received: list[dict[str, Any]] = []

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)
        await self.inner.send(message)

    async def recv(self) -> dict[str, Any]:
        message = await self.inner.recv()
        self.received.append(message)
        return message

    async def close(self) -> None:
        await self.inner.close()

    @property
    def is_closed(self) -> bool:
        return self.inner.is_closed


def test_native_ends_by_hand() -> None:
    async def main() -> None:
        ours, theirs = arcp.pair_memory_transports()
        assert isinstance(ours, arcp.MemoryTransport)
        assert isinstance(ours, arcp.Transport)
        await ours.send({"n": 1, "exact": Decimal("0.10")})
        await ours.send({"n": 2})
        assert await theirs.recv() == {"n": 1, "exact": 0.1}
        assert await theirs.recv() == {"n": 2}
        with pytest.raises(TypeError, match="message"):
            await ours.send({"n": {1}})
        assert not theirs.is_closed
        await ours.close()
        assert ours.is_closed
        with pytest.raises(arcp.TransportClosed):
            await ours.send({})
        with pytest.raises(arcp.TransportClosed):
            await theirs.recv()

    run(main)


def test_a_taken_end_is_not_used_by_hand() -> None:
    async def main() -> None:
        ours, theirs = arcp.pair_memory_transports()
        runtime = make_runtime({"echo": echo})
        accepting = asyncio.create_task(runtime.accept(theirs))
        async with make_client() as client:
            await client.connect(ours)
            for end in (ours, theirs):
                with pytest.raises(arcp.TransportClosed, match="uses this transport"):
                    await end.recv()
                with pytest.raises(arcp.TransportClosed, match="uses this transport"):
                    await end.send({})
            with pytest.raises(arcp.TransportClosed, match="in use"):
                await make_client().connect(ours)
        await accepting

    run(main)


def test_foreign_transports_on_both_sides() -> None:
    async def main() -> None:
        ours, theirs = map(Wrapped, arcp.pair_memory_transports())
        runtime = make_runtime({"echo": echo})
        accepting = asyncio.create_task(runtime.accept(theirs))
        async with make_client() as client:
            await client.connect(ours)
            value = {"big": 2**70, "text": "ä", "n": [0.5, None]}
            handles = [await client.submit(agent="echo", input=value) for _ in range(50)]
            for handle in handles:
                assert (await handle.done).result == {"echoed": value}
                assert [event.kind async for event in handle.events()] == ["log"]
        await accepting
        assert ours.is_closed
        assert theirs.is_closed
        assert [message["type"] for message in ours.sent[:2]] == ["session.hello", "job.submit"]
        assert ours.received[0]["type"] == "session.welcome"

    run(main)


def test_no_digit_is_lost_through_a_foreign_transport() -> None:
    text = "0.12345678901234567890123"

    async def agent(value: Any, ctx: JobContext) -> None:
        await ctx.metric("cost.llm", Decimal(text), "USD")
        left.append(ctx.budget["USD"])

    left: list[Decimal] = []
    granted: list[Any] = []

    async def main() -> None:
        ours, theirs = arcp.pair_memory_transports()
        runtime = make_runtime({"agent": agent})
        accepting = asyncio.create_task(runtime.accept(Wrapped(theirs)))
        async with make_client() as client:
            await client.connect(Wrapped(ours))
            handle = await client.submit(agent="agent", lease_request={"cost.budget": [f"USD:1{text[1:]}"]})
            granted.append(handle.budget_amounts)
            await handle.done
        await accepting

    run(main)
    assert granted == [{"USD": Decimal(f"1{text[1:]}")}]
    assert left == [Decimal(1)]


def test_a_foreign_transport_that_breaks_ends_the_session() -> None:
    class Broken(Wrapped):
        async def recv(self) -> dict[str, Any]:
            if len(self.received) == 2:
                raise arcp.TransportClosed("the cable was cut")
            return await super().recv()

    async def agent(value: Any, ctx: JobContext) -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        ours, theirs = arcp.pair_memory_transports()
        runtime = make_runtime({"agent": agent})
        accepting = asyncio.create_task(runtime.accept(theirs))
        client = make_client()
        # The welcome and the acceptance, then the end.
        await client.connect(Broken(ours))
        handle = await client.submit(agent="agent")
        with pytest.raises(arcp.TransportClosed):
            await handle.done
        await client.close()
        await accepting
        await runtime.close()

    run(main)


def test_websockets() -> None:
    async def main() -> None:
        runtime = make_runtime({"echo": echo})
        async with await arcp.serve_websocket(runtime.accept, port=0) as server:
            host, port = server.sockets[0].getsockname()
            assert server.url == f"ws://{host}:{port}/arcp"
            transport = await arcp.WebSocketTransport.connect(server.url, additional_headers={"X-Test": "1"})
            async with make_client() as client:
                await client.connect(transport)
                handle = await client.submit(agent="echo", input="hi")
                assert (await handle.done).result == {"echoed": "hi"}
            forever = asyncio.create_task(server.serve_forever())
            await asyncio.sleep(0)
            assert not forever.done()
        await forever
        with pytest.raises(arcp.ConnectionError):
            await arcp.WebSocketTransport.connect(server.url)
        await runtime.close()

    run(main)


def test_a_server_hands_transports_to_any_function() -> None:
    seen: list[str] = []

    async def main() -> None:
        runtime = make_runtime({"echo": echo})

        async def on_transport(transport: arcp.WebSocketTransport) -> None:
            seen.append(type(transport).__name__)
            await runtime.accept(transport)
            seen.append("ended")

        async with await arcp.serve_websocket(on_transport, port=0) as server:
            async with make_client() as client:
                await client.connect(await arcp.WebSocketTransport.connect(server.url))
                assert (await (await client.submit(agent="echo", input=1)).done).result == {"echoed": 1}
            async with asyncio.timeout(BOUND_SEC):
                while len(seen) < 2:
                    await asyncio.sleep(0)

    run(main)
    assert seen == ["WebSocketTransport", "ended"]


async def connected(url: str) -> None:
    await make_client().connect(await arcp.WebSocketTransport.connect(url))


def test_wrong_options_of_servers_and_connections() -> None:
    async def main() -> None:
        runtime = make_runtime()
        async with await arcp.serve_websocket(runtime.accept, port=0, allowed_hosts=["example.com"]) as server:
            _, port = server.sockets[0].getsockname()
            with pytest.raises(OSError, match=r"."):
                await arcp.serve_websocket(runtime.accept, port=port)
            with pytest.raises((arcp.ConnectionError, arcp.TransportClosed)):
                await connected(server.url)
        with pytest.raises(ValueError, match="path"):
            await arcp.serve_websocket(runtime.accept, port=0, path="arcp")
        with pytest.raises(ValueError, match="port"):
            await arcp.serve_websocket(runtime.accept, port=70000)
        with pytest.raises(TypeError, match=r"such as runtime\.accept; got ARCPRuntime"):
            await arcp.serve_websocket(runtime, port=0)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="allowed_hosts must be a list of names, got a text"):
            await arcp.serve_websocket(runtime.accept, port=0, allowed_hosts="localhost")
        with pytest.raises(ValueError, match="max_size must be from 0"):
            await arcp.WebSocketTransport.connect("ws://127.0.0.1:1", max_size=-1)
        with pytest.raises(ValueError, match="open_timeout must be from 0"):
            await arcp.WebSocketTransport.connect("ws://127.0.0.1:1", open_timeout=float("nan"))
        with pytest.raises(TypeError, match="ping_interval"):
            await arcp.serve_websocket(runtime.accept, port=0, ping_interval=3)  # type: ignore[call-arg]
        context = ssl.create_default_context()
        with pytest.raises(TypeError, match="certificate chain"):
            await arcp.serve_websocket(runtime.accept, port=0, ssl=context)  # type: ignore[arg-type]
        lax = ssl.create_default_context()
        lax.check_hostname = False
        with pytest.raises(ValueError, match="verify"):
            await arcp.WebSocketTransport.connect("wss://127.0.0.1:1", ssl=lax)
        with pytest.raises((ValueError, arcp.ConnectionError), match=r"."):
            await arcp.WebSocketTransport.connect("http://127.0.0.1:1")
        with pytest.raises(ValueError, match="header"):
            await arcp.WebSocketTransport.connect("ws://127.0.0.1:1", additional_headers={"bad name": "x"})

    run(main)


def test_a_childs_pipes() -> None:
    """Rules: R-4.2"""
    child = f"""
import asyncio, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from arcp import StdioTransport
from conftest import make_runtime
async def main():
    runtime = make_runtime({{"echo": lambda inp, ctx: {{"echoed": inp}}}})
    await runtime.accept(await StdioTransport.from_std_streams())
asyncio.run(main())
"""

    async def main() -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", child, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        transport = await arcp.StdioTransport.from_process_pipes(process)
        assert transport.is_private
        async with make_client() as client:
            await client.connect(transport)
            # Longer than the lines asyncio's streams take by themselves.
            value = "x" * 200_000
            assert (await (await client.submit(agent="echo", input=value)).done).result == {"echoed": value}
        assert await process.wait() == 0

    run(main)


def test_a_child_that_dies() -> None:
    child = f"""
import asyncio, os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from arcp import StdioTransport
from conftest import make_runtime
async def main():
    runtime = make_runtime({{"die": lambda inp, ctx: os._exit(3)}})
    await runtime.accept(await StdioTransport.from_std_streams())
asyncio.run(main())
"""

    async def main() -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", child, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        async with make_client() as client:
            await client.connect(await arcp.StdioTransport.from_process_pipes(process))
            with pytest.raises(arcp.TransportClosed):
                await (await client.submit(agent="die")).done
            assert await process.wait() == 3

    run(main)


def test_stdio_over_any_streams() -> None:
    async def main() -> None:
        connected: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
        server = await asyncio.start_server(lambda *streams: connected.put_nowait(streams), "127.0.0.1", 0)
        async with server:
            ours = arcp.StdioTransport(
                *await asyncio.open_connection(*server.sockets[0].getsockname()[:2]), max_size=1000
            )
            reader, writer = await connected.get()
            assert not ours.is_private
            await ours.send({"n": 1})
            assert await reader.readline() == b'{"n":1}\n'
            # Blank lines and carriage returns are let pass, and a line may come in pieces.
            writer.write(b'\n\r\n{"n":')
            await writer.drain()
            writer.write(b'2}\r\n{"n":3}\n')
            assert [await ours.recv(), await ours.recv()] == [{"n": 2}, {"n": 3}]
            await ours.close()
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()

    run(main)


@pytest.mark.parametrize("line", [b"x" * 2000 + b"\n", b"x" * 2000, b"\xff\n"], ids=["long", "endless", "not-text"])
def test_a_line_that_cannot_be_taken(line: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        connected: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
        server = await asyncio.start_server(lambda *streams: connected.put_nowait(streams), "127.0.0.1", 0)
        async with server:
            ours = arcp.StdioTransport(
                *await asyncio.open_connection(*server.sockets[0].getsockname()[:2]), max_size=1000
            )
            reader, writer = await connected.get()
            writer.write(line)
            with pytest.raises(arcp.TransportClosed):
                await ours.recv()
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()

    run(main)
    assert "failed" in caplog.text


def test_a_child_without_pipes() -> None:
    async def main() -> None:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
        with pytest.raises(ValueError, match="stdin=PIPE"):
            await arcp.StdioTransport.from_process_pipes(process)
        await process.wait()

    run(main)


def test_a_verifier_of_ones_own() -> None:
    from arcp.runtime import Identity

    class Verifier:
        async def verify(self, token: str) -> Identity:
            await asyncio.sleep(0)
            if token == "broken":
                raise RuntimeError("the secret is 42")
            if token == "nobody":
                return Identity(principal="")
            if token != TOKEN:
                raise arcp.UnauthenticatedError("unknown token")
            return Identity(principal="bob@example.com")

    async def whoami(value: Any, ctx: JobContext) -> str:
        return ctx.job.submitter_principal

    async def main() -> None:
        runtime = make_runtime({"whoami": whoami}, bearer=Verifier())
        async with session(runtime) as client:
            assert (await (await client.submit(agent="whoami")).done).result == "bob@example.com"
        for token, error in (
            ("garbage", arcp.UnauthenticatedError),
            ("broken", arcp.InternalError),
            ("nobody", arcp.InternalError),
        ):
            ours, theirs = arcp.pair_memory_transports()
            accepting = asyncio.create_task(runtime.accept(theirs))
            with pytest.raises(error) as caught:
                await make_client(token=token).connect(ours)
            assert "42" not in str(caught.value)
            await accepting

    run(main)
