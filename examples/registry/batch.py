"""Registers several agents at once from one client, which keeps a token for each of them."""

import asyncio
import os

from arcp import AgentInfo, ARCPClient, ARCPError

REGISTRY = os.environ.get("ARCP_DEMO_REGISTRY", "http://127.0.0.1:8001")
# A key serves one agent at a time; these are of `arcp registry serve --dev`.
KEYS = os.environ.get("ARCP_DEMO_KEYS", "test-agent-001,test-agent-002,test-agent-003").split(",")


async def main() -> None:
    async with ARCPClient(REGISTRY) as registry:

        async def register(number: int, key: str) -> AgentInfo:
            return await registry.register_agent(
                agent_id=f"shelf-{number}",
                name=f"Shelf {number}",
                agent_type="automation",
                endpoint=f"http://127.0.0.1:{8100 + number}",
                capabilities=["storage"],
                context_brief=f"Shelf number {number} of the warehouse.",
                agent_key=key,
            )

        # The last of them shares a key, which is refused; the others are registered all the same.
        keys = [*KEYS, KEYS[0]]
        results = await asyncio.gather(
            *(register(number, key) for number, key in enumerate(keys, start=1)), return_exceptions=True
        )
        registered = [result for result in results if isinstance(result, AgentInfo)]
        refused = [result for result in results if isinstance(result, Exception)]
        print(f"registered: {', '.join(sorted(agent.agent_id for agent in registered))}")
        for error in refused:
            print(f"refused: {error}")

        beats = await asyncio.gather(*(registry.update_heartbeat(agent.agent_id) for agent in registered))
        print(f"heartbeats: {', '.join(beat['status'] for beat in beats)}")
        await asyncio.gather(*(registry.unregister_agent(agent.agent_id) for agent in registered))
        left = await registry.discover_agents(capabilities=["storage"])
        print(f"left: {len(left)}")

        assert len(registered) == len(KEYS)
        assert len(refused) == 1
        assert isinstance(refused[0], ARCPError)
        assert not left


if __name__ == "__main__":
    asyncio.run(main())
