"""Hosts `spender`, which buys from a model until its budget is used up."""

import asyncio
import contextlib
import os
import signal
from decimal import Decimal
from typing import Any

from arcp import BudgetExhaustedError, RuntimeInfo, serve_websocket
from arcp.runtime import ARCPRuntime, JobContext, StaticBearerVerifier

PORT = int(os.environ.get("ARCP_DEMO_PORT", "7777"))
TOKEN = os.environ.get("ARCP_DEMO_TOKEN", "demo-token")
PRICE = Decimal("0.30")


async def spender(input: Any, ctx: JobContext) -> Any:
    for number in range(1, 11):
        try:
            # Every operation asks first; it is refused once nothing is left.
            ctx.authorize("tool.call", "model")
        except BudgetExhaustedError as error:
            await ctx.tool_result(call_id=f"call-{number}", error=error)
            break
        await ctx.metric("cost.model", PRICE, "USD")
    return {"calls": number - 1, "left": str(ctx.budget["USD"])}


async def main() -> None:
    runtime = ARCPRuntime(
        runtime=RuntimeInfo(name="cost-budget", version="1.0.0"),
        bearer=StaticBearerVerifier({TOKEN: "demo@example.com"}),
    )
    runtime.register_agent("spender", spender)
    async with await serve_websocket(runtime.accept, port=PORT) as server:
        print(f"listening on {server.url}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    # SIGTERM ends it as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
