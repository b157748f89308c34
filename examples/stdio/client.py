"""Starts an agent as a child process and speaks with it over its pipes: no port, no server to set up."""

import asyncio
import os
import sys
from pathlib import Path

from arcp import ARCPClient, ClientInfo, StdioTransport

SERVER = Path(__file__).with_name("server.py")
TOKEN = os.environ.get("ARCP_DEMO_TOKEN", "demo-token")


async def main() -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable, str(SERVER), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    client = ARCPClient(client=ClientInfo(name="stdio", version="1.0.0"), token=TOKEN)
    async with client:
        await client.connect(await StdioTransport.from_process_pipes(child))
        handle = await client.submit(agent="echo", input={"hi": 1})
        messages = [event["body"]["message"] async for event in handle.events()]
        result = await handle.done
        print(f"{messages}, {result.final_status}: {result.result}")
        assert messages == ["echo started"]
        assert result.result == {"echoed": {"hi": 1}}
    # Its session is over and its input closed, so it ends by itself.
    status = await asyncio.wait_for(child.wait(), timeout=10)
    print(f"the child has ended with status {status}")
    assert status == 0


if __name__ == "__main__":
    asyncio.run(main())
