"""Hosts `tidy`, which tries to write outside what its job was granted, and copes."""

import asyncio
import contextlib
import os
import signal
from typing import Any

from arcp import PermissionDeniedError, RuntimeInfo, serve_websocket
from arcp.runtime import ARCPRuntime, JobContext, StaticBearerVerifier

PORT = int(os.environ.get("ARCP_DEMO_PORT", "7777"))
TOKEN = os.environ.get("ARCP_DEMO_TOKEN", "demo-token")


async def tidy(input: Any, ctx: JobContext) -> Any:
    # The runtime decides; an agent asks before it acts, each time.
    ctx.authorize("fs.read", "/srv/reports/may.txt")
    await ctx.tool_result(call_id="read", result="may.txt was read")
    try:
        ctx.authorize("fs.write", "/etc/passwd")
    except PermissionDeniedError as error:
        await ctx.tool_result(call_id="write", error=error)
    return {"read": 1, "written": 0}


async def main() -> None:
    runtime = ARCPRuntime(
        runtime=RuntimeInfo(name="lease-violation", version="1.0.0"),
        bearer=StaticBearerVerifier({TOKEN: "demo@example.com"}),
    )
    runtime.register_agent("tidy", tidy)
    async with await serve_websocket(runtime.accept, port=PORT) as server:
        print(f"listening on {server.url}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    # SIGTERM ends it as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
