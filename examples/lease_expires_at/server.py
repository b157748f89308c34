"""Hosts `sleeper`, which would sleep longer than its lease lasts."""

import asyncio
import contextlib
import os
import signal
from typing import Any

from arcp import RuntimeInfo, serve_websocket
from arcp.runtime import ARCPRuntime, JobContext, StaticBearerVerifier

PORT = int(os.environ.get("ARCP_DEMO_PORT", "7777"))
TOKEN = os.environ.get("ARCP_DEMO_TOKEN", "demo-token")


async def sleeper(input: Any, ctx: JobContext) -> Any:
    assert ctx.lease_constraints is not None
    await ctx.log("info", f"allowed until {ctx.lease_constraints.expires_at}")
    try:
        await asyncio.sleep(10)
    except asyncio.CancelledError:
        # The job ends once the agent has: this is still heard.
        await ctx.log("warn", "the lease has ended")
        raise


async def main() -> None:
    runtime = ARCPRuntime(
        runtime=RuntimeInfo(name="lease-expires-at", version="1.0.0"),
        bearer=StaticBearerVerifier({TOKEN: "demo@example.com"}),
        # An agent is stopped this long after its lease has ended; by default a second.
        lease_expiry_grace_sec=0.1,
    )
    runtime.register_agent("sleeper", sleeper)
    async with await serve_websocket(runtime.accept, port=PORT) as server:
        print(f"listening on {server.url}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    # SIGTERM ends it as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
