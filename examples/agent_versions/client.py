"""Reads which versions a runtime hosts, runs the default one and a pinned one, and asks for one it lacks."""

import asyncio
import os

from arcp import AgentVersionNotAvailableError, ARCPClient, ClientInfo, WebSocketTransport
from arcp.messages import AgentInventoryEntry

URL = os.environ.get("ARCP_DEMO_URL", "ws://127.0.0.1:7777/arcp")
TOKEN = os.environ.get("ARCP_DEMO_TOKEN", "demo-token")


async def main() -> None:
    client = ARCPClient(client=ClientInfo(name="agent-versions", version="1.0.0"), token=TOKEN)
    async with client:
        await client.connect(await WebSocketTransport.connect(URL))
        assert client.welcome is not None
        (entry,) = client.welcome.capabilities.agents
        print(f"hosted: {entry}")
        assert isinstance(entry, AgentInventoryEntry)
        assert (entry.name, entry.default) == ("summarise", "1.2.3")
        assert set(entry.versions) == {"1.2.3", "2.0.0-beta"}

        for wanted, got in [("summarise", "summarise@1.2.3"), ("summarise@2.0.0-beta", "summarise@2.0.0-beta")]:
            handle = await client.submit(agent=wanted, input={"text": "Tides follow the moon."})
            result = (await handle.done).result
            print(f"{wanted}: {result}")
            assert handle.agent_ref == result["by"] == got

        try:
            await client.submit(agent="summarise@9.9.9", input={"text": ""})
        except AgentVersionNotAvailableError as error:
            print(f"summarise@9.9.9: {error.code}: {error.message}")
        else:
            raise AssertionError("there is no version 9.9.9")


if __name__ == "__main__":
    asyncio.run(main())
