"""Hosts two versions of `summarise`."""

import asyncio
import contextlib
import os
import signal
from typing import Any

from arcp import RuntimeInfo, serve_websocket
from arcp.runtime import Agent, ARCPRuntime, JobContext, StaticBearerVerifier

PORT = int(os.environ.get("ARCP_DEMO_PORT", "7777"))
TOKEN = os.environ.get("ARCP_DEMO_TOKEN", "demo-token")


def version(number: str) -> Agent:
    async def summarise(input: Any, ctx: JobContext) -> Any:
        return {"summary": input["text"][:10], "by": ctx.agent_ref, "written for": number}

    return summarise


async def main() -> None:
    runtime = ARCPRuntime(
        runtime=RuntimeInfo(name="agent-versions", version="1.0.0"),
        bearer=StaticBearerVerifier({TOKEN: "demo@example.com"}),
    )
    runtime.register_agent_version("summarise", "1.2.3", version("1.2.3"))
    runtime.register_agent_version("summarise", "2.0.0-beta", version("2.0.0-beta"))
    # What a bare `summarise` means.
    runtime.set_default_agent_version("summarise", "1.2.3")
    async with await serve_websocket(runtime.accept, port=PORT) as server:
        print(f"listening on {server.url}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    # SIGTERM ends it as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
