"""Loses its connection in the middle of a job, takes the session up again, and misses nothing.

A client heals a lost link by itself; this is what a program does that was restarted, or that moved to another machine.
"""

import asyncio
import os

from arcp import ARCPClient, ClientInfo, SessionResume, WebSocketTransport

URL = os.environ.get("ARCP_DEMO_URL", "ws://127.0.0.1:7777/arcp")
TOKEN = os.environ.get("ARCP_DEMO_TOKEN", "demo-token")


async def main() -> None:
    transport = await WebSocketTransport.connect(URL)
    first = ARCPClient(client=ClientInfo(name="resume", version="1.0.0"), token=TOKEN)
    welcome = await first.connect(transport)
    handle = await first.submit(agent="steps")

    heard = []
    async for event in handle.events():
        print(f"before: {event['body']['message']}")
        heard.append(event["body"]["message"])
        last_event_seq = event.event_seq
        if len(heard) == 2:
            break
    # No goodbye: to the runtime this looks like a lost link. The agent goes on.
    await transport.close()

    second = ARCPClient(client=ClientInfo(name="resume", version="1.0.0"), token=TOKEN)
    async with second:
        resumed = await second.resume(
            await WebSocketTransport.connect(URL),
            resume=SessionResume(
                session_id=welcome.session_id,
                resume_token=welcome.resume_token,
                last_event_seq=last_event_seq,
            ),
        )
        print(f"session {resumed.session_id} goes on behind event {last_event_seq}")
        handle = second.job(handle.job_id)
        async for event in handle.events():
            print(f"after: {event['body']['message']}")
            heard.append(event["body"]["message"])
        result = await handle.done
        print(f"{result.final_status}: {result.result}")

    assert resumed.session_id == welcome.session_id
    # Each welcome brings a new one, and only the newest is good.
    assert resumed.resume_token != welcome.resume_token
    assert heard == [f"step {number}" for number in range(1, 11)], "every step once, in order"
    assert result.result == {"steps": 10}


if __name__ == "__main__":
    asyncio.run(main())
