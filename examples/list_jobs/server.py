"""Hosts `wait`, which runs until it is cancelled."""

import asyncio
import contextlib
import os
import signal
from typing import Any

from arcp import RuntimeInfo, serve_websocket
from arcp.runtime import ARCPRuntime, JobContext, StaticBearerVerifier

PORT = int(os.environ.get("ARCP_DEMO_PORT", "7777"))
TOKEN = os.environ.get("ARCP_DEMO_TOKEN", "demo-token")


async def wait(input: Any, ctx: JobContext) -> Any:
    await asyncio.Event().wait()


async def main() -> None:
    runtime = ARCPRuntime(
        runtime=RuntimeInfo(name="list-jobs", version="1.0.0"),
        bearer=StaticBearerVerifier({TOKEN: "demo@example.com"}),
    )
    runtime.register_agent("wait", wait)
    async with await serve_websocket(runtime.accept, port=PORT) as server:
        print(f"listening on {server.url}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    # SIGTERM ends it as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
