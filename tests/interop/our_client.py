"""Run by our package: our client against the published runtime."""

import asyncio
import sys

from arcp import ARCPClient, ClientInfo, WebSocketTransport


async def main(url: str, token: str) -> None:
    client = ARCPClient(client=ClientInfo(name="ours", version="1"), token=token)
    await client.connect(await WebSocketTransport.connect(url))
    assert client.session_id
    handle = await client.submit(agent="echo", input={"hi": 1})
    kinds = [event["kind"] async for event in handle.events()]
    result = await handle.done
    assert kinds == ["log"], kinds
    assert result.result == {"echoed": {"hi": 1}}, result
    await client.close()


asyncio.run(asyncio.wait_for(main(sys.argv[1], sys.argv[2]), 30))
