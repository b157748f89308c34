"""Hosts `think`, which says nothing for a long time, behind connections that are watched."""

import asyncio
import contextlib
import os
import signal
from typing import Any

from arcp import RuntimeInfo, serve_websocket
from arcp.runtime import ARCPRuntime, JobContext, StaticBearerVerifier

PORT = int(os.environ.get("ARCP_DEMO_PORT", "7777"))
TOKEN = os.environ.get("ARCP_DEMO_TOKEN", "demo-token")
# A peer that does not answer within two of these is taken to be gone.
INTERVAL_SEC = int(os.environ.get("ARCP_DEMO_HEARTBEAT_SEC", "5"))
SILENT_SEC = float(os.environ.get("ARCP_DEMO_SILENT_SEC", "12"))


async def think(input: Any, ctx: JobContext) -> Any:
    await asyncio.sleep(SILENT_SEC)
    return {"answer": 42}


async def main() -> None:
    runtime = ARCPRuntime(
        runtime=RuntimeInfo(name="heartbeat", version="1.0.0"),
        bearer=StaticBearerVerifier({TOKEN: "demo@example.com"}),
        heartbeat_interval_sec=INTERVAL_SEC,
    )
    runtime.register_agent("think", think)
    async with await serve_websocket(runtime.accept, port=PORT) as server:
        print(f"listening on {server.url}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    # SIGTERM ends it as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
