"""Hosts `echo` for whoever started this process, over its standard input and output."""

import asyncio
import contextlib
import os
import signal
import sys
from typing import Any

from arcp import RuntimeInfo, StdioTransport
from arcp.runtime import ARCPRuntime, JobContext, StaticBearerVerifier

TOKEN = os.environ.get("ARCP_DEMO_TOKEN", "demo-token")


async def echo(input: Any, ctx: JobContext) -> Any:
    await ctx.log("info", "echo started")
    return {"echoed": input}


async def main() -> None:
    runtime = ARCPRuntime(
        runtime=RuntimeInfo(name="stdio", version="1.0.0"),
        bearer=StaticBearerVerifier({TOKEN: "parent@example.com"}),
    )
    runtime.register_agent("echo", echo)
    transport = await StdioTransport.from_std_streams()
    # Standard output carries messages; words for people go to standard error.
    print("server: serving my parent", file=sys.stderr, flush=True)
    await runtime.accept(transport)
    print("server: my parent has left", file=sys.stderr, flush=True)


if __name__ == "__main__":
    # SIGTERM ends it as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
