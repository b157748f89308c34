"""Hosts `research`, an agent that tells what it does with events of every common kind."""

import asyncio
import contextlib
import os
import signal
from typing import Any

from arcp import RuntimeInfo, serve_websocket
from arcp.runtime import ARCPRuntime, JobContext, StaticBearerVerifier

PORT = int(os.environ.get("ARCP_DEMO_PORT", "7777"))
TOKEN = os.environ.get("ARCP_DEMO_TOKEN", "demo-token")


async def research(input: Any, ctx: JobContext) -> Any:
    await ctx.status("started", "looking for sources")
    await ctx.log("info", "research started", {"topic": input["topic"]})
    await ctx.thought("one search should do")
    await ctx.tool_call(tool="search", args={"q": input["topic"]}, call_id="call-1")
    await ctx.tool_result(call_id="call-1", result={"hits": 3})
    await ctx.metric("search.hits", 3, "pages")
    await ctx.artifact_ref(uri="https://files.example.com/notes.md", content_type="text/markdown", byte_size=2048)
    await ctx.status("finished")
    return {"topic": input["topic"], "hits": 3}


async def main() -> None:
    runtime = ARCPRuntime(
        runtime=RuntimeInfo(name="submit-and-stream", version="1.0.0"),
        bearer=StaticBearerVerifier({TOKEN: "demo@example.com"}),
    )
    runtime.register_agent("research", research)
    async with await serve_websocket(runtime.accept, port=PORT) as server:
        print(f"listening on {server.url}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    # SIGTERM ends it as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
