"""Mounts a runtime in a Starlette application, beside an HTTP route of its own; FastAPI takes it the same way.

Needs `pip install starlette uvicorn websockets`.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute

from arcp import RuntimeInfo
from arcp.middleware.asgi import arcp_asgi_app
from arcp.runtime import ARCPRuntime, JobContext, StaticBearerVerifier

PORT = int(os.environ.get("ARCP_DEMO_PORT", "7777"))
TOKEN = os.environ.get("ARCP_DEMO_TOKEN", "demo-token")


async def echo(input: Any, ctx: JobContext) -> Any:
    await ctx.log("info", "echo started")
    return {"echoed": input}


async def health(request: Request) -> JSONResponse:
    return JSONResponse({"status": "ok"})


runtime = ARCPRuntime(
    runtime=RuntimeInfo(name="host-asgi", version="1.0.0"),
    bearer=StaticBearerVerifier({TOKEN: "demo@example.com"}),
)
runtime.register_agent("echo", echo)


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    yield
    await runtime.close()


# `uvicorn server:app` serves it too.
app = Starlette(
    routes=[
        Route("/health", health),
        # Pages that a browser loaded from elsewhere do not get in by a name that points here.
        WebSocketRoute("/arcp", arcp_asgi_app(runtime, allowed_hosts=["localhost", "127.0.0.1"])),
    ],
    lifespan=lifespan,
)


async def main() -> None:
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=PORT, log_level="warning"))
    serving = asyncio.create_task(server.serve())
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    if server.started:
        port = server.servers[0].sockets[0].getsockname()[1]
        print(f"listening on ws://127.0.0.1:{port}/arcp", flush=True)
    await serving


if __name__ == "__main__":
    # SIGTERM ends it as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
