"""Hosts `report`, which has the agent `summarise` do a part of its job."""

import asyncio
import contextlib
import os
import signal
from typing import Any

from arcp import RuntimeInfo, serve_websocket
from arcp.runtime import ARCPRuntime, JobContext, StaticBearerVerifier

PORT = int(os.environ.get("ARCP_DEMO_PORT", "7777"))
TOKEN = os.environ.get("ARCP_DEMO_TOKEN", "demo-token")


async def report(input: Any, ctx: JobContext) -> Any:
    # The child may do no more than this job may, runs in this job's trace, and ends when this job is cancelled.
    child = await ctx.delegate("summarise", {"text": input["text"]}, delegate_id="summary")
    summary = await child.result()
    return {"summary": summary, "child_job_id": child.job_id, "trace_id": ctx.trace_id}


async def summarise(input: Any, ctx: JobContext) -> Any:
    return {"first_word": input["text"].split()[0], "trace_id": ctx.trace_id}


async def main() -> None:
    runtime = ARCPRuntime(
        runtime=RuntimeInfo(name="delegate", version="1.0.0"),
        bearer=StaticBearerVerifier({TOKEN: "demo@example.com"}),
    )
    runtime.register_agent("report", report)
    runtime.register_agent("summarise", summarise)
    async with await serve_websocket(runtime.accept, port=PORT) as server:
        print(f"listening on {server.url}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    # SIGTERM ends it as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
