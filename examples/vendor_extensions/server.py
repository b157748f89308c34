"""Hosts `crawl`, which sends events of its vendor's own kind between those of the protocol."""

import asyncio
import contextlib
import os
import signal
from typing import Any

from arcp import RuntimeInfo, serve_websocket
from arcp.runtime import ARCPRuntime, JobContext, StaticBearerVerifier

PORT = int(os.environ.get("ARCP_DEMO_PORT", "7777"))
TOKEN = os.environ.get("ARCP_DEMO_TOKEN", "demo-token")


async def crawl(input: Any, ctx: JobContext) -> Any:
    await ctx.status("started")
    # Capabilities of one's own are checked like the protocol's.
    ctx.authorize("x-vendor.acme.metrics", "crawl/pages")
    for pages in (10, 20, 30):
        await ctx.emit_event("x-vendor.acme.progress", {"pages": pages, "queue": 30 - pages})
    await ctx.status("finished")
    return {"pages": 30}


async def main() -> None:
    runtime = ARCPRuntime(
        runtime=RuntimeInfo(name="vendor-extensions", version="1.0.0"),
        bearer=StaticBearerVerifier({TOKEN: "demo@example.com"}),
    )
    runtime.register_agent("crawl", crawl)
    async with await serve_websocket(runtime.accept, port=PORT) as server:
        print(f"listening on {server.url}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    # SIGTERM ends it as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
