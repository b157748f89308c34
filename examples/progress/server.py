"""Hosts `indexer`, which says how far it has come."""

import asyncio
import contextlib
import os
import signal
from typing import Any

from arcp import RuntimeInfo, serve_websocket
from arcp.runtime import ARCPRuntime, JobContext, StaticBearerVerifier

PORT = int(os.environ.get("ARCP_DEMO_PORT", "7777"))
TOKEN = os.environ.get("ARCP_DEMO_TOKEN", "demo-token")
# How long one step of the work takes.
STEP_SEC = float(os.environ.get("ARCP_DEMO_STEP_SEC", "0.2"))


async def indexer(input: Any, ctx: JobContext) -> Any:
    for number in range(1, 11):
        await asyncio.sleep(STEP_SEC)
        await ctx.progress(number, total=10, units="files")
    return {"files": 10}


async def main() -> None:
    runtime = ARCPRuntime(
        runtime=RuntimeInfo(name="progress", version="1.0.0"),
        bearer=StaticBearerVerifier({TOKEN: "demo@example.com"}),
    )
    runtime.register_agent("indexer", indexer)
    async with await serve_websocket(runtime.accept, port=PORT) as server:
        print(f"listening on {server.url}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    # SIGTERM ends it as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
