"""The registry's sockets from Python: iteration, leaving it, tokens, commands; and the client without a loop."""

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
from aiohttp import WSMsgType, web

import arcp.sync
from arcp import ARCPClient, AuthenticationError, ConnectionError
from conftest import run

Serve = Callable[[web.WebSocketResponse], Awaitable[None]]


class Peer:
    """Sockets at every path, served as a test says; `closed` has those that ended."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self.opened = 0
        self.closed = asyncio.Event()
        self.texts: list[str] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.opened += 1
        serving = asyncio.create_task(self._say(socket))
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                self.texts.append(message.data)
        serving.cancel()
        self.closed.set()
        return socket

    async def _say(self, socket: web.WebSocketResponse) -> None:
        with contextlib.suppress(ConnectionResetError):
            await self._serve(socket)


@contextlib.asynccontextmanager
async def peer_of(serve: Serve) -> AsyncIterator[Peer]:
    peer = Peer(serve)
    application = web.Application()
    application.router.add_get("/{path:.*}", peer.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    peer.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield peer
    finally:
        await runner.cleanup()


async def counting(socket: web.WebSocketResponse) -> None:
    number = 0
    while True:
        await socket.send_str("ping")
        await socket.send_str("no JSON")
        await socket.send_json({"type": "stats_update", "n": number})
        number += 1
        await asyncio.sleep(0)


async def membership(socket: web.WebSocketResponse) -> None:
    await socket.send_json({"type": "auth_required", "message": "Send your authentication token"})
    await asyncio.sleep(0.01)
    await socket.send_json({"type": "auth_success", "message": "Authentication successful"})
    await socket.send_json([{"agent_id": "a-1"}])
    await socket.send_json({"type": "agents_update"})


def test_break_closes_the_socket() -> None:
    """Rules: REG-055, REG-060"""

    async def main() -> None:
        async with peer_of(counting) as peer, ARCPClient(peer.url) as client:
            got = []
            async for message in client.websocket_public():
                got.append(message["n"])
                if len(got) == 3:
                    break
            await peer.closed.wait()
            assert got == [0, 1, 2]
            assert json.loads(peer.texts[0])["type"] == "get_discovery"
            assert "pong" in peer.texts

    run(main)


def test_a_stream_that_is_kept() -> None:
    """Rules: REG-060"""

    async def main() -> None:
        async with peer_of(counting) as peer, ARCPClient(peer.url) as client:
            async with client.websocket_public() as stream:
                assert (await anext(stream))["n"] == 0
                async for message in stream:
                    assert message["n"] == 1
                    break
                # It goes on where it was left.
                assert (await anext(stream))["n"] == 2
                assert peer.opened == 1
            await peer.closed.wait()
            assert [message async for message in stream] == []
            await stream.aclose()

    run(main)


def test_closing_ends_a_reader_that_waits() -> None:
    async def quiet(socket: web.WebSocketResponse) -> None:
        await socket.send_json({"type": "welcome"})

    async def main() -> None:
        async with peer_of(quiet) as peer, ARCPClient(peer.url) as client:
            stream = client.websocket_public()
            assert (await anext(stream))["type"] == "welcome"
            waiting = asyncio.create_task(anext(stream, None))
            await asyncio.sleep(0)
            await stream.aclose()
            assert await waiting is None
            await peer.closed.wait()

    run(main)


def test_a_member_s_socket() -> None:
    """Rules: REG-056, REG-330"""

    async def main() -> None:
        async with peer_of(membership) as peer, ARCPClient(peer.url) as client:
            got = []
            async for message in client.websocket_agent("T"):
                got.append(message)
                if len(got) == 2:
                    break
            assert got == [[{"agent_id": "a-1"}], {"type": "agents_update"}]
            assert json.loads(peer.texts[0]) == {"token": "T"}

    run(main)


def test_a_member_s_socket_without_a_token() -> None:
    """Rules: REG-056"""

    async def main() -> None:
        async with peer_of(membership) as peer, ARCPClient(peer.url) as client:
            with pytest.raises(AuthenticationError):
                await anext(client.websocket_agent())

    run(main)


def test_a_token_that_is_refused() -> None:
    """Rules: REG-056, REG-331"""

    async def refuse(socket: web.WebSocketResponse) -> None:
        await socket.send_json({"type": "auth_required", "message": "Send your authentication token"})
        await asyncio.sleep(0.01)
        await socket.send_json({"type": "auth_error", "message": "Invalid token"})
        await socket.close(code=1008, message=b"Invalid token")

    async def main() -> None:
        async with peer_of(refuse) as peer, ARCPClient(peer.url) as client:
            with pytest.raises(AuthenticationError, match="Invalid token"):
                await anext(client.websocket_agent("wrong"))

    run(main)


def test_commands() -> None:
    """Rules: REG-340, REG-348"""

    async def main() -> None:
        async with peer_of(counting) as peer, ARCPClient(peer.url) as client:
            async with client.websocket_dashboard("T") as stream:
                await anext(stream)
                await stream.send({"type": "pause_monitoring"})
                while len([text for text in peer.texts if text != "pong"]) < 2:
                    await anext(stream)
            said = [json.loads(text) for text in peer.texts if text != "pong"]
            assert said == [{"type": "auth", "token": "T"}, {"type": "pause_monitoring"}]
            with pytest.raises(RuntimeError, match="closed"):
                await stream.send("ping")

    run(main)


def test_a_socket_that_is_not_there() -> None:
    """Rules: REG-055"""

    async def main() -> None:
        client = ARCPClient("http://127.0.0.1:1", retry_attempts=0)
        stream = client.websocket_public()
        with pytest.raises(ConnectionError, match="WebSocket connection failed: "):
            async for _ in stream:
                pass
        await client.close()

    run(main)


def test_a_lost_socket_is_opened_again() -> None:
    async def once(socket: web.WebSocketResponse) -> None:
        await socket.send_json({"type": "welcome"})
        await socket.close()

    async def main() -> None:
        async with peer_of(once) as peer, ARCPClient(peer.url) as client:
            got = 0
            async for message in client.websocket_public():
                got += message["type"] == "welcome"
                if got == 2:
                    break
            assert peer.opened >= 2

    run(main)


def test_an_endless_stream_leaves_room_for_others() -> None:
    async def main() -> None:
        async with peer_of(counting) as peer, ARCPClient(peer.url) as client:
            turns = 0

            async def other() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await asyncio.sleep(0)

            task = asyncio.create_task(other())
            async for message in client.websocket_public():
                if message["n"] == 2000:
                    break
            task.cancel()
            assert turns > 5

    run(main)


# Without a loop.


@pytest.fixture
def peer_url() -> Iterator[str]:
    """A peer in a thread of its own."""
    ready, done = threading.Event(), threading.Event()
    urls: list[str] = []

    async def main() -> None:
        async def health(request: web.Request) -> web.Response:
            return web.json_response({"status": "healthy"})

        peer = Peer(counting)
        application = web.Application()
        application.router.add_get("/health", health)
        application.router.add_post("/agents/{agent_id}/heartbeat", health)
        application.router.add_get("/{path:.*}", peer.handle)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        urls.append(f"http://127.0.0.1:{runner.addresses[0][1]}")
        ready.set()
        await asyncio.to_thread(done.wait)
        await runner.cleanup()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    ready.wait(10)
    yield urls[0]
    done.set()
    thread.join(10)


def test_without_a_loop(peer_url: str) -> None:
    with arcp.sync.Registry(peer_url, timeout=5.0) as registry:
        assert registry.health_check()["status"] == "healthy"
        got = []
        for message in registry.websocket_public():
            got.append(message["n"])
            if len(got) == 3:
                break
        assert got == [0, 1, 2]
        beating = registry.start_heartbeat_task("a-1", interval=0.05)
        beating.cancel()
        assert not registry.is_authenticated()
        assert registry.base_url == peer_url
        with pytest.raises(arcp.ARCPError):
            registry.get_public_agent("a-1")


def test_monitoring_without_a_loop_may_ask_more(capsys: pytest.CaptureFixture[str]) -> None:
    with arcp.sync.Registry("http://127.0.0.1:1", retry_attempts=0) as registry:
        registry.monitor_system(0.01, lambda taken: registry.health_check(), duration=0.02)
    assert "Monitoring failed" in capsys.readouterr().out
