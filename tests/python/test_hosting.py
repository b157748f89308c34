"""A runtime inside the applications of others: ASGI and aiohttp, over real sockets."""

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from aiohttp import web

import arcp
from arcp.middleware._host import AllowedHosts, is_private
from arcp.middleware.aiohttp import arcp_aiohttp_handler, serve_arcp_aiohttp
from arcp.middleware.asgi import arcp_asgi_app
from arcp.runtime import JobContext
from conftest import BOUND_SEC, TOKEN, make_client, make_runtime, numbers_of, run
from hosts import RawSocket, hello, hypercorn_serves, submit, uvicorn_serves
from links import Cutter, Steps

Serving = AbstractAsyncContextManager[int]


async def echo(value: Any, ctx: JobContext) -> Any:
    await ctx.log("info", "echo started")
    return {"echoed": value}


async def one_job(port: int, value: Any = 1) -> None:
    async with make_client() as client:
        await client.connect(await arcp.WebSocketTransport.connect(f"ws://127.0.0.1:{port}/arcp"))
        handle = await client.submit(agent="echo", input=value)
        assert (await handle.done).result == {"echoed": value}
        assert [event.kind async for event in handle.events()] == ["log"]


async def status_of(port: int, path: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


def in_starlette(app: arcp_asgi_app) -> Serving:
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route, WebSocketRoute

    async def health(_: Any) -> PlainTextResponse:
        return PlainTextResponse("fine")

    return uvicorn_serves(Starlette(routes=[Route("/health", health), WebSocketRoute("/arcp", endpoint=app)]))


def in_fastapi(app: arcp_asgi_app) -> Serving:
    from fastapi import FastAPI
    from starlette.routing import WebSocketRoute

    host = FastAPI()
    host.router.routes.append(WebSocketRoute("/arcp", app))

    @host.get("/health")
    async def health() -> str:
        return "fine"

    return uvicorn_serves(host)


def in_a_handler_of_fastapi(app: arcp_asgi_app) -> Serving:
    from fastapi import FastAPI, WebSocket

    host = FastAPI()

    @host.websocket("/arcp")
    async def arcp(websocket: WebSocket) -> None:
        await app(websocket.scope, websocket.receive, websocket.send)

    @host.get("/health")
    async def health() -> str:
        return "fine"

    return uvicorn_serves(host)


def in_litestar(app: arcp_asgi_app) -> Serving:
    from litestar import Litestar, asgi, get

    @get("/health")
    async def health() -> str:
        return "fine"

    return uvicorn_serves(Litestar([asgi("/arcp", copy_scope=True)(app), health], logging_config=None))


def in_quart(app: arcp_asgi_app) -> Serving:
    from hypercorn.middleware import DispatcherMiddleware
    from quart import Quart

    host = Quart("host")

    @host.get("/health")
    async def health() -> str:
        return "fine"

    return hypercorn_serves(DispatcherMiddleware({"/arcp": app, "/": host}))


def in_nothing(app: arcp_asgi_app) -> Serving:
    return uvicorn_serves(app, lifespan="on")


HOSTS = [in_starlette, in_fastapi, in_a_handler_of_fastapi, in_litestar, in_quart, in_nothing]


@contextlib.asynccontextmanager
async def in_aiohttp(runtime: arcp.ARCPRuntime, **options: Any) -> AsyncIterator[int]:
    async def health(_: web.Request) -> web.Response:
        return web.Response(text="fine")

    async def stop(_: web.Application) -> None:
        await runtime.close()

    app = web.Application()
    app.router.add_get("/arcp", arcp_aiohttp_handler(runtime, **options))
    app.router.add_get("/health", health)
    app.on_shutdown.append(stop)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


@contextlib.asynccontextmanager
async def in_asgi(runtime: arcp.ARCPRuntime, **options: Any) -> AsyncIterator[int]:
    async with in_starlette(arcp_asgi_app(runtime, **options)) as port:
        yield port
    await runtime.close()


Host = Callable[..., AbstractAsyncContextManager[int]]
BOTH = pytest.mark.parametrize("host", [in_asgi, in_aiohttp])


@pytest.mark.parametrize("host", HOSTS)
def test_a_hosted_job(host: Callable[[arcp_asgi_app], Serving]) -> None:
    async def main() -> None:
        runtime = make_runtime({"echo": echo})
        async with host(arcp_asgi_app(runtime)) as port:
            await asyncio.gather(*(one_job(port, "ä" * number) for number in range(5)))
            if host is not in_nothing:
                assert b"fine" in await status_of(port, "/health")
        await runtime.close()

    run(main)


def test_a_job_in_an_application_of_aiohttp() -> None:
    async def main() -> None:
        async with in_aiohttp(make_runtime({"echo": echo})) as port:
            await asyncio.gather(*(one_job(port, "ä" * number) for number in range(5)))
            assert b"fine" in await status_of(port, "/health")
            # What is no WebSocket is told so.
            assert b" 400 " in (await status_of(port, "/arcp")).splitlines()[0]

    run(main)


def test_a_job_in_aiohttp_of_its_own() -> None:
    async def main() -> None:
        runtime = make_runtime({"echo": echo})
        runner = await serve_arcp_aiohttp(runtime, port=0)
        port = runner.addresses[0][1]
        await one_job(port)
        with pytest.raises(OSError, match=r"in use"):
            await serve_arcp_aiohttp(runtime, port=port)
        socket, answer = await RawSocket.connect(port, headers={"Host": "evil.example"})
        assert " 403 " in answer.splitlines()[0]
        socket.abort()
        await runner.cleanup()
        await runtime.close()

    run(main)


@BOTH
def test_hosts_that_are_refused(host: Host) -> None:
    """Rules: R-4.9"""

    async def main() -> None:
        async with host(make_runtime(), allowed_hosts=["example.com", "[::1]", "localhost:9"]) as port:
            for name, status in {
                "example.com": 101,
                "EXAMPLE.com:80": 101,
                "[::1]:7777": 101,
                "[::1]": 101,
                "localhost:9": 101,
                "localhost:10": 403,
                "localhost": 403,
                "evil.example": 403,
                "example.com.evil.example": 403,
                "[::2]:7777": 403,
            }.items():
                socket, answer = await RawSocket.connect(port, headers={"Host": name})
                assert f" {status} " in answer.splitlines()[0], name
                socket.abort()

    run(main)


def test_hosts_are_compared_without_ports_and_brackets() -> None:
    hosts = AllowedHosts(["Example.com", "::1", "[fe80::1]:80"])
    for header in ("example.com", "example.com.", "EXAMPLE.COM:443", "[::1]", "[0:0::1]:80", "[fe80::1]:80"):
        assert hosts.allow([header]), header
    for header in ("", ":80", "[::1", "[::1]80", "[fe80::1]", "[fe80::1]:81", "example.com:80:80", "xexample.com"):
        assert not hosts.allow([header]), header
    assert not hosts.allow([])
    assert not hosts.allow(["example.com", "evil.example"])
    assert AllowedHosts(None).allow([])
    with pytest.raises(TypeError, match="list of names"):
        AllowedHosts("example.com")
    for wrong in ("*", "http://example.com", ""):
        with pytest.raises(ValueError, match="no host name"):
            AllowedHosts([wrong])
    with pytest.raises(TypeError, match="int"):
        AllowedHosts([7])  # type: ignore[list-item]


def test_where_secrets_may_travel() -> None:
    assert is_private("wss", "203.0.113.9", [])
    assert is_private("ws", "127.0.0.1", ["Host"])
    assert is_private("ws", "::1", [])
    assert not is_private("ws", "203.0.113.9", [])
    assert not is_private("ws", "127.0.0.1", ["X-Forwarded-For"])
    assert not is_private("ws", None, [])
    assert not is_private("ws", "testclient", [])


@BOTH
def test_a_subprotocol_is_echoed(host: Host) -> None:
    async def main() -> None:
        async with host(make_runtime()) as port:
            for offered, chosen in {"arcp": "arcp", "x, arcp.v1.1": "arcp.v1.1", "x": None, "": None}.items():
                socket, answer = await RawSocket.connect(port, headers={"Sec-WebSocket-Protocol": offered})
                lines = [line.lower() for line in answer.splitlines()]
                assert " 101 " in lines[0]
                echoed = [line.split(": ")[1] for line in lines if line.startswith("sec-websocket-protocol:")]
                assert echoed == ([] if chosen is None else [chosen])
                socket.abort()

    run(main)


@BOTH
def test_the_last_words_of_a_refused_session_arrive(host: Host) -> None:
    async def main() -> None:
        async with host(make_runtime()) as port:
            for _ in range(20):
                with pytest.raises(arcp.UnauthenticatedError):
                    await make_client(token="no").connect(
                        await arcp.WebSocketTransport.connect(f"ws://127.0.0.1:{port}/arcp")
                    )

    run(main)


@BOTH
def test_frames_of_every_kind(host: Host) -> None:
    """Rules: R-4.6, R-4.8"""

    async def main() -> None:
        async with host(make_runtime({"echo": echo})) as port:
            socket, _ = await RawSocket.connect(port)
            await socket.send(arcp._native.encode(hello(TOKEN)).encode(), opcode=2)
            assert (await socket.hear())["type"] == "session.welcome"
            for frame, opcode in ((b"\xff\xfe", 2), (b"[", 1), (b"3", 1), (b"", 2)):
                await socket.send(frame, opcode=opcode)
                refusal = await socket.hear()
                assert (refusal["type"], refusal["payload"]["code"]) == ("session.error", "INVALID_REQUEST")
            await socket.say(submit("echo", 7))
            result = await socket.hear(lambda message: message["type"] == "job.result")
            assert result["payload"]["result"] == {"echoed": 7}
            socket.abort()

    run(main)


@BOTH
def test_a_frame_over_the_cap_ends_its_connection_only(host: Host) -> None:
    async def main() -> None:
        async with host(make_runtime({"echo": echo})) as port:
            socket, _ = await RawSocket.connect(port)
            await socket.say(hello(TOKEN))
            await socket.hear()
            with contextlib.suppress(OSError):
                await socket.send(b'"' + b"x" * (16 << 20) + b'"')
            code = None
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                while code is None:
                    opcode, data = await socket.frame()
                    code = int.from_bytes(data[:2], "big") if opcode == 8 else None
            assert code in (None, 1009)
            socket.abort()
            await one_job(port)

    run(main)


@BOTH
def test_a_slow_reader_hurts_only_itself(host: Host) -> None:
    """Rules: R-14.8"""
    emitted = 0

    async def chatty(value: Any, ctx: JobContext) -> None:
        nonlocal emitted
        while True:
            await ctx.log("info", "x" * 4000)
            emitted += 1

    async def main() -> None:
        nonlocal emitted
        async with host(make_runtime({"echo": echo, "chatty": chatty})) as port:
            socket, _ = await RawSocket.connect(port)
            await socket.say(hello(TOKEN))
            welcome = await socket.hear()
            await socket.say(submit("chatty"))
            # It reads no more. Its agent comes to rest, since what waits for it is bounded.
            before = -1
            while emitted == 0 or emitted != before:
                before = emitted
                for _ in range(20):
                    await one_job(port)
            assert emitted < 60_000
            # Who comes back after a cut finds the session as it was.
            socket.abort()
            again, _ = await RawSocket.connect(port)
            resume = {
                "session_id": welcome["session_id"],
                "resume_token": welcome["payload"]["resume_token"],
                "last_event_seq": 0,
            }
            await again.say(hello(TOKEN, resume=resume))
            assert (await again.hear())["type"] == "session.welcome"
            for number in range(1, 1000):
                assert (await again.hear())["event_seq"] == number
            again.abort()

    run(main)


@BOTH
def test_a_connection_lost_in_the_middle_of_a_job(host: Host) -> None:
    async def main() -> None:
        steps = Steps()
        runtime = make_runtime({"steps": steps})
        async with host(runtime) as port:
            cutter = Cutter(("127.0.0.1", port))
            async with cutter.listen() as url, make_client() as client:
                await client.connect(await arcp.WebSocketTransport.connect(url))
                handle = await client.submit(agent="steps", input=10)
                events = handle.events()
                steps.tell(3)
                taken = [(await anext(events)).body["current"] for _ in range(3)]
                cutter.cut()
                steps.tell(7)
                assert taken + await numbers_of(events) == list(range(10))
                assert (await handle.done).result == "done"
                assert cutter.connections == 2

    run(main)


@BOTH
def test_a_server_that_stops_does_not_wait_for_sessions(host: Host) -> None:
    async def main() -> None:
        client = make_client(reconnect=False)
        async with host(make_runtime({"steps": Steps()})) as port:
            await client.connect(await arcp.WebSocketTransport.connect(f"ws://127.0.0.1:{port}/arcp"))
            handle = await client.submit(agent="steps", input=1)
            begun = time.monotonic()
        assert time.monotonic() - begun < 8
        with pytest.raises((arcp.TransportClosed, arcp.CancelledError)):
            await handle.done
        await client.close()

    run(main)


def test_aiohttp_of_its_own_stops_at_once_and_leaves_the_runtime_alone() -> None:
    async def main() -> None:
        steps = Steps()
        runtime = make_runtime({"steps": steps})
        runner = await serve_arcp_aiohttp(runtime, port=0)
        async with make_client(reconnect=False) as client:
            url = f"ws://127.0.0.1:{runner.addresses[0][1]}/arcp"
            await client.connect(await arcp.WebSocketTransport.connect(url))
            handle = await client.submit(agent="steps", input=1)
            begun = time.monotonic()
            await runner.cleanup()
            assert time.monotonic() - begun < 5
            with pytest.raises(arcp.TransportClosed):
                await handle.done
        assert len(runtime._running) == 1
        await runtime.close()

    run(main)


def test_a_cancelled_connection_ends() -> None:
    async def main() -> None:
        runtime = make_runtime({"echo": echo})
        asgi = arcp_asgi_app(runtime)
        said: list[Any] = []
        incoming: asyncio.Queue[Any] = asyncio.Queue()
        incoming.put_nowait({"type": "websocket.connect"})

        async def send(message: Any) -> None:
            said.append(message["type"])

        scope: dict[str, Any] = {"type": "websocket", "headers": [], "subprotocols": []}
        serving = asyncio.create_task(asgi(scope, incoming.get, send))
        while not said:
            await asyncio.sleep(0)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert said == ["websocket.accept", "websocket.close"]
        assert asyncio.all_tasks() == {asyncio.current_task()}
        await runtime.close()

    run(main)


def test_a_peer_that_leaves_before_it_is_accepted() -> None:
    async def main() -> None:
        said: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "websocket.disconnect", "code": 1006}

        async def send(message: Any) -> None:
            said.append(message)

        await arcp_asgi_app(make_runtime())({"type": "websocket", "headers": []}, receive, send)
        assert said == []

    run(main)


def test_what_is_no_websocket_is_refused() -> None:
    async def nothing(*_: Any) -> Any:
        raise AssertionError

    with pytest.raises(ValueError, match="'http'"):
        asyncio.run(arcp_asgi_app(make_runtime())({"type": "http"}, nothing, nothing))
    for wrong in (arcp_asgi_app, arcp_aiohttp_handler):
        with pytest.raises(TypeError, match="ARCPRuntime"):
            wrong(7)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="list of names"):
            wrong(make_runtime(), allowed_hosts="localhost")


@pytest.mark.parametrize(
    ("use", "package"),
    [
        ("from arcp.middleware.aiohttp import arcp_aiohttp_handler as use; use(runtime)", "aiohttp"),
        (
            "from arcp.middleware.aiohttp import serve_arcp_aiohttp as use; import asyncio; asyncio.run(use(runtime))",
            "aiohttp",
        ),
        ("from arcp.middleware.otel import with_tracing as use; use(runtime)", "opentelemetry-api"),
    ],
)
def test_a_missing_package_is_named(use: str, package: str) -> None:
    """The modules themselves can be imported without their hosts (D-36)."""
    source = f"""
import sys
class Missing:
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in ("aiohttp", "opentelemetry", "starlette"):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
import arcp.middleware.asgi, arcp.middleware.aiohttp, arcp.middleware.otel
from arcp import ARCPRuntime, RuntimeInfo
from arcp.runtime import StaticBearerVerifier
runtime = ARCPRuntime(runtime=RuntimeInfo(name="x", version="1"), bearer=StaticBearerVerifier({{"t": "p"}}))
arcp.middleware.asgi.arcp_asgi_app(runtime)
try:
    {use}
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=BOUND_SEC, check=True)
    assert f"pip install {package}" in done.stdout
