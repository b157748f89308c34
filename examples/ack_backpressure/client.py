"""Acknowledges by hand, and only when the agent complains.

Left to itself, a client acknowledges what its program has taken from `events()`, a few times a second.
"""

import asyncio
import os

from arcp import ARCPClient, ClientInfo, WebSocketTransport

URL = os.environ.get("ARCP_DEMO_URL", "ws://127.0.0.1:7777/arcp")
TOKEN = os.environ.get("ARCP_DEMO_TOKEN", "demo-token")


async def main() -> None:
    client = ARCPClient(client=ClientInfo(name="ack-backpressure", version="1.0.0"), token=TOKEN, auto_ack=False)
    async with client:
        await client.connect(await WebSocketTransport.connect(URL))
        handle = await client.submit(agent="chatty", input={"events": 200})
        logs = warnings = 0
        async for event in handle.events():
            if event["kind"] == "log":
                logs += 1
            elif event["body"]["phase"] == "back_pressure":
                warnings += 1
                print(f"back pressure: {event['body']['message']}; acknowledging")
                await client.ack(client.latest_event_seq)
        result = await handle.done
        print(f"{result.final_status}: {logs} events, {warnings} warnings")

        assert client.has_feature("ack")
        assert warnings > 1, "after the first acknowledgement the lag fell and grew again"
        assert logs == result.result["sent"] == 200


if __name__ == "__main__":
    asyncio.run(main())
