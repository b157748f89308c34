"""Hosts `ticker`, which ticks for a long time and cleans up when it is cancelled."""

import asyncio
import contextlib
import os
import signal
from typing import Any

from arcp import RuntimeInfo, serve_websocket
from arcp.runtime import ARCPRuntime, JobContext, StaticBearerVerifier

PORT = int(os.environ.get("ARCP_DEMO_PORT", "7777"))
TOKEN = os.environ.get("ARCP_DEMO_TOKEN", "demo-token")
TICK_SEC = float(os.environ.get("ARCP_DEMO_STEP_SEC", "0.5"))


async def ticker(input: Any, ctx: JobContext) -> Any:
    try:
        for number in range(60):
            await ctx.log("info", f"tick {number}")
            await asyncio.sleep(TICK_SEC)
    except asyncio.CancelledError:
        # Still heard by the client: its job ends once the agent has.
        await ctx.log("info", "cleaning up")
        raise
    return "ran to the end"


async def main() -> None:
    runtime = ARCPRuntime(
        runtime=RuntimeInfo(name="cancel", version="1.0.0"),
        bearer=StaticBearerVerifier({TOKEN: "demo@example.com"}),
    )
    runtime.register_agent("ticker", ticker)
    async with await serve_websocket(runtime.accept, port=PORT) as server:
        print(f"listening on {server.url}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    # SIGTERM ends it as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
