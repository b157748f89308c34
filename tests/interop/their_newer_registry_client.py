"""The published client of version 2.1.2 registers at our registry: three phases are refused, the plain way is taken."""

import asyncio
import sys

from arcp import ARCPClient

URL, AGENT = sys.argv[1:]


async def main() -> None:
    client = ARCPClient(URL)
    registered = await client.register_agent(
        agent_id="newer-agent",
        name="Newer Agent",
        agent_type="testing",
        endpoint=AGENT,
        capabilities=["data-processing"],
        context_brief="An agent of the newer published client",
        version="1.0.0",
        owner="Interop",
        public_key="interop-public-key-0123456789-abcdefghij",
        communication_mode="remote",
        metadata={"framework": "fastapi"},
        ai_context="What an assistant should know of it",
        agent_key="test-agent-002",
    )
    assert (registered.agent_id, registered.status) == ("newer-agent", "alive"), registered
    assert (await client.update_heartbeat("newer-agent"))["status"] == "success"
    found = await client.discover_agents()
    assert [each.agent_id for each in found] == ["newer-agent"], found
    assert (await client.unregister_agent("newer-agent"))["status"] == "success"
    await client.close()
    print("registered, beat, discovered, unregistered")


asyncio.run(asyncio.wait_for(main(), 60))
