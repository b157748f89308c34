"""Grants a job one dollar, watches it dwindle to the last cent, and sees the runtime stop the spending."""

import asyncio
import os
from decimal import Decimal

from arcp import ARCPClient, ClientInfo, WebSocketTransport

URL = os.environ.get("ARCP_DEMO_URL", "ws://127.0.0.1:7777/arcp")
TOKEN = os.environ.get("ARCP_DEMO_TOKEN", "demo-token")


async def main() -> None:
    client = ARCPClient(client=ClientInfo(name="cost-budget", version="1.0.0"), token=TOKEN)
    async with client:
        await client.connect(await WebSocketTransport.connect(URL))
        handle = await client.submit(
            agent="spender", lease_request={"cost.budget": ["USD:1.00"], "tool.call": ["model"]}
        )
        print(f"budget: {handle.budget}")
        left = []
        refused = None
        async for event in handle.events():
            body = event["body"]
            if event["kind"] == "metric" and body["name"] == "cost.budget.remaining":
                left.append(Decimal(str(body["value"])))
                print(f"remaining: {left[-1]} {body['unit']}")
            elif event["kind"] == "tool_result":
                refused = body["error"]["code"]
                print(f"{body['call_id']}: {refused}: {body['error']['message']}")
        result = await handle.done
        print(f"{result.final_status}: {result.result}")

        # The call that overspends is booked; the next one is refused.
        assert left == [Decimal("0.70"), Decimal("0.40"), Decimal("0.10"), Decimal("-0.20")]
        assert refused == "BUDGET_EXHAUSTED"
        assert result.result == {"calls": 4, "left": "-0.2"}


if __name__ == "__main__":
    asyncio.run(main())
