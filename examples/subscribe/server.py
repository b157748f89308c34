"""Hosts `watched`, whose jobs everybody who can sign in may watch, not only who submitted them."""

import asyncio
import contextlib
import os
import signal
from typing import Any

from arcp import RuntimeInfo, serve_websocket
from arcp.runtime import ARCPRuntime, AuthorizationContext, JobContext, StaticBearerVerifier

PORT = int(os.environ.get("ARCP_DEMO_PORT", "7777"))
TOKEN = os.environ.get("ARCP_DEMO_TOKEN", "demo-token")
# How long one step of the work takes.
STEP_SEC = float(os.environ.get("ARCP_DEMO_STEP_SEC", "0.3"))


def everybody_may_watch(request: AuthorizationContext) -> bool:
    """Asked for each job that is listed for, or watched by, somebody else. Cancelling stays with the submitter."""
    return request.operation in ("list", "subscribe")


async def watched(input: Any, ctx: JobContext) -> Any:
    for number in range(1, 11):
        await ctx.log("info", f"step {number}")
        await asyncio.sleep(STEP_SEC)
    return {"steps": 10}


async def main() -> None:
    runtime = ARCPRuntime(
        runtime=RuntimeInfo(name="subscribe", version="1.0.0"),
        bearer=StaticBearerVerifier({TOKEN: "ada@example.com", f"{TOKEN}-of-bob": "bob@example.com"}),
        job_authorization_policy=everybody_may_watch,
    )
    runtime.register_agent("watched", watched)
    async with await serve_websocket(runtime.accept, port=PORT) as server:
        print(f"listening on {server.url}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    # SIGTERM ends it as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
