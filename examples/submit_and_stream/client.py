"""Submits a job, prints its events in order, then its result. Needs none of the optional features."""

import asyncio
import os

from arcp import ARCPClient, ClientInfo, WebSocketTransport

URL = os.environ.get("ARCP_DEMO_URL", "ws://127.0.0.1:7777/arcp")
TOKEN = os.environ.get("ARCP_DEMO_TOKEN", "demo-token")


async def main() -> None:
    client = ARCPClient(client=ClientInfo(name="submit-and-stream", version="1.0.0"), token=TOKEN, features=())
    async with client:
        await client.connect(await WebSocketTransport.connect(URL))
        # The tools an agent may call are part of what a job is granted.
        handle = await client.submit(
            agent="research", input={"topic": "tides"}, lease_request={"tool.call": ["search"]}
        )
        print(f"job {handle.job_id}")
        kinds = []
        async for event in handle.events():
            kinds.append(event["kind"])
            print(f"{len(kinds)}. {event['kind']}: {event['body']}")
        result = await handle.done
        print(f"{result.final_status}: {result.result}")

        assert kinds == [
            "status",
            "log",
            "thought",
            "tool_call",
            "tool_result",
            "metric",
            "artifact_ref",
            "status",
        ]
        assert client.negotiated_features == ()
        assert result.result == {"topic": "tides", "hits": 3}


if __name__ == "__main__":
    asyncio.run(main())
