"""Submits a job whose agent delegates, and sees the child's start, its end and the trace they share."""

import asyncio
import os

from arcp import ARCPClient, ClientInfo, WebSocketTransport

URL = os.environ.get("ARCP_DEMO_URL", "ws://127.0.0.1:7777/arcp")
TOKEN = os.environ.get("ARCP_DEMO_TOKEN", "demo-token")


async def main() -> None:
    client = ARCPClient(client=ClientInfo(name="delegate", version="1.0.0"), token=TOKEN)
    async with client:
        await client.connect(await WebSocketTransport.connect(URL))
        handle = await client.submit(
            agent="report",
            input={"text": "Tides follow the moon."},
            # Without it the agent may delegate to nobody.
            lease_request={"agent.delegate": ["summarise"]},
        )
        events = {}
        async for event in handle.events():
            events[event["kind"]] = event["body"]
            print(f"{event['kind']}: {event['body']}")
        result = (await handle.done).result
        print(f"parent and child ran in trace {result['trace_id']}")

        assert events["delegate"]["agent"] == "summarise"
        # The child is named from the beginning: one could subscribe to it and watch.
        assert events["delegate"]["child_job_id"] == result["child_job_id"] != handle.job_id
        # A delegation is answered like a call of a tool.
        assert events["tool_result"]["call_id"] == events["delegate"]["delegate_id"] == "summary"
        assert events["tool_result"]["result"]["child_job_id"] == result["child_job_id"]
        assert result["summary"]["trace_id"] == result["trace_id"] == handle.trace_id
        assert result["trace_id"]


if __name__ == "__main__":
    asyncio.run(main())
