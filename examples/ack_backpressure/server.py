"""Hosts `chatty`, which watches how far its client lags behind, and says so."""

import asyncio
import contextlib
import os
import signal
from typing import Any

from arcp import RuntimeInfo, serve_websocket
from arcp.runtime import ARCPRuntime, JobContext, StaticBearerVerifier

PORT = int(os.environ.get("ARCP_DEMO_PORT", "7777"))
TOKEN = os.environ.get("ARCP_DEMO_TOKEN", "demo-token")
MAX_LAG = 50
STEP_SEC = float(os.environ.get("ARCP_DEMO_STEP_SEC", "0.01"))


async def chatty(input: Any, ctx: JobContext) -> Any:
    session = ctx.job.session
    warned = False
    for number in range(input["events"]):
        await ctx.log("info", f"event {number}")
        lag = session.latest_event_seq - session.state.last_acked_seq
        if lag > MAX_LAG and not warned:
            await ctx.status("back_pressure", f"{lag} events are not acknowledged")
        warned = lag > MAX_LAG
        await asyncio.sleep(STEP_SEC)
    return {"sent": input["events"]}


async def main() -> None:
    runtime = ARCPRuntime(
        runtime=RuntimeInfo(name="ack-backpressure", version="1.0.0"),
        bearer=StaticBearerVerifier({TOKEN: "demo@example.com"}),
    )
    runtime.register_agent("chatty", chatty)
    async with await serve_websocket(runtime.accept, port=PORT) as server:
        print(f"listening on {server.url}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    # SIGTERM ends it as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
