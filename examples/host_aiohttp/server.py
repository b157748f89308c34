"""Mounts a runtime in an aiohttp application, beside an HTTP route of its own.

Needs `pip install aiohttp`.
"""

import asyncio
import contextlib
import os
import signal
from typing import Any

from aiohttp import web

from arcp import RuntimeInfo
from arcp.middleware.aiohttp import arcp_aiohttp_handler
from arcp.runtime import ARCPRuntime, JobContext, StaticBearerVerifier

PORT = int(os.environ.get("ARCP_DEMO_PORT", "7777"))
TOKEN = os.environ.get("ARCP_DEMO_TOKEN", "demo-token")


async def echo(input: Any, ctx: JobContext) -> Any:
    await ctx.log("info", "echo started")
    return {"echoed": input}


async def health(request: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


async def main() -> None:
    runtime = ARCPRuntime(
        runtime=RuntimeInfo(name="host-aiohttp", version="1.0.0"),
        bearer=StaticBearerVerifier({TOKEN: "demo@example.com"}),
    )
    runtime.register_agent("echo", echo)

    app = web.Application()
    app.router.add_get("/health", health)
    # Pages that a browser loaded from elsewhere do not get in by a name that points here.
    app.router.add_get("/arcp", arcp_aiohttp_handler(runtime, allowed_hosts=["localhost", "127.0.0.1"]))

    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", PORT).start()
        print(f"listening on ws://127.0.0.1:{runner.addresses[0][1]}/arcp", flush=True)
        await asyncio.Event().wait()
    finally:
        # Ends the sessions first: aiohttp would wait for them.
        await runtime.close()
        await runner.cleanup()


if __name__ == "__main__":
    # SIGTERM ends it as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
