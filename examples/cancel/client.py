"""Cancels a job that would run for half a minute, after a second and a half."""

import asyncio
import os
import time

from arcp import ARCPClient, CancelledError, ClientInfo, WebSocketTransport

URL = os.environ.get("ARCP_DEMO_URL", "ws://127.0.0.1:7777/arcp")
TOKEN = os.environ.get("ARCP_DEMO_TOKEN", "demo-token")
AFTER_SEC = float(os.environ.get("ARCP_DEMO_AFTER_SEC", "1.5"))


async def main() -> None:
    client = ARCPClient(client=ClientInfo(name="cancel", version="1.0.0"), token=TOKEN)
    async with client:
        await client.connect(await WebSocketTransport.connect(URL))
        handle = await client.submit(agent="ticker")
        begun = time.monotonic()

        async def cancel_later() -> None:
            await asyncio.sleep(AFTER_SEC)
            print("cancelling")
            await client.cancel_job(handle.job_id, reason="seen enough")

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(cancel_later())
            messages = []
            async for event in handle.events():
                print(event["body"]["message"])
                messages.append(event["body"]["message"])
        try:
            await handle.done
        except CancelledError as error:
            took = time.monotonic() - begun
            print(f"{error.code} after {took:.1f} s: {error.message}")
        else:
            raise AssertionError("the job was not cancelled")

        assert messages[0] == "tick 0"
        assert messages[-1] == "cleaning up"
        assert took < 10


if __name__ == "__main__":
    asyncio.run(main())
